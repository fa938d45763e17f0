//! Toy models of superposition: each test is a known result, or a formula against another way to it.

use exegete_harvest::{Progress, Silent};
use exegete_lab::LabError;
use exegete_lab::superposition::dimensions::train_level;
use exegete_lab::superposition::draws::Draws;
use exegete_lab::superposition::layers::{Training, built, trained};
use exegete_lab::superposition::mlp::Mlp;
use exegete_lab::superposition::phases::{Phase, exact_loss, expected_losses, predicted, train_cell};
use exegete_lab::superposition::probe::{Verdict, probe};
use exegete_lab::superposition::toy::{Task, Toy, Workspace, loss_and_gradient};
use exegete_lab::superposition::uand::{Design, Errors};
use exegete_lab::superposition::widths::{Inputs, Sweep, measure, naive_mse, slope, sweep};
use exegete_lab::superposition::{Settings, run};

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

fn settings(flags: &str) -> Settings {
    let words = std::iter::once("test").chain(flags.split_whitespace());
    <Flags as clap::Parser>::try_parse_from(words).unwrap().settings
}

/// Settings small enough to run all of it in a second.
fn tiny() -> Settings {
    settings(
        "--grid 3 --restarts 2 --steps 60 --batch 32 --features 8 --hidden 2 --densities 3 --sweep-steps 60 \
         --sweep-batch 32 --probe-width 9 --probe-steps 20 --booleans 16 --active 3 --widths 32,64 --networks 2 --reads 4",
    )
}

/// The toy's loss in f64, feature by feature.
fn naive_loss(weights: &[f64], n_hidden: usize, importance: &[f32], x: &[f32]) -> f64 {
    let f = importance.len();
    let w = |i: usize, d: usize| weights[i * n_hidden + d];
    let of_row = |x: &[f32]| -> f64 {
        let hidden: Vec<f64> = (0..n_hidden).map(|d| (0..f).map(|i| w(i, d) * f64::from(x[i])).sum()).collect();
        let out = |i: usize| (0..n_hidden).map(|d| w(i, d) * hidden[d]).sum::<f64>() + weights[f * n_hidden + i];
        (0..f).map(|i| f64::from(importance[i]) * (out(i).max(0.0) - f64::from(x[i])).powi(2)).sum()
    };
    x.chunks_exact(f).map(of_row).sum::<f64>() / (x.len() / f) as f64
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    let (f, d) = (7, 3);
    let mut draws = Draws::new(3, "gradient", 0);
    let mut toy = Toy::random(f, d, &mut draws);
    toy.weights.iter_mut().for_each(|w| *w += 0.1 * draws.normal() as f32);
    let importance: Vec<f32> = (0..f).map(|i| 0.9f32.powi(i as i32)).collect();
    let x: Vec<f32> = (0..40 * f).map(|_| draws.sparse(0.4)).collect();
    let mut space = Workspace::default();
    let loss = loss_and_gradient(&toy, &importance, &x, &mut space);
    let weights: Vec<f64> = toy.weights.iter().map(|w| f64::from(*w)).collect();
    assert!((loss - naive_loss(&weights, d, &importance, &x)).abs() < 1e-5);
    for i in 0..weights.len() {
        let at = |step: f64| {
            let mut moved = weights.clone();
            moved[i] += step;
            naive_loss(&moved, d, &importance, &x)
        };
        let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((slope - f64::from(space.gradient[i])).abs() < 1e-4 * (1.0 + slope.abs()), "weight {i}: {slope}");
    }
}

#[test]
fn closed_forms_are_the_expected_losses_of_the_three_solutions() {
    for (p, r) in [(0.05, 0.3), (0.4, 2.0), (0.9, 7.0)] {
        let toy = |w: [f32; 2], b: [f64; 2]| Toy { n_hidden: 1, weights: vec![w[0], w[1], b[0] as f32, b[1] as f32] };
        let solutions =
            [toy([1.0, 0.0], [0.0, p / 2.0]), toy([0.0, 1.0], [p / 2.0, 0.0]), toy([1.0, -1.0], [0.0, 0.0])];
        for (want, toy) in expected_losses(p, r).into_iter().zip(&solutions) {
            let got = exact_loss(toy, p, r);
            assert!((got - want).abs() < 1e-4 * (1.0 + want), "density {p}, importance {r}: {got} for {want}");
        }
    }
}

