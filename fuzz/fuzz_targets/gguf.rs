//! A GGUF file of any architecture, opened with its weights in memory or left in the file, and run.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use exegete_fuzz::gguf::{Entry, Header, Input, KINDS, Meta};
use exegete_fuzz::memory::Counting;
use exegete_fuzz::rng::Rng;
use exegete_fuzz::{open_and_run, place, refs, start, write_seeds};
use exegete_model::{LoadOptions, Residence};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| place::scratch().join("m.gguf"));

fuzz_target!(
    init: {
        start();
        write_seeds(seeds());
    },
    |data: &[u8]| {
        let input = Input::decode(data);
        let file = input.file();
        place::write(&FILE, &file);
        let residence = if input.stored { Residence::Stored } else { Residence::F32 };
        open_and_run(&FILE, &LoadOptions { residence, ..LoadOptions::default() }, file.len());
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    let mut input = Input::decode(&data[..size]);
    if rng.one_in(20) || input.change(rng).is_none() {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let out = input.encode();
    if out.len() > max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..out.len()].copy_from_slice(&out);
    out.len()
});

/// Every file of the goldens, and a model wide enough for the formats with blocks of 256 in each format.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for group in ["families_gguf", "llama_tiny/gguf"] {
        for entry in std::fs::read_dir(refs().join(group)).expect("refs/ is there").flatten() {
            if entry.path().extension().is_some_and(|e| e == "gguf") {
                let mut input = Input::of_file(&std::fs::read(entry.path()).expect("a golden can be read"));
                let name = entry.file_name().to_string_lossy().into_owned();
                out.push((name.clone(), input.encode()));
                input.stored = true;
                out.push((format!("{name}-stored"), input.encode()));
            }
        }
    }
    for (kind, ..) in &KINDS[..KINDS.len() - 2] {
        let mut input = Input::default();
        (input.header, input.n_bytes) = wide(*kind).write();
        input.fill.pattern = [7, 1, 9, 3, 2, 8, 5, 6];
        input.stored = kind % 2 == 0;
        out.push((format!("wide-{kind}"), input.encode()));
    }
    out
}

/// A llama of one layer whose rows have 256 values, with a SentencePiece vocabulary and a chat template.
fn wide(kind: u32) -> Header {
    let number = |n: u32| (4, Meta::Number(n.to_le_bytes().to_vec()));
    let text = |t: &str| (8, Meta::Text(t.into()));
    let list = |kind: u32, items: Vec<Meta>| (9, Meta::List(kind, items));
    let pieces = ["<unk>", "<s>", "</s>", "<0x41>", "\u{2581}", "a", "b", "ab"];
    let texts = pieces.iter().map(|p| Meta::Text((*p).into())).collect();
    let scores = (0..8).map(|i| Meta::Number((-(i as f32)).to_le_bytes().to_vec())).collect();
    let kinds = [2u32, 3, 3, 6, 1, 1, 1, 1].iter().map(|k| Meta::Number(k.to_le_bytes().to_vec())).collect();
    let pairs = [
        ("general.architecture", text("llama")),
        ("llama.block_count", number(1)),
        ("llama.context_length", number(64)),
        ("llama.embedding_length", number(256)),
        ("llama.feed_forward_length", number(256)),
        ("llama.attention.head_count", number(16)),
        ("llama.attention.head_count_kv", number(1)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", list(8, texts)),
        ("tokenizer.ggml.scores", list(6, scores)),
        ("tokenizer.ggml.token_type", list(5, kinds)),
        ("tokenizer.ggml.bos_token_id", number(1)),
        ("tokenizer.chat_template", text("{% for m in messages %}{{ m.content }}{% endfor %}")),
    ];
    let pairs = pairs.into_iter().map(|(key, (kind, value))| (key.as_bytes().to_vec(), kind, value)).collect();
    let shapes: [(&str, &[u64], u32); 11] = [
        ("token_embd.weight", &[256, 8], kind),
        ("blk.0.attn_norm.weight", &[256], 0),
        ("blk.0.attn_q.weight", &[256, 256], kind),
        ("blk.0.attn_k.weight", &[256, 16], kind),
        ("blk.0.attn_v.weight", &[256, 16], kind),
        ("blk.0.attn_output.weight", &[256, 256], kind),
        ("blk.0.ffn_norm.weight", &[256], 0),
        ("blk.0.ffn_gate.weight", &[256, 256], kind),
        ("blk.0.ffn_up.weight", &[256, 256], kind),
        ("blk.0.ffn_down.weight", &[256, 256], kind),
        ("output_norm.weight", &[256], 0),
    ];
    let entry =
        |(name, dims, kind): (&str, &[u64], u32)| Entry { name: name.into(), dims: dims.to_vec(), kind, offset: 0 };
    let mut header = Header { version: 3, pairs, tensors: shapes.into_iter().map(entry).collect() };
    header.lay_out();
    header
}
