//! What this machine can do at best, for the floors.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use exegete_tensor::{Keep, Matrix, Stack};
use serde::{Deserialize, Serialize};

use crate::side::THREADS;

/// Rates of all threads together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Single-precision operations a second, of fused multiply-adds on vectors, that touch no memory. Our own products of
    /// many rows can be faster where there is a matrix unit (`exegete_tensor::cpu::packed`), so a part of this floor can
    /// be above 1 there.
    pub(crate) flops: f64,
    /// Operations a second of products in bf16. Not what the unit could do at best: the fastest of our own products
    /// with packed weights that stay in the second-level cache, rounding of the rows and writing of the sums included.
    /// So it moves with our kernel, and a part of its floor says how much the rest of the work adds to the products.
    pub(crate) bf16_flops: Option<f64>,
    /// Bytes a second, read from memory: two streams a thread, in huge pages where the system has them, asked for a
    /// little ahead. One stream in small pages gets two thirds of it.
    pub(crate) bytes: f64,
}

/// A part of the work that cannot overlap with the others.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// Operations in f32.
    pub(crate) flops: f64,
    /// Operations in bf16.
    pub(crate) bf16_flops: f64,
    /// Bytes that must come from or go to memory.
    pub(crate) bytes: f64,
}

/// Whether the processor multiplies bf16.
pub(crate) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// Measures the machine, again and again: what others leave of it changes while a row runs.
pub(crate) struct Machine {
    values: Vec<f32>,
    bf16: Option<Product>,
}

impl Machine {
    /// Makes ready; the rate in bf16 is measured only where it is asked for and the machine has one.
    pub(crate) fn new(bf16: bool) -> Result<Self> {
        const BYTES: usize = 256 << 20;
        let bf16 = if bf16 && multiplies_bf16() { Some(Product::fastest()?) } else { None };
        let mut values = vec![0f32; BYTES / 4];
        in_huge_pages(&values);
        values.fill(1.0);
        Ok(Self { values, bf16 })
    }

    /// Measures once, in about a tenth of a second.
    pub(crate) fn measure(&self) -> Rates {
        const STEPS: usize = 10_000_000;
        // The amounts of all threads, over the time until the last has ended.
        let rate = |work: &(dyn Fn(usize) -> usize + Sync)| {
            let start = Instant::now();
            let amount: usize = std::thread::scope(|s| {
                let threads: Vec<_> = (0..THREADS).map(|t| s.spawn(move || work(t))).collect();
                threads.into_iter().map(|t| t.join().unwrap_or(0)).sum()
            });
            amount as f64 / start.elapsed().as_secs_f64()
        };
        let flops = rate(&|_| multiply_add(STEPS));
        let share = self.values.len() / THREADS;
        let bytes = rate(&|t| {
            let values = &self.values[t * share..(t + 1) * share];
            std::hint::black_box(sum(values));
            size_of_val(values)
        });
        Rates { flops, bytes, bf16_flops: self.bf16.as_ref().map(Product::rate) }
    }
}

impl Rates {
    /// The better of each.
    pub(crate) fn best(self, other: Self) -> Self {
        let bf16_flops = self.bf16_flops.zip(other.bf16_flops).map(|(a, b)| a.max(b));
        Self { flops: self.flops.max(other.flops), bytes: self.bytes.max(other.bytes), bf16_flops }
    }

    /// The least time in which the phases can be done; none where there are none, or where a rate was not measured.
    pub(crate) fn floor_secs(&self, phases: &[Phase]) -> Option<f64> {
        let mut secs = 0.0;
        for p in phases {
            let bf16 = if p.bf16_flops > 0.0 { p.bf16_flops / self.bf16_flops? } else { 0.0 };
            secs += (p.flops / self.flops + bf16).max(p.bytes / self.bytes);
        }
        (!phases.is_empty()).then_some(secs)
    }
}

/// A product in bf16 whose operands stay in the second-level cache.
struct Product {
    pool: rayon::ThreadPool,
    m: usize,
    w: Matrix,
}

