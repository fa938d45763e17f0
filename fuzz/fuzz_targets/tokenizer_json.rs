//! A `tokenizer.json`, and texts through it and back.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use exegete_fuzz::memory::{self, Counting};
use exegete_fuzz::rng::Rng;
use exegete_fuzz::{ALLOWANCE, guarded, json, place, start, words, write_seeds};
use exegete_model::Tokenizer;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static DIR: LazyLock<PathBuf> = LazyLock::new(place::scratch);

/// A regular expression of a few bytes may become a program of ten MiB, which is its crate's own bound, twice (with and
/// without special tokens).
const REGEX: usize = 40 << 20;

fuzz_target!(
    init: {
        start();
        write_seeds(seeds());
    },
    |data: &[u8]| {
        let (text, file) = split(data);
        let text = String::from_utf8_lossy(text);
        place::write(&DIR.join("tokenizer.json"), file);
        let most = 4 * file.len() + ALLOWANCE + REGEX;
        guarded(|| {
            let bos = (text.len() % 2 == 1).then_some(1);
            let Ok(tokenizer) = memory::bounded(most, || Tokenizer::from_dir(&DIR, bos)) else { return };
            let _ = tokenizer.check_fits(1000);
            for ids in [tokenizer.encode_text(&text), tokenizer.encode_prompt(&text)].into_iter().flatten() {
                let _ = tokenizer.decode(&ids);
                ids.iter().take(20).for_each(|id| drop(tokenizer.token_text(*id)));
            }
            let _ = tokenizer.token_bytes(u32::MAX);
        });
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    let (text, file) = split(&data[..size]);
    let mut text = String::from_utf8_lossy(text).into_owned();
    if rng.one_in(10) {
        json::change_text(&mut text, rng, words::TOKENIZER);
        let most = text.floor_char_boundary(255);
        text.truncate(most);
    }
    match json::mutated(file, rng, words::TOKENIZER) {
        Some(file) if !rng.one_in(20) && text.len() + 1 + file.len() <= max_size => {
            let out = [&[text.len() as u8], text.as_bytes(), &file].concat();
            data[..out.len()].copy_from_slice(&out);
            out.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

/// A length, a text, the file.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(*len).min(rest.len()))
}

/// The four kinds of model and every kind of step before and behind them.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let added = |id: u32, text: &str| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": true, "normalized": false,
            "special": true})
    };
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4, "\u{2581}": 5, "<0x41>": 6, "\u{120}": 7, "c": 8},
        "merges": ["a b"]});
    let pairs = json!({"type": "BPE", "unk_token": null, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
        "vocab": {"a": 0, "##b": 1, "ab": 2, "b</w>": 3}, "merges": [["a", "##b"]]});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": true,
        "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["\u{2581}a", -1.5], ["b", -2.0], ["ab", -2.5], ["<0x41>", -9.0]]});
    let pieces = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "ab": 3, "##b": 4, "a": 5}});
    let words = json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2}});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let split = json!({"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\p{L}+"}, "behavior": "Isolated",
        "invert": false});
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let template = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
    let all = [
        (
            "bpe",
            bpe.clone(),
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
            replace]}),
            Value::Null,
            template.clone(),
            json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
        ),
        (
            "bytes",
            bpe,
            json!({"type": "NFC"}),
            json!({"type": "Sequence", "pretokenizers": [digits, split,
            byte_level.clone()]}),
            json!({"type": "Sequence", "processors": [byte_level.clone(), template]}),
            byte_level,
        ),
        (
            "pairs",
            pairs,
            json!({"type": "Lowercase"}),
            json!({"type": "WhitespaceSplit"}),
            Value::Null,
            json!({"type": "BPEDecoder", "suffix": "</w>"}),
        ),
        (
            "unigram",
            unigram,
            json!({"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"},
            {"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "StripAccents"},
            {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}]}),
            metaspace.clone(),
            Value::Null,
            metaspace,
        ),
        (
            "pieces",
            pieces,
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true}),
            json!({"type": "BertPreTokenizer"}),
            json!({"type":
            "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}),
            json!({"type": "WordPiece", "prefix": "##",
            "cleanup": true}),
        ),
        (
            "words",
            words,
            Value::Null,
            json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type":
            "Punctuation", "behavior": "Removed"}, {"type": "CharDelimiterSplit", "delimiter": "_"}, {"type":
            "UnicodeScripts"}, {"type": "FixedLength", "length": 5}]}),
            json!({"type": "RobertaProcessing", "sep":
            ["b", 2], "cls": ["a", 1], "trim_offsets": true, "add_prefix_space": true}),
            json!({"type": "CTC",
            "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}),
        ),
    ];
    let mut out = Vec::new();
    for (i, (name, model, normalizer, pre, post, decoder)) in all.into_iter().enumerate() {
        let (truncation, padding) = match i % 2 {
            0 => (Value::Null, Value::Null),
            _ => (
                json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 2}),
                json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": 4, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<unk>"}),
            ),
        };
        let file = json!({"version": "1.0", "truncation": truncation, "padding": padding,
            "added_tokens": [added(1, "<s>")], "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post,
            "decoder": decoder, "model": model});
        let text = "ab <s> aA1\u{e9}_b";
        out.push((name.into(), [&[text.len() as u8], text.as_bytes(), file.to_string().as_bytes()].concat()));
    }
    out
}
