//! The dictionary with a linear encoder: a sparse autoencoder, or a transcoder, whatever its rule.
//!
//! `h = W_enc (n(x) - b_dec) + b_enc`, `f = rule(h)`, `x' = n^-1(W_dec f + b_dec) + W_skip x`, where `n` is a
//! normalisation of the input, and the decoder's bias is taken off only by those that were trained so.

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::{buffer, for_rows, sparse};

use crate::kinds::{Block, Gram, Rule};
use crate::screening::{Encoder, Screening, Wanted};
use crate::{Codes, Dictionary, Products, Result, SaeError, SiteGates, screening};

/// Pre-activations that are held at once, in values.
const HELD: usize = 8 << 20;
/// Calls of fewer tokens do not pay for rounding the encoder.
const SCREENED_FROM: usize = 256;
/// Tokens that are screened at once.
const SCREENED: usize = 4096;

/// What is done to an input before it is encoded, and undone at the output. Names are SAELens's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputNorm {
    /// Nothing.
    #[default]
    None,
    /// `x sqrt(D) / |x|`.
    ConstantNormRescale,
    /// `(x - mean) / (deviation + 1e-5)`, the deviation that of a sample (`n - 1`); undone without the 1e-5.
    LayerNorm,
}

impl InputNorm {
    /// All, by the names that SAELens gives them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("none", Self::None), ("constant_norm_rescale", Self::ConstantNormRescale), ("layer_norm", Self::LayerNorm)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, norm)| *norm == self).map_or("none", |(name, _)| name)
    }

    /// The shift and the size of a token. The size that an input is divided by is larger by [`Self::eps`].
    fn of(self, x_D: &[f32]) -> (f32, f32) {
        let d = x_D.len() as f64;
        match self {
            Self::None => (0.0, 1.0),
            Self::ConstantNormRescale => {
                let norm = x_D.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                (0.0, (norm / d.sqrt()) as f32)
            }
            Self::LayerNorm => {
                let mean = x_D.iter().map(|x| f64::from(*x)).sum::<f64>() / d;
                let squares = x_D.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>();
                (mean as f32, (squares / (d - 1.0)).sqrt() as f32)
            }
        }
    }

    /// Added to the size on the way in, and not on the way out.
    fn eps(self) -> f32 {
        if self == Self::LayerNorm { 1e-5 } else { 0.0 }
    }
}

/// A dictionary with a linear encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Sae {
    /// Width of the input.
    pub d_in: usize,
    /// Width of the output.
    pub d_out: usize,
    /// The rule from pre-activations to activations.
    pub rule: Rule,
    /// Encoder, `[F, D_in]`: one row a latent.
    pub w_enc_FD: Vec<f32>,
    /// Encoder bias, `[F]`.
    pub b_enc_F: Vec<f32>,
    /// Decoder, `[F, D_out]`.
    pub w_dec_FD: Vec<f32>,
    /// Decoder bias, `[D_out]`.
    pub b_dec_D: Vec<f32>,
    /// Whether the decoder's bias is taken off the input first.
    pub centres_input: bool,
    /// What is done to the input first.
    pub norm: InputNorm,
    /// A linear path beside the latents, `[D_out, D_in]`.
    pub w_skip_DD: Option<Vec<f32>>,
    /// Whether it writes to another site than it reads, and so is a transcoder.
    pub transcodes: bool,
    /// For crosscoders whose latents have a gate of their own for each site.
    pub site_gates: Option<SiteGates>,
}

impl Sae {
    /// A dictionary of `f` latents whose arrays are zero.
    pub fn zeros(d_in: usize, d_out: usize, f: usize, rule: Rule) -> Self {
        Self {
            d_in,
            d_out,
            rule,
            w_enc_FD: vec![0.0; f * d_in],
            b_enc_F: vec![0.0; f],
            w_dec_FD: vec![0.0; f * d_out],
            b_dec_D: vec![0.0; d_out],
            centres_input: false,
            norm: InputNorm::None,
            w_skip_DD: None,
            transcodes: false,
            site_gates: None,
        }
    }

