//! Speed of the packed products, beside what the machine can do and what the `gemm` crate does.
//!
//! `cargo run --release --example packed_speed -p exegete-tensor [-- FILTER]`, where only lines that contain FILTER
//! are run. All candidates of a line run in turn, twice each, and the best round of each counts: on a shared machine only the
//! ratios mean something, and of those the minima.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::packed::{Keep, Matrix, Stack};
use rayon::prelude::*;

/// Rounds of each candidate.
const ROUNDS: usize = 12;

/// Best seconds of each candidate, all run in turn, each once before it is timed.
fn best(candidates: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut secs = vec![f64::INFINITY; candidates.len()];
    for _ in 0..ROUNDS {
        for (secs, run) in secs.iter_mut().zip(candidates.iter_mut()) {
            run();
            let start = Instant::now();
            run();
            *secs = secs.min(start.elapsed().as_secs_f64());
        }
    }
    secs
}

/// Multiply-adds of 16 lanes in registers alone; returns how many operations a thread did.
fn multiply_adds(rounds: usize) -> f64 {
    const CHAINS: usize = 24;
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn wide(rounds: usize) -> f64 {
            use std::arch::x86_64::*;
            let (mut acc, x) = ([_mm512_setzero_ps(); CHAINS], _mm512_set1_ps(black_box(0.5)));
            for _ in 0..rounds {
                for acc in &mut acc {
                    *acc = _mm512_fmadd_ps(*acc, x, x);
                }
            }
            black_box(acc);
            (rounds * CHAINS * 32) as f64
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instructions are there.
            return unsafe { wide(rounds) };
        }
    }
    let mut acc = [[0f32; 4]; CHAINS];
    let x = black_box(0.5f32);
    for _ in 0..rounds {
        acc.as_flattened_mut().iter_mut().for_each(|a| *a = *a * x + x);
    }
    black_box(acc);
    (rounds * CHAINS * 8) as f64
}

/// Reads a buffer on all threads, each two streams at a time: one stream keeps too few lines in flight.
fn read(data: &[f32]) {
    let sum: u32 = data
        .par_chunks(1 << 19)
        .map(|chunk| {
            let (one, two) = chunk.split_at(chunk.len() / 2);
            let mut acc = [0u32; 64];
            for (one, two) in one.as_chunks::<64>().0.iter().zip(two.as_chunks::<64>().0) {
                for i in 0..64 {
                    acc[i] |= one[i].to_bits() | two[i].to_bits();
                }
            }
            acc.iter().fold(0, |a, b| a | b)
        })
        .max()
        .unwrap_or(0);
    black_box(sum);
}

fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// Layers of one shape in `f32` and in bf16, and as plain rows.
struct Layers {
    f32s: Vec<Matrix>,
    bf16s: Vec<Matrix>,
    rows: Vec<Vec<f32>>,
}

impl Layers {
    fn new(n_layers: usize, n: usize, k: usize) -> Self {
        let rows: Vec<Vec<f32>> = (0..n_layers).map(|_| values(n * k)).collect();
        let stack = |keep| {
            let mut stack = Stack::new(keep, n_layers, n, k);
            rows.iter().enumerate().for_each(|(layer, rows)| stack.fill(layer, 0, rows));
            let stack = Arc::new(stack);
            (0..n_layers).map(|layer| Matrix::new(stack.clone(), layer)).collect()
        };
        Self { f32s: stack(Keep::F32), bf16s: stack(Keep::Bf16), rows }
    }
}

/// What a plain product of the `gemm` crate does with weights `[out, in]`.
fn linear(m: usize, n: usize, k: usize, x: &[f32], w: &[f32], out: &mut [f32]) {
    gemm((m, n, k), out, n, Into::Overwrite, 1.0, Mat::rows(x, k), Mat::rows(w, k).t(), true);
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let threads = rayon::current_num_threads();
    println!("{threads} threads; peak of multiply-adds and reads measured beside each line");
    many_rows(&filter, threads);
    few_rows(&filter);
}

