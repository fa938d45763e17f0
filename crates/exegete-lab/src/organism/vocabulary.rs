//! The organism's tokenizer: byte-level BPE, trained on the language.

use std::path::Path;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer};

use crate::language::{Language, Split};
use crate::{LabError, Result};

/// Tokens that stand for no text, by number: a document's beginning and end, the roles of a conversation, and the end of a
/// turn.
pub const SPECIALS: [&str; 6] = ["<|start|>", "<|stop|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];
/// Number of the token before each document.
pub const START: u32 = 0;
/// Number of the token behind each document.
pub const STOP: u32 = 1;
/// Number of the token behind each turn of a conversation.
pub const END: u32 = 5;

/// Documents that the vocabulary is learnt from.
const DOCUMENTS: u64 = 20_000;

/// The least vocabulary: all bytes, the specials, and something to learn.
pub const LEAST_VOCABULARY: usize = 300;

/// The chat template, as Jinja.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}";

/// A document as tokens, begun and ended.
///
/// # Errors
/// The tokenizer's.
pub fn document(tokenizer: &exegete_model::Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = vec![START];
    ids.extend(tokenizer.encode_prompt(text)?);
    ids.push(STOP);
    Ok(ids)
}

/// Learns a tokenizer of `vocab_size` tokens, as `tokenizer.json`.
///
/// # Errors
/// [`LabError::Settings`] if there are not so many different pieces of words.
pub fn learn(language: &Language, seed: u64, vocab_size: usize) -> Result<String> {
    let fail = |e: tokenizers::Error| LabError::Failed(format!("the vocabulary cannot be learnt: {e}"));
    let specials: Vec<AddedToken> = SPECIALS.iter().map(|s| AddedToken::from((*s).to_owned(), true)).collect();
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(specials.clone())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    let pieces = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(pieces)));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(pieces)));
    // Spellings of special tokens are not text.
    let texts = (0..DOCUMENTS).map(|i| {
        let text = language.document(seed, i, Split::Train).text;
        SPECIALS.iter().fold(text, |text, special| text.replace(special, "\n"))
    });
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts).map_err(fail)?;
    tokenizer.add_special_tokens(specials).map_err(fail)?;
    let found = tokenizer.get_vocab_size(true);
    if found != vocab_size {
        let detail =
            format!("--vocabulary {vocab_size} does not fit: the language has pieces of words for {found} tokens");
        return Err(LabError::Settings(detail));
    }
    let processor = TemplateProcessing::builder()
        .try_single(format!("{} $A", SPECIALS[0]))
        .and_then(|b| b.try_pair(format!("{} $A $B", SPECIALS[0])))
        .map(|b| b.special_tokens(vec![(SPECIALS[0], START)]).build());
    let processor = processor.map_err(|e| LabError::Failed(e.clone()))?.map_err(|e| LabError::Failed(e.to_string()))?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::Template(processor)));
    tokenizer.to_string(false).map_err(fail)
}

/// Writes the tokenizer's files into a model's directory.
///
/// # Errors
/// The file system's.
pub fn write(dir: &Path, tokenizer_json: &str) -> Result<()> {
    let config = json!({
        "bos_token": SPECIALS[0], "eos_token": SPECIALS[5], "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE, "model_max_length": super::settings::CONTEXT, "clean_up_tokenization_spaces": false,
    });
    super::write_file(&dir.join("tokenizer.json"), tokenizer_json.as_bytes())?;
    super::write_file(&dir.join("tokenizer_config.json"), format!("{config:#}\n").as_bytes())
}
