//! Goldens: tensors written by the Python generators in `refs/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The tensors of one golden file, as f32, i32 or bytes.
pub struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Values)>,
}

enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

/// The folder `refs/` of this repository.
///
/// Looked for from the crate under test, whose folder cargo gives at run time: the path known when this was
/// compiled is another checkout's where two share a target folder.
pub fn refs_dir() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let roots = Path::new(&crate_dir).ancestors();
    let found = roots.map(|root| root.join("refs")).find(|refs| refs.join("requirements.txt").is_file());
    found.unwrap_or_else(|| panic!("no refs/ above {}", crate_dir.display()))
}

impl Golden {
    /// Reads a golden file; a relative path is taken from `refs/`.
    ///
    /// # Panics
    /// If the file is missing, is not safetensors, or holds another type.
    #[track_caller]
    pub fn load(path: impl AsRef<Path>) -> Self {
        let path = refs_dir().join(path);
        let case = path.strip_prefix(refs_dir()).ok().and_then(|p| p.iter().next()).unwrap_or_default();
        let hint = format!("to regenerate: cargo xtask golden {}", case.display());
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; {hint}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}; {hint}", path.display()));
        let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(words.map(f32::from_le_bytes).collect()),
                Dtype::I32 => Values::I32(words.map(i32::from_le_bytes).collect()),
                Dtype::U8 => Values::U8(view.data().to_vec()),
                other => panic!("{}: {name} is {other:?}, a golden holds f32, i32 and bytes", path.display()),
            };
            (name, (view.shape().to_vec(), values))
        };
        let tensors = file.tensors().into_iter().map(read).collect();
        Self { path, tensors }
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor.
    ///
    /// # Panics
    /// If there is none of this name.
    #[track_caller]
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.get(name).0
    }

    /// The values of an f32 tensor, row by row.
    ///
    /// # Panics
    /// If there is none of this name, or it holds integers.
    #[track_caller]
    pub fn f32(&self, name: &str) -> &[f32] {
        match &self.get(name).1 {
            Values::F32(values) => values,
            _ => panic!("{}: {name} holds no f32", self.path.display()),
        }
    }

    /// The values of an i32 tensor, row by row.
    ///
    /// # Panics
    /// If there is none of this name, or it holds floats.
    #[track_caller]
    pub fn i32(&self, name: &str) -> &[i32] {
        match &self.get(name).1 {
            Values::I32(values) => values,
            _ => panic!("{}: {name} holds no i32", self.path.display()),
        }
    }

    /// The bytes of a u8 tensor.
    ///
    /// # Panics
    /// If there is none of this name, or it holds numbers.
    #[track_caller]
    pub fn bytes(&self, name: &str) -> &[u8] {
        match &self.get(name).1 {
            Values::U8(values) => values,
            _ => panic!("{}: {name} holds no bytes", self.path.display()),
        }
    }

    /// The values of an i32 tensor of tokens.
    ///
    /// # Panics
    /// If there is none of this name, it holds floats, or a value is negative.
    #[track_caller]
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        let token = |t: &i32| u32::try_from(*t).unwrap_or_else(|_| panic!("{name} holds the negative token {t}"));
        self.i32(name).iter().map(token).collect()
    }

    /// The one value of an f32 tensor of one element.
    ///
    /// # Panics
    /// If there is none of this name, or it has another shape.
    #[track_caller]
    pub fn scalar(&self, name: &str) -> f32 {
        let values = self.f32(name);
        assert_eq!(values.len(), 1, "{}: {name} has {} values, not one", self.path.display(), values.len());
        values[0]
    }

    #[track_caller]
    fn get(&self, name: &str) -> &(Vec<usize>, Values) {
        let missing = || panic!("{}: no tensor {name}; there are {:?}", self.path.display(), self.tensors.keys());
        self.tensors.get(name).unwrap_or_else(missing)
    }
}
