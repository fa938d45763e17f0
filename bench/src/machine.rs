//! What this machine can do at best, for the floors.

use std::time::Instant;

use crate::side::THREADS;

/// Best rates of all threads together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Single-precision operations a second, of fused multiply-adds that touch no memory.
    pub(crate) flops: f64,
    /// Bytes a second, read in order from memory.
    pub(crate) bytes: f64,
}

/// A part of the work that cannot overlap with the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    /// Operations.
    pub(crate) flops: f64,
    /// Bytes that must come from or go to memory.
    pub(crate) bytes: f64,
}

impl Machine {
    /// Measures; the best of several tries, because others may be at work.
    pub(crate) fn measure() -> Self {
        const STEPS: usize = 20_000_000;
        const BYTES: usize = 256 << 20;
        let best = |amount: f64, work: &(dyn Fn() + Sync)| {
            let secs = (0..7).map(|_| {
                let start = Instant::now();
                std::thread::scope(|s| (0..THREADS).for_each(|_| drop(s.spawn(work))));
                start.elapsed().as_secs_f64()
            });
            THREADS as f64 * amount / secs.fold(f64::INFINITY, f64::min)
        };
        let values = vec![1f32; BYTES / 4];
        let flops = best((STEPS * CHAINS * LANES * 2) as f64, &|| {
            std::hint::black_box(multiply_add(STEPS));
        });
        let bytes = best(BYTES as f64, &|| {
            std::hint::black_box(sum(&values));
        });
        Self { flops, bytes }
    }

    /// The least time in which the phases can be done.
    pub(crate) fn floor_secs(&self, phases: &[Phase]) -> f64 {
        phases.iter().map(|p| (p.flops / self.flops).max(p.bytes / self.bytes)).sum()
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
