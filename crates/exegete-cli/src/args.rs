//! What was typed. The doc comment of a field is its help.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use exegete_base::settings::{
    ActivationSettings, HarvestSettings, KeepSettings, SelfExplainSettings, TextSettings, TrainSettings,
};
use exegete_lab::organism::OrganismSettings;
use exegete_lab::truth::TruthSettings;

use crate::args_eval::{PlaceArgs, SaeEval};
use crate::args_explain::{AdapterTrain, Explain, Score, SelfExplain};
use crate::args_harvest::{Harvest, Merge};
use crate::args_interop::{Export, Import};
use crate::args_show::{Report, Serve, Show};

/// An interpretability workbench for language models
#[derive(Parser)]
#[command(name = "exegete", version, args_override_self = true, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(ClapArgs, Clone)]
pub(crate) struct Common {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seed of everything drawn at random
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads, up to 1024; 0 takes all cores
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1024))]
    pub(crate) threads: u64,
    /// Where products are computed: cpu, cuda or cuda:N (in a build with --features cuda)
    #[arg(long, global = true, default_value = "cpu")]
    pub(crate) device: String,
    /// Element type of weights: f32, or bf16 (half the memory, products in bf16 where the machine has them)
    #[arg(long, global = true, value_enum, default_value_t = Dtype::F32)]
    pub(crate) dtype: Dtype,
    /// Take flags from a TOML file (`latents = 4096`); flags typed win over it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl Common {
    /// Refuses a device where nothing is computed on one, rather than to compute elsewhere than was asked for.
    pub(crate) fn refuse_device(&self, why: &str) -> Result<()> {
        match self.device.as_str() {
            "cpu" => Ok(()),
            device => bail!("--device {device}: {why}"),
        }
    }

    /// Refuses an element type where no weights are kept in it.
    pub(crate) fn refuse_dtype(&self, why: &str) -> Result<()> {
        match self.dtype {
            Dtype::F32 => Ok(()),
            Dtype::Bf16 => bail!("--dtype bf16: {why}"),
        }
    }
}

/// Element types of weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Dtype {
    F32,
    Bf16,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The main job from end to end: text, activations, dictionary, firings, explanations, dashboard
    Tour(Box<Tour>),
    /// Look at a model, or let it write
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at a dictionary
    #[command(subcommand)]
    Sae(SaeCommand),
    /// Models that we train ourselves, where the truth is known
    #[command(subcommand)]
    Lab(LabCommand),
    /// What makes the latents of dictionaries fire, over a text
    Harvest(Box<Harvest>),
    /// Make one run of the shards of a harvest
    Merge(Merge),
    /// Let a model explain latents of a run, or a judge
    Explain(Box<Explain>),
    /// Train an adapter: a small map through which a model says what directions mean
    Adapter(Box<AdapterTrain>),
    /// Score what is said of a run's latents
    Score(Box<Score>),
    /// How well a run's latents are explained, and how far people agree with the scores
    Report(Report),
    /// Show a latent in the terminal
    Show(Show),
    /// Show a run in the browser
    Serve(Serve),
    /// Write a run's latents for other programs, or as pages
    Export(Export),
    /// Make a run of other programs' files, or check them
    Import(Import),
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// What a model is, and its sites
    Info(ModelInfo),
    /// Continue a prompt, greedily or sampled, with edits
    Generate(Box<Generate>),
    /// The logit lens: what every layer would say at every position
    Lens(Box<Lens>),
    /// Ask the model what directions mean
    SelfExplain(Box<SelfExplain>),
    /// Compare with a dump of another program's run, site by site (refs/dump.py writes one with transformers)
    Parity(Parity),
}

#[derive(Subcommand)]
pub(crate) enum SaeCommand {
    /// What a dictionary is, and with a model and a text what it does
    Info(Box<SaeInfo>),
    /// How good dictionaries are: reconstruction, what they cost the model, what their latents know, seed against seed
    Eval(Box<SaeEval>),
    /// Train a dictionary, or a grid of them, on a model's activations at a site
    Train(Box<SaeTrain>),
    /// Write a dictionary in another layout, and check that what was written computes the same
    Convert(SaeConvert),
    /// Published dictionaries that are known by name, or those of one release
    List(SaeList),
}

