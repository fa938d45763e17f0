//! From a reference to a path.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::cache::RepoCache;
use crate::client::{Client, Subject};
use crate::download::fetch_blob;
use crate::error::{HubError, Result};
use crate::event::{DownloadEvent, Events};
use crate::names::{check_path, check_repo, check_revision, is_commit};
use crate::reference::Reference;
use crate::select::{self, BadDescription, Description};
use crate::settings::HubSettings;

/// Of all files of a repository those that are wanted, or what is lacking.
pub type Choose<'a> = &'a dyn Fn(&BTreeSet<String>) -> Result<Vec<String>, String>;

/// The hub and its local cache.
pub struct Hub {
    client: Client,
}

impl Hub {
    /// The hub, cache and token that the environment names; see [`HubSettings::from_env`].
    ///
    /// # Errors
    /// As [`HubSettings::from_env`] and [`Hub::new`].
    pub fn from_env() -> Result<Self> {
        Self::new(HubSettings::from_env()?)
    }

    /// The hub with given settings. Nothing is asked yet.
    ///
    /// # Errors
    /// [`HubError::Setting`] for an endpoint that is no address, [`HubError::Io`] for certificates that cannot be read.
    pub fn new(settings: HubSettings) -> Result<Self> {
        Ok(Self { client: Client::new(settings)? })
    }

