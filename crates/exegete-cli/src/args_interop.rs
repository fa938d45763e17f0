//! What was typed of exports and imports.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

/// Formats that are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Neuronpedia's upload request
    Neuronpedia,
    /// SAEDashboard's batches
    Saedashboard,
    /// A cache of activations as delphi writes it; needs a harvest with --keep-activations
    Delphi,
    /// Pages that open from a file
    Html,
}

/// Formats that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ImportFormat {
    /// Neuronpedia's upload request, or its bulk export
    Neuronpedia,
    /// SAEDashboard's batches
    Saedashboard,
}

#[derive(ClapArgs)]
pub(crate) struct Export {
    /// The run
    pub(crate) run: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// A new or empty directory; with --single-file, a file
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Latents, as 1,5,10..20 [default: all]
    #[arg(long)]
    pub(crate) latents: Option<String>,
    /// The dictionary, where the run has several
    #[arg(long, value_name = "NAME")]
    pub(crate) dictionary: Option<String>,
    /// Name of the model in the files [default: the run's, in lower case]
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: Option<String>,
    /// Name of the source in the files, LAYER-SET [default: the site's layer, and exegete]
    #[arg(long, value_name = "ID")]
    pub(crate) source: Option<String>,
    /// Strongest texts of a latent (neuronpedia, saedashboard) [default: 20]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Intervals of equal length from 0 to the largest activation (neuronpedia, saedashboard) [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub(crate) intervals: Option<u64>,
    /// Random texts of each interval (neuronpedia, saedashboard) [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) per_interval: Option<usize>,
    /// The module that the dictionary reads, as delphi names it (delphi) [default: from the site, layers.5]
    #[arg(long, value_name = "NAME")]
    pub(crate) module: Option<String>,
    /// Files that the latents are split over (delphi) [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) splits: Option<usize>,
    /// Token that fills up windows that end before the others (delphi) [default: 0]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) pad_token: Option<u32>,
    /// One file with all the latents asked for (html)
    #[arg(long)]
    pub(crate) single_file: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Import {
    /// A file, or a directory of batch-N.json; for neuronpedia also a bulk export, a directory with features/
    pub(crate) path: PathBuf,
    /// What it is
    #[arg(long, value_enum)]
    pub(crate) format: ImportFormat,
    /// Directory of the run
    #[arg(long, value_name = "RUN", required_unless_present = "check")]
    pub(crate) out: Option<PathBuf>,
    /// Latents, as 1,5,10..20 [default: all]
    #[arg(long)]
    pub(crate) latents: Option<String>,
    /// Say whether the files are what they should be, and make no run
    #[arg(long, conflicts_with_all = ["out", "latents"])]
    pub(crate) check: bool,
}
