//! Scores of explanations, in `run.sqlite`: how well a text predicts what a latent does, by which scorer, against what, with whose
//! judgement.

use exegete_base::LatentId;
use exegete_base::stats::Estimate;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::notes::{Notes, finite};

/// The table that version 3 adds. A text is scored, not its place among a method's texts, which changes when the method runs again.
pub(crate) const SCHEMA: &str = "
CREATE TABLE scores (
    id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, text TEXT NOT NULL, scorer TEXT NOT NULL, against TEXT NOT NULL,
    judge TEXT NOT NULL, value REAL, low REAL, high REAL, n INTEGER NOT NULL, failed INTEGER NOT NULL, chance REAL,
    measures TEXT NOT NULL, settings TEXT NOT NULL,
    UNIQUE (latent, text, scorer, against, judge)
);
CREATE INDEX scores_by_scorer ON scores (scorer, against, latent);
PRAGMA user_version = 3;
";

/// What a score is told apart from that is a control: its text is another latent's.
pub const SHUFFLED: &str = "shuffled";
/// The same: its text is what the model says of a direction drawn at random.
pub const RANDOM_DIRECTION: &str = "random-direction";
/// The controls.
pub const CONTROLS: &[&str] = &[SHUFFLED, RANDOM_DIRECTION];

/// The `against` of a control's score: which control, and what it was told apart from, as the score that it stands beside.
pub fn control_against(control: &str, against: &str) -> String {
    format!("{control} ({against})")
}

/// Which control a score is of, and what it was told apart from; none for scores of a latent's own texts.
pub fn control_of(against: &str) -> Option<(&'static str, &str)> {
    CONTROLS.iter().find_map(|name| {
        let rest = against.strip_prefix(name)?;
        // Before controls named what they were told apart from, they stood alone.
        let inside = if rest.is_empty() { Some("") } else { rest.strip_prefix(" (").and_then(|r| r.strip_suffix(')')) };
        inside.map(|inside| (*name, inside))
    })
}

/// Whether a score is a control's.
pub fn is_control(against: &str) -> bool {
    control_of(against).is_some()
}

/// How well a text predicts what a latent does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The latent.
    pub latent: u32,
    /// The text.
    pub text: String,
    /// The scorer's name.
    pub scorer: String,
    /// What the latent's own examples are told apart from: `random`, `co-firing`, ...; [`control_against`] for a control.
    pub against: String,
    /// Who judged, with the version of the prompt.
    pub judge: String,
    /// The score with its interval; `n` counts examples. Not finite where nothing could be judged.
    pub value: Estimate,
    /// Examples that the judge did not judge.
    pub failed: u64,
    /// The score of a judge that knows nothing; NaN where there is no such number.
    pub chance: f64,
    /// Other measures of the same judgements, by name.
    pub measures: Value,
    /// How it was made, for a person to read.
    pub settings: Value,
}

impl Notes {
    /// Stores scores in one transaction, each in place of one of the same text, scorer, comparison and judge.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn put_scores(&mut self, scores: &[Score]) -> Result<()> {
        self.transaction(|transaction| {
            for s in scores {
                if is_control(&s.against) {
                    // A latent has one control of a kind: what was another's text before may be no text any more.
                    transaction.execute(
                        "DELETE FROM scores WHERE latent = ? AND scorer = ? AND judge = ? AND against = ?",
                        params![s.latent, s.scorer, s.judge, s.against],
                    )?;
                }
                // What had no number gives way to what was found later, whatever it was told apart from.
                transaction.execute(
                    "DELETE FROM scores WHERE latent = ? AND scorer = ? AND judge = ? AND text = ? AND value IS NULL AND against = 'itself'",
                    params![s.latent, s.scorer, s.judge, s.text],
                )?;
                transaction.execute(
                    "INSERT OR REPLACE INTO scores
                     (latent, text, scorer, against, judge, value, low, high, n, failed, chance, measures, settings)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    params![
                        s.latent,
                        s.text,
                        s.scorer,
                        s.against,
                        s.judge,
                        finite(s.value.value),
                        finite(s.value.low),
                        finite(s.value.high),
                        i64::try_from(s.value.n).unwrap_or(i64::MAX),
                        i64::try_from(s.failed).unwrap_or(i64::MAX),
                        finite(s.chance),
                        s.measures.to_string(),
                        s.settings.to_string()
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// The scores of a latent's texts, by scorer.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn scores_of(&self, latent: LatentId) -> Result<Vec<Score>> {
        self.scores_where("WHERE latent = ? ORDER BY scorer, against, value DESC, text", params![latent.0])
    }

    /// All scores, by scorer and latent.
    ///
    /// # Errors
    /// [`crate::StoreError::Sqlite`].
    pub fn scores(&self) -> Result<Vec<Score>> {
        self.scores_where("ORDER BY scorer, against, judge, latent, text", [])
    }

    fn scores_where(&self, rest: &str, arguments: impl rusqlite::Params) -> Result<Vec<Score>> {
        if !self.has_scores()? {
            return Ok(Vec::new());
        }
        let query = format!(
            "SELECT latent, text, scorer, against, judge, value, low, high, n, failed, chance, measures, settings
             FROM scores {rest}"
        );
        let number = |row: &rusqlite::Row, at: usize| -> rusqlite::Result<f64> {
            Ok(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN))
        };
        let count = |row: &rusqlite::Row, at: usize| -> rusqlite::Result<u64> {
            Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
        };
        let json = |row: &rusqlite::Row, at: usize| -> rusqlite::Result<Value> {
            Ok(serde_json::from_str(&row.get::<_, String>(at)?).unwrap_or_default())
        };
        self.rows(&query, arguments, |row| {
            let (value, low, high, n) = (number(row, 5)?, number(row, 6)?, number(row, 7)?, count(row, 8)?);
            Ok(Score {
                latent: row.get(0)?,
                text: row.get(1)?,
                scorer: row.get(2)?,
                against: row.get(3)?,
                judge: row.get(4)?,
                value: Estimate { value, low, high, n },
                failed: count(row, 9)?,
                chance: number(row, 10)?,
                measures: json(row, 11)?,
                settings: json(row, 12)?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(text: &str, against: &str, value: f64) -> Score {
        Score {
            latent: 3,
            text: text.into(),
            scorer: "detection".into(),
            against: against.into(),
            judge: "one".into(),
            value: Estimate { value, low: value, high: value, n: 8 },
            failed: 0,
            chance: 0.5,
            measures: Value::Null,
            settings: Value::Null,
        }
    }

    #[test]
    fn controls_are_told_from_comparisons() {
        assert_eq!(control_of(&control_against(SHUFFLED, "co-firing")), Some((SHUFFLED, "co-firing")));
        assert_eq!(control_of(SHUFFLED), Some((SHUFFLED, "")));
        assert!(!is_control("random") && !is_control("shuffled things") && is_control("random-direction (itself)"));
    }

    #[test]
    fn a_control_replaces_the_one_before_and_a_number_what_had_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Notes::open(&dir.path().join("run.sqlite")).unwrap();
        let shuffled = control_against(SHUFFLED, "random");
        notes.put_scores(&[score("a", "itself", f64::NAN), score("old", &shuffled, 0.4)]).unwrap();
        notes.put_scores(&[score("a", "random", 0.9), score("new", &shuffled, 0.5)]).unwrap();
        let told: Vec<(String, String)> =
            notes.scores_of(LatentId(3)).unwrap().into_iter().map(|s| (s.text, s.against)).collect();
        assert_eq!(told, [("a".into(), "random".into()), ("new".into(), shuffled)]);
    }
}
