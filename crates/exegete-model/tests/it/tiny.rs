//! Tiny random Llamas against transformers (`refs/llama_tiny`), site by site, and stories260K.

use exegete_base::Site;
use exegete_model::{Batch, GenerateOptions, Hooks, Logits, Model, Part, Weight};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{Golden, assert_close, assert_rel_l2, refs_dir};

const CASES: [&str; 3] = ["mha_untied", "gqa_tied", "mqa_untied_sharded"];

fn batch(golden: &Golden) -> Batch {
    let dims = golden.shape("tokens");
    let ids = golden.i32("tokens").iter().map(|i| *i as u32).collect();
    Batch::uniform(ids, dims[0])
}

#[test]
fn every_site_agrees_with_transformers() {
    for case in CASES {
        let golden = Golden::load(format!("llama_tiny/{case}/golden.safetensors"));
        let model = Model::open(&refs_dir().join("llama_tiny").join(case)).unwrap();
        let sites: Vec<Site> = model.spec.sites().into_iter().filter(|s| golden.contains(&s.to_string())).collect();
        assert_eq!(sites.len(), 3 + 12 * model.spec.n_layers, "{case}");
        let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.tap(*s));
        model.run(&Tape::new(), &batch(&golden), None, &mut hooks, Logits::All).unwrap();
        // In the order of computation, so that the first site that diverges is the one reported.
        for site in sites {
            let value = hooks.value(site).unwrap_or_else(|| panic!("{case}: {site} was not read"));
            let name = site.to_string();
            assert_eq!(value.tensor().dims(), golden.shape(&name), "{case}: {name}");
            assert_close(&format!("{case}: {name}"), &f32s(value.tensor()).unwrap(), golden.f32(&name), 1e-5);
        }
    }
}

#[test]
fn the_loss_and_its_gradient_agree() {
    for case in CASES {
        let golden = Golden::load(format!("llama_tiny/{case}/golden.safetensors"));
        let model = Model::open(&refs_dir().join("llama_tiny").join(case)).unwrap();
        let (loss, grad) = crate::real::next_token_loss(&model, &batch(&golden));
        assert_close(case, &[loss], golden.f32("loss"), 1e-5);
        assert_rel_l2(case, &grad, golden.f32("grad_embed"), 1e-5);
    }
}

#[test]
fn greedy_texts_agree_whatever_stands_beside_them() {
    for case in CASES {
        let golden = Golden::load(format!("llama_tiny/{case}/golden.safetensors"));
        let model = Model::open(&refs_dir().join("llama_tiny").join(case)).unwrap();
        let rows: Vec<Vec<u32>> =
            golden.i32("tokens").chunks(12).map(|r| r[..5].iter().map(|i| *i as u32).collect()).collect();
        let options = GenerateOptions::greedy(16, vec![]);
        let both = model.generate(&rows, &options, &mut Hooks::none()).unwrap();
        let want: Vec<Vec<u32>> =
            golden.i32("greedy").chunks(16).map(|r| r.iter().map(|i| *i as u32).collect()).collect();
        assert_eq!(both.ids, want, "{case}");
        let longer = [rows[0].clone(), rows[1].iter().chain(&rows[0]).copied().collect()];
        let beside = model.generate(&longer, &options, &mut Hooks::none()).unwrap();
        assert_eq!(beside.ids[0], want[0], "{case}: beside a longer row");
    }
}

#[test]
fn every_gguf_encoding_agrees() {
    let golden = Golden::load("llama_tiny/gguf/golden.safetensors");
    for encoding in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"] {
        let model = Model::open(&refs_dir().join(format!("llama_tiny/gguf/{encoding}.gguf"))).unwrap();
        let gate = model.weights.value(Weight::at(Part::Gate, 1)).unwrap();
        assert_close(encoding, &f32s(gate.tensor()).unwrap(), golden.f32(&format!("{encoding}/blocks.1.w_gate")), 0.0);
        let logits = model.run(&Tape::new(), &batch(&golden), None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
        assert_close(encoding, &f32s(logits.tensor()).unwrap(), golden.f32(&format!("{encoding}/logits")), 1e-5);
    }
}

#[test]
fn stories260k_reproduces_its_golden() {
    let Some(data) = exegete_testkit::data_dir() else {
        return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here");
    };
    let dir = data.join("models/stories260K");
    let model = Model::open(&dir.join("stories260K.bin")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let ids_of = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect()
    };
    let floats_of = |v: &serde_json::Value| -> Vec<f32> {
        v.as_array().unwrap().iter().map(|i| i.as_f64().unwrap() as f32).collect()
    };
    let tokenizer = model.tokenizer().unwrap();
    let resid = Site::at(exegete_base::SiteKind::ResidPost, model.spec.n_layers - 1);
    for prompt in golden["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let ids = ids_of(&prompt["ids"]);
        let mut encoded = vec![1];
        encoded.extend(tokenizer.encode_text(text).unwrap());
        if !text.is_empty() {
            assert_eq!(encoded, ids, "{text:?}");
        }
        let mut hooks = Hooks::none().tap(resid);
        let logits = model.run(&Tape::new(), &Batch::one(&ids), None, &mut hooks, Logits::All).unwrap().unwrap();
        let logits = f32s(logits.tensor()).unwrap();
        assert_close(text, &logits[(ids.len() - 1) * 512..], &floats_of(&prompt["logits_last"]), 1e-4);
        let argmax: Vec<u32> = logits
            .chunks(512)
            .map(|row| (0..512u32).max_by(|a, b| row[*a as usize].total_cmp(&row[*b as usize])).unwrap())
            .collect();
        assert_eq!(argmax, ids_of(&prompt["argmax"]), "{text:?}");
        let greedy = ids_of(&prompt["greedy_ids"]);
        let options = GenerateOptions::greedy(greedy.len(), vec![]);
        let new = model.generate(std::slice::from_ref(&ids), &options, &mut Hooks::none()).unwrap().ids.remove(0);
        let want: Vec<u32> = greedy.iter().copied().skip(greedy.len().saturating_sub(new.len())).collect();
        assert!(
            new == want || [ids, new.clone()].concat()[..greedy.len()] == greedy[..],
            "{text:?}: {new:?}\n{greedy:?}"
        );
    }
    let want = ids_of(&golden["bos_greedy_200"]["ids"]);
    let options = GenerateOptions::greedy(want.len(), vec![]);
    let new = model.generate(&[vec![1]], &options, &mut Hooks::none()).unwrap().ids.remove(0);
    let all = [vec![1], new].concat();
    assert_eq!(all[all.len() - want.len() - usize::from(want[0] == 1)..][..want.len()], want[..]);
}
