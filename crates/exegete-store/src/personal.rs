//! What a person says about latents, in `run.sqlite` beside what methods say: notes, bookmarks, ratings, labels.

use std::time::{SystemTime, UNIX_EPOCH};

use exegete_base::LatentId;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::notes::{BEST_OF_SCALES, Notes, RANDOM};

/// The tables that version 2 adds.
pub(crate) const SCHEMA: &str = "
CREATE TABLE ratings (
    id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, method TEXT NOT NULL, rank INTEGER NOT NULL, text TEXT NOT NULL,
    grade INTEGER NOT NULL, seed INTEGER NOT NULL, created_secs INTEGER NOT NULL
);
CREATE INDEX ratings_by_latent ON ratings (latent);
CREATE TABLE labels (
    latent INTEGER PRIMARY KEY, method TEXT NOT NULL, scale REAL, text TEXT NOT NULL, created_secs INTEGER NOT NULL
);
CREATE INDEX notes_by_latent ON notes (latent);
PRAGMA user_version = 2;
";

/// A note of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its number.
    pub id: i64,
    /// The latent that it is about.
    pub latent: u32,
    /// What it says.
    pub text: String,
    /// When it was written, in seconds since 1970.
    pub created_secs: u64,
}

/// A text that a person picked for a latent, among those of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The method that made the text.
    pub method: String,
    /// The scale at which it was made; none where the method has none.
    pub scale: Option<f64>,
    /// The text.
    pub text: String,
    /// When it was picked, in seconds since 1970.
    pub created_secs: u64,
}

/// A person's judgement of a text, made without knowing whose text it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// The latent.
    pub latent: u32,
    /// The method that made the text.
    pub method: String,
    /// Its place among the method's texts.
    pub rank: u32,
    /// The text as it was shown.
    pub text: String,
    /// From 1 (wrong) to 5 (right); 0 where the person could not tell.
    pub grade: u8,
    /// Seed of the order and of the examples that were shown.
    pub seed: u64,
    /// When it was made, in seconds since 1970.
    pub created_secs: u64,
}

/// A text that may be rated, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in the table of explanations.
    pub id: i64,
    /// The latent.
    pub latent: u32,
    /// The method that made it.
    pub method: String,
    /// Its place among the method's texts.
    pub rank: u32,
    /// The text.
    pub text: String,
}

impl Notes {
    /// Adds a note and returns its number.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn add_note(&self, latent: LatentId, text: &str) -> Result<i64> {
        self.sql(|connection| {
            connection.execute(
                "INSERT INTO notes (latent, text, created_secs) VALUES (?, ?, ?)",
                params![latent.0, text, now_secs()],
            )?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Removes a note; whether there was one.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn remove_note(&self, id: i64) -> Result<bool> {
        self.sql(|connection| Ok(connection.execute("DELETE FROM notes WHERE id = ?", params![id])? > 0))
    }

    /// The notes on a latent, in the order in which they were written.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn notes_of(&self, latent: LatentId) -> Result<Vec<Note>> {
        let query = "SELECT id, latent, text, created_secs FROM notes WHERE latent = ? ORDER BY id";
        self.rows(query, params![latent.0], |row| {
            Ok(Note { id: row.get(0)?, latent: row.get(1)?, text: row.get(2)?, created_secs: secs(row.get(3)?) })
        })
    }

    /// Latents with notes, ascending.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn noted_latents(&self) -> Result<Vec<LatentId>> {
        self.rows("SELECT DISTINCT latent FROM notes ORDER BY latent", [], |row| row.get(0).map(LatentId))
    }

