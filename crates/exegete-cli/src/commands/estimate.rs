//! What `--dry-run` reckons with.

use anyhow::Result;
use exegete_base::settings::TextSettings;
use exegete_model::Model;
use exegete_store::Corpus;

/// f32 operations a second assumed of a core; two Zen 4 cores reach 200e9.
const FLOPS_PER_CORE: f64 = 1e11;

/// Bytes of a text's files.
pub(crate) fn bytes(corpus: &Corpus) -> u64 {
    corpus.sources.iter().map(|s| s.bytes).sum()
}

/// Tokens that will be read, by what a token of the first document is long; text lies packed in Parquet files, which this cannot
/// know.
pub(crate) fn tokens(model: &Model, corpus: &Corpus, settings: &TextSettings) -> Result<f64> {
    let limit = if settings.max_tokens == 0 { f64::MAX } else { settings.max_tokens as f64 };
    let first = corpus.documents().next().transpose()?.map(|doc| doc.text).unwrap_or_default();
    let n_first = model.tokenizer()?.encode_text(&first)?.len();
    Ok((bytes(corpus) as f64 * n_first.max(1) as f64 / first.len().max(1) as f64).min(limit))
}

/// Parameters of a layer.
pub(crate) fn per_layer(model: &Model) -> f64 {
    let tables = model.spec.vocab_size as f64 * model.spec.d_model as f64;
    (model.spec.n_parameters() as f64 - tables) / model.spec.n_layers as f64
}

/// Operations of the first layers for a token.
pub(crate) fn forward_flops(model: &Model, layers: usize) -> f64 {
    2.0 * per_layer(model) * layers as f64
}

/// Cores of this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Seconds that operations take at least.
pub(crate) fn secs(flops: f64) -> f64 {
    flops / (FLOPS_PER_CORE * cores() as f64)
}
