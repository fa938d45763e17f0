//! Text to token ids and back: `tokenizer.json`, the vocabulary inside a GGUF file, llama2.c's `tok*.bin`.
//!
//! All three become a tokenizer of the `tokenizers` crate. Of the two that are no `tokenizer.json`, the steps around
//! the vocabulary are written out as one; pieces and merges are handed over as they are, since tens of thousands of
//! them take longer to write and to read again than all the rest.

mod lazy;
mod shared;

use std::path::Path;

use exegete_base::settings::BosPolicy;
use serde_json::{Value, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeBuilder};

pub(crate) use self::lazy::LazyTokenizer;
use self::shared::{Shared, SharedTokenizer};
use crate::weights::gguf::Metadata;
use crate::{ModelError, Result};

/// Whether a text's tokens begin with the beginning-of-sequence token.
pub use exegete_base::settings::BosPolicy as Bos;

/// The longest piece of a vocabulary that is read piece by piece: every way to cut it in two is tried, which takes the
/// square of its length. The longest of known vocabularies have a hundred bytes.
const MOST_PIECE_BYTES: usize = 512;

/// How the pieces of the vocabulary spell bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spelling {
    /// GPT-2's table of printable characters, one a byte.
    ByteLevel,
    /// SentencePiece: a lower one-eighth block for a space, `<0xNN>` for a byte.
    SentencePiece,
}

