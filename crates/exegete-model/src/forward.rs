//! The one forward pass.

use exegete_base::{Site, SiteKind};
use exegete_tensor::cpu::attention::AttentionShape;
use exegete_tensor::{KvView, Tape, Value};

use crate::hooks::Visit;
use crate::spec::{Mlp, Norm};
use crate::weights::LayerWeights;
use crate::{Hooks, KvCache, Model, ModelError, Result};

/// Token ids of a batch, all rows of one length.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[n_rows * len]`
    pub ids: Vec<u32>,
    /// Rows.
    pub n_rows: usize,
    /// Positions a row.
    pub len: usize,
    /// Padding positions at the start of each row, which nothing attends to; empty for none.
    pub starts_B: Vec<usize>,
}

impl Batch {
    /// One sequence.
    pub fn one(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), n_rows: 1, len: ids.len(), starts_B: Vec::new() }
    }

    /// Sequences of any lengths, padded at their start with their first token.
    ///
    /// # Errors
    /// No sequences, or an empty one.
    pub fn padded(rows: &[Vec<u32>]) -> Result<Self> {
        let len = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (mut ids, mut starts_B) = (Vec::with_capacity(rows.len() * len), Vec::new());
        for row in rows {
            let Some(first) = row.first() else {
                return Err(ModelError::Request("an empty sequence cannot be run; give it at least one token".into()));
            };
            starts_B.push(len - row.len());
            ids.extend(std::iter::repeat_n(*first, len - row.len()).chain(row.iter().copied()));
        }
        if starts_B.iter().all(|s| *s == 0) {
            starts_B.clear();
        }
        Ok(Self { ids, n_rows: rows.len(), len, starts_B })
    }

    /// Padding positions at the start of a row.
    pub fn start(&self, row: usize) -> usize {
        self.starts_B.get(row).copied().unwrap_or(0)
    }
}

/// Which positions' logits a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: the run ends with the blocks.
    None,
    /// The last position of each row: `[B, 1, V]`. Only here can the final sites be visited with one position.
    Last,
    /// All: `[B, T, V]`.
    All,
}

impl Model {
    /// Runs a batch, visiting every site, behind the positions of `cache` if one is given.
    ///
    /// # Shapes
    /// `-> logits [B, T or 1, V], unless they were not asked for or the run stopped at a layer`
    ///
    /// # Errors
    /// Ids outside the vocabulary, contexts too long, sites that do not exist, edits that fail.
    pub fn run(
        &self,
        tape: &Tape,
        batch: &Batch,
        mut cache: Option<&mut KvCache>,
        hooks: &mut Hooks,
        logits: Logits,
    ) -> Result<Option<Value>> {
        hooks.check(&self.spec)?;
        let past = cache.as_ref().map_or(0, |c| c.len());
        self.check(batch, past, cache.as_deref())?;
        let mut at = Visit { tape, spec: &self.spec, batch, past };
        let embed = tape.embedding(&self.weights.embed, &batch.ids)?;
        let embed = tape.reshape(&embed, &[batch.n_rows, batch.len, self.spec.d_model])?;
        let mut resid = hooks.visit(&mut at, Site::global(SiteKind::Embed), embed)?;
        let positions_N: Vec<usize> = (0..batch.n_rows)
            .flat_map(|row| (0..batch.len).map(move |t| (past + t).saturating_sub(batch.start(row))))
            .collect();
        for (layer, w) in self.weights.layers.iter().enumerate() {
            resid = self.block(&mut at, layer, w, resid, &positions_N, cache.as_deref(), hooks)?;
            if hooks.stop_after_layer == Some(layer) {
                return Ok(None);
            }
        }
        if let Some(cache) = &mut cache {
            cache.advance(batch.len);
        }
        let one_position = Batch { ids: Vec::new(), n_rows: batch.n_rows, len: 1, starts_B: Vec::new() };
        match logits {
            Logits::None => return Ok(None),
            Logits::All => {}
            Logits::Last => {
                let flat = tape.reshape(&resid, &[batch.n_rows * batch.len, self.spec.d_model])?;
                let last: Vec<u32> = (1..=batch.n_rows).map(|row| (row * batch.len - 1) as u32).collect();
                resid = tape.reshape(&tape.rows(&flat, &last)?, &[batch.n_rows, 1, self.spec.d_model])?;
                at = Visit { tape, spec: &self.spec, batch: &one_position, past: past + batch.len - 1 };
            }
        }
        let last = self.norm(tape, &resid, &self.weights.norm_final)?;
        let last = hooks.visit(&mut at, Site::global(SiteKind::FinalResid), last)?;
        let out = tape.linear(&last, &self.weights.unembed, None)?;
        Ok(Some(hooks.visit(&mut at, Site::global(SiteKind::Logits), out)?))
    }

