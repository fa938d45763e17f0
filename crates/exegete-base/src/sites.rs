//! The one table of sites: every point of a model that can be read or written.
//!
//! Names and meanings are TransformerLens's where it has one (those of `HookedTransformer`, and of its bridge for the
//! inputs and outputs of modules), interp-engine's for the router's logits. The axes begin with batch and position
//! everywhere, also for scores and patterns. A site has a kind and, unless it is global, a layer.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::axes::Axis::{self, *};
use crate::names::nearest;

/// Where in the block a site lies; the order is the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Each variant is documented by its line of `TABLE`.
pub enum SiteKind {
    Embed,
    PosEmbed,
    ResidPre,
    Norm1,
    AttnIn,
    AttnQ,
    AttnK,
    AttnV,
    QNorm,
    KNorm,
    RotQ,
    RotK,
    AttnScores,
    AttnPattern,
    AttnZ,
    AttnModuleOut,
    AttnOut,
    ResidMid,
    MlpResid,
    Norm2,
    MlpIn,
    MlpPre,
    MlpPreLinear,
    MlpPost,
    RouterLogits,
    ExpertWeights,
    ExpertIndices,
    MlpModuleOut,
    MlpOut,
    ResidPost,
    FinalNorm,
    FinalResid,
    Logits,
}

/// One line of the site table.
pub struct SiteRow {
    /// The kind this line describes.
    pub kind: SiteKind,
    /// TransformerLens name; `{}` stands for the layer.
    pub name: &'static str,
    /// Axes of the value.
    pub axes: &'static [Axis],
    /// What the value is.
    pub formula: &'static str,
}