#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Train the organism, or go on training it
    Train(LabTrain),
    /// Write documents of the organism's language with their labels; the organism that is carried was trained on those of
    /// --seed 0, and the text that is carried is of --seed 1
    Corpus(LabCorpus),
    /// Which concepts a run's dictionary found, against controls
    Truth(LabTruth),
    /// How well a model can do what the organism's language teaches, on held-out items
    Abilities(LabAbilities),
    /// Toy models of superposition: phase change, hidden layer against output, computation in superposition
    Superposition(Lab<exegete_lab::superposition::Settings>),
    /// Brain-inspired modular training on formulas
    Bimt(Lab<exegete_lab::bimt::Settings>),
}

#[derive(ClapArgs)]
pub(crate) struct SaeTrain {
    /// The model: builtin:organism, a Hugging Face directory, a .gguf file, a llama2.c .bin file, org/name or
    /// org/name@revision
    pub(crate) model: String,
    /// Text: files, globs or directories of .txt, .jsonl, .parquet [default: builtin:organism, for that model]
    #[arg(long, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Directory of the run; the dictionary is in RUN/sae, those of a grid in RUN/sae/NAME
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// A published recipe, whose settings hold where no other is given: gao-2024, batchtopk-2024, april-2024, saelens-topk,
    /// saelens-jumprelu, saelens-anthropic, dictionary-learning-topk, dictionary-learning-jumprelu, gemma-scope-1 or
    /// anthropic-2025-01
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// A TOML file with several dictionaries, trained in one pass: keys are these settings' names with underscores, at the
    /// top for all and under a table "dictionary" for each; a list sweeps a key
    #[arg(long, value_name = "FILE")]
    pub(crate) grid: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) text_settings: TextSettings,
    #[command(flatten)]
    pub(crate) train: TrainSettings,
    #[command(flatten)]
    pub(crate) activations: ActivationSettings,
    /// Keep the cached activations when the training is done
    #[arg(long)]
    pub(crate) keep_cache: bool,
    /// Steps between checkpoints; 0 saves one every 20 seconds, up to 60 where saving takes long
    #[arg(long, default_value_t = 0)]
    pub(crate) checkpoint_steps: u64,
}

#[derive(ClapArgs)]
pub(crate) struct LabTrain {
    #[command(flatten)]
    pub(crate) organism: OrganismSettings,
    /// Directory of the training; the model is in DIR/model
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(ClapArgs)]
pub(crate) struct LabCorpus {
    /// Tokens, at least; documents are whole
    #[arg(long)]
    pub(crate) tokens: u64,
    /// The model whose tokenizer counts them
    #[arg(long, default_value = "builtin:organism")]
    pub(crate) model: String,
    /// Directory of the corpus: it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(ClapArgs)]
pub(crate) struct LabTruth {
    /// The run: a dictionary of the organism
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) truth: TruthSettings,
    /// Missing concepts that are listed
    #[arg(long, default_value_t = 10)]
    pub(crate) missing: usize,
    /// Fail unless the dictionary recovers more than each control: the interval of the difference lies above 0
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(ClapArgs)]
pub(crate) struct LabAbilities {
    /// The model: one that was trained on the organism's language
    pub(crate) model: String,
    /// Most items of a test; of words and facts all are asked
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) items: u64,
    /// Documents on which the loss is measured
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) documents: u64,
    /// Also show the first wrong answer of each test
    #[arg(long)]
    pub(crate) wrong: bool,
    /// Also look through all training documents for prompts that they must not hold, and facts that they must
    #[arg(long)]
    pub(crate) search: bool,
    /// Fail if a test does not come out as asked for, and name those that do not
    #[arg(long)]
    pub(crate) strict: bool,
    /// A test of which --strict does not ask it, since it is known not to; repeatable
    #[arg(long, value_name = "TEST", requires = "strict")]
    pub(crate) but: Vec<String>,
}

