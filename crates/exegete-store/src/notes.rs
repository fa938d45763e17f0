//! `run.sqlite`: what is said about latents. Small and mutable, with full-text search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use exegete_base::LatentId;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Result, StoreError};
use crate::killpoint::killpoint;
use crate::{personal, scores};

/// What each version of the tables, SQLite's `user_version`, adds to the one before. Older ones are read as they are, and brought up
/// to date when they are written.
const SCHEMAS: [&str; 3] = [SCHEMA, personal::SCHEMA, scores::SCHEMA];
const NOTES_VERSION: u64 = SCHEMAS.len() as u64;
/// The versions from which on ratings and labels are there, and scores.
const PERSONAL_SINCE: u64 = 2;
const SCORES_SINCE: u64 = 3;

const SCHEMA: &str = "
CREATE TABLE explanations (
    id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, method TEXT NOT NULL, rank INTEGER NOT NULL, text TEXT NOT NULL,
    scale REAL, score REAL, abstained INTEGER NOT NULL, settings TEXT NOT NULL,
    UNIQUE (latent, method, rank)
);
CREATE INDEX explanations_by_method ON explanations (method, latent);
CREATE TABLE curves (
    latent INTEGER NOT NULL, method TEXT NOT NULL, scales TEXT NOT NULL, curves TEXT NOT NULL,
    PRIMARY KEY (latent, method)
);
CREATE TABLE notes (
    id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, text TEXT NOT NULL, created_secs INTEGER NOT NULL
);
CREATE TABLE bookmarks (latent INTEGER PRIMARY KEY, created_secs INTEGER NOT NULL);
CREATE VIRTUAL TABLE explanation_text USING fts5 (text, content = 'explanations', content_rowid = 'id');
CREATE TRIGGER explanations_added AFTER INSERT ON explanations BEGIN
    INSERT INTO explanation_text (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER explanations_removed AFTER DELETE ON explanations BEGIN
    INSERT INTO explanation_text (explanation_text, rowid, text) VALUES ('delete', old.id, old.text);
END;
PRAGMA user_version = 1;
";

/// The method whose texts are controls: what the model says of directions drawn at random. They are nobody's explanations.
pub const RANDOM: &str = "random";

/// Of what a method says at many scales, the texts that go out of the run: into exports, and before people who rate.
pub(crate) const BEST_OF_SCALES: u32 = 3;

/// Name of the curve of self-similarity near the end of the model.
pub const SELF_SIMILARITY: &str = "self-similarity";
/// Name of the curve of the answer's entropy.
pub const ENTROPY: &str = "entropy";
/// Name of the curve of the answer's cross-entropy to what is said under the mean embedding.
pub const CROSS_ENTROPY: &str = "cross-entropy to the mean embedding";

/// What the names of curves begin with that are one layer's self-similarity; the layer's number, of three digits, follows.
pub const BY_LAYER: &str = "self-similarity after layer ";

/// Name of the curve that has each scale's text, by its rank; no number where nothing is said.
pub const SAID: &str = "text by rank";

/// A text that a method gave for a latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The method's name.
    pub method: String,
    /// Place among the method's texts for this latent, the best first, from 0.
    pub rank: u32,
    /// The text. Where the method abstained, what it would have said, or nothing.
    pub text: String,
    /// Scale at which the text was made; NaN where the method has none.
    pub scale: f64,
    /// The method's own score; NaN where it has none.
    pub score: f64,
    /// Whether the method holds that it does not know.
    pub abstained: bool,
    /// Settings of the method, for a person to read.
    pub settings: Value,
}

/// What a method measured over its scales.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// The scales.
    pub scales: Vec<f64>,
    /// Named curves over the scales.
    pub curves: BTreeMap<String, Vec<f64>>,
}

/// The notes of a run.
pub struct Notes {
    path: PathBuf,
    connection: Connection,
}

