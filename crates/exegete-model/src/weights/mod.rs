//! Weights: sources of named tensors (one file a format), and what the forward pass keeps of them.

pub mod gguf;
pub mod llama2c;
mod quant;
mod safetensors;

use std::path::Path;

pub use self::safetensors::SafetensorsDir;
use exegete_tensor::{Value, tensor};

use crate::families::{Names, Understood};
use crate::{ModelError, Result};

/// A file, or files, of named tensors.
pub trait WeightSource {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;

    /// The names and shapes of its tensors, outermost axis first.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;

    /// A tensor's values in f32, row-major.
    ///
    /// # Errors
    /// There is no such tensor, or its bytes are not as promised.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
}

/// Weights of one block. Matrices are `[out, in]`.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The names are those of `Names`, which documents their shapes.
pub struct LayerWeights {
    pub norm1: Value,
    pub q: Value,
    pub k: Value,
    pub v: Value,
    pub o: Value,
    pub norm2: Value,
    pub gate: Value,
    pub up: Value,
    pub down: Value,
}

/// All weights.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `[vocab, d_model]`
    pub embed: Value,
    /// One entry a layer.
    pub layers: Vec<LayerWeights>,
    /// `[d_model]`
    pub norm_final: Value,
    /// `[vocab, d_model]`; the embedding itself where they are tied.
    pub unembed: Value,
}

impl Weights {
    /// Reads all weights, and refuses missing, unused and mis-shaped tensors.
    ///
    /// # Errors
    /// The names of the tensors at fault.
    pub fn load(source: &dyn WeightSource, understood: &Understood) -> Result<Self> {
        let (spec, names) = (&understood.spec, &understood.names);
        let mut reader = Reader { source, names, shapes: source.shapes().into_iter().collect(), used: Vec::new() };
        let (d, q, kv) = (spec.d_model, spec.n_heads * spec.d_head, spec.n_kv_heads * spec.d_head);
        reader.check_all(understood)?;
        let embed = reader.take(names.embed, None, &[spec.vocab_size, d])?;
        let mut layers = Vec::new();
        for l in 0..spec.n_layers {
            let mut take = |name: &str, shape: &[usize]| reader.take(name, Some(l), shape);
            layers.push(LayerWeights {
                norm1: take(names.norm1, &[d])?,
                q: take(names.q, &[q, d])?,
                k: take(names.k, &[kv, d])?,
                v: take(names.v, &[kv, d])?,
                o: take(names.o, &[d, q])?,
                norm2: take(names.norm2, &[d])?,
                gate: take(names.gate, &[spec.d_mlp, d])?,
                up: take(names.up, &[spec.d_mlp, d])?,
                down: take(names.down, &[d, spec.d_mlp])?,
            });
        }
        let norm_final = reader.take(names.norm_final, None, &[d])?;
        let unembed = match spec.tied {
            true => embed.clone(),
            false => reader.take(names.unembed, None, &[spec.vocab_size, d])?,
        };
        if names.qk_rows_in_pairs {
            for layer in &mut layers {
                layer.q = halves_from_pairs(&layer.q, spec.d_head)?;
                layer.k = halves_from_pairs(&layer.k, spec.d_head)?;
            }
        }
        reader.refuse_unused(spec.tied)?;
        Ok(Self { embed, layers, norm_final, unembed })
    }
}

struct Reader<'a> {
    source: &'a dyn WeightSource,
    names: &'a Names,
    shapes: std::collections::BTreeMap<String, Vec<usize>>,
    used: Vec<String>,
}

impl Reader<'_> {
    /// Names every missing tensor at once, before anything large is read.
    fn check_all(&self, understood: &Understood) -> Result<()> {
        let (n, spec) = (self.names, &understood.spec);
        let per_layer = [n.norm1, n.q, n.k, n.v, n.o, n.norm2, n.gate, n.up, n.down];
        let mut wanted: Vec<String> = vec![n.embed.into(), n.norm_final.into()];
        wanted.extend((!spec.tied).then(|| n.unembed.to_owned()));
        wanted.extend((0..spec.n_layers).flat_map(|l| per_layer.map(|name| name.replace("{}", &l.to_string()))));
        let missing: Vec<String> = wanted.into_iter().filter(|w| !self.shapes.contains_key(w)).collect();
        match missing.as_slice() {
            [] => Ok(()),
            some => Err(ModelError::weights(self.source.path(), format!("missing tensors: {}", list(some)))),
        }
    }

    fn take(&mut self, name: &str, layer: Option<usize>, shape: &[usize]) -> Result<Value> {
        let name = layer.map_or(name.to_owned(), |l| name.replace("{}", &l.to_string()));
        let fail = |detail: String| ModelError::weights(self.source.path(), detail);
        match self.shapes.get(&name) {
            None => return Err(fail(format!("missing tensor {name:?}"))),
            Some(found) if found != shape => {
                return Err(fail(format!("tensor {name:?} has shape {found:?}, the configuration asks for {shape:?}")));
            }
            Some(_) => {}
        }
        let value = tensor(self.source.read(&name)?, shape)?.into();
        self.used.push(name);
        Ok(value)
    }

    fn refuse_unused(&self, tied: bool) -> Result<()> {
        let ignored = |name: &str| {
            self.names.ignored.iter().any(|part| name.contains(part)) || (tied && name == self.names.unembed)
        };
        let unused: Vec<String> =
            self.shapes.keys().filter(|name| !self.used.contains(name) && !ignored(name)).cloned().collect();
        match unused.as_slice() {
            [] => Ok(()),
            some => {
                let detail = format!("tensors that this family does not use: {}", list(some));
                Err(ModelError::weights(self.source.path(), detail))
            }
        }
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}

/// Reorders the rows of each head from pairs (2i, 2i + 1) to halves (i, i + d_head / 2).
fn halves_from_pairs(w: &Value, d_head: usize) -> Result<Value> {
    let (rows, cols) = w.tensor().dims2().map_err(exegete_tensor::TensorError::from)?;
    let data = exegete_tensor::f32s(w.tensor())?;
    let mut out = Vec::with_capacity(rows * cols);
    for head in 0..rows / d_head {
        for r in (0..d_head).step_by(2).chain((1..d_head).step_by(2)) {
            let row = head * d_head + r;
            out.extend_from_slice(&data[row * cols..(row + 1) * cols]);
        }
    }
    Ok(tensor(out, (rows, cols))?.into())
}

/// Maps a file into memory.
pub(crate) fn map_file(path: &Path) -> Result<memmap2::Mmap> {
    let file = std::fs::File::open(path).map_err(|e| ModelError::io(path, e))?;
    // SAFETY: the map is read-only; a file that another program truncates meanwhile is outside what we can guard.
    unsafe { memmap2::Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))
}
