//! What is compared with the concepts: latents of a dictionary, random directions, neurons.

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_sae::Dictionary;
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::{Tape, f32s};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::tokens::LabelledTokens;
use crate::language::Draw;
use crate::{LabError, Result};

/// Tokens of a run of the model.
const BATCH_TOKENS: usize = 4096;
/// Directions that are multiplied at a time.
const DIRECTIONS: usize = 128;

/// Firings of one feature: token and value, above 0.
pub(super) type Firings = Vec<(u32, f32)>;

/// Features whose firings come a few features at a time.
pub trait Source {
    /// Features.
    fn n(&self) -> usize;

    /// Calls `f(some features, the firings of each)` until all that are wanted have come; they are wanted in order.
    fn each(&self, wanted: &[usize], f: &mut dyn FnMut(&[usize], &[Firings]));
}

/// Activations at a site, `[tokens, width]`, the beginnings of documents left out.
///
/// # Errors
/// The model's.
pub fn activations(model: &Model, site: Site, tokens: &LabelledTokens) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(tokens.n_tokens() * model.spec.site_width(site, 0));
    each_activation(model, &[site], tokens, &mut |_, row| out.extend_from_slice(row))?;
    Ok(out)
}

/// Calls `f(number of the site, activations of a document, its beginning left out)` for all documents in order.
fn each_activation(
    model: &Model,
    sites: &[Site],
    tokens: &LabelledTokens,
    f: &mut dyn FnMut(usize, &[f32]),
) -> Result<()> {
    let mut last = Some(0);
    for site in sites {
        model.spec.site(*site).map_err(exegete_model::ModelError::from)?;
        last = last.and_then(|last| Some(site.layer?.max(last)));
    }
    let mut from = 0;
    while from < tokens.rows.len() {
        let (mut to, mut n) = (from, 0);
        while to < tokens.rows.len() && (to == from || n + tokens.rows[to].len() <= BATCH_TOKENS) {
            n += tokens.rows[to].len();
            to += 1;
        }
        let mut hooks = sites.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        let mut logits = Logits::None;
        match last {
            Some(layer) => hooks = hooks.stop_after(layer),
            None => logits = Logits::All,
        }
        model.run(&Tape::new(), &Batch::rows(&tokens.rows[from..to]), None, &mut hooks, logits)?;
        for (number, site) in sites.iter().enumerate() {
            let value = hooks.value(*site).ok_or_else(|| LabError::Failed(format!("{site} was not reached")))?;
            let (values, width) = (f32s(value.tensor())?, model.spec.site_width(*site, 0));
            let mut at = 0;
            for row in &tokens.rows[from..to] {
                f(number, &values[(at + 1) * width..(at + row.len()) * width]);
                at += row.len();
            }
        }
        from = to;
    }
    Ok(())
}

/// Latents of a dictionary.
pub struct SparseLatents {
    firings: Vec<Firings>,
}

impl SparseLatents {
    /// Encodes activations `[tokens, width]`.
    ///
    /// # Errors
    /// Another width than the dictionary's.
    pub fn new(dictionary: &dyn Dictionary, acts_ND: &[f32]) -> Result<Self> {
        let mut firings = vec![Firings::new(); dictionary.n_latents()];
        let d = dictionary.d_in();
        for (block, x_ND) in acts_ND.chunks(4096 * d).enumerate() {
            let codes = dictionary.encode(x_ND).map_err(|e| LabError::Failed(e.to_string()))?;
            for token in 0..codes.n_tokens() {
                for (latent, value) in codes.of(token) {
                    firings[latent as usize].push(((block * 4096 + token) as u32, value));
                }
            }
        }
        Ok(Self { firings })
    }
}

impl Source for SparseLatents {
    fn n(&self) -> usize {
        self.firings.len()
    }

    fn each(&self, wanted: &[usize], f: &mut dyn FnMut(&[usize], &[Firings])) {
        for some in wanted.chunks(DIRECTIONS) {
            f(some, &some.iter().map(|latent| self.firings[*latent].clone()).collect::<Vec<Firings>>());
        }
    }
}

/// The values above 0, token by token.
fn firings(values: impl Iterator<Item = f32>) -> Firings {
    values.enumerate().filter(|(_, v)| *v > 0.0).map(|(t, v)| (t as u32, v)).collect()
}

/// Projections on random directions, of activations less their mean.
pub struct RandomDirections<'a> {
    acts_ND: &'a [f32],
    d: usize,
    directions: Vec<f32>,
    mean_D: Vec<f32>,
}

