//! What a latent's decoder row says: to the vocabulary, along which coordinates, which rows lie nearest to it, and where it is on
//! a map of all.

use exegete_base::{Site, SiteKind};
use exegete_model::Model;
use exegete_model::weights::{Linear, MlpWeights};
use exegete_sae::Dictionary;
use exegete_store::LatentRow;
use exegete_store::profile::N_LOGITS;
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::{buffer, topk::row_topk};
use exegete_tensor::f32s;

use crate::{Progress, Result};

/// Tokens kept at each end of the vocabulary.
const N_TOKENS: usize = 10;
/// Neighbours kept.
const N_NEIGHBOURS: usize = 8;
/// Coordinates kept.
const N_COORDINATES: usize = 10;
/// Steps of the power iteration that finds the map.
const MAP_STEPS: usize = 60;
/// Latents handled together.
const BLOCK: usize = 64;

/// Fills in the vocabulary, the neighbours and the place on the map of every latent; returns which share of the variance of the rows'
/// directions each axis of the map holds, where they vary at all.
///
/// Logits are `W_U (gain * row)`: what the decoder row adds to the residual stream ([`residual_rows`]) through the final norm's gain,
/// without its division (which scales all logits of a row alike). Neighbours are by cosine between decoder rows. For a dictionary
/// whose site adds nothing to the residual stream by itself the vocabulary is left empty.
///
/// # Errors
/// Those of arrays.
pub fn describe(
    model: &Model,
    dictionary: &dyn Dictionary,
    site: Site,
    rows: &mut [LatentRow],
    progress: &dyn Progress,
) -> Result<Option<[f64; 2]>> {
    let (f, v) = (dictionary.n_latents(), model.spec.vocab_size);
    // Rows of a cross-layer transcoder are as long as there are layers to write to; what is told of them is of their own layer.
    let d = (0..f).map(|latent| dictionary.decoder_row(latent).len()).min().unwrap_or_default();
    let unembed = &model.weights.unembed.w;
    let gain = f32s(model.weights.norm_final.gain.tensor())?;
    let unit: Vec<f32> = (0..f)
        .flat_map(|latent| {
            let row = &dictionary.decoder_row(latent)[..d];
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            row.iter().map(move |x| x / norm)
        })
        .collect();
    let n_tokens = N_TOKENS.min(v);
    let n_near = (N_NEIGHBOURS + 1).min(f);
    let (mut logits, mut cosines) = (buffer(BLOCK * v), buffer(BLOCK * f));
    progress.begin("vocabulary", f as u64, "latents", 0);
    for (block, rows) in rows.chunks_mut(BLOCK).enumerate() {
        progress.check()?;
        let (from, n) = (block * BLOCK, rows.len());
        let own: Vec<f32> = (from..from + n).flat_map(|l| dictionary.decoder_row(l)[..d].iter().copied()).collect();
        if let Some(mut scaled) = residual_rows(model, site, own)? {
            for row in scaled.chunks_exact_mut(gain.len()) {
                row.iter_mut().zip(gain.iter()).for_each(|(x, g)| *x *= g);
            }
            let logits = &mut logits[..n * v];
            unembed.forward(n, &scaled, None, logits);
            rows.iter_mut().zip(logits.chunks_exact(v)).for_each(|(row, logits)| histogram(row, logits));
            let top = ends(logits, v, n_tokens);
            logits.iter_mut().for_each(|x| *x = -*x);
            let bottom = ends(logits, v, n_tokens);
            for (row, (top, bottom)) in rows.iter_mut().zip(top.into_iter().zip(bottom)) {
                row.top_tokens = top;
                row.bottom_tokens = bottom.into_iter().map(|(id, x)| (id, -x)).collect();
            }
        }
        let cosines = &mut cosines[..n * f];
        let mine = Mat::rows(&unit[from * d..(from + n) * d], d);
        gemm((n, f, d), cosines, f, Into::Overwrite, 1.0, mine, Mat::rows(&unit, d).t(), true);
        for (i, (row, near)) in rows.iter_mut().zip(ends(cosines, f, n_near)).enumerate() {
            row.neighbours = near.into_iter().filter(|(l, _)| *l as usize != from + i).take(N_NEIGHBOURS).collect();
            coordinates(row, dictionary.decoder_row(from + i));
        }
        progress.at((from + n) as u64, "");
    }
    let (places, shares) = map(&unit, d);
    for (row, place) in rows.iter_mut().zip(places) {
        row.profile.map = place;
    }
    progress.end("top and bottom vocabulary and neighbours of every decoder row");
    Ok(shares)
}

