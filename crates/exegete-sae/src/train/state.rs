//! What training carries from step to step.

use exegete_base::settings::{Activation, KthForm, TrainSettings};
use exegete_tensor::cpu::simd::dot;
use exegete_tensor::optim::Parameter;
use rayon::prelude::*;

use crate::Sae;
use crate::kinds::{BatchTopK, Gated, JumpRelu, KthLargest, Relu, Rule, TopK};

/// All that training carries from step to step; saved whole, it continues bit for bit. Arrays are in scaled units,
/// `x_s = scale * x`.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Width of the input.
    pub d: usize,
    /// Width of the output.
    pub d_out: usize,
    /// Factor between the input and the scaled units of training.
    pub scale: f32,
    /// Encoder, `[F, D]`.
    pub w_enc: Parameter,
    /// Encoder bias, `[F]`; of a gated dictionary, the gate's.
    pub b_enc: Parameter,
    /// Decoder, `[F, D_out]`.
    pub w_dec: Parameter,
    /// Decoder bias, `[D_out]`.
    pub b_dec: Parameter,
    /// What else a latent has, `[F]` each: the threshold of a JumpReLU; `r_mag` and `b_mag` of a gated dictionary.
    pub extras: Vec<Parameter>,
    /// Tokens since each latent last fired.
    pub since_fired_F: Vec<u64>,
    /// Steps done.
    pub step: u64,
    /// Factor of the penalty's weight, where something steers it.
    pub steering: f64,
    /// Running mean of the number of active latents; 0 before the first step.
    pub l0: f64,
    /// A pre-activation that about k latents a token reach, from the last batch; a bound to look from, and no more.
    pub reached: f32,
}

impl TrainState {
    /// The start of training an autoencoder: random unit decoder rows from a seed, the encoder their copy, biases 0 and the
    /// mean of the (scaled) data.
    pub fn init(settings: &TrainSettings, d: usize, scale: f32, mean_D: &[f32], seed: u64) -> Self {
        let mut w_dec: Vec<f32> = (0..settings.latents * d).map(|i| gaussian(seed, i as u64)).collect();
        w_dec.par_chunks_mut(d).for_each(normalise);
        let b_dec = mean_D.iter().map(|m| m * scale).collect();
        Self::from_parts(settings, d, scale, w_dec.clone(), w_dec, b_dec)
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
        let extras = match settings.activation {
            Activation::JumpRelu => vec![vec![settings.threshold as f32; f]],
            Activation::Gated => vec![vec![0.0; f]; 2],
            _ => Vec::new(),
        };
        Self {
            d,
            d_out: b_dec_D.len(),
            scale,
            w_enc: Parameter::new(w_enc_FD),
            b_enc: Parameter::new(vec![0.0; f]),
            w_dec: Parameter::new(w_dec_FD),
            b_dec: Parameter::new(b_dec_D),
            extras: extras.into_iter().map(Parameter::new).collect(),
            since_fired_F: vec![0; f],
            step: 0,
            steering: 1.0,
            l0: 0.0,
            reached: 0.0,
        }
    }

    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.b_enc.values.len()
    }

    /// The dictionary in the input's own units. Scaling commutes with every rule, so only biases and thresholds change, and
    /// the decoder's rows keep their length.
    pub fn dictionary(&self, settings: &TrainSettings) -> Sae {
        let unscaled = |b: &[f32]| -> Vec<f32> { b.iter().map(|b| b / self.scale).collect() };
        let k = settings.k;
        let rule = match settings.activation {
            Activation::TopK => Rule::TopK(TopK { k }),
            Activation::BatchTopK => Rule::BatchTopK(BatchTopK { k }),
            Activation::Relu => Rule::Relu(Relu),
            Activation::JumpRelu => Rule::JumpRelu(JumpRelu { threshold_F: unscaled(&self.extras[0].values) }),
            Activation::Gated => {
                let [r_mag, b_mag] = [&self.extras[0].values, &unscaled(&self.extras[1].values)];
                Rule::Gated(Gated::new(r_mag, &unscaled(&self.b_enc.values), b_mag))
            }
            Activation::KthLargest => match settings.kth_form {
                KthForm::A => Rule::TopK(TopK { k }),
                form => {
                    let eps = settings.kth_eps as f32 / self.scale;
                    Rule::KthLargest(KthLargest { is_gate: form == KthForm::C, k, eps })
                }
            },
        };
        Sae {
            w_enc_FD: self.w_enc.values.clone(),
            b_enc_F: unscaled(&self.b_enc.values),
            w_dec_FD: self.w_dec.values.clone(),
            b_dec_D: unscaled(&self.b_dec.values),
            centres_input: true,
            ..Sae::zeros(self.d, self.d_out, 0, rule)
        }
    }
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
