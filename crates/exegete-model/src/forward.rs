//! The one forward pass.

use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_tensor::cpu::simd::dot;
use exegete_tensor::{Tape, TensorError, Value, f32s};

use crate::batch::{Batch, Layout};
use crate::block::{Block, linear, norm};
use crate::hooks::Visit;
use crate::parts::{Part, Weight};
use crate::{Hooks, KvCache, Model, ModelError, Result};

/// Which tokens' logits a run computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logits {
    /// None: the run ends with the blocks.
    None,
    /// The last position of each row: `[B, 1, V]`. The final sites are visited with these positions alone.
    Last,
    /// These tokens, by number among all tokens of the batch: `[M, V]`.
    At(Vec<u32>),
    /// All: `[B, T, V]`, or `[N, V]` where rows differ in length.
    All,
}

impl Model {
    /// Runs a batch, visiting every site, behind the positions of `cache` if one is given.
    ///
    /// # Shapes
    /// `-> logits as asked for, unless the run stopped at a layer`
    ///
    /// # Errors
    /// Ids outside the vocabulary, contexts too long, sites that do not exist, edits that fail.
    pub fn run(
        &self,
        tape: &Tape,
        batch: &Batch,
        cache: Option<&mut KvCache>,
        hooks: &mut Hooks,
        logits: Logits,
    ) -> Result<Option<Value>> {
        hooks.resolve(&self.spec)?;
        let layout = Arc::new(Layout::new(&self.spec, batch, cache.as_deref())?);
        self.check_memory(&layout, hooks, &logits)?;
        hooks.watch_weights(tape, &self.weights, &self.spec)?;
        let resid = self.embed(tape, &layout, hooks)?;
        self.run_blocks(tape, &layout, (0, resid), cache, hooks, logits)
    }

    /// Runs a batch from residual vectors that enter a layer: `ids` are looked at by edits only. A cache goes
    /// with layer 0 alone.
    ///
    /// # Shapes
    /// `resid [.., D] with a row for each token -> logits as asked for`
    ///
    /// # Errors
    /// As for [`Model::run`]; a layer that does not exist, residuals of another number or width.
    pub fn run_from(
        &self,
        tape: &Tape,
        batch: &Batch,
        (layer, resid): (usize, &Value),
        cache: Option<&mut KvCache>,
        hooks: &mut Hooks,
        logits: Logits,
    ) -> Result<Option<Value>> {
        hooks.resolve(&self.spec)?;
        let layout = Arc::new(Layout::new(&self.spec, batch, cache.as_deref())?);
        let (n, d) = (layout.spots.len(), self.spec.d_model);
        if layer >= self.spec.n_layers {
            let detail = format!("layer {layer} does not exist; the model has layers 0..={}", self.spec.n_layers - 1);
            return Err(ModelError::Request(detail));
        }
        if layer > 0 && cache.is_some() {
            let detail = "a cache holds every layer's keys, which a run from a later layer does not make";
            return Err(ModelError::Request(format!("{detail}; run without one")));
        }
        if resid.tensor().elem_count() != n * d || resid.tensor().dims().last() != Some(&d) {
            let detail = format!("residuals {:?} for {n} tokens of width {d}", resid.tensor().dims());
            return Err(TensorError::shape("run_from", detail).into());
        }
        self.check_memory(&layout, hooks, &logits)?;
        hooks.watch_weights(tape, &self.weights, &self.spec)?;
        let resid = tape.reshape(resid, &[n, d])?;
        self.run_blocks(tape, &layout, (layer, resid), cache, hooks, logits)
    }

    fn embed(&self, tape: &Tape, layout: &Layout, hooks: &mut Hooks) -> Result<Value> {
        let at = &Visit { tape, spec: &self.spec, layout };
        let ids: Vec<u32> = layout.spots.iter().map(|s| s.id).collect();
        let watched = hooks.weight(Weight::global(Part::Embed));
        let mut x = tape.embedding_of(&self.weights.embed, watched, &ids)?;
        if self.spec.embed_scale != 1.0 {
            x = tape.scale(&x, self.spec.embed_scale)?;
        }
        let x = hooks.visit(at, Site::global(SiteKind::Embed), x)?;
        let Some(table) = &self.weights.pos_embed else { return Ok(x) };
        let table = hooks.weight(Weight::global(Part::PosEmbed)).unwrap_or(table);
        let positions: Vec<u32> = layout.spots.iter().map(|s| s.position as u32).collect();
        let pos = tape.embedding(table, &positions)?;
        let pos = hooks.visit(at, Site::global(SiteKind::PosEmbed), pos)?;
        Ok(tape.add(&x, &pos)?)
    }

