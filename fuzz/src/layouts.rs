//! Directories of published dictionaries as inputs: a golden of `refs/`, of which one file is the input's.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use exegete_sae::formats::{self, Choices};

use crate::containers::{granted, mutated};
use crate::rng::Rng;
use crate::{memory, place, refs, tell};

/// Folders of goldens of dictionaries.
pub const GROUPS: &[&str] = &["sae_peers", "sae_saelens", "sae_matching_pursuit", "sae_layouts", "sae_layers"];

/// A golden: its files, what is loaded, and all bytes together.
struct Case {
    name: String,
    files: Vec<(PathBuf, Vec<u8>)>,
    opened: PathBuf,
    n_bytes: usize,
}

/// The cases of a layout in a scratch folder, and which file of which case differs from the golden.
pub struct Layout {
    name: &'static str,
    cases: Vec<Case>,
    changed: Mutex<Option<(usize, usize)>>,
}

/// How an input is opened, in its first byte, beside the number of the case.
const BY_LOOKS: u8 = 0x80;
const WITH_K: u8 = 0x40;

impl Layout {
    /// Copies every golden that is read as a layout; under its path in `refs/`, for names of folders tell things.
    pub fn new(name: &'static str) -> Self {
        let base = place::scratch();
        let mut cases = Vec::new();
        for (i, dir) in goldens().into_iter().enumerate() {
            let Some(opened) = opened(&dir, name) else { continue };
            let to = base.join(i.to_string());
            let below = |path: &Path| to.join(path.strip_prefix(refs()).expect("goldens are below refs/"));
            let mut files = Vec::new();
            for path in files_below(&dir) {
                let copy = below(&path);
                std::fs::create_dir_all(copy.parent().expect("a file is in a folder")).expect("a folder can be made");
                let bytes = std::fs::read(&path).expect("a golden can be read");
                place::write(&copy, &bytes);
                files.push((copy, bytes));
            }
            let n_bytes = files.iter().map(|(_, bytes)| bytes.len()).sum();
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            cases.push(Case { name, files, opened: below(&opened), n_bytes });
        }
        assert!(!cases.is_empty(), "no golden is of the layout {name}");
        Self { name, cases, changed: Mutex::new(None) }
    }

    /// Every file of every case, opened by its layout's name and by its looks.
    pub fn seeds(&self) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        for (c, case) in self.cases.iter().enumerate() {
            for (f, (_, bytes)) in case.files.iter().enumerate() {
                for (flag, how) in [(0, "named"), (BY_LOOKS, "looks"), (WITH_K, "k")] {
                    let head = [c as u8 | flag, f as u8];
                    out.push((format!("{}-{f}-{how}", case.name), [&head, &bytes[..]].concat()));
                }
            }
        }
        out
    }

    /// Loads an input and, if that works, does with the dictionary whatever is done with one.
    pub fn feed(&self, data: &[u8]) {
        let [head, file, bytes @ ..] = data else { return };
        let c = usize::from(head & !(BY_LOOKS | WITH_K)) % self.cases.len();
        let case = &self.cases[c];
        let f = usize::from(*file) % case.files.len();
        let mut changed = self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((c, f)) = changed.replace((c, f)) {
            let (path, golden) = &self.cases[c].files[f];
            place::write(path, golden);
        }
        let (path, golden) = &case.files[f];
        place::write(path, bytes);
        let choices = Choices {
            format: (head & BY_LOOKS == 0).then(|| self.name.to_owned()),
            k: (head & WITH_K != 0).then_some(4),
            ..Choices::default()
        };
        let n_bytes = case.n_bytes - golden.len() + bytes.len();
        let loaded = memory::bounded(granted(n_bytes), || formats::load(&case.opened, &choices));
        let Ok(saved) = loaded.inspect_err(|e| tell(&format!("refused: {e}"))) else { return };
        let (d, o) = (saved.dictionary.d_in(), saved.dictionary.d_out());
        let x: Vec<f32> = (0..2 * d).map(|i| ((i * 7 % 11) as f32 - 5.0) * 0.3).collect();
        let codes = saved.dictionary.encode(&x).expect("a dictionary that loads encodes");
        let mut out = vec![0f32; 2 * o];
        saved.dictionary.reconstruct(&x, &codes, &mut out).expect("a dictionary that loads reconstructs");
        // Some kinds have no gradient.
        let _ = saved.dictionary.backward(&x, &out, None);
        for format in formats::writable() {
            let _ = formats::write(&saved, format);
        }
        tell("ran");
    }

    /// A mutation of the input's file.
    pub fn mutated(&self, data: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        let [head, file, bytes @ ..] = data else { return None };
        if rng.one_in(40) {
            // Another file of another case, as it is.
            let c = rng.below(self.cases.len());
            let f = rng.below(self.cases[c].files.len());
            let head = [c as u8 | *rng.pick(&[0, BY_LOOKS, WITH_K]), f as u8];
            return Some([&head, &self.cases[c].files[f].1[..]].concat());
        }
        Some([&[*head, *file], &mutated(bytes, rng)?[..]].concat())
    }
}

/// Directories with a golden.
fn goldens() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = GROUPS.iter().map(|group| refs().join(group)).collect();
    while let Some(dir) = left.pop() {
        let inside = std::fs::read_dir(&dir).expect("refs/ is there").flatten().map(|e| e.path());
        for path in inside {
            match path.is_dir() {
                true => left.push(path),
                false if path.ends_with("golden.safetensors") => found.push(dir.clone()),
                false => {}
            }
        }
    }
    found.sort();
    found
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for path in std::fs::read_dir(&dir).expect("a golden's folder can be listed").flatten().map(|e| e.path()) {
            match path.is_dir() {
                true => left.push(path),
                false if !path.ends_with("golden.safetensors") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    files
}

/// What of a golden is read as a layout: the directory, or a file in it.
fn opened(dir: &Path, layout: &str) -> Option<PathBuf> {
    let is_it = |path: &Path| {
        let saved = formats::load(path, &Choices { k: Some(4), ..Choices::default() });
        saved.or_else(|_| formats::load(path, &Choices::default())).is_ok_and(|saved| saved.format == layout)
    };
    std::iter::once(dir.to_owned()).chain(files_below(dir)).find(|path| is_it(path))
}

/// A target that feeds one layout.
#[macro_export]
macro_rules! layout_target {
    ($layout:literal) => {
        #[global_allocator]
        static ALLOCATOR: $crate::memory::Counting = $crate::memory::Counting;

        static LAYOUT: std::sync::LazyLock<$crate::layouts::Layout> =
            std::sync::LazyLock::new(|| $crate::layouts::Layout::new($layout));

        libfuzzer_sys::fuzz_target!(
            init: {
                $crate::start();
                $crate::write_seeds(LAYOUT.seeds());
            },
            |data: &[u8]| LAYOUT.feed(data)
        );

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let rng = &mut $crate::rng::Rng::new(seed);
            match LAYOUT.mutated(&data[..size], rng) {
                Some(out) if !rng.one_in(20) && out.len() <= max_size => {
                    data[..out.len()].copy_from_slice(&out);
                    out.len()
                }
                _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
    };
}
