//! What a model is: everything in which families differ, as data.

use exegete_base::axes::Axis;
use exegete_base::{Site, SiteError, SiteKind};
use exegete_tensor::Act;
use serde::Serialize;

use crate::rope::Rope;

/// The widest head that is handled.
pub(crate) const MOST_D_HEAD: usize = 1 << 16;
/// The widest residual stream.
const MOST_D_MODEL: usize = 1 << 20;

/// Normalisation before attention, before the MLP and at the end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Norm {
    /// RMSNorm with a gain.
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm with a gain and a bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

/// Where norms stand in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NormPlaces {
    /// Before attention and before the MLP.
    pub before: bool,
    /// Behind attention and behind the MLP, before their output joins the residual stream.
    pub behind: bool,
}

/// Normalisation of queries and keys (RMSNorm with a gain), before rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum QkNorm {
    /// None.
    None,
    /// Each head by itself; the gain has a head's width.
    Head,
    /// All heads together; the gain has the projection's width.
    Flat,
}

/// The MLP of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Mlp {
    /// `down(act(up(x)))`.
    Plain(Act),
    /// `down(act(gate(x)) * up(x))`.
    Gated(Act),
}

impl Mlp {
    /// The activation function.
    pub fn act(self) -> Act {
        match self {
            Self::Plain(act) | Self::Gated(act) => act,
        }
    }
}

/// A mixture of gated experts: softmax over all, the best few, their outputs mixed by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mixture {
    /// Experts.
    pub n_experts: usize,
    /// Experts that each token is sent to.
    pub n_used: usize,
    /// Neurons of an expert.
    pub d_expert: usize,
    /// Whether the chosen experts' weights are made to sum to one.
    pub normalise: bool,
}

/// Which linear maps have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// Attention's output.
    pub o: bool,
    /// The MLP's matrices.
    pub mlp: bool,
    /// The unembedding.
    pub unembed: bool,
}

/// In what the layers of one model differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerSpec {
    /// Keys that a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Which of the model's rotations it uses; `None` for no rotation.
    pub rope: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
    /// Whether its MLP is the mixture of experts.
    pub mixture: bool,
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
    /// MLP neurons of dense layers.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest context the model was made for.
    pub max_positions: usize,
    /// Factor of the token embedding.
    pub embed_scale: f32,
    /// Whether a learned vector for each position is added to the embedding.
    pub learned_positions: bool,
    /// Normalisation.
    pub norm: Norm,
    /// Where norms stand.
    pub norms: NormPlaces,
    /// Whether attention and MLP both read the residual stream that enters the block.
    pub parallel: bool,
    /// Normalisation of queries and keys.
    pub qk_norm: QkNorm,
    /// Scores become `c tanh(score / c)`.
    pub attn_soft_cap: Option<f32>,
    /// MLP of dense layers.
    pub mlp: Mlp,
    /// Mixture of experts, where some layers have one.
    pub mixture: Option<Mixture>,
    /// Biases.
    pub biases: Biases,
    /// Rotations, by which the layers refer to them.
    pub ropes: Vec<Rope>,
    /// The layers.
    pub layers: Vec<LayerSpec>,
    /// Logits become `c tanh(logit / c)`.
    pub logit_soft_cap: Option<f32>,
    /// Whether the unembedding is the embedding.
    pub tied: bool,
    /// Token that starts a text, if the checkpoint names one.
    pub bos_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_ids: Vec<u32>,
}

impl ModelSpec {
    /// The plainest model of given sizes, for families to change: pre-norm, sequential, full attention, one head a
    /// key head, no biases, no positions, tied to nothing.
    pub fn plain(
        family: &str,
        n_layers: usize,
        d_model: usize,
        n_heads: usize,
        norm: Norm,
        mlp: Mlp,
    ) -> Result<Self, String> {
        if n_heads == 0 {
            return Err("the number of heads is 0, which is outside 1..=65536".into());
        }
        if n_layers == 0 || n_layers > 10_000 {
            return Err(format!("the number of layers is {n_layers}, which is outside 1..=10000"));
        }
        // Families multiply the width before the whole specification is checked.
        if d_model == 0 || d_model > MOST_D_MODEL {
            return Err(format!("the model width is {d_model}, which is outside 1..={MOST_D_MODEL}"));
        }
        let d_head = d_model / n_heads;
        let layer = LayerSpec { window: None, rope: None, scale: scale_of(d_head), mixture: false };
        Ok(Self {
            family: family.into(),
            n_layers,
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            d_mlp: 4 * d_model,
            vocab_size: 0,
            max_positions: 2048,
            embed_scale: 1.0,
            learned_positions: false,
            norm,
            norms: NormPlaces { before: true, behind: false },
            parallel: false,
            qk_norm: QkNorm::None,
            attn_soft_cap: None,
            mlp,
            mixture: None,
            biases: Biases::default(),
            ropes: Vec::new(),
            layers: vec![layer; n_layers],
            logit_soft_cap: None,
            tied: false,
            bos_id: None,
            eos_ids: Vec::new(),
        })
    }

    /// Sets the width of heads, and the usual factor `1 / sqrt(d_head)` of the scores with it.
    pub fn set_d_head(&mut self, d_head: usize) {
        self.d_head = d_head;
        self.layers.iter_mut().for_each(|layer| layer.scale = scale_of(d_head));
    }

