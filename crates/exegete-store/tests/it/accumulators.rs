//! The accumulators are a commutative monoid, and their samples are what a sort over all firings would give.

use exegete_base::levels::{level_of, lower_edge};
use exegete_base::sampling::firing_hash;
use exegete_base::{DocId, LatentId};
use exegete_store::{AccumulatorSettings, Accumulators, ExampleKind, LatentStats, Window, write_atomic};
use proptest::prelude::*;

const N_LATENTS: usize = 4;
const WINDOW_LEN: usize = 24;
const SETTINGS: AccumulatorSettings =
    AccumulatorSettings { seed: 7, samples_per_level: 2, n_top: 3, context: 3, sketch: 5, window: WINDOW_LEN };

#[derive(Debug, Clone)]
struct Group {
    doc: u64,
    window: u32,
    latent: u32,
    positions: Vec<u32>,
    values: Vec<f32>,
}

fn push(state: &mut Accumulators, group: &Group) {
    let start = u64::from(group.window) * WINDOW_LEN as u64;
    let token_ids = (0..WINDOW_LEN as u32).map(|i| i % 5).collect();
    let window = Window { doc: DocId(group.doc), window: group.window, start, token_ids };
    state.push_group(&window, LatentId(group.latent), &group.positions, &group.values);
    state.add_tokens([group.latent]);
}

fn gathered<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Accumulators {
    let mut state = Accumulators::new(N_LATENTS, SETTINGS);
    groups.into_iter().for_each(|group| push(&mut state, group));
    state
}

/// Groups over all (document, window, latent), each at most once; values repeat, so that ties occur.
fn groups() -> impl Strategy<Value = Vec<Group>> {
    let value = prop_oneof![Just(1.0f32), Just(2.5), 0.001f32..500.0, Just(f32::INFINITY), Just(-1.0)];
    let firings = prop::collection::btree_map(0..WINDOW_LEN as u32, value, 0..10);
    let key = (0u64..4, 0u32..3, 0u32..N_LATENTS as u32);
    prop::collection::btree_map(key, firings, 0..36).prop_map(|all| {
        let group = |((doc, window, latent), firings): (_, std::collections::BTreeMap<u32, f32>)| {
            let (positions, values) = firings.into_iter().unzip();
            Group { doc, window, latent, positions, values }
        };
        all.into_iter().map(group).collect()
    })
}

