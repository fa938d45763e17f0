//! Bottom-k sketches: of each latent's firings those whose tokens have the smallest hashes.
//!
//! A token has one hash for all latents, so that sketches can be laid over each other: the k smallest hashes of a union are a
//! sample of it, and the share of them that is in both is an estimate of the Jaccard index (Broder 1997; Cohen and Kaplan 2007).
//! Latents that fire at most k times are kept whole, and what is said of two such is exact.

use rayon::prelude::*;

/// Latents kept that fire together with a latent.
const N_NEAR: usize = 8;

/// A firing that is kept by the hash of its token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sketched {
    /// Hash of (seed, document, position).
    pub hash: u64,
    /// The token fired on.
    pub token: u32,
    /// The activation.
    pub value: f32,
}

/// Inserts a firing into a list of at most `limit`, by rising hash.
pub(crate) fn keep(list: &mut Vec<Sketched>, limit: usize, new: Sketched) {
    if limit == 0 || list.len() >= limit && list.last().is_some_and(|last| last.hash <= new.hash) {
        return;
    }
    let at = list.partition_point(|kept| kept.hash < new.hash);
    // A token is counted once, even where two have one hash.
    if list.get(at).is_some_and(|kept| kept.hash == new.hash) {
        return;
    }
    list.truncate(limit - 1);
    list.insert(at, new);
}

/// For each latent those that fire on the same tokens most, with the estimated share of the tokens of both in the tokens of either.
/// Given are the hashes of each latent's sketch, by rising hash, of at most `k`.
pub fn cofiring(sketches: &[Vec<u64>], k: usize) -> Vec<Vec<(u32, f32)>> {
    let mut all: Vec<(u64, u32)> = Vec::with_capacity(sketches.iter().map(Vec::len).sum());
    for (latent, hashes) in sketches.iter().enumerate() {
        all.extend(hashes.iter().map(|hash| (*hash, latent as u32)));
    }
    all.par_sort_unstable();
    let starts: Vec<usize> = (0..all.len()).filter(|i| *i == 0 || all[i - 1].0 != all[*i].0).collect();
    let on = |hash: u64| {
        let group = starts.partition_point(|start| all[*start].0 < hash);
        let from = starts.get(group).copied().unwrap_or(all.len());
        &all[from..starts.get(group + 1).copied().unwrap_or(all.len())]
    };
    let of = |shared: &mut Vec<u32>, latent: usize| {
        let mut touched = Vec::new();
        for (_, other) in sketches[latent].iter().flat_map(|hash| on(*hash)).filter(|(_, l)| *l as usize != latent) {
            if shared[*other as usize] == 0 {
                touched.push(*other);
            }
            shared[*other as usize] += 1;
        }
        // No estimate is above what two sketches share, over the longer of them.
        let own = &sketches[latent];
        let bound =
            |other: u32| f64::from(shared[other as usize]) / own.len().max(sketches[other as usize].len()) as f64;
        let mut candidates: Vec<(f64, u32)> = touched.iter().map(|other| (bound(*other), *other)).collect();
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut near: Vec<(u32, f32)> = Vec::with_capacity(N_NEAR + 1);
        for (bound, other) in candidates {
            if near.len() == N_NEAR && near.last().is_some_and(|(_, least)| bound <= f64::from(*least)) {
                break;
            }
            let share = jaccard(own, &sketches[other as usize], k);
            let at = near.partition_point(|(l, s)| s.total_cmp(&share).is_gt() || (*s == share && *l < other));
            if share > 0.0 && at < N_NEAR {
                near.truncate(N_NEAR - 1);
                near.insert(at, (other, share));
            }
        }
        touched.iter().for_each(|other| shared[*other as usize] = 0);
        near
    };
    (0..sketches.len()).into_par_iter().map_init(|| vec![0u32; sketches.len()], of).collect()
}

/// The share of the `k` smallest hashes of two sketches that is in both.
fn jaccard(a: &[u64], b: &[u64], k: usize) -> f32 {
    let (mut i, mut j, mut n, mut both) = (0, 0, 0u32, 0u32);
    while (i < a.len() || j < b.len()) && (n as usize) < k {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x == y => {
                both += 1;
                i += 1;
                j += 1;
            }
            (Some(x), Some(y)) if x > y => j += 1,
            (None, _) => j += 1,
            _ => i += 1,
        }
        n += 1;
    }
    both as f32 / n.max(1) as f32
}

