//! Text to token windows. A window never crosses a document and begins with BOS where the policy says so.

use exegete_base::sampling::pair_hash;
use exegete_base::settings::TextSettings;
use exegete_model::{Model, Tokenizer};
use exegete_store::run::part_name;
use exegete_store::tokens::read_windows;
use exegete_store::{Corpus, Document, Run, TextOptions, TokenReader, Window, write_vocab, write_windows};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{HarvestError, Progress, Result, verify};

/// Windows in a part.
pub(crate) const PART: usize = 2048;
/// The stage's name in the manifest.
pub const STAGE: &str = "tokens";
/// The seed by which windows of a document are drawn.
const DRAWN: u64 = 7;
pub(crate) const VOCAB: &str = "tokens/vocab.parquet";
/// The first windows of the text, in a run that has but a shard of it.
const FIRST: &str = "tokens/first.parquet";
/// How many these are.
pub const N_FIRST: usize = 8;

/// A part of a text: every `of`-th document, from the `index`-th on, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 1.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

impl Shard {
    fn takes(self, document: u64) -> bool {
        document % self.of == self.index - 1
    }
}

/// How the store is to read text.
pub fn text_options(settings: &TextSettings) -> TextOptions {
    TextOptions {
        jsonl_field: settings.jsonl_field.clone(),
        parquet_column: settings.parquet_column.clone(),
        record_bytes: settings.record_bytes,
    }
}

/// Cuts a corpus into windows, writes them and the vocabulary, and opens them.
///
/// # Errors
/// Unreadable text, a window too short, a text too short for any window, tokens that are not what was written.
pub fn run(
    run: &mut Run,
    model: &Model,
    corpus: &Corpus,
    (settings, shard): (&TextSettings, Option<Shard>),
    progress: &dyn Progress,
) -> Result<TokenReader> {
    match run.stage(STAGE) {
        None => cut(run, model, corpus, (settings, shard), progress)?,
        Some(_) => drop(verify::parts(run, STAGE)?),
    }
    Ok(TokenReader::open(&run.parts_under("tokens/part-"))?)
}

/// The first windows of the text, kept in a run that has but a shard of it.
///
/// # Errors
/// The disk's.
pub fn first(run: &Run) -> Result<Option<Vec<Window>>> {
    let path = run.part_done(FIRST).then(|| run.path(FIRST));
    Ok(path.map(|path| read_windows(&path)).transpose()?)
}

/// The token that begins a window, if any, and how many tokens of text a window holds.
///
/// # Errors
/// A window that is too short, or longer than the model's context.
pub fn bos_and_room(model: &Model, settings: &TextSettings) -> Result<(Option<u32>, usize)> {
    let bos = model.tokenizer()?.bos(settings.bos)?;
    let room = settings.window.checked_sub(usize::from(bos.is_some())).filter(|room| *room >= 2);
    let room = room.ok_or_else(|| HarvestError::Request("--window must leave room for at least 2 tokens".into()))?;
    if settings.window > model.spec.max_positions {
        let detail =
            format!("--window {} is longer than the model's context of {}", settings.window, model.spec.max_positions);
        return Err(HarvestError::Request(detail));
    }
    Ok((bos, room))
}

/// The windows of a document, of two tokens of text or more; where fewer are wanted, which ones depends on its id alone.
///
/// # Errors
/// The tokenizer's.
pub(crate) fn of_document(
    tokenizer: &Tokenizer,
    document: &Document,
    settings: &TextSettings,
    (bos, room): (Option<u32>, usize),
) -> Result<Vec<Window>> {
    let ids = match settings.special_tokens {
        true => tokenizer.encode_prompt(&document.text)?,
        false => tokenizer.encode_text(&document.text)?,
    };
    let mut chunks: Vec<(usize, &[u32])> = ids.chunks(room).enumerate().filter(|(_, chunk)| chunk.len() >= 2).collect();
    if settings.document_windows > 0 && settings.document_windows < chunks.len() {
        chunks.sort_by_cached_key(|(i, _)| pair_hash(DRAWN, document.id.0, *i as u64));
        chunks.truncate(settings.document_windows);
        chunks.sort_unstable_by_key(|(i, _)| *i);
    }
    let window = |(i, chunk): (usize, &[u32])| {
        let token_ids = bos.into_iter().chain(chunk.iter().copied()).collect();
        Window { doc: document.id, window: i as u32, start: (i * room) as u64, token_ids }
    };
    Ok(chunks.into_iter().map(window).collect())
}

