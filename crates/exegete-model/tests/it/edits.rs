//! Identities of taps and edits.

use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_model::edits::{Add, AddAtNorm, ProjectOut, Replace, Scale, ScaleHeads, SetComponent, Vectors};
use exegete_model::{Batch, Edit, GenerateOptions, Hooks, KvCache, Logits, Model, Positions};
use exegete_tensor::{SiteFn, Tape, Tensor, Value, f32s, tensor};
use exegete_testkit::{assert_close, assert_rel_l2, refs_dir};

fn model() -> Model {
    Model::open(&refs_dir().join("llama_tiny/gqa_tied")).unwrap()
}

fn batch() -> Batch {
    Batch::uniform((0..24).map(|i| (i * 7 + 3) % 61).collect(), 2)
}

fn logits(model: &Model, hooks: &mut Hooks) -> Vec<f32> {
    let out = model.run(&Tape::new(), &batch(), None, hooks, Logits::All).unwrap().unwrap();
    f32s(out.tensor()).unwrap().to_vec()
}

fn wave(d: usize) -> Vec<f32> {
    (0..d).map(|i| (i as f32 * 1.7).sin()).collect()
}

/// The width of a site in the batch above, where 12 keys are seen at most.
fn width(model: &Model, site: Site) -> usize {
    model.spec.site_width(site, 12)
}