    /// Checks the arrays against each other.
    ///
    /// # Errors
    /// The first array of a wrong size, an array with a value that is no number, and what does not go together.
    pub fn check(&self) -> Result<()> {
        let (f, d, o) = (self.b_enc_F.len(), self.d_in, self.d_out);
        let skip = self.w_skip_DD.as_deref();
        let arrays = [
            ("W_enc", &self.w_enc_FD[..], f * d),
            ("b_enc", &self.b_enc_F, f),
            ("W_dec", &self.w_dec_FD, f * o),
            ("b_dec", &self.b_dec_D, o),
            ("W_skip", skip.unwrap_or_default(), if skip.is_some() { d * o } else { 0 }),
        ];
        if f == 0 || d == 0 || o == 0 {
            return Err(SaeError::Shape(format!("a dictionary of {f} latents from {d} to {o} values is none")));
        }
        for (name, values, want) in arrays {
            if values.len() != want {
                return Err(SaeError::Shape(format!("{name} has {} values, expected {want}", values.len())));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Err(SaeError::Shape(format!("{name} has {} at place {at}: the file is damaged", values[at])));
            }
        }
        if self.centres_input && (d != o || self.transcodes) {
            let detail = "a transcoder's decoder bias belongs to its output and cannot be taken off its input";
            return Err(SaeError::Shape(detail.into()));
        }
        if let Rule::MatchingPursuit(_) = self.rule
            && (self.transcodes || self.w_enc_FD != self.w_dec_FD || self.b_enc_F.iter().any(|b| *b != 0.0))
        {
            return Err(SaeError::Shape("the encoder of a matching pursuit is its decoder, without a bias".into()));
        }
        if let Some(gates) = &self.site_gates {
            let of_another = !matches!(self.rule, Rule::JumpRelu(_)) || self.norm != InputNorm::None;
            let detail = of_another.then(|| "only thresholds can be those of single sites".into());
            if let Some(detail) = detail.or_else(|| gates.fault(f, o)) {
                return Err(SaeError::Shape(detail));
            }
        }
        match self.rule.fault(f) {
            Some(detail) => Err(SaeError::Shape(detail)),
            None => Ok(()),
        }
    }

    /// Makes of a dictionary whose activations are `h |w|`, by which the rule also ranks them or compares them with its
    /// threshold, and whose rows decode by `w / |w|`, one whose decoder rows have the length 1. The threshold stays: it is
    /// one of `h |w|`.
    pub fn fold_decoder_norms(&mut self) {
        let (d, o) = (self.d_in, self.d_out);
        for f in 0..self.b_enc_F.len() {
            let row = &mut self.w_dec_FD[f * o..(f + 1) * o];
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
            self.w_enc_FD[f * d..(f + 1) * d].iter_mut().for_each(|x| *x *= norm);
            self.b_enc_F[f] *= norm;
        }
    }

    /// The encoder's bias where the decoder's is not taken off the input first, and activations are the same.
    pub fn uncentred_b_enc(&self) -> Vec<f32> {
        if !self.centres_input {
            return self.b_enc_F.clone();
        }
        let rows = self.w_enc_FD.chunks_exact(self.d_in);
        let along =
            |row: &[f32]| row.iter().zip(&self.b_dec_D).map(|(w, b)| f64::from(*w) * f64::from(*b)).sum::<f64>();
        self.b_enc_F.iter().zip(rows).map(|(b, row)| (f64::from(*b) - along(row)) as f32).collect()
    }

    /// Takes in factors of the sites that are read and of those that are written, so that the dictionary is one of the sites
    /// as they are. Activations stay as they are, and the path beside the latents, which goes from what is scaled to what is
    /// scaled, where all factors are alike.
    pub fn fold_site_factors(&mut self, reads: &[f32], writes: &[f32]) {
        let (d, o) = (self.d_in / reads.len(), self.d_out / writes.len());
        for row in self.w_enc_FD.chunks_exact_mut(self.d_in) {
            row.iter_mut().enumerate().for_each(|(i, w)| *w *= reads[i / d]);
        }
        for row in self.w_dec_FD.chunks_exact_mut(self.d_out).chain([&mut self.b_dec_D[..]]) {
            row.iter_mut().enumerate().for_each(|(i, w)| *w /= writes[i / o]);
        }
    }

    /// Takes in a factor of the input (`n(x) = factor * x`), so that the dictionary is one of the input as it is.
    pub fn fold_input_factor(&mut self, factor: f32) {
        if let Rule::MatchingPursuit(pursuit) = &mut self.rule {
            // Its rows are encoder and decoder at once, and activations are in the units of the input.
            pursuit.residual_threshold /= factor;
            self.b_dec_D.iter_mut().for_each(|b| *b /= factor);
            return;
        }
        self.fold_site_factors(&[factor], &[factor]);
    }

    /// The input as the encoder takes it, in `out_ND`.
    fn encoders(&self, x_ND: &[f32], out_ND: &mut [f32]) {
        for (out, x) in out_ND.chunks_exact_mut(self.d_in).zip(x_ND.chunks_exact(self.d_in)) {
            out.copy_from_slice(x);
            if self.norm != InputNorm::None {
                let (shift, size) = self.norm.of(x);
                let size = size + self.norm.eps();
                out.iter_mut().for_each(|o| *o = (*o - shift) / size);
            }
            if self.centres_input {
                out.iter_mut().zip(&self.b_dec_D).for_each(|(o, b)| *o -= b);
            }
        }
    }