/// A model's tokenizer.
#[derive(Clone)]
pub struct Tokenizer {
    /// Finds special tokens in what it reads (prompts, chats).
    with_specials: SharedTokenizer,
    /// Takes special tokens' spellings for ordinary text (corpora are not to be trusted).
    plain: SharedTokenizer,
    spelling: Spelling,
    bos_id: Option<u32>,
    adds_bos: bool,
    n_ids: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in a directory.
    ///
    /// # Errors
    /// It is missing or malformed.
    pub fn from_dir(dir: &Path, bos_id: Option<u32>) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|e| ModelError::io(&path, e))?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?;
        if has_lying_map(&json) {
            let detail = "key \"precompiled_charsmap\": its first four bytes announce more than it holds";
            return Err(ModelError::format(&path, detail));
        }
        let inner = read(&path, &json)?;
        let adds_bos = match bos_id {
            Some(bos) => {
                let encoding = caught(path.display(), || inner.encode("a", true).map_err(|e| failed(&path, &e)))?;
                encoding.get_ids().first() == Some(&bos)
            }
            None => false,
        };
        let n_ids = inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self::new(inner, spelling(&json), n_ids, bos_id, adds_bos))
    }

    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// The description is incomplete or of a kind that is not handled.
    pub fn from_gguf(path: &Path, m: &Metadata, bos_id: Option<u32>) -> Result<Self> {
        let fail = |detail: &str| ModelError::Tokenizer(format!("{}: {detail}", path.display()));
        let texts = |key: &str| -> Option<Vec<&str>> { Some(m.texts(key)?.iter().collect()) };
        let pieces = texts("tokenizer.ggml.tokens")
            .ok_or_else(|| fail("tokenizer.ggml.tokens is missing or no list of texts"))?;
        if let Some((id, piece)) = pieces.iter().enumerate().find(|(_, piece)| piece.len() > MOST_PIECE_BYTES) {
            let n = piece.len();
            return Err(fail(&format!(
                "piece {id} of tokenizer.ggml.tokens has {n} bytes; at most {MOST_PIECE_BYTES} are handled"
            )));
        }
        let numbers = |key: &str| m.numbers(key).filter(|list| list.len() == pieces.len());
        let kinds: Vec<f64> = match (m.get("tokenizer.ggml.token_type"), numbers("tokenizer.ggml.token_type")) {
            (None, _) => vec![1.0; pieces.len()],
            (Some(_), Some(list)) => list.iter().collect(),
            (Some(_), None) => {
                return Err(fail(
                    "tokenizer.ggml.token_type is no list of numbers, one for each of tokenizer.ggml.tokens",
                ));
            }
        };
        // llama.cpp's token types: 3 control, 4 user-defined.
        let added: Vec<(&str, bool)> = pieces
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| **kind == 3.0 || **kind == 4.0)
            .map(|(piece, kind)| (*piece, *kind == 3.0))
            .collect();
        let (steps, model, default_bos) = match m.text("tokenizer.ggml.model") {
            Some("gpt2") => {
                let merges = texts("tokenizer.ggml.merges").ok_or_else(|| fail("tokenizer.ggml.merges is missing"))?;
                let pre = m.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
                let cut = Cut::by_name(pre)
                    .ok_or_else(|| fail(&format!("tokenizer.ggml.pre {pre:?} is not handled; handled are {CUTS}")))?;
                let no_pair = |merge: &str| fail(&format!("tokenizer.ggml.merges holds {merge:?}, which is no pair"));
                let merges = merges.into_iter().map(|merge| pair(merge).ok_or_else(|| no_pair(merge)));
                let model = bpe(&pieces, merges.collect::<Result<Vec<_>>>()?).ignore_merges(cut.ignore_merges);
                (byte_level(&cut), model, cut.adds_bos)
            }
            Some("llama") => {
                let scores = numbers("tokenizer.ggml.scores");
                let scores = scores.ok_or_else(|| fail("tokenizer.ggml.scores is missing or of another length"))?;
                let scores: Vec<f64> = scores.iter().collect();
                let prefix = m.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
                (sentencepiece(prefix), sentencepiece_bpe(&pieces, &scores), true)
            }
            other => {
                return Err(fail(&format!("tokenizer.ggml.model {other:?} is not handled; handled are gpt2, llama")));
            }
        };
        let adds_bos = m.flag("tokenizer.ggml.add_bos_token").unwrap_or(default_bos);
        let inner = assemble(path, &steps, model, &added)?;
        Ok(Self::new(inner, spelling(&steps), pieces.len(), bos_id, adds_bos))
    }

    /// Reads llama2.c's tokenizer: a 32-bit length, then (f32 score, i32 length, bytes) a piece.
    ///
    /// # Errors
    /// A file that is not of this layout.
    pub fn from_llama2c(path: &Path, vocab_size: usize) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| ModelError::io(path, e))?;
        let (mut at, mut pieces, mut scores) = (4, Vec::new(), Vec::new());
        while pieces.len() < vocab_size {
            let piece = bytes.get(at..at + 8).and_then(|head| {
                let score = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
                let len = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                let len = usize::try_from(len).ok()?;
                let text = std::str::from_utf8(bytes.get(at + 8..at.checked_add(8)?.checked_add(len)?)?).ok()?;
                at += 8 + len;
                Some((score, text.replace(' ', "\u{2581}")))
            });
            let Some((score, text)) = piece.filter(|(_, text)| text.len() <= MOST_PIECE_BYTES) else {
                let detail =
                    format!("byte {at}: piece {} of {vocab_size} is cut off, too long or no UTF-8", pieces.len());
                return Err(ModelError::format(path, detail));
            };
            pieces.push(text);
            scores.push(f64::from(score));
        }
        for (id, name) in ["<unk>", "<s>", "</s>"].iter().enumerate().take(pieces.len()) {
            pieces[id] = (*name).into();
        }
        let texts: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let specials: Vec<(&str, bool)> = texts.iter().skip(1).take(2).map(|piece| (*piece, true)).collect();
        let steps = sentencepiece(true);
        let inner = assemble(path, &steps, sentencepiece_bpe(&texts, &scores), &specials)?;
        Ok(Self::new(inner, spelling(&steps), texts.len(), Some(1), true))
    }

    fn new(
        with_specials: SharedTokenizer,
        spelling: Spelling,
        n_ids: usize,
        bos_id: Option<u32>,
        adds_bos: bool,
    ) -> Self {
        let mut plain = with_specials.clone();
        plain.set_encode_special_tokens(true);
        Self { with_specials, plain, spelling, bos_id, adds_bos, n_ids }
    }

    /// Checks that every id has a row in the embedding.
    ///
    /// # Errors
    /// Ids beyond the vocabulary.
    pub fn check_fits(&self, vocab_size: usize) -> Result<()> {
        if self.n_ids > vocab_size {
            let detail = format!(
                "it has ids up to {}, the model's vocabulary has {vocab_size} rows: it belongs to another model",
                self.n_ids - 1
            );
            return Err(ModelError::Tokenizer(detail));
        }
        Ok(())
    }

    /// Ids of a text taken as it is: spellings of special tokens in it are ordinary text.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(&self.plain, text)
    }

    /// Ids of a prompt: spellings of special tokens become those tokens. No token is added.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(&self.with_specials, text)
    }

    fn encode_by(&self, inner: &SharedTokenizer, text: &str) -> Result<Vec<u32>> {
        let fail = |e: tokenizers::Error| ModelError::Tokenizer(e.to_string());
        Ok(caught(LOADED, || inner.encode_fast(text, false).map_err(fail))?.get_ids().to_vec())
    }

    /// The token to put before a text under a policy.
    ///
    /// # Errors
    /// The policy is `Always` and the model has no such token.
    pub fn bos(&self, policy: BosPolicy) -> Result<Option<u32>> {
        match policy {
            BosPolicy::Never => Ok(None),
            BosPolicy::Auto => Ok(self.bos_id.filter(|_| self.adds_bos)),
            BosPolicy::Always => self.bos_id.map(Some).ok_or_else(|| {
                ModelError::Tokenizer(
                    "--bos always was given, but the model names no BOS token; use --bos never".into(),
                )
            }),
        }
    }

    /// Text of ids; special tokens are left out.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        caught(LOADED, || self.with_specials.decode(ids, true).map_err(|e| ModelError::Tokenizer(e.to_string())))
    }

    /// The bytes that a token stands for; special tokens give their spelling, unknown ids nothing.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(piece) = self.with_specials.id_to_token(id) else { return Vec::new() };
        match self.spelling {
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = piece.chars().map(byte_of_char).collect();
                bytes.unwrap_or_else(|| piece.into_bytes())
            }
            Spelling::SentencePiece => {
                let byte = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => piece.replace('\u{2581}', " ").into_bytes(),
                }
            }
        }
    }

    /// Every token that is spelled like this, to the byte.
    pub fn ids_spelled(&self, text: &str) -> Vec<u32> {
        (0..self.n_ids as u32).filter(|id| self.token_bytes(*id) == text.as_bytes()).collect()
    }

    /// A token as text, for people.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// One more than the largest id.
    pub fn n_ids(&self) -> usize {
        self.n_ids
    }
}