/// What vectors at a site add to the residual stream: themselves on it, through the weights behind them at the outputs of heads and
/// at neurons; none where only what comes later decides. The size that a norm behind a module would divide by is left out.
///
/// # Shapes
/// `[N, width of the site] -> [N, D]`
///
/// # Errors
/// Those of arrays.
pub fn residual_rows(model: &Model, site: Site, rows: Vec<f32>) -> Result<Option<Vec<f32>>> {
    use SiteKind::*;
    let d = model.spec.d_model;
    let layer = site.layer.and_then(|layer| model.weights.layers.get(layer));
    let through = |linear: &Linear, rows: &[f32]| {
        let n = rows.len() / model.spec.site_width(site, 0).max(1);
        let mut out = vec![0f32; n * d];
        linear.w.forward(n, rows, None, &mut out);
        out
    };
    let (out, norm) = match (site.kind, layer) {
        (Embed | PosEmbed | ResidPre | ResidMid | ResidPost | AttnOut | MlpOut, _) => return Ok(Some(rows)),
        (AttnZ, Some(layer)) => (through(&layer.o, &rows), &layer.norm_attn),
        (AttnModuleOut, Some(layer)) => (rows, &layer.norm_attn),
        (MlpPost, Some(layer)) => match &layer.mlp {
            MlpWeights::Dense { down, .. } => (through(down, &rows), &layer.norm_mlp),
            MlpWeights::Mixture { .. } => return Ok(None),
        },
        (MlpModuleOut, Some(layer)) => (rows, &layer.norm_mlp),
        _ => return Ok(None),
    };
    let Some(norm) = norm else { return Ok(Some(out)) };
    let (mut out, gain) = (out, f32s(norm.gain.tensor())?);
    out.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(gain.iter()).for_each(|(x, g)| *x *= g));
    Ok(Some(out))
}

/// Counts a latent's logits between their ends.
fn histogram(row: &mut LatentRow, logits: &[f32]) {
    let (low, high) = logits.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let scale = N_LOGITS as f32 / (high - low).max(f32::MIN_POSITIVE);
    let mut counts = vec![0u32; N_LOGITS];
    logits.iter().for_each(|x| counts[(((x - low) * scale) as usize).min(N_LOGITS - 1)] += 1);
    row.profile.logit_histogram = counts;
    row.profile.logit_ends = [low, high];
}

/// The size of a decoder row, and its largest coordinates.
fn coordinates(row: &mut LatentRow, decoder_D: &[f32]) {
    row.profile.decoder_l1 = decoder_D.iter().map(|x| x.abs()).sum();
    row.profile.decoder_norm = decoder_D.iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut all: Vec<(u32, f32)> = decoder_D.iter().enumerate().map(|(i, x)| (i as u32, *x)).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    all.truncate(N_COORDINATES);
    row.profile.aligned_neurons = all;
}

