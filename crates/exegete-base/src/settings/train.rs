//! How a dictionary is trained.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What makes activations of pre-activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The k largest of each token
    #[default]
    #[value(name = "topk")]
    #[serde(rename = "topk")]
    TopK,
    /// The k largest a token over the batch, saved as a JumpReLU with one threshold
    #[value(name = "batchtopk")]
    #[serde(rename = "batchtopk")]
    BatchTopK,
    /// All above 0
    Relu,
    /// All above a threshold that each latent learns
    #[value(name = "jumprelu")]
    #[serde(rename = "jumprelu")]
    JumpRelu,
    /// A gate and a magnitude of its own
    Gated,
    /// Measured from the k-th largest of each token, see --kth-form
    KthLargest,
    /// At most k latents, one after the other, each for what the others left; the encoder is the decoder
    MatchingPursuit,
}

/// Formulas of [`Activation::KthLargest`], with b the k-th largest pre-activation of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KthForm {
    /// h where relu(h) is b or more: TopK
    A,
    /// max(0, h - b + eps)
    #[default]
    B,
    /// relu(h) times (h - b) / eps + 1, cut to 0..1
    C,
}

/// What is added to the loss for activations, summed over a token's latents. u is an activation times the length of its
/// decoder row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// L1 for relu and gated, L0 for jumprelu, none for those that choose by rank
    #[default]
    Auto,
    /// Nothing
    None,
    /// u
    L1,
    /// sqrt(u)
    Sqrt,
    /// tanh(c u), with --penalty-c
    Tanh,
    /// u / (u + eps), eps falling from 0.2 over 0.1 to 0.05
    Recip,
    /// (sum of u)^2 / (sum of u^2)
    HoyerSquare,
    /// (sum of u)^p - (sum of u^p), with --penalty-p
    Freshman,
    /// (sum of u)^p / (sum of u^p), with --penalty-p
    FreshmanRatio,
    /// u^p, p falling from 1 to --penalty-p (P-annealing)
    PAnneal,
    /// The number of active latents, by straight-through gradients of the thresholds (jumprelu)
    L0,
    /// 2 / t (L0 - t)^2 with the token's L0 and t = --target-l0, by the same gradients (Gemma Scope 2)
    L0Target,
    /// (L0 / t - 1)^2 with the batch's mean L0 (dictionary_learning)
    L0TargetBatch,
}

/// What is trained of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdForm {
    /// The threshold itself, held at 0 or above
    #[default]
    Direct,
    /// Its logarithm, which a small learning rate hardly moves where thresholds are small
    Log,
}

impl ThresholdForm {
    /// The threshold of a parameter.
    pub fn threshold(self, parameter: f32) -> f32 {
        match self {
            Self::Direct => parameter.max(0.0),
            Self::Log => parameter.exp(),
        }
    }

    /// The parameter of a threshold.
    pub fn parameter(self, threshold: f32) -> f32 {
        match self {
            Self::Direct => threshold,
            Self::Log => threshold.ln(),
        }
    }
}

/// What holds the decoder's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DecoderRows {
    /// Unit length, with the part of the gradient along the row taken out
    #[default]
    Unit,
    /// Nothing; penalties count their length
    Free,
}

/// How the error is measured in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Squared error over the batch's variance
    #[default]
    Fvu,
    /// Squared error summed over the width, mean over tokens, in units in which inputs have the mean length sqrt(d)
    Mse,
    /// The model's cross-entropy with the reconstruction in place, in nats a token (end-to-end)
    Ce,
    /// The divergence of the model with the reconstruction in place from the model as it is, in nats a token (end-to-end)
    Kl,
}

impl Reconstruction {
    /// Whether the model itself is the judge of the error.
    pub fn is_end_to_end(self) -> bool {
        matches!(self, Self::Ce | Self::Kl)
    }
}

