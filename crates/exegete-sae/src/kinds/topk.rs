//! TopK (Gao et al. 2024, arXiv 2406.04093): `f = relu(topk(W_enc (x - b_dec) + b_enc, k))`, `x' = f W_dec + b_dec`.

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::{buffer, sparse, topk};

use crate::{Codes, Dictionary, Result, SaeError};

/// Tokens that are encoded together, always: the last block is padded. See [`Dictionary::encode`].
const BLOCK: usize = 512;

/// A TopK dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// Width of the input.
    pub d_in: usize,
    /// Latents kept for each token.
    pub k: usize,
    /// Encoder, `[F, D]`: one row a latent.
    pub w_enc_FD: Vec<f32>,
    /// Encoder bias, `[F]`.
    pub b_enc_F: Vec<f32>,
    /// Decoder, `[F, D]`.
    pub w_dec_FD: Vec<f32>,
    /// Decoder bias, `[D]`.
    pub b_dec_D: Vec<f32>,
    /// Whether the decoder's bias is taken off the input first.
    pub centres_input: bool,
}

impl TopK {
    /// Checks the arrays against each other.
    ///
    /// # Errors
    /// The first array of a wrong size.
    pub fn check(&self) -> Result<()> {
        let f = self.b_enc_F.len();
        let sizes = [("W_enc", self.w_enc_FD.len(), f * self.d_in), ("W_dec", self.w_dec_FD.len(), f * self.d_in)];
        for (name, got, want) in sizes.into_iter().chain([("b_dec", self.b_dec_D.len(), self.d_in)]) {
            if got != want {
                return Err(SaeError::Shape(format!("{name} has {got} values, expected {want}")));
            }
        }
        if self.k == 0 || self.k > f {
            return Err(SaeError::Shape(format!("k is {} for {f} latents", self.k)));
        }
        Ok(())
    }

    /// The input with the decoder's bias taken off, where this dictionary does so.
    fn centred(&self, x_ND: &[f32], out_ND: &mut [f32]) {
        for (out, x) in out_ND.chunks_exact_mut(self.d_in).zip(x_ND.chunks_exact(self.d_in)) {
            match self.centres_input {
                true => out.iter_mut().zip(x).zip(&self.b_dec_D).for_each(|((o, x), b)| *o = x - b),
                false => out.copy_from_slice(x),
            }
        }
    }
}

impl Dictionary for TopK {
    fn kind(&self) -> &'static str {
        "topk"
    }

    fn d_in(&self) -> usize {
        self.d_in
    }

    fn n_latents(&self) -> usize {
        self.b_enc_F.len()
    }

    fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec_FD[latent * self.d_in..(latent + 1) * self.d_in]
    }

    fn encode(&self, x_ND: &[f32]) -> Result<Codes> {
        let (d, f, k) = (self.d_in, self.n_latents(), self.k);
        if !x_ND.len().is_multiple_of(d) {
            return Err(SaeError::Shape(format!("{} values are no whole vectors of width {d}", x_ND.len())));
        }
        let n = x_ND.len() / d;
        let mut codes = Codes { k, values_NK: buffer(n * k), idx_NK: vec![0; n * k] };
        let (mut x, mut pre) = (vec![0f32; BLOCK * d], buffer(BLOCK * f));
        let (mut values, mut idx) = (buffer(BLOCK * k), vec![0u32; BLOCK * k]);
        for from in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - from);
            self.centred(&x_ND[from * d..(from + rows) * d], &mut x[..rows * d]);
            x[rows * d..].fill(0.0);
            pre_activations(&x, d, &self.w_enc_FD, &self.b_enc_F, &mut pre);
            topk::row_topk(&pre, f, k, &mut values, &mut idx);
            let to = codes.values_NK[from * k..(from + rows) * k].iter_mut();
            to.zip(&values).for_each(|(to, v)| *to = v.max(0.0));
            codes.idx_NK[from * k..(from + rows) * k].copy_from_slice(&idx[..rows * k]);
        }
        Ok(codes)
    }

    fn decode(&self, codes: &Codes, out_ND: &mut [f32]) -> Result<()> {
        if out_ND.len() != codes.n_tokens() * self.d_in {
            return Err(SaeError::Shape(format!("{} values for {} codes", out_ND.len(), codes.n_tokens())));
        }
        sparse::decode(&codes.values_NK, &codes.idx_NK, codes.k, &self.w_dec_FD, &self.b_dec_D, out_ND);
        Ok(())
    }

    fn backward(&self, x_ND: &[f32], grad_ND: &[f32], only: Option<&[usize]>) -> Result<Vec<f32>> {
        let codes = self.encode(x_ND)?;
        let mut dvalues = buffer(codes.values_NK.len());
        sparse::gather_dots(grad_ND, self.d_in, &codes.idx_NK, self.k, &self.w_dec_FD, &mut dvalues);
        for ((d, value), latent) in dvalues.iter_mut().zip(&codes.values_NK).zip(&codes.idx_NK) {
            if *value <= 0.0 || only.is_some_and(|only| !only.contains(&(*latent as usize))) {
                *d = 0.0;
            }
        }
        let mut dx = buffer(x_ND.len());
        let zero = vec![0f32; self.d_in];
        sparse::decode(&dvalues, &codes.idx_NK, self.k, &self.w_enc_FD, &zero, &mut dx);
        Ok(dx)
    }
}

/// `pre = x W_enc^T + b_enc`, the bias laid down first so that it costs no pass of its own.
pub(crate) fn pre_activations(x_ND: &[f32], d: usize, w_enc_FD: &[f32], b_enc_F: &[f32], pre_NF: &mut [f32]) {
    let f = b_enc_F.len();
    exegete_tensor::cpu::for_rows(pre_NF, f, |_, row| row.copy_from_slice(b_enc_F));
    let shape = (x_ND.len() / d, f, d);
    gemm(shape, pre_NF, f, Into::Add, 1.0, Mat::rows(x_ND, d), Mat::rows(w_enc_FD, d).t(), true);
}
