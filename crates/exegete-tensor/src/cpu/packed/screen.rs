//! Which products of rows can be large: whole matrices in bf16, and exact values of the few that pass.
//!
//! Of `h = x W^T + b` a sparse dictionary wants only the largest values of each row. So rows are rounded to bf16, of which
//! the matrix unit makes products many times as fast as of `f32`, and vectors twice as fast. They give each value up to an
//! error that is bounded by Cauchy and Schwarz: `|x . w - x^ . w^| <= |x| |w - w^| + |x - x^| |w^|`. Where a value cannot
//! reach its bound, it is passed over; where it can, it is computed in `f32`, by [`dot`]. What comes out is therefore
//! exact, and the same however it was found.

use rayon::prelude::*;

use super::layout::{encode_bf16, from_bf16, halves, splits_up_to, to_bf16};
use super::memory::Scratch;
use super::tile::{PANEL, SLICE, Tile};
use super::{Content, Keep, Path, Stack};
use crate::cpu::simd::{dot, simd_fn};

/// Tokens whose products with a panel are summed together: two tiles of the matrix unit.
const ROWS: usize = 32;
/// Tokens that a thread looks through at a time, at most: enough that a panel is used often, few enough to stay near.
const MOST_TOKENS: usize = 256;

/// Sums of so many products in `f32` are off by less than this share of `|x| |w|`: those of the matrix unit are one chain,
/// and [`dot`] has 32 of them, which it adds up.
fn rounding(d: usize) -> f32 {
    1e-6 * (8.0 + d as f32 / 6.0)
}

/// Whether this machine multiplies bf16 so much faster than `f32` that screening pays.
pub fn pays() -> bool {
    Way::best() != Way::Portable
}

/// How products are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// On the matrix unit.
    #[cfg(target_arch = "x86_64")]
    Unit,
    /// Of pairs of bf16, on vectors.
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// By what every machine has.
    Portable,
}

impl Way {
    /// The fastest of this machine.
    fn best() -> Self {
        match Path::best() {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => Self::Unit,
            #[cfg(target_arch = "x86_64")]
            Path::Pairs => Self::Pairs,
            Path::Floats(_) => Self::Portable,
        }
    }
}

/// A row's entries that are above their bounds: of each its column and its value. What is no number is above nothing.
pub type Found = Vec<(u32, f32)>;

/// A matrix in bf16, beside the `f32` rows that it is made of.
pub struct Screen {
    way: Way,
    d: usize,
    f: usize,
    panels: Option<Stack>,
    rows: Vec<Row>,
}

impl Default for Screen {
    fn default() -> Self {
        Self { way: Way::best(), d: 0, f: 0, panels: None, rows: Vec::new() }
    }
}

/// What is known of a rounded row.
#[derive(Clone, Copy, Default, Debug)]
struct Row {
    /// Length of the row as it is.
    length: f32,
    /// Length of the rounded row.
    rounded: f32,
    /// Length of what rounding took away.
    error: f32,
}

/// What was found of some tokens, and the memory that it took.
#[derive(Default)]
pub struct Scan {
    /// Tokens of a share.
    each: usize,
    shares: Vec<Tokens>,
}

impl Scan {
    /// The entries that were found last, token by token.
    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.shares.iter().flat_map(|tokens| &tokens.found)
    }

    /// Those of one token.
    ///
    /// # Panics
    /// No such token.
    pub fn of(&mut self, token: usize) -> &mut Found {
        &mut self.shares[token / self.each].found[token % self.each]
    }
}

/// Scratch for a share of the tokens.
#[derive(Default)]
struct Tokens {
    rows: Vec<Row>,
    found: Vec<Found>,
    hits: Vec<(u32, u32)>,
}

