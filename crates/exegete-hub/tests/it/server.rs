//! A small hub and the storage that it redirects to: one thread a connection, one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Which of the two servers was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Hub,
    Storage,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) place: Place,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// What the servers do wrong. `Default` is a well-behaved hub.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// For each content of `cut_file` sent, after how many bytes of it the connection ends; then whole ones.
    pub(crate) cuts: Vec<u64>,
    /// The same for every content, for ever.
    pub(crate) always_cut: Option<u64>,
    /// The file that is cut, by the end of its name.
    pub(crate) cut_file: &'static str,
    /// Instead of ending, a cut connection stays open and silent.
    pub(crate) cut_is_silence: bool,
    pub(crate) ignore_range: bool,
    /// Answers to ranges begin one byte late.
    pub(crate) wrong_range: bool,
    /// A bit of this file is flipped on its way.
    pub(crate) flip: &'static str,
    /// This file is sent with a byte too many.
    pub(crate) lengthen: &'static str,
    /// Only this token may read.
    pub(crate) token: Option<&'static str>,
    /// Statuses that the hub answers first, with extra header lines.
    pub(crate) hub_statuses: Vec<(u16, &'static str)>,
    /// The same for the storage.
    pub(crate) storage_statuses: Vec<u16>,
    /// One status for ever.
    pub(crate) always: Option<(u16, &'static str)>,
    /// The description of every repository.
    pub(crate) description: Option<Vec<u8>>,
    /// Names added to every description.
    pub(crate) siblings: Vec<String>,
    /// Header lines of a file instead of its etag.
    pub(crate) etag: Option<String>,
    /// Every request of the hub is sent here.
    pub(crate) redirect: Option<String>,
    /// Moves the storage to another address.
    pub(crate) storage: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    /// A large file: it lies in the storage, with SHA-256.
    pub(crate) large: bool,
}

/// A repository: commits with their files, and names of commits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repo {
    pub(crate) commits: BTreeMap<String, BTreeMap<String, File>>,
    pub(crate) names: BTreeMap<String, String>,
}

struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    log: Mutex<Vec<Request>>,
    behaviour: Mutex<Behaviour>,
    storage: SocketAddr,
}

/// Both servers. They run until the test's process ends.
#[derive(Clone)]
pub(crate) struct TestHub {
    state: Arc<State>,
    pub(crate) endpoint: String,
}

impl File {
    /// The checksum that the hub promises.
    pub(crate) fn checksum(&self) -> String {
        match self.large {
            true => format!("{:x}", Sha256::digest(&self.content)),
            false => {
                let hash = Sha1::new_with_prefix(format!("blob {}\0", self.content.len()));
                format!("{:x}", hash.chain_update(&self.content).finalize())
            }
        }
    }
}

impl TestHub {
    pub(crate) fn start() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        let storage_address = storage.local_addr().unwrap();
        let state = Arc::new(State {
            repos: Mutex::default(),
            log: Mutex::default(),
            behaviour: Mutex::default(),
            storage: storage_address,
        });
        for (place, listener) in [(Place::Hub, hub), (Place::Storage, storage)] {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = Arc::clone(&state);
                    thread::spawn(move || serve(&state, place, stream.unwrap()));
                }
            });
        }
        Self { state, endpoint }
    }

    pub(crate) fn repos(&self) -> MutexGuard<'_, BTreeMap<String, Repo>> {
        self.state.repos.lock().unwrap()
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }

    /// `host:port` of the storage.
    pub(crate) fn storage(&self) -> String {
        self.state.storage.to_string()
    }
}

impl Request {
    /// Whether content of a file was asked for.
    pub(crate) fn is_content(&self) -> bool {
        self.method == "GET" && !self.target.starts_with("/api/models/")
    }
}

/// Status, header lines and body of an answer.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, headers: impl Into<String>) -> Self {
        Self { status, headers: headers.into(), body: Vec::new() }
    }
}

