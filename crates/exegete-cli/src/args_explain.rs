//! Flags of `explain` and `score`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use exegete_base::settings::SelfExplainSettings;

use crate::args::ModelArgs;

#[derive(ClapArgs)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) of: Of,
    /// Latents, as 1,5,10..20
    #[arg(long)]
    pub(crate) latents: String,
    /// Who explains: self (the model, asked about the direction), adapter (the same through a trained adapter), random (the
    /// control: the model asked about random directions), or a judge who is shown excerpts (judge), excerpts with and without
    /// (contrast), the words that the decoder row promotes (output), those that become likelier where it is amplified
    /// (token-change), or excerpts and words (both-sides)
    #[arg(long, default_value = "self")]
    pub(crate) method: String,
    /// Texts that a judge is asked for, or a model with an adapter; all but the first are drawn
    #[arg(long, default_value_t = 4)]
    pub(crate) texts: usize,
    /// Excerpts that a judge is shown
    #[arg(long, default_value_t = 12)]
    pub(crate) shown: usize,
    #[command(flatten)]
    pub(crate) judge: JudgeArgs,
    #[command(flatten)]
    pub(crate) excerpts: ExcerptArgs,
    /// Ask again about latents that were dealt with, with the same settings
    #[arg(long)]
    pub(crate) again: bool,
    /// The adapter of --method adapter, a .safetensors file of `exegete adapter`
    #[arg(long, value_name = "FILE")]
    pub(crate) adapter: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) self_explain: SelfExplainSettings,
}

#[derive(ClapArgs)]
pub(crate) struct SelfExplain {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Directions: FILE.safetensors[#name], SAE@latent, tokens('a')-tokens('b'), embedding('a'), random(7)
    #[arg(long = "direction", required = true, num_args = 1.., value_name = "DIRECTION")]
    pub(crate) directions: Vec<String>,
    /// Where tokens('a') are read [default: the residual stream after a quarter of the layers]
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// Take the mean over the directions off each
    #[arg(long)]
    pub(crate) less_mean: bool,
    /// Ask through an adapter, in place of a search over scales
    #[arg(long, value_name = "FILE")]
    pub(crate) adapter: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) self_explain: SelfExplainSettings,
}

#[derive(ClapArgs)]
pub(crate) struct AdapterTrain {
    /// A run with explanations, or a .json file of vectors with labels
    pub(crate) pairs: PathBuf,
    /// The model [default: the one the run was made with]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Of which of the run's dictionaries; a run with one needs no name
    #[arg(long, value_name = "NAME")]
    pub(crate) dictionary: Option<String>,
    /// Learn from the first text of this method alone
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// Learn from texts alone that this scorer scores, the best of each latent
    #[arg(long, value_name = "NAME")]
    pub(crate) scorer: Option<String>,
    /// The least score
    #[arg(long, default_value_t = 0.7, requires = "scorer")]
    pub(crate) least: f64,
    /// What the model is asked
    #[arg(long, default_value = exegete_methods::adapter::TEMPLATE, value_name = "NAME|FILE")]
    pub(crate) template: String,
    /// The adapter's file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) train: exegete_methods::adapter::TrainSettings,
}

#[derive(ClapArgs)]
pub(crate) struct Score {
    #[command(flatten)]
    pub(crate) of: Of,
    /// Latents, as 1,5,10..20 [default: all of which anything is said]
    #[arg(long)]
    pub(crate) latents: Option<String>,
    /// Scorers: detection, fuzzing, surprisal, embedding, generation, simulation, output, output-surprisal, faithfulness,
    /// intruder
    #[arg(long, value_delimiter = ',', default_value = "detection,embedding")]
    pub(crate) scorer: Vec<String>,
    /// Texts of a latent that are scored, the best of each method first
    #[arg(long, default_value_t = 32)]
    pub(crate) most_texts: usize,
    /// Excerpts on which the latent fires, at every level
    #[arg(long, default_value_t = 50)]
    pub(crate) firing: usize,
    /// Excerpts on which it is silent, of each sort
    #[arg(long, default_value_t = 50)]
    pub(crate) silent: usize,
    /// What the latent's excerpts are told apart from; scores stand side by side
    #[arg(long, value_enum, value_delimiter = ',', default_value = "random,co-firing")]
    pub(crate) against: Vec<AgainstArg>,
    /// Score again what is scored
    #[arg(long)]
    pub(crate) again: bool,
    /// The adapter of --scorer faithfulness, a .safetensors file of `exegete adapter`
    #[arg(long, value_name = "FILE")]
    pub(crate) adapter: Option<PathBuf>,
    /// Say how much would be asked of a server and what it would cost, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) judge: JudgeArgs,
    #[command(flatten)]
    pub(crate) excerpts: ExcerptArgs,
}

