//! Where the cache is, which hub is asked, and with which token: the environment variables of the Python library.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{HubError, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const OFFLINE_VARIABLES: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];

/// What a [`crate::Hub`] needs to know.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The directory of `models--org--name`.
    pub cache: PathBuf,
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// The token that is sent to the endpoint, and to nothing else.
    pub token: Option<Token>,
    /// The variable that forbids the network, if one does.
    pub offline: Option<&'static str>,
    /// A PEM file of the certificates to trust instead of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// How often a request is tried again without getting further, before it is an error.
    pub retries: u32,
    /// The first pause before trying again; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause, whether ours or one that the server asks for; a server that asks for more is an error at once.
    pub longest_pause: Duration,
    /// How long a connection may be silent.
    pub silence: Duration,
}

/// A secret: it is sent to the hub and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl HubSettings {
    /// Settings for a cache directory and a hub, without a token.
    pub fn new(cache: impl Into<PathBuf>, endpoint: impl Into<String>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: endpoint.into(),
            token: None,
            offline: None,
            certificates: None,
            retries: 5,
            backoff: Duration::from_secs(1),
            // The hub counts requests in windows of five minutes.
            longest_pause: Duration::from_secs(330),
            silence: Duration::from_secs(30),
        }
    }

    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` (or the file `HF_HOME/token`), `HF_ENDPOINT`, `HF_HUB_OFFLINE` and
    /// `TRANSFORMERS_OFFLINE`, and `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`, with the Python library's defaults.
    ///
    /// # Errors
    /// As [`HubSettings::from_vars`].
    pub fn from_env() -> Result<Self> {
        Self::from_vars(&|name| std::env::var_os(name))
    }

    /// The same from any source of variables.
    ///
    /// # Errors
    /// [`HubError::Setting`] for a value that is no text, no home directory, or a token that can be none;
    /// [`HubError::Io`] if the token's file exists and cannot be read.
    pub fn from_vars(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let text = |name: &'static str| match variable(name).map(OsString::into_string) {
            Some(Err(_)) => Err(HubError::setting(name, "is not UTF-8 text")),
            value => Ok(value.and_then(|v| v.ok()).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())),
        };
        let user = path("HOME").or_else(|| path("USERPROFILE"));
        let expand = |path: PathBuf| match (path.strip_prefix("~"), &user) {
            (Ok(rest), Some(user)) => user.join(rest),
            _ => path,
        };
        let home = match (path("HF_HOME"), path("XDG_CACHE_HOME"), &user) {
            (Some(home), _, _) => expand(home),
            (None, Some(caches), _) => expand(caches).join("huggingface"),
            (None, None, Some(user)) => user.join(".cache/huggingface"),
            (None, None, None) => {
                return Err(HubError::setting(
                    "HF_HOME",
                    "is not set, and neither is HOME; set it to a directory for models",
                ));
            }
        };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).map(expand);
        let endpoint = text("HF_ENDPOINT")?.unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let mut settings = Self::new(cache.unwrap_or_else(|| home.join("hub")), endpoint);
        settings.token = match text("HF_TOKEN")? {
            Some(token) => Some(Token::new(&token, "HF_TOKEN")?),
            None => Token::read(&path("HF_TOKEN_PATH").map_or_else(|| home.join("token"), expand))?,
        };
        for name in OFFLINE_VARIABLES {
            let says = text(name)?.is_some_and(|v| ["1", "true", "yes", "on"].contains(&v.to_lowercase().as_str()));
            settings.offline = settings.offline.or(says.then_some(name));
        }
        settings.certificates = CERTIFICATE_VARIABLES.iter().find_map(|name| path(name));
        Ok(settings)
    }
}

impl Token {
    /// Takes a token from `source`, the variable or file that errors name.
    ///
    /// # Errors
    /// [`HubError::Setting`] if it has characters that no token has; the message does not hold it.
    pub fn new(token: &str, source: &str) -> Result<Self> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(HubError::setting(source, "holds no token: one is visible ASCII characters without spaces"));
        }
        Ok(Self(token.to_owned()))
    }

    /// The content of a token's file, if there is one.
    fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => Self::new(text.trim(), &path.display().to_string()).map(Some),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(HubError::io("read the token", path)(e)),
        }
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}
