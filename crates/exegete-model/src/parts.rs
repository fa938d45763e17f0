//! The one table of weights: what a model is made of, by name and shape.

use std::fmt;

use crate::spec::{Mlp, ModelSpec, Norm, QkNorm};

/// A kind of weight. Matrices are `[out, in]`, vectors `[n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Each variant is documented by its line of `PARTS`.
pub enum Part {
    Embed,
    PosEmbed,
    Norm1,
    Q,
    K,
    V,
    QNorm,
    KNorm,
    O,
    NormAttn,
    Norm2,
    Gate,
    Up,
    Down,
    Router,
    ExpertGate,
    ExpertUp,
    ExpertDown,
    NormMlp,
    NormFinal,
    Unembed,
}

/// (kind, name, what it is)
const PARTS: &[(Part, &str, &str)] = &[
    (Part::Embed, "embed", "token embedding [V, D]"),
    (Part::PosEmbed, "pos_embed", "position embedding [positions, D]"),
    (Part::Norm1, "norm1", "gain of the norm before attention [D]"),
    (Part::Q, "q", "queries [H * C, D]"),
    (Part::K, "k", "keys [G * C, D]"),
    (Part::V, "v", "values [G * C, D]"),
    (Part::QNorm, "q_norm", "gain of the queries' norm [C] or [H * C]"),
    (Part::KNorm, "k_norm", "gain of the keys' norm [C] or [G * C]"),
    (Part::O, "o", "attention's output [D, H * C]"),
    (Part::NormAttn, "norm_attn", "gain of the norm behind attention [D]"),
    (Part::Norm2, "norm2", "gain of the norm before the MLP [D]"),
    (Part::Gate, "gate", "gate of the MLP [M, D]"),
    (Part::Up, "up", "input of the MLP [M, D]"),
    (Part::Down, "down", "output of the MLP [D, M]"),
    (Part::Router, "router", "router of the experts [E, D]"),
    (Part::ExpertGate, "gate", "an expert's gate [d_expert, D]"),
    (Part::ExpertUp, "up", "an expert's input [d_expert, D]"),
    (Part::ExpertDown, "down", "an expert's output [D, d_expert]"),
    (Part::NormMlp, "norm_mlp", "gain of the norm behind the MLP [D]"),
    (Part::NormFinal, "norm_final", "gain of the final norm [D]"),
    (Part::Unembed, "unembed", "unembedding [V, D]"),
];

/// One weight of a model. Its name is `embed`, `blocks.3.q`, `blocks.3.q.bias`, `blocks.3.experts.5.gate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight {
    /// Kind.
    pub part: Part,
    /// Whether this is the bias that goes with it.
    pub bias: bool,
    /// Layer, for the weights of blocks.
    pub layer: Option<usize>,
    /// Expert, for the weights of experts.
    pub expert: Option<usize>,
}

impl Weight {
    /// A weight outside the blocks.
    pub fn global(part: Part) -> Self {
        Self { part, bias: false, layer: None, expert: None }
    }

    /// A weight of a block.
    pub fn at(part: Part, layer: usize) -> Self {
        Self { part, bias: false, layer: Some(layer), expert: None }
    }

    /// The bias that goes with it.
    #[must_use]
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// The weight of this name in a model, if the model has it.
    pub fn named(spec: &ModelSpec, name: &str) -> Option<Self> {
        spec.weights().into_iter().find(|w| w.to_string() == name)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "blocks.{layer}.")?;
        }
        if let Some(expert) = self.expert {
            write!(f, "experts.{expert}.")?;
        }
        f.write_str(PARTS[self.part as usize].1)?;
        f.write_str(if self.bias { ".bias" } else { "" })
    }
}

impl ModelSpec {
    /// Every weight that the model has, in the order of computation.
    pub fn weights(&self) -> Vec<Weight> {
        self.each_weight().collect()
    }

