//! Which products of rows can be large: whole matrices in bytes, and exact values of the few that pass.
//!
//! Of `h = x W^T + b` a sparse dictionary wants only the largest values of each row. So rows are rounded to seven bits, and
//! products of bytes, several times as fast as those of `f32`, give each value up to an error that is bounded by Cauchy and
//! Schwarz: `|x . w - x^ . w^| <= |x| |w - w^| + |x - x^| |w^|`. Where a value cannot reach its bound, it is passed over;
//! where it can, it is computed in `f32`, by [`dot`]. What comes out is therefore exact, and the same however it was found.

use rayon::prelude::*;

use super::simd::dot;

/// Latents whose products are summed together.
const PANEL: usize = 16;
/// Values of a row that are multiplied in one go, of each latent.
const GROUP: usize = 8;
/// Tokens that a thread looks through at a time: enough that a panel is used often, few enough to stay near.
const TOKENS: usize = 256;
/// Largest magnitude of a rounded value: of two products of unsigned 7 and signed 7 bits the sum of two pairs fits 16 bits.
const MOST: f32 = 63.0;
/// Added to an input's bytes, so that they are unsigned.
const OFFSET: i32 = 64;
/// A sum in `f32` of so many products is off by less than this share of `|x| |w|`: [`dot`] has 32 sums, which it adds up.
fn rounding(d: usize) -> f32 {
    1e-6 * (4.0 + d as f32 / 16.0)
}

/// Largest values of rows between which squares neither vanish nor overflow; others are always computed.
const SANE: std::ops::Range<f32> = 1e-15..1e15;

/// Whether this machine multiplies bytes so much faster than `f32` that screening pays.
pub fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        super::simd::isa() == super::simd::Isa::Avx2
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A row's entries that reached their bounds: of each its column and its value.
pub type Found = Vec<(u32, f32)>;

/// A matrix in bytes, beside the `f32` rows that it is made of.
#[derive(Default)]
pub struct Screen {
    d: usize,
    f: usize,
    /// Panels of `PANEL` rows: for each `GROUP` of columns, `GROUP / 4` times the rows' next four bytes.
    bytes: Vec<i8>,
    rows: Vec<Row>,
    tokens: Vec<Tokens>,
}

/// What is known of a rounded row.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Size of a step.
    scale: f32,
    /// `OFFSET` times the sum of its bytes.
    sum: i32,
    /// Length of the row as it is, times what rounding of sums may add.
    length: f32,
    /// Length of the rounded row.
    rounded: f32,
    /// Length of what rounding took away.
    error: f32,
}

/// Scratch for a share of the tokens.
#[derive(Default)]
struct Tokens {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    found: Vec<Found>,
    hits: Vec<(u32, u32)>,
}

/// Rounds a row into `out`, which is as long as the padded row.
fn round(row: &[f32], out: &mut [i8]) -> Row {
    let most = row.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = if most > 0.0 { most / MOST } else { 1.0 };
    let over = 1.0 / scale;
    let (mut sum, mut length, mut rounded, mut error) = (0i32, 0f32, 0f32, 0f32);
    for (o, x) in out.iter_mut().zip(row) {
        let q = (x * over).round();
        let back = q * scale;
        *o = q as i8;
        sum += i32::from(*o);
        length += x * x;
        rounded += back * back;
        error += (x - back) * (x - back);
    }
    // Sums of squares are off themselves by far less than the thousandth that is added.
    let root = |square: f32| square.sqrt() * 1.001;
    if most != 0.0 && !SANE.contains(&most) {
        // Nothing is known of it: an infinite error lets everything pass, and so does one that is no number.
        return Row { scale: 1.0, sum: OFFSET * sum, length: f32::NAN, rounded: f32::NAN, error: f32::NAN };
    }
    Row { scale, sum: OFFSET * sum, length: root(length), rounded: root(rounded), error: root(error) }
}

impl Screen {
    /// Rounds a matrix `[F, D]`.
    pub fn fill(&mut self, w_FD: &[f32], d: usize) {
        let (f, width) = (w_FD.len() / d, d.next_multiple_of(GROUP));
        (self.d, self.f) = (d, f);
        self.bytes.resize(f.next_multiple_of(PANEL) * width, 0);
        self.rows.resize(f.next_multiple_of(PANEL), Row::default());
        let panels = self.bytes.par_chunks_exact_mut(PANEL * width).zip(self.rows.par_chunks_exact_mut(PANEL));
        panels.zip(w_FD.par_chunks(PANEL * d)).for_each_init(
            || vec![0i8; width],
            |rounded, ((bytes, rows), w)| {
                for (i, row) in rows.iter_mut().enumerate() {
                    rounded.fill(0);
                    *row = w.chunks_exact(d).nth(i).map_or(Row::default(), |w| round(w, rounded));
                    for (four, from) in rounded.chunks_exact(4).enumerate() {
                        bytes[(four * PANEL + i) * 4..][..4].copy_from_slice(from);
                    }
                }
            },
        );
    }

