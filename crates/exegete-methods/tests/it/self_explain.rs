//! Identities of self-explanation, on stories260K.

use exegete_base::settings::{GuidanceFrom, Insertion, SelfExplainSettings};
use exegete_methods::self_explain::{SelfExplainer, TEMPLATES};
use exegete_model::Model;
use exegete_testkit::assert_close;

fn settings(scales: usize) -> SelfExplainSettings {
    SelfExplainSettings { scales, max_scale: 20.0, explanation_tokens: 8, ..SelfExplainSettings::default() }
}

macro_rules! stories {
    () => {
        match exegete_testkit::data_dir() {
            Some(dir) => Model::open(&dir.join("models/stories260K/stories260K.bin")).unwrap(),
            None => return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here"),
        }
    };
}

fn as_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

#[test]
fn scale_0_is_the_zero_of_both_curves_and_equal_directions_agree() {
    let model = stories!();
    let explainer = SelfExplainer::new(&model, &settings(9)).unwrap();
    let direction = explainer.random_direction(1, 2);
    let one = explainer.explain(&direction).unwrap();
    assert_eq!((one.curves.self_similarity[0], one.curves.entropy[0]), (0.0, 0.0));
    assert_eq!(one.curves.scales, [0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0, 17.5, 20.0]);
    assert_eq!(explainer.explain(&direction).unwrap(), one);
    let longer: Vec<f32> = direction.iter().map(|x| x * 4.0).collect();
    assert_eq!(explainer.explain(&longer).unwrap(), one, "only the direction counts");
    assert_ne!(explainer.random_direction(1, 3), direction);
}

#[test]
fn a_batch_of_scales_equals_one_scale_at_a_time() {
    let model = stories!();
    let many = SelfExplainer::new(&model, &settings(9)).unwrap();
    let unit = {
        let d = many.random_direction(5, 5);
        let norm = d.iter().map(|x| x * x).sum::<f32>().sqrt();
        d.iter().map(|x| x / norm).collect::<Vec<f32>>()
    };
    let all = many.curves(&unit).unwrap();
    for i in 1..9 {
        let alone = SelfExplainSettings { max_scale: all.scales[i], ..settings(2) };
        let curves = SelfExplainer::new(&model, &alone).unwrap().curves(&unit).unwrap();
        let pairs = [(&curves.self_similarity, &all.self_similarity), (&curves.entropy, &all.entropy)];
        for (one, all) in pairs.into_iter().chain([(&curves.cross_entropy, &all.cross_entropy)]) {
            assert_close("curve", &as_f32(&one[1..]), &as_f32(&all[i..=i]), 1e-4);
        }
    }
}

#[test]
fn bad_settings_and_directions_are_refused() {
    let model = stories!();
    let refused = |s: SelfExplainSettings| SelfExplainer::new(&model, &s).err().unwrap().to_string();
    assert!(refused(SelfExplainSettings { insert_layer: 5, ..settings(4) }).contains("--insert-layer"));
    assert!(refused(settings(1)).contains("--scales"));
    let explainer = SelfExplainer::new(&model, &settings(4)).unwrap();
    assert!(explainer.explain(&[0.0; 64]).unwrap_err().to_string().contains("zero"));
    assert!(explainer.explain(&[1.0; 63]).unwrap_err().to_string().contains("63"));
}

