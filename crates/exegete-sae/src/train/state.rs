//! What training carries from step to step.

use exegete_base::settings::{Activation, KthForm, TrainSettings};
use exegete_tensor::cpu::simd::dot;
use exegete_tensor::optim::Parameter;
use rayon::prelude::*;

use super::pursuit;
use crate::Sae;
use crate::kinds::{BatchTopK, Gated, JumpRelu, KthLargest, Relu, Rule, TopK};

/// A side of a transcoder.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Factor between the site and the scaled units of training.
    pub scale: f32,
    /// The site's mean, in its own units, `[D]`.
    pub mean_D: &'a [f32],
}

/// All that training carries from step to step; saved whole, it continues bit for bit. Arrays are in scaled units,
/// `x_s = scale * x` and `y_s = scale_out * y`.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Width of the input.
    pub d: usize,
    /// Width of the output.
    pub d_out: usize,
    /// Factor between the input and the scaled units of training.
    pub scale: f32,
    /// Factor between the output and the scaled units of training; an autoencoder's is that of the input.
    pub scale_out: f32,
    /// Whether it is trained on targets of another site.
    pub transcodes: bool,
    /// Whether the decoder's bias is taken off the input first, as it is for autoencoders where nothing else is set.
    pub centres: bool,
    /// Sites that lie behind each other in the output, all of one width: more than 1 for crosscoders. The length of a
    /// decoder row, for penalties, is the sum of the lengths of its blocks (Anthropic, "Sparse Crosscoders", 2024).
    pub blocks: usize,
    /// Encoder, `[F, D]`.
    pub w_enc: Parameter,
    /// Encoder bias, `[F]`; of a gated dictionary, the gate's.
    pub b_enc: Parameter,
    /// Decoder, `[F, D_out]`.
    pub w_dec: Parameter,
    /// Decoder bias, `[D_out]`.
    pub b_dec: Parameter,
    /// What else a latent has, `[F]` each: the threshold of a JumpReLU, or its logarithm; `r_mag` and `b_mag` of a gated dictionary.
    pub extras: Vec<Parameter>,
    /// A linear path beside the latents, `[D_out, D]`, of a transcoder that has one.
    pub w_skip: Option<Parameter>,
    /// Tokens since each latent last fired.
    pub since_fired_F: Vec<u64>,
    /// Tokens on which each latent fired, of the last [`Self::counted`].
    pub fired_F: Vec<u64>,
    /// Tokens since firings were last counted anew, see [`Self::count_anew`].
    pub counted: u64,
    /// Seed of what is drawn along the way.
    pub seed: u64,
    /// Steps done.
    pub step: u64,
    /// Factor of the penalty's weight, where something steers it.
    pub steering: f64,
    /// How much the logarithm of that moved for the logarithm of L0 over its target, at the last step; 0 before the first.
    pub steering_rate: f64,
    /// The largest that the factor was.
    pub most_steering: f64,
    /// Running mean of the number of active latents; 0 before the first step.
    pub l0: f64,
    /// A pre-activation that about k latents a token reach, from the last batch; a bound to look from, and no more.
    pub reached: f32,
}

impl TrainState {
    /// The start of training an autoencoder: random unit decoder rows from a seed, the encoder their copy, biases 0 and the
    /// mean of the (scaled) data.
    pub fn init(settings: &TrainSettings, d: usize, scale: f32, mean_D: &[f32], seed: u64) -> Self {
        let w_dec = unit_rows(settings.latents, d, seed);
        let b_dec = mean_D.iter().map(|m| m * scale).collect();
        Self { seed, ..Self::from_parts(settings, d, scale, w_dec.clone(), w_dec, b_dec) }
    }

    /// The start of training a transcoder: random unit decoder rows from a seed, the encoder their copy or, where widths differ,
    /// rows of its own; the decoder's bias the mean of the outputs, the encoder's that which takes the mean of the inputs
    /// off (as sparsify does), a path beside the latents (`--skip`) zero.
    pub fn init_transcoder(settings: &TrainSettings, input: Side, output: Side, seed: u64) -> Self {
        let (d, o) = (input.mean_D.len(), output.mean_D.len());
        let w_dec = unit_rows(settings.latents, o, seed);
        let w_enc = if d == o { w_dec.clone() } else { unit_rows(settings.latents, d, !seed) };
        let [mean_in, mean_out] =
            [input, output].map(|side| side.mean_D.iter().map(|m| m * side.scale).collect::<Vec<f32>>());
        let b_enc = w_enc.chunks_exact(d).map(|row| -dot(row, &mean_in)).collect();
        Self {
            seed,
            scale_out: output.scale,
            transcodes: true,
            centres: false,
            b_enc: Parameter::new(b_enc),
            w_skip: settings.skip.then(|| Parameter::new(vec![0.0; d * o])),
            ..Self::from_parts(settings, d, input.scale, w_enc, w_dec, mean_out)
        }
    }

