//! What was typed. The doc comment of a field is its help.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use exegete_base::settings::{KeepSettings, SelfExplainSettings, TextSettings, TrainSettings};

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
#[derive(ClapArgs)]
pub(crate) struct Common {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seed of everything drawn at random
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads; 0 takes all cores
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Where to compute; this build knows cpu
    #[arg(long, global = true, default_value = "cpu")]
    pub(crate) device: String,
    /// Element type of computation; this build knows f32
    #[arg(long, global = true, default_value = "f32")]
    pub(crate) dtype: String,
    /// Take flags from a TOML file (`latents = 4096`); flags typed win over it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
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
    /// Let a model explain latents of a run
    Explain(Explain),
    /// Show a latent in the terminal
    Show(Show),
    /// Show a run in the browser
    Serve(Serve),
}

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// What a model is, and its sites
    Info(ModelInfo),
    /// Continue a prompt greedily, with edits
    Generate(Box<Generate>),
}

#[derive(Subcommand)]
pub(crate) enum SaeCommand {
    /// What a dictionary is
    Info(SaeInfo),
}

#[derive(ClapArgs)]
pub(crate) struct Tour {
    /// The model: a Hugging Face directory, a .gguf file or a llama2.c .bin file
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// Text: files, globs or directories of .txt, .jsonl, .parquet
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Directory of the run
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Site of the dictionary [default: the residual stream after a third of the layers]
    #[arg(long)]
    pub(crate) site: Option<String>,
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
    pub(crate) self_explain: SelfExplainSettings,
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
    /// Steps between checkpoints of the training; 0 saves one every 20 seconds
    #[arg(long, default_value_t = 0)]
    pub(crate) checkpoint_steps: u64,
}

#[derive(ClapArgs)]
pub(crate) struct ModelInfo {
    /// The model
    pub(crate) model: PathBuf,
    /// List every site with its axes and formula
    #[arg(long)]
    pub(crate) sites: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Generate {
    /// The model
    pub(crate) model: PathBuf,
    /// What to continue
    #[arg(long)]
    pub(crate) prompt: String,
    /// Put the prompt through the model's chat template, as a user's turn
    #[arg(long)]
    pub(crate) chat: bool,
    /// Most new tokens
    #[arg(long, default_value_t = 64)]
    pub(crate) max_new_tokens: usize,
    /// Add SCALE times a direction at a site; repeatable. DIRECTION: FILE.safetensors[#name], SAE@latent or
    /// tokens('a')-tokens('b')
    #[arg(long, value_name = "SITE:DIRECTION:SCALE")]
    pub(crate) add: Vec<String>,
    /// Replace a site's values by SCALE times a direction; repeatable
    #[arg(long, value_name = "SITE:DIRECTION:SCALE")]
    pub(crate) replace: Vec<String>,
    /// Remove what lies along a direction; repeatable
    #[arg(long, value_name = "SITE:DIRECTION")]
    pub(crate) project_out: Vec<String>,
    /// Multiply a site's values; repeatable
    #[arg(long, value_name = "SITE:FACTOR")]
    pub(crate) scale: Vec<String>,
    /// Positions that edits touch, as 0,3,5..8 [default: all]
    #[arg(long)]
    pub(crate) positions: Option<String>,
    /// Also print the logits of the last prompt position: the largest, and a checksum of all their bits
    #[arg(long)]
    pub(crate) logits: bool,
}

#[derive(ClapArgs)]
pub(crate) struct SaeInfo {
    /// The dictionary's directory, in the SAELens layout
    pub(crate) sae: PathBuf,
}

#[derive(ClapArgs)]
pub(crate) struct Explain {
    /// The run
    pub(crate) run: PathBuf,
    /// The model [default: the one the run was made with]
    #[arg(long)]
    pub(crate) model: Option<PathBuf>,
    /// Latents, as 1,5,10..20
    #[arg(long)]
    pub(crate) latents: String,
    #[command(flatten)]
    pub(crate) self_explain: SelfExplainSettings,
}

#[derive(ClapArgs)]
pub(crate) struct Show {
    /// The run
    pub(crate) run: PathBuf,
    /// The latent
    pub(crate) latent: u32,
}

#[derive(ClapArgs)]
pub(crate) struct Serve {
    /// The run
    pub(crate) run: PathBuf,
    /// Port on this machine
    #[arg(long, default_value_t = 8617)]
    pub(crate) port: u16,
}
