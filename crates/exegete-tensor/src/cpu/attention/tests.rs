//! Attention against a loop.

use super::*;

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * by).sin() * 1.5).collect()
}

fn naive(s: &AttentionShape, q: &[f32], row_keys: &[(Vec<f32>, Vec<f32>)]) -> Vec<f32> {
    let mut z = vec![0f32; s.n_tokens() * s.q_stride()];
    for (row, (k, v)) in s.rows.iter().zip(row_keys) {
        for i in 0..row.n {
            for h in 0..s.n_heads {
                let (p, g) = (row.past + i, s.group(h));
                let q_at = s.q_at(*row, i, h);
                let score = |j: usize| {
                    let at = j * s.kv_stride() + g * s.d_head;
                    let x: f64 = (0..s.d_head).map(|c| f64::from(q[q_at + c]) * f64::from(k[at + c])).sum::<f64>()
                        * f64::from(s.scale);
                    s.soft_cap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh())
                };
                let seen: Vec<usize> = (0..=p).filter(|j| s.window.is_none_or(|w| p - j < w)).collect();
                let total: f64 = seen.iter().map(|j| score(*j).exp()).sum();
                for j in seen {
                    let weight = score(j).exp() / total;
                    for c in 0..s.d_head {
                        z[q_at + c] += (weight * f64::from(v[j * s.kv_stride() + g * s.d_head + c])) as f32;
                    }
                }
            }
        }
    }
    z
}

/// Rows of several lengths, with pasts in one or two spans, windows and caps: fused and explicit paths agree with
/// the loop above.
#[test]
fn every_path_agrees_with_the_naive_loop() {
    for (window, soft_cap) in [(None, None), (Some(3), None), (None, Some(1.5)), (Some(70), Some(2.0))] {
        let rows = vec![
            AttentionRow { first: 0, n: 1, past: 9 },
            AttentionRow { first: 1, n: 5, past: 0 },
            AttentionRow { first: 6, n: 70, past: 11 },
        ];
        let s = AttentionShape { rows, n_heads: 4, n_kv_heads: 2, d_head: 3, scale: 0.7, soft_cap, window };
        let q = wave(s.n_tokens() * s.q_stride(), 0.37);
        let w = s.kv_stride();
        let row_keys: Vec<(Vec<f32>, Vec<f32>)> = s
            .rows
            .iter()
            .map(|r| (wave((r.past + r.n) * w, 0.21 + r.n as f32 * 0.01), wave((r.past + r.n) * w, 0.11)))
            .collect();
        let keys = Keys::new(row_keys.iter().zip(&s.rows).map(|((k, v), r)| {
            let cut = r.past / 2;
            vec![
                KeySpan { keys: &k[..cut * w], values: &v[..cut * w], len: cut },
                KeySpan { keys: &k[cut * w..], values: &v[cut * w..], len: r.past + r.n - cut },
            ]
        }));
        assert!(keys.fit(&s));
        let want = naive(&s, &q, &row_keys);
        let (mut z, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; s.n_tokens() * s.n_heads]);
        attention(&s, &q, &keys, &mut z, &mut lse);
        let mut scores = vec![f32::NAN; s.n_tokens() * s.n_heads * s.n_keys()];
        attention_scores(&s, &q, &keys, &mut scores);
        for (row, lse) in scores.chunks_exact_mut(s.n_keys()).zip(&lse) {
            let total = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((total - f64::from(*lse)).abs() < 1e-5, "{total} {lse}");
            row.iter_mut().for_each(|x| *x = (*x - lse).exp());
        }
        let mut mixed = vec![f32::NAN; q.len()];
        attention_mix(&s, &scores, &keys, &mut mixed);
        for ((a, b), want) in z.iter().zip(&mixed).zip(&want) {
            assert!((a - want).abs() < 1e-5 && (b - want).abs() < 1e-5, "{a} {b} {want}");
        }
    }
}