    /// Gives every layer the same rotation.
    pub fn set_rope(&mut self, rope: Rope) {
        self.ropes = vec![rope];
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(0));
    }

    /// Length of an axis, for those that belong to the model.
    pub fn axis_len(&self, axis: Axis) -> Option<usize> {
        Some(match axis {
            Axis::Model => self.d_model,
            Axis::Heads => self.n_heads,
            Axis::KvHeads => self.n_kv_heads,
            Axis::HeadDim => self.d_head,
            Axis::Neurons => self.d_mlp,
            Axis::Vocab => self.vocab_size,
            Axis::Experts => self.mixture.map_or(0, |m| m.n_experts),
            Axis::ExpertsUsed => self.mixture.map_or(0, |m| m.n_used),
            Axis::Batch | Axis::Position | Axis::Latents | Axis::Active | Axis::Tokens | Axis::Keys => return None,
        })
    }

    /// Values that a site has at each position: the product of its inner axes. `n_keys` is the length of the axis of
    /// keys, which only scores and patterns have.
    pub fn site_width(&self, site: Site, n_keys: usize) -> usize {
        let len = |axis: &Axis| if *axis == Axis::Keys { Some(n_keys) } else { self.axis_len(*axis) };
        site.kind.row().axes.iter().filter_map(len).product()
    }

    /// The site under its first name, if the model has it: the output of a module is what it adds to the residual
    /// stream where no norm stands between the two.
    ///
    /// # Errors
    /// The layer does not exist, or the model has no such point; the error says why.
    pub fn site(&self, site: Site) -> Result<Site, SiteError> {
        use SiteKind::*;
        let site = site.check(self.n_layers)?;
        let moved = match site.kind {
            AttnModuleOut if !self.norms.behind => AttnOut,
            MlpModuleOut if !self.norms.behind => MlpOut,
            other => other,
        };
        let (first, rest) = (site, Site { kind: moved, ..site });
        let absent = |reason: &str| Err(SiteError::Absent { name: first.to_string(), reason: reason.into() });
        let layer = site.layer.map(|l| self.layers[l]);
        let mixture = layer.is_some_and(|l| l.mixture);
        match moved {
            PosEmbed if !self.learned_positions => absent("it has no learned positions"),
            Norm1 | Norm2 if !self.norms.before => {
                absent("no norm stands before its attention and MLP; they read the residual stream itself")
            }
            QNorm | KNorm if self.qk_norm == QkNorm::None => {
                absent("it does not normalise queries and keys; use attn.hook_q and attn.hook_k")
            }
            RotQ | RotK if layer.is_some_and(|l| l.rope.is_none()) => {
                absent("this layer does not rotate queries and keys; use attn.hook_q and attn.hook_k")
            }
            ResidMid if self.parallel => {
                absent("attention and MLP read the same residual stream in parallel; use hook_resid_pre")
            }
            MlpPre | MlpPreLinear | MlpPost if mixture => {
                absent("this layer is a mixture of experts, whose neurons differ from token to token")
            }
            MlpPreLinear if matches!(self.mlp, Mlp::Plain(_)) => absent("its MLP is not gated; use mlp.hook_pre"),
            RouterLogits | ExpertWeights | ExpertIndices if !mixture => absent("this layer has no experts"),
            _ => Ok(rest),
        }
    }

    /// Every site that the model has, in the order of computation.
    pub fn sites(&self) -> Vec<Site> {
        Site::all(self.n_layers).into_iter().filter(|s| self.site(*s) == Ok(*s)).collect()
    }

    /// Checks that the numbers make a model at all, so that later arithmetic cannot overflow or divide by zero.
    ///
    /// # Errors
    /// A sentence about the first number that does not fit.
    pub fn check(&self) -> Result<(), String> {
        let mixture = self.mixture.unwrap_or(Mixture { n_experts: 1, n_used: 1, d_expert: 1, normalise: false });
        let sizes = [
            ("number of layers", self.n_layers, 10_000),
            ("model width", self.d_model, MOST_D_MODEL),
            ("number of heads", self.n_heads, 1 << 16),
            ("number of key-value heads", self.n_kv_heads, 1 << 16),
            ("head width", self.d_head, MOST_D_HEAD),
            ("MLP width", self.d_mlp, 1 << 24),
            ("vocabulary size", self.vocab_size, 1 << 26),
            ("context length", self.max_positions, 1 << 30),
            ("number of experts", mixture.n_experts, 1 << 12),
            ("number of experts used", mixture.n_used, mixture.n_experts),
            ("width of an expert", mixture.d_expert, 1 << 24),
        ];
        for (name, value, most) in sizes {
            if value == 0 || value > most {
                return Err(format!("the {name} is {value}, which is outside 1..={most}"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(format!("{} heads do not divide among {} key-value heads", self.n_heads, self.n_kv_heads));
        }
        if self.layers.len() != self.n_layers {
            return Err(format!("{} layers are described, {} are announced", self.layers.len(), self.n_layers));
        }
        for rope in &self.ropes {
            rope.check(self.d_head)?;
        }
        let numbers = [self.embed_scale, self.attn_soft_cap.unwrap_or(1.0), self.logit_soft_cap.unwrap_or(1.0)];
        let scales = self.layers.iter().map(|l| l.scale);
        match scales.chain(numbers).find(|x| !x.is_finite() || *x <= 0.0) {
            Some(wrong) => Err(format!("a scale or soft cap is {wrong}; it must be a positive number")),
            None if self.layers.iter().any(|l| l.window == Some(0)) => Err("a window of 0 keys sees nothing".into()),
            None => Ok(()),
        }
    }
}

fn scale_of(d_head: usize) -> f32 {
    1.0 / (d_head.max(1) as f32).sqrt()
}
