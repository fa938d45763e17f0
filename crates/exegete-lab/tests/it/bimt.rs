//! BIMT: the method's own promises, and the published errors.

use exegete_harvest::Silent;
use exegete_lab::bimt::cost::{add_gradient, connection_cost, mean_length, prices};
use exegete_lab::bimt::ensemble::{Additivity, ensemble_index};
use exegete_lab::bimt::formula::{Formula, SAMPLES, Samples};
use exegete_lab::bimt::graph::Graph;
use exegete_lab::bimt::greedy::{LEAST_FALL, build};
use exegete_lab::bimt::net::{Net, Pass};
use exegete_lab::bimt::scaling::roughness;
use exegete_lab::bimt::swap::{round, swap};
use exegete_lab::bimt::train::{Plan, Rung, train};
use exegete_lab::bimt::{Part, Settings, Task, run};
use proptest::prelude::*;

#[test]
fn the_cost_of_two_by_two_matches_the_one_by_hand() {
    let mut net = Net::new(&[2, 2], 0);
    net.params.copy_from_slice(&[1.0, -2.0, 0.5, 0.0, -3.0, 4.0]);
    // Places 0.25 and 0.75 on both sides: straight connections are 0 long, crossing ones 0.5.
    let by_hand = 1.0 * 0.1 + 2.0 * (0.5 + 0.1) + 0.5 * (0.5 + 0.1);
    assert!((connection_cost(&net, &prices(&net, 1.0, false)) - by_hand).abs() < 1e-6);
    let with_biases = by_hand + (3.0 + 4.0) * 0.1;
    assert!((connection_cost(&net, &prices(&net, 1.0, true)) - with_biases).abs() < 1e-6);
    assert!((connection_cost(&net, &prices(&net, 0.0, false)) - 3.5 * 0.1).abs() < 1e-6);
    assert!((mean_length(&net) - 2.5 * 0.5 / 3.5).abs() < 1e-6);
    let mut grad = vec![0f32; 6];
    add_gradient(&net, &prices(&net, 1.0, true), 10.0, &mut grad);
    for (found, want) in grad.iter().zip([1.0, -6.0, 6.0, 0.0, -1.0, 1.0]) {
        assert!((found - want).abs() < 1e-5, "{grad:?}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let samples = Formula::Independence.data(7).train;
    let mut net = Net::new(&[4, 6, 5, 2], 3);
    // Places must not matter to the gradient's being right.
    swap(&mut net, &mut [], 0, 1, 3);
    swap(&mut net, &mut [], 3, 0, 1);
    let mut grad = vec![0f32; net.params.len()];
    let error = Pass::new(&net, samples.n).gradient(&net, &samples, &mut grad);
    assert!((error - net.mse(&samples)).abs() < 1e-6);
    let step = 5e-3f32;
    let mut off = 0.0;
    for idx in 0..net.params.len() {
        let mut moved = net.clone();
        moved.params[idx] += step;
        let above = moved.mse(&samples);
        moved.params[idx] -= 2.0 * step;
        off += ((above - moved.mse(&samples)) / f64::from(2.0 * step) - f64::from(grad[idx])).powi(2);
    }
    let size: f64 = grad.iter().map(|g| f64::from(*g).powi(2)).sum();
    assert!((off / size).sqrt() < 1e-3, "{}", (off / size).sqrt());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_round_of_swaps_keeps_the_function_and_never_raises_the_cost(
        seed in any::<u32>(),
        shape in proptest::collection::vec(1usize..12, 2..6),
    ) {
        let before = Net::new(&shape, seed);
        let mut net = before.clone();
        let x: Vec<f32> = (0..shape[0] * 8).map(|i| (i as f32 * 0.37).sin()).collect();
        let full = prices(&net, 1.0, true);
        let mut moments = net.params.clone();
        for _ in 0..3 {
            let cost = connection_cost(&net, &full);
            let swaps = round(&mut net, &mut [&mut moments]);
            let after = connection_cost(&net, &full);
            prop_assert!(after <= cost + 1e-6, "{after} > {cost}");
            prop_assert_eq!(swaps > 0, after < cost - 1e-9);
        }
        // What is laid out like the parameters moves with them.
        prop_assert_eq!(&moments, &net.params);
        let (a, b) = (before.outputs(&x, 8), net.outputs(&x, 8));
        prop_assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)), "{a:?} {b:?}");
        // Q has no places: it is that of the same graph.
        let (p, q) = (Graph::of_net(&before).edges().len(), Graph::of_net(&net).edges().len());
        prop_assert_eq!(p, q);
    }
}