impl Product {
    /// The fastest of some shapes.
    fn fastest() -> Result<Self> {
        /// Rows, outputs and inputs of each.
        const SHAPES: [[usize; 3]; 4] = [[256, 256, 1536], [256, 512, 1024], [512, 512, 512], [512, 256, 1536]];
        const TRIES: usize = 5;
        let mut products = Vec::new();
        for [m, n, k] in SHAPES {
            let mut stack = Stack::new(Keep::Bf16, 1, n, k);
            stack.fill(0, 0, &vec![0.5; n * k]);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build()?;
            let product = Self { pool, m, w: Matrix::new(Arc::new(stack), 0) };
            let rate = (0..TRIES).map(|_| product.rate()).fold(0.0, f64::max);
            products.push((rate, product));
        }
        let best = products.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        Ok(best.context("no shapes")?.1)
    }

    /// Operations a second.
    fn rate(&self) -> f64 {
        const PRODUCTS: usize = 50;
        let (m, n, k) = (self.m, self.w.n(), self.w.k());
        let (x, mut out) = (vec![0.5f32; m * k], vec![0f32; m * n]);
        self.pool.install(|| {
            let start = Instant::now();
            (0..PRODUCTS).for_each(|_| self.w.forward(m, &x, None, std::hint::black_box(&mut out)));
            (PRODUCTS * 2 * m * n * k) as f64 / start.elapsed().as_secs_f64()
        })
    }
}

const LANES: usize = 16;

/// Fused multiply-adds in registers; how many operations that was.
fn multiply_add(steps: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        /// Written out, because an array of so many vectors is not kept in registers by itself.
        #[target_feature(enable = "avx512f")]
        fn wide(steps: usize) -> usize {
            use std::arch::x86_64::*;
            // Enough chains to hide the latency of an instruction on two units.
            const CHAINS: usize = 24;
            let (mut acc, half) = ([_mm512_set1_ps(1.0); CHAINS], _mm512_set1_ps(std::hint::black_box(0.5)));
            for _ in 0..steps {
                for acc in &mut acc {
                    *acc = _mm512_fmadd_ps(*acc, half, half);
                }
            }
            std::hint::black_box(acc);
            steps * CHAINS * 16 * 2
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow(steps: usize) -> usize {
            chains(steps)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was seen.
            return unsafe { wide(steps) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { narrow(steps) };
        }
    }
    chains(steps)
}

#[inline(always)]
fn chains(steps: usize) -> usize {
    /// In 256 bits, twelve chains.
    const CHAINS: usize = 6;
    let mut acc = [[1f32; LANES]; CHAINS];
    let (scale, shift) = (std::hint::black_box([0.5f32; LANES]), std::hint::black_box([0.5f32; LANES]));
    for _ in 0..steps {
        for c in 0..CHAINS {
            for l in 0..LANES {
                acc[c][l] = acc[c][l].mul_add(scale[l], shift[l]);
            }
        }
    }
    std::hint::black_box(acc);
    steps * CHAINS * LANES * 2
}

/// Wide enough in any instruction set that memory is what it waits for.
fn sum(values: &[f32]) -> f32 {
    /// Distance at which lines are asked for, in values.
    const AHEAD: usize = 192;
    let (one, two) = values.split_at(values.len() / 2);
    let mut acc = [[0f32; 2 * LANES]; 2];
    for pair in one.as_chunks::<{ 2 * LANES }>().0.iter().zip(two.as_chunks().0) {
        for (acc, chunk) in acc.iter_mut().zip([pair.0, pair.1]) {
            (0..2).for_each(|line| ask_for(chunk.as_ptr().wrapping_add(AHEAD + line * LANES)));
            for l in 0..2 * LANES {
                acc[l] += chunk[l];
            }
        }
    }
    acc.as_flattened().iter().sum()
}

fn ask_for(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for huge pages behind what has not been touched yet.
fn in_huge_pages(values: &[f32]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let skip = values.as_ptr().align_offset(PAGE);
        let whole = values.get(skip..).map_or(0, size_of_val) / PAGE * PAGE;
        // SAFETY: the range lies within the values, and the advice changes no content.
        unsafe { libc::madvise(values.as_ptr().wrapping_add(skip) as *mut _, whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = values;
}