fn failed(path: &Path, e: &tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(format!("{}: {e}", path.display()))
}

/// Reads a description in the format of `tokenizer.json`.
fn read(path: &Path, json: &Value) -> Result<SharedTokenizer> {
    // Written out again, so that what is read is what was checked: of a key that stands twice, only one is left.
    let bytes = serde_json::to_vec(json).map_err(|e| ModelError::format(path, e.to_string()))?;
    let mut inner: SharedTokenizer =
        caught(path.display(), || serde_json::from_slice(&bytes).map_err(|e| failed(path, &e.into())))?;
    // How a text is cut and filled up is for the caller to say, and transformers switches both off, too: a corpus
    // must not lose its end because its tokenizer was last saved with a limit.
    inner.with_truncation(None).map_err(|e| failed(path, &e))?;
    inner.with_padding(None);
    Ok(inner)
}

/// Puts a vocabulary between the steps around it, and adds tokens that are found before anything is merged: their
/// spelling, and whether they are special.
fn assemble(path: &Path, steps: &Value, model: BpeBuilder, added: &[(&str, bool)]) -> Result<SharedTokenizer> {
    let mut inner = read(path, steps)?;
    caught(path.display(), || {
        inner.with_model(Shared::from(model.build().map_err(|e| failed(path, &e))?));
        let tokens = added.iter().map(|(piece, special)| AddedToken::from(*piece, *special).normalized(false));
        inner.add_tokens(tokens).map_err(|e| failed(path, &e))
    })?;
    Ok(inner)
}

