//! A `config.json` beside the real weights of its tiny model, opened and run.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use exegete_fuzz::memory::Counting;
use exegete_fuzz::rng::Rng;
use exegete_fuzz::{json, open_and_run, place, start, tiny_models, words, write_seeds};
use exegete_model::LoadOptions;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A folder for each tiny model, with its weights and their size.
static MODELS: LazyLock<Vec<(String, PathBuf, usize)>> = LazyLock::new(|| {
    let base = place::scratch();
    let copy = |(name, from): (String, PathBuf)| {
        let to = base.join(&name);
        std::fs::create_dir_all(&to).unwrap();
        let mut n_bytes = 0;
        for file in std::fs::read_dir(from).unwrap().flatten().map(|e| e.path()) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("model") {
                n_bytes += std::fs::copy(&file, to.join(name)).unwrap() as usize;
            }
        }
        (name, to, n_bytes)
    };
    tiny_models().into_iter().map(copy).collect()
});

fuzz_target!(
    init: {
        start();
        write_seeds(tiny_models().into_iter().map(|(name, dir)| {
            let config = std::fs::read(dir.join("config.json")).unwrap();
            (name.clone(), [name.as_bytes(), b"\n", &config].concat())
        }));
    },
    |data: &[u8]| {
        let (name, config) = split(data);
        // A name that is not known stands for one that is, so that no input is lost.
        let sum: usize = name.iter().map(|b| usize::from(*b)).sum();
        let found = MODELS.iter().find(|(known, ..)| known.as_bytes() == name);
        let (_, dir, n_bytes) = found.unwrap_or(&MODELS[sum % MODELS.len()]);
        place::write(&dir.join("config.json"), config);
        open_and_run(dir, &LoadOptions::default(), n_bytes + config.len());
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    let (name, config) = split(&data[..size]);
    let name = if rng.one_in(30) { rng.pick(&MODELS).0.clone().into_bytes() } else { name.to_vec() };
    match json::mutated(config, rng, words::JSON) {
        Some(config) if !rng.one_in(20) && name.len() + 1 + config.len() <= max_size => {
            let out = [&name, b"\n".as_slice(), &config].concat();
            data[..out.len()].copy_from_slice(&out);
            out.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

/// The name of a model in the first line, its configuration in the others.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    (&data[..at], data.get(at + 1..).unwrap_or_default())
}
