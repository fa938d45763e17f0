//! What a latent's decoder row says to the vocabulary, and which rows lie nearest to it.

use exegete_model::Model;
use exegete_sae::Dictionary;
use exegete_store::LatentRow;
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::{buffer, topk::row_topk};
use exegete_tensor::f32s;

use crate::{Progress, Result};

/// Tokens kept at each end of the vocabulary.
const N_TOKENS: usize = 10;
/// Neighbours kept.
const N_NEIGHBOURS: usize = 8;
/// Latents handled together.
const BLOCK: usize = 64;

/// Fills in the vocabulary and the neighbours of every latent.
///
/// Logits are `W_U (gain * row)`: the decoder row through the final norm's gain, without its division (which
/// scales all logits of a row alike). Neighbours are by cosine between decoder rows. For a dictionary that does
/// not sit on the residual stream the vocabulary is left empty.
///
/// # Errors
/// Those of arrays.
pub fn describe(
    model: &Model,
    dictionary: &dyn Dictionary,
    rows: &mut [LatentRow],
    progress: &dyn Progress,
) -> Result<()> {
    let (d, f, v) = (dictionary.d_in(), dictionary.n_latents(), model.spec.vocab_size);
    let unembed = &model.weights.unembed.w;
    let gain = f32s(model.weights.norm_final.gain.tensor())?;
    let on_residual = d == model.spec.d_model;
    let unit: Vec<f32> = (0..f)
        .flat_map(|latent| {
            let row = dictionary.decoder_row(latent);
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
        if on_residual {
            let scaled: Vec<f32> = (from..from + n)
                .flat_map(|l| dictionary.decoder_row(l).iter().zip(gain.iter()).map(|(x, g)| x * g))
                .collect();
            let logits = &mut logits[..n * v];
            unembed.forward(n, &scaled, None, logits);
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
        }
        progress.at((from + n) as u64, "");
    }
    progress.end("top and bottom vocabulary and neighbours of every decoder row");
    Ok(())
}

/// The k largest of each row, with their columns.
fn ends(x: &[f32], width: usize, k: usize) -> Vec<Vec<(u32, f32)>> {
    let n = x.len() / width;
    let (mut values, mut idx) = (buffer(n * k), vec![0u32; n * k]);
    row_topk(x, width, k, &mut values, &mut idx);
    let pairs = |(i, v): (&[u32], &[f32])| i.iter().copied().zip(v.iter().copied()).collect();
    idx.chunks(k).zip(values.chunks(k)).map(pairs).collect()
}
