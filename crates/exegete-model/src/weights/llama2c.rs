//! llama2.c's legacy checkpoint (`.bin`): seven 32-bit numbers, then f32 weights in a fixed order.
//!
//! Header: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative if the unembedding is its own),
//! seq_len. Weights: embedding; then for all layers each of norm1, q, k, v, o, norm2, gate, down, up; the final
//! norm; two rotary tables of `seq_len * d_head / 2` that are not used; the unembedding unless tied. q and k
//! rotate neighbouring pairs. Source: karpathy/llama2.c, `run.c` and `export.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::quant::Encoding;
use super::{WeightSource, map_file};
use crate::families::{self, Understood};
use crate::spec::{Mlp, ModelSpec, Norm, Rope};
use crate::{ModelError, Result};

/// A llama2.c checkpoint, under the names of the Hugging Face layout.
pub struct Llama2c {
    path: PathBuf,
    map: memmap2::Mmap,
    tensors: BTreeMap<String, (usize, Vec<usize>)>,
}

impl Llama2c {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// A header that makes no model, a file of another length than the header asks for.
    pub fn open(path: &Path) -> Result<(Self, Understood)> {
        let map = map_file(path)?;
        let header = map.get(..28).ok_or_else(|| ModelError::format(path, "shorter than its 28-byte header"))?;
        let fields: Vec<i32> = header.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let size = |i: usize| usize::try_from(fields[i]).unwrap_or(0);
        let (d, n_heads, tied) = (size(0), size(3), fields[5] > 0);
        let d_head = d.checked_div(n_heads).unwrap_or(0);
        let spec = ModelSpec {
            family: "llama".into(),
            n_layers: size(2),
            d_model: d,
            n_heads,
            n_kv_heads: size(4),
            d_head,
            d_mlp: size(1),
            vocab_size: fields[5].unsigned_abs() as usize,
            max_positions: size(6),
            norm: Norm::Rms { eps: 1e-5 },
            mlp: Mlp::GatedSilu,
            rope: Rope::plain(10_000.0, d_head.min(1 << 16)),
            tied,
            bos_id: Some(1),
            eos_ids: vec![2],
        };
        let mut understood = families::understand_llama2c(path, spec)?;
        understood.names.qk_rows_in_pairs = true;
        let (spec, n) = (&understood.spec, &understood.names);
        let (q, kv) = (n_heads * d_head, spec.n_kv_heads * d_head);
        let stacked: [(&str, Vec<usize>); 9] = [
            (n.norm1, vec![d]),
            (n.q, vec![q, d]),
            (n.k, vec![kv, d]),
            (n.v, vec![kv, d]),
            (n.o, vec![d, q]),
            (n.norm2, vec![d]),
            (n.gate, vec![spec.d_mlp, d]),
            (n.down, vec![d, spec.d_mlp]),
            (n.up, vec![spec.d_mlp, d]),
        ];
        let (mut at, mut tensors) = (28u128, BTreeMap::new());
        let mut place = |name: String, shape: Vec<usize>| {
            let bytes = 4 * shape.iter().map(|n| *n as u128).product::<u128>();
            tensors.insert(name, (usize::try_from(at).unwrap_or(usize::MAX), shape));
            at += bytes;
        };
        place(n.embed.into(), vec![spec.vocab_size, d]);
        for (name, shape) in stacked {
            for l in 0..spec.n_layers {
                place(name.replace("{}", &l.to_string()), shape.clone());
            }
        }
        place(n.norm_final.into(), vec![d]);
        at += 4 * spec.max_positions as u128 * d_head as u128;
        if !tied {
            tensors.insert(n.unembed.into(), (usize::try_from(at).unwrap_or(usize::MAX), vec![spec.vocab_size, d]));
            at += 4 * spec.vocab_size as u128 * d as u128;
        }
        if at != map.len() as u128 {
            let detail =
                format!("{} bytes, but its header asks for {at}: truncated, or no llama2.c checkpoint", map.len());
            return Err(ModelError::format(path, detail));
        }
        Ok((Self { path: path.into(), map, tensors }, understood))
    }
}

impl WeightSource for Llama2c {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, (_, shape))| (name.clone(), shape.clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let fail = || ModelError::weights(&self.path, format!("no tensor {name:?}"));
        let (from, shape) = self.tensors.get(name).ok_or_else(fail)?;
        let bytes = self.map.get(*from..*from + 4 * shape.iter().product::<usize>()).ok_or_else(fail)?;
        Ok(Encoding::F32.decode(bytes))
    }
}
