//! The order in which rows are trained on: a shuffle buffer, filled window by window and drawn from at random.
//!
//! A buffer that holds all rows is a shuffle. The order is a function of the seed, the pass and the size of the buffer, so
//! a training that goes on draws what it would have drawn: it is found by drawing again, of numbers alone.

use exegete_base::sampling::pair_hash;

use crate::rows::WindowRows;

/// Windows that enter the buffer together, so that a model which computes them has whole batches to run.
const TOGETHER: usize = 32;

/// Rows of one pass over some windows, in a random order.
pub(crate) struct Mixer {
    /// First row and number of rows of the windows that have not entered yet, the next one last.
    waiting: Vec<(u64, usize)>,
    held: Vec<u64>,
    /// First rows of the windows that entered last.
    entered: Vec<u64>,
    /// Rows that are held at most, but for those that a draw needs.
    most: usize,
    key: u64,
    drawn: u64,
}

impl Mixer {
    /// A pass over windows; `most` rows are mixed with each other, 0 mixes all.
    pub(crate) fn new(windows: &[&WindowRows], seed: u64, epoch: u64, most: usize) -> Self {
        let mut keyed: Vec<(u64, u64, usize)> =
            windows.iter().map(|w| (pair_hash(seed, epoch, w.first), w.first, w.len())).collect();
        keyed.sort_unstable();
        let waiting = keyed.into_iter().rev().map(|(_, first, len)| (first, len)).collect();
        let most = if most == 0 { usize::MAX } else { most };
        Self { waiting, held: Vec::new(), entered: Vec::new(), most, key: pair_hash(seed, epoch, u64::MAX), drawn: 0 }
    }

    /// The next `n` rows, into `out`; fewer where the pass ends.
    pub(crate) fn draw(&mut self, n: usize, out: &mut Vec<u64>) {
        out.clear();
        self.fill(n);
        for _ in 0..n.min(self.held.len()) {
            let at = pair_hash(self.key, self.drawn, 0) % self.held.len() as u64;
            out.push(self.held.swap_remove(at as usize));
            self.drawn += 1;
        }
    }

    /// Lets windows in while there is room for some of them together, or too few rows to draw.
    fn fill(&mut self, n: usize) {
        self.entered.clear();
        while !self.waiting.is_empty() {
            let from = self.waiting.len().saturating_sub(TOGETHER);
            let coming: usize = self.waiting[from..].iter().map(|(_, len)| len).sum();
            if self.held.len() >= n && self.held.len().saturating_add(coming) > self.most {
                break;
            }
            for (first, len) in self.waiting.drain(from..).rev() {
                self.held.extend(first..first + len as u64);
                self.entered.push(first);
            }
        }
    }

    /// First rows of the windows that the last draw let in.
    pub(crate) fn entered(&self) -> &[u64] {
        &self.entered
    }

    /// Rows that are in the buffer.
    pub(crate) fn held(&self) -> &[u64] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::DocId;
    use exegete_store::Window;

    use super::*;

    fn windows() -> Vec<WindowRows> {
        let mut first = 0;
        let window = |i: u64| {
            let token_ids = vec![0; 3 + (i % 5) as usize];
            let entry = WindowRows { window: Window { doc: DocId(i), window: 0, start: 0, token_ids }, first };
            first += entry.len() as u64;
            entry
        };
        (0..500).map(window).collect()
    }

    fn pass(most: usize, seed: u64, epoch: u64, batch: usize) -> Vec<u64> {
        let windows = windows();
        let of: Vec<&WindowRows> = windows.iter().collect();
        let (mut mixer, mut all, mut out) = (Mixer::new(&of, seed, epoch, most), Vec::new(), Vec::new());
        loop {
            mixer.draw(batch, &mut out);
            let room = most.max(batch) + TOGETHER * 7;
            assert!(most == 0 || mixer.held().len() <= room, "{} rows are held, of {most}", mixer.held().len());
            all.extend_from_slice(&out);
            if out.len() < batch {
                return all;
            }
        }
    }

    #[test]
    fn every_row_comes_once_in_an_order_of_its_own() {
        let n = crate::rows::n_rows(&windows());
        for most in [0, 1, 300, 100_000] {
            let order = pass(most, 3, 0, 64);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>(), "{most}");
            assert_eq!(order, pass(most, 3, 0, 64));
            assert!(order != pass(most, 3, 1, 64) && order != pass(most, 4, 0, 64));
        }
        assert_eq!(pass(0, 3, 0, 64), pass(100_000, 3, 0, 64));
    }

    #[test]
    fn neighbours_are_not_drawn_together() {
        let near = |order: &[u64]| order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 4).count();
        // Of 2,000 rows in a random order some 0.4 % of pairs are so near; in a buffer of 300, 3 %.
        assert!(near(&pass(0, 3, 0, 64)) < 25);
        assert!(near(&pass(300, 3, 0, 64)) < 120);
    }
}
