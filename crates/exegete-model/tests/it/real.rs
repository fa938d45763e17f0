//! SmolLM2-135M-Instruct from its GGUF file against transformers (`refs/smollm2`).

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, GenerateOptions, Hooks, Logits, Message, Model};
use exegete_tensor::{Tape, f32s, tensor};
use exegete_testkit::{Golden, assert_close, assert_rel_l2, refs_dir};

/// Mean next-token loss of a batch and its gradient at the input embeddings.
pub(crate) fn next_token_loss(model: &Model, batch: &Batch) -> (f32, Vec<f32>) {
    let tape = Tape::new();
    let embed = Site::global(SiteKind::Embed);
    let mut hooks = Hooks::none().watch(embed);
    let logits = model.run(&tape, batch, None, &mut hooks, Logits::All).unwrap().unwrap();
    let flat = tape.reshape(&logits, &[batch.ids.len(), model.spec.vocab_size]).unwrap();
    let len = batch.len().unwrap();
    let rows: Vec<u32> = (0..batch.ids.len() as u32).filter(|i| !(*i as usize + 1).is_multiple_of(len)).collect();
    let targets: Vec<u32> = rows.iter().map(|i| batch.ids[*i as usize + 1]).collect();
    let loss_N = tape.cross_entropy(&tape.rows(&flat, &rows).unwrap(), &targets).unwrap();
    let n = targets.len();
    let mean = f32s(loss_N.tensor()).unwrap().iter().sum::<f32>() / n as f32;
    let seed = tensor(vec![1.0 / n as f32; n], n).unwrap();
    let grads = tape.gradients(&loss_N, &seed, &[hooks.value(embed).unwrap()]).unwrap();
    (mean, f32s(&grads[0]).unwrap().to_vec())
}

macro_rules! real_model {
    () => {
        match exegete_testkit::real_model() {
            Some(path) => Model::open(&path).unwrap(),
            None => return exegete_testkit::not_run("SmolLM2-135M-Instruct is not here: run cargo xtask models"),
        }
    };
}

#[test]
fn logits_agree_over_256_tokens() {
    let model = real_model!();
    let golden = Golden::load("smollm2/golden.safetensors");
    let ids: Vec<u32> = golden.i32("tokens").iter().map(|i| *i as u32).collect();
    let mut hooks = (0..model.spec.n_layers).fold(Hooks::none(), |h, l| h.tap(Site::at(SiteKind::ResidPre, l)));
    let logits = model.run(&Tape::new(), &Batch::one(&ids), None, &mut hooks, Logits::All).unwrap().unwrap();
    for layer in 0..model.spec.n_layers {
        let site = Site::at(SiteKind::ResidPre, layer);
        let value = hooks.value(site).unwrap();
        let row = &f32s(value.tensor()).unwrap()[255 * 576..];
        assert_close(&site.to_string(), row, &golden.f32("resid_pre_last")[layer * 576..(layer + 1) * 576], 1e-5);
    }
    let logits = f32s(logits.tensor()).unwrap();
    let v = model.spec.vocab_size;
    let mut worst = 0f32;
    for (p, row) in logits.chunks(v).enumerate() {
        for (c, column) in golden.i32("columns").iter().enumerate() {
            worst = worst.max((row[*column as usize] - golden.f32("logits_cols")[p * 512 + c]).abs());
        }
        let lse = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let lse = lse + row.iter().map(|x| (f64::from(*x) - lse).exp()).sum::<f64>().ln();
        worst = worst.max((lse as f32 - golden.f32("logsumexp")[p]).abs());
    }
    for (i, p) in golden.i32("full_positions").iter().enumerate() {
        let row = &logits[*p as usize * v..(*p as usize + 1) * v];
        for (a, b) in row.iter().zip(&golden.f32("logits_full")[i * v..]) {
            worst = worst.max((a - b).abs());
        }
    }
    eprintln!("largest |difference| of logits: {worst:e}");
    assert!(worst < 2e-3, "logits differ by {worst:e}");
}

#[test]
fn the_greedy_continuation_is_identical() {
    let model = real_model!();
    let golden = Golden::load("smollm2/golden.safetensors");
    let ids: Vec<u32> = golden.i32("tokens").iter().map(|i| *i as u32).collect();
    let options = GenerateOptions::greedy(64, vec![]);
    let new = model.generate(&[ids], &options, &mut Hooks::none()).unwrap().ids.remove(0);
    let want: Vec<u32> = golden.i32("greedy").iter().map(|i| *i as u32).collect();
    assert_eq!(new, want);
}

#[test]
fn the_gradient_at_the_embeddings_agrees() {
    let model = real_model!();
    let golden = Golden::load("smollm2/golden.safetensors");
    let ids: Vec<u32> = golden.i32("tokens")[..64].iter().map(|i| *i as u32).collect();
    let (loss, grad) = next_token_loss(&model, &Batch::one(&ids));
    assert_close("loss", &[loss], golden.f32("loss_64"), 1e-5);
    assert_rel_l2("grad_embed", &grad, golden.f32("grad_embed"), 1e-5);
}

#[test]
fn tokens_and_chats_agree() {
    let model = real_model!();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(refs_dir().join("smollm2").join(name)).unwrap()).unwrap()
    };
    let tokenizer = model.tokenizer().unwrap();
    for case in read("tokens.json").as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let got = tokenizer.encode_prompt(text).unwrap();
        assert_eq!(got, want, "{text:?}");
        if !text.contains("<|") {
            let bytes: Vec<u8> = got.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
            assert_eq!(bytes, text.as_bytes(), "the tokens' bytes spell the text");
            assert_eq!(tokenizer.encode_text(text).unwrap(), want);
        }
    }
    assert!(tokenizer.encode_text("<|im_start|>").unwrap().len() > 1, "text cannot forge special tokens");
    for case in read("chat.json").as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let text = model.chat.as_ref().unwrap().render(&messages, true).unwrap();
        assert_eq!(text, case["rendered"].as_str().unwrap());
        let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode_prompt(&text).unwrap(), want);
    }
}
