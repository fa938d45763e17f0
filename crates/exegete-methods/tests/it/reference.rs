//! Curves and answers are those of transformers with hooks, on the real model (`refs/self_explain`).

use exegete_base::settings::SelfExplainSettings;
use exegete_methods::self_explain::SelfExplainer;
use exegete_model::Model;
use exegete_testkit::{Golden, assert_close};

#[test]
fn curves_and_greedy_answers_are_those_of_transformers() {
    let Some(path) = exegete_testkit::real_model() else {
        return exegete_testkit::not_run("SmolLM2-135M-Instruct is not here: run cargo xtask models");
    };
    let model = Model::open(&path).unwrap();
    let golden = Golden::load("self_explain/golden.safetensors");
    let [n, d] = *golden.shape("directions") else { panic!("directions are a table") };
    let scales = golden.f32("scales").len();
    let max_scale = f64::from(golden.f32("scales")[scales - 1]);
    let [_, answered, new] = *golden.shape("answers") else { panic!("answers have three axes") };
    let settings = SelfExplainSettings { scales, max_scale, explanation_tokens: new, ..SelfExplainSettings::default() };
    let explainer = SelfExplainer::new(&model, &settings).unwrap();
    let (directions, at) = (golden.f32("directions"), golden.i32("answered"));
    assert!(n >= 20 && scales >= 64);
    let tokenizer = model.tokenizer().unwrap();
    let mut different = 0;
    for (i, direction) in directions.chunks_exact(d).enumerate() {
        let unit = explainer.base(direction).unwrap();
        let curves = explainer.curves(&unit).unwrap();
        for (name, got) in [
            ("self_similarity", &curves.self_similarity),
            ("entropy", &curves.entropy),
            ("cross_entropy", &curves.cross_entropy),
        ] {
            let got: Vec<f32> = got.iter().map(|v| *v as f32).collect();
            assert_close(&format!("{name} of {i}"), &got, &golden.f32(name)[i * scales..(i + 1) * scales], 1e-4);
        }
        let chosen: Vec<f64> = at.iter().map(|at| curves.scales[*at as usize]).collect();
        let texts = explainer.texts(&unit, &chosen).unwrap();
        for (j, text) in texts.iter().enumerate() {
            let from = (i * answered + j) * new;
            let ids: Vec<u32> = golden.i32("answers")[from..from + new].iter().map(|id| *id as u32).collect();
            // What an answer ends at is no part of it.
            let ends = |id: &u32| model.spec.eos_ids.contains(id);
            let ids: Vec<u32> = ids.into_iter().take_while(|id| !ends(id)).collect();
            let whole = tokenizer.decode(&ids).unwrap();
            let want = whole.split(['"', '\n']).find(|part| !part.trim().is_empty()).unwrap_or_default().trim();
            different += usize::from(text != want);
            if text != want {
                eprintln!("direction {i} at scale {:.0}: {text:?}, transformers {want:?}", chosen[j]);
            }
        }
    }
    assert_eq!(different, 0, "answers that differ, of {}", n * answered);
}