/// The first two principal components of directions, by power iteration on their second moments; each component's largest
/// coordinate is positive, so that a map is not mirrored from one time to the next. With them which share of the variance each
/// holds, in millionths: so short a number is read from a manifest as it was written.
fn map(unit_FD: &[f32], d: usize) -> (Vec<[f32; 2]>, Option<[f64; 2]>) {
    let f = unit_FD.len() / d;
    let mut moments = vec![0f32; d * d];
    let units = Mat::rows(unit_FD, d);
    gemm((d, d, f), &mut moments, d, Into::Overwrite, 1.0 / f as f32, units.t(), units, true);
    let mean: Vec<f64> =
        (0..d).map(|i| unit_FD.iter().skip(i).step_by(d).map(|x| f64::from(*x)).sum::<f64>() / f as f64).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut found: Vec<Vec<f64>> = Vec::new();
    for first in 0..2 {
        let mut v: Vec<f64> = (0..d).map(|i| 1.0 + ((i * 7 + first * 3) % 11) as f64).collect();
        for _ in 0..MAP_STEPS {
            for other in &found {
                let along = dot(&v, other);
                v.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
            let along = dot(&v, &mean);
            let next = |i: usize| -> f64 {
                let row = &moments[i * d..(i + 1) * d];
                row.iter().zip(&v).map(|(m, v)| f64::from(*m) * v).sum::<f64>() - mean[i] * along
            };
            let new: Vec<f64> = (0..d).map(next).collect();
            let size = dot(&new, &new).sqrt().max(f64::MIN_POSITIVE);
            v = new.iter().map(|x| x / size).collect();
        }
        let largest = v.iter().fold(0f64, |most, x| if x.abs() > most.abs() { *x } else { most });
        if largest < 0.0 {
            v.iter_mut().for_each(|x| *x = -*x);
        }
        found.push(v);
    }
    let place = |row: &[f32]| {
        let along =
            |v: &[f64]| row.iter().zip(v).zip(&mean).map(|((x, v), m)| (f64::from(*x) - m) * v).sum::<f64>() as f32;
        [along(&found[0]), along(&found[1])]
    };
    let places: Vec<[f32; 2]> = unit_FD.chunks_exact(d).map(place).collect();
    let total = unit_FD.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / f as f64 - dot(&mean, &mean);
    // The mean of the places is 0.
    let share = |axis: usize| {
        let held = places.iter().map(|place| f64::from(place[axis]).powi(2)).sum::<f64>() / f as f64;
        (held / total * 1e6).round() / 1e6
    };
    let shares = (total > 1e-9).then(|| [share(0), share(1)]);
    (places, shares)
}

/// The k largest of each row, with their columns.
fn ends(x: &[f32], width: usize, k: usize) -> Vec<Vec<(u32, f32)>> {
    let n = x.len() / width;
    let (mut values, mut idx) = (buffer(n * k), vec![0u32; n * k]);
    row_topk(x, width, k, &mut values, &mut idx);
    let pairs = |(i, v): (&[u32], &[f32])| i.iter().copied().zip(v.iter().copied()).collect();
    idx.chunks(k).zip(values.chunks(k)).map(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_tells_which_share_of_the_variance_it_holds() {
        // Points away from a centre along three axes, by 2, 1 and a half: variances of 4, 1 and a quarter.
        let (d, reach) = (5, [(3, 2f32), (0, 1.0), (4, 0.5)]);
        let rows: Vec<f32> = reach
            .iter()
            .flat_map(|&(axis, by)| [(axis, by), (axis, -by)])
            .flat_map(|(axis, by)| (0..d).map(move |i| 0.7 + if i == axis { by } else { 0.0 }))
            .collect();
        let (places, shares) = map(&rows, d);
        assert_eq!(places.len(), 6);
        assert!((places[0][0] - 2.0).abs() < 1e-3 && (places[2][1] - 1.0).abs() < 1e-3, "{places:?}");
        let shares = shares.unwrap();
        assert!((shares[0] - 4.0 / 5.25).abs() < 1e-5 && (shares[1] - 1.0 / 5.25).abs() < 1e-5, "{shares:?}");
        assert_eq!(map(&rows[..d].repeat(4), d).1, None, "what does not vary has no share");
    }
}
