//! The cross-layer transcoder: of each of L layers, latents that read this layer and write all layers from it on.
//!
//! `f^l = rule^l(W_enc^l x^l + b_enc^l)`, `y^m = sum over l <= m of W_dec^{l -> m} f^l + b^m`, and for some `+ A^m x^m`
//! (Ameisen et al. 2025, "Circuit Tracing", Transformer Circuits Thread). Inputs and outputs are those of the layers behind
//! each other, latents are numbered layer by layer.

use std::ops::Range;

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};

use crate::{Codes, Dictionary, Products, Result, Sae, SaeError};

/// A cross-layer transcoder.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossLayer {
    /// Each layer's encoder, rule and decoder; the decoder's rows are those of the outputs from this layer on, behind each
    /// other, and its bias is 0.
    pub layers: Vec<Sae>,
    /// Bias of each output, `[L, D_out]`.
    pub b_dec_LD: Vec<f32>,
    /// A linear path beside the latents, `[D_out, D_in]` of each layer.
    pub w_skip_LDD: Option<Vec<Vec<f32>>>,
}

impl CrossLayer {
    /// Checks the layers against each other.
    ///
    /// # Errors
    /// No layers; layers that do not fit together; what is wrong with one of them.
    pub fn check(&self) -> Result<()> {
        let fail = |detail: String| Err(SaeError::Shape(detail));
        let n = self.layers.len();
        if n == 0 || !self.b_dec_LD.len().is_multiple_of(n) {
            return fail(format!("{n} layers with {} biases of outputs", self.b_dec_LD.len()));
        }
        let (d, o) = (self.layers[0].d_in, self.width_out());
        for (i, layer) in self.layers.iter().enumerate() {
            let named = |e: SaeError| SaeError::Shape(format!("layer {i}: {e}"));
            layer.check().map_err(named)?;
            if (layer.d_in, layer.d_out) != (d, (n - i) * o) || !layer.transcodes || layer.centres_input {
                let detail = format!("reads {} values and writes {}", layer.d_in, layer.d_out);
                return fail(format!("layer {i} of {n} {detail}; expected {d} and {}", (n - i) * o));
            }
        }
        if let Some(at) = self.b_dec_LD.iter().position(|b| !b.is_finite()) {
            return fail(format!("b_dec has {} at place {at}: the file is damaged", self.b_dec_LD[at]));
        }
        let fits = |skip: &Vec<f32>| skip.len() == d * o && skip.iter().all(|w| w.is_finite());
        match self.w_skip_LDD.as_ref().is_none_or(|skips| skips.len() == n && skips.iter().all(fits)) {
            true => Ok(()),
            false => fail(format!("W_skip is no {n} whole matrices of {o} x {d}")),
        }
    }

    /// Width of one output.
    pub fn width_out(&self) -> usize {
        self.b_dec_LD.len() / self.layers.len().max(1)
    }

    /// The latents of a layer.
    pub fn latents_of(&self, layer: usize) -> Range<usize> {
        let from = self.layers[..layer].iter().map(Sae::n_latents).sum();
        from..from + self.layers[layer].n_latents()
    }

    /// The thresholds that ranks come to on these inputs, as [`Sae::calibrated`] finds them for each layer.
    ///
    /// # Errors
    /// Those of [`Sae::calibrated`].
    pub fn calibrated(mut self, x_ND: &[f32]) -> Result<Self> {
        for layer in 0..self.layers.len() {
            let x = self.input(layer, x_ND);
            self.layers[layer] = self.layers[layer].clone().calibrated(&x)?;
        }
        Ok(self)
    }

    /// Takes in a factor of each layer's input and of each output, as [`Sae::fold_site_factors`] does.
    pub fn fold_site_factors(&mut self, reads: &[f32], writes: &[f32]) {
        let o = self.width_out();
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.fold_site_factors(&reads[i..=i], &writes[i..]);
        }
        self.b_dec_LD.iter_mut().enumerate().for_each(|(i, b)| *b /= writes[i / o]);
    }

    /// Columns of all tokens: those of a layer's input.
    fn input(&self, layer: usize, x_ND: &[f32]) -> Vec<f32> {
        let (d, all) = (self.layers[0].d_in, self.d_in());
        x_ND.chunks_exact(all).flat_map(|row| &row[layer * d..(layer + 1) * d]).copied().collect()
    }

    /// The codes of a layer among those of all.
    fn codes_of(&self, layer: usize, codes: &Codes) -> Codes {
        let (latents, mut own) = (self.latents_of(layer), Codes::default());
        for token in 0..codes.n_tokens() {
            let of_layer = codes.of(token).filter(|(latent, _)| latents.contains(&(*latent as usize)));
            own.push(of_layer.map(|(latent, value)| (latent - latents.start as u32, value)));
        }
        own
    }

    fn tokens(&self, x_ND: &[f32]) -> Result<usize> {
        match x_ND.len().is_multiple_of(self.d_in()) {
            true => Ok(x_ND.len() / self.d_in()),
            false => {
                let detail = format!("{} values are no whole vectors of width {}", x_ND.len(), self.d_in());
                Err(SaeError::Shape(detail))
            }
        }
    }
}