#[test]
fn a_neuron_in_the_wrong_place_goes_to_the_right_one() {
    // Two chains that cross twice: hidden neuron 0 belongs to input 1, hidden neuron 1 to input 0.
    let mut net = Net::new(&[2, 2, 2], 0);
    net.params.copy_from_slice(&[0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    round(&mut net, &mut []);
    assert_eq!(net.params, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(mean_length(&net), 0.0);
}

#[test]
fn the_data_are_those_of_the_notebook() {
    let data = Formula::Independence.data(0);
    // numpy.random.seed(0); numpy.random.rand(100, 4) * 2 - 1 begins so.
    let first = [0.097_627, 0.430_379, 0.205_527, 0.089_766];
    for (i, want) in first.into_iter().enumerate() {
        assert!((data.train.x[i * SAMPLES] - want).abs() < 1e-5);
    }
    let y = [(0.097_627f32 + 0.205_527).powi(3), 0.430_379f32.powi(2) + (0.089_766 * std::f32::consts::PI).sin()];
    assert!((data.train.y[0] - y[0]).abs() < 1e-5 && (data.train.y[SAMPLES] - y[1]).abs() < 1e-5);
    assert_eq!(Formula::Sharing.at(&[1.0, 2.0, 3.0]), [1.0, 5.0, 14.0]);
    assert_eq!(Formula::Compositionality.at(&[3.0, 0.0, 4.0, 0.0]), [5.0]);
    assert!(data.train != data.test && data.test != data.valid);
}

#[test]
fn the_published_errors_come_out_at_the_published_seeds() {
    for formula in Formula::ALL {
        let published = formula.published();
        let plan = Plan::published(formula, 20, 20_000, published.seed);
        let found = train(&plan, &formula.data(plan.seed), &|| false).unwrap();
        let error = found.net.mse(&formula.data(plan.seed).test);
        let ratio = error / published.test_mse;
        assert!((0.5..=2.0).contains(&ratio), "{}: {error:.2e} of {:.2e}", formula.name(), published.test_mse);
        assert!(found.swaps > 0 && found.curve.len() == 101);
    }
}

#[test]
fn penalties_raise_modularity_and_locality_shortens() {
    let at = |rung: Rung, seed: u32| {
        let formula = Formula::Independence;
        let plan = Plan { rung, ..Plan::published(formula, 20, 6000, seed) };
        train(&plan, &formula.data(seed), &|| false).unwrap().net
    };
    let n = 3;
    let [none, l1, local, swapped, bimt] = Rung::ALL.map(|rung| (0..n).map(|s| at(rung, s)).collect::<Vec<_>>());
    let q = |nets: &[Net]| nets.iter().map(|net| Graph::of_net(net).partition().q).sum::<f64>() / f64::from(n);
    let length = |nets: &[Net]| nets.iter().map(mean_length).sum::<f64>() / f64::from(n);
    assert!(q(&none) + 0.05 < q(&l1), "{} {}", q(&none), q(&l1));
    assert!(q(&none) + 0.05 < q(&local) && q(&none) + 0.05 < q(&bimt));
    assert!(length(&local) < length(&l1) && length(&swapped) < length(&l1) && length(&bimt) < length(&local));
    // A swap moves neurons and nothing else: without locality it changes only rounding, which training spreads.
    assert!((q(&swapped) - q(&l1)).abs() < 0.05, "{} {}", q(&swapped), q(&l1));
}

#[test]
fn modularity_of_known_graphs() {
    // Two triangles joined by an edge: Q = 2 (3/7 - (7/14)^2) = 5/14.
    let edge = |a, b| (a, b, 1.0);
    let triangles = [edge(0, 1), edge(1, 2), edge(0, 2), edge(3, 4), edge(4, 5), edge(3, 5), edge(2, 3)];
    let graph = Graph::new(6, triangles);
    let partition = graph.partition();
    assert!((partition.q - 5.0 / 14.0).abs() < 1e-12, "{partition:?}");
    assert_eq!((partition.n_communities, partition.community), (2, vec![0, 0, 0, 1, 1, 1]));
    assert!(graph.modularity(&[0; 6]).abs() < 1e-12);
    // A ring of ten cliques of five, joined by single edges: each clique is a community.
    let mut edges = Vec::new();
    for clique in 0..10 {
        let pairs = (0..5).flat_map(|a| (0..a).map(move |b| (a, b)));
        edges.extend(pairs.map(|(a, b)| edge(5 * clique + a, 5 * clique + b)));
        edges.push(edge(5 * clique, (5 * clique + 6) % 50));
    }
    let partition = Graph::new(50, edges).partition();
    let by_hand = 100.0 / 110.0 - 10.0 * (22.0 / 220.0f64).powi(2);
    assert!((partition.q - by_hand).abs() < 1e-12 && partition.n_communities == 10, "{}", partition.q);
    assert_eq!(Graph::new(4, []).partition().q, 0.0);
    assert_eq!(Graph::new(2, [(0, 1, 1.0), (0, 1, 0.001)]).edges().len(), 1);
}

#[test]
fn rewired_edges_keep_every_neurons_number() {
    let mut net = Net::new(&[4, 12, 12, 3], 1);
    net.params.iter_mut().enumerate().filter(|(i, _)| i % 5 != 0).for_each(|(_, w)| *w = 0.0);
    let (graph, rewired) = (Graph::of_net(&net), Graph::rewired(&net, 5));
    let numbers = |graph: &Graph| {
        let mut numbers = [[0; 2]; 31];
        for &(below, above, _) in graph.edges() {
            numbers[below][0] += 1;
            numbers[above][1] += 1;
        }
        numbers
    };
    assert_eq!(numbers(&graph), numbers(&rewired));
    let ends = |graph: &Graph| graph.edges().iter().map(|e| (e.0, e.1)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ends(&rewired).len(), graph.edges().len());
    assert!(ends(&graph).intersection(&ends(&rewired)).count() < graph.edges().len() / 2);
}

#[test]
fn the_ensemble_index_tells_sums_from_products() {
    let index = |f: fn(f32, f32) -> f32| {
        let mut sums = Additivity::default();
        let x: Vec<(f32, f32)> = (0..50).map(|i| ((i as f32).sin(), (i as f32 * 1.7).cos())).collect();
        let keep = |held: &[usize], unit: usize, v: f32| if held.contains(&unit) { 0.0 } else { v };
        sums.add_layer(2, |held| x.iter().map(|&(a, b)| f(keep(held, 0, a), keep(held, 1, b))).collect());
        sums.index().unwrap()
    };
    assert!((index(|a, b| a + 2.0 * b) - 1.0).abs() < 1e-6);
    assert!(index(|a, b| a * b) < 0.95);
    let test = Formula::Independence.data(0).test;
    assert_eq!(ensemble_index(&Net::new(&[4, 5, 2], 0), &test), None);
    let deep = ensemble_index(&Net::new(&[4, 5, 5, 2], 0), &test).unwrap();
    assert!((-1.0..=1.0).contains(&deep));
}

#[test]
fn greedy_units_stay_only_where_the_validation_error_falls() {
    let formula = Formula::Sharing;
    let data = formula.data(4);
    let start = {
        let y = &data.train.y;
        let means: Vec<f32> = y.chunks_exact(SAMPLES).map(|row| row.iter().sum::<f32>() / SAMPLES as f32).collect();
        let off = |(i, v): (usize, &f32)| f64::from(v - means[i / SAMPLES]).powi(2);
        data.valid.y.iter().enumerate().map(off).sum::<f64>() / data.valid.y.len() as f64
    };
    let built = build(&data, (3, 3), (8, 2), 4, true, &|| false).unwrap();
    let mut before = start;
    for trial in &built.trials {
        if trial.accepted {
            assert!(trial.valid_mse < (1.0 - LEAST_FALL) * before * 1.0001, "{trial:?} after {before}");
        } else {
            assert!((trial.valid_mse / before - 1.0).abs() < 1e-4, "{trial:?} after {before}");
        }
        before = trial.valid_mse;
    }
    let widths = built.widths();
    assert_eq!(widths.iter().sum::<usize>(), built.trials.iter().filter(|t| t.accepted).count());
    assert!(!widths.is_empty() && widths.iter().all(|w| (1..=8).contains(w)), "{widths:?}");
    assert!((built.mse(&data.valid) - before).abs() < 1e-9 && built.mse(&data.test) < 0.1 * start);
    let random = build(&data, (3, 3), (8, 2), 4, false, &|| false).unwrap();
    assert!(random.mse(&data.test) > built.mse(&data.test));
}

#[test]
fn a_power_law_has_no_roughness() {
    let curve = |bend: f64| [0.0, 0.5, 1.0, 1.5].map(|x: f64| (x, 1.0 - 2.0 * x + bend * x * x));
    assert!(roughness(&curve(0.0)) < 1e-12);
    // Evenly spaced, a parabola's second differences are twice its factor times the square of the spacing.
    assert!((roughness(&curve(0.3)) - 0.15).abs() < 1e-12);
    // Stretching the axis of compute changes nothing, nor does an uneven line.
    let stretched: Vec<_> = curve(0.3).iter().map(|(x, y)| (7.0 * x, *y)).collect();
    assert!((roughness(&stretched) - 0.15).abs() < 1e-12);
    assert!(roughness(&[(0.0, 1.0), (1.0, 3.0), (5.0, 11.0)]) < 1e-12);
}

fn small() -> Settings {
    Settings {
        task: Task::Sharing,
        steps: 400,
        seeds: 2,
        width: 6,
        scaling_steps: 40,
        scaling_seeds: 1,
        scaling_widths: vec![2, 3, 4, 5],
        ..Settings::default()
    }
}

#[test]
fn a_study_is_the_same_each_time_whatever_the_threads() {
    let with = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let report = pool.install(|| run(&small(), seed, &Silent)).unwrap();
        serde_json::to_string(&report).unwrap()
    };
    let report = with(1, 0);
    assert_eq!(report, with(3, 0));
    assert_ne!(report, with(2, 1));
    let value: serde_json::Value = serde_json::from_str(&report).unwrap();
    for (part, n) in [("formulas", 1), ("ladder", 5), ("greedy", 3), ("smoothness", 1), ("scaling", 48), ("runs", 10)] {
        assert_eq!(value[part].as_array().unwrap().len(), n, "{part}");
    }
    let only = Settings { parts: vec![Part::Smoothness], ..small() };
    let report = run(&only, 0, &Silent).unwrap();
    assert!(report.runs.is_empty() && report.formulas.is_empty() && report.smoothness[0].roughness.n == 12);
}

#[test]
fn settings_without_sense_are_told_by_their_flag() {
    let bad = [
        (Settings { steps: 0, ..small() }, "--steps 0"),
        (Settings { seeds: 0, ..small() }, "--seeds 0"),
        (Settings { width: 0, ..small() }, "--width 0"),
        (Settings { width: 1 << 40, ..small() }, "--width"),
        (Settings { scaling_steps: 1, ..small() }, "--scaling-steps 1"),
        (Settings { scaling_seeds: 0, ..small() }, "--scaling-seeds"),
        (Settings { scaling_widths: vec![4, 5, 6], ..small() }, "--scaling-widths"),
        (Settings { scaling_widths: vec![4, 6, 5, 9], ..small() }, "--scaling-widths"),
    ];
    for (settings, part) in bad {
        let error = run(&settings, 0, &Silent).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not name {part:?}");
    }
    let error = run(&small(), u64::MAX, &Silent).unwrap_err().to_string();
    assert!(error.contains("--seed"), "{error}");
}

#[test]
fn an_interrupted_study_says_so() {
    struct Stop;
    impl exegete_harvest::Progress for Stop {
        fn begin(&self, _: &str, _: u64, _: &str, _: u64) {}
        fn at(&self, _: u64, _: &str) {}
        fn end(&self, _: &str) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let error = run(&Settings { steps: 1_000_000, ..small() }, 0, &Stop).unwrap_err();
    assert!(matches!(error, exegete_lab::LabError::Interrupted), "{error}");
}

#[test]
fn samples_are_laid_out_by_variable() {
    let samples = Samples { n: 2, x: vec![1.0, 2.0, 10.0, 20.0], y: vec![0.0, 0.0] };
    let mut net = Net::new(&[2, 1], 0);
    net.params.copy_from_slice(&[1.0, 0.1, 0.5]);
    assert_eq!(net.outputs(&samples.x, samples.n), [2.5, 4.5]);
}