    /// Finds the entries of `x W^T + b` that are above both the token's bound and the latent's, exactly; where there are no
    /// bounds of latents, above the token's. A token's entries are in the order of the latents, and `then(token, entries)`
    /// may make something else of them, on all threads.
    pub fn scan(
        &mut self,
        (x_ND, w_FD): (&[f32], &[f32]),
        b_F: &[f32],
        (bounds_N, bounds_F): (&[f32], &[f32]),
        then: impl Fn(usize, &mut Found) + Sync,
    ) {
        let (d, shares) = (self.d, x_ND.len().div_ceil(TOKENS * self.d));
        let mut scratch = std::mem::take(&mut self.tokens);
        scratch.resize_with(shares.max(scratch.len()), Tokens::default);
        let parts = x_ND.par_chunks(TOKENS * d).zip(bounds_N.par_chunks(TOKENS)).zip(&mut scratch);
        parts.enumerate().for_each(|(i, ((x_ND, bounds_N), tokens))| {
            self.share(tokens, (x_ND, w_FD), b_F, (bounds_N, bounds_F));
            tokens.found.iter_mut().enumerate().for_each(|(token, found)| then(i * TOKENS + token, found));
        });
        self.tokens = scratch;
    }

    /// The entries of the last scan, token by token; behind its tokens may be those of a longer one.
    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.tokens.iter().flat_map(|tokens| &tokens.found)
    }

    /// All values of a token, as those of entries are computed.
    pub fn all(x_D: &[f32], w_FD: &[f32], b_F: &[f32], found: &mut Found) {
        let rows = w_FD.chunks_exact(x_D.len()).zip(b_F).enumerate();
        found.clear();
        found.extend(rows.map(|(latent, (w, b))| (latent as u32, dot(x_D, w) + b)));
    }

    fn share(
        &self,
        tokens: &mut Tokens,
        (x_ND, w_FD): (&[f32], &[f32]),
        b_F: &[f32],
        (bounds_N, bounds_F): (&[f32], &[f32]),
    ) {
        let (d, width) = (self.d, self.d.next_multiple_of(GROUP));
        let n = x_ND.len() / d;
        tokens.bytes.resize(n * width, OFFSET as u8);
        tokens.rows.clear();
        let mut signed = vec![0i8; width];
        for (x, bytes) in x_ND.chunks_exact(d).zip(tokens.bytes.chunks_exact_mut(width)) {
            tokens.rows.push(round(x, &mut signed));
            bytes.iter_mut().zip(&signed).for_each(|(b, s)| *b = (i32::from(*s) + OFFSET) as u8);
        }
        // As many lists as tokens, so that those of all shares stand behind each other.
        tokens.found.resize_with(n, Found::default);
        tokens.found.iter_mut().for_each(Found::clear);
        for (panel, bytes) in self.bytes.chunks_exact(PANEL * width).enumerate() {
            let first = panel * PANEL;
            let rows = &self.rows[first..first + PANEL];
            let mut of = Latents { n: self.f.saturating_sub(first).min(PANEL), ..Latents::default() };
            for (i, row) in rows.iter().enumerate().take(of.n) {
                // A little more, for adding it is rounded too.
                of.bias[i] = b_F[first + i] + 1e-6 * b_F[first + i].abs();
                of.bound[i] = bounds_F.get(first + i).copied().unwrap_or(f32::NEG_INFINITY);
                (of.scale[i], of.sum[i]) = (row.scale, row.sum);
                (of.error[i], of.rounded[i]) = (row.error + rounding(d) * row.length, row.rounded);
            }
            tokens.hits.clear();
            look(bytes, width, (&tokens.bytes, &tokens.rows), &of, bounds_N, &mut tokens.hits);
            for (token, i) in tokens.hits.drain(..) {
                let (token, latent) = (token as usize, first + i as usize);
                let value = dot(&x_ND[token * d..(token + 1) * d], &w_FD[latent * d..(latent + 1) * d]) + b_F[latent];
                // What is no number is passed on, and told of by whoever sums it.
                if value > bounds_N[token] && value > of.bound[i as usize] || value.is_nan() {
                    tokens.found[token].push((latent as u32, value));
                }
            }
        }
    }
}

/// What is known of a panel's latents.
#[derive(Default)]
struct Latents {
    /// How many there are.
    n: usize,
    scale: [f32; PANEL],
    sum: [i32; PANEL],
    bias: [f32; PANEL],
    bound: [f32; PANEL],
    error: [f32; PANEL],
    rounded: [f32; PANEL],
}

