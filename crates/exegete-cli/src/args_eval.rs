//! What was typed after `sae eval`, and what it shares with `sae info`.

use clap::{Args as ClapArgs, ValueEnum};
use exegete_base::settings::{BosPolicy, ProbeSettings, TextSettings};
use exegete_sae::metrics::compat::Tool;

/// Where a dictionary is measured, and how text is cut for that.
#[derive(ClapArgs)]
pub(crate) struct PlaceArgs {
    /// The site that it reads [default: as its files say]
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// The site that a transcoder writes [default: the output of the same layer's MLP]
    #[arg(long)]
    pub(crate) site_out: Option<String>,
    /// Tokens in a window; windows never cross a document
    #[arg(long, default_value_t = 128)]
    pub(crate) window: usize,
    /// Whether windows begin with the beginning-of-sequence token
    #[arg(long, value_enum, default_value_t = BosPolicy::Auto)]
    pub(crate) bos: BosPolicy,
    /// Take spellings of special tokens in the text for these tokens: for text that is trusted; always so for builtin:organism
    #[arg(long)]
    pub(crate) special_tokens: bool,
    /// Windows taken of each document, so that long ones do not stand for all; 0 takes all. Which ones depends on no seed
    #[arg(long, default_value_t = 0)]
    pub(crate) document_windows: usize,
}

impl PlaceArgs {
    /// A site, and everything else by default.
    pub(crate) fn at(site: Option<String>) -> Self {
        let TextSettings { window, bos, special_tokens, document_windows, .. } = TextSettings::default();
        Self { site, site_out: None, window, bos, special_tokens, document_windows }
    }

    /// How text is read.
    pub(crate) fn text_settings(&self, max_tokens: u64) -> TextSettings {
        TextSettings {
            window: self.window,
            bos: self.bos,
            special_tokens: self.special_tokens,
            document_windows: self.document_windows,
            max_tokens,
            ..TextSettings::default()
        }
    }
}

/// Tools whose numbers can be printed beside ours.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Compat {
    /// SAELens 6.18
    #[value(name = "saelens-6.18")]
    SaeLens,
    /// SAEBench 0.6
    #[value(name = "saebench-0.6")]
    SaeBench,
    /// dictionary_learning 0.1
    DictionaryLearning,
}

impl Compat {
    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::SaeLens => Tool::SaeLens,
            Self::SaeBench => Tool::SaeBench,
            Self::DictionaryLearning => Tool::DictionaryLearning,
        }
    }
}

#[derive(ClapArgs)]
pub(crate) struct SaeEval {
    /// The dictionaries, each named as for sae info. Several of one kind and size are taken for seeds of one recipe
    #[arg(required = true, num_args = 1.., value_name = "SAE")]
    pub(crate) saes: Vec<String>,
    /// Dictionaries of another recipe, to compare with
    #[arg(long, num_args = 1.., value_name = "SAE")]
    pub(crate) against: Vec<String>,
    /// The model: a name on the Hugging Face hub, a path, or builtin:organism
    #[arg(long)]
    pub(crate) model: String,
    /// Texts to measure on: files, directories or globs (.txt, .jsonl, .parquet) [default: builtin:organism, for that model]
    #[arg(long, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Labelled text that latents are probed with: a .jsonl file of {"text", "label"} or {"words", "tags"}, a .txt file of a
    /// word a line (their first letters), labelled documents of the organism's language, or builtin:organism; repeatable
    #[arg(long, value_name = "TASK")]
    pub(crate) probe: Vec<String>,
    /// Also print what a tool would print of the same tokens, known errors and all; repeatable
    #[arg(long, value_enum, value_name = "TOOL")]
    pub(crate) compat: Vec<Compat>,
    /// Tokens to measure on; 0 takes the whole text
    #[arg(long, default_value_t = 16_384)]
    pub(crate) tokens: u64,
    /// The layout, where the dictionaries' files do not tell it: see docs/dictionaries.md
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Latents kept for each token, whatever the dictionaries' files say
    #[arg(long)]
    pub(crate) k: Option<usize>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) probes: ProbeSettings,
}