#[test]
fn each_phase_is_learned_where_it_is_best() {
    let points = [(0.9, 0.3, Phase::NotRepresented), (0.9, 4.0, Phase::OwnDimension), (0.1, 0.8, Phase::Superposition)];
    for (number, (density, importance, want)) in points.into_iter().enumerate() {
        assert_eq!(predicted(density, importance), want);
        let task = Task { density, importance_F: vec![1.0, importance as f32], steps: 1500, batch: 128, lr: 0.03 };
        let cell = train_cell(density, importance, &task, 6, 11, number as u64);
        assert_eq!(cell.phase, want, "density {density}, importance {importance}: {cell:?}");
        let best = cell.solutions.into_iter().fold(f64::INFINITY, f64::min);
        assert!(cell.loss < 1.05 * best, "{cell:?}");
    }
}

#[test]
fn dimensions_go_to_features_then_to_antipodal_pairs() {
    let level = |density: f64, decay: f32| {
        let importance_F = (0..16).map(|i| decay.powi(i)).collect();
        let task = Task { density, importance_F, steps: 2500, batch: 256, lr: 0.01 };
        train_level(16, 4, &task, 5, 0)
    };
    // Dense, with features of unequal importance: the four most important have a dimension each.
    let dense = level(1.0, 0.7);
    assert_eq!((dense.n_represented, dense.n_antipodal_pairs), (4, 0), "{dense:?}");
    assert!(dense.mean_dimensionality.value > 0.9, "{dense:?}");
    // Sparser, of equal importance: two to a dimension, each against the other.
    let sparse = level(0.4, 1.0);
    assert_eq!((sparse.n_represented, sparse.n_antipodal_pairs), (8, 4), "{sparse:?}");
    assert_eq!(sparse.near_half.value, 1.0, "{sparse:?}");
    assert!((sparse.dimensions_per_feature - 0.5).abs() < 0.05, "{sparse:?}");
    // Sparser still: more than two to a dimension.
    assert!(level(0.05, 1.0).dimensions_per_feature < 0.4);
}

fn measured(design: Design, inputs: Inputs, widths: &[usize]) -> Sweep {
    let networks = |d: &usize| (0..6).map(|network| measure(design, inputs, *d, 48, 2, network)).collect();
    let all: Vec<(usize, Vec<Errors>)> = widths.iter().map(|d| (*d, networks(d))).collect();
    sweep(design, inputs, &all)
}

#[test]
fn universal_and_errs_as_predicted_and_falls_at_the_predicted_rate() {
    let inputs = Inputs { m: 64, active: 4 };
    for design in [Design::Signed { q: 0.5 }, Design::Subset { c: 4.0 }] {
        let sweep = measured(design, inputs, &[128, 256, 512, 1024, 2048]);
        for w in &sweep.widths {
            assert!((w.rms.value / w.rms_expected - 1.0).abs() < 0.06, "{design:?}: {w:?}");
            for (got, want) in w.mse.into_iter().zip(design.expected_mse(w.d as usize, inputs.active)) {
                assert!((got / want - 1.0).abs() < 0.25, "{design:?}, {} neurons: {got} for {want}", w.d);
            }
        }
        let fit = sweep.rms_fit;
        assert!((fit.exponent.value - fit.expected.unwrap()).abs() < 0.03, "{design:?}: {fit:?}");
        assert!((fit.exponent.value + 0.5).abs() < 0.05, "{design:?}: {fit:?}");
    }
}

