//! The name of a published dictionary in the first line, and the files of a repository in the others.
#![no_main]

use std::collections::BTreeSet;

use exegete_fuzz::memory::{self, Counting};
use exegete_fuzz::{json, rng::Rng, start, write_seeds};
use exegete_sae::{formats, releases};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The table of releases taken apart, and the distances of a name to all of its 14,000.
const MOST_BYTES: usize = 64 << 20;

fuzz_target!(
    init: {
        start();
        write_seeds(seeds());
    },
    |data: &[u8]| {
        let text = String::from_utf8_lossy(data);
        let (name, files) = text.split_once('\n').unwrap_or((&text, ""));
        let there: BTreeSet<String> = files.lines().map(str::to_owned).collect();
        memory::bounded(MOST_BYTES, || {
            // Most inputs are of files alone, for the table is long.
            if data.len().is_multiple_of(8)
                && let Ok(found) = releases::find(name)
            {
                assert!(!found.repo.is_empty(), "a release without a repository");
            }
            for format in formats::names().map(Some).chain([None]) {
                if let Ok(chosen) = formats::files_of(name, format, &there) {
                    assert!(chosen.iter().all(|file| there.contains(file)), "a file that is not there was chosen");
                }
            }
        });
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    let mut text = String::from_utf8_lossy(&data[..size]).into_owned();
    json::change_text(&mut text, rng, WORDS);
    if rng.one_in(4) || text.len() > max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
});

const WORDS: &[&str] = &[
    "gpt2-small-res-jb/blocks.8.hook_resid_pre",
    "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical",
    "\na/cfg.json",
    "\na/sae_weights.safetensors",
    "\nW_enc_0.safetensors",
    "\nW_dec_0.safetensors",
    "\nW_enc_1.safetensors",
    "\nparams_layer_0.safetensors",
    "\nz.pt",
    "\nz_cfg.json",
    "/",
    "//",
    "{}",
    "..",
];

fn seeds() -> Vec<(String, Vec<u8>)> {
    let whole: String = WORDS.concat();
    let mut out = vec![("whole".to_owned(), format!("a{whole}").into_bytes())];
    out.extend(WORDS.iter().enumerate().map(|(i, word)| (format!("word-{i}"), format!("{word}{whole}").into_bytes())));
    out
}
