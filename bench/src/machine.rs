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
    /// Single-precision operations a second, of fused multiply-adds that touch no memory.
    pub(crate) flops: f64,
    /// Operations a second of products in bf16. Not what the unit could do at best: the fastest of our own products
    /// with packed weights that stay in the second-level cache, rounding of the rows and writing of the sums included.
    /// So it moves with our kernel, and a part of its floor says how much the rest of the work adds to the products.
    pub(crate) bf16_flops: Option<f64>,
    /// Bytes a second, read in order from memory.
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
        Ok(Self { values: vec![1f32; BYTES / 4], bf16 })
    }

    /// Measures once, in about a tenth of a second.
    pub(crate) fn measure(&self) -> Rates {
        const STEPS: usize = 10_000_000;
        let rate = |amount: usize, work: &(dyn Fn() + Sync)| {
            let start = Instant::now();
            std::thread::scope(|s| (0..THREADS).for_each(|_| drop(s.spawn(work))));
            (THREADS * amount) as f64 / start.elapsed().as_secs_f64()
        };
        let flops = rate(STEPS * CHAINS * LANES * 2, &|| {
            std::hint::black_box(multiply_add(STEPS));
        });
        let bytes = rate(4 * self.values.len(), &|| {
            std::hint::black_box(sum(&self.values));
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
/// Independent chains: enough to hide the latency of the multiply-add, few enough for the registers.
const CHAINS: usize = 6;

fn multiply_add(steps: usize) -> [[f32; LANES]; CHAINS] {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        fn wide(steps: usize) -> [[f32; LANES]; CHAINS] {
            chains(steps)
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow(steps: usize) -> [[f32; LANES]; CHAINS] {
            chains(steps)
        }
        if is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
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
fn chains(steps: usize) -> [[f32; LANES]; CHAINS] {
    let mut acc = [[1f32; LANES]; CHAINS];
    let (scale, shift) = (std::hint::black_box([0.5f32; LANES]), std::hint::black_box([0.5f32; LANES]));
    for _ in 0..steps {
        for c in 0..CHAINS {
            for l in 0..LANES {
                acc[c][l] = acc[c][l].mul_add(scale[l], shift[l]);
            }
        }
    }
    acc
}

/// Wide enough in any instruction set that memory is what it waits for.
fn sum(values: &[f32]) -> f32 {
    let mut acc = [0f32; 4 * LANES];
    for chunk in values.as_chunks::<{ 4 * LANES }>().0 {
        for l in 0..4 * LANES {
            acc[l] += chunk[l];
        }
    }
    acc.iter().sum()
}