/// A study of the lab: its settings, and where its tables and figures go.
#[derive(ClapArgs)]
pub(crate) struct Lab<S: ClapArgs> {
    #[command(flatten)]
    pub(crate) settings: S,
    /// Directory of the tables and figures; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(ClapArgs, Clone)]
pub(crate) struct Tour {
    /// The model: builtin:organism, a Hugging Face directory, a .gguf file, a llama2.c .bin file, org/name or
    /// org/name@revision
    #[arg(long, default_value = "builtin:organism")]
    pub(crate) model: String,
    /// Text: files, globs or directories of .txt, .jsonl, .parquet [default: builtin:organism, for that model]
    #[arg(long, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Directory of the run
    #[arg(long, value_name = "RUN", default_value = "tour-run")]
    pub(crate) out: PathBuf,
    /// Latents to explain, spread over firing rates
    #[arg(long, default_value_t = 64)]
    pub(crate) explain: usize,
    #[command(flatten)]
    pub(crate) text_settings: TextSettings,
    #[command(flatten)]
    pub(crate) train: TrainSettings,
    #[command(flatten)]
    pub(crate) keep: KeepSettings,
    #[command(flatten)]
    pub(crate) harvest: HarvestSettings,
    #[command(flatten)]
    pub(crate) self_explain: SelfExplainSettings,
    #[command(flatten)]
    pub(crate) truth: TruthSettings,
    /// Say what would be done and what it would take, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep the cached activations when the harvest is done
    #[arg(long)]
    pub(crate) keep_cache: bool,
    /// End instead of serving the dashboard
    #[arg(long)]
    pub(crate) no_serve: bool,
    /// Port of the dashboard
    #[arg(long, default_value_t = 8617)]
    pub(crate) port: u16,
    /// Steps between checkpoints of the training; 0 saves one every 20 seconds, up to 60 where saving takes long
    #[arg(long, default_value_t = 0)]
    pub(crate) checkpoint_steps: u64,
}

/// Which model, and how it is loaded.
#[derive(ClapArgs)]
pub(crate) struct ModelArgs {
    /// The model: a Hugging Face directory, a .gguf file, a llama2.c .bin file, org/name,
    /// org/name@revision or org/name@revision:file.gguf (the revision may be left out)
    pub(crate) model: String,
    /// Keep weights as they are in the file, mapped into memory, and decode them when they are used
    #[arg(long)]
    pub(crate) stored_weights: bool,
    /// Fold gains and biases of norms into the weights that read them, as TransformerLens does
    #[arg(long)]
    pub(crate) fold_norms: bool,
    /// Centre the weights that write to the residual stream, as TransformerLens does (LayerNorm models)
    #[arg(long)]
    pub(crate) centre_writing: bool,
    /// Centre the unembedding over the vocabulary, as TransformerLens does
    #[arg(long)]
    pub(crate) centre_unembed: bool,
}

#[derive(ClapArgs)]
pub(crate) struct ModelInfo {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// List every site with its axes and formula
    #[arg(long)]
    pub(crate) sites: bool,
    /// List every weight with its shape
    #[arg(long)]
    pub(crate) weights: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Most new tokens
    #[arg(long, default_value_t = 64)]
    pub(crate) max_new_tokens: usize,
    /// Continuations of the prompt, which share its memory; they differ where tokens are sampled
    #[arg(long, default_value_t = 1)]
    pub(crate) samples: usize,
    /// Divides the logits before a token is drawn; 0 takes the likeliest always
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Draw among the k likeliest tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Draw among the likeliest tokens that together reach this probability
    #[arg(long, default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Draw among tokens at least this fraction as likely as the likeliest
    #[arg(long, default_value_t = 0.0)]
    pub(crate) min_p: f32,
    /// Makes tokens that were there already less likely; 1 changes nothing
    #[arg(long, default_value_t = 1.0)]
    pub(crate) repetition_penalty: f32,
    /// End where this text appears; repeatable
    #[arg(long)]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) edits: EditArgs,
    /// Also print the logits of the last prompt position: the largest, and a checksum of all their bits
    #[arg(long)]
    pub(crate) logits: bool,
}

/// What a model reads.
#[derive(ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct PromptArgs {
    /// The text
    #[arg(long)]
    pub(crate) prompt: Option<String>,
    /// Put the prompt through the model's chat template, as a user's turn
    #[arg(long, requires = "prompt")]
    pub(crate) chat: bool,
    /// The system's turn before it
    #[arg(long, requires = "chat")]
    pub(crate) system: Option<String>,
    /// A conversation: a JSON list of {"role": ..., "content": ...}, put through the chat template
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) messages: Option<PathBuf>,
}