    fn block(
        &self,
        at: &mut Visit,
        layer: usize,
        w: &LayerWeights,
        resid: Value,
        positions_N: &[usize],
        cache: Option<&KvCache>,
        hooks: &mut Hooks,
    ) -> Result<Value> {
        use SiteKind::*;
        let tape = at.tape;
        let resid = hooks.visit(at, Site::at(ResidPre, layer), resid)?;

        let x = self.norm(tape, &resid, &w.norm1)?;
        let q = hooks.visit(at, Site::at(AttnQ, layer), tape.linear(&x, &w.q, None)?)?;
        let k = hooks.visit(at, Site::at(AttnK, layer), tape.linear(&x, &w.k, None)?)?;
        let v = hooks.visit(at, Site::at(AttnV, layer), tape.linear(&x, &w.v, None)?)?;
        let q = tape.rope(&q, &self.rope, positions_N)?;
        let k = tape.rope(&k, &self.rope, positions_N)?;
        let (keys, values, capacity) = match cache {
            Some(cache) => {
                let (keys, values) = cache.append(layer, &k, &v)?;
                (keys, values, cache.capacity())
            }
            None => (k, v, at.batch.len),
        };
        let shape = AttentionShape {
            batch: at.batch.n_rows,
            n_queries: at.batch.len,
            n_heads: self.spec.n_heads,
            n_kv_heads: self.spec.n_kv_heads,
            d_head: self.spec.d_head,
            past: at.past,
            capacity,
            starts_B: at.batch.starts_B.clone(),
        };
        let z = tape.attention(&q, KvView { keys: &keys, values: &values }, &shape)?;
        let z = hooks.visit(at, Site::at(AttnZ, layer), z)?;
        let out = hooks.visit(at, Site::at(AttnOut, layer), tape.linear(&z, &w.o, None)?)?;
        let resid = hooks.visit(at, Site::at(ResidMid, layer), tape.add(&resid, &out)?)?;

        let x = self.norm(tape, &resid, &w.norm2)?;
        let out = match self.spec.mlp {
            Mlp::GatedSilu => {
                let gate = hooks.visit(at, Site::at(MlpPre, layer), tape.linear(&x, &w.gate, None)?)?;
                let up = hooks.visit(at, Site::at(MlpPreLinear, layer), tape.linear(&x, &w.up, None)?)?;
                let neurons = hooks.visit(at, Site::at(MlpPost, layer), tape.swiglu(&gate, &up)?)?;
                tape.linear(&neurons, &w.down, None)?
            }
        };
        let out = hooks.visit(at, Site::at(MlpOut, layer), out)?;
        hooks.visit(at, Site::at(ResidPost, layer), tape.add(&resid, &out)?)
    }

    /// Applies a normalisation of this model.
    fn norm(&self, tape: &Tape, x: &Value, gain: &Value) -> Result<Value> {
        match self.spec.norm {
            Norm::Rms { eps } => Ok(tape.rms_norm(x, gain, eps)?),
        }
    }

    /// Logits of final-layer residual vectors: final norm, then unembedding.
    ///
    /// # Shapes
    /// `resid [.., D] -> [.., V]`
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn unembed(&self, tape: &Tape, resid: &Value) -> Result<Value> {
        Ok(tape.linear(&self.norm(tape, resid, &self.weights.norm_final)?, &self.weights.unembed, None)?)
    }

    fn check(&self, batch: &Batch, past: usize, cache: Option<&KvCache>) -> Result<()> {
        if batch.n_rows == 0 || batch.len == 0 || batch.ids.len() != batch.n_rows * batch.len {
            let detail = format!("{} ids for {} rows of {}", batch.ids.len(), batch.n_rows, batch.len);
            return Err(ModelError::Request(format!("an empty or uneven batch: {detail}")));
        }
        let (end, most) = (past + batch.len, self.rope.n_positions());
        if end > most {
            let detail = format!("a context of {end} tokens, but the model was made for {most}");
            return Err(ModelError::Request(detail));
        }
        cache.map_or(Ok(()), |c| c.check(batch.n_rows, batch.len))
    }
}
