//! What was typed of harvests.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use exegete_base::settings::{HarvestSettings, KeepSettings, TextSettings};
use exegete_harvest::windows::Shard;

#[derive(ClapArgs)]
pub(crate) struct Harvest {
    /// The model: builtin:organism, a Hugging Face directory, a .gguf file, a llama2.c .bin file, org/name or
    /// org/name@revision
    pub(crate) model: String,
    /// Dictionaries, all harvested in one pass: paths, org/name:path, or names of a release
    #[arg(long, num_args = 1.., required = true)]
    pub(crate) sae: Vec<String>,
    /// The site that they read [default: as the files of each say]
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// The layout of their files, where these do not tell [possible: as sae info]
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Active latents of a dictionary whose files do not tell
    #[arg(long)]
    pub(crate) k: Option<usize>,
    /// Text: files, globs or directories of .txt, .jsonl, .parquet [default: builtin:organism, for that model]
    #[arg(long, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Directory of the run
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
    /// Harvest a part of the text's documents: I/N, from 1/N to N/N; `exegete merge` makes the whole of all
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub(crate) shard: Option<Shard>,
    #[command(flatten)]
    pub(crate) text_settings: TextSettings,
    #[command(flatten)]
    pub(crate) keep: KeepSettings,
    #[command(flatten)]
    pub(crate) harvest: HarvestSettings,
    /// GiB that what is gathered may take before it is written to the disk
    #[arg(long, value_name = "GIB", default_value_t = 2.0)]
    pub(crate) memory: f64,
    /// Keep every firing in RUN/activations, which `exegete export --format delphi` needs: 16 bytes each before they are packed
    #[arg(long)]
    pub(crate) keep_activations: bool,
    /// Say what would be done and what it would take, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Merge {
    /// The runs of all shards, in any order
    #[arg(required = true, num_args = 1..)]
    pub(crate) runs: Vec<PathBuf>,
    /// Directory of the merged run
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
}

fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
    match parts {
        Some((index, of)) if (1..=of).contains(&index) => Ok(Shard { index, of }),
        _ => Err("a shard is I/N, from 1/N to N/N".into()),
    }
}
