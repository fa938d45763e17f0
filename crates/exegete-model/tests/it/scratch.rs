//! Models from teaching code, of which trained ones are in the data pack: every intermediate tensor of minGPT's sorter,
//! the lecture model's unusual scale, and a tied GPT that knows its corpus by heart.

use std::path::PathBuf;

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{assert_close, sorter_file, sorter_tensor, write_sorter};
use serde_json::Value as Json;

macro_rules! data {
    ($name:literal) => {
        match exegete_testkit::data_dir() {
            Some(data) => data.join("models").join($name),
            None => return exegete_testkit::not_run(concat!("EXEGETE_DATA is not set: ", $name, " is not here")),
        }
    };
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn floats(v: &Json) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(v: &Json) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

#[test]
fn every_tensor_of_the_sorter_agrees() {
    let dir = data!("gpt_nano_sort");
    let made = tempfile::tempdir().unwrap();
    write_sorter(&dir.join("gpt-nano-sort-model.json"), made.path());
    let model = Model::open(made.path()).unwrap();
    let partials = sorter_file(&dir.join("gpt-nano-sort-t0-partials.json"));
    let tensor = |name: &str| sorter_tensor(&partials, name).0;
    let idx: Vec<u32> = tensor("idx").iter().map(|x| *x as u32).collect();
    let batch = Batch::uniform(idx, 3);
    let sites = model.spec.sites();
    let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.tap(*s));
    let logits = model.run(&Tape::new(), &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
    let site = |kind: SiteKind| f32s(hooks.value(Site::at(kind, 0)).unwrap().tensor()).unwrap().to_vec();
    // Their heads stand before positions, ours behind them.
    let by_position = |name: &str, width: usize| -> Vec<f32> {
        let (b, h, t) = (3, 3, 11);
        let x = tensor(name);
        let mut out = Vec::new();
        for (b, t, h) in (0..b).flat_map(|b| (0..t).flat_map(move |t| (0..h).map(move |h| (b, t, h)))) {
            let from = ((b * 3 + h) * 11 + t) * width;
            out.extend_from_slice(&x[from..from + width]);
        }
        assert_eq!(out.len(), b * h * t * width);
        out
    };
    let embed = f32s(hooks.value(Site::global(SiteKind::Embed)).unwrap().tensor()).unwrap().to_vec();
    let close = |what: &str, got: &[f32], want: &[f32]| assert_close(what, got, want, 1e-5);
    close("tok_emb", &embed, &tensor("tok_emb"));
    close(
        "pos_emb",
        &f32s(hooks.value(Site::global(SiteKind::PosEmbed)).unwrap().tensor()).unwrap()[..11 * 48],
        &tensor("pos_emb"),
    );
    close("x", &site(SiteKind::ResidPre), &tensor("x"));
    close("ln1", &site(SiteKind::AttnIn), &tensor("ln1"));
    close("q", &site(SiteKind::AttnQ), &by_position("q", 16));
    close("k", &site(SiteKind::AttnK), &by_position("k", 16));
    close("v", &site(SiteKind::AttnV), &by_position("v", 16));
    close("attSm", &site(SiteKind::AttnPattern), &by_position("attSm", 11));
    let (scores, want) = (site(SiteKind::AttnScores), by_position("att", 11));
    let seen: Vec<usize> = (0..scores.len()).filter(|i| scores[*i].is_finite()).collect();
    let pick = |x: &[f32]| seen.iter().map(|i| x[*i]).collect::<Vec<f32>>();
    close("att", &pick(&scores), &pick(&want));
    close("y", &site(SiteKind::AttnZ), &tensor("y"));
    close("yProj", &site(SiteKind::AttnOut), &tensor("yProj"));
    close("attnResid", &site(SiteKind::ResidMid), &tensor("attnResid"));
    close("ln2", &site(SiteKind::MlpIn), &tensor("ln2"));
    close("fc", &site(SiteKind::MlpPre), &tensor("fc"));
    close("gelu", &site(SiteKind::MlpPost), &tensor("gelu"));
    close("mlp", &site(SiteKind::MlpOut), &tensor("mlp"));
    close("mlpResid", &site(SiteKind::ResidPost), &tensor("mlpResid"));
    for layer in 0..3 {
        let got = f32s(hooks.value(Site::at(SiteKind::ResidPost, layer)).unwrap().tensor()).unwrap().to_vec();
        close("block", &got, &tensor(&format!("block{layer}")));
    }
    let last = f32s(hooks.value(Site::global(SiteKind::FinalResid)).unwrap().tensor()).unwrap().to_vec();
    close("ln_f", &last, &tensor("ln_f"));
    close("lm_head", &f32s(logits.tensor()).unwrap(), &tensor("lm_head"));
}

fn prompts_agree(dir: PathBuf) -> Model {
    let model = Model::open(&dir).unwrap();
    let v = model.spec.vocab_size;
    for prompt in json(dir.join("golden.json"))["prompts"].as_array().unwrap() {
        let batch = Batch::one(&ids(&prompt["ids"]));
        let logits = model.run(&Tape::new(), &batch, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
        let logits = f32s(logits.tensor()).unwrap();
        let text = prompt["text"].as_str().unwrap();
        assert_close(text, &logits[logits.len() - v..], &floats(&prompt["logits_last"]), 1e-5);
        let best = |row: &[f32]| (0..v).fold(0, |b, i| if row[i] > row[b] { i } else { b }) as u32;
        assert_eq!(logits.chunks(v).map(best).collect::<Vec<u32>>(), ids(&prompt["argmax"]), "{text}");
    }
    model
}

#[test]
fn the_lecture_models_unusual_scale_is_a_field() {
    let model = prompts_agree(data!("chargpt_tinystories"));
    assert_eq!(model.spec.d_head, 16);
    assert!(model.spec.layers.iter().all(|l| l.scale == 0.125), "the root of the width, not of a head's");
}

#[test]
fn the_tied_model_agrees() {
    let model = prompts_agree(data!("slm4096"));
    assert!(model.spec.tied);
}