    /// Codes of tokens of which few latents are active; none where all pre-activations are to be computed.
    fn screened(&self, x_ND: &[f32], products: Products) -> Option<Codes> {
        let (d, f) = (self.d_in, self.n_latents());
        let is_short = x_ND.len() < SCREENED_FROM * d;
        if products == Products::Whole || products == Products::Fastest && is_short || !screening::is_large(f, d) {
            return None;
        }
        let wanted = self.rule.wanted(f)?;
        let (mut codes, mut screening) = (Codes::default(), Screening::default());
        let mut x = vec![0f32; x_ND.len().min(SCREENED * d)];
        for (i, x_ND) in x_ND.chunks(SCREENED * d).enumerate() {
            let x = &mut x[..x_ND.len()];
            self.encoders(x_ND, x);
            let encoder = Encoder { d, x_ND: x, w_FD: &self.w_enc_FD, b_F: &self.b_enc_F };
            if i == 0 {
                if products == Products::Fastest && !encoder.is_screened(&wanted) {
                    return None;
                }
                screening.fill(&self.w_enc_FD, d);
            }
            let mut active = Vec::new();
            for found in screening.find(encoder, &wanted) {
                active.clear();
                match (&wanted, found.split_first()) {
                    (Wanted::Kth(rule), Some(((_, kth), found))) => {
                        let cut = rule.cut(*kth);
                        active.extend(found.iter().map(|(latent, h)| (*latent, rule.value(*h, cut))));
                    }
                    _ => active.extend(found.iter().map(|(f, h)| (*f, self.rule.activation(*f as usize, *h)))),
                }
                active.retain(|(_, value)| *value > 0.0);
                if let Wanted::Ranked(_) = wanted {
                    active.sort_unstable_by_key(|(latent, _)| *latent);
                }
                codes.push(active.iter().copied());
            }
        }
        Some(codes)
    }

    fn tokens(&self, x_ND: &[f32]) -> Result<usize> {
        match x_ND.len().is_multiple_of(self.d_in) {
            true => Ok(x_ND.len() / self.d_in),
            false => {
                let detail = format!("{} values are no whole vectors of width {}", x_ND.len(), self.d_in);
                Err(SaeError::Shape(detail))
            }
        }
    }
}