    /// As [`ModelSpec::weights`], made one layer at a time: a specification from a file that is not yet compared with
    /// its tensors may speak of more weights than there is memory for.
    pub(crate) fn each_weight(&self) -> impl Iterator<Item = Weight> + '_ {
        let first = [Some(Part::Embed), self.learned_positions.then_some(Part::PosEmbed)];
        let last = [Some(Part::NormFinal), (!self.tied).then_some(Part::Unembed)];
        let global = |part: Part| {
            [Some(Weight::global(part)), self.has_bias(part).then(|| Weight::global(part).bias())].into_iter().flatten()
        };
        let blocks = (0..self.n_layers).flat_map(|layer| self.weights_of(layer));
        first.into_iter().flatten().map(Weight::global).chain(blocks).chain(last.into_iter().flatten().flat_map(global))
    }

    /// The weights of a block.
    fn weights_of(&self, layer: usize) -> Vec<Weight> {
        let mut all = Vec::new();
        let mixture = self.mixture.filter(|_| self.layers[layer].mixture);
        for (part, ..) in PARTS {
            let w = Weight::at(*part, layer);
            if !self.has(*part, mixture.is_some()) {
                continue;
            }
            match (part, mixture) {
                (Part::ExpertGate | Part::ExpertUp | Part::ExpertDown, Some(mixture)) => {
                    all.extend((0..mixture.n_experts).map(|e| Weight { expert: Some(e), ..w }));
                }
                _ => all.push(w),
            }
            all.extend(self.has_bias(*part).then(|| w.bias()));
        }
        all
    }

    /// Whether blocks (with a mixture of experts or without) have a kind of weight.
    fn has(&self, part: Part, mixture: bool) -> bool {
        match part {
            Part::Embed | Part::PosEmbed | Part::NormFinal | Part::Unembed => false,
            Part::Norm1 | Part::Norm2 => self.norms.before,
            Part::NormAttn | Part::NormMlp => self.norms.behind,
            Part::QNorm | Part::KNorm => self.qk_norm != QkNorm::None,
            Part::Q | Part::K | Part::V | Part::O => true,
            Part::Gate => !mixture && matches!(self.mlp, Mlp::Gated(_)),
            Part::Up | Part::Down => !mixture,
            Part::Router | Part::ExpertGate | Part::ExpertUp | Part::ExpertDown => mixture,
        }
    }

    /// Whether a kind of weight has a bias.
    pub fn has_bias(&self, part: Part) -> bool {
        match part {
            Part::Q | Part::K | Part::V => self.biases.qkv,
            Part::O => self.biases.o,
            Part::Gate | Part::Up | Part::Down => self.biases.mlp,
            Part::Unembed => self.biases.unembed,
            Part::Norm1 | Part::Norm2 | Part::NormAttn | Part::NormMlp | Part::NormFinal => {
                matches!(self.norm, Norm::Layer { .. })
            }
            _ => false,
        }
    }

    /// Shape of a weight: `[out, in]` or `[n]`.
    pub fn weight_shape(&self, w: Weight) -> Vec<usize> {
        let (d, q, kv) = (self.d_model, self.n_heads * self.d_head, self.n_kv_heads * self.d_head);
        let (experts, d_expert) = self.mixture.map_or((0, 0), |m| (m.n_experts, m.d_expert));
        let head = |flat: usize| if self.qk_norm == QkNorm::Flat { flat } else { self.d_head };
        let shape = match w.part {
            Part::Embed | Part::Unembed => vec![self.vocab_size, d],
            Part::PosEmbed => vec![self.max_positions, d],
            Part::Norm1 | Part::Norm2 | Part::NormAttn | Part::NormMlp | Part::NormFinal => vec![d],
            Part::Q => vec![q, d],
            Part::K | Part::V => vec![kv, d],
            Part::QNorm => vec![head(q)],
            Part::KNorm => vec![head(kv)],
            Part::O => vec![d, q],
            Part::Gate | Part::Up => vec![self.d_mlp, d],
            Part::Down => vec![d, self.d_mlp],
            Part::Router => vec![experts, d],
            Part::ExpertGate | Part::ExpertUp => vec![d_expert, d],
            Part::ExpertDown => vec![d, d_expert],
        };
        if w.bias { vec![shape[0]] } else { shape }
    }

    /// Numbers in the weights.
    pub fn n_parameters(&self) -> usize {
        self.weights().into_iter().map(|w| self.weight_shape(w).iter().product::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_its_kinds() {
        for (i, (part, name, what)) in PARTS.iter().enumerate() {
            assert_eq!(*part as usize, i, "{name}: {what}");
        }
        let w = Weight { part: Part::ExpertUp, bias: false, layer: Some(2), expert: Some(7) };
        assert_eq!(w.to_string(), "blocks.2.experts.7.up");
        assert_eq!(Weight::at(Part::Q, 1).bias().to_string(), "blocks.1.q.bias");
    }
}
