//! A hub with a tiny model, a cache in a folder of its own, and what a test asks of both.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exegete_hub::{DownloadEvent, Hub, HubError, HubSettings, Reference, Token};
use tempfile::TempDir;

use crate::server::{Behaviour, File, Repo, TestHub};

pub(crate) const REPO: &str = "tiny/model";
pub(crate) const OLD: &str = "1111111111111111111111111111111111111111";
pub(crate) const NEW: &str = "2222222222222222222222222222222222222222";
pub(crate) const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
pub(crate) const GGUF: &str = "quantized/tiny model.gguf";
/// What `model` fetches of [`REPO`].
pub(crate) const WANTED: [&str; 7] = [
    "chat_template.jinja",
    "config.json",
    SHARDS[0],
    SHARDS[1],
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

pub(crate) struct World {
    pub(crate) server: TestHub,
    pub(crate) settings: HubSettings,
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let server = TestHub::start();
        let mut repo = Repo::default();
        repo.commits.insert(OLD.into(), tiny_model(1.0));
        repo.commits.insert(NEW.into(), tiny_model(2.0));
        for (name, commit) in [("main", NEW), ("v1.0", OLD), ("refs/pr/1", OLD)] {
            repo.names.insert(name.into(), commit.into());
        }
        server.repos().insert(REPO.into(), repo);
        let dir = tempfile::tempdir().unwrap();
        let mut settings = HubSettings::new(dir.path().join("hub"), server.endpoint.clone());
        settings.retries = 3;
        settings.backoff = Duration::from_millis(1);
        settings.silence = Duration::from_secs(10);
        Self { server, settings, dir }
    }

    pub(crate) fn with(behaviour: Behaviour) -> Self {
        let world = Self::new();
        world.server.behave(behaviour);
        world
    }

    pub(crate) fn token(&mut self, token: &str) {
        self.settings.token = Some(Token::new(token, "HF_TOKEN").unwrap());
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.settings.clone()).unwrap()
    }

    pub(crate) fn model(&self, reference: &str) -> Result<PathBuf, HubError> {
        self.hub().model(&parse(reference), &|_| ())
    }

    pub(crate) fn file(&self, file: &str) -> Result<PathBuf, HubError> {
        self.hub().file(&parse(REPO), file, &|_| ())
    }

    /// The result of `work` and the events in words.
    pub(crate) fn told(
        &self,
        work: impl FnOnce(&Hub, &dyn Fn(DownloadEvent<'_>)) -> Result<PathBuf, HubError>,
    ) -> (Result<PathBuf, HubError>, Vec<String>) {
        let told = RefCell::new(Vec::new());
        let result = work(&self.hub(), &|event| told.borrow_mut().push(format!("{event:?}")));
        (result, told.into_inner())
    }

    /// A folder for whatever a test needs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The repository's folder in the cache.
    pub(crate) fn repo_dir(&self) -> PathBuf {
        self.settings.cache.join("models--tiny--model")
    }

    pub(crate) fn content(&self, commit: &str, file: &str) -> File {
        self.server.repos()[REPO].commits[commit][file].clone()
    }

    /// The partial file of a file's blob.
    pub(crate) fn partial(&self, file: &str) -> PathBuf {
        self.repo_dir().join("blobs").join(format!("{}.incomplete", self.content(NEW, file).checksum()))
    }

    /// Asserts that a snapshot has what the hub has, and nothing else, and that no partial file is left.
    pub(crate) fn assert_whole(&self, snapshot: &Path, commit: &str) {
        assert_eq!(snapshot, self.repo_dir().join("snapshots").join(commit));
        assert_eq!(names_in(snapshot), WANTED);
        for name in WANTED {
            assert_eq!(fs::read(snapshot.join(name)).unwrap(), self.content(commit, name).content, "{name}");
        }
        self.assert_no_partial();
    }

    pub(crate) fn assert_no_partial(&self) {
        let left: Vec<_> = names_in(&self.repo_dir().join("blobs")).into_iter().filter(|n| n.contains('.')).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub(crate) fn parse(reference: &str) -> Reference {
    reference.parse().unwrap()
}

/// The names in a folder in order; none if there is no folder.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that the message of an error holds every one of `parts`.
#[track_caller]
pub(crate) fn assert_says<T: std::fmt::Debug>(result: Result<T, HubError>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn tiny_model(weight: f32) -> BTreeMap<String, File> {
    let small = |text: &str| File { content: text.as_bytes().to_vec(), large: false };
    let large = |content: Vec<u8>| File { content, large: true };
    let index = serde_json::json!({
        "metadata": { "total_size": 8000 },
        "weight_map": { "a": SHARDS[0], "b": SHARDS[1] },
    });
    let files = [
        (".gitattributes", small("*.safetensors filter=lfs\n")),
        ("README.md", small("# Tiny\n")),
        ("config.json", small(r#"{"model_type": "llama"}"#)),
        ("tokenizer.json", small(r#"{"version": "1.0"}"#)),
        ("tokenizer_config.json", small("{}")),
        ("chat_template.jinja", small("{{ messages }}")),
        ("model.safetensors.index.json", small(&index.to_string())),
        (SHARDS[0], large(safetensors("a", weight))),
        (SHARDS[1], large(safetensors("b", -weight))),
        ("pytorch_model.bin", large(b"a pickle".to_vec())),
        (GGUF, large(b"GGUF of no use".repeat(100))),
    ];
    files.into_iter().map(|(name, file)| (name.to_owned(), file)).collect()
}

/// A safetensors file with one tensor of a thousand values.
fn safetensors(name: &str, first: f32) -> Vec<u8> {
    let header =
        serde_json::json!({ name: { "dtype": "F32", "shape": [1000], "data_offsets": [0, 4000] } }).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..1000).flat_map(|i| (first + i as f32).to_le_bytes()));
    file
}
