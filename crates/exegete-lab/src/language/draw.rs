//! Random choices that know their own probability.

/// Micronats of a nat.
const MICRO: f64 = 1e6;

/// A seeded source of choices, which sums -log p of those it made. Integers alone decide, so that a seed gives the same
/// choices on every machine.
#[derive(Debug, Clone)]
pub struct Draw {
    state: u64,
    visible_unats: u64,
    hidden_unats: u64,
    is_hidden: bool,
}

impl Draw {
    /// Choices from a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, visible_unats: 0, hidden_unats: 0, is_hidden: false }
    }

    /// -log p of all choices that show in the text, in nats.
    pub fn visible_nats(&self) -> f64 {
        self.visible_unats as f64 / MICRO
    }

    /// -log p of all choices behind the text (its kind, style, topic, task), in nats.
    pub fn hidden_nats(&self) -> f64 {
        self.hidden_unats as f64 / MICRO
    }

    /// Makes choices that stand behind the text.
    pub fn hidden<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.is_hidden, true);
        let out = f(self);
        self.is_hidden = before;
        out
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` that costs nothing.
    fn free_below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "a choice among nothing");
        // Values above the last multiple of n are drawn again, so that none is likelier.
        let end = u64::MAX - (u64::MAX % n + 1) % n;
        loop {
            let bits = self.bits();
            if bits <= end {
                return bits % n;
            }
        }
    }

    fn charge(&mut self, chosen: u64, of: u64) {
        let unats = (MICRO * (of as f64 / chosen as f64).ln()).round() as u64;
        match self.is_hidden {
            true => self.hidden_unats += unats,
            false => self.visible_unats += unats,
        }
    }

    /// A number below `n`, all equally likely.
    pub fn below(&mut self, n: usize) -> usize {
        let i = self.free_below(n as u64);
        self.charge(1, n as u64);
        i as usize
    }

    /// A number in a range, all equally likely.
    pub fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// One of these, all equally likely.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of those that `allowed` lets through, all equally likely; none if there is none.
    pub fn pick_where<T: Copy>(&mut self, of: &[T], allowed: impl Fn(T) -> bool) -> Option<T> {
        let left: Vec<T> = of.iter().copied().filter(|x| allowed(*x)).collect();
        (!left.is_empty()).then(|| *self.pick(&left))
    }

    /// Several different ones of these, in order of choice; as many as there are if `n` is more.
    pub fn several<T: Copy>(&mut self, of: &[T], n: usize) -> Vec<T> {
        let mut left = of.to_vec();
        (0..n.min(of.len())).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }

    /// A number below the length of `weights`, as likely as its weight.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let all: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut at = self.free_below(all);
        let mut chosen = 0;
        for (i, w) in weights.iter().enumerate() {
            if at < u64::from(*w) {
                chosen = i;
                break;
            }
            at -= u64::from(*w);
        }
        self.charge(u64::from(weights[chosen]), all);
        chosen
    }

    /// Yes in `n` of `of` cases.
    pub fn chance(&mut self, n: u32, of: u32) -> bool {
        self.weighted(&[n, of - n]) == 0
    }

    /// A number of the standard normal distribution (Box and Muller 1958); it costs nothing.
    pub fn normal(&mut self) -> f64 {
        let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = (uniform(self.bits()), uniform(self.bits()));
        (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_cost_their_information_and_come_as_often_as_they_say() {
        let mut draw = Draw::new(3);
        let mut counts = [0u32; 3];
        for _ in 0..40_000 {
            counts[draw.weighted(&[1, 2, 5])] += 1;
        }
        for (count, weight) in counts.iter().zip([1.0, 2.0, 5.0]) {
            assert!((f64::from(*count) / 40_000.0 - weight / 8.0).abs() < 0.01, "{counts:?}");
        }
        let entropy: f64 = [1.0, 2.0, 5.0].iter().map(|w| -(w / 8.0) * (w / 8.0f64).ln()).sum();
        assert!((draw.visible_nats() / 40_000.0 - entropy).abs() < 0.01);
        assert_eq!(draw.hidden_nats(), 0.0);
        draw.hidden(|d| d.below(7));
        assert!((draw.hidden_nats() - 7f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn several_are_different_and_pick_where_keeps_to_the_allowed() {
        let mut draw = Draw::new(9);
        for _ in 0..100 {
            let mut some = draw.several(&[1, 2, 3, 4, 5], 3);
            some.sort_unstable();
            some.dedup();
            assert_eq!(some.len(), 3);
            assert!(draw.pick_where(&[1, 2, 3], |x| x > 1).unwrap() > 1);
        }
        assert_eq!(draw.pick_where(&[1], |x| x > 1), None);
    }
}