/// The site table. Nothing else in the project spells a site's name.
pub const TABLE: &[SiteRow] = &[
    SiteRow {
        kind: SiteKind::Embed,
        name: "hook_embed",
        axes: &[Batch, Position, Model],
        formula: "W_E[token], times the family's embedding scale",
    },
    SiteRow {
        kind: SiteKind::PosEmbed,
        name: "hook_pos_embed",
        axes: &[Batch, Position, Model],
        formula: "W_pos[position] (learned positions only)",
    },
    SiteRow {
        kind: SiteKind::ResidPre,
        name: "blocks.{}.hook_resid_pre",
        axes: &[Batch, Position, Model],
        formula: "residual stream entering the block",
    },
    SiteRow {
        kind: SiteKind::Norm1,
        name: "blocks.{}.ln1.hook_normalized",
        axes: &[Batch, Position, Model],
        formula: "resid_pre normalised, before gain and bias",
    },
    SiteRow {
        kind: SiteKind::AttnIn,
        name: "blocks.{}.attn.hook_in",
        axes: &[Batch, Position, Model],
        formula: "what attention reads: norm1(resid_pre), or resid_pre where no norm stands before it",
    },
    SiteRow {
        kind: SiteKind::AttnQ,
        name: "blocks.{}.attn.hook_q",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "attn.hook_in W_Q + b_Q, before norm and rotation",
    },
    SiteRow {
        kind: SiteKind::AttnK,
        name: "blocks.{}.attn.hook_k",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "attn.hook_in W_K + b_K, before norm and rotation",
    },
    SiteRow {
        kind: SiteKind::AttnV,
        name: "blocks.{}.attn.hook_v",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "attn.hook_in W_V + b_V",
    },
    SiteRow {
        kind: SiteKind::QNorm,
        name: "blocks.{}.attn.q_norm.hook_out",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "q_norm(q) (families that normalise queries)",
    },
    SiteRow {
        kind: SiteKind::KNorm,
        name: "blocks.{}.attn.k_norm.hook_out",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "k_norm(k) (families that normalise keys)",
    },
    SiteRow {
        kind: SiteKind::RotQ,
        name: "blocks.{}.attn.hook_rot_q",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "queries after rotation (layers with rotary positions)",
    },
    SiteRow {
        kind: SiteKind::RotK,
        name: "blocks.{}.attn.hook_rot_k",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "keys after rotation (layers with rotary positions)",
    },
    SiteRow {
        kind: SiteKind::AttnScores,
        name: "blocks.{}.attn.hook_attn_scores",
        axes: &[Batch, Position, Heads, Keys],
        formula: "scaled q k, soft-capped, -inf where masked",
    },
    SiteRow {
        kind: SiteKind::AttnPattern,
        name: "blocks.{}.attn.hook_pattern",
        axes: &[Batch, Position, Heads, Keys],
        formula: "softmax of the scores over keys",
    },
    SiteRow {
        kind: SiteKind::AttnZ,
        name: "blocks.{}.attn.hook_z",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "pattern v, per head",
    },
    SiteRow {
        kind: SiteKind::AttnModuleOut,
        name: "blocks.{}.attn.hook_out",
        axes: &[Batch, Position, Model],
        formula: "z W_O + b_O, before the norm behind attention (the same as hook_attn_out where there is none)",
    },
    SiteRow {
        kind: SiteKind::AttnOut,
        name: "blocks.{}.hook_attn_out",
        axes: &[Batch, Position, Model],
        formula: "what attention adds to the residual stream",
    },
    SiteRow {
        kind: SiteKind::ResidMid,
        name: "blocks.{}.hook_resid_mid",
        axes: &[Batch, Position, Model],
        formula: "resid_pre + attn_out (sequential blocks only)",
    },
    SiteRow {
        kind: SiteKind::MlpResid,
        name: "blocks.{}.hook_mlp_in",
        axes: &[Batch, Position, Model],
        formula: "the residual stream as the MLP's branch alone reads it, before its norm",
    },
    SiteRow {
        kind: SiteKind::Norm2,
        name: "blocks.{}.ln2.hook_normalized",
        axes: &[Batch, Position, Model],
        formula: "hook_mlp_in normalised, before gain and bias",
    },
    SiteRow {
        kind: SiteKind::MlpIn,
        name: "blocks.{}.mlp.hook_in",
        axes: &[Batch, Position, Model],
        formula: "what the MLP reads: norm2(hook_mlp_in), or hook_mlp_in where no norm stands before it",
    },
    SiteRow {
        kind: SiteKind::MlpPre,
        name: "blocks.{}.mlp.hook_pre",
        axes: &[Batch, Position, Neurons],
        formula: "mlp.hook_in W_gate (gated MLPs) or mlp.hook_in W_in + b_in, before the activation",
    },
    SiteRow {
        kind: SiteKind::MlpPreLinear,
        name: "blocks.{}.mlp.hook_pre_linear",
        axes: &[Batch, Position, Neurons],
        formula: "mlp.hook_in W_in + b_in (gated MLPs)",
    },
    SiteRow {
        kind: SiteKind::MlpPost,
        name: "blocks.{}.mlp.hook_post",
        axes: &[Batch, Position, Neurons],
        formula: "act(pre) * pre_linear, or act(pre): the neurons",
    },
    SiteRow {
        kind: SiteKind::RouterLogits,
        name: "blocks.{}.mlp.router_logits",
        axes: &[Batch, Position, Experts],
        formula: "mlp.hook_in W_router (mixtures of experts)",
    },
    SiteRow {
        kind: SiteKind::ExpertWeights,
        name: "blocks.{}.mlp.hook_expert_weights",
        axes: &[Batch, Position, Experts],
        formula: "softmax of the router logits over all experts",
    },
    SiteRow {
        kind: SiteKind::ExpertIndices,
        name: "blocks.{}.mlp.hook_expert_indices",
        axes: &[Batch, Position, ExpertsUsed],
        formula: "experts that the token is sent to, heaviest first, as numbers",
    },
    SiteRow {
        kind: SiteKind::MlpModuleOut,
        name: "blocks.{}.mlp.hook_out",
        axes: &[Batch, Position, Model],
        formula: "post W_out + b_out, before the norm behind the MLP (the same as hook_mlp_out where there is none)",
    },
    SiteRow {
        kind: SiteKind::MlpOut,
        name: "blocks.{}.hook_mlp_out",
        axes: &[Batch, Position, Model],
        formula: "what the MLP adds to the residual stream",
    },
    SiteRow {
        kind: SiteKind::ResidPost,
        name: "blocks.{}.hook_resid_post",
        axes: &[Batch, Position, Model],
        formula: "residual stream leaving the block",
    },
    SiteRow {
        kind: SiteKind::FinalNorm,
        name: "ln_final.hook_normalized",
        axes: &[Batch, Position, Model],
        formula: "the last resid_post normalised, before gain and bias",
    },
    SiteRow {
        kind: SiteKind::FinalResid,
        name: "ln_final.hook_out",
        axes: &[Batch, Position, Model],
        formula: "final norm with its gain and bias, the unembedding's input",
    },
    SiteRow {
        kind: SiteKind::Logits,
        name: "hook_logits",
        axes: &[Batch, Position, Vocab],
        formula: "ln_final W_U + b_U, soft-capped where the family does so",
    },
];

