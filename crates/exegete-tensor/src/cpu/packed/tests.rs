//! Every kernel against the naive product, in every shape that could trip it.

use std::sync::Arc;

use super::super::simd::Isa;
use super::*;

/// Values that look random and have all signs.
fn values(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            let mixed = (i.wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
            ((mixed ^ (mixed >> 15)) % 20_011) as f32 / 10_005.0 - 1.0
        })
        .collect()
}

/// Rows in memory, as a source.
struct Plain {
    k: usize,
    data: Vec<f32>,
}

impl RowSource for Plain {
    fn n(&self) -> usize {
        self.data.len() / self.k
    }
    fn k(&self) -> usize {
        self.k
    }
    fn row(&self, i: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[i * self.k..(i + 1) * self.k]);
    }
    fn resident_bytes(&self) -> usize {
        self.data.len() * 4
    }
}

/// The second layer of a stack of two; the first is huge, so that a read of it shows.
fn matrix(keep: Option<Keep>, n: usize, k: usize, w: &[f32]) -> Matrix {
    let other = vec![1e14f32; n * k];
    let stack = match keep {
        Some(keep) => {
            let mut stack = Stack::new(keep, 2, n, k);
            stack.fill(0, 0, &other);
            // In two parts that do not end where panels end.
            let cut = n / 3 * k;
            stack.fill(1, n / 3, &w[cut..]);
            stack.fill(1, 0, &w[..cut]);
            stack
        }
        None => Stack::from_rows(
            [other, w.to_vec()].map(|data| Arc::new(Plain { k, data }) as Arc<dyn RowSource>).into_iter().collect(),
        ),
    };
    Matrix::new(Arc::new(stack), 1)
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| layout::from_bf16(layout::to_bf16(*v))).collect()
}

/// Every path that this machine can take.
fn paths() -> Vec<Path> {
    let mut paths = vec![Path::Floats(Isa::Baseline)];
    #[cfg(target_arch = "x86_64")]
    {
        if isa() != Isa::Baseline {
            paths.push(Path::Floats(Isa::Avx2));
        }
        if isa() == Isa::Avx512 {
            paths.push(Path::Floats(Isa::Avx512));
        }
        if layout::has_avx512_bf16() {
            paths.push(Path::Pairs);
        }
        if amx::ready() {
            paths.push(Path::Amx);
        }
    }
    paths
}

const KINDS: [Option<Keep>; 3] = [Some(Keep::F32), Some(Keep::Bf16), None];

/// The operands as the kernels see them: which are rounded.
fn seen(keep: Option<Keep>, path: Path, x: &[f32], w: &[f32]) -> (Vec<f32>, Vec<f32>) {
    match (keep, path) {
        (Some(Keep::Bf16), Path::Floats(_)) => (x.to_vec(), rounded(w)),
        (Some(Keep::Bf16), _) => (rounded(x), rounded(w)),
        _ => (x.to_vec(), w.to_vec()),
    }
}

/// A gradient as the kernels of the backward pass see it.
fn seen_back(keep: Option<Keep>, path: Path, dy: &[f32]) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if (keep, path) == (Some(Keep::Bf16), Path::Amx) {
        return rounded(dy);
    }
    let _ = (keep, path);
    dy.to_vec()
}

/// Fails where `got[m, n]` is further from `x[m, k] w` than rounding explains; `w(column, i)`.
fn check(
    what: &str,
    (m, n, k): (usize, usize, usize),
    x: &[f32],
    w: impl Fn(usize, usize) -> f32,
    bias: &[f32],
    got: &[f32],
) {
    for r in 0..m {
        for c in 0..n {
            let products = || (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w(c, i)));
            let bias = bias.get(c).map_or(0.0, |b| f64::from(*b));
            let (want, size) = (products().sum::<f64>() + bias, products().map(f64::abs).sum::<f64>() + bias.abs());
            let got = f64::from(got[r * n + c]);
            assert!((got - want).abs() <= 1e-5 * size + 1e-30, "{what} {m}x{k} by {n}: ({r},{c}) {got} {want}");
        }
    }
}