fn cut(
    run: &mut Run,
    model: &Model,
    corpus: &Corpus,
    (settings, shard): (&TextSettings, Option<Shard>),
    progress: &dyn Progress,
) -> Result<()> {
    let (bos, room) = bos_and_room(model, settings)?;
    let tokenizer = model.tokenizer()?;
    let most = if settings.max_tokens == 0 { u64::MAX } else { settings.max_tokens };
    let total: u64 = corpus.sources.iter().map(|s| s.bytes).sum();
    // Reading stops at --max-tokens; about four bytes a token tell how far that is.
    progress.begin(STAGE, total.min(most.saturating_mul(4)), "bytes", 0);
    let (mut part, mut first, mut n_parts) = (Vec::new(), Vec::new(), 0);
    let (mut own, mut text, mut n_bytes) = (Counts::default(), Counts::default(), 0u64);
    for (number, document) in corpus.documents().enumerate() {
        progress.check()?;
        let document = document?;
        n_bytes += document.text.len() as u64;
        let is_own = shard.is_none_or(|shard| shard.takes(number as u64));
        for window in of_document(tokenizer, &document, settings, (bos, room))? {
            text.add(&window);
            if first.len() < N_FIRST {
                first.push(window.clone());
            }
            if is_own {
                own.add(&window);
                part.push(window);
            }
            if part.len() == PART {
                write_part(run, &mut n_parts, &mut part)?;
            }
            if text.tokens >= most {
                break;
            }
        }
        own.documents += u64::from(is_own);
        progress.at(n_bytes, &format!("{} tokens", text.tokens));
        if text.tokens >= most {
            break;
        }
    }
    if text.windows == 0 {
        return Err(HarvestError::Request("the text holds no document of two tokens or more".into()));
    }
    // A shard without a document has a part too, which says so.
    if !part.is_empty() || n_parts == 0 {
        write_part(run, &mut n_parts, &mut part)?;
    }
    if shard.is_some() {
        run.commit_part(FIRST, first.len() as u64, |w| write_windows(w, &first))?;
    }
    let vocab: Vec<Vec<u8>> = (0..tokenizer.n_ids() as u32).map(|id| tokenizer.token_bytes(id)).collect();
    run.commit_part(VOCAB, vocab.len() as u64, |w| write_vocab(w, &vocab))?;
    let bos = bos.map(|id| tokenizer.token_text(id));
    let mut summary = own.summary(settings.window, bos.as_deref());
    if shard.is_some() {
        summary["text_rows"] = json!(text.rows);
    }
    run.finish_stage(STAGE, summary)?;
    progress.end(&format!("{} tokens in {} windows of {} documents", own.tokens, own.windows, own.documents));
    Ok(())
}

/// What was cut.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) documents: u64,
    pub(crate) windows: u64,
    pub(crate) tokens: u64,
    /// Tokens that have activations.
    pub(crate) rows: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, window: &Window) {
        self.windows += 1;
        self.tokens += window.token_ids.len() as u64;
        self.rows += window.token_ids.len() as u64 - 1;
    }

    /// As the manifest records it.
    pub(crate) fn summary(&self, window: usize, bos: Option<&str>) -> Value {
        json!({
            "documents": self.documents, "windows": self.windows, "tokens": self.tokens, "window_len": window, "bos": bos,
        })
    }
}

pub(crate) fn write_part(run: &mut Run, n_parts: &mut usize, windows: &mut Vec<Window>) -> Result<()> {
    run.commit_part(&part_name("tokens", *n_parts), windows.len() as u64, |w| write_windows(w, windows))?;
    *n_parts += 1;
    windows.clear();
    Ok(())
}