fn spelling(json: &Value) -> Spelling {
    match json["decoder"].to_string().contains("ByteLevel") {
        true => Spelling::ByteLevel,
        false => Spelling::SentencePiece,
    }
}

/// Whether a map of characters anywhere in a description announces a table that is longer than itself, for which the
/// `tokenizers` crate would take memory before it looks.
fn has_lying_map(json: &Value) -> bool {
    match json {
        Value::Array(items) => items.iter().any(has_lying_map),
        Value::Object(map) => map.iter().any(|(key, value)| match (key.as_str(), value) {
            ("precompiled_charsmap", Value::String(text)) => {
                let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let bits = text.chars().take(6).map(|c| digits.find(c).unwrap_or_default() as u64);
                let head = bits.fold(0, |all, six| all << 6 | six) >> 4;
                // Base64 is read high bits first, the length low byte first.
                u64::from((head as u32).swap_bytes()) > text.len() as u64
            }
            (_, value) => has_lying_map(value),
        }),
        _ => false,
    }
}

/// Runs a step of the `tokenizers` crate, which panics on some descriptions that it accepts: prefixes longer than the
/// pieces that should begin with them, templates with tokens that are not there, maps of characters that end too early.
fn caught<T>(place: impl std::fmt::Display, step: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the step borrows is only read, and what it was making is dropped with it.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(ModelError::Tokenizer(format!("{place}: it describes steps that cannot be run ({said}); get it again")))
    })
}

/// What errors name where the file is no longer known.
const LOADED: &str = "the model's tokenizer";

/// The byte behind a character of GPT-2's table: printable bytes stand for themselves, the others for
/// characters from U+0100 on, in order.
fn byte_of_char(c: char) -> Option<u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) => printable(byte).then_some(byte),
        Err(_) => (0..=255u8).filter(|b| !printable(*b)).nth(code.checked_sub(256)? as usize),
    }
}

/// How a text is cut before bytes are merged, by the name that llama.cpp gives it, and whether a piece that is a token
/// as it stands is taken before any merge (Llama 3).
///
/// The expressions are those of the checkpoints' own `tokenizer.json`.
struct Cut {
    pre_tokenizer: Value,
    ignore_merges: bool,
    adds_bos: bool,
}

/// Words with a sign before them, numbers of up to three digits, signs with line ends, runs of white space.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with digits one by one.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words cut where lower case turns to upper, digits one by one.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words cut where lower case turns to upper, with what follows an apostrophe, numbers of up to three digits.
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names of the cuts that are handled, for messages.
const CUTS: &str = "gpt-2, default, olmo, smollm, llama-bpe, smaug-bpe, dbrx, qwen2, tekken, gpt-4o";

impl Cut {
    fn by_name(name: &str) -> Option<Self> {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let both =
            |first: Value, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(use_regex)]});
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let plain = |pre_tokenizer: Value| Self { pre_tokenizer, ignore_merges: false, adds_bos: false };
        Some(match name {
            "gpt-2" | "default" | "olmo" => plain(bytes(true)),
            "smollm" => plain(both(json!({"type": "Digits", "individual_digits": true}), true)),
            "llama-bpe" | "llama3" | "llama-v3" => {
                Self { pre_tokenizer: both(split(LLAMA3), false), ignore_merges: true, adds_bos: true }
            }
            "smaug-bpe" | "dbrx" => plain(both(split(LLAMA3), false)),
            "qwen2" => plain(both(split(QWEN2), false)),
            "tekken" => Self { ignore_merges: true, adds_bos: true, ..plain(both(split(TEKKEN), false)) },
            "gpt-4o" => plain(both(split(GPT_4O), false)),
            _ => return None,
        })
    }
}

/// A description in the format of `tokenizer.json`, whose vocabulary is still to come.
fn steps(normalizer: Value, pre_tokenizer: Value, decoder: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "vocab": {}, "merges": []}
    })
}

/// The two sides of a merge, which is written with a space between them.
fn pair(merge: &str) -> Option<(&str, &str)> {
    merge.split_once(' ').filter(|(_, right)| !right.contains(' '))
}