proptest! {
    #[test]
    fn any_split_in_any_order_merges_to_the_same_state(
        (groups, order, cuts) in groups().prop_flat_map(|groups| {
            let n = groups.len();
            (Just(groups), Just((0..n).collect::<Vec<_>>()).prop_shuffle(), prop::collection::vec(0usize..4, n))
        })
    ) {
        let whole = gathered(&groups);
        let mut shards: Vec<Accumulators> = vec![Accumulators::new(N_LATENTS, SETTINGS); 4];
        for (&at, &shard) in order.iter().zip(&cuts) {
            push(&mut shards[shard], &groups[at]);
        }
        // Two shapes of the tree of merges.
        let mut left = Accumulators::new(N_LATENTS, SETTINGS);
        shards.iter().for_each(|shard| left.merge(shard.clone()).unwrap());
        prop_assert_eq!(&left, &whole);
        let mut shards = shards.into_iter().rev();
        let (mut a, b, mut c, d) =
            (shards.next().unwrap(), shards.next().unwrap(), shards.next().unwrap(), shards.next().unwrap());
        a.merge(b).unwrap();
        c.merge(d).unwrap();
        c.merge(a).unwrap();
        prop_assert_eq!(&c, &whole);
    }

    #[test]
    fn states_come_back_and_merge_as_their_originals(groups in groups(), cut in 0usize..37) {
        let dir = tempfile::tempdir().unwrap();
        let cut = cut.min(groups.len());
        let read = |name: &str, groups: &[Group]| {
            let state = gathered(groups);
            write_atomic(&dir.path().join(name), |w| state.write_state(w)).unwrap();
            let back = Accumulators::read_state(&dir.path().join(name)).unwrap();
            assert_eq!(back, state);
            back
        };
        let mut merged = read("a", &groups[..cut]);
        merged.merge(read("b", &groups[cut..])).unwrap();
        prop_assert_eq!(merged, gathered(&groups));
    }

    #[test]
    fn kept_examples_are_those_of_a_sort_over_all_firings(groups in groups()) {
        let state = gathered(&groups);
        for latent in 0..N_LATENTS as u32 {
            let mut firings = Vec::new();
            for g in groups.iter().filter(|g| g.latent == latent) {
                for (&p, &v) in g.positions.iter().zip(&g.values).filter(|(_, v)| **v > 0.0) {
                    let position = u64::from(g.window) * WINDOW_LEN as u64 + u64::from(p);
                    firings.push((v.min(f32::MAX), firing_hash(SETTINGS.seed, DocId(g.doc), position, LatentId(latent))));
                }
            }
            let kept = state.examples(LatentId(latent));
            let stats = state.stats(LatentId(latent));
            prop_assert_eq!(stats.count, firings.len() as u64);
            prop_assert_eq!(stats.histogram.iter().sum::<u64>(), stats.count);
            firings.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut top: Vec<u64> = firings.iter().take(SETTINGS.n_top).map(|f| f.1).collect();
            let mut found: Vec<u64> = kept.iter().filter(|e| e.kind == ExampleKind::Top).map(|e| e.hash).collect();
            top.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, top);
            for level in 0..60u8 {
                let mut expected: Vec<u64> =
                    firings.iter().filter(|f| level_of(f.0) as u8 == level).map(|f| f.1).collect();
                expected.sort_unstable();
                expected.truncate(SETTINGS.samples_per_level);
                let is_sample = |e: &&exegete_store::Example| e.kind == ExampleKind::Sample && e.level == level;
                let found: Vec<u64> = kept.iter().filter(is_sample).map(|e| e.hash).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn examples_carry_the_values_around_them() {
    let group = Group { doc: 1, window: 0, latent: 2, positions: vec![0, 2, 3, 9], values: vec![1.0, 8.0, -4.0, 2.0] };
    let state = gathered([&group]);
    let examples = state.examples(LatentId(2));
    let top = examples.iter().find(|e| e.position == 2).unwrap();
    assert_eq!(top.values, [0.0, 1.0, 0.0, 8.0, 0.0, 0.0, 0.0]);
    let at_start = examples.iter().find(|e| e.position == 0).unwrap();
    assert_eq!(at_start.values, [0.0, 0.0, 0.0, 1.0, 0.0, 8.0, 0.0]);
}

#[test]
fn moments_are_those_of_the_values() {
    let values: Vec<f32> = (1..=20).map(|i| i as f32 / 8.0).collect();
    let group = Group { doc: 0, window: 0, latent: 0, positions: (0..20).collect(), values: values.clone() };
    let stats = gathered([&group]).stats(LatentId(0));
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 20.0;
    assert_eq!((stats.count, stats.max, stats.mean()), (20, 2.5, mean));
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 20.0;
    assert!((stats.std() - variance.sqrt()).abs() < 1e-12);
    assert_eq!(gathered([]).stats(LatentId(0)), LatentStats::default());
}

#[test]
fn the_sample_of_a_level_is_uniform_over_its_firings() {
    // 64 firings at one level, 4 drawn, over 1,000 seeds: each is expected 62.5 times. The chi-square statistic has 63
    // degrees of freedom and, drawing without replacement, slightly less spread; 103.4 is its 99.9 % point.
    let mut drawn = [0u32; 64];
    for seed in 0..1000 {
        let mut state = Accumulators::new(1, AccumulatorSettings { seed, n_top: 0, ..AccumulatorSettings::default() });
        let positions: Vec<u32> = (0..64).collect();
        let window = Window { doc: DocId(3), window: 0, start: 0, token_ids: vec![0; 64] };
        state.push_group(&window, LatentId(0), &positions, &[lower_edge(30); 64]);
        state.examples(LatentId(0)).iter().for_each(|e| drawn[e.position as usize] += 1);
    }
    let expected = 1000.0 * 4.0 / 64.0;
    let chi_square: f64 = drawn.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    assert!(chi_square < 103.4, "{chi_square}");
}

#[test]
fn different_settings_do_not_merge() {
    let mut one = Accumulators::new(2, SETTINGS);
    let other = Accumulators::new(2, AccumulatorSettings { seed: 8, ..SETTINGS });
    assert!(one.merge(other).unwrap_err().to_string().contains("seed: 8"));
    assert!(one.merge(Accumulators::new(3, SETTINGS)).is_err());
}