impl Latents {
    /// Which latents of a token may be above their bounds, given the sums of products of bytes.
    #[inline(always)]
    fn hits(&self, sums: &[i32; PANEL], token: &Row, bound: f32, mut hit: impl FnMut(u32)) {
        let mut may = [false; PANEL];
        for i in 0..PANEL {
            let value = (sums[i] - self.sum[i]) as f32 * (self.scale[i] * token.scale) + self.bias[i];
            let most = value + token.length * self.error[i] + token.error * self.rounded[i];
            // What is no number may be anything.
            may[i] = (most > bound) & (most > self.bound[i]) | most.is_nan();
        }
        if may.contains(&true) {
            (0..self.n).filter(|i| may[*i]).for_each(|i| hit(i as u32));
        }
    }
}

/// Sums products of a panel's bytes with those of all tokens, and keeps the pairs that may be above their bounds, in the
/// order of the latents for each token.
fn look(
    panel: &[i8],
    width: usize,
    (bytes, rows): (&[u8], &[Row]),
    of: &Latents,
    bounds_N: &[f32],
    hits: &mut Vec<(u32, u32)>,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features are there, and the slices are as long as is asked below.
        return unsafe { avx2::look(panel, width, (bytes, rows), of, bounds_N, hits) };
    }
    for (token, row) in rows.iter().enumerate() {
        let x = &bytes[token * width..(token + 1) * width];
        let sums = std::array::from_fn(|i| {
            let four = |(four, x): (usize, &[u8])| -> i32 {
                let w = &panel[(four * PANEL + i) * 4..][..4];
                w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum()
            };
            x.chunks_exact(4).enumerate().map(four).sum()
        });
        of.hits(&sums, row, bounds_N[token], |i| hits.push((token as u32, i)));
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{GROUP, Latents, PANEL, Row};

    /// Tokens of a tile: with two vectors of latents they take eight of the sixteen registers.
    const ROWS: usize = 4;

    /// # Safety
    /// AVX2 and FMA are there. `bytes` has `width` bytes a row of `rows`, `panel` as many for each of its latents, and
    /// `width` is a multiple of `GROUP`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn look(
        panel: &[i8],
        width: usize,
        (bytes, rows): (&[u8], &[Row]),
        of: &Latents,
        bounds_N: &[f32],
        hits: &mut Vec<(u32, u32)>,
    ) {
        assert!(bytes.len() >= rows.len() * width && panel.len() == PANEL * width && width.is_multiple_of(GROUP));
        let mut token = 0;
        while token < rows.len() {
            let left = (rows.len() - token).min(ROWS);
            let x = bytes[token * width..].as_ptr();
            // SAFETY: by the caller's promise; as many rows are read as are left.
            let sums = unsafe {
                match left {
                    1 => tile::<1>(panel.as_ptr(), x, width),
                    2 => tile::<2>(panel.as_ptr(), x, width),
                    3 => tile::<3>(panel.as_ptr(), x, width),
                    _ => tile::<ROWS>(panel.as_ptr(), x, width),
                }
            };
            for (i, sums) in sums.iter().enumerate().take(left) {
                of.hits(sums, &rows[token + i], bounds_N[token + i], |latent| hits.push(((token + i) as u32, latent)));
            }
            token += left;
        }
    }

    /// Sums of products of `R` rows with a panel.
    ///
    /// # Safety
    /// As for [`look`], with `R` rows at `x`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const R: usize>(panel: *const i8, x: *const u8, width: usize) -> [[i32; PANEL]; ROWS] {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        let ones = _mm256_set1_epi16(1);
        // SAFETY: `width` bytes are there in each row, and `PANEL` times as many in the panel.
        unsafe {
            for at in (0..width).step_by(GROUP) {
                let w = panel.add(at * PANEL).cast::<__m256i>();
                let w = [
                    [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))],
                    [_mm256_loadu_si256(w.add(2)), _mm256_loadu_si256(w.add(3))],
                ];
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = x.add(r * width + at).cast::<i32>();
                    let x = [_mm256_set1_epi32(x.read_unaligned()), _mm256_set1_epi32(x.add(1).read_unaligned())];
                    for v in 0..2 {
                        let pairs =
                            _mm256_add_epi16(_mm256_maddubs_epi16(x[0], w[0][v]), _mm256_maddubs_epi16(x[1], w[1][v]));
                        acc[v] = _mm256_add_epi32(acc[v], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            let mut sums = [[0i32; PANEL]; ROWS];
            for (sums, acc) in sums.iter_mut().zip(&acc) {
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc[0]);
                _mm256_storeu_si256(sums.as_mut_ptr().add(8).cast(), acc[1]);
            }
            sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() + next() + next()).collect()
    }

    /// All that is above its bounds, by the naive loop.
    fn naive(x: &[f32], w: &[f32], d: usize, b: &[f32], bounds: (&[f32], &[f32])) -> Vec<Found> {
        let one = |(x, bound): (&[f32], &f32)| {
            let of = |(l, w): (usize, &[f32])| (l as u32, dot(x, w) + b[l]);
            let above = |(l, v): &(u32, f32)| *v > *bound && *v > bounds.1[*l as usize];
            w.chunks_exact(d).enumerate().map(of).filter(above).collect()
        };
        x.chunks_exact(d).zip(bounds.0).map(one).collect()
    }

    #[test]
    fn what_is_found_is_what_is_there() {
        for (n, d, f) in [(1, 8, 16), (7, 24, 40), (33, 64, 100), (300, 61, 257), (5, 768, 50)] {
            let (mut x, mut w, b) = (values(n * d, 1), values(f * d, 2), values(f, 3));
            // A column far larger than the others, a row of zeros, a latent of zeros.
            x.iter_mut().step_by(d).for_each(|x| *x *= 50.0);
            x[..d].fill(0.0);
            w[d..2 * d].fill(0.0);
            let mut screen = Screen::default();
            screen.fill(&w, d);
            for share in [0.0, 1.0, 2.5] {
                let spread = (d as f32).sqrt();
                let bounds_N: Vec<f32> = values(n, 4).iter().map(|v| share * spread + v).collect();
                let bounds_F: Vec<f32> = values(f, 5).iter().map(|v| share * spread + v).collect();
                let want = naive(&x, &w, d, &b, (&bounds_N, &bounds_F));
                let mut got = vec![Found::default(); n];
                screen.scan((&x, &w), &b, (&bounds_N, &bounds_F), |_, _| {});
                got.iter_mut().zip(screen.found()).for_each(|(got, found)| got.clone_from(found));
                assert_eq!(got, want, "{n} x {d} x {f} at {share}");
            }
        }
    }

    #[test]
    fn what_bytes_cannot_say_is_computed() {
        // Rows too small, too large or no numbers; a bias far above its products; panels that are not full.
        let (n, d, f) = (9, 40, 21);
        let (mut x, mut w, mut b) = (values(n * d, 1), values(f * d, 2), values(f, 3));
        x[..d].iter_mut().for_each(|x| *x *= 1e-30);
        x[d..2 * d].iter_mut().for_each(|x| *x *= 1e17);
        x[2 * d] = f32::NAN;
        x[3 * d] = f32::INFINITY;
        w[..d].iter_mut().for_each(|w| *w *= 1e-33);
        w[d] = f32::NEG_INFINITY;
        w[2 * d..3 * d].iter_mut().for_each(|w| *w *= 1e19);
        b[5] = 1e4;
        let mut screen = Screen::default();
        screen.fill(&w, d);
        let (bounds_N, bounds_F) = (vec![0.5; n], vec![f32::NEG_INFINITY; f]);
        screen.scan((&x, &w), &b, (&bounds_N, &bounds_F), |_, _| {});
        for ((token, found), x) in screen.found().take(n).enumerate().zip(x.chunks_exact(d)) {
            let of = |l: usize| dot(x, &w[l * d..(l + 1) * d]) + b[l];
            let want: Vec<u32> = (0..f as u32).filter(|l| of(*l as usize) > 0.5 || of(*l as usize).is_nan()).collect();
            assert_eq!(found.iter().map(|(l, _)| *l).collect::<Vec<_>>(), want, "token {token}");
        }
    }

    #[test]
    fn bytes_lose_nothing_at_their_largest() {
        // All at the ends of their range, with both signs: the sums of pairs come as near to 16 bits as they can.
        let (n, d, f) = (8, 64, 32);
        let sign = |i: usize| if (i * 7 + i / 5).is_multiple_of(3) { -1.0 } else { 1.0 };
        let (x, w): (Vec<f32>, Vec<f32>) = ((0..n * d).map(|_| 1.0).collect(), (0..f * d).map(sign).collect());
        let mut screen = Screen::default();
        screen.fill(&w, d);
        let (bounds_N, bounds_F, b) = (vec![0.5; n], vec![f32::NEG_INFINITY; f], vec![0.0; f]);
        screen.scan((&x, &w), &b, (&bounds_N, &bounds_F), |_, _| {});
        let got: Vec<Found> = screen.found().take(n).cloned().collect();
        assert_eq!(got, naive(&x, &w, d, &b, (&bounds_N, &bounds_F)));
    }
}
