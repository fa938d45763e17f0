//! One block of the forward pass.

use std::rc::Rc;
use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_tensor::cpu::attention::AttentionShape;
use exegete_tensor::cpu::mixture::{Routes, route};
use exegete_tensor::cpu::rope::RopeTable;
use exegete_tensor::{Act, KeySource, Matrix, Tape, Value, f32s, tensor};

use crate::batch::Layout;
use crate::hooks::Visit;
use crate::parts::{Part, Weight};
use crate::spec::{Mixture, Mlp, ModelSpec, Norm, QkNorm};
use crate::weights::{LayerWeights, Linear, MlpWeights, NormWeights};
use crate::{Hooks, KvCache, ModelError, Result};

/// A layer with all that its computation reads; cheap to clone, so that it can be run again for a backward pass.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) spec: Arc<ModelSpec>,
    pub(crate) layer: usize,
    pub(crate) weights: LayerWeights,
    pub(crate) rope: Option<Arc<RopeTable>>,
    pub(crate) layout: Arc<Layout>,
}

/// Applies a norm. Where its inside is looked at, it is computed in two steps.
pub(crate) fn norm(
    at: &Visit,
    hooks: &mut Hooks,
    (inside, gain_of): (Option<Site>, Weight),
    x: &Value,
    w: &NormWeights,
) -> Result<Value> {
    let tape = at.tape;
    let gain = hooks.weight(gain_of).cloned().unwrap_or_else(|| w.gain.clone());
    let bias = hooks.weight(gain_of.bias()).cloned().or_else(|| w.bias.clone());
    let looked_at = inside.filter(|site| hooks.wants(*site));
    if let Some(site) = looked_at {
        let d = at.spec.d_model;
        let (ones, zeros) = (tensor(vec![1f32; d], d)?.into(), exegete_tensor::zeros(d)?.into());
        let x = match at.spec.norm {
            Norm::Rms { eps } => tape.rms_norm(x, &ones, eps)?,
            Norm::Layer { eps } => tape.layer_norm(x, &ones, &zeros, eps)?,
        };
        let x = hooks.visit(at, site, x)?;
        return Ok(tape.affine(&x, &gain, bias.as_ref())?);
    }
    match (at.spec.norm, bias) {
        (Norm::Rms { eps }, _) => Ok(tape.rms_norm(x, &gain, eps)?),
        (Norm::Layer { eps }, Some(bias)) => Ok(tape.layer_norm(x, &gain, &bias, eps)?),
        (Norm::Layer { .. }, None) => Err(ModelError::Request(format!("the norm {gain_of} has no bias"))),
    }
}

/// Applies a linear map, with the gradients of its weights where they are watched.
pub(crate) fn linear(tape: &Tape, hooks: &Hooks, name: Weight, w: &Linear, x: &Value) -> Result<Value> {
    let bias = hooks.weight(name.bias()).or(w.bias.as_ref());
    Ok(tape.linear(x, &w.w, hooks.weight(name), bias)?)
}

impl Block {
    fn site(&self, kind: SiteKind) -> Site {
        Site::at(kind, self.layer)
    }

    fn weight(&self, part: Part) -> Weight {
        Weight::at(part, self.layer)
    }

    /// Runs the block, keeping nothing inside it for the backward pass where that is asked for and possible.
    pub(crate) fn run(
        &self,
        tape: &Tape,
        resid: Value,
        cache: Option<&mut KvCache>,
        hooks: &mut Hooks,
    ) -> Result<Value> {
        let plain = !hooks.recompute || !resid.is_recorded() || hooks.looks_into(self.layer) || cache.is_some();
        if plain {
            return self.run_through(tape, resid, cache, hooks);
        }
        let (block, edits) = (self.clone(), hooks.edits_of(self.layer));
        let again = Rc::new(move |tape: &Tape, inputs: &[Value]| {
            let mut hooks = edits.edits_of(block.layer);
            // The engine's errors pass as they are; the model's own have been seen in the first run.
            block.run_through(tape, inputs[0].clone(), None, &mut hooks).map_err(|e| match e {
                ModelError::Tensor(e) => e,
                other => exegete_tensor::TensorError::shape("recompute", other.to_string()),
            })
        });
        Ok(tape.recompute(&[&resid], again)?)
    }

