//! llama2.c's legacy checkpoint (`.bin`): seven 32-bit numbers, then f32 weights in a fixed order.
//!
//! Header: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative if the unembedding is its own),
//! seq_len. Weights: embedding; then for all layers each of norm1, q, k, v, o, norm2, gate, down, up; the final
//! norm; two rotary tables of `seq_len * d_head / 2` that are not used; the unembedding unless tied. q and k
//! rotate neighbouring pairs. Source: karpathy/llama2.c, `run.c` and `export.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exegete_tensor::Act;

use super::quant::Encoding;
use super::tensor_bytes::TensorBytes;
use super::{WeightSource, map_file};
use crate::families::stored::{HF, spell};
use crate::families::{self, Understood};
use crate::parts::{Part, Weight};
use crate::rope::Rope;
use crate::spec::{Mlp, ModelSpec, Norm};
use crate::{ModelError, Result};

/// A llama2.c checkpoint, under the names of the Hugging Face layout.
pub struct Llama2c {
    path: PathBuf,
    tensors: BTreeMap<String, TensorBytes>,
}

impl Llama2c {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// A header that makes no model, a file of another length than the header asks for.
    pub fn open(path: &Path) -> Result<(Self, Understood)> {
        let map = Arc::new(map_file(path)?);
        let header = map.get(..28).ok_or_else(|| ModelError::format(path, "shorter than its 28-byte header"))?;
        let fields: Vec<i32> = header.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let size = |i: usize| usize::try_from(fields[i]).unwrap_or(0);
        let (norm, mlp) = (Norm::Rms { eps: 1e-5 }, Mlp::Gated(Act::Silu));
        let plain = ModelSpec::plain("llama", size(2), size(0), size(3), norm, mlp);
        let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
        spec.n_kv_heads = size(4);
        spec.d_mlp = size(1);
        spec.vocab_size = fields[5].unsigned_abs() as usize;
        spec.max_positions = size(6);
        spec.tied = fields[5] > 0;
        (spec.bos_id, spec.eos_ids) = (Some(1), vec![2]);
        // Heads wider than any file could hold are refused below; their tables must not be made first.
        spec.set_rope(Rope::plain(10_000.0, spec.d_head.min(1 << 16)));
        let understood = families::understand_llama2c(path, spec)?;
        let spec = &understood.spec;
        let name = |w: Weight| spell(HF.iter().find(|(part, _)| *part == w.part).map_or("?", |(_, name)| *name), w);
        let (mut at, mut places) = (28u128, Vec::new());
        let mut place = |w: Weight| {
            let shape = spec.weight_shape(w);
            places.push((name(w), at, shape.clone()));
            at += 4 * shape.iter().map(|n| *n as u128).product::<u128>();
        };
        place(Weight::global(Part::Embed));
        use Part::{Down, Gate, K, Norm1, Norm2, O, Q, Up, V};
        for part in [Norm1, Q, K, V, O, Norm2, Gate, Down, Up] {
            (0..spec.n_layers).for_each(|l| place(Weight::at(part, l)));
        }
        place(Weight::global(Part::NormFinal));
        at += 4 * spec.max_positions as u128 * spec.d_head as u128;
        if !spec.tied {
            let shape = spec.weight_shape(Weight::global(Part::Unembed));
            places.push((name(Weight::global(Part::Unembed)), at, shape));
            at += 4 * spec.vocab_size as u128 * spec.d_model as u128;
        }
        if at != map.len() as u128 {
            let detail =
                format!("{} bytes, but its header asks for {at}: truncated, or no llama2.c checkpoint", map.len());
            return Err(ModelError::format(path, detail));
        }
        let mut tensors = BTreeMap::new();
        for (name, at, shape) in places {
            // The whole is as long as the file, so every part of it fits into a usize.
            let (from, len) = (at as usize, 4 * shape.iter().product::<usize>());
            if let Some(tensor) = TensorBytes::new(map.clone(), from..from + len, Encoding::F32, shape) {
                tensors.insert(name, tensor);
            }
        }
        Ok((Self { path: path.into(), tensors }, understood))
    }
}

impl WeightSource for Llama2c {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Option<&TensorBytes> {
        self.tensors.get(name)
    }
}
