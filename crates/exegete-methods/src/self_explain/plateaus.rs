//! Our second rule for choosing where to read: words that stay over many scales and are said of few directions.
//!
//! Curves say when the model is sure, and not of what: it is as sure of "a word of grammar", said of everything. So what is said at the
//! scales is looked at too. A word counts by how rarely the model says it of random directions (the logarithm of the inverse share, as
//! in retrieval; Spärck Jones 1972) and by how many scales say it: what a direction means is said over a stretch of scales, what comes
//! of noise at one. A scale's merit is that of its best word less what entropy takes off, and the next scale is to say something else.

use std::collections::{HashMap, HashSet};

/// The power of the share of scales that say a word: a word said at half of them is not worth half of one said at all.
const SHARE: f64 = 0.25;
/// Scales that are chosen by new words; behind them merit alone decides.
const DIFFERENT: usize = 5;

/// What the model says of directions that mean nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Background {
    n: usize,
    /// Of how many of them it says a word, at any scale.
    words: HashMap<String, usize>,
    /// What the best word of the middle one of them is worth, at as many scales.
    level: f64,
    /// Scales at which they were asked.
    n_scales: usize,
}

impl Background {
    /// From what is said of each of some directions at some scales.
    pub fn of(directions: &[Vec<String>]) -> Self {
        let mut words: HashMap<String, usize> = HashMap::new();
        for texts in directions {
            let all: HashSet<String> = texts.iter().flat_map(|text| self::words(text)).collect();
            all.into_iter().for_each(|word| *words.entry(word).or_default() += 1);
        }
        let n_scales = directions.iter().map(Vec::len).max().unwrap_or(0);
        let mut this = Self { n: directions.len(), words, level: 0.0, n_scales };
        // Each is looked at as if it were not among them: its own words are said once less.
        let mut levels: Vec<f64> = directions.iter().map(|texts| this.worths(texts, 1).1).collect();
        levels.sort_by(f64::total_cmp);
        this.level = levels.get(levels.len() / 2).copied().unwrap_or(0.0);
        this
    }

    fn rarity(&self, word: &str, less: usize) -> f64 {
        let said = self.words.get(word).copied().unwrap_or(0).saturating_sub(less);
        ((self.n + 1).saturating_sub(less).max(1) as f64 / (said + 1) as f64).ln()
    }

    /// What each word of some texts is worth, and the most.
    fn worths(&self, texts: &[String], less: usize) -> (HashMap<String, f64>, f64) {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for text in texts {
            words(text).into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
        }
        let worth = |(word, count): (String, usize)| {
            let share = count as f64 / texts.len().max(1) as f64;
            let worth = self.rarity(&word, less) * share.powf(SHARE);
            (word, worth)
        };
        let worths: HashMap<String, f64> = counts.into_iter().map(worth).collect();
        let best = worths.values().copied().fold(0.0, f64::max);
        (worths, best)
    }

    /// Scales with their merits, best first; `beta` is what a whole range of entropy takes off, in units of the best word's worth. None
    /// where the best word is worth no more than `least` above that of the middle random direction. Scale 0 is none.
    pub fn rank(&self, texts: &[String], entropy: &[f64], beta: f64, least: f64) -> Option<Vec<(usize, f64)>> {
        let n = texts.len().min(entropy.len());
        if n < 2 {
            return None;
        }
        let (worths, best) = self.worths(&texts[1..n], 0);
        // Told apart from random directions at as many scales as they were asked at: a word said once is a larger share of fewer.
        let k = self.n_scales.clamp(1, n - 1);
        let thin: Vec<String> = (1..=k).map(|i| texts[i * (n - 1) / k].clone()).collect();
        if self.worths(&thin, 0).1 - self.level <= least {
            return None;
        }
        // Where nothing that is said is rare, entropy alone is left to decide.
        let best = best.max(f64::MIN_POSITIVE);
        let (low, high) = entropy[1..n].iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
        let uncertain = |i: usize| if high > low { (entropy[i] - low) / (high - low) } else { 0.0 };
        let said: Vec<HashSet<String>> = texts[..n].iter().map(|text| words(text)).collect();
        let merit = |i: usize, used: &HashSet<String>| {
            let new = said[i].iter().filter(|word| !used.contains(*word));
            new.filter_map(|word| worths.get(word)).copied().fold(0.0, f64::max) / best - beta * uncertain(i)
        };
        let mut used: HashSet<String> = HashSet::new();
        let mut ranked: Vec<(usize, f64)> = Vec::new();
        let mut left: Vec<usize> = (1..n).collect();
        while ranked.len() < DIFFERENT && !left.is_empty() {
            let of = |i: &usize| (*i, merit(*i, &used));
            // Of equals the first.
            let (next, value) = left.iter().map(of).fold((left[0], f64::MIN), |a, b| if b.1 > a.1 { b } else { a });
            ranked.push((next, value));
            left.retain(|i| *i != next);
            used.extend(said[next].iter().cloned());
        }
        // The others follow below them.
        let floor = ranked.iter().map(|(_, value)| *value).fold(f64::MAX, f64::min);
        let mut rest: Vec<(usize, f64)> = left.into_iter().map(|i| (i, merit(i, &HashSet::new()))).collect();
        rest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.extend(rest.into_iter().map(|(i, value)| (i, value.min(floor))));
        Some(ranked)
    }
}

/// The different words of a text of two letters or more.
fn words(text: &str) -> HashSet<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() > 1);
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_said_of_everything_counts_for_nothing() {
        let random: Vec<Vec<String>> =
            (0..9).map(|i| strings(&["a word", "a word of grammar", &format!("noise{i}")])).collect();
        let background = Background::of(&random);
        let flat = [0.0; 7];
        let texts = strings(&["a word", "a word", "a word", "a river", "a river", "a word of grammar", "spike"]);
        let ranked = background.rank(&texts, &flat, 0.5, -0.1).unwrap();
        assert_eq!(ranked.len(), 6);
        assert_eq!(ranked[0].0, 3, "two scales say river: {ranked:?}");
        assert_eq!(ranked[1].0, 6, "what is new comes before what was said: {ranked:?}");
        assert!(ranked.windows(2).all(|w| w[0].1 >= w[1].1), "{ranked:?}");
        // Entropy decides among scales that say the same.
        let unsure = [0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0];
        assert_eq!(background.rank(&texts, &unsure, 0.5, -0.1).unwrap()[0].0, 4);
        let generic = strings(&["a word", "a word", "a word of grammar", "a word"]);
        assert_eq!(background.rank(&generic, &flat[..4], 0.5, -0.1), None);
        assert_eq!(background.rank(&generic, &[0.0, 1.0, 0.5, 2.0], 0.5, f64::NEG_INFINITY).unwrap()[0].0, 2);
        assert_eq!(background.rank(&[], &[], 0.5, -0.1), None);
    }
}