/// How a dictionary is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct TrainSettings {
    /// Site that is read [default: the residual stream after a third of the layers]; several with commas between them, or *
    /// for every layer, make a crosscoder, which reads and writes them all
    #[arg(long)]
    pub site: Option<String>,
    /// Site that is written, where it is another: a transcoder; as many as are read make a cross-layer transcoder
    #[arg(long)]
    pub site_out: Option<String>,
    /// Number of latents
    #[arg(long, default_value_t = 4096)]
    pub latents: usize,
    /// What makes activations of pre-activations
    #[arg(long, value_enum, default_value_t = Activation::TopK)]
    pub activation: Activation,
    /// Latents kept for each token (topk, batchtopk, kth-largest, matching-pursuit)
    #[arg(long, default_value_t = 32)]
    pub k: usize,
    /// The formula of kth-largest
    #[arg(long, value_enum, default_value_t = KthForm::B)]
    pub kth_form: KthForm,
    /// The width of kth-largest's band below the k-th, in units in which inputs have the mean length sqrt(d)
    #[arg(long, default_value_t = 0.1)]
    pub kth_eps: f64,
    /// Length of what is left below which matching-pursuit ends, in the same units
    #[arg(long, default_value_t = 0.01)]
    pub residual_threshold: f64,
    /// Nested dictionaries (Matryoshka): numbers of latents that reconstruct by themselves, besides all
    #[arg(long, value_delimiter = ',')]
    pub prefixes: Vec<usize>,
    /// What is added to the loss for activations
    #[arg(long, value_enum, default_value_t = Penalty::Auto)]
    pub penalty: Penalty,
    /// Weight of the penalty; where --target-l0 steers it, its first value
    #[arg(long, default_value_t = 1e-3)]
    pub sparsity: f64,
    /// Share of the steps over which the penalty's weight rises from 0
    #[arg(long, default_value_t = 0.05)]
    pub sparsity_warmup: f64,
    /// Mean number of active latents to which the penalty's weight is steered, or that l0-target and l0-target-batch aim at;
    /// 0 leaves the weight alone
    #[arg(long, default_value_t = 0.0)]
    pub target_l0: f64,
    /// The power of freshman, freshman-ratio and, at the end, p-anneal
    #[arg(long, default_value_t = 2.0)]
    pub penalty_p: f64,
    /// The factor inside tanh
    #[arg(long, default_value_t = 4.0)]
    pub penalty_c: f64,
    /// First threshold of jumprelu, in units in which inputs have the mean length sqrt(d)
    #[arg(long, default_value_t = 0.1)]
    pub threshold: f64,
    /// What is trained of jumprelu's thresholds
    #[arg(long, value_enum, default_value_t = ThresholdForm::Direct)]
    pub threshold_form: ThresholdForm,
    /// Width of the band around a threshold in which jumprelu's gradients are felt, in the same units
    #[arg(long, default_value_t = 0.1)]
    pub bandwidth: f64,
    /// Let pre-activations feel jumprelu's straight-through gradients too, and not thresholds alone (Anthropic)
    #[arg(long)]
    pub ste_to_input: bool,
    /// Weight of the loss that raises dead latents of jumprelu to their thresholds (Anthropic); 0 turns it off
    #[arg(long, default_value_t = 0.0)]
    pub pre_act_weight: f64,
    /// A linear path beside a transcoder's latents, trained with them
    #[arg(long)]
    pub skip: bool,
    /// What holds the decoder's rows
    #[arg(long, value_enum, default_value_t = DecoderRows::Unit)]
    pub decoder_rows: DecoderRows,
    /// How the error is measured in the loss
    #[arg(long, value_enum, default_value_t = Reconstruction::Fvu)]
    pub reconstruction: Reconstruction,
    /// Passes over the activation cache
    #[arg(long, default_value_t = 6)]
    pub epochs: usize,
    /// Tokens in a training step
    #[arg(long, default_value_t = 512)]
    pub batch: usize,
    /// Learning rate at its highest; 0 picks 2e-4 / sqrt(latents / 2^14)
    #[arg(long, default_value_t = 0.0)]
    pub lr: f64,
    /// Decay of Adam's first moment
    #[arg(long, default_value_t = 0.9)]
    pub beta1: f64,
    /// Decay of Adam's second moment
    #[arg(long, default_value_t = 0.999)]
    pub beta2: f64,
    /// Share of the steps over which the learning rate rises from 0
    #[arg(long, default_value_t = 0.05)]
    pub warmup: f64,
    /// Share of the steps, at the end, over which the learning rate falls to 0
    #[arg(long, default_value_t = 0.2)]
    pub decay: f64,
    /// Weight of the auxiliary loss that revives dead latents (AuxK), but for matching-pursuit; 0 turns it off
    #[arg(long, default_value_t = 1.0 / 32.0)]
    pub aux_weight: f64,
    /// Dead latents that explain a token's error; 0 picks half the input's width, at most 256
    #[arg(long, default_value_t = 0)]
    pub aux_k: usize,
    /// Tokens without a firing after which a latent counts as dead
    #[arg(long, default_value_t = 250_000)]
    pub dead_after_tokens: u64,
    /// Steps between resamplings, at which dead latents start anew on badly reconstructed inputs of the batch; 0 for none
    #[arg(long, default_value_t = 0)]
    pub resample_every: u64,
}