impl Dictionary for CrossLayer {
    fn kind(&self) -> &'static str {
        self.layers.first().map_or("none", Dictionary::kind)
    }

    fn d_in(&self) -> usize {
        self.layers.iter().map(|layer| layer.d_in).sum()
    }

    fn d_out(&self) -> usize {
        self.b_dec_LD.len()
    }

    fn transcodes(&self) -> bool {
        true
    }

    fn n_latents(&self) -> usize {
        self.layers.iter().map(Sae::n_latents).sum()
    }

    /// What the latent writes to the outputs from its own layer on.
    fn decoder_row(&self, latent: usize) -> &[f32] {
        let mut latent = latent;
        for layer in &self.layers {
            match latent.checked_sub(layer.n_latents()) {
                Some(rest) => latent = rest,
                None => return layer.decoder_row(latent),
            }
        }
        &[]
    }

    fn encoder_row(&self, _: usize) -> Option<&[f32]> {
        None
    }

    fn unit(&self, _: &[f32]) -> f32 {
        1.0
    }

    fn fastest(&self, x_ND: &[f32]) -> Products {
        let is_screened = |i: usize| self.layers[i].fastest(&self.input(i, x_ND)) == Products::Screened;
        if (0..self.layers.len()).all(is_screened) { Products::Screened } else { Products::Whole }
    }

    fn encode_by(&self, x_ND: &[f32], products: Products) -> Result<Codes> {
        let n = self.tokens(x_ND)?;
        let each: Vec<Codes> = (0..self.layers.len())
            .map(|layer| self.layers[layer].encode_by(&self.input(layer, x_ND), products))
            .collect::<Result<_>>()?;
        let starts: Vec<u32> = (0..self.layers.len()).map(|layer| self.latents_of(layer).start as u32).collect();
        let mut codes = Codes::default();
        for token in 0..n {
            let of_layers = each.iter().zip(&starts);
            codes.push(of_layers.flat_map(|(own, from)| own.of(token).map(move |(latent, v)| (latent + from, v))));
        }
        Ok(codes)
    }

    fn decode(&self, codes: &Codes, out_ND: &mut [f32]) -> Result<()> {
        let all = self.d_out();
        if out_ND.len() != codes.n_tokens() * all {
            return Err(SaeError::Shape(format!("{} values for {} codes", out_ND.len(), codes.n_tokens())));
        }
        out_ND.chunks_exact_mut(all).for_each(|row| row.copy_from_slice(&self.b_dec_LD));
        for (i, layer) in self.layers.iter().enumerate() {
            let mut own = vec![0f32; codes.n_tokens() * layer.d_out];
            layer.decode(&self.codes_of(i, codes), &mut own)?;
            for (row, own) in out_ND.chunks_exact_mut(all).zip(own.chunks_exact(layer.d_out)) {
                row[all - layer.d_out..].iter_mut().zip(own).for_each(|(y, own)| *y += own);
            }
        }
        Ok(())
    }

    fn reconstruct(&self, x_ND: &[f32], codes: &Codes, out_ND: &mut [f32]) -> Result<()> {
        let n = self.tokens(x_ND)?;
        if n != codes.n_tokens() {
            return Err(SaeError::Shape(format!("{n} inputs for {} codes", codes.n_tokens())));
        }
        self.decode(codes, out_ND)?;
        let (all, d, o) = (self.d_out(), self.layers[0].d_in, self.width_out());
        for (i, skip) in self.w_skip_LDD.iter().flatten().enumerate() {
            let x = self.input(i, x_ND);
            let out = &mut out_ND[i * o..];
            gemm((n, o, d), out, all, Into::Add, 1.0, Mat::rows(&x, d), Mat::rows(skip, d).t(), true);
        }
        Ok(())
    }

    fn backward(&self, x_ND: &[f32], grad_ND: &[f32], only: Option<&[usize]>) -> Result<Vec<f32>> {
        let (n, all, all_in) = (self.tokens(x_ND)?, self.d_out(), self.d_in());
        if grad_ND.len() != n * all {
            return Err(SaeError::Shape(format!("{} gradients for {n} outputs of {all}", grad_ND.len())));
        }
        let (d, o, mut dx) = (self.layers[0].d_in, self.width_out(), vec![0f32; x_ND.len()]);
        for (i, layer) in self.layers.iter().enumerate() {
            let grad: Vec<f32> = grad_ND.chunks_exact(all).flat_map(|row| &row[all - layer.d_out..]).copied().collect();
            let latents = self.latents_of(i);
            let own = |only: &[usize]| -> Vec<usize> {
                only.iter().filter(|latent| latents.contains(latent)).map(|latent| latent - latents.start).collect()
            };
            let own = only.map(own);
            let back = layer.backward(&self.input(i, x_ND), &grad, own.as_deref())?;
            for (row, back) in dx.chunks_exact_mut(all_in).zip(back.chunks_exact(d)) {
                row[i * d..(i + 1) * d].copy_from_slice(back);
            }
        }
        if let (Some(skips), None) = (&self.w_skip_LDD, only) {
            for (i, skip) in skips.iter().enumerate() {
                let grad: Vec<f32> =
                    grad_ND.chunks_exact(all).flat_map(|row| &row[i * o..(i + 1) * o]).copied().collect();
                let out = &mut dx[i * d..];
                gemm((n, d, o), out, all_in, Into::Add, 1.0, Mat::rows(&grad, o), Mat::rows(skip, d), true);
            }
        }
        Ok(dx)
    }
}