#[test]
fn insertions_templates_and_guidance_are_what_they_say() {
    let model = stories!();
    let of = |s: SelfExplainSettings| SelfExplainer::new(&model, &s).unwrap();
    let replace = of(settings(9));
    let direction = replace.random_direction(3, 1);
    // Adding nothing is the prompt as it is; replacing by nothing is not.
    let add = of(SelfExplainSettings { insertion: Insertion::Add, ..settings(9) });
    let at_norm = of(SelfExplainSettings { insertion: Insertion::AddAtNorm, max_scale: 2.0, ..settings(9) });
    let base = replace.base(&direction).unwrap();
    let texts = |e: &SelfExplainer| e.texts(&base, &[0.0]).unwrap();
    assert_eq!(texts(&add), texts(&at_norm));
    let curves = [&add, &at_norm].map(|e| e.curves(&base).unwrap());
    assert_eq!(curves[0].cross_entropy[0], curves[1].cross_entropy[0]);
    assert_ne!(curves[0].cross_entropy[0], replace.curves(&base).unwrap().cross_entropy[0]);
    assert_ne!(curves[0].self_similarity[5], curves[1].self_similarity[5]);
    // A row that is twice as long is inserted twice as long only where rows go in as they are.
    let longer: Vec<f32> = base.iter().map(|x| x * 2.0).collect();
    let stored = of(SelfExplainSettings { as_stored: true, max_scale: 10.0, ..settings(9) });
    let (twice, once) = (stored.curves(&stored.base(&longer).unwrap()).unwrap(), replace.curves(&base).unwrap());
    assert_close("as stored", &as_f32(&twice.self_similarity), &as_f32(&once.self_similarity), 1e-4);
    // Self-similarity that counts is that of its layer.
    let of_layer = once.by_layer.iter().find(|c| c.layer == model.spec.n_layers - 3).unwrap();
    assert_eq!(of_layer.self_similarity, once.self_similarity);
    assert_eq!(once.by_layer.len(), model.spec.n_layers - 2);
    // Guidance away from what is said anyway leads nowhere; away from nothing it leads somewhere.
    let guided = |factor: f64, from: GuidanceFrom| {
        let guided = of(SelfExplainSettings { guidance: factor, guidance_from: from, ..settings(9) });
        guided.texts(&base, &[0.0, 5.0, 20.0]).unwrap()
    };
    let plain = replace.texts(&base, &[0.0, 5.0, 20.0]).unwrap();
    assert_eq!(guided(1.0, GuidanceFrom::Nothing), plain);
    let strong = guided(8.0, GuidanceFrom::Nothing);
    assert_eq!(strong[0], plain[0], "scale 0 is its own baseline");
    assert_ne!(strong[1..], plain[1..]);
    assert_ne!(guided(8.0, GuidanceFrom::MeanEmbedding), strong);
    for (name, _) in TEMPLATES {
        let named = of(SelfExplainSettings { template: (*name).into(), ..settings(5) });
        assert!(named.curves(&base).unwrap().entropy.iter().all(|h| h.is_finite()), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.toml");
    std::fs::write(&own, "begun = 'A Q is a'\nplaceholder = 'Q'\n").unwrap();
    let own = of(SelfExplainSettings { template: own.display().to_string(), ..settings(5) });
    assert!(!own.texts(&base, &[5.0]).unwrap()[0].is_empty());
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "begun = 'A Q is a'\nquery = 'Q'\n").unwrap();
    let refused =
        SelfExplainer::new(&model, &SelfExplainSettings { template: bad.display().to_string(), ..settings(5) });
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("bad.toml") && refused.contains("query"), "{refused}");
}

#[test]
fn every_scale_has_its_answer() {
    let model = stories!();
    let explainer = SelfExplainer::new(&model, &SelfExplainSettings { abstain_below: -1.0, ..settings(9) }).unwrap();
    let direction = explainer.random_direction(3, 1);
    let explained = explainer.explain(&direction).unwrap();
    let texts = explainer.texts(&explainer.base(&direction).unwrap(), &explained.curves.scales).unwrap();
    let mut said = 0;
    for (i, answer) in explained.said.iter().enumerate() {
        if let Some(answer) = answer {
            assert_eq!(explained.answers[*answer].text.to_lowercase(), texts[i].to_lowercase());
            said += 1;
        }
    }
    assert!(said >= 3 && explained.answers.iter().enumerate().all(|(i, a)| !explained.answers[..i].contains(a)));
}
