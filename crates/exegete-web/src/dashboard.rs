//! A run that is served, as it stands when it is asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use exegete_store::Run;

use crate::harvest::{Harvest, LATENTS};
use crate::{Result, WebError, training};

/// A run that is served, finished or under way. Cloning it is cheap.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    /// What was opened last.
    harvest: Mutex<Option<Arc<Harvest>>>,
}

impl Dashboard {
    /// Opens a run that has latents, or one whose dictionaries are trained. Needs no model.
    ///
    /// # Errors
    /// [`WebError::Unfinished`] without either, otherwise what is wrong with a file.
    pub fn open(dir: &Path) -> Result<Dashboard> {
        let shared = Shared { dir: dir.to_owned(), harvest: Mutex::new(None) };
        let dashboard = Dashboard { shared: Arc::new(shared) };
        if dashboard.harvest()?.is_none() && !training::is_there(&dashboard.run()?) {
            return Err(WebError::Unfinished { run: dir.to_owned(), missing: LATENTS });
        }
        Ok(dashboard)
    }

    /// The run as it stands.
    ///
    /// # Errors
    /// It is gone, or its manifest damaged.
    pub(crate) fn run(&self) -> Result<Run> {
        Ok(Run::open(&self.shared.dir)?)
    }

    /// The run's latents; `None` until it has some. They are opened again where the run has changed.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub(crate) fn harvest(&self) -> Result<Option<Arc<Harvest>>> {
        let run = self.run()?;
        // A thread that panicked here left what was opened before, or nothing.
        let mut opened = self.shared.harvest.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.as_ref().is_none_or(|harvest| !harvest.is_of(&run)) {
            *opened = Harvest::open(run)?.map(Arc::new);
        }
        Ok(opened.clone())
    }
}