impl Notes {
    /// Opens the database for writing and makes the tables if they are not there.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`], or [`StoreError::Version`] for tables of another version.
    pub fn open(path: &Path) -> Result<Notes> {
        let failed = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        if version_of(&connection).map_err(failed)? < NOTES_VERSION {
            // Looked at again with the lock held: another process may have been faster.
            let behaviour = rusqlite::TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behaviour).map_err(failed)?;
            let version = version_of(&transaction).map_err(failed)?;
            for schema in SCHEMAS.iter().skip(version as usize) {
                transaction.execute_batch(schema).map_err(failed)?;
            }
            transaction.commit().map_err(failed)?;
        }
        Self::checked(path, connection)
    }

    /// Opens the database for reading, on a read-only medium too.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`], or [`StoreError::Version`] for tables of another version.
    pub fn open_read_only(path: &Path) -> Result<Notes> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let plain = Connection::open_with_flags(path, flags).map_err(failed)?;
        plain.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
        if version_of(&plain).is_ok() {
            let notes = Self::checked(path, plain)?;
            notes.check_length()?;
            return Ok(notes);
        }
        // A database in WAL mode wants to make its index file; where it cannot, nobody else can be writing either.
        let uri = format!("file:{}?immutable=1", uri_path(path));
        Self::checked(path, Connection::open_with_flags(uri, flags).map_err(failed)?)
    }

    /// Checks that the file was not cut short, which a table whose pages are all there would not show.
    fn check_length(&self) -> Result<()> {
        let mut journal = self.path.clone().into_os_string();
        journal.push("-wal");
        // Pages may stand in the journal that are not in the file yet.
        if std::fs::metadata(journal).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        let pages: u64 = self.sql(|c| c.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)))?.unsigned_abs();
        let size: u64 = self.sql(|c| c.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)))?.unsigned_abs();
        let len = std::fs::metadata(&self.path).map_err(StoreError::io("read", &self.path))?.len();
        match len < pages.saturating_mul(size) {
            true => Err(StoreError::damaged(&self.path, format!("it was cut short: {pages} pages are expected"))),
            false => Ok(()),
        }
    }

    fn checked(path: &Path, connection: Connection) -> Result<Notes> {
        let notes = Notes { path: path.to_owned(), connection };
        let found = notes.sql(version_of)?;
        if !(1..=NOTES_VERSION).contains(&found) {
            return Err(StoreError::Version { path: notes.path, what: "notes", found, expected: NOTES_VERSION });
        }
        Ok(notes)
    }

    /// Replaces all that a method says about a latent, in one transaction. Ranks follow the order given.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn put_explanations(
        &mut self,
        latent: LatentId,
        method: &str,
        explanations: &[Explanation],
        curves: &Curves,
    ) -> Result<()> {
        self.transaction(|transaction| {
            transaction
                .execute("DELETE FROM explanations WHERE latent = ? AND method = ?", params![latent.0, method])?;
            for (rank, e) in explanations.iter().enumerate() {
                transaction.execute(
                    "INSERT INTO explanations (latent, method, rank, text, scale, score, abstained, settings)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    params![
                        latent.0,
                        method,
                        rank as u32,
                        e.text,
                        finite(e.scale),
                        finite(e.score),
                        e.abstained,
                        e.settings.to_string()
                    ],
                )?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO curves (latent, method, scales, curves) VALUES (?, ?, ?, ?)",
                params![latent.0, method, json_of(&curves.scales).to_string(), json_of_curves(curves)],
            )?;
            Ok(())
        })
    }

    /// Latents that a method has dealt with, abstentions included, ascending.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn explained_latents(&self, method: &str) -> Result<Vec<LatentId>> {
        // Curves are written with every result, even with an empty list of texts.
        self.rows("SELECT latent FROM curves WHERE method = ? ORDER BY latent", params![method], |row| {
            row.get(0).map(LatentId)
        })
    }

    /// All texts about a latent, by method and rank.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn explanations_of(&self, latent: LatentId) -> Result<Vec<Explanation>> {
        let query = "SELECT method, rank, text, scale, score, abstained, settings FROM explanations
                     WHERE latent = ? ORDER BY method, rank";
        self.rows(query, params![latent.0], |row| {
            Ok(Explanation {
                method: row.get(0)?,
                rank: row.get(1)?,
                text: row.get(2)?,
                scale: row.get::<_, Option<f64>>(3)?.unwrap_or(f64::NAN),
                score: row.get::<_, Option<f64>>(4)?.unwrap_or(f64::NAN),
                abstained: row.get(5)?,
                settings: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
            })
        })
    }

    /// The curves of a latent by method.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`], or [`StoreError::Damaged`] if they are not what we write.
    pub fn curves_of(&self, latent: LatentId) -> Result<BTreeMap<String, Curves>> {
        let query = "SELECT method, scales, curves FROM curves WHERE latent = ?";
        let rows: Vec<(String, String, String)> =
            self.rows(query, params![latent.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut by_method = BTreeMap::new();
        for (method, scales, curves) in rows {
            let damaged = |e| StoreError::damaged(&self.path, format!("the curves of latent {}: {e}", latent.0));
            let scales: Vec<Option<f64>> = serde_json::from_str(&scales).map_err(damaged)?;
            let curves: BTreeMap<String, Vec<Option<f64>>> = serde_json::from_str(&curves).map_err(damaged)?;
            let curves = curves.into_iter().map(|(name, values)| (name, numbers_of(values))).collect();
            by_method.insert(method, Curves { scales: numbers_of(scales), curves });
        }
        Ok(by_method)
    }

    /// The best text of each latent that has one, abstentions left out. Of several methods the first by name counts.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn first_texts(&self) -> Result<BTreeMap<LatentId, String>> {
        let query = "SELECT latent, text FROM explanations WHERE abstained = 0 AND text <> '' AND method <> 'random'
                     ORDER BY method DESC, rank DESC";
        // Later rows replace earlier ones, so the first by (method, rank) stays.
        let rows = self.rows(query, [], |row| Ok((LatentId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.into_iter().collect())
    }

    /// The best text of one latent, as [`Notes::first_texts`] has it.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn first_text(&self, latent: LatentId) -> Result<Option<String>> {
        let query =
            "SELECT text FROM explanations WHERE latent = ? AND abstained = 0 AND text <> '' AND method <> 'random'
                     ORDER BY method, rank LIMIT 1";
        Ok(self.rows(query, params![latent.0], |row| row.get(0))?.pop())
    }

    /// A number that is another one when another connection has changed anything.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn data_version(&self) -> Result<i64> {
        self.sql(|connection| connection.query_row("PRAGMA data_version", [], |row| row.get(0)))
    }

    /// Whether the tables of [`personal`] are there.
    pub(crate) fn has_personal(&self) -> Result<bool> {
        Ok(self.sql(version_of)? >= PERSONAL_SINCE)
    }

    /// Whether the table of [`scores`] is there.
    pub(crate) fn has_scores(&self) -> Result<bool> {
        Ok(self.sql(version_of)? >= SCORES_SINCE)
    }

    /// Runs changes in one transaction.
    pub(crate) fn transaction(
        &mut self,
        change: impl FnOnce(&rusqlite::Transaction) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let run = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            change(&transaction)?;
            killpoint("sqlite.commit");
            transaction.commit()
        };
        run(&mut self.connection).map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }

    /// Latents with a text that holds every word of `text` (the last one as a beginning), best match first.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn search(&self, text: &str) -> Result<Vec<(LatentId, String)>> {
        let Some(query) = fts_query(text) else { return Ok(Vec::new()) };
        let sql = "SELECT latent, explanations.text FROM explanation_text
                   JOIN explanations ON explanations.id = explanation_text.rowid
                   WHERE explanation_text MATCH ? AND method <> 'random' ORDER BY explanation_text.rank, latent";
        self.rows(sql, params![query], |row| Ok((LatentId(row.get(0)?), row.get(1)?)))
    }

    pub(crate) fn rows<R>(
        &self,
        query: &str,
        arguments: impl rusqlite::Params,
        row_of: impl FnMut(&rusqlite::Row) -> rusqlite::Result<R>,
    ) -> Result<Vec<R>> {
        self.sql(|connection| connection.prepare_cached(query)?.query_map(arguments, row_of)?.collect())
    }

    pub(crate) fn sql<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        ask(&self.connection).map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

fn version_of(connection: &Connection) -> rusqlite::Result<u64> {
    let version: Option<i64> = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).optional()?;
    Ok(version.unwrap_or(0).unsigned_abs())
}

/// What a user typed, as a query: each word a quoted phrase, so that no sign of it means anything to FTS5.
fn fts_query(text: &str) -> Option<String> {
    // A word without a letter or digit has no token, and would match nothing at all.
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| format!("\"{}\"", word.replace('"', "\"\"")))
        .collect();
    (!words.is_empty()).then(|| words.join(" ") + "*")
}

/// SQLite and JSON know no NaN: it is stored as null.
pub(crate) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn json_of(values: &[f64]) -> Value {
    values.iter().map(|&v| finite(v)).collect::<Vec<_>>().into()
}

fn json_of_curves(curves: &Curves) -> String {
    let by_name: serde_json::Map<String, Value> =
        curves.curves.iter().map(|(name, values)| (name.clone(), json_of(values))).collect();
    Value::Object(by_name).to_string()
}

fn numbers_of(values: Vec<Option<f64>>) -> Vec<f64> {
    values.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect()
}

fn uri_path(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
