//! Tokens drawn by hash, whole: what the site was there, and which latents of a dictionary were active. Of them come correlations,
//! between latents and coordinates of the site, and between latents.
//!
//! A token is drawn where its hash is below a bound that is fixed before the first, so that draws of parts of a text are those of
//! the whole, and merging them is laying them together.

use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use exegete_base::DocId;
use exegete_base::sampling::pair_hash;
use rayon::prelude::*;

use crate::error::Result;
use crate::table::{self, Columns};

const SAMPLED: &str = "sampled";
const GROUP_ROWS: usize = 1024;
/// Correlations kept of a latent, of each sort.
const N_KEPT: usize = 10;
/// What sets the draw apart from that of sketches.
const DRAW: u64 = 0x5eed;

/// A token that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// The document.
    pub doc: DocId,
    /// The window of the document.
    pub window: u32,
    /// Offset in the window.
    pub position: u32,
    /// The activation of the site.
    pub x_D: Vec<f32>,
    /// Latents that are active, in their order, with their activations.
    pub active: Vec<(u32, f32)>,
}

/// The draw of tokens: one in so many, by hash.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    seed: u64,
    bound: u64,
}

impl Draw {
    /// About `wanted` of `n_tokens` tokens; all where there are no more.
    pub fn new(seed: u64, wanted: u64, n_tokens: u64) -> Self {
        let bound = match wanted >= n_tokens {
            true => u64::MAX,
            false => ((u128::from(wanted) << 64) / u128::from(n_tokens)) as u64,
        };
        Self { seed: seed ^ DRAW, bound }
    }

    /// Whether a token is drawn, by its place in the document.
    pub fn takes(self, doc: DocId, position: u64) -> bool {
        self.bound > 0 && pair_hash(self.seed, doc.0, position) <= self.bound
    }
}

/// Writes tokens in the order given.
///
/// # Errors
/// Those of the writer.
pub fn write_sampled(writer: &mut (impl Write + Send), tokens: &[SampledToken]) -> io::Result<()> {
    table::write_rows(writer, SAMPLED, &[], tokens, GROUP_ROWS, |rows| {
        let latents: Vec<Vec<u32>> = rows.iter().map(|t| t.active.iter().map(|a| a.0).collect()).collect();
        let values: Vec<Vec<f32>> = rows.iter().map(|t| t.active.iter().map(|a| a.1).collect()).collect();
        RecordBatch::try_from_iter([
            ("doc", table::numbers::<UInt64Type>(rows.iter().map(|t| t.doc.0))),
            ("window", table::numbers::<UInt32Type>(rows.iter().map(|t| t.window))),
            ("position", table::numbers::<UInt32Type>(rows.iter().map(|t| t.position))),
            ("x", table::lists::<Float32Type>(rows.iter().map(|t| t.x_D.as_slice()))),
            ("latents", table::lists::<UInt32Type>(latents.iter().map(Vec::as_slice))),
            ("values", table::lists::<Float32Type>(values.iter().map(Vec::as_slice))),
        ])
    })
}

/// Reads tokens that were drawn.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_sampled(path: &Path) -> Result<Vec<SampledToken>> {
    table::read_rows(path, table::open_kind(path, SAMPLED)?, |columns: &Columns, tokens| {
        let (docs, windows) = (columns.numbers::<UInt64Type>("doc")?, columns.numbers::<UInt32Type>("window")?);
        let (positions, x) = (columns.numbers::<UInt32Type>("position")?, columns.lists::<Float32Type>("x")?);
        for row in 0..columns.len() {
            tokens.push(SampledToken {
                doc: DocId(docs[row]),
                window: windows[row],
                position: positions[row],
                x_D: x.row(row).to_vec(),
                active: columns.pairs(row, "latents", "values")?,
            });
        }
        Ok(())
    })
}

/// The largest correlations of a latent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Correlations {
    /// Coordinates of the site with their Pearson correlations, by size.
    pub neurons: Vec<(u32, f32)>,
    /// Other latents with theirs, the largest first.
    pub latents: Vec<(u32, f32)>,
}