#[inline(always)]
fn rounded_body<const FMA: bool>(row: &[f32]) -> Row {
    const LANES: usize = 16;
    let (mut most, mut sums) = ([0u32; LANES], [[0f32; LANES]; 3]);
    let mut take = |lane: usize, x: f32| {
        let back = from_bf16(to_bf16(x));
        most[lane] = most[lane].max(x.abs().to_bits());
        sums[0][lane] += x * x;
        sums[1][lane] += back * back;
        sums[2][lane] += (x - back) * (x - back);
    };
    let (whole, rest) = row.as_chunks::<LANES>();
    for values in whole {
        (0..LANES).for_each(|lane| take(lane, values[lane]));
    }
    rest.iter().enumerate().for_each(|(lane, x)| take(lane, *x));
    if !splits_up_to(most.into_iter().fold(0, u32::max)) {
        // Squares may vanish or overflow: an error that is no number lets everything pass.
        return Row { length: f32::NAN, rounded: f32::NAN, error: f32::NAN };
    }
    // Sums of squares are off themselves by far less than the thousandth that is added.
    let [length, rounded, error] = sums.map(|sum| sum.iter().sum::<f32>().sqrt() * 1.001);
    Row { length, rounded, error }
}
simd_fn!(fn rounded(row: &[f32]) -> Row = rounded_body);

impl Screen {
    /// Rounds a matrix `[F, D]`.
    pub fn fill(&mut self, w_FD: &[f32], d: usize) {
        let f = w_FD.len() / d;
        if (self.d, self.f) != (d, f) {
            (self.d, self.f, self.panels) = (d, f, None);
        }
        self.panels.get_or_insert_with(|| Stack::new(Keep::Bf16, 1, f, d)).fill(0, 0, w_FD);
        self.rows.resize(f, Row::default());
        self.rows.par_iter_mut().zip(w_FD.par_chunks_exact(d)).with_min_len(64).for_each(|(r, w)| *r = rounded(w));
    }

    /// Finds the entries of `x W^T + b` that are above both the token's bound and the latent's, exactly; where there are no
    /// bounds of latents, above the token's. A token's entries are in the order of the latents, and `then(token, entries)`
    /// may make something else of them, on all threads.
    ///
    /// # Panics
    /// Arrays that are not of the shapes of what was [filled](Self::fill) in, or no tokens.
    pub fn scan(
        &self,
        Scan { each, shares }: &mut Scan,
        (x_ND, w_FD): (&[f32], &[f32]),
        b_F: &[f32],
        (bounds_N, bounds_F): (&[f32], &[f32]),
        then: impl Fn(usize, &mut Found) + Sync,
    ) {
        let (d, n) = (self.d, bounds_N.len());
        assert!(n > 0 && x_ND.len() == n * d, "{n} tokens of {d} values");
        assert!(w_FD.len() == self.f * d && b_F.len() == self.f, "not the matrix that was filled in");
        assert!(bounds_F.is_empty() || bounds_F.len() == self.f, "a bound for each latent, or none");
        // Two shares for each thread, if that leaves enough to each.
        *each = n.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(ROWS).min(MOST_TOKENS);
        shares.resize_with(n.div_ceil(*each).max(shares.len()), Tokens::default);
        let parts = x_ND.par_chunks(*each * d).zip(bounds_N.par_chunks(*each)).zip(&mut *shares);
        parts.enumerate().for_each(|(i, ((x_ND, bounds_N), tokens))| {
            self.share(tokens, (x_ND, w_FD), b_F, (bounds_N, bounds_F));
            tokens.found.iter_mut().enumerate().for_each(|(token, found)| then(i * *each + token, found));
        });
        // What a longer scan left is not this one's.
        shares[n.div_ceil(*each)..].iter_mut().for_each(|tokens| tokens.found.clear());
    }

    /// All values of a token, as those of entries are computed.
    pub fn all(x_D: &[f32], w_FD: &[f32], b_F: &[f32], found: &mut Found) {
        let rows = w_FD.chunks_exact(x_D.len()).zip(b_F).enumerate();
        found.clear();
        found
            .extend(rows.map(|(latent, (w, b))| (latent as u32, dot(x_D, w) + b)).filter(|(_, value)| !value.is_nan()));
    }