    fn run_blocks(
        &self,
        tape: &Tape,
        layout: &Arc<Layout>,
        (first, mut resid): (usize, Value),
        mut cache: Option<&mut KvCache>,
        hooks: &mut Hooks,
        logits: Logits,
    ) -> Result<Option<Value>> {
        if let Some(stop) = hooks.stop_after_layer.filter(|l| !(first..self.spec.n_layers).contains(l)) {
            let detail = format!(
                "the run was to stop behind layer {stop}, but it runs layers {first}..={}",
                self.spec.n_layers - 1
            );
            return Err(ModelError::Request(detail));
        }
        for layer in first..self.spec.n_layers {
            resid = self.block(layer, layout).run(tape, resid, cache.as_deref_mut(), hooks)?;
            if hooks.stop_after_layer == Some(layer) {
                return Ok(None);
            }
        }
        if let Some(cache) = cache {
            let lens_B: Vec<usize> = layout.rows.iter().map(|r| r.n).collect();
            cache.advance(&lens_B);
        }
        let (tokens, len) = match &logits {
            Logits::None => return Ok(None),
            Logits::All => return self.finish(tape, layout, resid, hooks).map(Some),
            Logits::Last => (layout.rows.iter().map(|r| (r.first + r.n - 1) as u32).collect(), Some(1)),
            Logits::At(tokens) => (tokens.clone(), None),
        };
        if let Some(t) = tokens.iter().find(|t| **t as usize >= layout.spots.len()) {
            let detail = format!("logits of token {t} of {} were asked for", layout.spots.len());
            return Err(ModelError::Request(detail));
        }
        let resid = tape.rows(&resid, &tokens)?;
        self.finish(tape, &layout.only(&tokens, len), resid, hooks).map(Some)
    }

    /// A layer, ready to run on a layout.
    fn block(&self, layer: usize, layout: &Arc<Layout>) -> Block {
        let rope = self.spec.layers[layer]
            .rope
            .map(|idx| self.ropes.get(&self.spec.ropes, idx, self.spec.d_head, layout.context));
        let (spec, weights) = (self.spec.clone(), self.weights.layers[layer].clone());
        Block { spec, layer, weights, rope, layout: layout.clone() }
    }

    /// From the last residuals to logits.
    fn finish(&self, tape: &Tape, layout: &Layout, resid: Value, hooks: &mut Hooks) -> Result<Value> {
        let at = &Visit { tape, spec: &self.spec, layout };
        let of_final = (Some(Site::global(SiteKind::FinalNorm)), Weight::global(Part::NormFinal));
        let x = norm(at, hooks, of_final, &resid, &self.weights.norm_final)?;
        let x = hooks.visit(at, Site::global(SiteKind::FinalResid), x)?;
        // Where the two are one matrix, its gradient has a part from here too.
        let name = Weight::global(if self.spec.tied { Part::Embed } else { Part::Unembed });
        let mut out = linear(tape, hooks, name, &self.weights.unembed, &x)?;
        if let Some(cap) = self.spec.logit_soft_cap {
            out = tape.soft_cap(&out, cap)?;
        }
        let out = hooks.visit(at, Site::global(SiteKind::Logits), out)?;
        let dims: Vec<usize> = layout.dims().into_iter().chain([self.spec.vocab_size]).collect();
        Ok(tape.reshape(&out, &dims)?)
    }

