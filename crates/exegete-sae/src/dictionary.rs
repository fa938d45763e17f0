//! What every kind of dictionary does.

use std::sync::Arc;

use exegete_tensor::{Place, SiteFn, Tensor, f32s, tensor};

use crate::Result;

/// Sparse codes of N tokens with K slots each. An unused slot has value 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Codes {
    /// Slots a token.
    pub k: usize,
    /// Activations, `[N, K]`, largest first.
    pub values_NK: Vec<f32>,
    /// Latents, `[N, K]`.
    pub idx_NK: Vec<u32>,
}

impl Codes {
    /// Tokens.
    pub fn n_tokens(&self) -> usize {
        self.values_NK.len().checked_div(self.k).unwrap_or(0)
    }

    /// Active latents of one token with their activations.
    pub fn of(&self, token: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let range = token * self.k..(token + 1) * self.k;
        self.idx_NK[range.clone()].iter().copied().zip(self.values_NK[range].iter().copied()).filter(|(_, v)| *v > 0.0)
    }
}

/// A sparse dictionary: an autoencoder whose hidden units are latents.
pub trait Dictionary: Send + Sync {
    /// Name of the kind, as SAELens spells it.
    fn kind(&self) -> &'static str;

    /// Width of its input.
    fn d_in(&self) -> usize;

    /// Number of latents.
    fn n_latents(&self) -> usize;

    /// Row `latent` of the decoder: what the latent writes, per unit of activation.
    fn decoder_row(&self, latent: usize) -> &[f32];

    /// Codes of activations, computed in blocks of a fixed geometry, so that a token's code depends neither on
    /// its neighbours nor on the number of threads.
    ///
    /// # Shapes
    /// `x_ND -> codes [N, K]`
    ///
    /// # Errors
    /// `x_ND` is no multiple of the input's width.
    fn encode(&self, x_ND: &[f32]) -> Result<Codes>;

    /// Reconstruction from codes.
    ///
    /// # Shapes
    /// `codes [N, K] -> out_ND`
    ///
    /// # Errors
    /// `out_ND` has another size.
    fn decode(&self, codes: &Codes, out_ND: &mut [f32]) -> Result<()>;

    /// Gradient of `decode(encode(x))` with respect to x, given that of the reconstruction.
    ///
    /// # Errors
    /// As for `encode`.
    fn backward(&self, x_ND: &[f32], grad_ND: &[f32]) -> Result<Vec<f32>>;
}

/// A dictionary as an edit: the activation is replaced by its reconstruction, with the error term kept or not.
///
/// With the error kept and the codes untouched this changes nothing; it is the frame in which latents are edited.
pub struct Splice {
    /// The dictionary.
    pub dictionary: Arc<dyn Dictionary>,
    /// Whether `x - reconstruction` is added back.
    pub keep_error: bool,
}

impl SiteFn for Splice {
    fn forward(&self, x_ND: &Tensor, _: &[Place]) -> exegete_tensor::Result<Tensor> {
        if self.keep_error {
            return Ok(x_ND.clone());
        }
        let x = f32s(x_ND)?;
        let mut out = vec![0f32; x.len()];
        let shape = |e: crate::SaeError| exegete_tensor::TensorError::shape("splice", e.to_string());
        let codes = self.dictionary.encode(&x).map_err(shape)?;
        self.dictionary.decode(&codes, &mut out).map_err(shape)?;
        tensor(out, x_ND.dims())
    }

    fn backward(&self, x_ND: &Tensor, _: &[Place], grad_ND: &Tensor) -> exegete_tensor::Result<Tensor> {
        if self.keep_error {
            return Ok(grad_ND.clone());
        }
        let shape = |e: crate::SaeError| exegete_tensor::TensorError::shape("splice", e.to_string());
        tensor(self.dictionary.backward(&f32s(x_ND)?, &f32s(grad_ND)?).map_err(shape)?, x_ND.dims())
    }
}
