//! What a model is: everything in which families differ, as data.

use exegete_base::Site;
use exegete_base::axes::Axis;
use serde::Serialize;

/// Normalisation before attention, before the MLP and at the end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Norm {
    /// RMSNorm with a gain.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
}

/// The MLP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Mlp {
    /// `down(silu(gate) * up)`.
    GatedSilu,
}

/// Rotary positions ("half" convention), by the inverse frequency of each plane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// Inverse frequencies, `[d_head / 2]`.
    pub inv_freq: Vec<f32>,
}

impl Rope {
    /// Frequencies `theta^(-2i / d_head)`, computed as transformers does.
    pub fn plain(theta: f64, d_head: usize) -> Self {
        let inv = |i: usize| 1.0 / (theta as f32).powf(2.0 * i as f32 / d_head as f32);
        Self { inv_freq: (0..d_head / 2).map(inv).collect() }
    }
}

/// A decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// Name of the family, for people; nothing depends on it.
    pub family: String,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// MLP neurons.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_positions: usize,
    /// Normalisation.
    pub norm: Norm,
    /// MLP.
    pub mlp: Mlp,
    /// Positions.
    pub rope: Rope,
    /// Whether the unembedding is the embedding.
    pub tied: bool,
    /// Token that starts a text, if the checkpoint names one.
    pub bos_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_ids: Vec<u32>,
}

impl ModelSpec {
    /// Length of an axis, for those that belong to the model.
    pub fn axis_len(&self, axis: Axis) -> Option<usize> {
        Some(match axis {
            Axis::Model => self.d_model,
            Axis::Heads => self.n_heads,
            Axis::KvHeads => self.n_kv_heads,
            Axis::HeadDim => self.d_head,
            Axis::Neurons => self.d_mlp,
            Axis::Vocab => self.vocab_size,
            Axis::Batch | Axis::Position | Axis::Latents | Axis::Active | Axis::Tokens => return None,
        })
    }

    /// Values that a site has at each position: the product of its inner axes.
    pub fn site_width(&self, site: Site) -> usize {
        site.kind.row().axes.iter().filter_map(|axis| self.axis_len(*axis)).product()
    }

    /// Numbers in the weights.
    pub fn n_parameters(&self) -> usize {
        let attention = self.d_model * self.d_head * 2 * (self.n_heads + self.n_kv_heads);
        let layer = attention + 3 * self.d_model * self.d_mlp + 2 * self.d_model;
        let tables = if self.tied { 1 } else { 2 };
        self.n_layers * layer + tables * self.vocab_size * self.d_model + self.d_model
    }

    /// Checks that the numbers make a model at all, so that later arithmetic cannot overflow or divide by zero.
    ///
    /// # Errors
    /// A sentence about the first number that does not fit.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("number of layers", self.n_layers, 10_000),
            ("model width", self.d_model, 1 << 20),
            ("number of heads", self.n_heads, 1 << 16),
            ("number of key-value heads", self.n_kv_heads, 1 << 16),
            ("head width", self.d_head, 1 << 16),
            ("MLP width", self.d_mlp, 1 << 24),
            ("vocabulary size", self.vocab_size, 1 << 26),
            ("context length", self.max_positions, 1 << 30),
        ];
        for (name, value, most) in sizes {
            if value == 0 || value > most {
                return Err(format!("the {name} is {value}, which is outside 1..={most}"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(format!("{} heads do not divide among {} key-value heads", self.n_heads, self.n_kv_heads));
        }
        if !self.d_head.is_multiple_of(2) {
            return Err(format!("the head width {} is odd, so heads cannot be rotated", self.d_head));
        }
        Ok(())
    }
}
