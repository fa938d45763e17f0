//! A run that is served, as it stands when it is asked.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use exegete_store::harvested::LATENTS;
use exegete_store::{Notes, Run, StoreError};

use crate::detail::{View, detail};
use crate::dictionaries::{self, Named};
use crate::harvest::{Harvest, NOTES};
use crate::session::Session;
use crate::wire::LatentDetail;
use crate::{Result, WebError, jobs, training};

/// Texts that are tried at once: each takes all cores.
const TRIED_AT_ONCE: usize = 4;
/// Dictionaries that are kept open.
const KEPT_OPEN: usize = 4;

/// A run that is served, finished or under way. Cloning it is cheap.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
    session: Option<Arc<dyn Session>>,
    /// Texts that are tried just now. An answer that took too long is given up, and the work behind it goes on.
    trying: Arc<AtomicUsize>,
}

/// A text's turn at the model.
pub(crate) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Shared {
    /// The run that is served, then those beside it.
    runs: Vec<Served>,
    /// What was opened last, the latest last.
    harvests: Mutex<Vec<Arc<Harvest>>>,
}

/// A run's directory, and its manifest as it was read last.
struct Served {
    dir: PathBuf,
    run: Mutex<Option<(Stamp, Arc<Run>)>>,
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
        Self::open_beside(dir, &[])
    }

    /// The same with other runs at hand, to be compared with it: their dictionaries stand behind its own.
    ///
    /// # Errors
    /// Those of [`Dashboard::open`], and [`WebError::Unfinished`] where one of the others has no latents.
    pub fn open_beside(dir: &Path, others: &[PathBuf]) -> Result<Dashboard> {
        let served = |dir: &Path| Served { dir: dir.to_owned(), run: Mutex::new(None) };
        let runs: Vec<Served> = std::iter::once(dir).chain(others.iter().map(PathBuf::as_path)).map(served).collect();
        let shared = Shared { runs, harvests: Mutex::new(Vec::new()) };
        let dashboard = Dashboard { shared: Arc::new(shared), session: None, trying: Arc::default() };
        for at in 1..=others.len() {
            if dashboard.dictionaries_of(at)?.is_empty() {
                return Err(WebError::Unfinished { run: others[at - 1].clone(), missing: LATENTS });
            }
        }
        if dashboard.harvest("")?.is_none() && dashboard.elsewhere()?.is_none() {
            return Err(WebError::Unfinished { run: dir.to_owned(), missing: LATENTS });
        }
        Ok(dashboard)
    }

    /// The page to begin with where there are no latents yet: training, or work that tells of itself; none without either.
    ///
    /// # Errors
    /// The run is gone.
    pub(crate) fn elsewhere(&self) -> Result<Option<&'static str>> {
        Ok(match training::is_there(&*self.run()?) {
            true => Some("/training"),
            false => jobs::are_there(self.dir()).then_some("/jobs"),
        })
    }

    /// The same with a model at hand.
    #[must_use]
    pub fn with_session(self, session: Arc<dyn Session>) -> Dashboard {
        Dashboard { session: Some(session), ..self }
    }

    /// Whether there is a model that answers questions about texts.
    pub(crate) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// What answers questions about texts.
    ///
    /// # Errors
    /// [`WebError::Absent`] if there is no model, or it is not that of the dictionary's run.
    pub(crate) fn session(&self, dictionary: &Named) -> Result<Arc<dyn Session>> {
        if dictionary.run > 0 {
            return Err(WebError::Absent(
                "Texts are tried with the dictionaries of the run that is served alone.".into(),
            ));
        }
        self.session.clone().ok_or_else(|| {
            WebError::Absent("No model is at hand: serve the run with --model MODEL to try texts.".into())
        })
    }

    /// Waits for no turn at the model: it is there, or the model is busy.
    ///
    /// # Errors
    /// [`WebError::Busy`].
    pub(crate) fn turn(&self) -> Result<Turn> {
        let turn = Turn(self.trying.clone());
        match self.trying.fetch_add(1, Ordering::SeqCst) < TRIED_AT_ONCE {
            true => Ok(turn),
            false => Err(WebError::Busy),
        }
    }

    /// The run's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.runs[0].dir
    }

    /// The run as it stands. Its manifest is read again only where its file is another.
    ///
    /// # Errors
    /// It is gone, or its manifest damaged.
    pub(crate) fn run(&self) -> Result<Arc<Run>> {
        self.run_at(0)
    }

    fn run_at(&self, at: usize) -> Result<Arc<Run>> {
        let served = &self.shared.runs[at];
        let stamp = std::fs::metadata(served.dir.join("manifest.json")).ok().map(|m| Stamp::of(&m));
        let mut kept = lock(&served.run);
        if let (Some((of, run)), Some(stamp)) = (&*kept, &stamp)
            && of == stamp
        {
            return Ok(run.clone());
        }
        let run = Arc::new(Run::open(&served.dir)?);
        *kept = stamp.map(|stamp| (stamp, run.clone()));
        Ok(run)
    }

    fn dictionaries_of(&self, at: usize) -> Result<Vec<Named>> {
        let name = self.shared.runs[at].dir.file_name().unwrap_or_default().to_string_lossy();
        // Two runs of one name are told apart by their places.
        let is_taken =
            self.shared.runs[..at].iter().any(|before| before.dir.file_name() == self.shared.runs[at].dir.file_name());
        let name = if is_taken { format!("{name} ({at})") } else { name.into_owned() };
        let mut all = dictionaries::of(&*self.run_at(at)?, (at, &name));
        // Beside others, one without a name has that of its run.
        if self.shared.runs.len() > 1 {
            all.iter_mut().filter(|of| of.name.is_empty()).for_each(|of| of.name.clone_from(&name));
        }
        Ok(all)
    }

    /// All dictionaries that have latents: those of the run that is served, then those of the others, of which one that is gone
    /// has none.
    ///
    /// # Errors
    /// The run that is served is gone.
    pub(crate) fn dictionaries(&self) -> Result<Vec<Named>> {
        let mut all = self.dictionaries_of(0)?;
        for at in 1..self.shared.runs.len() {
            all.extend(self.dictionaries_of(at).unwrap_or_default());
        }
        Ok(all)
    }

    /// The latents of a dictionary of the run, of the first where no name is given; `None` if there is none such. They are
    /// opened again where the run has changed.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub(crate) fn harvest(&self, name: &str) -> Result<Option<Arc<Harvest>>> {
        let all = self.dictionaries()?;
        let at = if name.is_empty() { Some(0) } else { all.iter().position(|dictionary| dictionary.name == name) };
        let Some(dictionary) = at.and_then(|at| all.get(at)) else { return Ok(None) };
        let run = self.run_at(dictionary.run)?;
        let mut kept = lock(&self.shared.harvests);
        let before = kept.iter().position(|harvest| harvest.named() == dictionary).map(|at| kept.remove(at));
        let harvest = match before {
            Some(harvest) if harvest.is_of(&run) && harvest.dictionaries() == all => harvest,
            before => Arc::new(Harvest::open(run, dictionary, &all, before.as_deref())?),
        };
        if kept.len() == KEPT_OPEN {
            kept.remove(0);
        }
        kept.push(harvest.clone());
        Ok(Some(harvest))
    }

    /// The same, where there have to be some.
    ///
    /// # Errors
    /// [`WebError::Absent`] if there are none.
    pub(crate) fn latents(&self, name: &str) -> Result<Arc<Harvest>> {
        let absent = || WebError::Absent("This run has no latents yet, or no dictionary of this name.".into());
        self.harvest(name)?.ok_or_else(absent)
    }

    /// All that is known of a latent, as its page shows it. `dictionary` may be empty for the first, `view` is one of `levels`,
    /// `intervals` and `quantiles`.
    ///
    /// # Errors
    /// [`WebError::Absent`] where there is no such dictionary or latent, otherwise what is wrong with a file.
    pub fn latent(&self, dictionary: &str, latent: u32, view: &str) -> Result<LatentDetail> {
        let harvest = self.latents(dictionary)?;
        detail(&harvest, harvest.named_row(&latent.to_string())?, View::of(view))
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
        let path = self.shared.runs[dictionary.run].dir.join(dictionary.of.part(NOTES));
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
