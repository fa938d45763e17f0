//! Flags of the commands that look at a run: `report`, `show` and `serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

#[derive(ClapArgs)]
pub(crate) struct Report {
    /// The run
    pub(crate) run: PathBuf,
    /// Of which of the run's dictionaries; a run with one needs no name
    #[arg(long, value_name = "NAME")]
    pub(crate) dictionary: Option<String>,
    /// A run of the same model untrained (`--model untrained:NAME`), explained and scored in the same way: the control
    #[arg(long, value_name = "RUN")]
    pub(crate) untrained: Option<PathBuf>,
    /// Also compare the rules of choosing a scale, by what this scorer says of the text at each, and by what people picked
    #[arg(long, value_name = "SCORER")]
    pub(crate) scales: Option<String>,
}

#[derive(ClapArgs)]
pub(crate) struct Show {
    /// The run
    pub(crate) run: PathBuf,
    /// The latent
    pub(crate) latent: u32,
    /// Of which of the run's dictionaries; the first where it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) dictionary: Option<String>,
    /// How random firings are grouped
    #[arg(long, value_enum, default_value_t = Grouped::Levels)]
    pub(crate) view: Grouped,
    /// Whether to colour: auto does on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    pub(crate) color: Colour,
}

/// How random firings are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouped {
    /// By the levels of the grid
    Levels,
    /// By five intervals of equal width
    Intervals,
    /// By five quantiles
    Quantiles,
}

impl Grouped {
    /// Its name in an address.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Levels => "levels",
            Self::Intervals => "intervals",
            Self::Quantiles => "quantiles",
        }
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(ClapArgs)]
pub(crate) struct Serve {
    /// The run
    pub(crate) run: PathBuf,
    /// Another run to compare it with: its dictionaries stand behind those of this one; may be given again
    #[arg(long, value_name = "RUN")]
    pub(crate) beside: Vec<PathBuf>,
    /// Port on this machine
    #[arg(long, default_value_t = 8617)]
    pub(crate) port: u16,
    /// Address to serve on; one that others can reach needs a token, which is made and printed if none is given
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDR")]
    pub(crate) bind: IpAddr,
    /// What a browser must show to be answered: in the address once (?token=), or as Authorization: Bearer
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Another name by which this server may be asked for, beside localhost and addresses in numbers
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// Try texts on the pages with this model: a directory, a .gguf file, org/name, or builtin:organism
    #[arg(long)]
    pub(crate) model: Option<String>,
}
