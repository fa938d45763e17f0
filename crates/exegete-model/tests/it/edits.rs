//! Identities of taps and edits.

use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_model::edits::{Add, ProjectOut, Replace, Scale, Vectors};
use exegete_model::{Batch, Edit, Hooks, KvCache, Logits, Model, Positions};
use exegete_tensor::{SiteFn, Tape, Tensor, Value, f32s, tensor};
use exegete_testkit::{assert_close, assert_rel_l2, refs_dir};

fn model() -> Model {
    Model::open(&refs_dir().join("llama_tiny/gqa_tied")).unwrap()
}

fn batch() -> Batch {
    Batch { ids: (0..24).map(|i| (i * 7 + 3) % 61).collect(), n_rows: 2, len: 12, starts_B: vec![] }
}

fn logits(model: &Model, hooks: &mut Hooks) -> Vec<f32> {
    let out = model.run(&Tape::new(), &batch(), None, hooks, Logits::All).unwrap().unwrap();
    f32s(out.tensor()).unwrap().to_vec()
}

fn wave(d: usize) -> Vec<f32> {
    (0..d).map(|i| (i as f32 * 1.7).sin()).collect()
}

fn width(model: &Model, site: Site) -> usize {
    site.kind.row().axes.iter().filter_map(|a| model.spec.axis_len(*a)).product()
}

#[test]
fn patching_with_ones_own_activation_and_scale_0_change_no_bit() {
    let model = model();
    let plain = logits(&model, &mut Hooks::none());
    for site in Site::all(model.spec.n_layers) {
        let mut hooks = Hooks::none().tap(site);
        assert_eq!(logits(&model, &mut hooks), plain, "reading {site} changed the logits");
        let d = width(&model, site);
        let own = hooks.value(site).unwrap().tensor().reshape((2, 12, d)).unwrap();
        let no_ops: [(&str, Arc<dyn SiteFn>); 3] = [
            ("own activation", Arc::new(Replace(Vectors::PerPlace(own)))),
            ("scale 0", Arc::new(Add { vectors: Vectors::One(wave(d)), scale: 0.0 })),
            ("factor 1", Arc::new(Scale(1.0))),
        ];
        for (what, f) in no_ops {
            let edited = logits(&model, &mut Hooks::none().edit(Edit::everywhere(site, f)));
            let same = edited.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what} at {site} changed the logits");
        }
        let add = Arc::new(Add { vectors: Vectors::One(wave(d)), scale: 3.0 });
        assert_ne!(
            logits(&model, &mut Hooks::none().edit(Edit::everywhere(site, add))),
            plain,
            "an edit at {site} did nothing"
        );
    }
}

#[test]
fn edits_keep_to_their_rows_and_positions() {
    let model = model();
    let plain = logits(&model, &mut Hooks::none());
    let site = Site::at(SiteKind::ResidPre, 1);
    let f = Arc::new(Add { vectors: Vectors::One(wave(32)), scale: 2.0 });
    let edit = Edit { site, rows: Some(vec![1]), positions: Positions::At(vec![5]), f };
    let edited = logits(&model, &mut Hooks::none().edit(edit));
    let v = model.spec.vocab_size;
    assert_eq!(edited[..(12 + 5) * v], plain[..(12 + 5) * v], "row 0 and earlier positions of row 1 are untouched");
    assert_ne!(edited[(12 + 5) * v..], plain[(12 + 5) * v..]);
}

#[test]
fn nothing_is_left_along_a_projected_direction() {
    let model = model();
    let site = Site::at(SiteKind::ResidPost, 1);
    let u = wave(32);
    let mut hooks = Hooks::none().edit(Edit::everywhere(site, Arc::new(ProjectOut::new(&u)))).tap(site);
    logits(&model, &mut hooks);
    let value = hooks.value(site).unwrap();
    for row in f32s(value.tensor()).unwrap().chunks(32) {
        assert!(row.iter().zip(&u).map(|(a, b)| a * b).sum::<f32>().abs() < 1e-4);
    }
}