impl Default for TrainSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            site: None,
            site_out: None,
            latents: 4096,
            activation: Activation::TopK,
            k: 32,
            kth_form: KthForm::B,
            kth_eps: 0.1,
            residual_threshold: 0.01,
            prefixes: Vec::new(),
            penalty: Penalty::Auto,
            sparsity: 1e-3,
            sparsity_warmup: 0.05,
            target_l0: 0.0,
            penalty_p: 2.0,
            penalty_c: 4.0,
            threshold: 0.1,
            threshold_form: ThresholdForm::Direct,
            bandwidth: 0.1,
            ste_to_input: false,
            pre_act_weight: 0.0,
            skip: false,
            decoder_rows: DecoderRows::Unit,
            reconstruction: Reconstruction::Fvu,
            epochs: 6,
            batch: 512,
            lr: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            warmup: 0.05,
            decay: 0.2,
            aux_weight: 1.0 / 32.0,
            aux_k: 0,
            dead_after_tokens: 250_000,
            resample_every: 0,
        }
    }
}

impl TrainSettings {
    /// The learning rate, with 0 resolved.
    pub fn peak_lr(&self) -> f64 {
        if self.lr > 0.0 { self.lr } else { 2e-4 / (self.latents as f64 / 16_384.0).sqrt() }
    }

    /// Latents of the auxiliary loss, with 0 resolved for inputs of width `d_in`.
    pub fn resolved_aux_k(&self, d_in: usize) -> usize {
        if self.aux_k > 0 { self.aux_k } else { (d_in / 2).clamp(1, 256) }
    }

    /// The penalty, with `auto` resolved.
    pub fn resolved_penalty(&self) -> Penalty {
        match (self.penalty, self.activation) {
            (Penalty::Auto, Activation::Relu | Activation::Gated) => Penalty::L1,
            (Penalty::Auto, Activation::JumpRelu) => Penalty::L0,
            (Penalty::Auto, _) => Penalty::None,
            (penalty, _) => penalty,
        }
    }

    /// Whether the penalty's weight is steered to a number of active latents.
    pub fn steers(&self) -> bool {
        self.target_l0 > 0.0 && !matches!(self.penalty, Penalty::L0Target | Penalty::L0TargetBatch)
    }

    /// Whether activations are chosen by their rank, so that their number is set by k.
    pub fn is_ranked(&self) -> bool {
        use Activation::{BatchTopK, KthLargest, MatchingPursuit, TopK};
        matches!(self.activation, TopK | BatchTopK | KthLargest | MatchingPursuit)
    }

    /// Whether dead latents explain what is left. In a matching pursuit all do.
    pub fn uses_aux(&self) -> bool {
        self.aux_weight > 0.0 && self.activation != Activation::MatchingPursuit
    }

    /// Factor of the learning rate at a step: linear warm-up, constant, linear decay to 0.
    pub fn lr_factor(&self, step: u64, n_steps: u64) -> f64 {
        let decay = (self.decay * n_steps as f64).floor().max(1.0);
        rise(self.warmup, step, n_steps).min(n_steps.saturating_sub(step) as f64 / decay)
    }