    fn share(
        &self,
        tokens: &mut Tokens,
        (x_ND, w_FD): (&[f32], &[f32]),
        b_F: &[f32],
        (bounds_N, bounds_F): (&[f32], &[f32]),
    ) {
        let (d, n) = (self.d, x_ND.len() / self.d);
        let Some(Content::Panels { units, data, .. }) = self.panels.as_ref().map(|stack| &stack.content) else {
            unreachable!("a matrix is filled in before it is looked through");
        };
        tokens.rows.clear();
        tokens.rows.extend(x_ND.chunks_exact(d).map(rounded));
        // As many lists as tokens, so that those of all shares stand behind each other.
        tokens.found.resize_with(n, Found::default);
        tokens.found.iter_mut().for_each(Found::clear);
        let mut scratch = Scratch::operand();
        let mut product = Product::new((x_ND, d), &mut scratch, self.way);
        for (i, panel) in data.units().chunks_exact(*units).enumerate() {
            let first = i * PANEL;
            let mut of = Latents { n: (self.f - first).min(PANEL), ..Latents::default() };
            for (i, row) in self.rows[first..].iter().enumerate().take(of.n) {
                // A little more, for adding it is rounded too.
                of.bias[i] = b_F[first + i] + 1e-6 * b_F[first + i].abs();
                of.bound[i] = bounds_F.get(first + i).copied().unwrap_or(f32::NEG_INFINITY);
                (of.error[i], of.rounded[i]) = (row.error + rounding(d) * row.length, row.rounded);
            }
            tokens.hits.clear();
            for from in (0..n).step_by(ROWS) {
                let to = n.min(from + ROWS);
                let sums = product.sums(from / ROWS, panel);
                of.hits(sums, &tokens.rows[from..to], &bounds_N[from..to], |token, latent| {
                    tokens.hits.push(((from + token) as u32, latent));
                });
            }
            let rows = |(token, i): (u32, u32)| {
                let (token, latent) = (token as usize, first + i as usize);
                (&x_ND[token * d..(token + 1) * d], &w_FD[latent * d..(latent + 1) * d])
            };
            for (at, hit) in tokens.hits.iter().enumerate() {
                if let Some(next) = tokens.hits.get(at + 1) {
                    let (x, w) = rows(*next);
                    prefetch(x);
                    prefetch(w);
                }
                let ((x, w), (token, i)) = (rows(*hit), (hit.0 as usize, hit.1 as usize));
                let value = dot(x, w) + b_F[first + i];
                if value > bounds_N[token] && value > of.bound[i] {
                    tokens.found[token].push(((first + i) as u32, value));
                }
            }
        }
    }
}

/// Asks for a row that will be needed next.
#[inline(always)]
fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        // SAFETY: the instruction is part of every machine of this kind, and harmless at any address.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Sums of the products of [`ROWS`] tokens with a panel's latents.
#[repr(align(64))]
struct Sums([f32; ROWS * PANEL]);

/// What is known of a panel's latents.
struct Latents {
    /// How many there are.
    n: usize,
    bias: [f32; PANEL],
    bound: [f32; PANEL],
    error: [f32; PANEL],
    rounded: [f32; PANEL],
}

impl Default for Latents {
    fn default() -> Self {
        let none = [0.0; PANEL];
        Self { n: 0, bias: none, bound: none, error: none, rounded: none }
    }
}

impl Latents {
    /// The pairs of a token and a latent that may be above their bounds, given their sums.
    fn hits(&self, sums: &Sums, tokens: &[Row], bounds: &[f32], mut hit: impl FnMut(usize, u32)) {
        let there = u32::MAX >> (PANEL - self.n);
        for (token, ((row, bound), sums)) in tokens.iter().zip(bounds).zip(sums.0.as_chunks::<PANEL>().0).enumerate() {
            let mut may = there & may_pass(self, sums, row, *bound);
            while may != 0 {
                hit(token, may.trailing_zeros());
                may &= may - 1;
            }
        }
    }
}

/// Which latents, a bit each, may be above their bounds for a token.
#[inline(always)]
fn may_pass_body<const FMA: bool>(of: &Latents, sums: &[f32; PANEL], token: &Row, bound: f32) -> u32 {
    let mut pass = [0u32; PANEL];
    for i in 0..PANEL {
        let most = sums[i] + of.bias[i] + token.length * of.error[i] + token.error * of.rounded[i];
        // What is no number may be anything.
        pass[i] = u32::from((most > bound) & (most > of.bound[i]) | most.is_nan());
    }
    // Mostly none passes, which a comparison of vectors tells at once.
    if pass.iter().fold(0, |any, pass| any | pass) == 0 {
        return 0;
    }
    pass.iter().enumerate().fold(0, |bits, (i, pass)| bits | pass << i)
}
simd_fn!(fn may_pass(of: &Latents, sums: &[f32; PANEL], token: &Row, bound: f32) -> u32 = may_pass_body);

