//! Identities of self-explanation, on stories260K.

use exegete_base::settings::SelfExplainSettings;
use exegete_methods::self_explain::SelfExplainer;
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
