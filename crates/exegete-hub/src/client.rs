//! Requests: redirects, who is sent the token, and what a status means.

use std::io::{self, Read};
use std::sync::Arc;

use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::address::{Origin, encode_part, encode_path, follow, parse_endpoint};
use crate::checksum::Checksum;
use crate::error::{HubError, Result};
use crate::event::Events;
use crate::names::is_commit;
use crate::retry::{Passing, Patience, Trouble, repeat};
use crate::settings::HubSettings;

const MOST_REDIRECTS: usize = 5;
/// A description of a repository with some hundred thousand files.
const LONGEST_DESCRIPTION: u64 = 64 << 20;

/// What is asked for, for addresses and messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) repo: &'a str,
    /// As the user wrote it.
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a str>,
}

/// What the hub says of a file without sending it.
#[derive(Debug, Clone)]
pub(crate) struct FileFacts {
    pub(crate) commit: String,
    pub(crate) checksum: Checksum,
    pub(crate) size: u64,
}

/// An answer, after redirects.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) host: String,
    /// The headers of the endpoint's own answers, later ones over earlier ones; a foreign host has no say in them.
    endpoint_headers: HeaderMap,
}

pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    settings: HubSettings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Head,
    Get { from: u64 },
}

impl Subject<'_> {
    /// `org/name@revision:file`
    pub(crate) fn shown(&self) -> String {
        let file = self.file.map(|file| format!(":{file}")).unwrap_or_default();
        format!("{}@{}{file}", self.repo, self.revision)
    }
}

