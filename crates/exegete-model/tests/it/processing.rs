//! TransformerLens's weight processing (`refs/tl_processing`): its numbers, and the same function.

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, LoadOptions, Logits, Model, Processing};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{Golden, assert_close, refs_dir};

fn log_softmax(logits: &[f32], v: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let lse = row.iter().map(|x| f64::from(x - max).exp()).sum::<f64>().ln() + f64::from(max);
        row.iter().map(|x| (f64::from(*x) - lse) as f32).collect::<Vec<f32>>()
    };
    logits.chunks(v).flat_map(row).collect()
}

#[test]
fn processed_models_have_transformer_lens_numbers() {
    let golden = Golden::load("tl_processing/golden.safetensors");
    let cases = [
        ("gpt2", Processing { fold_norms: true, centre_writing: true, centre_unembed: true }),
        ("llama2", Processing { fold_norms: true, centre_writing: false, centre_unembed: true }),
    ];
    for (case, processing) in cases {
        let path = refs_dir().join("families").join(case);
        let options = LoadOptions { processing, ..LoadOptions::default() };
        let (plain, model) = (Model::open(&path).unwrap(), Model::open_with(&path, &options).unwrap());
        let tokens = Golden::load(format!("families/{case}/golden.safetensors"));
        let batch = Batch::uniform(tokens.tokens("tokens"), tokens.shape("tokens")[0]);
        let sites: Vec<Site> = (0..model.spec.n_layers).map(|l| Site::at(SiteKind::ResidPost, l)).collect();
        let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.tap(*s));
        let logits = model.run(&Tape::new(), &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
        for site in sites {
            let got = f32s(hooks.value(site).unwrap().tensor()).unwrap();
            assert_close(&format!("{case}: {site}"), &got, golden.f32(&format!("{case}/{site}")), 1e-5);
        }
        let unprocessed = plain.run(&Tape::new(), &batch, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
        let v = model.spec.vocab_size;
        let (got, same) =
            (log_softmax(&f32s(logits.tensor()).unwrap(), v), log_softmax(&f32s(unprocessed.tensor()).unwrap(), v));
        assert_close(&format!("{case}: processing changed the model"), &got, &same, 1e-5);
        assert_close(&format!("{case}: log-probabilities"), &got, golden.f32(&format!("{case}/log_probs")), 1e-5);
    }
}

#[test]
fn processing_that_would_change_the_model_is_refused() {
    let refused = |case: &str, processing: Processing, word: &str| {
        let options = LoadOptions { processing, ..LoadOptions::default() };
        let error = Model::open_with(&refs_dir().join("families").join(case), &options).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused("llama2", Processing { centre_writing: true, ..Processing::default() }, "RMSNorm");
    refused("gemma2", Processing { centre_unembed: true, ..Processing::default() }, "soft cap");
    refused("qwen3_moe", Processing { fold_norms: true, ..Processing::default() }, "experts");
}