    /// The local path of what a reference names: the file if it names one, the model's directory if not.
    ///
    /// # Errors
    /// As [`Hub::model`] and [`Hub::file`].
    pub fn resolve(&self, reference: &Reference, progress: &dyn Fn(DownloadEvent<'_>)) -> Result<PathBuf> {
        match &reference.file {
            Some(file) => self.file(reference, file, progress),
            None => self.model(reference, progress),
        }
    }

    /// The directory of a model: `config.json`, safetensors (one file, or an index and its shards), and the tokenizer,
    /// its settings, the chat template and the generation settings where the repository has them.
    ///
    /// What the cache has is not downloaded again. Without a network, or if the hub cannot be reached, the cache is used
    /// as it is if the model in it is whole.
    ///
    /// # Errors
    /// Every [`HubError`]; [`HubError::NoModel`] if the repository holds no model in this layout.
    pub fn model(&self, reference: &Reference, progress: &dyn Fn(DownloadEvent<'_>)) -> Result<PathBuf> {
        let cache = self.cache(reference)?;
        let subject = Subject { repo: &reference.repo, revision: &reference.revision, file: None };
        if self.client.settings().offline.is_some() {
            return self.cached_model(&cache, subject).map_err(|missing| self.offline(subject, missing));
        }
        let cached = self.cached_model(&cache, subject).ok();
        let described = match self.client.describe(subject, cached.is_some(), progress) {
            Ok(json) => self.description(subject, &json)?,
            Err(error) if error.means_out_of_reach() => return use_cache(cached, error, progress),
            Err(error) => return Err(error),
        };
        let no_model =
            |detail| HubError::NoModel { repo: reference.repo.clone(), revision: reference.revision.clone(), detail };
        let Description { commit, files } = &described;
        for file in select::small_files(files).map_err(no_model)? {
            self.ensure(&cache, subject, commit, file, progress)?;
        }
        let snapshot = cache.snapshot(commit);
        for file in select::weight_files(files.contains(select::SINGLE), &snapshot)? {
            if !files.contains(&file) {
                return Err(no_model(format!("has no {file}, which its {} names", select::INDEX)));
            }
            self.ensure(&cache, subject, commit, &file, progress)?;
        }
        // Last, so that a revision in the cache is never an unfinished one where a finished one was.
        cache.remember(&reference.revision, commit)?;
        Ok(snapshot)
    }

    /// Some files of a repository that belong together: the directory in which they lie under their paths in the
    /// repository. `choose` names them, of all that there are, or says what is lacking.
    ///
    /// What the cache has is not downloaded again. Without a network, or if the hub cannot be reached, the choice is among
    /// the files that the cache holds. The reference's own `file` only says in messages what was looked for.
    ///
    /// # Errors
    /// Every [`HubError`]; [`HubError::NoModel`] with the words of `choose`.
    pub fn files(
        &self,
        reference: &Reference,
        choose: Choose<'_>,
        progress: &dyn Fn(DownloadEvent<'_>),
    ) -> Result<PathBuf> {
        let cache = self.cache(reference)?;
        let subject = Subject { repo: &reference.repo, revision: &reference.revision, file: None };
        let cached = cache.commit_of(&reference.revision).filter(|commit| choose(&cache.files(commit)).is_ok());
        let cached = cached.map(|commit| cache.snapshot(&commit));
        if self.client.settings().offline.is_some() {
            let missing = reference.file.as_deref().unwrap_or("what is looked for");
            return cached.ok_or_else(|| self.offline(subject, missing.to_owned()));
        }
        let described = match self.client.describe(subject, cached.is_some(), progress) {
            Ok(json) => self.description(subject, &json)?,
            Err(error) if error.means_out_of_reach() => return use_cache(cached, error, progress),
            Err(error) => return Err(error),
        };
        let Description { commit, files } = &described;
        let chosen = choose(files).map_err(|detail| HubError::NoModel {
            repo: reference.repo.clone(),
            revision: reference.revision.clone(),
            detail,
        })?;
        for file in &chosen {
            self.ensure(&cache, subject, commit, file, progress)?;
        }
        cache.remember(&reference.revision, commit)?;
        Ok(cache.snapshot(commit))
    }

    /// One file of a repository, such as a `.gguf`. The reference's own `file` has no say here.
    ///
    /// # Errors
    /// Every [`HubError`] but [`HubError::NoModel`].
    pub fn file(
        &self,
        reference: &Reference,
        path_in_repo: &str,
        progress: &dyn Fn(DownloadEvent<'_>),
    ) -> Result<PathBuf> {
        let cache = self.cache(reference)?;
        check_path(path_in_repo).map_err(|detail| HubError::Reference {
            text: reference.to_string(),
            detail: format!("the file {path_in_repo:?} {detail}"),
        })?;
        let subject = Subject { repo: &reference.repo, revision: &reference.revision, file: Some(path_in_repo) };
        let cached = cache.commit_of(&reference.revision).and_then(|commit| cache.cached(&commit, path_in_repo));
        if self.client.settings().offline.is_some() {
            return cached.ok_or_else(|| self.offline(subject, path_in_repo.to_owned()));
        }
        // A commit never changes.
        if let Some(path) = cached.as_ref().filter(|_| is_commit(&reference.revision)) {
            return Ok(path.clone());
        }
        let facts = match self.client.facts(subject, &reference.revision, cached.is_some(), progress) {
            Ok(facts) => facts,
            Err(error) if error.means_out_of_reach() => return use_cache(cached, error, progress),
            Err(error) => return Err(error),
        };
        let path = match cache.cached(&facts.commit, path_in_repo) {
            Some(path) => path,
            None => {
                fetch_blob(&self.client, &cache, subject, &facts, progress)?;
                cache.link(&facts.commit, path_in_repo, facts.checksum.blob_name())?
            }
        };
        cache.remember(&reference.revision, &facts.commit)?;
        Ok(path)
    }

    /// Sees to it that a file of a known commit is in its snapshot.
    fn ensure(
        &self,
        cache: &RepoCache,
        subject: Subject<'_>,
        commit: &str,
        file: &str,
        events: Events<'_>,
    ) -> Result<()> {
        if cache.cached(commit, file).is_some() {
            return Ok(());
        }
        // By commit, so that a branch that moves meanwhile does not mix two of its states.
        let subject = Subject { file: Some(file), ..subject };
        let facts = self.client.facts(subject, commit, false, events)?;
        fetch_blob(&self.client, cache, subject, &facts, events)?;
        cache.link(commit, file, facts.checksum.blob_name()).map(|_| ())
    }

    fn description(&self, subject: Subject<'_>, json: &[u8]) -> Result<Description> {
        let Subject { repo, revision, .. } = subject;
        let bad_answer = |detail| HubError::BadAnswer {
            file: subject.shown(),
            host: self.client.settings().endpoint.clone(),
            detail,
        };
        match select::read_description(json) {
            Ok(described) if is_commit(revision) && described.commit != revision => {
                Err(bad_answer(format!("another commit ({}) than was asked for", described.commit)))
            }
            Ok(described) => Ok(described),
            Err(BadDescription::Form(detail)) => Err(bad_answer(detail)),
            Err(BadDescription::Name { name, detail }) => {
                Err(HubError::UnsafeName { repo: repo.to_owned(), revision: revision.to_owned(), name, detail })
            }
        }
    }

    /// The snapshot in the cache if the model in it is whole, or what is missing.
    fn cached_model(&self, cache: &RepoCache, subject: Subject<'_>) -> Result<PathBuf, String> {
        let commit = cache.commit_of(subject.revision).ok_or("the revision")?;
        let has = |file: &str| cache.cached(&commit, file).is_some();
        if !has(select::CONFIG) {
            return Err(select::CONFIG.into());
        }
        if !has(select::SINGLE) && !has(select::INDEX) {
            return Err(format!("{} or {}", select::SINGLE, select::INDEX));
        }
        let snapshot = cache.snapshot(&commit);
        let weights = select::weight_files(has(select::SINGLE), &snapshot).map_err(|e| e.to_string())?;
        match weights.into_iter().find(|file| !has(file)) {
            Some(file) => Err(file),
            None => Ok(snapshot),
        }
    }

    fn offline(&self, subject: Subject<'_>, missing: String) -> HubError {
        let settings = self.client.settings();
        HubError::Offline {
            repo: subject.repo.to_owned(),
            revision: subject.revision.to_owned(),
            missing,
            cache: settings.cache.clone(),
            variable: settings.offline.unwrap_or("HF_HUB_OFFLINE"),
        }
    }

    /// The fields of a reference are public, so they are checked again before they become paths.
    fn cache(&self, reference: &Reference) -> Result<RepoCache> {
        let fail = |detail| HubError::Reference { text: reference.to_string(), detail };
        check_repo(&reference.repo).map_err(fail)?;
        check_revision(&reference.revision).map_err(fail)?;
        Ok(RepoCache::new(&self.client.settings().cache, &reference.repo))
    }
}

/// The cache instead of a hub that cannot be reached, or the error if the cache lacks it.
fn use_cache(path: Option<PathBuf>, error: HubError, events: Events<'_>) -> Result<PathBuf> {
    let Some(path) = path else { return Err(error) };
    events(DownloadEvent::UsingCache { reason: &error.to_string() });
    Ok(path)
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("settings", self.client.settings()).finish()
    }
}