/// What the sampled firings say about the tokens fired on: the most frequent with their shares, and how many different ones there are
/// among the strongest four fifths.
pub fn tokens_of(sketch: &[Sketched], n: usize) -> (Vec<(u32, f32)>, u32) {
    let mut ids: Vec<u32> = sketch.iter().map(|s| s.token).collect();
    ids.sort_unstable();
    let count = |run: &[u32]| (run[0], run.len() as f32 / sketch.len() as f32);
    let mut shares: Vec<(u32, f32)> = ids.chunk_by(|a, b| a == b).map(count).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    shares.truncate(n);
    let mut strongest: Vec<&Sketched> = sketch.iter().collect();
    strongest.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.hash.cmp(&b.hash)));
    let mut ids: Vec<u32> = strongest[..(sketch.len() * 4).div_ceil(5)].iter().map(|s| s.token).collect();
    ids.sort_unstable();
    ids.dedup();
    (shares, ids.len() as u32)
}

/// Mutual information, in nats, of whether a latent fires on a token and the part of the window in which the token is.
pub fn position_information(fired: &[u64], tokens: &[u64]) -> f32 {
    let (n, count) = (tokens.iter().sum::<u64>() as f64, fired.iter().sum::<u64>() as f64);
    let term = |joint: f64, a: f64, b: f64| if joint > 0.0 { joint / n * (joint * n / (a * b)).ln() } else { 0.0 };
    let of = |(fired, all): (&u64, &u64)| {
        let (fired, all) = (*fired as f64, *all as f64);
        term(fired, count, all) + term(all - fired, n - count, all)
    };
    fired.iter().zip(tokens).map(of).sum::<f64>().max(0.0) as f32
}

#[cfg(test)]
mod tests {
    use exegete_base::sampling::pair_hash;

    use super::*;

    fn sketch_of(tokens: impl Iterator<Item = u64>, k: usize) -> Vec<u64> {
        let mut hashes: Vec<u64> = tokens.map(|t| pair_hash(1, 2, t)).collect();
        hashes.sort_unstable();
        hashes.truncate(k);
        hashes
    }

    #[test]
    fn rare_latents_are_told_exactly_and_others_within_the_stated_error() {
        let k = 128;
        // 0 and 1 share 2,000 of 6,000 tokens; 2 and 3 share 3 of 5; 4 is alone.
        let sketches = [
            sketch_of(0..4000, k),
            sketch_of(2000..6000, k),
            sketch_of(9000..9004, k),
            sketch_of(9001..9005, k),
            sketch_of(20_000..20_100, k),
        ];
        let near = cofiring(&sketches, k);
        let third = near[0][0];
        let error = (1.0f32 / 3.0 * 2.0 / 3.0 / k as f32).sqrt();
        assert!(third.0 == 1 && (third.1 - 1.0 / 3.0).abs() < 3.0 * error, "{third:?}");
        assert_eq!(near[1][0], (0, third.1));
        assert_eq!((&near[2][..], &near[3][..]), (&[(3, 0.6)][..], &[(2, 0.6)][..]));
        assert_eq!(near[4], []);
    }

    #[test]
    fn the_nearest_are_those_of_a_look_at_all_pairs() {
        let k = 16;
        let sketches: Vec<Vec<u64>> =
            (0..60u64).map(|l| sketch_of((0..400).filter(|t| pair_hash(l, l % 7, *t).is_multiple_of(5)), k)).collect();
        let near = cofiring(&sketches, k);
        for (a, near) in near.iter().enumerate() {
            let mut all: Vec<f32> = (0..60)
                .filter(|b| *b != a)
                .map(|b| jaccard(&sketches[a], &sketches[b], k))
                .filter(|s| *s > 0.0)
                .collect();
            all.sort_by(|x, y| y.total_cmp(x));
            all.truncate(N_NEAR);
            assert_eq!(near.iter().map(|n| n.1).collect::<Vec<_>>(), all, "latent {a}");
        }
    }

    #[test]
    fn tokens_and_positions_are_counted() {
        let fired =
            |(i, (token, value)): (usize, &(u32, f32))| Sketched { hash: i as u64, token: *token, value: *value };
        let sketch: Vec<Sketched> =
            [(7, 5.0), (7, 4.0), (8, 3.0), (7, 2.0), (9, 1.0)].iter().enumerate().map(fired).collect();
        assert_eq!(tokens_of(&sketch, 2), (vec![(7, 0.6), (8, 0.2)], 2));
        assert_eq!(tokens_of(&[], 2), (vec![], 0));
        assert!(position_information(&[5, 5], &[50, 50]).abs() < 1e-9);
        let all = position_information(&[50, 0], &[50, 50]);
        assert!((all - std::f32::consts::LN_2).abs() < 1e-6, "{all}");
    }

    #[test]
    fn a_list_keeps_the_smallest_hashes() {
        let mut list = Vec::new();
        for hash in [5u64, 3, 9, 1, 3, 7] {
            keep(&mut list, 3, Sketched { hash, token: 0, value: 1.0 });
        }
        assert_eq!(list.iter().map(|s| s.hash).collect::<Vec<_>>(), [1, 3, 5]);
        keep(&mut list, 0, Sketched { hash: 0, token: 0, value: 1.0 });
        assert_eq!(list.len(), 3, "a limit of nothing keeps nothing new");
    }
}