    /// Logits of final-layer residual vectors: final norm, unembedding, soft cap.
    ///
    /// # Shapes
    /// `resid [.., D] -> [.., V]`
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn unembed(&self, tape: &Tape, resid: &Value) -> Result<Value> {
        let (d, dims) = (self.spec.d_model, resid.tensor().dims().to_vec());
        if dims.last() != Some(&d) {
            return Err(TensorError::shape("unembed", format!("residuals {dims:?} for a width of {d}")).into());
        }
        let n = resid.tensor().elem_count() / d;
        let spot = crate::Spot { row: 0, position: 0, id: 0, prompt: 0 };
        let layout = Layout { spots: vec![spot; n], rows: Vec::new(), len: None, context: 0 };
        let out = self.finish(tape, &layout, tape.reshape(resid, &[n, d])?, &mut Hooks::none())?;
        let dims: Vec<usize> = dims[..dims.len() - 1].iter().copied().chain([self.spec.vocab_size]).collect();
        Ok(tape.reshape(&out, &dims)?)
    }

    /// Logits of some tokens of the vocabulary alone, where the others are nobody's concern: nothing is recorded.
    ///
    /// # Shapes
    /// `resid [.., D], ids [I] -> [.., I]`
    ///
    /// # Errors
    /// Another width than the model's, an id that is not in the vocabulary.
    pub fn unembed_only(&self, resid: &Value, ids: &[u32]) -> Result<Vec<f32>> {
        let (d, n) = (self.spec.d_model, resid.tensor().elem_count());
        if resid.tensor().dims().last() != Some(&d) {
            let detail = format!("residuals {:?} for a width of {d}", resid.tensor().dims());
            return Err(TensorError::shape("unembed_only", detail).into());
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.spec.vocab_size) {
            return Err(ModelError::Request(format!("token {id} of a vocabulary of {}", self.spec.vocab_size)));
        }
        let (tape, spot) = (Tape::new(), crate::Spot { row: 0, position: 0, id: 0, prompt: 0 });
        let layout = Layout { spots: vec![spot; n / d], rows: Vec::new(), len: None, context: 0 };
        let at = &Visit { tape: &tape, spec: &self.spec, layout: &layout };
        let resid = tape.reshape(&resid.tensor().into(), &[n / d, d])?;
        let name = (None, Weight::global(Part::NormFinal));
        let x = norm(at, &mut Hooks::none(), name, &resid, &self.weights.norm_final)?;
        let unembed = &self.weights.unembed;
        let mut rows = vec![vec![0f32; d]; ids.len()];
        ids.iter().zip(&mut rows).for_each(|(id, row)| unembed.w.row(*id as usize, row));
        let bias = unembed.bias.as_ref().map(|bias| f32s(bias.tensor())).transpose()?;
        let logit = |x: &[f32], i: usize| {
            let plain = dot(x, &rows[i]) + bias.as_ref().map_or(0.0, |bias| bias[ids[i] as usize]);
            self.spec.logit_soft_cap.map_or(plain, |cap| cap * (plain / cap).tanh())
        };
        let x = f32s(x.tensor())?;
        Ok(x.chunks_exact(d).flat_map(|x| (0..ids.len()).map(|i| logit(x, i)).collect::<Vec<f32>>()).collect())
    }

    /// Refuses a run that the machine has no room for: the widest values that live at once, and all of them where a
    /// backward pass keeps them.
    fn check_memory(&self, layout: &Layout, hooks: &Hooks, logits: &Logits) -> Result<()> {
        let (s, n) = (&self.spec, layout.spots.len());
        let attention = s.d_head * (2 * s.n_heads + 2 * s.n_kv_heads);
        let per_layer = 4 * s.d_model + attention + 3 * s.d_mlp;
        let kept = if hooks.records() && !hooks.recompute { s.n_layers } else { 1 };
        let n_logits = match logits {
            Logits::None => 0,
            Logits::Last => layout.rows.len(),
            Logits::At(tokens) => tokens.len(),
            Logits::All => n,
        };
        let logit_values = n_logits.saturating_mul(s.vocab_size);
        let tapped = hooks.tapped().map(|site| s.site_width(site, layout.n_keys())).fold(0usize, usize::saturating_add);
        let per_layer = per_layer.saturating_add(tapped);
        let bytes = n.saturating_mul(per_layer).saturating_mul(kept).saturating_add(logit_values).saturating_mul(4);
        let what = || format!("a run of {n} tokens in {} rows", layout.rows.len());
        crate::memory::check(
            bytes,
            what,
            "run fewer or shorter rows at once, or recompute blocks for the backward pass",
        )
    }
}