#[test]
fn every_kernel_agrees_with_the_naive_product() {
    let few: Vec<usize> = (1..=70).collect();
    let shapes: [(usize, usize, &[usize]); 10] = [
        (33, 37, &few),
        (1, 1, &[1, 2, 17]),
        (5, 3, &[1, 14, 15, 33]),
        (32, 32, &[1, 16, 32, 64]),
        (31, 191, &[1, 7, 43]),
        (64, 193, &[1, 28, 61]),
        (70, 385, &[2, 16, 47]),
        (97, 576, &[1, 16, 130]),
        (300, 64, &[3, 260]),
        (100, 700, &[96, 129]),
    ];
    for (n, k, ms) in shapes {
        let w = values(n * k, 1);
        let bias = values(n, 2);
        for keep in KINDS {
            let matrix = matrix(keep, n, k, &w);
            for &m in ms {
                let x = values(m * k, 3);
                for path in paths() {
                    let (x_seen, w_seen) = seen(keep, path, &x, &w);
                    for bias in [None, Some(&bias[..])] {
                        let mut out = vec![f32::NAN; m * n];
                        matrix.forward_with(path, None, m, &x, bias, &mut out);
                        let what = format!("{keep:?} {path:?}");
                        check(&what, (m, n, k), &x_seen, |c, i| w_seen[c * k + i], bias.unwrap_or(&[]), &out);
                    }
                }
            }
        }
    }
}