#[test]
fn patching_with_ones_own_activation_and_scale_0_change_no_bit() {
    let model = model();
    let fused = logits(&model, &mut Hooks::none());
    for site in model.spec.sites() {
        // Where the inside of an op is looked at, it is computed in steps; that rounds differently, and nothing more.
        let plain = logits(&model, &mut Hooks::none().tap(site));
        assert_close(&site.to_string(), &plain, &fused, 1e-5);
        let in_steps = [SiteKind::Norm1, SiteKind::Norm2, SiteKind::FinalNorm];
        let in_steps =
            in_steps.contains(&site.kind) || matches!(site.kind, SiteKind::AttnScores | SiteKind::AttnPattern);
        assert!(in_steps || plain == fused, "reading {site} changed the logits");
        let mut hooks = Hooks::none().tap(site);
        assert_eq!(logits(&model, &mut hooks), plain, "reading {site} twice differs");
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
    let edit = Edit { rows: Some(vec![1]), ..Edit::everywhere(site, f).at(Positions::At(vec![5])) };
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
fn a_cache_changes_nothing_and_forks_share_their_prefix() {
    let model = model();
    let ids: Vec<u32> = batch().ids[..12].to_vec();
    let run = |batch: &Batch, cache: Option<&mut KvCache>, hooks: &mut Hooks| {
        let out = model.run(&Tape::new(), batch, cache, hooks, Logits::Last).unwrap().unwrap();
        f32s(out.tensor()).unwrap().to_vec()
    };
    let whole = run(&Batch::one(&ids), None, &mut Hooks::none());
    let mut cache = KvCache::new(&model.spec, 1, 5).unwrap();
    run(&Batch::one(&ids[..5]), Some(&mut cache), &mut Hooks::none());
    let prefix = cache.freeze();
    let mut forked = prefix.fork(&[0, 0, 0], 7).unwrap();
    let split = run(&Batch::uniform(ids[5..].repeat(3), 3), Some(&mut forked), &mut Hooks::none());
    for row in split.chunks(model.spec.vocab_size) {
        assert_close("forked", row, &whole, 1e-5);
    }
    // A fork of a fork, whose rows have different lengths.
    let mut first = prefix.fork(&[0, 0], 4).unwrap();
    run(&Batch::rows(&[ids[5..9].to_vec(), ids[5..7].to_vec()]), Some(&mut first), &mut Hooks::none());
    let mut second = first.freeze().fork(&[1, 0, 1], 5).unwrap();
    let rest = [ids[7..].to_vec(), ids[9..].to_vec(), ids[7..].to_vec()];
    for row in run(&Batch::rows(&rest), Some(&mut second), &mut Hooks::none()).chunks(model.spec.vocab_size) {
        assert_close("forked twice", row, &whole, 1e-5);
    }
    let scaled = Edit::everywhere(Site::at(SiteKind::ResidPre, 1), Arc::new(Scale(2.0))).at(Positions::At(vec![8]));
    let whole = run(&Batch::one(&ids), None, &mut Hooks::none().edit(scaled.clone()));
    let mut forked = prefix.fork(&[0], 7).unwrap();
    let split = run(&Batch::one(&ids[5..]), Some(&mut forked), &mut Hooks::none().edit(scaled));
    assert_close("edit behind a cache", &split, &whole, 1e-5);
}

#[test]
fn a_run_from_a_layer_ends_as_the_whole_run() {
    let model = model();
    let whole = logits(&model, &mut Hooks::none());
    for layer in 0..model.spec.n_layers {
        let site = Site::at(SiteKind::ResidPre, layer);
        let mut hooks = Hooks::none().tap(site);
        if layer > 0 {
            hooks = hooks.stop_after(layer - 1).tap(Site::at(SiteKind::ResidPost, layer - 1));
            assert!(model.run(&Tape::new(), &batch(), None, &mut hooks, Logits::All).unwrap().is_none());
        } else {
            model.run(&Tape::new(), &batch(), None, &mut hooks, Logits::None).unwrap();
        }
        let from = if layer > 0 { Site::at(SiteKind::ResidPost, layer - 1) } else { site };
        let resid = hooks.value(from).unwrap();
        let (tape, start) = (Tape::new(), (layer, resid));
        let out = model.run_from(&tape, &batch(), start, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
        assert_eq!(f32s(out.tensor()).unwrap()[..], whole, "from layer {layer}");
    }
    let wrong = tensor(vec![0f32; 24 * 31], (2, 12, 31)).unwrap().into();
    let refused = model.run_from(&Tape::new(), &batch(), (0, &wrong), None, &mut Hooks::none(), Logits::All);
    assert!(refused.unwrap_err().to_string().contains("width 32"));
}

#[test]
fn rows_of_any_lengths_and_logits_of_any_tokens_agree_with_one_row_alone() {
    let model = model();
    let ids = batch().ids;
    let rows = [ids[..7].to_vec(), ids[7..9].to_vec(), ids[9..].to_vec()];
    let ragged = Batch::rows(&rows);
    let site = Site::at(SiteKind::AttnZ, 1);
    let mut hooks = Hooks::none().tap(site);
    let all = model.run(&Tape::new(), &ragged, None, &mut hooks, Logits::All).unwrap().unwrap();
    assert_eq!(all.tensor().dims(), [24, 61]);
    assert_eq!(hooks.value(site).unwrap().tensor().dims(), [24, 4, 8]);
    let all = f32s(all.tensor()).unwrap();
    let mut from = 0;
    for row in &rows {
        let alone = model.run(&Tape::new(), &Batch::one(row), None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
        assert_close("row", &all[from * 61..(from + row.len()) * 61], &f32s(alone.tensor()).unwrap(), 1e-5);
        from += row.len();
    }
    let picked = Logits::At(vec![3, 8, 20]);
    let picked = model.run(&Tape::new(), &ragged, None, &mut Hooks::none(), picked).unwrap().unwrap();
    let want: Vec<f32> = [3usize, 8, 20].iter().flat_map(|t| all[t * 61..(t + 1) * 61].to_vec()).collect();
    assert_close("picked", &f32s(picked.tensor()).unwrap(), &want, 1e-5);
}

#[test]
fn gradients_flow_through_edits() {
    let model = model();
    let site = Site::at(SiteKind::ResidMid, 1);
    let (watched, d) = (Site::at(SiteKind::ResidPre, 0), 32);
    let edits: [Arc<dyn SiteFn>; 6] = [
        Arc::new(AddAtNorm { vectors: Vectors::One(wave(d)), scale: 0.5 }),
        Arc::new(SetComponent::new(&wave(d), 2.0)),
        Arc::new(ScaleHeads { heads: vec![1, 3], width: 8, factor: 0.25 }),
        Arc::new(Scale(1.5)),
        Arc::new(ProjectOut::new(&wave(d))),
        Arc::new(Add { vectors: Vectors::One(wave(d)), scale: 0.7 }),
    ];
    for f in edits {
        let edit = || Edit::everywhere(site, f.clone()).at(Positions::At(vec![3, 7]));
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

#[test]
fn hooks_keep_their_order_their_aliases_and_what_they_were_given() {
    let model = model();
    // The same point under two names: what is added first is done first.
    let (first, alias) = (Site::at(SiteKind::AttnOut, 1), Site::at(SiteKind::AttnModuleOut, 1));
    let add = || Arc::new(Add { vectors: Vectors::One(wave(32)), scale: 3.0 });
    let zero = || Arc::new(Scale(0.0));
    let run = |mut hooks: Hooks| {
        logits(&model, &mut hooks);
        f32s(hooks.value(alias).unwrap().tensor()).unwrap().to_vec()
    };
    let added_last =
        run(Hooks::none().edit(Edit::everywhere(alias, zero())).edit(Edit::everywhere(first, add())).tap(alias));
    assert_close("added last", &added_last[..32], &wave(32).iter().map(|x| 3.0 * x).collect::<Vec<f32>>(), 1e-6);
    let added_first =
        run(Hooks::none().edit(Edit::everywhere(first, add())).edit(Edit::everywhere(alias, zero())).tap(alias));
    assert!(added_first.iter().all(|x| *x == 0.0));
    // A run that is refused loses nothing.
    let plain = logits(&model, &mut Hooks::none());
    let mut hooks = Hooks::none().edit(Edit::everywhere(first, zero()));
    assert!(model.run(&Tape::new(), &Batch::one(&[99]), None, &mut hooks, Logits::All).is_err());
    assert_ne!(logits(&model, &mut hooks), plain);
    assert_eq!(hooks.untouched().count(), 0);
    let far = Edit::everywhere(first, zero()).at(Positions::At(vec![40]));
    let mut hooks = Hooks::none().edit(far);
    assert_eq!(logits(&model, &mut hooks), plain);
    assert_eq!(hooks.untouched().count(), 1);
    let mut hooks = Hooks::none().stop_after(7);
    let error = model.run(&Tape::new(), &batch(), None, &mut hooks, Logits::All).err().unwrap().to_string();
    assert!(error.contains("layer 7"), "{error}");
}

#[test]
fn nothing_added_at_any_length_is_nothing_and_what_is_no_number_is_told() {
    let model = model();
    let plain = logits(&model, &mut Hooks::none());
    let site = Site::at(SiteKind::ResidMid, 1);
    let nothing = Arc::new(AddAtNorm { vectors: Vectors::One(vec![0.0; 32]), scale: 2.0 });
    assert_eq!(logits(&model, &mut Hooks::none().edit(Edit::everywhere(site, nothing))), plain);
    let mut hooks = Hooks::none().edit(Edit::everywhere(site, Arc::new(Scale(f32::NAN))));
    let options = GenerateOptions::greedy(4, vec![]);
    let error = model.generate(&[vec![5, 6]], &options, &mut hooks).err().unwrap().to_string();
    assert!(error.contains("not numbers"), "{error}");
    let error = model.generate(&[vec![5, 6]], &GenerateOptions::greedy(usize::MAX, vec![]), &mut Hooks::none());
    assert!(error.err().unwrap().to_string().contains("ask for fewer"));
}

#[test]
fn values_of_another_tape_are_constants() {
    let model = model();
    let site = Site::at(SiteKind::ResidPost, 0);
    let (one, other) = (Tape::new(), Tape::new());
    let mut hooks = Hooks::none().watch(site).stop_after(0);
    model.run(&one, &batch(), None, &mut hooks, Logits::None).unwrap();
    let resid = hooks.value(site).unwrap();
    let out = model.run_from(&other, &batch(), (1, resid), None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
    assert!(other.gradients(&out, out.tensor(), &[resid]).is_err(), "the other tape did not record it");
    let again = other.watch(resid);
    let out = model.run_from(&other, &batch(), (1, &again), None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
    assert!(other.gradients(&out, out.tensor(), &[&again]).is_ok());
}
