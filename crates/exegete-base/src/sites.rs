//! The one table of sites: every point of a model that can be read or written.
//!
//! Names and meanings are TransformerLens's. A site has a kind and, unless it is global, a layer.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::axes::Axis::{self, *};

/// Where in the block a site lies; the order is the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Each variant is documented by its line of `TABLE`.
pub enum SiteKind {
    Embed,
    ResidPre,
    AttnQ,
    AttnK,
    AttnV,
    AttnZ,
    AttnOut,
    ResidMid,
    MlpPre,
    MlpPreLinear,
    MlpPost,
    MlpOut,
    ResidPost,
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
    SiteRow { kind: SiteKind::Embed, name: "hook_embed", axes: &[Batch, Position, Model], formula: "W_E[token]" },
    SiteRow {
        kind: SiteKind::ResidPre,
        name: "blocks.{}.hook_resid_pre",
        axes: &[Batch, Position, Model],
        formula: "residual stream entering the block",
    },
    SiteRow {
        kind: SiteKind::AttnQ,
        name: "blocks.{}.attn.hook_q",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "norm1(resid_pre) W_Q, before rotation",
    },
    SiteRow {
        kind: SiteKind::AttnK,
        name: "blocks.{}.attn.hook_k",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "norm1(resid_pre) W_K, before rotation",
    },
    SiteRow {
        kind: SiteKind::AttnV,
        name: "blocks.{}.attn.hook_v",
        axes: &[Batch, Position, KvHeads, HeadDim],
        formula: "norm1(resid_pre) W_V",
    },
    SiteRow {
        kind: SiteKind::AttnZ,
        name: "blocks.{}.attn.hook_z",
        axes: &[Batch, Position, Heads, HeadDim],
        formula: "pattern v, per head",
    },
    SiteRow {
        kind: SiteKind::AttnOut,
        name: "blocks.{}.hook_attn_out",
        axes: &[Batch, Position, Model],
        formula: "z W_O",
    },
    SiteRow {
        kind: SiteKind::ResidMid,
        name: "blocks.{}.hook_resid_mid",
        axes: &[Batch, Position, Model],
        formula: "resid_pre + attn_out",
    },
    SiteRow {
        kind: SiteKind::MlpPre,
        name: "blocks.{}.mlp.hook_pre",
        axes: &[Batch, Position, Neurons],
        formula: "norm2(resid_mid) W_gate",
    },
    SiteRow {
        kind: SiteKind::MlpPreLinear,
        name: "blocks.{}.mlp.hook_pre_linear",
        axes: &[Batch, Position, Neurons],
        formula: "norm2(resid_mid) W_in",
    },
    SiteRow {
        kind: SiteKind::MlpPost,
        name: "blocks.{}.mlp.hook_post",
        axes: &[Batch, Position, Neurons],
        formula: "act(pre) * pre_linear (the neurons)",
    },
    SiteRow {
        kind: SiteKind::MlpOut,
        name: "blocks.{}.hook_mlp_out",
        axes: &[Batch, Position, Model],
        formula: "post W_out",
    },
    SiteRow {
        kind: SiteKind::ResidPost,
        name: "blocks.{}.hook_resid_post",
        axes: &[Batch, Position, Model],
        formula: "resid_mid + mlp_out",
    },
    SiteRow {
        kind: SiteKind::FinalResid,
        name: "ln_final.hook_out",
        axes: &[Batch, Position, Model],
        formula: "final norm with its gain, the unembedding's input",
    },
    SiteRow { kind: SiteKind::Logits, name: "hook_logits", axes: &[Batch, Position, Vocab], formula: "ln_final W_U" },
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

    /// All sites of a model with `n_layers` layers, in the order of computation.
    pub fn all(n_layers: usize) -> Vec<Site> {
        let per_layer = |row: &&SiteRow| row.name.contains("{}");
        let mut sites = vec![Site::global(SiteKind::Embed)];
        for layer in 0..n_layers {
            sites.extend(TABLE.iter().filter(per_layer).map(|row| Site::at(row.kind, layer)));
        }
        sites.extend([Site::global(SiteKind::FinalResid), Site::global(SiteKind::Logits)]);
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
        let layer = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()).and_then(|n| n.parse().ok());
        for row in TABLE {
            let site = if row.name.contains("{}") {
                let Some(layer) = layer else { continue };
                Site::at(row.kind, layer)
            } else {
                Site::global(row.kind)
            };
            if site.to_string() == name {
                return Ok(site);
            }
        }
        let mut candidates: Vec<String> =
            TABLE.iter().map(|row| row.name.replace("{}", &layer.unwrap_or(0usize).to_string())).collect();
        candidates.sort_by(|a, b| strsim::jaro_winkler(name, b).total_cmp(&strsim::jaro_winkler(name, a)));
        candidates.truncate(3);
        Err(SiteError::Unknown { name: name.into(), nearest: candidates })
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
    fn a_typo_lists_the_nearest_names() {
        let error = "blocks.3.hook_resid_pots".parse::<Site>().unwrap_err().to_string();
        assert!(error.contains("blocks.3.hook_resid_post"), "{error}");
        assert!("blocks.x.hook_resid_post".parse::<Site>().is_err());
        assert!(Site::at(SiteKind::ResidPost, 5).check(5).is_err());
    }
}
