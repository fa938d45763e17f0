//! What every kind of dictionary does.

use std::sync::Arc;

use exegete_tensor::{Place, SiteFn, Tensor, f32s, tensor};

use crate::{Codes, Result};

/// How pre-activations are computed. The last bits of an activation depend on it, and within one of the last two on nothing but the
/// token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// Whichever is faster for the call.
    #[default]
    Fastest,
    /// All of them.
    Whole,
    /// Those that may be active, where the kind and the machine allow it; all of them elsewhere.
    Screened,
}

/// A sparse dictionary: an autoencoder whose hidden units are latents.
pub trait Dictionary: Send + Sync {
    /// Name of the kind, as SAELens spells it.
    fn kind(&self) -> &'static str;

    /// Width of its input.
    fn d_in(&self) -> usize;

    /// Width of its output.
    fn d_out(&self) -> usize;

    /// Whether it writes to another site than it reads (a transcoder), so that no site can be replaced by its output.
    fn transcodes(&self) -> bool;

    /// Number of latents.
    fn n_latents(&self) -> usize;

    /// Row `latent` of the decoder: what the latent writes, per unit of activation, in [units](Dictionary::unit).
    fn decoder_row(&self, latent: usize) -> &[f32];

    /// What reads the input of a latent: over [`Dictionary::unit`], its product with the input is the part of the pre-activation
    /// that depends on the token. None where the encoder is not linear in the input.
    fn encoder_row(&self, latent: usize) -> Option<&[f32]>;

    /// What a unit of the decoder's output is at a token, in the site's own units: 1, unless the input is normalised.
    fn unit(&self, x_D: &[f32]) -> f32;

    /// Codes of activations, computed in blocks of a fixed geometry, so that a token's code depends neither on
    /// its neighbours nor on the number of threads.
    ///
    /// # Shapes
    /// `x_ND -> codes of N tokens`
    ///
    /// # Errors
    /// `x_ND` is no multiple of the input's width.
    fn encode(&self, x_ND: &[f32]) -> Result<Codes> {
        self.encode_by(x_ND, Products::Fastest)
    }

    /// The same with products of a kind, for those who need a token's bits to be the same in every call.
    ///
    /// # Errors
    /// As for `encode`.
    fn encode_by(&self, x_ND: &[f32], products: Products) -> Result<Codes>;

    /// Which products are faster for many tokens like these: never [`Products::Fastest`].
    fn fastest(&self, x_ND: &[f32]) -> Products;

    /// What codes decode to, in [units](Dictionary::unit) and without a path beside the latents.
    ///
    /// # Shapes
    /// `codes of N tokens -> out_ND`
    ///
    /// # Errors
    /// `out_ND` has another size.
    fn decode(&self, codes: &Codes, out_ND: &mut [f32]) -> Result<()>;

    /// Reconstruction of inputs from codes, in the site's own units, with whatever goes beside the latents.
    ///
    /// # Shapes
    /// `x_ND, codes of N tokens -> out_ND`
    ///
    /// # Errors
    /// Sizes that do not fit.
    fn reconstruct(&self, x_ND: &[f32], codes: &Codes, out_ND: &mut [f32]) -> Result<()>;

    /// Gradient of the reconstruction with respect to x, given that of the reconstruction: through everything, or
    /// through some latents alone.
    ///
    /// # Errors
    /// As for `encode`; an input that is normalised.
    fn backward(&self, x_ND: &[f32], grad_ND: &[f32], only: Option<&[usize]>) -> Result<Vec<f32>>;
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
        self.dictionary.reconstruct(&x, &codes, &mut out).map_err(shape)?;
        tensor(out, x_ND.dims())
    }

    fn backward(&self, x_ND: &Tensor, _: &[Place], grad_ND: &Tensor) -> exegete_tensor::Result<Tensor> {
        if self.keep_error {
            return Ok(grad_ND.clone());
        }
        let shape = |e: crate::SaeError| exegete_tensor::TensorError::shape("splice", e.to_string());
        tensor(self.dictionary.backward(&f32s(x_ND)?, &f32s(grad_ND)?, None).map_err(shape)?, x_ND.dims())
    }
}

/// Clamps latents: `x' = x + sum over chosen latents of (value - activation) * decoder row`. What the dictionary does
/// not reconstruct, and every other latent, stays as it is.
pub struct Clamp {
    /// The dictionary.
    pub dictionary: Arc<dyn Dictionary>,
    /// Latents and the activations they are given.
    pub latents: Vec<(usize, f32)>,
}

impl Clamp {
    /// Checks that the latents exist and that the dictionary fits a site of `width`.
    ///
    /// # Errors
    /// A latent that does not exist, another width.
    pub fn new(dictionary: Arc<dyn Dictionary>, latents: Vec<(usize, f32)>, width: usize) -> Result<Self> {
        let (d, f) = (dictionary.d_in(), dictionary.n_latents());
        if dictionary.transcodes() {
            let detail = "a transcoder writes to another site than it reads; its latents cannot be clamped at one site";
            return Err(crate::SaeError::Shape(detail.into()));
        }
        if d != width {
            return Err(crate::SaeError::Shape(format!(
                "a dictionary of width {d} does not fit a site of width {width}; use the site it was trained on"
            )));
        }
        match latents.iter().find(|(latent, _)| *latent >= f) {
            Some((latent, _)) => Err(crate::SaeError::Shape(format!(
                "latent {latent} does not exist; the dictionary has latents 0..={}",
                f - 1
            ))),
            None => Ok(Self { dictionary, latents }),
        }
    }
}

impl SiteFn for Clamp {
    fn forward(&self, x_ND: &Tensor, _: &[Place]) -> exegete_tensor::Result<Tensor> {
        let shape = |e: crate::SaeError| exegete_tensor::TensorError::shape("clamp", e.to_string());
        let mut out = f32s(x_ND)?.to_vec();
        let codes = self.dictionary.encode(&out).map_err(shape)?;
        for (token, x) in out.chunks_exact_mut(self.dictionary.d_in()).enumerate() {
            let unit = self.dictionary.unit(x);
            for (latent, value) in &self.latents {
                let now = codes.of(token).find(|(l, _)| *l as usize == *latent).map_or(0.0, |(_, v)| v);
                let row = self.dictionary.decoder_row(*latent);
                x.iter_mut().zip(row).for_each(|(x, w)| *x += (value - now) * unit * w);
            }
        }
        tensor(out, x_ND.dims())
    }

    /// `x' = x + sum of (value - a_i(x)) w_i`, so the gradient is that of x less that of the chosen latents'
    /// reconstruction.
    fn backward(&self, x_ND: &Tensor, _: &[Place], grad_ND: &Tensor) -> exegete_tensor::Result<Tensor> {
        let shape = |e: crate::SaeError| exegete_tensor::TensorError::shape("clamp", e.to_string());
        let (x, grad) = (f32s(x_ND)?, f32s(grad_ND)?);
        let chosen: Vec<usize> = self.latents.iter().map(|(latent, _)| *latent).collect();
        let through = self.dictionary.backward(&x, &grad, Some(&chosen)).map_err(shape)?;
        tensor(grad.iter().zip(&through).map(|(g, t)| g - t).collect::<Vec<f32>>(), x_ND.dims())
    }
}