    /// Latents with a note that holds `text`, letter case aside.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn noted_with(&self, text: &str) -> Result<Vec<LatentId>> {
        let query = "SELECT DISTINCT latent FROM notes WHERE instr(lower(text), lower(?)) > 0 ORDER BY latent";
        self.rows(query, params![text], |row| row.get(0).map(LatentId))
    }

    /// Sets or takes away the bookmark of a latent.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn set_bookmark(&self, latent: LatentId, is_set: bool) -> Result<()> {
        self.sql(|connection| match is_set {
            true => connection.execute(
                "INSERT OR IGNORE INTO bookmarks (latent, created_secs) VALUES (?, ?)",
                params![latent.0, now_secs()],
            ),
            false => connection.execute("DELETE FROM bookmarks WHERE latent = ?", params![latent.0]),
        })?;
        Ok(())
    }

    /// Latents with a bookmark, ascending.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn bookmarks(&self) -> Result<Vec<LatentId>> {
        self.rows("SELECT latent FROM bookmarks ORDER BY latent", [], |row| row.get(0).map(LatentId))
    }

    /// Whether a latent has a bookmark.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn is_bookmarked(&self, latent: LatentId) -> Result<bool> {
        let query = "SELECT 1 FROM bookmarks WHERE latent = ?";
        Ok(!self.rows(query, params![latent.0], |row| row.get::<_, i64>(0))?.is_empty())
    }

    /// Keeps a text as a latent's label, in place of any before.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn set_label(&self, latent: LatentId, method: &str, scale: Option<f64>, text: &str) -> Result<()> {
        self.sql(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO labels (latent, method, scale, text, created_secs) VALUES (?, ?, ?, ?, ?)",
                params![latent.0, method, scale.filter(|scale| scale.is_finite()), text, now_secs()],
            )
        })?;
        Ok(())
    }

    /// Takes a latent's label away.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn remove_label(&self, latent: LatentId) -> Result<()> {
        self.sql(|connection| connection.execute("DELETE FROM labels WHERE latent = ?", params![latent.0]))?;
        Ok(())
    }

    /// The label of a latent.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn label_of(&self, latent: LatentId) -> Result<Option<Label>> {
        if !self.has_personal()? {
            return Ok(None);
        }
        let query = "SELECT method, scale, text, created_secs FROM labels WHERE latent = ?";
        let labels = self.rows(query, params![latent.0], |row| {
            Ok(Label { method: row.get(0)?, scale: row.get(1)?, text: row.get(2)?, created_secs: secs(row.get(3)?) })
        })?;
        Ok(labels.into_iter().next())
    }

    /// All labels by latent.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn labels(&self) -> Result<Vec<(LatentId, String)>> {
        if !self.has_personal()? {
            return Ok(Vec::new());
        }
        self.rows("SELECT latent, text FROM labels ORDER BY latent", [], |row| Ok((LatentId(row.get(0)?), row.get(1)?)))
    }

    /// Texts that may be rated: those that are not empty, abstentions included, by number; of what is said at many scales the best.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn candidates(&self) -> Result<Vec<Candidate>> {
        let query = "SELECT id, latent, method, rank, text FROM explanations
                     WHERE trim(text) <> '' AND method <> ? AND (scale IS NULL OR rank < ?) ORDER BY id";
        self.rows(query, params![RANDOM, BEST_OF_SCALES], candidate_in)
    }

    /// A text that may be rated.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn candidate(&self, id: i64) -> Result<Option<Candidate>> {
        let query = "SELECT id, latent, method, rank, text FROM explanations WHERE id = ?";
        Ok(self.rows(query, params![id], candidate_in)?.pop())
    }

    /// Stores a person's judgement of a text.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn rate(&self, candidate: &Candidate, grade: u8, seed: u64) -> Result<()> {
        self.sql(|connection| {
            connection.execute(
                "INSERT INTO ratings (latent, method, rank, text, grade, seed, created_secs) VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    candidate.latent,
                    candidate.method,
                    candidate.rank,
                    candidate.text,
                    grade,
                    // SQLite knows no unsigned numbers; the bits are kept.
                    seed.cast_signed(),
                    now_secs()
                ],
            )
        })?;
        Ok(())
    }

    /// All ratings, in the order in which they were made.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn ratings(&self) -> Result<Vec<Rating>> {
        if !self.has_personal()? {
            return Ok(Vec::new());
        }
        let query = "SELECT latent, method, rank, text, grade, seed, created_secs FROM ratings ORDER BY id";
        self.rows(query, [], |row| {
            Ok(Rating {
                latent: row.get(0)?,
                method: row.get(1)?,
                rank: row.get(2)?,
                text: row.get(3)?,
                grade: row.get(4)?,
                seed: row.get::<_, i64>(5)?.cast_unsigned(),
                created_secs: secs(row.get(6)?),
            })
        })
    }
}

fn candidate_in(row: &rusqlite::Row) -> rusqlite::Result<Candidate> {
    Ok(Candidate { id: row.get(0)?, latent: row.get(1)?, method: row.get(2)?, rank: row.get(3)?, text: row.get(4)? })
}

fn now_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn secs(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
