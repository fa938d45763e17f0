//! Direct feature attribution: what the tokens of a window add sums to the activation.

use exegete_base::settings::{HarvestSettings, KeepSettings};
use exegete_base::{DocId, LatentId, Site, SiteKind};
use exegete_harvest::firings::{self, Harvested, How};
use exegete_harvest::rows::window_rows;
use exegete_harvest::training::Sites;
use exegete_harvest::{Activations, Silent, attribution, windows};
use exegete_model::Model;
use exegete_sae::kinds::{Rule, TopK};
use exegete_sae::{Dictionary, Sae};
use exegete_store::run::part_name;
use exegete_store::{
    AttributionReader, ExampleKind, ExampleReader, Run, TokenReader, Window, write_vocab, write_windows,
};
use serde_json::json;

const LEN: usize = 32;

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * by + 0.3).sin()).collect()
}

#[test]
fn what_tokens_add_sums_to_the_activation() {
    let Some(data) = exegete_testkit::data_dir() else { return exegete_testkit::not_run("EXEGETE_DATA is not set") };
    let model = Model::open(&data.join("models/stories260K/stories260K.bin")).unwrap();
    let (d, f) = (model.spec.n_heads * model.spec.d_head, 48);
    let sae = Sae {
        w_enc_FD: wave(f * d, 0.71),
        b_enc_F: wave(f, 0.13),
        w_dec_FD: wave(f * d, 0.37),
        b_dec_D: wave(d, 0.9).iter().map(|x| 0.1 * x).collect(),
        centres_input: true,
        ..Sae::zeros(d, d, 0, Rule::TopK(TopK { k: 4 }))
    };
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::create_or_resume(dir.path(), "test", json!({}), &[]).unwrap();
    let token = |doc: usize, t: usize| 3 + ((doc * 131 + t * t * 7 + t) % 500) as u32;
    // One window is shorter than the others.
    let len = |doc: usize| if doc == 5 { 9 } else { LEN };
    let window = |doc: usize| {
        let token_ids = (0..len(doc)).map(|t| token(doc, t)).collect();
        Window { doc: DocId(doc as u64), window: 0, start: 0, token_ids }
    };
    let texts: Vec<Window> = (0..19).map(window).collect();
    run.commit_part(&part_name("tokens", 0), texts.len() as u64, |w| write_windows(w, &texts)).unwrap();
    run.commit_part("tokens/vocab.parquet", 1, |w| write_vocab(w, &[vec![b'a']])).unwrap();
    run.finish_stage(windows::STAGE, json!({"window_len": LEN})).unwrap();
    let rows = window_rows(&TokenReader::open(&run.parts_under("tokens/part-")).unwrap()).unwrap();
    let site = Site::at(SiteKind::AttnZ, 1);
    let acts = Activations::streamed(&model, &[site], &rows, LEN).unwrap();
    let (keep, settings) =
        (KeepSettings { top_examples: 10, samples_per_level: 3, context: 6 }, HarvestSettings::default());
    let how = How {
        keep: &keep,
        settings: &settings,
        seed: 0,
        window: LEN,
        first: &texts,
        text_rows: 500,
        memory_bytes: 1 << 28,
        keep_activations: false,
    };
    let all = [Harvested { name: None, dictionary: &sae, sites: Sites::one(site) }];
    firings::run(&mut run, &model, &all, &acts, &rows, &how, &Silent).unwrap();
    attribution::run(&mut run, &model, &all, &rows, LEN, &Silent).unwrap();

    let examples = ExampleReader::open(&run.parts_under("examples/part-")).unwrap();
    let told = AttributionReader::open(&run.path(attribution::TABLE)).unwrap();
    let mut n = 0;
    for latent in 0..f {
        let row = sae.encoder_row(latent).unwrap();
        let centre: f32 = row.iter().zip(&sae.b_dec_D).map(|(w, b)| w * b).sum();
        let top = examples.latent(LatentId(latent as u32)).unwrap();
        let top: Vec<_> = top.iter().filter(|e| e.kind == ExampleKind::Top).collect();
        let of = told.latent(LatentId(latent as u32)).unwrap();
        assert_eq!(top.len(), of.len(), "every strongest firing of latent {latent} is told of, and no other");
        for example in top {
            let of = of.iter().find(|of| of.is_of(example)).unwrap();
            assert_eq!(of.values.len(), example.position as usize + 1);
            let sum: f32 = of.values.iter().sum::<f32>() + sae.b_enc_F[latent] - centre;
            assert!((sum - example.value).abs() < 1e-4 * (1.0 + example.value), "{sum} for {}", example.value);
            n += 1;
        }
    }
    assert!(n > 100, "{n} firings were looked at");
}

#[test]
fn only_dictionaries_of_one_layers_heads_are_told_of() {
    let sae = Sae::zeros(8, 8, 4, Rule::TopK(TopK { k: 2 }));
    let is_told = |reads: &[Site]| {
        let sites = Sites { reads: reads.to_vec(), writes: Vec::new() };
        attribution::is_told(&Harvested { name: None, dictionary: &sae, sites })
    };
    let heads = |layer: usize| Site::at(SiteKind::AttnZ, layer);
    assert!(is_told(&[heads(1)]) && !is_told(&[Site::at(SiteKind::ResidPost, 1)]));
    assert!(!is_told(&[heads(1), heads(2)]), "a crosscoder has no such pass");
}