#[test]
fn one_and_per_neuron_stands_beside_every_width() {
    let inputs = Inputs { m: 64, active: 4 };
    let sweep = measured(Design::Signed { q: 0.5 }, inputs, &[64, 1024, 4096]);
    let [few, many, all] = &sweep.widths[..] else { panic!("three widths") };
    // Few neurons lose against it, more win, and with a neuron for each AND it errs no more.
    assert!(few.mse_balanced.value > few.naive_mse_balanced && many.mse_balanced.high < many.naive_mse_balanced);
    assert!(inputs.n_pairs() == 2016 && all.naive_mse_balanced == 0.0);
    // Half of the ANDs exactly, the constant 1/4 for the others: half of 1/4 times 3/4.
    let half = naive_mse(Inputs { m: 16, active: 2 }, 60, [0.5, 0.25, 0.25]);
    assert!((half - 0.5 * 0.25 * 0.75).abs() < 1e-12);
    assert!((inputs.natural().iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn the_probe_finds_the_truth_of_built_layers() {
    for seed in 0..4 {
        for d in [12, 16] {
            for case in built(d, seed) {
                assert_eq!(Some(case.probe.verdict.name()), case.truth.as_deref(), "width {d}, seed {seed}: {case:?}");
            }
        }
    }
    let cases = built(16, 0);
    let [hidden, output, none] = &cases[..] else { panic!("three built layers") };
    assert!(hidden.probe.alignment.high < 0.7 && hidden.probe.features_per_neuron.low > 2.0);
    assert!(output.probe.alignment.value == 1.0 && output.probe.features_per_neuron.value == 1.0);
    assert!(output.probe.coactive_cosine.low > 0.1 && none.probe.coactive_cosine.value == 0.0);
}

#[test]
fn distributed_atoms_that_share_nothing_are_not_superposed() {
    // Four atoms on four neurons, each on all of them, at right angles: far from the neurons' axes, a dimension each.
    let atoms: Vec<Vec<f32>> =
        [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]].map(|a| a.map(|v| v as f32).to_vec()).to_vec();
    let identity: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let mlp = Mlp { d: 4, w_in_MD: identity.clone(), b_in_M: vec![0.0; 4], w_out_DM: identity };
    let found = probe(&mlp, &atoms, &[1.0, 1.0, 0.0, 0.0], &mut Draws::new(0, "test", 0));
    assert_eq!(found.verdict, Verdict::None);
    assert!((found.alignment.value - 0.5).abs() < 1e-6 && (found.capacity_hidden.value - 1.0).abs() < 1e-9);
    // A feature that is absent is counted and left out.
    let with_silent = [atoms, vec![vec![0.0; 4]]].concat();
    let found = probe(&mlp, &with_silent, &[1.0, 1.0, 0.0, 0.0], &mut Draws::new(0, "test", 0));
    assert_eq!((found.n_features, found.n_silent, found.verdict), (5, 1, Verdict::None));
}

#[test]
fn more_ands_than_neurons_are_trained_into_the_hidden_layer() {
    let training = |n_ands| Training { n_ands, steps: 2500, batch: 192, lr: 0.01 };
    let many = trained(12, training(usize::MAX), 1).unwrap();
    assert_eq!((many.probe.n_features, many.probe.n_neurons, many.probe.verdict), (66, 48, Verdict::Hidden));
    let (loss, naive) = (many.loss.unwrap(), many.naive_loss.unwrap());
    assert!(loss.high < naive.low && loss.high < many.linear_loss.unwrap(), "{loss:?} {naive:?}");
    let few = trained(12, training(24), 1).unwrap();
    assert!(few.loss.unwrap().value < 0.01, "{:?}", few.loss);
    assert!(few.probe.capacity_hidden.low > many.probe.capacity_hidden.high);
    assert_eq!(few.untrained.unwrap().verdict, Verdict::Hidden);
}

#[test]
fn a_study_depends_on_its_seed_and_not_on_threads() {
    let on = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| serde_json::to_string(&run(&tiny(), seed, &Silent).unwrap()).unwrap())
    };
    assert_eq!(on(1, 4), on(3, 4));
    assert_ne!(on(1, 4), on(1, 5));
}

#[test]
fn bad_settings_name_the_flag() {
    settings("").check().unwrap();
    let bad = "--grid 1|--restarts 0|--steps 0|--batch 0|--features 1|--hidden 81|--densities 1|--importance-decay 0\
               |--sweep-steps 0|--sweep-batch 0|--probe-width 8|--probe-steps 0|--booleans 5|--active 1|--widths 64\
               |--widths 8,64|--widths 64,64|--networks 1|--reads 0|--weight-density 0|--weight-density nan|--readers 0.5|--readers inf";
    for flags in bad.split('|') {
        let error = settings(flags).check().unwrap_err().to_string();
        let flag = flags.split_whitespace().next().unwrap();
        assert!(error.contains(flag), "{flags}: {error}");
    }
}

#[test]
fn a_study_that_is_told_to_stop_stops() {
    struct Stop;
    impl Progress for Stop {
        fn begin(&self, _: &str, _: u64, _: &str, _: u64) {}
        fn at(&self, _: u64, _: &str) {}
        fn end(&self, _: &str) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    assert!(matches!(run(&tiny(), 0, &Stop), Err(LabError::Interrupted)));
}

#[test]
fn the_interval_of_a_fitted_exponent_covers_the_truth_as_often_as_it_says() {
    let mut draws = Draws::new(9, "slopes", 0);
    let mut fits = (0..1000).map(|_| {
        let points: Vec<(f64, f64)> =
            (0..60).map(|i| (f64::from(i % 6), 1.0 - 0.5 * f64::from(i % 6) + 0.3 * draws.normal())).collect();
        slope(&points)
    });
    let covered = fits.by_ref().filter(|fit| fit.low < -0.5 && -0.5 < fit.high).count();
    assert!((925..975).contains(&covered), "{covered} of 1000 intervals of 95 % hold the truth");
    let exact = slope(&[(0.0, 3.0), (1.0, 1.0), (2.0, -1.0)]);
    assert!((exact.value + 2.0).abs() < 1e-12 && exact.high - exact.low < 1e-9 && exact.n == 3);
}