    fn run_through(&self, tape: &Tape, resid: Value, cache: Option<&mut KvCache>, hooks: &mut Hooks) -> Result<Value> {
        use SiteKind::*;
        let (spec, w) = (&*self.spec, &self.weights);
        let at = &Visit { tape, spec, layout: &self.layout };
        let before = hooks.visit(at, self.site(ResidPre), resid)?;

        let x = match &w.norm1 {
            Some(n) => norm(at, hooks, (Some(self.site(Norm1)), self.weight(Part::Norm1)), &before, n)?,
            None => before.clone(),
        };
        let x = hooks.visit(at, self.site(AttnIn), x)?;
        let z = self.attention(at, &x, cache, hooks)?;
        let mut out = linear(tape, hooks, self.weight(Part::O), &w.o, &z)?;
        if let Some(n) = &w.norm_attn {
            out = hooks.visit(at, self.site(AttnModuleOut), out)?;
            out = norm(at, hooks, (None, self.weight(Part::NormAttn)), &out, n)?;
        }
        let attn_out = hooks.visit(at, self.site(AttnOut), out)?;

        let (sum, mlp_resid) = match spec.parallel {
            true => (None, before.clone()),
            false => {
                let mid = hooks.visit(at, self.site(ResidMid), tape.add(&before, &attn_out)?)?;
                (Some(mid.clone()), mid)
            }
        };
        let x = hooks.visit(at, self.site(MlpResid), mlp_resid)?;
        let x = match &w.norm2 {
            Some(n) => norm(at, hooks, (Some(self.site(Norm2)), self.weight(Part::Norm2)), &x, n)?,
            None => x,
        };
        let x = hooks.visit(at, self.site(MlpIn), x)?;
        let mut out = self.mlp(at, &x, hooks)?;
        if let Some(n) = &w.norm_mlp {
            out = hooks.visit(at, self.site(MlpModuleOut), out)?;
            out = norm(at, hooks, (None, self.weight(Part::NormMlp)), &out, n)?;
        }
        let mlp_out = hooks.visit(at, self.site(MlpOut), out)?;
        let after = match sum {
            Some(mid) => tape.add(&mid, &mlp_out)?,
            None => tape.add(&tape.add(&before, &attn_out)?, &mlp_out)?,
        };
        hooks.visit(at, self.site(ResidPost), after)
    }

    /// From what attention reads to the mixed values of its heads.
    fn attention(&self, at: &Visit, x: &Value, cache: Option<&mut KvCache>, hooks: &mut Hooks) -> Result<Value> {
        use SiteKind::*;
        let (tape, spec, w) = (at.tape, &*self.spec, &self.weights);
        let q = linear(tape, hooks, self.weight(Part::Q), &w.q, x)?;
        let q = hooks.visit(at, self.site(AttnQ), q)?;
        let k = linear(tape, hooks, self.weight(Part::K), &w.k, x)?;
        let k = hooks.visit(at, self.site(AttnK), k)?;
        let v = linear(tape, hooks, self.weight(Part::V), &w.v, x)?;
        let v = hooks.visit(at, self.site(AttnV), v)?;
        let q = self.qk_norm(at, hooks, (Part::QNorm, QNorm), w.q_norm.as_ref(), q)?;
        let k = self.qk_norm(at, hooks, (Part::KNorm, KNorm), w.k_norm.as_ref(), k)?;
        let (q, k) = match &self.rope {
            None => (q, k),
            Some(table) => {
                let positions_N: Vec<usize> = at.layout.spots.iter().map(|s| s.position).collect();
                let q = hooks.visit(at, self.site(RotQ), tape.rope(&q, table, &positions_N)?)?;
                (q, hooks.visit(at, self.site(RotK), tape.rope(&k, table, &positions_N)?)?)
            }
        };
        let layer = &spec.layers[self.layer];
        let shape = AttentionShape {
            rows: at.layout.rows.clone(),
            n_heads: spec.n_heads,
            n_kv_heads: spec.n_kv_heads,
            d_head: spec.d_head,
            scale: layer.scale,
            soft_cap: spec.attn_soft_cap,
            window: layer.window,
        };
        let lens_B: Vec<usize> = shape.rows.iter().map(|r| r.n).collect();
        let cache = match cache {
            Some(cache) => {
                cache.append(self.layer, &lens_B, &k, &v)?;
                Some(&*cache)
            }
            None => None,
        };
        let source = match cache {
            Some(cache) => KeySource::Cache(cache.spans(self.layer, &lens_B)),
            None => KeySource::Run { keys: &k, values: &v },
        };
        let (scores_at, pattern_at) = (self.site(AttnScores), self.site(AttnPattern));
        let z = match hooks.wants(scores_at) || hooks.wants(pattern_at) {
            false => tape.attention(&q, &source, &shape)?,
            true => {
                let scores = tape.attention_scores(&q, &source, &shape)?;
                let scores = hooks.visit(at, scores_at, scores)?;
                let pattern = tape.softmax(&scores, shape.n_keys())?;
                let pattern = hooks.visit(at, pattern_at, pattern)?;
                tape.attention_mix(&pattern, &source, &shape)?
            }
        };
        hooks.visit(at, self.site(AttnZ), z)
    }

    /// Normalises queries or keys, where the family does so.
    fn qk_norm(
        &self,
        at: &Visit,
        hooks: &mut Hooks,
        (part, kind): (Part, SiteKind),
        gain: Option<&Value>,
        x: Value,
    ) -> Result<Value> {
        let Some(gain) = gain else { return Ok(x) };
        let gain = hooks.weight(self.weight(part)).cloned().unwrap_or_else(|| gain.clone());
        let (Norm::Rms { eps } | Norm::Layer { eps }) = at.spec.norm;
        let dims = x.tensor().dims().to_vec();
        let x = match at.spec.qk_norm {
            QkNorm::Head => {
                let d = at.spec.d_head;
                let heads = at.tape.reshape(&x, &[x.tensor().elem_count() / d, d])?;
                at.tape.reshape(&at.tape.rms_norm(&heads, &gain, eps)?, &dims)?
            }
            QkNorm::Flat => at.tape.rms_norm(&x, &gain, eps)?,
            QkNorm::None => x,
        };
        hooks.visit(at, self.site(kind), x)
    }