/// What a command is about.
#[derive(ClapArgs)]
pub(crate) struct Of {
    /// The run
    pub(crate) run: PathBuf,
    /// The model [default: the one the run was made with]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Of which of the run's dictionaries; a run with one needs no name
    #[arg(long, value_name = "NAME")]
    pub(crate) dictionary: Option<String>,
}

/// What excerpts on which a latent is silent are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AgainstArg {
    /// Anywhere in the text
    Random,
    /// Where a latent fires that often fires together with this one
    #[value(alias = "cofiring")]
    CoFiring,
    /// Where a latent fires whose decoder row is near this one's
    Decoder,
    /// Around the tokens on which it often fires
    SameToken,
}

/// Where excerpts come from.
#[derive(ClapArgs)]
pub(crate) struct ExcerptArgs {
    /// Tokens of an excerpt
    #[arg(long, default_value_t = 32)]
    pub(crate) excerpt_tokens: usize,
    /// Tokens of the run's text whose codes are computed again, to find where latents are silent
    #[arg(long, default_value_t = 32_768)]
    pub(crate) pool_tokens: usize,
}

/// Who judges.
#[derive(ClapArgs)]
pub(crate) struct JudgeArgs {
    /// Who judges: a model as for --model, or the address of an OpenAI-compatible server (http://127.0.0.1:8000/v1) [default: the
    /// run's model]
    #[arg(long, value_name = "MODEL|URL")]
    pub(crate) judge: Option<String>,
    /// How a local judge's prompts are arranged: what they share once, a prompt for each pair, or nothing shared at all
    #[arg(long, value_enum, default_value_t = ArrangementArg::Shared)]
    pub(crate) judge_arrangement: ArrangementArg,
    /// The model's name at the server
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) judge_model: String,
    /// Variable of the environment that holds the server's key
    #[arg(long, value_name = "VARIABLE", default_value = "OPENAI_API_KEY")]
    pub(crate) judge_key: String,
    /// Requests under way at once
    #[arg(long, default_value_t = 4)]
    pub(crate) judge_at_once: usize,
    /// Requests a minute at most; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub(crate) judge_a_minute: u32,
    /// How often a request that was not answered is sent again, later and later
    #[arg(long, default_value_t = 5)]
    pub(crate) judge_retries: u32,
    /// Seconds until an answer counts as not coming
    #[arg(long, default_value_t = 120)]
    pub(crate) judge_timeout: u64,
    /// Examples of one prompt to a server: 1 reads the answer's probability, more ask for a list
    #[arg(long, default_value_t = 1)]
    pub(crate) judge_examples: usize,
    /// Most tokens that a server may read and write; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub(crate) judge_tokens: u64,
    /// Most money that may be spent; 0 for no limit
    #[arg(long, default_value_t = 0.0)]
    pub(crate) judge_money: f64,
    /// Price of a million tokens read and written, as 0.15,0.60
    #[arg(long, value_name = "READ,WRITTEN", default_value = "0,0")]
    pub(crate) judge_prices: String,
    /// Folder where a server's answers are kept [default: judge in the run]
    #[arg(long, value_name = "DIR")]
    pub(crate) judge_memory: Option<PathBuf>,
}

/// How a local judge's prompts are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArrangementArg {
    /// Instructions once, examples and explanations once each, an answer token for each pair
    Shared,
    /// A prompt for each pair, the instructions computed once
    Apart,
    /// A prompt for each pair, nothing computed once
    Naive,
}