/// Tokens in bf16, in the order in which the machine multiplies them.
struct Product<'a> {
    packed: &'a [u32],
    /// Units of [`ROWS`] tokens.
    each: usize,
    sums: Sums,
    way: Way,
}

impl<'a> Product<'a> {
    /// `way` only where the machine has it.
    fn new((x_ND, d): (&[f32], usize), scratch: &'a mut Scratch, way: Way) -> Self {
        let n = x_ND.len() / d;
        let each = match way {
            // Slice by slice, each with all tokens at the stride of a tile.
            #[cfg(target_arch = "x86_64")]
            Way::Pairs => ROWS * d.div_ceil(2).next_multiple_of(SLICE),
            _ => ROWS * d.next_multiple_of(32) / 2,
        };
        let packed = scratch.units(n.div_ceil(ROWS) * each);
        match way {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the unit is there and allowed, and no other code of this thread uses it until this is dropped.
            Way::Unit => unsafe {
                super::amx::pack_rows((x_ND, d), d, (0, n), packed);
                super::amx::configure();
            },
            #[cfg(target_arch = "x86_64")]
            Way::Pairs => {
                for (token, x) in x_ND.chunks_exact(d).enumerate() {
                    let to = &mut packed[token / ROWS * each + token % ROWS * SLICE..];
                    for (slice, x) in x.chunks(2 * SLICE).enumerate() {
                        encode_bf16(x, &mut to[slice * ROWS * SLICE..][..x.len().next_multiple_of(32) / 2]);
                    }
                }
            }
            Way::Portable => {
                for (token, units) in packed.chunks_exact_mut(each / ROWS).enumerate() {
                    encode_bf16(x_ND.get(token * d..(token + 1) * d).unwrap_or(&[]), units);
                }
            }
        }
        Self { packed, each, sums: Sums([0.0; ROWS * PANEL]), way }
    }

    /// The sums of the tokens from `ROWS i` on with a panel. Those beyond the last token may be anything.
    fn sums(&mut self, i: usize, panel: &[u32]) -> &Sums {
        let x = &self.packed[i * self.each..(i + 1) * self.each];
        match self.way {
            #[cfg(target_arch = "x86_64")]
            Way::Unit => {
                // Each pair of tiles asks for a part of the panel that comes next.
                let ahead = panel.as_ptr().wrapping_add(panel.len() + i % 4 * panel.len() / 4);
                // SAFETY: the unit is configured, the operands are whole, and there is room for two tiles of sums.
                unsafe { super::amx::pair_by_panel(x, panel, &mut self.sums.0, ahead) };
            }
            #[cfg(target_arch = "x86_64")]
            Way::Pairs => pairs_by_panel(x, panel, i % 4, &mut self.sums),
            Way::Portable => {
                let row_units = self.each / ROWS;
                for (token, sums) in self.sums.0.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                    sums.fill(0.0);
                    let x = &x[token * row_units..(token + 1) * row_units];
                    for (x, weights) in x.iter().zip(panel.as_chunks::<PANEL>().0) {
                        let x = halves(*x);
                        for (sum, w) in sums.iter_mut().zip(weights) {
                            let w = halves(*w);
                            *sum += x[0] * w[0] + x[1] * w[1];
                        }
                    }
                }
            }
        }
        &self.sums
    }
}

