//! Whether self-explanation is alive: words of the real model, from its own residuals (`refs/words.tsv`).

use exegete_base::settings::SelfExplainSettings;
use exegete_base::{Site, SiteKind};
use exegete_methods::direction::at_last_token;
use exegete_methods::self_explain::SelfExplainer;
use exegete_model::Model;
use exegete_testkit::refs_dir;

/// Words that are tested; the study of scales takes them all.
const TESTED: usize = 16;

/// Words with all accepted answers, the word first.
fn words() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(refs_dir().join("words.tsv")).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#')).take(TESTED);
    lines.map(|l| l.split(['\t', ',']).map(str::to_lowercase).collect()).collect()
}

fn says(text: &str, accepted: &[String]) -> bool {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_alphanumeric()).any(|word| accepted.iter().any(|a| a == word))
}

#[test]
fn a_word_stands_in_its_own_explanation() {
    let Some(path) = exegete_testkit::real_model() else {
        return exegete_testkit::not_run("SmolLM2-135M-Instruct is not here: run cargo xtask models");
    };
    let model = Model::open(&path).unwrap();
    let text = std::fs::read_to_string(refs_dir().join("words.tsv")).unwrap();
    let spelled: Vec<&str> =
        text.lines().filter(|l| !l.starts_with('#')).take(TESTED).map(|l| l.split('\t').next().unwrap()).collect();
    let site = Site::at(SiteKind::ResidPost, 8);
    let residuals: Vec<Vec<f32>> =
        spelled.iter().map(|w| at_last_token(&model, &format!(" The {w}"), site).unwrap()).collect();
    let mean: Vec<f32> =
        (0..model.spec.d_model).map(|i| residuals.iter().map(|r| r[i]).sum::<f32>() / residuals.len() as f32).collect();
    let settings = SelfExplainSettings { max_scale: 400.0, ..SelfExplainSettings::default() };
    let explainer = SelfExplainer::new(&model, &settings).unwrap();
    let (mut hits, mut control_hits) = (0, 0);
    for (i, (accepted, resid)) in words().iter().zip(&residuals).enumerate() {
        let direction: Vec<f32> = resid.iter().zip(&mean).map(|(r, m)| r - m).collect();
        let explained = explainer.explain(&direction).unwrap();
        let hit = explained.answers.iter().any(|a| says(&a.text, accepted));
        let control = explainer.explain(&explainer.random_direction(7, i as u64)).unwrap();
        control_hits += usize::from(control.answers.iter().any(|a| says(&a.text, accepted)));
        hits += usize::from(hit);
        let texts: Vec<String> = explained.answers.iter().map(|a| format!("{:.0}: {}", a.scale, a.text)).collect();
        eprintln!(
            "{} {:<9} {:.3} | {}",
            if hit { "+" } else { "-" },
            spelled[i],
            explained.best_similarity,
            texts.join(" | ")
        );
    }
    eprintln!("{hits} of {} words; random directions: {control_hits}", residuals.len());
    assert!(hits >= 8, "only {hits} of {} words", residuals.len());
    assert!(control_hits <= 2, "random directions say the word {control_hits} times");
}