fn serve(state: &State, place: Place, mut stream: TcpStream) {
    let Some(request) = read_request(place, &stream) else {
        // Whoever speaks TLS to it gets what a server without it answers.
        let _ = stream.write_all(b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n");
        return;
    };
    state.log.lock().unwrap().push(request.clone());
    let mut reply = answer(state, &request);
    let mut behaviour = state.behaviour.lock().unwrap();
    let is_cut = request.is_content()
        && matches!(reply.status, 200 | 206)
        && (behaviour.cut_file.is_empty() || request.target.ends_with(behaviour.cut_file));
    let cut = match (is_cut, behaviour.always_cut) {
        (false, _) => None,
        (true, Some(at)) => Some(at),
        (true, None) if behaviour.cuts.is_empty() => None,
        (true, None) => Some(behaviour.cuts.remove(0)),
    };
    let is_silent = behaviour.cut_is_silence;
    drop(behaviour);
    let length = reply.body.len();
    let has_length = reply.headers.to_lowercase().contains("content-length");
    let length_line = if has_length { String::new() } else { format!("Content-Length: {length}\r\n") };
    let head = format!("HTTP/1.1 {} X\r\n{length_line}Connection: close\r\n{}\r\n", reply.status, reply.headers);
    if request.method == "HEAD" {
        reply.body.clear();
    }
    if let Some(at) = cut {
        reply.body.truncate(at as usize);
    }
    // The client may be gone; that is its right.
    let _ =
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body)).and_then(|()| stream.flush());
    if cut.is_some() && is_silent {
        thread::sleep(Duration::from_secs(20));
    }
    let _ = stream.shutdown(Shutdown::Write);
}