/// Other spellings that name a site: module paths of Hugging Face checkpoints, which sparsify and others use for the
/// module's output. `{}` stands for the layer; a leading `model.`, `transformer.` or `gpt_neox.` is dropped first.
///
/// `post_attention_layernorm` is not here: it stands before the MLP in some families and behind attention in others.
const ALIASES: &[(&str, SiteKind)] = &[
    ("embed_tokens", SiteKind::Embed),
    ("wte", SiteKind::Embed),
    ("embed_in", SiteKind::Embed),
    ("wpe", SiteKind::PosEmbed),
    ("layers.{}", SiteKind::ResidPost),
    ("layers.{}.input_layernorm", SiteKind::AttnIn),
    ("layers.{}.self_attn", SiteKind::AttnModuleOut),
    ("layers.{}.self_attn.q_proj", SiteKind::AttnQ),
    ("layers.{}.self_attn.k_proj", SiteKind::AttnK),
    ("layers.{}.self_attn.v_proj", SiteKind::AttnV),
    ("layers.{}.self_attn.q_norm", SiteKind::QNorm),
    ("layers.{}.self_attn.k_norm", SiteKind::KNorm),
    ("layers.{}.self_attn.o_proj", SiteKind::AttnModuleOut),
    ("layers.{}.attention", SiteKind::AttnModuleOut),
    ("layers.{}.attention.dense", SiteKind::AttnModuleOut),
    ("layers.{}.mlp", SiteKind::MlpModuleOut),
    ("layers.{}.mlp.gate_proj", SiteKind::MlpPre),
    ("layers.{}.mlp.up_proj", SiteKind::MlpPreLinear),
    ("layers.{}.mlp.down_proj", SiteKind::MlpModuleOut),
    ("layers.{}.mlp.dense_h_to_4h", SiteKind::MlpPre),
    ("layers.{}.mlp.dense_4h_to_h", SiteKind::MlpModuleOut),
    ("layers.{}.mlp.gate", SiteKind::RouterLogits),
    ("h.{}", SiteKind::ResidPost),
    ("h.{}.ln_1", SiteKind::AttnIn),
    ("h.{}.attn", SiteKind::AttnModuleOut),
    ("h.{}.attn.c_proj", SiteKind::AttnModuleOut),
    ("h.{}.ln_2", SiteKind::MlpIn),
    ("h.{}.mlp", SiteKind::MlpModuleOut),
    ("h.{}.mlp.c_fc", SiteKind::MlpPre),
    ("h.{}.mlp.c_proj", SiteKind::MlpModuleOut),
    ("norm", SiteKind::FinalResid),
    ("ln_f", SiteKind::FinalResid),
    ("final_layer_norm", SiteKind::FinalResid),
    ("lm_head", SiteKind::Logits),
    ("embed_out", SiteKind::Logits),
    ("unembed.hook_out", SiteKind::Logits),
];

/// A point of a model that can be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Layer, where the kind has one.
    pub layer: Option<usize>,
    /// Kind.
    pub kind: SiteKind,
}

/// Why a site's name was refused.
#[derive(Debug, Error, PartialEq)]
pub enum SiteError {
    /// No line of the table has this name.
    #[error("unknown site {name:?}; the nearest names are {}", nearest.join(", "))]
    Unknown {
        /// The name given.
        name: String,
        /// The most similar names of the table, best first.
        nearest: Vec<String>,
    },
    /// The layer does not exist in this model.
    #[error("site {name:?} names layer {layer}, but the model has layers 0..={}", n_layers - 1)]
    Layer {
        /// The name given.
        name: String,
        /// The layer it names.
        layer: usize,
        /// How many layers the model has.
        n_layers: usize,
    },
    /// The model has no such point.
    #[error("site {name:?} does not exist in this model: {reason}")]
    Absent {
        /// The name given.
        name: String,
        /// Why, and what to use instead.
        reason: String,
    },
}

impl SiteKind {
    /// The line of the table that describes this kind.
    pub fn row(self) -> &'static SiteRow {
        &TABLE[self as usize]
    }
}