/// What is written at sites while a model runs.
#[derive(ClapArgs)]
#[command(next_help_heading = "Edits, applied in this order whatever the order they are typed in")]
pub(crate) struct EditArgs {
    /// Add SCALE times a direction at a site; repeatable. DIRECTION: FILE.safetensors[#name], SAE@latent or
    /// tokens('a')-tokens('b')
    #[arg(long, value_name = "SITE:DIRECTION:SCALE")]
    pub(crate) add: Vec<String>,
    /// Add SCALE times a direction that is first made as long as the activation; repeatable
    #[arg(long, value_name = "SITE:DIRECTION:SCALE")]
    pub(crate) add_at_norm: Vec<String>,
    /// Replace a site's values by SCALE times a direction; repeatable
    #[arg(long, value_name = "SITE:DIRECTION:SCALE")]
    pub(crate) replace: Vec<String>,
    /// Remove what lies along a direction; repeatable
    #[arg(long, value_name = "SITE:DIRECTION")]
    pub(crate) project_out: Vec<String>,
    /// Set the component along a direction; repeatable
    #[arg(long, value_name = "SITE:DIRECTION:VALUE")]
    pub(crate) set_component: Vec<String>,
    /// Multiply a site's values; repeatable
    #[arg(long, value_name = "SITE:FACTOR")]
    pub(crate) scale: Vec<String>,
    /// Silence attention heads; repeatable
    #[arg(long, value_name = "LAYER:HEADS")]
    pub(crate) ablate_heads: Vec<String>,
    /// Keep queries (those of --positions) from seeing keys; HEADS may be all; repeatable
    #[arg(long, value_name = "LAYER:HEADS:KEYS")]
    pub(crate) cut_edges: Vec<String>,
    /// Give a latent of a dictionary an activation, keeping what the dictionary does not explain; repeatable
    #[arg(long, value_name = "SITE:SAE@LATENT:VALUE")]
    pub(crate) clamp: Vec<String>,
    /// Positions that edits touch: 0,3,5..8, from the prompt's end as -1,-2, or token:TEXT for every place where that
    /// token stands [default: all]
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) positions: Option<String>,
    /// Steps in which edits act: all, prompt, new, or numbers (0 runs the prompt, i the i-th new token)
    #[arg(long, default_value = "all")]
    pub(crate) steps: String,
}

#[derive(ClapArgs)]
pub(crate) struct Lens {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Tokens shown for each layer and position
    #[arg(long, default_value_t = 3)]
    pub(crate) top: usize,
    /// Also say how much each component adds to the logit of this token at the last position
    #[arg(long, value_name = "TOKEN")]
    pub(crate) attribute: Option<String>,
    /// Write a page of its own
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) edits: EditArgs,
}

#[derive(ClapArgs)]
pub(crate) struct Parity {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Safetensors with tokens, hook_logits and other sites under our names
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: PathBuf,
    /// Largest difference allowed, as a share of the largest value of a site (at least of 1)
    #[arg(long, default_value_t = 1e-5)]
    pub(crate) tolerance: f32,
}

/// Which dictionary, and what its files do not say.
#[derive(ClapArgs)]
pub(crate) struct SaeArgs {
    /// The dictionary: its directory or file, a published one as RELEASE/ID (see exegete sae list), a directory or file on
    /// the Hugging Face hub as ORG/NAME:PATH, or builtin:organism
    pub(crate) sae: String,
    /// The layout, where its files do not tell it: see docs/dictionaries.md
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Latents kept for each token, whatever its files say
    #[arg(long)]
    pub(crate) k: Option<usize>,
}

#[derive(ClapArgs)]
pub(crate) struct SaeList {
    /// A release, to list its dictionaries, or a part of the names of releases or models
    pub(crate) filter: Option<String>,
}

#[derive(ClapArgs)]
pub(crate) struct SaeConvert {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// The layout to write: saelens, sparsify (TopK), gemma-scope (JumpReLU), llamascopium-crosscoder, or circuit-tracer-clt
    /// (cross-layer transcoders)
    #[arg(long, value_name = "LAYOUT", default_value = "saelens")]
    pub(crate) to: String,
    /// A new or empty directory
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(ClapArgs)]
pub(crate) struct SaeInfo {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// A model to measure it on: a name on the Hugging Face hub, a path, or builtin:organism
    #[arg(long, requires = "text")]
    pub(crate) model: Option<String>,
    /// Texts to measure it on: files, directories or globs (.txt, .jsonl, .parquet), or builtin:organism
    #[arg(long, num_args = 1.., requires = "model")]
    pub(crate) text: Vec<String>,
    /// Tokens to measure on; 0 takes the whole text
    #[arg(long, default_value_t = 4096)]
    pub(crate) tokens: u64,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_no_effect_is_refused_by_name() {
        let common = |flags: &[&str]| {
            let words = ["exegete", "serve", "run"].into_iter().chain(flags.iter().copied());
            Args::parse_from(words).common
        };
        let plain = common(&[]);
        assert!(plain.refuse_device("no").is_ok() && plain.refuse_dtype("no").is_ok());
        let other = common(&["--device", "cuda:1", "--dtype", "bf16"]);
        assert_eq!(other.refuse_device("too small").unwrap_err().to_string(), "--device cuda:1: too small");
        assert_eq!(other.refuse_dtype("too small").unwrap_err().to_string(), "--dtype bf16: too small");
    }
}
