//! How the tensors of a checkpoint hold the weights of a model.

use crate::parts::{Part, Weight};
use crate::spec::ModelSpec;

/// Which stored rows are the rows of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowMap {
    /// Row i is row `from + i`: one of several weights that are stored below each other.
    From(usize),
    /// Rows of head h begin at `h * stride + from`: weights that are interleaved by head.
    Heads {
        /// Rows of a head.
        d_head: usize,
        /// Stored rows from one head to the next.
        stride: usize,
        /// Offset of the weight's rows within a head's.
        from: usize,
    },
    /// Heads whose rotated planes are stored as neighbours (2i, 2i + 1), and are wanted as halves (i, i + n / 2).
    Pairs {
        /// Rows of a head.
        d_head: usize,
    },
}

impl RowMap {
    /// The stored row that is row `i`.
    pub fn stored(self, i: usize) -> usize {
        match self {
            Self::From(from) => from + i,
            Self::Heads { d_head, stride, from } => i / d_head * stride + from + i % d_head,
            Self::Pairs { d_head } => {
                let (head, r) = (i / d_head, i % d_head);
                head * d_head + if r < d_head / 2 { 2 * r } else { 2 * (r - d_head / 2) + 1 }
            }
        }
    }
}

/// Where a weight lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The tensors; several are joined by rows.
    pub tensors: Vec<String>,
    /// Their shape, each, outermost axis first; leading axes of matrices may be more than one.
    pub shape: Vec<usize>,
    /// Which of their rows.
    pub rows: RowMap,
    /// Whether they are stored `[in, out]`; the row map then speaks of stored columns.
    pub transposed: bool,
    /// Added to every value (Gemma stores its gains less one).
    pub plus: f32,
}

impl Stored {
    /// A tensor that is the weight.
    pub fn whole(name: String, shape: Vec<usize>) -> Self {
        Self { tensors: vec![name], shape, rows: RowMap::From(0), transposed: false, plus: 0.0 }
    }
}

/// Names of whole tensors; `{}` stands for the layer, `{e}` for the expert, and `.weight` or `.bias` follows.
pub type Names = &'static [(Part, &'static str)];

/// The tensor that is a weight, by a table of names.
pub fn by_name(names: Names, spec: &ModelSpec, w: Weight) -> Stored {
    let pattern = names.iter().find(|(part, _)| *part == w.part).map_or("?", |(_, name)| *name);
    Stored::whole(spell(pattern, w), spec.weight_shape(w))
}

/// A pattern with layer and expert filled in, and its suffix.
pub fn spell(pattern: &str, w: Weight) -> String {
    let suffix = if w.bias { ".bias" } else { ".weight" };
    let number = |n: Option<usize>| n.map(|n| n.to_string()).unwrap_or_default();
    format!("{}{suffix}", pattern.replace("{}", &number(w.layer)).replace("{e}", &number(w.expert)))
}

/// Names of most Hugging Face checkpoints.
pub const HF: Names = &[
    (Part::Embed, "model.embed_tokens"),
    (Part::Norm1, "model.layers.{}.input_layernorm"),
    (Part::Q, "model.layers.{}.self_attn.q_proj"),
    (Part::K, "model.layers.{}.self_attn.k_proj"),
    (Part::V, "model.layers.{}.self_attn.v_proj"),
    (Part::O, "model.layers.{}.self_attn.o_proj"),
    (Part::QNorm, "model.layers.{}.self_attn.q_norm"),
    (Part::KNorm, "model.layers.{}.self_attn.k_norm"),
    (Part::Norm2, "model.layers.{}.post_attention_layernorm"),
    (Part::Gate, "model.layers.{}.mlp.gate_proj"),
    (Part::Up, "model.layers.{}.mlp.up_proj"),
    (Part::Down, "model.layers.{}.mlp.down_proj"),
    (Part::Router, "model.layers.{}.mlp.gate"),
    (Part::ExpertGate, "model.layers.{}.mlp.experts.{e}.gate_proj"),
    (Part::ExpertUp, "model.layers.{}.mlp.experts.{e}.up_proj"),
    (Part::ExpertDown, "model.layers.{}.mlp.experts.{e}.down_proj"),
    (Part::NormFinal, "model.norm"),
    (Part::Unembed, "lm_head"),
];

/// Hugging Face names of families whose blocks have norms on both sides of attention and MLP (Gemma 2 and 3).
pub const HF_SANDWICH: Names = &[
    (Part::NormAttn, "model.layers.{}.post_attention_layernorm"),
    (Part::Norm2, "model.layers.{}.pre_feedforward_layernorm"),
    (Part::NormMlp, "model.layers.{}.post_feedforward_layernorm"),
];

/// Names of GGUF files.
pub const GGUF: Names = &[
    (Part::Embed, "token_embd"),
    (Part::PosEmbed, "position_embd"),
    (Part::Norm1, "blk.{}.attn_norm"),
    (Part::Q, "blk.{}.attn_q"),
    (Part::K, "blk.{}.attn_k"),
    (Part::V, "blk.{}.attn_v"),
    (Part::O, "blk.{}.attn_output"),
    (Part::QNorm, "blk.{}.attn_q_norm"),
    (Part::KNorm, "blk.{}.attn_k_norm"),
    (Part::NormAttn, "blk.{}.post_attention_norm"),
    (Part::Norm2, "blk.{}.ffn_norm"),
    (Part::Gate, "blk.{}.ffn_gate"),
    (Part::Up, "blk.{}.ffn_up"),
    (Part::Down, "blk.{}.ffn_down"),
    (Part::Router, "blk.{}.ffn_gate_inp"),
    (Part::NormMlp, "blk.{}.post_ffw_norm"),
    (Part::NormFinal, "output_norm"),
    (Part::Unembed, "output"),
];

/// A weight of a GGUF file of the usual layout: whole tensors, experts stacked.
pub fn in_gguf(spec: &ModelSpec, w: Weight) -> Stored {
    let stacked = match w.part {
        Part::ExpertGate => "blk.{}.ffn_gate_exps",
        Part::ExpertUp => "blk.{}.ffn_up_exps",
        Part::ExpertDown => "blk.{}.ffn_down_exps",
        _ => return by_name(GGUF, spec, w),
    };
    let shape = spec.weight_shape(w);
    let (n_experts, expert) = (spec.mixture.map_or(0, |m| m.n_experts), w.expert.unwrap_or(0));
    Stored {
        rows: RowMap::From(expert * shape[0]),
        ..Stored::whole(spell(stacked, w), vec![n_experts, shape[0], shape[1]])
    }
}

/// A weight that is one of several below each other in the tensor `pattern`.
pub fn slice(spec: &ModelSpec, w: Weight, pattern: &str, parts: &[Part]) -> Stored {
    let rows = |part: Part| spec.weight_shape(Weight { part, ..w })[0];
    let from = parts.iter().take_while(|p| **p != w.part).map(|p| rows(*p)).sum();
    let mut shape = spec.weight_shape(w);
    shape[0] = parts.iter().map(|p| rows(*p)).sum();
    Stored { rows: RowMap::From(from), ..Stored::whole(spell(pattern, w), shape) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_maps_are_permutations_of_what_they_take() {
        let pairs: Vec<usize> = (0..8).map(|i| RowMap::Pairs { d_head: 4 }.stored(i)).collect();
        assert_eq!(pairs, [0, 2, 1, 3, 4, 6, 5, 7]);
        let heads = RowMap::Heads { d_head: 2, stride: 6, from: 4 };
        assert_eq!((0..4).map(|i| heads.stored(i)).collect::<Vec<_>>(), [4, 5, 10, 11]);
    }
}