    fn mlp(&self, at: &Visit, x: &Value, hooks: &mut Hooks) -> Result<Value> {
        use SiteKind::*;
        let tape = at.tape;
        match &self.weights.mlp {
            MlpWeights::Dense { gate, up, down } => {
                let neurons = match (gate, at.spec.mlp) {
                    (Some(gate), Mlp::Gated(act)) => match self.gated_unseen(at, x, hooks, (act, gate, up))? {
                        Some(neurons) => neurons,
                        None => {
                            let pre = linear(tape, hooks, self.weight(Part::Gate), gate, x)?;
                            let pre = hooks.visit(at, self.site(MlpPre), pre)?;
                            let plain = linear(tape, hooks, self.weight(Part::Up), up, x)?;
                            let plain = hooks.visit(at, self.site(MlpPreLinear), plain)?;
                            tape.gated(act, &pre, &plain)?
                        }
                    },
                    (_, mlp) => {
                        let pre = linear(tape, hooks, self.weight(Part::Up), up, x)?;
                        let pre = hooks.visit(at, self.site(MlpPre), pre)?;
                        tape.activate(mlp.act(), &pre)?
                    }
                };
                let neurons = hooks.visit(at, self.site(MlpPost), neurons)?;
                linear(tape, hooks, self.weight(Part::Down), down, &neurons)
            }
            MlpWeights::Mixture { router, experts } => {
                let Some(mixture) = at.spec.mixture else {
                    return Err(ModelError::Request("experts without a mixture in the specification".into()));
                };
                self.mixture(at, x, hooks, &mixture, router, experts)
            }
        }
    }

    /// The neurons of a gated MLP in one pass, where nobody looks at what they are made of.
    fn gated_unseen(
        &self,
        at: &Visit,
        x: &Value,
        hooks: &Hooks,
        (act, gate, up): (Act, &Linear, &Linear),
    ) -> Result<Option<Value>> {
        let seen = [SiteKind::MlpPre, SiteKind::MlpPreLinear].into_iter().any(|kind| hooks.wants(self.site(kind)));
        let [gate_at, up_at] = [self.weight(Part::Gate), self.weight(Part::Up)];
        if seen || [gate_at, up_at].into_iter().any(|w| hooks.weight(w).or(hooks.weight(w.bias())).is_some()) {
            return Ok(None);
        }
        Ok(at.tape.gated_linear(act, x, (&gate.w, gate.bias.as_ref()), (&up.w, up.bias.as_ref()))?)
    }

    fn mixture(
        &self,
        at: &Visit,
        x: &Value,
        hooks: &mut Hooks,
        m: &Mixture,
        router: &Linear,
        experts: &[[Matrix; 3]],
    ) -> Result<Value> {
        use SiteKind::*;
        let (tape, n) = (at.tape, at.layout.spots.len());
        let logits = linear(tape, hooks, self.weight(Part::Router), router, x)?;
        let logits = hooks.visit(at, self.site(RouterLogits), logits)?;
        let weights = tape.softmax(&logits, m.n_experts)?;
        let weights = hooks.visit(at, self.site(ExpertWeights), weights)?;
        let chosen = route(&f32s(weights.tensor())?, m.n_experts, m.n_used);
        let as_numbers = tensor(chosen.iter().map(|e| *e as f32).collect::<Vec<f32>>(), (n, m.n_used))?;
        let chosen = hooks.visit(at, self.site(ExpertIndices), as_numbers.into())?;
        let chosen = f32s(chosen.tensor())?.iter().map(|e| *e as u32).collect::<Vec<u32>>();
        let mixed_by = tape.chosen_weights(&weights, &chosen, m.n_used, m.normalise)?;
        let routes = Arc::new(Routes::new(&chosen, m.n_experts));
        let (mut outputs, mut from) = (Vec::new(), 0);
        for (e, [gate, up, down]) in experts.iter().enumerate() {
            let count = routes.counts[e];
            if count == 0 {
                continue;
            }
            let tokens: Vec<u32> =
                routes.slots[from..from + count].iter().map(|slot| (slot / m.n_used) as u32).collect();
            from += count;
            let sent = tape.rows(x, &tokens)?;
            let name = |part: Part| Weight { expert: Some(e), ..self.weight(part) };
            let by = |x: &Value, w: &Matrix, part: Part| tape.linear(x, w, hooks.weight(name(part)), None);
            let neurons =
                tape.gated(at.spec.mlp.act(), &by(&sent, gate, Part::ExpertGate)?, &by(&sent, up, Part::ExpertUp)?)?;
            outputs.push(by(&neurons, down, Part::ExpertDown)?);
        }
        Ok(tape.combine(&outputs, &mixed_by, &routes)?)
    }
}