/// Pieces, the index of each being its id, and pairs of them in the order in which they are merged.
fn bpe<'a>(pieces: &[&str], merges: impl IntoIterator<Item = (&'a str, &'a str)>) -> BpeBuilder {
    let vocab: tokenizers::models::bpe::Vocab = pieces.iter().map(|piece| (*piece).to_owned()).zip(0..).collect();
    let merges = merges.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())).collect();
    BPE::builder().vocab_and_merges(vocab, merges)
}

/// The steps around a vocabulary of GPT-2's characters.
fn byte_level(cut: &Cut) -> Value {
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    steps(Value::Null, cut.pre_tokenizer.clone(), decoder)
}

/// The steps around a vocabulary of SentencePiece.
fn sentencepiece(prefix_space: bool) -> Value {
    let space = "\u{2581}";
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": space})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix_space {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": space}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let sequence = |key: &str, of: Vec<Value>| json!({"type": "Sequence", key: of});
    steps(sequence("normalizers", normalizers), Value::Null, sequence("decoders", decoders))
}

/// SentencePiece BPE: the pair whose joined piece scores best is merged first, so every way to split a piece into
/// two others is a merge of its rank.
fn sentencepiece_bpe(pieces: &[&str], scores: &[f64]) -> BpeBuilder {
    let known: std::collections::HashMap<&str, usize> = pieces.iter().enumerate().map(|(i, p)| (*p, i)).collect();
    let mut merges = Vec::new();
    for (whole, piece) in pieces.iter().enumerate() {
        for (cut, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let (Some(l), Some(r)) = (known.get(left), known.get(right)) {
                merges.push((whole, *l, *r));
            }
        }
    }
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then(a.cmp(b)));
    let merges = merges.iter().map(|(_, l, r)| (pieces[*l], pieces[*r]));
    bpe(pieces, merges).unk_token("<unk>".into()).fuse_unk(true).byte_fallback(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the expressions cut, by single bytes as tokens: a merge never crosses a cut.
    #[test]
    fn every_cut_cuts_as_its_family_does() {
        let pieces: Vec<String> = (0..=255u8)
            .filter_map(|b| (0..0x150).filter_map(char::from_u32).find(|c| byte_of_char(*c) == Some(b)))
            .map(String::from)
            .collect();
        let text = "It's 12345 isn'T\n\n  fooBar()/x";
        let cuts = |name: &str| -> Vec<String> {
            let cut = Cut::by_name(name).unwrap();
            let texts: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let inner = assemble(Path::new("t"), &byte_level(&cut), bpe(&texts, []), &[]).unwrap();
            use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
            let mut pre = PreTokenizedString::from(text);
            inner.get_pre_tokenizer().unwrap().pre_tokenize(&mut pre).unwrap();
            let splits = pre.get_splits(OffsetReferential::Original, OffsetType::Byte);
            splits.iter().map(|(_, (from, to), _)| text[*from..*to].to_owned()).collect()
        };
        let gpt2 = ["It", "'s", " 12345", " isn", "'", "T", "\n\n ", " fooBar", "()/", "x"];
        assert_eq!(cuts("gpt-2"), gpt2);
        let llama3 = ["It", "'s", " ", "123", "45", " isn", "'T", "\n\n", " ", " fooBar", "()/", "x"];
        assert_eq!(cuts("llama-bpe"), llama3);
        let qwen2 = ["It", "'s", " ", "1", "2", "3", "4", "5", " isn", "'T", "\n\n", " ", " fooBar", "()/", "x"];
        assert_eq!(cuts("qwen2"), qwen2);
        let gpt_4o = ["It's", " ", "123", "45", " isn'T", "\n\n", " ", " foo", "Bar", "()/", "x"];
        assert_eq!(cuts("gpt-4o"), gpt_4o);
        let tekken = ["It", "'s", " ", "1", "2", "3", "4", "5", " isn", "'T", "\n\n", " ", " foo", "Bar", "()/", "x"];
        assert_eq!(cuts("tekken"), tekken);
        assert!(Cut::by_name("martian").is_none());
    }
}