/// Tokens by a panel, on vectors. Asks for a quarter of the panel that comes next, the `part`-th.
#[cfg(target_arch = "x86_64")]
fn pairs_by_panel(x: &[u32], panel: &[u32], part: usize, sums: &mut Sums) {
    /// Rows of a tile: as many of the kernel's 14 as give whole tiles of about the same size.
    const TILE: usize = ROWS.div_ceil(3);
    let kernel = super::avx512::BF16;
    let line = 64 / size_of::<u32>();
    let ahead = panel.as_ptr().wrapping_add(panel.len() + part * panel.len() / 4);
    for (i, (x, panel)) in x.chunks_exact(ROWS * SLICE).zip(panel.chunks(SLICE * PANEL)).enumerate() {
        for row in (0..ROWS).step_by(TILE) {
            // The first tile asks for a line at each unit, of which a panel has two: twice the quarter, of which the half
            // that comes next is asked for again.
            let asks = if row == 0 { ahead.wrapping_add(i * SLICE * line) } else { panel.as_ptr() };
            let tile = Tile {
                rows: TILE.min(ROWS - row),
                units: panel.len() / PANEL,
                x: x[row * SLICE..].as_ptr(),
                panels: 1,
                w: panel.as_ptr(),
                w_stride: 0,
                sums: sums.0[row * PANEL..].as_mut_ptr(),
                resume: i > 0,
                ahead: [asks; 2],
                ahead_step: [if row == 0 { 64 } else { 0 }; 2],
            };
            // SAFETY: the machine has the kernel's instructions, and there are as many rows, units and sums.
            unsafe { (kernel.run)(&tile) };
        }
    }
}

impl Drop for Product<'_> {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.way == Way::Unit {
            // SAFETY: it was configured by this thread, which alone drops this.
            unsafe { super::amx::release() }
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

    /// In every way that this machine has.
    fn ways() -> impl Iterator<Item = Screen> {
        let mut ways = vec![Way::Portable, Way::best()];
        #[cfg(target_arch = "x86_64")]
        if super::super::layout::has_avx512_bf16() {
            ways.push(Way::Pairs);
        }
        ways.dedup();
        ways.into_iter().map(|way| Screen { way, ..Screen::default() })
    }

    #[test]
    fn what_is_found_is_what_is_there() {
        let mut scan = Scan::default();
        for mut screen in ways() {
            // A short scan comes behind a long one, and other weights of the same shape behind the first.
            for (n, d, f) in [(1, 8, 16), (7, 24, 40), (33, 64, 100), (300, 61, 257), (300, 61, 257), (40, 768, 50)] {
                let (mut x, mut w, b) = (values(n * d, 1), values(f * d, screen.f as u32), values(f, 3));
                // A column far larger than the others, a row of zeros, a latent of zeros.
                x.iter_mut().step_by(d).for_each(|x| *x *= 50.0);
                x[..d].fill(0.0);
                w[d..2 * d].fill(0.0);
                screen.fill(&w, d);
                let spread = (d as f32).sqrt();
                // Of every other token the bound is one of its values, of the others it is the next below that.
                let edge = |(token, x): (usize, &[f32])| {
                    let latent = token * 7 % f;
                    let value = dot(x, &w[latent * d..(latent + 1) * d]) + b[latent];
                    if token % 2 == 0 { value } else { value.next_down() }
                };
                let edges: Vec<f32> = x.chunks_exact(d).enumerate().map(edge).collect();
                let at = |share: f32| values(n, 4).iter().map(|v| share * spread + v).collect();
                for bounds_N in [at(0.0), at(1.0), at(2.5), edges] {
                    let bounds_F: Vec<f32> = values(f, 5).iter().map(|v| bounds_N[0].abs() - 3.0 + v).collect();
                    for bounds_F in [bounds_F, vec![f32::NEG_INFINITY; f]] {
                        let want = naive(&x, &w, d, &b, (&bounds_N, &bounds_F));
                        screen.scan(&mut scan, (&x, &w), &b, (&bounds_N, &bounds_F), |_, _| {});
                        let got: Vec<Found> = scan.found().cloned().collect();
                        assert_eq!(got, want, "{:?}, {n} x {d} x {f}", screen.way);
                        assert!((0..n).all(|token| *scan.of(token) == want[token]));
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_rounded_is_computed() {
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
        w[3 * d + 1] = -f32::NAN;
        b[5] = 1e4;
        let (bounds_N, bounds_F) = (vec![0.5; n], vec![f32::NEG_INFINITY; f]);
        let want = naive(&x, &w, d, &b, (&bounds_N, &bounds_F));
        assert!(want[1].len() > 1 && want[2].is_empty(), "{want:?}");
        for mut screen in ways() {
            screen.fill(&w, d);
            let mut scan = Scan::default();
            screen.scan(&mut scan, (&x, &w), &b, (&bounds_N, &bounds_F), |_, _| {});
            assert!(scan.found().eq(&want), "{:?}", screen.way);
        }
    }
}
