//! Weights in bf16 and as stored, and what does not fit into memory.

use exegete_model::{Batch, Hooks, KvCache, LoadOptions, Logits, Model, Residence};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{Golden, assert_close, refs_dir, rel_l2};

fn open(path: &std::path::Path, residence: Residence) -> Model {
    Model::open_with(path, &LoadOptions { residence, ..LoadOptions::default() }).unwrap()
}

fn logits(model: &Model, batch: &Batch) -> Vec<f32> {
    let out = model.run(&Tape::new(), batch, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
    f32s(out.tensor()).unwrap().to_vec()
}

#[test]
fn stored_weights_compute_the_same_and_bf16_nearly() {
    for entry in std::fs::read_dir(refs_dir().join("families")).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("config.json").is_file() {
            continue;
        }
        let golden = Golden::load(path.join("golden.safetensors"));
        let batch = Batch::uniform(golden.tokens("tokens"), 2);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let plain = logits(&open(&path, Residence::F32), &batch);
        assert_close(&name, &logits(&open(&path, Residence::Stored), &batch), &plain, 1e-5);
        let off = rel_l2(&logits(&open(&path, Residence::Bf16), &batch), &plain);
        // A wrong expert or a wrong row would be of order one; eight bits of mantissa through a few layers are not.
        assert!(off > 0.0 && off < 0.2, "{name}: bf16 is {off} away");
    }
}

/// Enough tokens that products go to a matrix unit where there is one: which kernel computes a token's experts must not
/// hang on where the router sends the others.
#[test]
fn a_sequence_has_the_same_bits_whatever_its_neighbours_say() {
    for case in ["qwen3", "qwen3_moe"] {
        let model = open(&refs_dir().join("families").join(case), Residence::F32);
        let (n_rows, len) = (8, 32);
        let vocab = model.spec.vocab_size as u32;
        let batch = |seed: u32| {
            let id = |i: u32| (if i < len { i * 7 } else { (i + seed).wrapping_mul(2_654_435_761) >> 7 }) % vocab;
            Batch::uniform((0..n_rows * len).map(id).collect(), n_rows as usize)
        };
        let first = |seed: u32| logits(&model, &batch(seed))[..(len * vocab) as usize].to_vec();
        let want = first(0);
        assert!((1..8).all(|seed| first(seed * 1000) == want), "{case}");
    }
}

/// The path of other devices, on the one device that every machine has.
#[test]
fn products_on_a_device_agree_with_the_goldens_forward_and_backward() {
    for case in ["gpt2", "gpt_neox", "llama3", "gemma2", "qwen3_moe", "olmo2"] {
        let path = refs_dir().join("families").join(case);
        let golden = Golden::load(path.join("golden.safetensors"));
        let batch = Batch::uniform(golden.tokens("tokens"), 2);
        let options = LoadOptions { device: Some(exegete_tensor::Device::Cpu), ..LoadOptions::default() };
        let model = Model::open_with(&path, &options).unwrap();
        assert!(model.weights.layers[0].q.w.device().is_some() && model.weights.embed.device().is_none());
        assert_close(case, &logits(&model, &batch), golden.f32("hook_logits"), 1e-5);
        let (loss, grad) = crate::real::next_token_loss(&model, &batch);
        assert_close(case, &[loss], golden.f32("loss"), 1e-5);
        exegete_testkit::assert_rel_l2(case, &grad, golden.f32("grad/hook_embed"), 1e-5);
    }
}

#[test]
fn the_real_model_stays_as_small_as_its_file_and_says_the_same() {
    let Some(path) = exegete_testkit::real_model() else {
        return exegete_testkit::not_run("SmolLM2-135M-Instruct is not here: run cargo xtask models");
    };
    let file = std::fs::metadata(&path).unwrap().len() as f64;
    let (stored, half) = (open(&path, Residence::Stored), open(&path, Residence::Bf16));
    assert!(stored.weights.matrix_bytes() as f64 <= 1.15 * file);
    assert!(half.weights.matrix_bytes() as f64 <= 2.1 * stored.spec.n_parameters() as f64);
    let golden = Golden::load("smollm2/golden.safetensors");
    let batch = Batch::one(&golden.tokens("tokens")[..64]);
    let plain = logits(&open(&path, Residence::F32), &batch);
    let off = rel_l2(&logits(&stored, &batch), &plain);
    assert!(off < 1e-5, "as stored: {off}");
    let (half, v) = (logits(&half, &batch), stored.spec.vocab_size);
    assert!(rel_l2(&half, &plain) < 0.05, "bf16 is {} away", rel_l2(&half, &plain));
    let best = |row: &[f32]| (0..v).fold(0, |b, i| if row[i] > row[b] { i } else { b });
    let same = half.chunks(v).zip(plain.chunks(v)).filter(|(a, b)| best(a) == best(b)).count();
    assert!(same >= 58, "{same} of 64 likeliest tokens agree");
}

#[test]
fn what_does_not_fit_is_refused_with_its_size_before_it_is_taken() {
    let model = open(&refs_dir().join("families/llama2"), Residence::F32);
    let error = KvCache::new(&model.spec, 1 << 22, 1 << 20).err().unwrap().to_string();
    assert!(error.contains("GiB") && error.contains("available") && error.contains("fewer rows"), "{error}");
    let error = KvCache::new(&model.spec, usize::MAX, usize::MAX).err().unwrap().to_string();
    assert!(error.contains("key-value cache"), "{error}");
    // Sixty-four positions at most: a longer text is refused by number.
    let error = model
        .run(&Tape::new(), &Batch::one(&[7; 65]), None, &mut Hooks::none(), Logits::Last)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("65 tokens") && error.contains("made for 64"), "{error}");
    // An id that has no row.
    let error = model.run(&Tape::new(), &Batch::one(&[61]), None, &mut Hooks::none(), Logits::Last).err().unwrap();
    assert!(error.to_string().contains("index 61 is outside 0..61"), "{error}");
}