#[test]
fn the_backward_pass_agrees_with_the_naive_product() {
    for (n, k) in [(33, 37), (1, 1), (5, 3), (31, 191), (200, 70), (577, 64), (64, 1000)] {
        let w = values(n * k, 1);
        for keep in KINDS {
            let matrix = matrix(keep, n, k, &w);
            for m in [1, 2, 13, 14, 15, 61, 97] {
                let dy = values(m * n, 3);
                for path in paths() {
                    let (_, w_seen) = seen(keep, path, &[], &w);
                    let mut dx = vec![f32::NAN; m * k];
                    matrix.backward_with(path, m, &dy, &mut dx);
                    let what = format!("backward {keep:?} {path:?}");
                    check(&what, (m, k, n), &seen_back(keep, path, &dy), |c, i| w_seen[i * k + c], &[], &dx);
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_a_matrix_agrees_with_the_naive_product() {
    // Shapes with odd numbers of everything, few outputs and many, and more rows than are summed at a time.
    for (m, n, k) in [(1, 1, 1), (33, 5, 37), (97, 130, 31), (64, 96, 64), (700, 97, 65), (4500, 100, 33)] {
        let (dy, x) = (values(m * n, 1), values(m * k, 2));
        let turned: Vec<f32> = (0..n * m).map(|i| dy[i % m * n + i / m]).collect();
        for keep in KINDS {
            for path in paths() {
                let mut dw = vec![f32::NAN; n * k];
                outer::gradient_with(path, keep, (m, n, k), &dy, &x, &mut dw);
                let (rows, columns) = (seen_back(keep, path, &turned), seen_back(keep, path, &x));
                check(&format!("gradient {keep:?} {path:?}"), (n, k, m), &rows, |c, i| columns[i * k + c], &[], &dw);
            }
        }
    }
    let mut dw = [f32::NAN; 6];
    weight_gradient(None, (0, 2, 3), &[], &[], &mut dw);
    assert_eq!(dw, [0.0; 6]);
}

#[test]
fn a_backward_pass_of_many_chunks_goes_on_from_the_one_before() {
    let (n, k) = (1000, 1100);
    let w = values(n * k, 1);
    for (m, keep) in [3, 97].into_iter().flat_map(|m| KINDS.map(|keep| (m, keep))) {
        let dy = values(m * n, 2);
        let (_, w_seen) = seen(keep, Path::best(), &[], &w);
        let mut dx = vec![f32::NAN; m * k];
        matrix(keep, n, k, &w).backward(m, &dy, &mut dx);
        check("chunks", (m, k, n), &seen_back(keep, Path::best(), &dy), |c, i| w_seen[i * k + c], &[], &dx);
    }
}

#[test]
fn rows_come_back_as_they_went_in() {
    for (n, k) in [(1, 1), (33, 37), (70, 64)] {
        let w = values(n * k, 1);
        for keep in KINDS {
            let matrix = matrix(keep, n, k, &w);
            let mut got = vec![f32::NAN; n * k];
            matrix.rows(0..n, &mut got);
            assert_eq!(got, if keep == Some(Keep::Bf16) { rounded(&w) } else { w.clone() }, "{keep:?} {n}x{k}");
            let mut row = vec![f32::NAN; k];
            matrix.row(n - 1, &mut row);
            assert_eq!(row, got[(n - 1) * k..]);
        }
    }
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_what_is_not_a_number() {
    for (value, want) in [
        (1.0, 0x3f80),
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::MAX, 0x7f80),
        (f32::NEG_INFINITY, 0xff80),
        (-0.0, 0x8000),
    ] {
        assert_eq!(layout::to_bf16(value), want, "{value}");
        let mut units = [0u32; 32];
        layout::encode_bf16(&[value; 33], &mut units);
        assert!(units[..16].iter().all(|u| *u == u32::from(want) * 0x1_0001), "{value}");
        assert_eq!(units[16], u32::from(want));
        assert!(units[17..].iter().all(|u| *u == 0));
    }
    // The payload of this NaN lies in the bits that are dropped.
    assert!(layout::from_bf16(layout::to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
}

#[test]
fn infinities_and_nans_reach_the_outputs_that_they_belong_to_and_no_other() {
    let (n, k) = (45, 37);
    for (m, keep) in [35, 131].into_iter().flat_map(|m| KINDS.map(|keep| (m, keep))) {
        for path in paths() {
            let (mut x, mut w) = (values(m * k, 1), values(n * k, 2));
            // Where padding lies beside: the last row, the last column, the last k.
            x[(m - 1) * k + k - 1] = f32::INFINITY;
            x[3 * k + 5] = f32::NAN;
            w[(n - 1) * k + k - 1] = f32::NEG_INFINITY;
            w[40 * k + 2] = f32::NAN;
            let matrix = matrix(keep, n, k, &w);
            let (x_seen, w_seen) = seen(keep, path, &x, &w);
            let mut out = vec![0f32; m * n];
            matrix.forward_with(path, None, m, &x, None, &mut out);
            for r in 0..m {
                for c in 0..n {
                    let want: f32 = (0..k).map(|i| x_seen[r * k + i] * w_seen[c * k + i]).sum();
                    let got = out[r * n + c];
                    assert_eq!((got.is_nan(), got.is_infinite()), (want.is_nan(), want.is_infinite()), "({r},{c})");
                }
            }
            let dy = values(m * n, 3);
            let mut dx = vec![0f32; m * k];
            matrix.backward_with(path, m, &dy, &mut dx);
            for (i, got) in dx.iter().enumerate() {
                let column = i % k;
                assert_eq!(got.is_nan(), column == 2, "{keep:?} {path:?} dx {i}");
                assert_eq!(got.is_infinite(), column == k - 1, "{keep:?} {path:?} dx {i}");
            }
        }
    }
}

/// Whether products of many rows are computed by parts.
fn splits(path: Path, keep: Option<Keep>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return path == Path::Amx && keep.is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return {
        let _ = (path, keep);
        false
    };
}

#[test]
fn rows_that_cannot_be_split_are_computed_all_the_same_and_change_no_other() {
    let (m, n, k) = (128, 45, 37);
    let (plain, w) = (values(m * k, 1), values(n * k, 2));
    let mut x = plain.clone();
    // Not a number, too large, too small.
    (x[3 * k + 5], x[7 * k + 1]) = (f32::NAN, 1e30);
    x[9 * k..12 * k].iter_mut().for_each(|x| *x *= 1e-33);
    let matrix = matrix(Some(Keep::F32), n, k, &w);
    for path in paths() {
        let product = |m: usize, x: &[f32]| {
            let mut out = vec![f32::NAN; m * n];
            matrix.forward_with(path, None, m, x, Some(&values(n, 3)), &mut out);
            out
        };
        let (all, undisturbed) = (product(m, &x), product(m, &plain));
        for r in 0..m {
            let alone = product(1, &x[r * k..(r + 1) * k]);
            let want = if [3, 7, 9, 10, 11].contains(&r) { &alone } else { &undisturbed[r * n..(r + 1) * n] };
            let same = all[r * n..(r + 1) * n].iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{path:?} row {r}");
        }
    }
}

#[test]
fn gradients_of_columns_that_cannot_be_split_are_computed_all_the_same_and_change_no_other() {
    // More rows than are summed at a time, so that some sums go on from those before.
    let (m, n, k) = (2500, 130, 45);
    let (plain, x) = (values(m * n, 1), values(m * k, 2));
    let mut dy = plain.clone();
    // Too small, too large in the second part alone, not a number in the first.
    (0..m).for_each(|row| dy[row * n + 3] *= 1e-33);
    (dy[2300 * n + 7], dy[5 * n + 9]) = (1e30, f32::NAN);
    for path in paths() {
        let gradient = |dy: &[f32], x: &[f32]| {
            let mut dw = vec![f32::NAN; n * k];
            outer::gradient_with(path, Some(Keep::F32), (m, n, k), dy, x, &mut dw);
            dw
        };
        let (all, undisturbed) = (gradient(&dy, &x), gradient(&plain, &x));
        for r in 0..n {
            let (got, before) = (&all[r * k..(r + 1) * k], &undisturbed[r * k..(r + 1) * k]);
            if ![3, 7, 9].contains(&r) {
                assert!(got == before, "{path:?} row {r}");
                continue;
            }
            for c in 0..k {
                let terms = (0..m).map(|row| f64::from(dy[row * n + r]) * f64::from(x[row * k + c]));
                let (want, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                let close = (f64::from(got[c]) - want).abs() <= 1e-5 * size;
                assert!(close || want.is_nan() && got[c].is_nan(), "{path:?} row {r}: {} for {want}", got[c]);
            }
        }
        // A column of the other operand that cannot be split: everything is left to the vector kernel.
        let mut x = x.clone();
        [40, 2400].iter().for_each(|row| x[row * k + 44] = 1e20);
        let mut vectors = vec![0f32; n * k];
        outer::gradient_with(Path::Floats(isa()), Some(Keep::F32), (m, n, k), &plain, &x, &mut vectors);
        if !matches!(path, Path::Floats(other) if other != isa()) {
            assert!(gradient(&plain, &x) == vectors, "{path:?}");
        }
    }
}

#[test]
fn a_column_that_cannot_be_split_is_computed_all_the_same_backwards() {
    // Few columns, and more than a product holds at a time, where only the last ones show that it cannot be.
    for (m, n, k, tiny) in [(128, 45, 37, 5), (96, 1600, 400, 399)] {
        let mut w = values(n * k, 2);
        // Every row can be split, but one column is all tiny.
        (0..n).for_each(|row| w[row * k + tiny] *= 1e-20);
        let (matrix, dy) = (matrix(Some(Keep::F32), n, k, &w), values(m * n, 1));
        assert!(matrix.can_split());
        check_backwards(&matrix, (m, n, k), &dy, &w);
    }
}

fn check_backwards(matrix: &Matrix, (m, n, k): (usize, usize, usize), dy: &[f32], w: &[f32]) {
    for path in paths() {
        let mut dx = vec![f32::NAN; m * k];
        matrix.backward_with(path, m, dy, &mut dx);
        for (o, got) in dx.iter().enumerate() {
            let terms = (0..n).map(|i| f64::from(dy[o / k * n + i]) * f64::from(w[i * k + o % k]));
            let (want, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            assert!((f64::from(*got) - want).abs() <= 1e-5 * size, "{path:?} {o}: {got} for {want}");
        }
    }
}

#[test]
fn a_product_of_more_columns_than_are_held_at_a_time_has_the_bits_of_its_pieces() {
    let (m, n, k, piece) = (96, 400, 2000, 80);
    let (x, w) = (values(m * k, 1), values(n * k, 2));
    for path in paths() {
        let product = |w: &[f32]| {
            let n = w.len() / k;
            let mut out = vec![f32::NAN; m * n];
            matrix(Some(Keep::F32), n, k, w).forward_with(path, None, m, &x, None, &mut out);
            out
        };
        let whole = product(&w);
        for (i, w) in w.chunks_exact(piece * k).enumerate() {
            for (r, row) in product(w).chunks_exact(piece).enumerate() {
                assert!(row == &whole[r * n + i * piece..][..piece], "{path:?}: piece {i}, row {r}");
            }
        }
    }
}

#[test]
fn products_by_parts_are_as_exact_as_those_of_the_vector_kernel() {
    let (m, n, k) = (128, 96, 2000);
    // Of many magnitudes, so that parts are needed.
    let spread = |seed: u32| -> Vec<f32> {
        let size = values(2048 * k, seed + 7);
        values(128 * k, seed).iter().zip(size).map(|(v, s)| v * (s * 6.0).exp() * 1.000_123).collect()
    };
    let (x, w) = (spread(1), spread(2));
    let matrix = matrix(Some(Keep::F32), n, k, &w[..n * k]);
    let error = |path: Path| {
        let mut out = vec![0f32; m * n];
        matrix.forward_with(path, None, m, &x, None, &mut out);
        let (mut off, mut all) = (0.0, 0.0);
        for (o, got) in out.iter().enumerate() {
            let (r, c) = (o / n, o % n);
            let want: f64 = (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w[c * k + i])).sum();
            off += (f64::from(*got) - want).powi(2);
            all += want * want;
        }
        (off / all).sqrt()
    };
    let floats = error(Path::Floats(isa()));
    let by_parts: Vec<Path> = paths().into_iter().filter(|p| splits(*p, Some(Keep::F32))).collect();
    if by_parts.is_empty() {
        eprintln!("not run: no matrix unit");
    }
    for path in by_parts {
        let by_parts = error(path);
        assert!(by_parts < 1.5 * floats && by_parts < 1e-6, "by parts {by_parts:e}, by floats {floats:e}");
    }
}

#[test]
fn a_gate_has_the_bits_of_both_products_and_the_activation() {
    let (n, k) = (77, 200);
    let (up, gate) = (values(n * k, 1), values(n * k, 2));
    let biases = [values(n, 3), values(n, 4)];
    let acts = [Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu, Act::Relu];
    for (act, keep) in acts.into_iter().flat_map(|act| KINDS.map(|keep| (act, keep))) {
        let [up, gate] = [&up, &gate].map(|w| matrix(keep, n, k, w));
        for m in [1, 5, 17, 40, 130] {
            let x = values(m * k, 5);
            for path in paths() {
                let [mut a, mut b, mut want, mut got] = [(); 4].map(|()| vec![f32::NAN; m * n]);
                gate.forward_with(path, None, m, &x, Some(&biases[1]), &mut a);
                up.forward_with(path, None, m, &x, Some(&biases[0]), &mut b);
                super::super::activation::gated(act, &a, &b, &mut want);
                let gate = Gate { act, w: &gate, bias: Some(&biases[1]) };
                up.forward_with(path, Some(gate), m, &x, Some(&biases[0]), &mut got);
                assert!(got == want, "{act:?} {keep:?} {path:?} {m} rows");
            }
        }
    }
}

/// Runs `f` on a pool of `threads`.
fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_other_rows_nor_on_their_number() {
    let (m, n, k) = (230, 150, 500);
    let (x, w, dy) = (values(m * k, 1), values(n * k, 2), values(m * n, 3));
    for keep in KINDS {
        let matrix = matrix(keep, n, k, &w);
        for path in paths() {
            let run = |threads: usize, m: usize| {
                on(threads, || {
                    let (mut out, mut dx) = (vec![0f32; m * n], vec![0f32; m * k]);
                    matrix.forward_with(path, None, m, &x[..m * k], None, &mut out);
                    matrix.backward_with(path, m, &dy[..m * n], &mut dx);
                    (out, dx)
                })
            };
            let (out, dx) = run(1, m);
            for threads in [2, 3, 7] {
                assert!(run(threads, m) == (out.clone(), dx.clone()), "{keep:?} {path:?}: {threads} threads");
            }
            // On the matrix unit many rows have bits of their own.
            let few_rows: &[usize] = if splits(path, keep) { &[96, 100, 161] } else { &[1, 2, 16, 33, 100] };
            for &few in few_rows {
                let (few_out, few_dx) = run(2, few);
                assert!(few_out == out[..few * n] && few_dx == dx[..few * k], "{keep:?} {path:?}: {few} rows");
            }
        }
    }
}

#[test]
fn f32_has_the_same_bits_on_all_instruction_sets_with_a_fused_multiply_add() {
    let (m, n, k) = (40, 70, 400);
    let (x, w) = (values(m * k, 1), values(n * k, 2));
    let matrix = matrix(Some(Keep::F32), n, k, &w);
    let mut want = vec![0f32; m * n];
    for (o, want) in want.iter_mut().enumerate() {
        let product = |sum: f32, i: usize| x[o / n * k + i].mul_add(w[o % n * k + i], sum);
        let slices = (0..k).step_by(SLICE).map(|from| (from..(from + SLICE).min(k)).fold(0.0, product));
        *want = slices.reduce(|sum, slice| sum + slice).unwrap();
    }
    for path in paths() {
        if path != Path::Floats(Isa::Baseline) || super::super::simd::BASELINE_FMA {
            let mut out = vec![0f32; m * n];
            matrix.forward_with(path, None, m, &x, None, &mut out);
            assert!(out == want, "{path:?}");
        }
    }
}

#[test]
fn empty_products_are_zero_or_the_bias() {
    for keep in [Keep::F32, Keep::Bf16] {
        let nothing = Matrix::new(Arc::new(Stack::new(keep, 1, 3, 0)), 0);
        let mut out = [f32::NAN; 6];
        nothing.forward(2, &[], Some(&[1.0, 2.0, 3.0]), &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        nothing.backward(2, &[1.0; 6], &mut []);
        let no_outputs = Matrix::new(Arc::new(Stack::new(keep, 1, 0, 3)), 0);
        no_outputs.forward(2, &[1.0; 6], None, &mut []);
        no_outputs.backward(2, &[], &mut out);
        assert_eq!(out, [0.0; 6]);
        no_outputs.forward(0, &[], None, &mut []);
        // As many rows as go to a matrix unit.
        let mut many = [f32::NAN; 300];
        nothing.forward(100, &[], Some(&[1.0, 2.0, 3.0]), &mut many);
        assert!(many.chunks(3).all(|row| row == [1.0, 2.0, 3.0]));
        no_outputs.forward(100, &[1.0; 300], None, &mut []);
        no_outputs.backward(100, &[], &mut many);
        assert_eq!(many, [0.0; 300]);
    }
}
