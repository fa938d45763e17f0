//! A directory with `config.json` and one safetensors file, or two and their index, opened and run.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use exegete_fuzz::memory::Counting;
use exegete_fuzz::rng::Rng;
use exegete_fuzz::shards::{FILES, Shards};
use exegete_fuzz::{open_and_run, place, start, tiny_models, write_seeds};
use exegete_model::{LoadOptions, Residence};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static DIR: LazyLock<PathBuf> = LazyLock::new(place::scratch);
static MODELS: LazyLock<Vec<(String, PathBuf)>> = LazyLock::new(tiny_models);
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| MODELS.iter().map(|(name, _)| name.clone()).collect());
static CONFIGS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let read = |(name, dir): &(String, PathBuf)| (name.clone(), std::fs::read(dir.join("config.json")).unwrap());
    MODELS.iter().map(read).collect()
});

fuzz_target!(
    init: {
        start();
        write_seeds(seeds());
    },
    |data: &[u8]| {
        let input = Shards::decode(data);
        let (config, single) = (DIR.join("config.json"), DIR.join("model.safetensors"));
        let index = DIR.join("model.safetensors.index.json");
        let mut n_bytes = 0;
        let mut put = |path: PathBuf, bytes: &[u8]| {
            n_bytes += bytes.len();
            place::write(&path, bytes);
        };
        match CONFIGS.iter().find(|(name, _)| *name == input.model) {
            Some((_, bytes)) => put(config, bytes),
            None => drop(std::fs::remove_file(config)),
        }
        if input.sharded {
            let _ = std::fs::remove_file(&single);
            put(index, &input.index);
            (0..2).for_each(|shard| put(DIR.join(FILES[shard]), &input.file(shard)));
        } else {
            put(single, &input.file(0));
        }
        let residence = if input.stored { Residence::Stored } else { Residence::F32 };
        open_and_run(&DIR, &LoadOptions { residence, ..LoadOptions::default() }, n_bytes);
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    let mut input = Shards::decode(&data[..size]);
    for _ in 0..1 + rng.below(3) {
        input.change(rng, &NAMES);
    }
    let out = input.encode();
    if rng.one_in(20) || out.len() > max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..out.len()].copy_from_slice(&out);
    out.len()
});

/// Every tiny model as one file and as two, and the lecture model without a configuration.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (name, dir) in MODELS.iter() {
        let Ok(bytes) = std::fs::read(dir.join("model.safetensors")) else { continue };
        let len = u64::from_le_bytes(std::array::from_fn(|i| bytes[i])) as usize;
        for sharded in [false, true] {
            let input = Shards::of_header(name, &bytes[8..8 + len], sharded);
            out.push((format!("{name}-{}", 1 + usize::from(sharded)), input.encode()));
        }
    }
    let shapes: [(&str, &[usize]); 19] = [
        ("token_embedding_table.weight", &[5, 4]),
        ("position_embedding_table.weight", &[8, 4]),
        ("blocks.0.sa.heads.0.key.weight", &[2, 4]),
        ("blocks.0.sa.heads.1.key.weight", &[2, 4]),
        ("blocks.0.sa.heads.0.query.weight", &[2, 4]),
        ("blocks.0.sa.heads.1.query.weight", &[2, 4]),
        ("blocks.0.sa.heads.0.value.weight", &[2, 4]),
        ("blocks.0.sa.heads.1.value.weight", &[2, 4]),
        ("blocks.0.sa.proj.weight", &[4, 4]),
        ("blocks.0.sa.proj.bias", &[4]),
        ("blocks.0.ln1.weight", &[4]),
        ("blocks.0.ln1.bias", &[4]),
        ("blocks.0.ln2.weight", &[4]),
        ("blocks.0.ln2.bias", &[4]),
        ("blocks.0.ffwd.net.0.weight", &[16, 4]),
        ("blocks.0.ffwd.net.0.bias", &[16]),
        ("blocks.0.ffwd.net.2.weight", &[4, 16]),
        ("blocks.0.ffwd.net.2.bias", &[4]),
        ("ln_f.weight", &[4]),
    ];
    let mut header = serde_json::Map::new();
    let more: [(&str, &[usize]); 3] = [("ln_f.bias", &[4]), ("lm_head.weight", &[5, 4]), ("lm_head.bias", &[5])];
    for (name, shape) in shapes.into_iter().chain(more) {
        header.insert(name.into(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}));
    }
    let notes = serde_json::json!({"n_layer": "1", "n_head": "2", "n_embd": "4", "block_size": "8", "vocab_size": "5"});
    header.insert("__metadata__".into(), notes);
    let text = serde_json::Value::from(header).to_string();
    out.push(("lecture".into(), Shards::of_header("", text.as_bytes(), false).encode()));
    out
}
