//! `org/name[@revision][:file]`, as against a path.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::HubError;
use crate::names::{check_path, check_repo, check_revision};

const DEFAULT_REVISION: &str = "main";

/// A repository on the hub, or one file of it: `org/name[@revision][:file]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `org/name`.
    pub repo: String,
    /// A branch, a tag or a commit; `main` where none is written.
    pub revision: String,
    /// A file of the repository, such as a `.gguf`; none for the model as a whole.
    pub file: Option<String>,
}

/// Whether `text` names something on the hub: it has the form of a [`Reference`], and no local path has that name.
pub fn looks_like_reference(text: &str) -> bool {
    text.parse::<Reference>().is_ok() && !Path::new(text).exists()
}

impl FromStr for Reference {
    type Err = HubError;

    /// # Errors
    /// [`HubError::Reference`], which says what is wrong.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let fail = |detail: String| HubError::Reference { text: text.to_owned(), detail };
        let (head, file) = match text.split_once(':') {
            Some((head, file)) => (head, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = head.split_once('@').unwrap_or((head, DEFAULT_REVISION));
        check_repo(repo).map_err(fail)?;
        check_revision(revision).map_err(fail)?;
        if let Some(file) = file {
            check_path(file).map_err(|detail| fail(format!("the file {file:?} {detail}")))?;
        }
        Ok(Self { repo: repo.into(), revision: revision.into(), file: file.map(Into::into) })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}