impl Site {
    /// A site of one layer.
    pub fn at(kind: SiteKind, layer: usize) -> Self {
        Self { layer: Some(layer), kind }
    }

    /// A site that has no layer.
    pub fn global(kind: SiteKind) -> Self {
        Self { layer: None, kind }
    }

    /// Checks that the site's layer exists in a model of `n_layers`.
    ///
    /// # Errors
    /// `SiteError::Layer` if it does not.
    pub fn check(self, n_layers: usize) -> Result<Self, SiteError> {
        match self.layer {
            Some(layer) if layer >= n_layers => Err(SiteError::Layer { name: self.to_string(), layer, n_layers }),
            _ => Ok(self),
        }
    }

    /// All sites that a model with `n_layers` layers could have, in the order of computation; which of them it has is
    /// for its specification to say.
    pub fn all(n_layers: usize) -> Vec<Site> {
        let per_layer = |row: &&SiteRow| row.name.contains("{}");
        let global = |row: &SiteRow| (!row.name.contains("{}")).then(|| Site::global(row.kind));
        let mut sites: Vec<Site> = TABLE.iter().take(2).filter_map(global).collect();
        for layer in 0..n_layers {
            sites.extend(TABLE.iter().filter(per_layer).map(|row| Site::at(row.kind, layer)));
        }
        sites.extend(TABLE.iter().skip(2).filter_map(global));
        sites
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => f.write_str(&self.kind.row().name.replace("{}", &layer.to_string())),
            None => f.write_str(self.kind.row().name),
        }
    }
}

impl FromStr for Site {
    type Err = SiteError;

    fn from_str(name: &str) -> Result<Self, SiteError> {
        let spelled = |pattern: &str, name: &str, kind: SiteKind| match pattern.split_once("{}") {
            None => (pattern == name).then(|| Site::global(kind)),
            Some((before, after)) => {
                let digits = name.strip_prefix(before)?.strip_suffix(after)?;
                let layer = digits.parse().ok().filter(|n: &usize| n.to_string() == digits)?;
                Some(Site::at(kind, layer))
            }
        };
        if let Some(site) = TABLE.iter().find_map(|row| spelled(row.name, name, row.kind)) {
            return Ok(site);
        }
        let roots = ["model.language_model.", "language_model.model.", "model.", "transformer.", "gpt_neox."];
        let module = roots.iter().find_map(|root| name.strip_prefix(root)).unwrap_or(name);
        if let Some(site) = ALIASES.iter().find_map(|(pattern, kind)| spelled(pattern, module, *kind)) {
            return Ok(site);
        }
        let layer = name.split('.').find_map(|part| part.parse::<usize>().ok()).unwrap_or(0);
        let candidates = TABLE.iter().map(|row| row.name.replace("{}", &layer.to_string()));
        Err(SiteError::Unknown { name: name.into(), nearest: nearest(name, candidates, 3) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_rows_stand_in_order() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, i, "{}", row.name);
        }
        for site in Site::all(3) {
            assert_eq!(site.to_string().parse::<Site>(), Ok(site));
        }
    }

    #[test]
    fn module_paths_name_sites() {
        let kind = |name: &str| name.parse::<Site>().map(|s| (s.kind, s.layer));
        assert_eq!(kind("model.layers.3"), Ok((SiteKind::ResidPost, Some(3))));
        assert_eq!(kind("layers.12.mlp"), Ok((SiteKind::MlpModuleOut, Some(12))));
        assert_eq!(kind("transformer.h.0.attn"), Ok((SiteKind::AttnModuleOut, Some(0))));
        assert_eq!(kind("gpt_neox.layers.5.attention"), Ok((SiteKind::AttnModuleOut, Some(5))));
        assert_eq!(kind("model.norm"), Ok((SiteKind::FinalResid, None)));
        assert!(kind("layers.03.mlp").is_err() && kind("layers..mlp").is_err() && kind("layers.-1").is_err());
    }

    #[test]
    fn a_typo_lists_the_nearest_names() {
        let error = "blocks.3.hook_resid_pots".parse::<Site>().unwrap_err().to_string();
        assert!(error.contains("blocks.3.hook_resid_post"), "{error}");
        assert!("blocks.x.hook_resid_post".parse::<Site>().is_err());
        assert!(Site::at(SiteKind::ResidPost, 5).check(5).is_err());
    }
}