impl Dictionary for Sae {
    fn kind(&self) -> &'static str {
        self.rule.name()
    }

    fn d_in(&self) -> usize {
        self.d_in
    }

    fn d_out(&self) -> usize {
        self.d_out
    }

    fn transcodes(&self) -> bool {
        self.transcodes
    }

    fn n_latents(&self) -> usize {
        self.b_enc_F.len()
    }

    fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec_FD[latent * self.d_out..(latent + 1) * self.d_out]
    }

    fn encoder_row(&self, latent: usize) -> Option<&[f32]> {
        // A normalised layer shifts its input too, and a pursuit reads what the latents before have left.
        let is_linear = self.norm != InputNorm::LayerNorm && !matches!(self.rule, Rule::MatchingPursuit(_));
        is_linear.then(|| &self.w_enc_FD[latent * self.d_in..(latent + 1) * self.d_in])
    }

    fn unit(&self, x_D: &[f32]) -> f32 {
        self.norm.of(x_D).1
    }

    fn fastest(&self, x_ND: &[f32]) -> Products {
        let (d, mut x) = (self.d_in, vec![0f32; x_ND.len()]);
        self.encoders(x_ND, &mut x);
        let encoder = Encoder { d, x_ND: &x, w_FD: &self.w_enc_FD, b_F: &self.b_enc_F };
        match self.rule.wanted(self.n_latents()) {
            Some(wanted) if encoder.is_screened(&wanted) => Products::Screened,
            _ => Products::Whole,
        }
    }

    fn encode_by(&self, x_ND: &[f32], products: Products) -> Result<Codes> {
        let (n, d, f) = (self.tokens(x_ND)?, self.d_in, self.n_latents());
        if let Some(mut codes) = self.screened(x_ND, products) {
            self.rule.finish(&mut codes);
            return Ok(codes);
        }
        // Always as many together, the last block padded: of whole products, a token's do not depend on the others.
        let block = (HELD / f).clamp(16, 512);
        let (mut codes, mut gram) = (Codes::default(), Gram::default());
        let (mut x, mut pre) = (vec![0f32; block * d], buffer(block * f));
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            self.encoders(&x_ND[from * d..(from + rows) * d], &mut x[..rows * d]);
            x[rows * d..].fill(0.0);
            pre_activations(&x, d, &self.w_enc_FD, &self.b_enc_F, &mut pre);
            let (x_ND, pre_NF) = (&x[..rows * d], &mut pre[..rows * f]);
            let w_dec_FD = &self.w_dec_FD[..];
            self.rule.select(Block { x_ND, pre_NF, n_latents: f, w_dec_FD, gram: &mut gram }, &mut codes);
        }
        self.rule.finish(&mut codes);
        Ok(codes)
    }

    fn decode(&self, codes: &Codes, out_ND: &mut [f32]) -> Result<()> {
        if out_ND.len() != codes.n_tokens() * self.d_out {
            return Err(SaeError::Shape(format!("{} values for {} codes", out_ND.len(), codes.n_tokens())));
        }
        match &self.site_gates {
            Some(gates) => gates.decode(self, codes, out_ND),
            None => {
                sparse::decode(codes.values(), codes.latents(), codes.rows(), &self.w_dec_FD, &self.b_dec_D, out_ND);
            }
        }
        Ok(())
    }

    fn reconstruct(&self, x_ND: &[f32], codes: &Codes, out_ND: &mut [f32]) -> Result<()> {
        let (n, d, o) = (self.tokens(x_ND)?, self.d_in, self.d_out);
        if n != codes.n_tokens() {
            return Err(SaeError::Shape(format!("{n} inputs for {} codes", codes.n_tokens())));
        }
        self.decode(codes, out_ND)?;
        if self.norm != InputNorm::None {
            for (out, x) in out_ND.chunks_exact_mut(o).zip(x_ND.chunks_exact(d)) {
                let (shift, size) = self.norm.of(x);
                out.iter_mut().for_each(|out| *out = *out * size + shift);
            }
        }
        if let Some(skip) = &self.w_skip_DD {
            gemm((n, o, d), out_ND, o, Into::Add, 1.0, Mat::rows(x_ND, d), Mat::rows(skip, d).t(), true);
        }
        Ok(())
    }

    fn backward(&self, x_ND: &[f32], grad_ND: &[f32], only: Option<&[usize]>) -> Result<Vec<f32>> {
        if self.norm != InputNorm::None {
            let detail = format!("gradients do not flow through an input norm ({})", self.norm.name());
            return Err(SaeError::Shape(format!("{detail}; take a dictionary without one")));
        }
        if let Rule::KthLargest(_) | Rule::MatchingPursuit(_) = self.rule {
            let detail = "gradients do not flow through activations that depend on those of other latents";
            return Err(SaeError::Shape(format!("{detail}; take a dictionary of another kind")));
        }
        let n = self.tokens(x_ND)?;
        if grad_ND.len() != n * self.d_out {
            return Err(SaeError::Shape(format!("{} gradients for {n} outputs of {}", grad_ND.len(), self.d_out)));
        }
        let codes = self.encode(x_ND)?;
        let mut dvalues = buffer(codes.n_active());
        let all = (codes.latents(), 0..self.n_latents() as u32);
        match &self.site_gates {
            Some(gates) => dvalues = gates.gradients(self, &codes, grad_ND),
            None => sparse::gather_dots(grad_ND, self.d_out, all, codes.rows(), &self.w_dec_FD, &mut dvalues),
        }
        for (d, latent) in dvalues.iter_mut().zip(codes.latents()) {
            let latent = *latent as usize;
            let through = only.is_none_or(|only| only.contains(&latent));
            *d = if through { *d * self.rule.slope(latent) } else { 0.0 };
        }
        let mut dx = buffer(x_ND.len());
        let zero = vec![0f32; self.d_in];
        sparse::decode(&dvalues, codes.latents(), codes.rows(), &self.w_enc_FD, &zero, &mut dx);
        if let (Some(skip), None) = (&self.w_skip_DD, only) {
            let (d, o) = (self.d_in, self.d_out);
            gemm((n, d, o), &mut dx, d, Into::Add, 1.0, Mat::rows(grad_ND, o), Mat::rows(skip, d), true);
        }
        Ok(dx)
    }
}

/// `pre = x W_enc^T + b_enc`, the bias laid down first so that it costs no pass of its own.
pub(crate) fn pre_activations(x_ND: &[f32], d: usize, w_enc_FD: &[f32], b_enc_F: &[f32], pre_NF: &mut [f32]) {
    let f = b_enc_F.len();
    for_rows(pre_NF, f, |_, row| row.copy_from_slice(b_enc_F));
    let shape = (x_ND.len() / d, f, d);
    gemm(shape, pre_NF, f, Into::Add, 1.0, Mat::rows(x_ND, d), Mat::rows(w_enc_FD, d).t(), true);
}
