//! MT19937 (Matsumoto & Nishimura 1998) with the two ways of drawing uniform numbers from it that the published
//! runs used, so that a seed gives the very data and initial weights that the authors' notebook had.

const N: usize = 624;
const M: usize = 397;

/// The generator behind `numpy.random.seed` and `torch.manual_seed`.
#[derive(Debug, Clone)]
pub struct Twister {
    state: [u32; N],
    next: usize,
}

impl Twister {
    /// A generator seeded as both libraries do it.
    pub fn new(seed: u32) -> Self {
        let mut state = [0; N];
        state[0] = seed;
        for i in 1..N {
            let before: u32 = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.next == N {
            self.turn();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number in [0, 1) with 53 random bits, as `numpy.random.rand` draws it.
    pub fn double(&mut self) -> f64 {
        let (high, low) = (f64::from(self.bits() >> 5), f64::from(self.bits() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// A number in [-bound, bound) with 24 random bits, as `torch.nn.init.uniform_` draws it on a CPU.
    pub fn float(&mut self, bound: f32) -> f32 {
        let unit = (self.bits() & 0x00ff_ffff) as f32 / 16_777_216.0;
        unit * (bound + bound) - bound
    }

    fn turn(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Twister;

    #[test]
    fn the_numbers_are_those_of_numpy_and_torch() {
        // numpy.random.seed(0); numpy.random.rand(3)
        let mut twister = Twister::new(0);
        for want in [0.548_813_503_927_324_8, 0.715_189_366_372_419_4, 0.602_763_376_071_643_9] {
            assert!((twister.double() - want).abs() < 1e-15);
        }
        // torch.manual_seed(0); torch.rand(3) is 0.4963, 0.7682, 0.0885.
        let mut twister = Twister::new(0);
        for want in [0.4963f32, 0.7682, 0.0885] {
            assert!((f32::midpoint(twister.float(1.0), 1.0) - want).abs() < 1e-4);
        }
    }
}