/// Pearson correlations of `n_latents` latents over tokens, which are brought into the order of the text first: sums do not depend
/// on how they were gathered.
pub fn correlations(tokens: &mut [SampledToken], n_latents: usize) -> Vec<Correlations> {
    tokens.par_sort_by_key(|t| (t.doc, t.window, t.position));
    let (n, d) = (tokens.len() as f64, tokens.first().map_or(0, |t| t.x_D.len()));
    let mut neurons = vec![Moments::default(); d];
    let mut fired: Vec<Vec<(u32, f32)>> = vec![Vec::new(); n_latents];
    for (i, token) in tokens.iter().enumerate() {
        neurons.iter_mut().zip(&token.x_D).for_each(|(sums, x)| sums.add((*x).into()));
        for (latent, value) in &token.active {
            if let Some(of) = fired.get_mut(*latent as usize) {
                of.push((i as u32, *value));
            }
        }
    }
    let own: Vec<Moments> = fired
        .iter()
        .map(|of| {
            let mut sums = Moments::default();
            of.iter().for_each(|(_, value)| sums.add((*value).into()));
            sums
        })
        .collect();
    let tokens = &tokens[..];
    let of = |scratch: &mut Scratch, latent: usize| {
        let mine = own[latent];
        if mine.deviation(n) == 0.0 {
            return Correlations::default();
        }
        scratch.neurons.fill(0.0);
        let mut touched = Vec::new();
        for (token, value) in &fired[latent] {
            let (token, value) = (&tokens[*token as usize], f64::from(*value));
            scratch.neurons.iter_mut().zip(&token.x_D).for_each(|(sum, x)| *sum += value * f64::from(*x));
            for (other, z) in token.active.iter().filter(|(l, _)| *l as usize != latent && (*l as usize) < n_latents) {
                let sum = &mut scratch.latents[*other as usize];
                if *sum == 0.0 {
                    touched.push(*other);
                }
                *sum += value * f64::from(*z);
            }
        }
        let pearson = |sum: f64, other: &Moments| {
            let deviations = mine.deviation(n) * other.deviation(n);
            if deviations > 0.0 { ((sum / n - mine.sum / n * (other.sum / n)) / deviations) as f32 } else { 0.0 }
        };
        let on = (0..d).map(|i| (i as u32, pearson(scratch.neurons[i], &neurons[i]))).collect();
        let with = touched.iter().map(|l| (*l, pearson(scratch.latents[*l as usize], &own[*l as usize]))).collect();
        touched.iter().for_each(|other| scratch.latents[*other as usize] = 0.0);
        Correlations { neurons: largest(on, f32::abs), latents: largest(with, |r| r) }
    };
    let scratch = || Scratch { neurons: vec![0.0; d], latents: vec![0.0; n_latents] };
    (0..n_latents).into_par_iter().map_init(scratch, of).collect()
}

struct Scratch {
    neurons: Vec<f64>,
    latents: Vec<f64>,
}

#[derive(Clone, Copy, Default)]
struct Moments {
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.squares += x * x;
    }

    fn deviation(&self, n: f64) -> f64 {
        (self.squares / n - (self.sum / n).powi(2)).max(0.0).sqrt()
    }
}

/// The first few by size, which are not zero.
pub(crate) fn largest(mut pairs: Vec<(u32, f32)>, size: impl Fn(f32) -> f32) -> Vec<(u32, f32)> {
    pairs.retain(|(_, value)| size(*value) > 0.0);
    pairs.sort_unstable_by(|a, b| size(b.1).total_cmp(&size(a.1)).then(a.0.cmp(&b.0)));
    pairs.truncate(N_KEPT);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latent 0 is half of coordinate 1 where that is positive; latent 1 fires with it, latent 2 without.
    fn tokens() -> Vec<SampledToken> {
        (0..200u32)
            .map(|i| {
                let noise = |s: u64| (pair_hash(3, s, u64::from(i)) % 1000) as f32 / 500.0 - 1.0;
                let (a, b) = (noise(1), noise(2));
                let mut active = Vec::new();
                if a > 0.0 {
                    active.extend([(0, a / 2.0), (1, 1.0)]);
                } else {
                    active.push((2, 2.0));
                }
                SampledToken { doc: DocId(0), window: i / 10, position: i % 10, x_D: vec![b, a, 1.0], active }
            })
            .collect()
    }

    #[test]
    fn correlations_are_those_of_dense_columns() {
        let mut drawn = tokens();
        drawn.reverse();
        let found = correlations(&mut drawn, 4);
        let column = |f: &dyn Fn(&SampledToken) -> f64| tokens().iter().map(f).collect::<Vec<f64>>();
        let z = |l: u32| column(&|t| t.active.iter().find(|a| a.0 == l).map_or(0.0, |a| a.1.into()));
        let x = |i: usize| column(&|t| t.x_D[i].into());
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-5, "{a} {b}");
        assert_eq!(found[0].neurons[0].0, 1);
        near(found[0].neurons[0].1, dense(&z(0), &x(1)));
        near(found[0].neurons[1].1, dense(&z(0), &x(0)));
        assert_eq!(found[0].neurons.len(), 2, "a constant has no correlation");
        assert_eq!(found[0].latents[0].0, 1);
        near(found[0].latents[0].1, dense(&z(0), &z(1)));
        assert_eq!((found[2].latents.len(), found[3].clone()), (0, Correlations::default()));
    }

    fn dense(a: &[f64], b: &[f64]) -> f64 {
        let n = a.len() as f64;
        let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
        let cov: f64 = a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum();
        let (va, vb): (f64, f64) = (a.iter().map(|a| (a - ma).powi(2)).sum(), b.iter().map(|b| (b - mb).powi(2)).sum());
        cov / (va * vb).sqrt()
    }

    #[test]
    fn a_draw_takes_about_as_many_as_wanted_whatever_the_split() {
        let draw = Draw::new(5, 1000, 50_000);
        let taken = (0..50_000u64).filter(|i| draw.takes(DocId(i / 100), i % 100)).count();
        assert!((900..1100).contains(&taken), "{taken}");
        assert!((0..100).all(|i| Draw::new(5, 100, 100).takes(DocId(1), i)));
        assert!((0..1000).all(|i| !Draw::new(5, 0, 1000).takes(DocId(1), i)));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write_sampled(&mut std::fs::File::create(&path).unwrap(), &tokens()).unwrap();
        assert_eq!(read_sampled(&path).unwrap(), tokens());
    }
}