fn many_rows(filter: &str, threads: usize) {
    println!(
        "\n{:>22} {:>7} | {:>7} {:>6} {:>7} | {:>7} {:>6} {:>7} | {:>8}",
        "GFLOP/s  (m, n, k)", "peak", "f32", "share", "gemm", "f32 bwd", "share", "gemm", "bf16"
    );
    for (m, n, k) in [
        (1024, 576, 576),
        (1024, 192, 576),
        (1024, 1536, 576),
        (1024, 576, 1536),
        (512, 1536, 576),
        (512, 49152, 576),
        (512, 4096, 4096),
    ] {
        let name = format!("({m}, {n}, {k})");
        if !name.contains(filter) {
            continue;
        }
        let layers = Layers::new(1, n, k);
        let (x, dy) = (values(m * k), values(m * n));
        let [mut a, mut b, mut c] = [(); 3].map(|()| vec![0f32; m * n]);
        let [mut d, mut e] = [(); 2].map(|()| vec![0f32; m * k]);
        let (f32s, bf16s, rows) = (&layers.f32s[0], &layers.bf16s[0], &layers.rows[0]);
        let flops = (2 * m * n * k) as f64;
        // Short products several times, so that a round lasts some milliseconds.
        let times = (4e9 / flops).ceil() as usize;
        let peak_rounds = (flops / 2e4) as usize / threads;
        let mut peak_ops = 0.0;
        let again = |f: &mut dyn FnMut()| (0..times).for_each(|_| f());
        let secs = best(&mut [
            &mut || {
                peak_ops =
                    (0..threads * times).into_par_iter().with_max_len(1).map(|_| multiply_adds(peak_rounds)).sum();
            },
            &mut || again(&mut || f32s.forward(m, &x, None, &mut a)),
            &mut || again(&mut || linear(m, n, k, &x, rows, &mut b)),
            &mut || again(&mut || f32s.backward(m, &dy, &mut d)),
            &mut || {
                again(&mut || {
                    gemm((m, k, n), &mut e, k, Into::Overwrite, 1.0, Mat::rows(&dy, n), Mat::rows(rows, k), true);
                });
            },
            &mut || again(&mut || bf16s.forward(m, &x, None, &mut c)),
        ]);
        let peak = peak_ops / secs[0] / 1e9;
        let rate = |i: usize| flops * times as f64 / secs[i] / 1e9;
        println!(
            "{name:>22} {peak:>7.1} | {:>7.1} {:>6.2} {:>7.1} | {:>7.1} {:>6.2} {:>7.1} | {:>8.1}",
            rate(1),
            rate(1) / peak,
            rate(2),
            rate(3),
            rate(3) / peak,
            rate(4),
            rate(5)
        );
    }
}

fn few_rows(filter: &str) {
    println!(
        "\n{:>22} {:>7} {:>6} | {:>7} {:>6} {:>7} | {:>6} {:>6}",
        "GB/s     (m, n, k)", "MB", "read", "f32", "share", "linear", "bf16", "share"
    );
    for (n_layers, n, k) in
        [(90, 576, 576), (90, 192, 576), (60, 1536, 576), (60, 576, 1536), (2, 49152, 576), (3, 4096, 4096)]
    {
        let mut layers = None;
        for m in [1, 8, 16] {
            let name = format!("({m}, {n}, {k})");
            if !name.contains(filter) {
                continue;
            }
            let layers = layers.get_or_insert_with(|| (Layers::new(n_layers, n, k), values(n_layers * n * k)));
            let (layers, plain) = (&layers.0, &layers.1);
            let x = values(m * k);
            let mut out = vec![0f32; m * n];
            let mut out_linear = out.clone();
            let mut out_bf16 = out.clone();
            let secs = best(&mut [
                &mut || read(plain),
                &mut || layers.f32s.iter().for_each(|w| w.forward(m, &x, None, &mut out)),
                &mut || layers.rows.iter().for_each(|w| linear(m, n, k, &x, w, &mut out_linear)),
                &mut || layers.bf16s.iter().for_each(|w| w.forward(m, &x, None, &mut out_bf16)),
            ]);
            let bytes = (n_layers * n * k * 4) as f64;
            let rate = |i: usize, bytes: f64| bytes / secs[i] / 1e9;
            println!(
                "{name:>22} {:>7.0} {:>6.1} | {:>7.1} {:>6.2} {:>7.1} | {:>6.1} {:>6.2}",
                bytes / 1e6,
                rate(0, bytes),
                rate(1, bytes),
                rate(1, bytes) / rate(0, bytes),
                rate(2, bytes),
                rate(3, bytes / 2.0),
                rate(3, bytes / 2.0) / rate(0, bytes)
            );
        }
    }
}
