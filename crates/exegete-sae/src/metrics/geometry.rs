//! Directions of latents: encoder against decoder, and decoder rows against each other.

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use rayon::prelude::*;

use crate::Sae;

/// Rows that are multiplied with all others at a time.
const BLOCK: usize = 256;

/// Cosine of each latent's encoder and decoder row, `[F]`; none for a dictionary whose output has another width.
pub fn encoder_decoder_cosines(sae: &Sae) -> Option<Vec<f32>> {
    (sae.d_in == sae.d_out).then(|| {
        let encoder = unit_rows(&sae.w_enc_FD, sae.d_in);
        let decoder = unit_rows(&sae.w_dec_FD, sae.d_out);
        let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| a * b).sum();
        encoder.chunks_exact(sae.d_in).zip(decoder.chunks_exact(sae.d_in)).map(dot).collect()
    })
}

/// The largest cosine of each latent's decoder row with any other's, `[F]`.
pub fn max_decoder_cosines(w_dec_FD: &[f32], d: usize) -> Vec<f32> {
    let unit = unit_rows(w_dec_FD, d);
    let mut most = Vec::with_capacity(unit.len() / d);
    each_cosine_row(&unit, &unit, d, &mut |row, cosines| {
        let others = cosines.iter().enumerate().filter(|(other, _)| *other != row).map(|(_, cosine)| *cosine);
        most.push(others.fold(f32::NEG_INFINITY, f32::max));
    });
    most
}

/// The rows, each of length 1. One of length 0 stays so.
pub(super) fn unit_rows(rows_FD: &[f32], d: usize) -> Vec<f32> {
    let mut unit = rows_FD.to_vec();
    unit.par_chunks_exact_mut(d).for_each(|row| {
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    });
    unit
}

/// Calls `f(number of a row of a, its products with all rows of b)` for all rows of a in order.
pub(super) fn each_cosine_row(a_FD: &[f32], b_FD: &[f32], d: usize, f: &mut dyn FnMut(usize, &[f32])) {
    let n_b = b_FD.len() / d;
    let mut products = vec![0f32; BLOCK * n_b];
    for (block, rows) in a_FD.chunks(BLOCK * d).enumerate() {
        let n = rows.len() / d;
        let out = &mut products[..n * n_b];
        gemm((n, n_b, d), out, n_b, Into::Overwrite, 1.0, Mat::rows(rows, d), Mat::rows(b_FD, d).t(), true);
        out.chunks_exact(n_b).enumerate().for_each(|(i, row)| f(block * BLOCK + i, row));
    }
}
