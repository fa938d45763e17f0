//! Other programs' files about latents: what is written of a run, and runs that are made of such files.
//!
//! Every format is one file of this module and one line of [`FORMATS`]. All meet in [`Feature`], a latent as those formats know
//! it: tokens as text, firings in their texts, numbers. A run gives features through [`RunSource`], and [`RunBuilder`] makes a
//! run of features, so that a new format reads or writes features and nothing else.
//!
//! Foreign files are hostile: every length and number is checked where it is read, and what does not fit is an error that names
//! file and key.

pub mod bulk;
mod cursor;
pub mod delphi;
mod feature;
mod kept;
pub mod neuronpedia;
pub mod saedashboard;
mod source;
mod target;

pub use cursor::{Fault, read_json};
pub use feature::{Bars, Bin, Dfa, Feature, Ground, Related, Said, Sequence};
pub use kept::{Kept, read_kept, write_kept};
pub use source::{Grouping, RunSource};
pub use target::{IMPORT, Origin, RunBuilder};

/// A format of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// Whether runs are made of it, too.
    pub is_read: bool,
    /// What it is.
    pub about: &'static str,
}

/// All formats.
pub const FORMATS: [FormatRow; 4] = [
    FormatRow { name: "neuronpedia", is_read: true, about: "the upload request of Neuronpedia" },
    FormatRow {
        name: "saedashboard",
        is_read: true,
        about: "batches of SAEDashboard, which Neuronpedia's importer reads",
    },
    FormatRow {
        name: "delphi",
        is_read: false,
        about: "a cache of activations and explanations as delphi writes them",
    },
    FormatRow { name: "html", is_read: false, about: "pages that open from a file" },
];
