//! Explanations of a latent scored by detection, all at once.

use std::path::{Path, PathBuf};

use anyhow::Result;
use exegete_explain::judge::local::Arrangement;
use exegete_model::Model;

use super::Case;
use crate::explain::Scores;

/// All explanations of the task.
pub(super) struct DetectionScores {
    model: Model,
    folder: PathBuf,
}

impl DetectionScores {
    pub(super) fn new(model: Model, folder: &Path) -> Self {
        Self { model, folder: folder.to_owned() }
    }
}

impl Case for DetectionScores {
    fn run(&mut self) -> Result<f64> {
        let scores = Scores::open(&self.model, &self.folder, Arrangement::Shared)?;
        Ok(scores.run(crate::explain::EXPLANATIONS)?.1)
    }

    /// What it costs is compared, not what it says.
    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
}
