//! Numbers drawn at random, by key: what is drawn depends on the key alone, never on the order of the work.

use exegete_base::sampling::pair_hash;

/// A stream of numbers (SplitMix64, Steele et al. 2014) that begins at a hash of its key.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The stream of a seed, a purpose and a number within it.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let purpose = purpose.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(u64::from(byte)));
        Self(pair_hash(seed, purpose, number))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `n`, which must not be 0. The bias, below n / 2^64, does not matter here.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Normal with mean 0 and variance 1 (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A sparse feature: uniform in [0, 1) with probability `density`, else 0.
    pub fn sparse(&mut self, density: f64) -> f32 {
        let u = self.unit();
        if u < density { (u / density) as f32 } else { 0.0 }
    }

    /// The first `k` places of `items` become `k` of them, drawn without putting back.
    pub fn pick_first<T>(&mut self, items: &mut [T], k: usize) {
        for i in 0..k.min(items.len()) {
            let other = i + self.below(items.len() - i);
            items.swap(i, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Draws;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut draws = Draws::new(1, "moments", 0);
        let n = 100_000;
        let (mut sum, mut squares, mut active, mut value) = (0.0, 0.0, 0, 0.0);
        for _ in 0..n {
            let z = draws.normal();
            (sum, squares) = (sum + z, squares + z * z);
            let x = draws.sparse(0.1);
            (active, value) = (active + usize::from(x > 0.0), value + f64::from(x));
        }
        assert!((sum / n as f64).abs() < 0.015 && (squares / n as f64 - 1.0).abs() < 0.03);
        assert!((active as f64 / n as f64 - 0.1).abs() < 0.005 && (value / n as f64 - 0.05).abs() < 0.003);
    }

    #[test]
    fn keys_give_different_streams_and_the_same_key_the_same() {
        let first = |seed, purpose, number| Draws::new(seed, purpose, number).bits();
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        assert!(first(1, "a", 2) != first(1, "a", 3) && first(1, "a", 2) != first(1, "b", 2));
    }
}