impl<'a> RandomDirections<'a> {
    /// As many as asked for, of a seed.
    pub fn new(acts_ND: &'a [f32], d: usize, n: usize, seed: u64) -> Self {
        let mut draw = Draw::new(seed ^ 0x6469_7265);
        let directions = (0..n * d).map(|_| draw.normal() as f32).collect();
        let rows = (acts_ND.len() / d).max(1);
        let mut sum_D = vec![0f64; d];
        for row in acts_ND.chunks_exact(d) {
            sum_D.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        }
        Self { acts_ND, d, directions, mean_D: sum_D.iter().map(|s| (s / rows as f64) as f32).collect() }
    }
}

impl Source for RandomDirections<'_> {
    fn n(&self) -> usize {
        self.directions.len() / self.d
    }

    fn each(&self, wanted: &[usize], f: &mut dyn FnMut(&[usize], &[Firings])) {
        let (d, n) = (self.d, self.acts_ND.len() / self.d);
        let mut out = vec![0f32; n * DIRECTIONS];
        for features in wanted.chunks(DIRECTIONS) {
            let some: Vec<f32> = features.iter().flat_map(|i| &self.directions[i * d..(i + 1) * d]).copied().collect();
            let out = &mut out[..n * features.len()];
            let shape = (features.len(), n, d);
            gemm(shape, out, n, Into::Overwrite, 1.0, Mat::rows(&some, d), Mat::rows(self.acts_ND, d).t(), true);
            let one = |(values, w): (&[f32], &[f32])| {
                let of_mean: f32 = w.iter().zip(&self.mean_D).map(|(a, b)| a * b).sum();
                firings(values.iter().map(|v| v - of_mean))
            };
            let all: Vec<Firings> = out.par_chunks_exact(n).zip(some.par_chunks_exact(d)).map(one).collect();
            f(features, &all);
        }
    }
}

/// Neurons of the first layers, each with one sign.
pub struct Neurons {
    /// Neurons of a layer.
    width: usize,
    /// Layer, neuron and sign, in order.
    chosen: Vec<(usize, usize, f32)>,
    /// Activations of each layer, `[tokens, width]`, in half precision: they are many, and read more than once.
    acts: Vec<Vec<f16>>,
}

impl Neurons {
    /// As many as asked for of the first `layers` layers, or all if there are fewer, drawn from a seed.
    ///
    /// # Errors
    /// The model's.
    pub fn new(model: &Model, tokens: &LabelledTokens, layers: usize, n: usize, seed: u64) -> Result<Self> {
        let mut draw = Draw::new(seed ^ 0x6e65_7572);
        let width = model.spec.site_width(Site::at(SiteKind::MlpPost, 0), 0);
        let all = (0..layers).flat_map(|l| (0..width).flat_map(move |i| [(l, i, 1.0f32), (l, i, -1.0)]));
        let mut chosen = draw.several(&all.collect::<Vec<_>>(), n);
        chosen.sort_by_key(|c| (c.0, c.1, c.2 < 0.0));
        let sites: Vec<Site> = (0..layers).map(|l| Site::at(SiteKind::MlpPost, l)).collect();
        let mut acts = vec![Vec::with_capacity(tokens.n_tokens() * width); layers];
        each_activation(model, &sites, tokens, &mut |layer, row| {
            let from = acts[layer].len();
            acts[layer].resize(from + row.len(), f16::ZERO);
            acts[layer][from..].convert_from_f32_slice(row);
        })?;
        Ok(Self { width, chosen, acts })
    }
}

impl Source for Neurons {
    fn n(&self) -> usize {
        self.chosen.len()
    }

    fn each(&self, wanted: &[usize], f: &mut dyn FnMut(&[usize], &[Firings])) {
        let n = self.acts.first().map_or(0, |acts| acts.len() / self.width);
        // Neighbours lie side by side: token by token they are read together.
        let neighbours = |few: &[usize]| {
            let mut all = vec![Firings::new(); few.len()];
            for token in 0..n {
                for (firings, feature) in all.iter_mut().zip(few) {
                    let (layer, neuron, sign) = self.chosen[*feature];
                    let value = self.acts[layer][token * self.width + neuron].to_f32() * sign;
                    if value > 0.0 {
                        firings.push((token as u32, value));
                    }
                }
            }
            all
        };
        for some in wanted.chunks(DIRECTIONS) {
            f(some, &some.par_chunks(16).flat_map_iter(neighbours).collect::<Vec<Firings>>());
        }
    }
}