    /// Factor of the penalty's weight at a step: linear warm-up, then constant.
    pub fn sparsity_factor(&self, step: u64, n_steps: u64) -> f64 {
        rise(self.sparsity_warmup, step, n_steps)
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence naming the flag at fault.
    pub fn check(&self) -> Result<(), String> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        let penalty = self.resolved_penalty();
        let (jumps, steered) = (self.activation == Activation::JumpRelu, self.steers());
        let pursues = self.activation == Activation::MatchingPursuit;
        let counts = matches!(penalty, Penalty::L0 | Penalty::L0Target | Penalty::L0TargetBatch);
        let ascending = self.prefixes.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.prefixes.iter().all(|prefix| *prefix >= 1 && *prefix < self.latents);
        let rules = [
            (self.latents >= 1 && self.latents <= 1 << 24, "--latents must be between 1 and 16777216"),
            (!self.is_ranked() || (1..=self.latents).contains(&self.k), "--k must be between 1 and --latents"),
            (self.batch >= 1 && self.epochs >= 1, "--batch and --epochs must be at least 1"),
            (self.epochs <= 1_000_000, "--epochs must be at most 1000000"),
            (not_negative(self.lr), "--lr must be a number, 0 or more"),
            ((0.0..1.0).contains(&self.beta1), "--beta1 must be 0 or more and below 1"),
            (self.beta2 > 0.0 && self.beta2 < 1.0, "--beta2 must be between 0 and 1"),
            (share(self.warmup) && share(self.decay), "--warmup and --decay are shares"),
            (share(self.sparsity_warmup), "--sparsity-warmup is a share"),
            (not_negative(self.aux_weight), "--aux-weight must be a number, 0 or more"),
            (not_negative(self.sparsity), "--sparsity must be a number, 0 or more"),
            (not_negative(self.target_l0), "--target-l0 must be a number, 0 or more"),
            (self.target_l0 <= self.latents as f64, "--target-l0 must be at most --latents"),
            (!steered || penalty != Penalty::None, "--target-l0 steers a penalty, and there is none: give --penalty"),
            (!steered || !self.is_ranked(), "--target-l0 has no say where --k sets the number of active latents"),
            (!steered || self.sparsity > 0.0, "--target-l0 needs a first --sparsity above 0"),
            (
                !counts || jumps,
                "--penalty l0, l0-target and l0-target-batch are felt by thresholds: they need --activation jumprelu",
            ),
            (
                penalty == Penalty::L0 || !counts || self.target_l0 > 0.0,
                "--penalty l0-target and l0-target-batch aim at a number of active latents: give --target-l0",
            ),
            (
                jumps || !self.ste_to_input && self.threshold_form == ThresholdForm::Direct,
                "--ste-to-input and --threshold-form are of thresholds: they need --activation jumprelu",
            ),
            (not_negative(self.pre_act_weight), "--pre-act-weight must be a number, 0 or more"),
            (
                jumps || self.pre_act_weight == 0.0,
                "--pre-act-weight raises latents to their thresholds: it needs --activation jumprelu",
            ),
            (
                self.threshold > 0.0 || self.threshold_form == ThresholdForm::Direct,
                "--threshold must be above 0 where its logarithm is trained",
            ),
            (positive(self.penalty_p), "--penalty-p must be above 0"),
            (
                self.penalty_p > 1.0 || !matches!(penalty, Penalty::Freshman | Penalty::FreshmanRatio),
                "--penalty-p must be above 1 for freshman and freshman-ratio: at 1 nothing is left of them",
            ),
            (
                self.penalty_p <= 1.0 || penalty != Penalty::PAnneal,
                "--penalty-p must be at most 1 for p-anneal, such as 0.2",
            ),
            (positive(self.penalty_c), "--penalty-c must be above 0"),
            (positive(self.kth_eps), "--kth-eps must be above 0"),
            (not_negative(self.residual_threshold), "--residual-threshold must be a number, 0 or more"),
            (
                !pursues || self.prefixes.is_empty(),
                "--prefixes are not for matching-pursuit, which takes latents from all of the dictionary",
            ),
            (!pursues || penalty == Penalty::None, "--penalty is not for matching-pursuit: --k sets its sparsity"),
            (not_negative(self.threshold), "--threshold must be a number, 0 or more"),
            (positive(self.bandwidth), "--bandwidth must be above 0"),
            (ascending && within, "--prefixes must ascend, from 1 on and below --latents"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, text)| Err((*text).into()))
    }
}

/// From 0 to 1 over a share of the steps.
fn rise(share: f64, step: u64, n_steps: u64) -> f64 {
    let steps = (share * n_steps as f64).floor().max(1.0);
    ((step + 1) as f64 / steps).min(1.0)
}