#[test]
fn a_cache_changes_nothing_and_a_fork_shares_its_prefix() {
    let model = model();
    let ids: Vec<u32> = batch().ids[..12].to_vec();
    let whole = model.run(&Tape::new(), &Batch::one(&ids), None, &mut Hooks::none(), Logits::Last).unwrap().unwrap();
    let mut prefix = KvCache::new(&model.spec, 1, 5).unwrap();
    model.run(&Tape::new(), &Batch::one(&ids[..5]), Some(&mut prefix), &mut Hooks::none(), Logits::None).unwrap();
    let mut forked = prefix.fork(3, 16).unwrap();
    let rest = Batch { ids: ids[5..].repeat(3), n_rows: 3, len: 7, starts_B: vec![] };
    let split = model.run(&Tape::new(), &rest, Some(&mut forked), &mut Hooks::none(), Logits::Last).unwrap().unwrap();
    let split = f32s(split.tensor()).unwrap();
    for row in split.chunks(model.spec.vocab_size) {
        assert_close("forked", row, &f32s(whole.tensor()).unwrap(), 1e-5);
    }
    let scaled = Edit {
        site: Site::at(SiteKind::ResidPre, 1),
        rows: None,
        positions: Positions::At(vec![8]),
        f: Arc::new(Scale(2.0)),
    };
    let whole = model.run(&Tape::new(), &Batch::one(&ids), None, &mut Hooks::none().edit(scaled.clone()), Logits::Last);
    let mut forked = prefix.fork(1, 16).unwrap();
    let rest = Batch::one(&ids[5..]);
    let split = model.run(&Tape::new(), &rest, Some(&mut forked), &mut Hooks::none().edit(scaled), Logits::Last);
    let (whole, split) = (whole.unwrap().unwrap(), split.unwrap().unwrap());
    assert_close("edit behind a cache", &f32s(split.tensor()).unwrap(), &f32s(whole.tensor()).unwrap(), 1e-5);
}

#[test]
fn gradients_flow_through_edits() {
    let model = model();
    let site = Site::at(SiteKind::ResidMid, 1);
    let (watched, d) = (Site::at(SiteKind::ResidPre, 0), 32);
    let edits: [Arc<dyn SiteFn>; 3] = [
        Arc::new(Scale(1.5)),
        Arc::new(ProjectOut::new(&wave(d))),
        Arc::new(Add { vectors: Vectors::One(wave(d)), scale: 0.7 }),
    ];
    for f in edits {
        let edit = || Edit { site, rows: None, positions: Positions::At(vec![3, 7]), f: f.clone() };
        let tape = Tape::new();
        let mut hooks = Hooks::none().edit(edit()).watch(watched);
        let out = model.run(&tape, &batch(), None, &mut hooks, Logits::Last).unwrap().unwrap();
        let seed = tensor((0..122).map(|i| (i as f32).cos()).collect::<Vec<f32>>(), (2, 1, 61)).unwrap();
        let grad = tape.gradients(&out, &seed, &[hooks.value(watched).unwrap()]).unwrap().remove(0);
        let base = hooks.value(watched).unwrap().tensor().clone();
        let objective = |x: Tensor| -> f64 {
            let replace = Edit::everywhere(watched, Arc::new(Replace(Vectors::PerPlace(x))));
            let mut hooks = Hooks::none().edit(replace).edit(edit());
            let out: Value = model.run(&Tape::new(), &batch(), None, &mut hooks, Logits::Last).unwrap().unwrap();
            let (out, seed) = (f32s(out.tensor()).unwrap(), f32s(&seed).unwrap());
            out.iter().zip(seed.iter()).map(|(a, b)| f64::from(a * b)).sum()
        };
        // Along one random direction, the gradient predicts the change.
        let direction: Vec<f32> = (0..2 * 12 * d).map(|i| (i as f32 * 0.77).sin()).collect();
        let moved = |s: f32| {
            let x: Vec<f32> = f32s(&base).unwrap().iter().zip(&direction).map(|(x, u)| x + s * u).collect();
            objective(tensor(x, (2, 12, d)).unwrap())
        };
        let numeric = ((moved(1e-3) - moved(-1e-3)) / 2e-3) as f32;
        let exact: f32 = f32s(&grad).unwrap().iter().zip(&direction).map(|(g, u)| g * u).sum();
        assert_rel_l2("directional derivative", &[exact], &[numeric], 1e-2);
    }
}