impl Client {
    pub(crate) fn new(settings: HubSettings) -> Result<Self> {
        let (endpoint, origin) =
            parse_endpoint(&settings.endpoint).map_err(|detail| HubError::setting("HF_ENDPOINT", detail))?;
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            let pem = std::fs::read(path).map_err(HubError::io("read the certificates of SSL_CERT_FILE", path))?;
            let roots: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if roots.is_empty() {
                let detail = format!("names {}, which holds no PEM certificate", path.display());
                return Err(HubError::setting("SSL_CERT_FILE", detail));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            // Redirects are followed here, where it is known who may see the token.
            .max_redirects(0)
            .user_agent(concat!("exegete/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.silence))
            .timeout_connect(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .timeout_per_write(Some(settings.silence))
            .build()
            .into();
        Ok(Self { agent, endpoint, origin, settings })
    }

    pub(crate) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The description of a repository at a revision, as JSON. With `has_cache` it is given up soon.
    pub(crate) fn describe(&self, subject: Subject<'_>, has_cache: bool, events: Events<'_>) -> Result<Vec<u8>> {
        let path = format!("api/models/{}/revision/{}", encode_path(subject.repo), encode_part(subject.revision));
        repeat(self.patience(&subject.shown(), has_cache), events, || {
            let answer = self.request(Method::Get { from: 0 }, &path, subject)?;
            let host = answer.host;
            let mut text = Vec::new();
            let mut body = answer.response.into_body().into_reader().take(LONGEST_DESCRIPTION + 1);
            body.read_to_end(&mut text).map_err(|e| Trouble::Passing(Passing::new(host.clone(), e.to_string())))?;
            if text.len() as u64 > LONGEST_DESCRIPTION {
                return Err(bad_answer(subject, host, "a description of more than 64 MiB").into());
            }
            Ok(text)
        })
    }

    /// Commit, checksum and length of a file at a branch, tag or commit. With `has_cache` it is given up soon.
    pub(crate) fn facts(
        &self,
        subject: Subject<'_>,
        at: &str,
        has_cache: bool,
        events: Events<'_>,
    ) -> Result<FileFacts> {
        let path = resolve_path(subject, at);
        repeat(self.patience(&subject.shown(), has_cache), events, || {
            let answer = self.request(Method::Head, &path, subject)?;
            let header = |name: &str| answer.endpoint_headers.get(name).and_then(|value| value.to_str().ok());
            let bad = |detail: &str| Trouble::from(bad_answer(subject, self.origin.shown(), detail));
            let commit = header("x-repo-commit").ok_or_else(|| bad("no X-Repo-Commit header"))?;
            if !is_commit(commit) || (is_commit(at) && commit != at) {
                return Err(bad(&format!("the X-Repo-Commit {commit:?} where {at} was asked for")));
            }
            let etag = header("x-linked-etag").or(header("etag")).ok_or_else(|| bad("no ETag header"))?;
            let checksum = Checksum::from_etag(etag).ok_or_else(|| {
                bad(&format!("the ETag {etag:?}, which is no checksum, so that no download can be verified"))
            })?;
            // The length of a redirect's own body is not the file's.
            let plain = answer.response.status().is_success();
            let length = header("x-linked-size").or(header("content-length").filter(|_| plain));
            let size = length.and_then(|text| text.parse().ok()).ok_or_else(|| bad("no length of the file"))?;
            Ok(FileFacts { commit: commit.to_owned(), checksum, size })
        })
    }

    /// Asks once for the content of a file from byte `from`. The answer has status 200, 206 or 416.
    pub(crate) fn content(&self, subject: Subject<'_>, commit: &str, from: u64) -> Result<Answer, Trouble> {
        self.request(Method::Get { from }, &resolve_path(subject, commit), subject)
    }

    fn request(&self, method: Method, path: &str, subject: Subject<'_>) -> Result<Answer, Trouble> {
        let address = format!("{}/{path}", self.endpoint);
        let mut uri: Uri = address
            .parse()
            .map_err(|_| bad_answer(subject, self.origin.shown(), "nothing: the name is too long to ask for"))?;
        let mut endpoint_headers = HeaderMap::new();
        for _ in 0..=MOST_REDIRECTS {
            let origin = Origin::of(&uri).map_err(|detail| bad_answer(subject, self.origin.shown(), &detail))?;
            let at_endpoint = origin == self.origin;
            let host = origin.shown();
            let response = self.send(method, &uri, &origin, at_endpoint)?;
            if at_endpoint {
                for (name, value) in response.headers() {
                    endpoint_headers.insert(name, value.clone());
                }
            }
            let status = response.status();
            let location = response.headers().get("location").filter(|_| status.is_redirection());
            let Some(location) = location else {
                self.check_status(method, &response, &host, at_endpoint, subject)?;
                return Ok(Answer { response, host, endpoint_headers });
            };
            let bad = |detail: &str| bad_answer(subject, host.clone(), detail);
            let location = location.to_str().map_err(|_| bad("a redirect to what is no text"))?;
            let to = follow(&uri, location).map_err(|detail| bad(&detail))?;
            // What a file is, the hub says itself; a foreign host is asked only for its content.
            if method == Method::Head && Origin::of(&to).as_ref() != Ok(&self.origin) {
                return Ok(Answer { response, host, endpoint_headers });
            }
            uri = to;
        }
        Err(bad_answer(subject, self.origin.shown(), &format!("more than {MOST_REDIRECTS} redirects in a row")).into())
    }

    fn send(&self, method: Method, uri: &Uri, origin: &Origin, with_token: bool) -> Result<Response<Body>, Trouble> {
        let mut request = match method {
            Method::Head => self.agent.head(uri),
            Method::Get { .. } => self.agent.get(uri),
        };
        // Lengths, ranges and checksums are of the file, not of a compressed form of it.
        request = request.header("accept-encoding", "identity");
        if let Method::Get { from: from @ 1.. } = method {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = self.settings.token.as_ref().filter(|_| with_token) {
            request = request.header("authorization", token.header());
        }
        if origin.is_loopback() {
            request = request.config().proxy(None).build();
        }
        request.call().map_err(|e| match distrust(&e) {
            Some(detail) => HubError::Tls { host: origin.shown(), detail }.into(),
            None => Trouble::Passing(Passing::new(origin.shown(), e.to_string())),
        })
    }

    fn patience<'a>(&'a self, shown: &'a str, has_cache: bool) -> Patience<'a> {
        let patience = Patience::new(&self.settings, shown);
        if has_cache { patience.short() } else { patience }
    }

    fn check_status(
        &self,
        method: Method,
        response: &Response<Body>,
        host: &str,
        at_endpoint: bool,
        subject: Subject<'_>,
    ) -> Result<(), Trouble> {
        let (status, headers) = (response.status(), response.headers());
        if let Some(passing) = Passing::of_status(host, status, headers) {
            return Err(Trouble::Passing(passing));
        }
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(()),
            StatusCode::RANGE_NOT_SATISFIABLE if matches!(method, Method::Get { from: 1.. }) => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if at_endpoint => Err(HubError::Denied {
                repo: subject.repo.to_owned(),
                status: status.as_u16(),
                page: format!("{}/{}", self.endpoint, subject.repo),
                with_token: self.settings.token.is_some(),
            }
            .into()),
            // The signature of a storage address is valid for a while only; the hub gives a new one.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Trouble::Passing(Passing::new(host.to_owned(), format!("it answers {status}"))))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE if at_endpoint => {
                let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
                let what = missing_thing(subject, code);
                Err(HubError::NotFound { what, endpoint: self.endpoint.clone() }.into())
            }
            _ => Err(bad_answer(subject, host.to_owned(), &format!("the status {status}")).into()),
        }
    }
}

impl Answer {
    /// A header of the answer itself.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }
}

/// What is wrong with an encrypted connection, if that is what failed: it will not pass.
fn distrust(error: &ureq::Error) -> Option<String> {
    match error {
        ureq::Error::Rustls(e) => Some(e.to_string()),
        ureq::Error::Tls(detail) => Some((*detail).to_owned()),
        // An error of rustls on its way through a stream.
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => Some(e.to_string()),
        _ => None,
    }
}

fn resolve_path(subject: Subject<'_>, revision: &str) -> String {
    let file = encode_path(subject.file.unwrap_or_default());
    format!("{}/resolve/{}/{file}", encode_path(subject.repo), encode_part(revision))
}

/// The hub says which of the three names it does not know, most of the time.
fn missing_thing(subject: Subject<'_>, code: &str) -> String {
    let Subject { repo, revision, file } = subject;
    match (code, file) {
        ("RepoNotFound", _) => format!("repository {repo}"),
        ("RevisionNotFound", _) => format!("revision {revision} of {repo}"),
        ("EntryNotFound", Some(file)) => format!("file {file} in {repo}@{revision}"),
        (_, Some(file)) => format!("file {file} in {repo}@{revision} (or no such repository or revision)"),
        (_, None) => format!("revision {revision} of {repo} (or no such repository)"),
    }
}

fn bad_answer(subject: Subject<'_>, host: String, detail: &str) -> HubError {
    HubError::BadAnswer { file: subject.shown(), host, detail: detail.to_owned() }
}
