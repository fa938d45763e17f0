//! A run that is served, as it stands when it is asked.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use exegete_store::{Notes, Run, StoreError};

use crate::dictionaries::{self, LATENTS, Named};
use crate::harvest::{Harvest, NOTES};
use crate::session::Session;
use crate::{Result, WebError, training};

/// Dictionaries that are kept open.
const KEPT_OPEN: usize = 4;

/// A run that is served, finished or under way. Cloning it is cheap.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
    session: Option<Arc<dyn Session>>,
}

struct Shared {
    dir: PathBuf,
    /// The manifest as it was read last.
    run: Mutex<Option<(Stamp, Arc<Run>)>>,
    /// What was opened last, the latest last.
    harvests: Mutex<Vec<Arc<Harvest>>>,
}

/// What tells one writing of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { modified: metadata.modified().ok(), len: metadata.len(), inode }
    }
}

impl Dashboard {
    /// Opens a run that has latents, or one whose dictionaries are trained. Needs no model.
    ///
    /// # Errors
    /// [`WebError::Unfinished`] without either, otherwise what is wrong with a file.
    pub fn open(dir: &Path) -> Result<Dashboard> {
        let shared = Shared { dir: dir.to_owned(), run: Mutex::new(None), harvests: Mutex::new(Vec::new()) };
        let dashboard = Dashboard { shared: Arc::new(shared), session: None };
        if dashboard.harvest("")?.is_none() && !training::is_there(&*dashboard.run()?) {
            return Err(WebError::Unfinished { run: dir.to_owned(), missing: LATENTS });
        }
        Ok(dashboard)
    }

    /// The same with a model at hand.
    #[must_use]
    pub fn with_session(self, session: Arc<dyn Session>) -> Dashboard {
        Dashboard { session: Some(session), ..self }
    }

    /// What answers questions about texts, where there is a model.
    pub(crate) fn session(&self) -> Option<Arc<dyn Session>> {
        self.session.clone()
    }

    /// The run's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The run as it stands. Its manifest is read again only where its file is another.
    ///
    /// # Errors
    /// It is gone, or its manifest damaged.
    pub(crate) fn run(&self) -> Result<Arc<Run>> {
        let stamp = std::fs::metadata(self.shared.dir.join("manifest.json")).ok().map(|m| Stamp::of(&m));
        let mut kept = lock(&self.shared.run);
        if let (Some((of, run)), Some(stamp)) = (&*kept, &stamp)
            && of == stamp
        {
            return Ok(run.clone());
        }
        let run = Arc::new(Run::open(&self.shared.dir)?);
        *kept = stamp.map(|stamp| (stamp, run.clone()));
        Ok(run)
    }

    /// The latents of a dictionary of the run, of the first where no name is given; `None` if there is none such. They are
    /// opened again where the run has changed.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub(crate) fn harvest(&self, name: &str) -> Result<Option<Arc<Harvest>>> {
        let run = self.run()?;
        let all = dictionaries::of(&run);
        let at = if name.is_empty() { Some(0) } else { all.iter().position(|dictionary| dictionary.name == name) };
        let Some(dictionary) = at.and_then(|at| all.get(at)) else { return Ok(None) };
        let mut kept = lock(&self.shared.harvests);
        let before = kept.iter().position(|harvest| harvest.named() == dictionary).map(|at| kept.remove(at));
        let harvest = match before {
            Some(harvest) if harvest.is_of(&run) => harvest,
            before => Arc::new(Harvest::open(run, dictionary, &all, before.as_deref())?),
        };
        if kept.len() == KEPT_OPEN {
            kept.remove(0);
        }
        kept.push(harvest.clone());
        Ok(Some(harvest))
    }

    /// Changes what people say about a dictionary's latents.
    ///
    /// # Errors
    /// [`WebError::Unwritable`] where the run can only be read, or another process has locked it.
    pub(crate) fn change<T>(
        &self,
        dictionary: &Named,
        change: impl FnOnce(&Notes) -> exegete_store::Result<T>,
    ) -> Result<T> {
        let path = self.shared.dir.join(dictionary.part(NOTES));
        let unwritable = |error: StoreError| match error {
            StoreError::Sqlite { .. } | StoreError::Version { .. } => {
                WebError::Unwritable { reason: error.to_string() }
            }
            error => error.into(),
        };
        let notes = Notes::open(&path).map_err(unwritable)?;
        change(&notes).map_err(unwritable)
    }
}

/// A thread that panicked while it held one of these left what was there before, or nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
