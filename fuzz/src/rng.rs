//! A small generator: the same mutation for the same seed.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// A generator from libFuzzer's seed.
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed) ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 16) as usize % n.max(1)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An element.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A whole number of the kinds that readers trip over, or one near `near`.
    pub fn whole(&mut self, near: u64) -> u64 {
        const ODD: [u64; 22] = [
            0,
            1,
            2,
            3,
            4,
            7,
            8,
            16,
            31,
            32,
            64,
            127,
            255,
            256,
            4096,
            65_535,
            65_536,
            1 << 20,
            1 << 31,
            1 << 32,
            1 << 53,
            u64::MAX,
        ];
        match self.below(8) {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => near.wrapping_mul(2),
            3 => near / 2,
            4 => self.bits() >> self.below(64),
            5 => ODD[self.below(ODD.len())].wrapping_sub(1),
            _ => ODD[self.below(ODD.len())],
        }
    }

    /// A float of the kinds that readers trip over, or one near `near`.
    pub fn float(&mut self, near: f64) -> f64 {
        const ODD: [f64; 14] =
            [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 1e30, 3.5e38, 1e300, -1e300, 1.0001, 2.0, 10_000.0];
        match self.below(6) {
            0 => -near,
            1 => near * 2.0,
            2 => near / 3.0,
            3 => near + 1.0,
            _ => ODD[self.below(ODD.len())],
        }
    }
}