fn read_request(place: Place, stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { place, method, target, range: None, authorization: None };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        match name.to_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(state: &State, request: &Request) -> Reply {
    let mut behaviour = state.behaviour.lock().unwrap();
    if request.place == Place::Storage {
        if !behaviour.storage_statuses.is_empty() {
            return Reply::new(behaviour.storage_statuses.remove(0), "");
        }
        let path = request.target.trim_start_matches("/store/").split('?').next().unwrap();
        return send(state, &behaviour, request, path);
    }
    if let Some((status, headers)) = behaviour.always {
        return Reply::new(status, headers);
    }
    if !behaviour.hub_statuses.is_empty() {
        let (status, headers) = behaviour.hub_statuses.remove(0);
        return Reply::new(status, headers);
    }
    if let Some(to) = &behaviour.redirect {
        return Reply::new(302, format!("Location: {to}\r\n"));
    }
    if behaviour.token.is_some_and(|token| request.authorization != Some(format!("Bearer {token}"))) {
        return Reply::new(401, "X-Error-Code: GatedRepo\r\n");
    }
    if let Some(path) = request.target.strip_prefix("/api/resolve-cache/") {
        let mut reply = send(state, &behaviour, request, path);
        reply.headers.push_str(&facts(state, &behaviour, path));
        return reply;
    }
    if let Some(rest) = request.target.strip_prefix("/api/models/") {
        let (repo, revision) = rest.split_once("/revision/").unwrap();
        return describe(state, &behaviour, repo, revision);
    }
    let Some((repo, rest)) = request.target[1..].split_once("/resolve/") else { return Reply::new(404, "") };
    let (revision, file) = rest.split_once('/').unwrap();
    let commit = match commit_of(state, repo, revision) {
        Ok(commit) => commit,
        Err(reply) => return reply,
    };
    let path = format!("{repo}/{commit}/{file}");
    let Some(found) = find(state, &path) else { return Reply::new(404, "X-Error-Code: EntryNotFound\r\n") };
    let location = match (found.large, &behaviour.storage) {
        (true, Some(elsewhere)) => format!("{elsewhere}/store/{path}?signature=sesame"),
        (true, None) => format!("http://{}/store/{path}?signature=sesame", state.storage),
        (false, _) => format!("/api/resolve-cache/{path}"),
    };
    // A redirect has an etag and a length of its own.
    let own = "ETag: \"of-the-redirect\"\r\n";
    let linked = if found.large { facts(state, &behaviour, &path) } else { own.into() };
    let mut reply = Reply::new(if found.large { 302 } else { 307 }, format!("Location: {location}\r\n{linked}"));
    reply.body = b"Moved".to_vec();
    reply
}

fn describe(state: &State, behaviour: &Behaviour, repo: &str, revision: &str) -> Reply {
    let mut reply = Reply::new(200, "Content-Type: application/json\r\n");
    if let Some(description) = &behaviour.description {
        reply.body.clone_from(description);
        return reply;
    }
    let commit = match commit_of(state, repo, revision) {
        Ok(commit) => commit,
        Err(reply) => return reply,
    };
    let repos = state.repos.lock().unwrap();
    let names = repos[repo].commits[&commit].keys().chain(&behaviour.siblings);
    let siblings: Vec<_> = names.map(|name| serde_json::json!({ "rfilename": name })).collect();
    reply.body = serde_json::to_vec(&serde_json::json!({
        "id": repo, "private": false, "gated": false, "tags": ["tiny"], "sha": commit, "siblings": siblings,
    }))
    .unwrap();
    reply
}

fn commit_of(state: &State, repo: &str, revision: &str) -> Result<String, Reply> {
    let repos = state.repos.lock().unwrap();
    let Some(repo) = repos.get(repo) else { return Err(Reply::new(404, "X-Error-Code: RepoNotFound\r\n")) };
    let revision = revision.replace("%2F", "/");
    let commit = repo.names.get(&revision).cloned().or(repo.commits.contains_key(&revision).then_some(revision));
    commit.ok_or(Reply::new(404, "X-Error-Code: RevisionNotFound\r\n"))
}

/// `path` is `org/name/commit/file`, percent-encoded.
fn find(state: &State, path: &str) -> Option<File> {
    let parts: Vec<&str> = path.splitn(4, '/').collect();
    let [org, name, commit, file] = parts[..] else { return None };
    let repos = state.repos.lock().unwrap();
    let files = repos.get(&format!("{org}/{name}"))?.commits.get(commit)?;
    files.get(&file.replace("%20", " ")).cloned()
}

fn facts(state: &State, behaviour: &Behaviour, path: &str) -> String {
    let commit = path.split('/').nth(2).unwrap();
    let Some(file) = find(state, path) else { return String::new() };
    let etag = match &behaviour.etag {
        Some(lines) => return format!("{lines}X-Repo-Commit: {commit}\r\n"),
        None => file.checksum(),
    };
    let linked = format!("X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\nETag: \"other\"\r\n", file.content.len());
    let plain = format!("ETag: \"{etag}\"\r\n");
    format!("X-Repo-Commit: {commit}\r\n{}", if file.large { linked } else { plain })
}

fn send(state: &State, behaviour: &Behaviour, request: &Request, path: &str) -> Reply {
    let Some(file) = find(state, path) else { return Reply::new(404, "") };
    let mut content = file.content;
    if !behaviour.flip.is_empty() && path.ends_with(behaviour.flip) {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    }
    if !behaviour.lengthen.is_empty() && path.ends_with(behaviour.lengthen) {
        content.push(0);
    }
    let from: Option<usize> = request.range.as_deref().map(|range| {
        range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).expect("an open range").parse().unwrap()
    });
    let mut reply = Reply::new(200, "");
    match from.filter(|_| !behaviour.ignore_range) {
        Some(from) if from >= content.len() => reply.status = 416,
        Some(from) => {
            let from = if behaviour.wrong_range { from + 1 } else { from };
            let total = content.len();
            reply.status = 206;
            reply.headers = format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1);
            reply.body = content.split_off(from);
        }
        None => reply.body = content,
    }
    reply
}