    /// The start of training from given matrices, `[F, D]` and `[F, D_out]`, and a decoder's bias `[D_out]`, in scaled units.
    pub fn from_parts(
        settings: &TrainSettings,
        d: usize,
        scale: f32,
        w_enc_FD: Vec<f32>,
        w_dec_FD: Vec<f32>,
        b_dec_D: Vec<f32>,
    ) -> Self {
        let f = w_enc_FD.len() / d;
        let extras = first_extras(settings).into_iter().map(|first| Parameter::new(vec![first; f])).collect();
        Self {
            d,
            d_out: b_dec_D.len(),
            scale,
            scale_out: scale,
            transcodes: false,
            centres: true,
            blocks: 1,
            w_enc: Parameter::new(w_enc_FD),
            b_enc: Parameter::new(vec![0.0; f]),
            w_dec: Parameter::new(w_dec_FD),
            b_dec: Parameter::new(b_dec_D),
            extras,
            w_skip: None,
            since_fired_F: vec![0; f],
            fired_F: vec![0; f],
            counted: 0,
            seed: 0,
            step: 0,
            steering: 1.0,
            steering_rate: 0.0,
            most_steering: 1.0,
            l0: 0.0,
            reached: 0.0,
        }
    }

    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.b_enc.values.len()
    }

    /// Begins to count anew on how many tokens each latent fires. Nothing in a step depends on these counts.
    pub fn count_anew(&mut self) {
        self.counted = 0;
        self.fired_F.fill(0);
    }

    /// The dictionary in the model's own units. Scaling commutes with every rule, so activations are in the output's units
    /// and the decoder's rows keep their length; biases, thresholds and, where the scales of input and output differ, the
    /// encoder change.
    pub fn dictionary(&self, settings: &TrainSettings) -> Sae {
        let unscaled = |b: &[f32]| -> Vec<f32> { b.iter().map(|b| b / self.scale_out).collect() };
        let between = self.scale / self.scale_out;
        let times = |w: &Parameter| -> Vec<f32> { w.values.iter().map(|w| w * between).collect() };
        let k = settings.k;
        let rule = match settings.activation {
            Activation::TopK => Rule::TopK(TopK { k }),
            Activation::BatchTopK => Rule::BatchTopK(BatchTopK { k }),
            Activation::Relu => Rule::Relu(Relu),
            Activation::JumpRelu => {
                let theta = self.extras[0].values.iter().map(|t| settings.threshold_form.threshold(*t));
                Rule::JumpRelu(JumpRelu { threshold_F: unscaled(&theta.collect::<Vec<f32>>()) })
            }
            Activation::Gated => {
                let [r_mag, b_mag] = [&self.extras[0].values, &unscaled(&self.extras[1].values)];
                Rule::Gated(Gated::new(r_mag, &unscaled(&self.b_enc.values), b_mag))
            }
            Activation::MatchingPursuit => Rule::MatchingPursuit(pursuit::rule(settings, self.scale_out)),
            Activation::KthLargest => match settings.kth_form {
                KthForm::A => Rule::TopK(TopK { k }),
                form => {
                    let eps = settings.kth_eps as f32 / self.scale_out;
                    Rule::KthLargest(KthLargest { is_gate: form == KthForm::C, k, eps })
                }
            },
        };
        let (w_enc_FD, b_enc_F) = match settings.activation {
            Activation::MatchingPursuit => (self.w_dec.values.clone(), vec![0.0; self.n_latents()]),
            _ => (times(&self.w_enc), unscaled(&self.b_enc.values)),
        };
        Sae {
            w_enc_FD,
            b_enc_F,
            w_dec_FD: self.w_dec.values.clone(),
            b_dec_D: unscaled(&self.b_dec.values),
            centres_input: self.centres,
            w_skip_DD: self.w_skip.as_ref().map(times),
            transcodes: self.transcodes,
            ..Sae::zeros(self.d, self.d_out, 0, rule)
        }
    }
}

/// What else a latent has at first, see [`TrainState::extras`].
pub(super) fn first_extras(settings: &TrainSettings) -> Vec<f32> {
    match settings.activation {
        Activation::JumpRelu => vec![settings.threshold_form.parameter(settings.threshold as f32)],
        Activation::Gated => vec![0.0; 2],
        _ => Vec::new(),
    }
}

/// Random rows of unit length.
fn unit_rows(n: usize, d: usize, seed: u64) -> Vec<f32> {
    let mut rows: Vec<f32> = (0..n * d).map(|i| gaussian(seed, i as u64)).collect();
    rows.par_chunks_mut(d).for_each(normalise);
    rows
}

/// Brings a vector to unit length; the zero vector stays.
pub(super) fn normalise(row: &mut [f32]) {
    let norm = dot(row, row).sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

/// A standard normal number by hash (Box-Muller), the same on every machine and in any order.
fn gaussian(seed: u64, i: u64) -> f32 {
    let hash = exegete_base::sampling::pair_hash(seed, i, 0x6761_7573_7369_616e);
    let unit = |bits: u64| (bits as f64 + 0.5) / f64::from(u32::MAX);
    let (a, b) = (unit(hash >> 32), unit(hash & 0xffff_ffff));
    ((-2.0 * a.min(1.0 - 1e-12).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}
