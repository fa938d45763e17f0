//! The run directory: corpora, Parquet parts, SQLite notes, accumulators, manifest, lock.
//!
//! A run is a directory written by one process and read by any number. [`Run`] keeps its manifest and its lock;
//! every file reaches it through [`atomic::write_atomic`], so a run that was killed at any instant holds whole
//! files only, and [`Run::part_done`] tells a resumed run what it need not do again.
//!
//! Text comes in through [`corpus`], tokens are kept in [`tokens`], firings are gathered by [`accumulate`] and end
//! as [`latents`] and [`examples`]; what people and models say about latents lives in [`notes`].
//!
//! This crate knows no tensors and no models: everything crosses its border as plain slices.
#![deny(missing_docs)]

pub mod accumulate;
mod accumulate_state;
pub mod activations;
pub mod atomic;
pub mod attributions;
pub mod corpus;
mod corpus_read;
pub mod density;
pub mod error;
pub mod examples;
pub mod groups;
pub mod harvested;
pub mod interop;
pub mod jobs;
pub mod killpoint;
pub mod labelled;
pub mod latents;
pub mod notes;
pub mod personal;
pub mod profile;
pub mod run;
pub mod sampled;
pub mod scores;
pub mod sketch;
pub mod steps;
mod table;
pub mod task;
pub mod tokens;

pub use accumulate::{AccumulatorSettings, Accumulators, LatentStats};
pub use activations::{Activation, ActivationReader, read_activations, write_activations};
pub use atomic::{clean_temporaries, is_temporary, write_atomic};
pub use attributions::{Attribution, AttributionReader, write_attributions};
pub use corpus::{Corpus, Document, Source, TextOptions, open_corpus};
pub use density::{DensityRow, read_density, write_density};
pub use error::{Result, StoreError};
pub use examples::{Example, ExampleKind, ExampleReader, write_examples};
pub use killpoint::killpoint;
pub use labelled::{ConceptRow, LabelledDocument};
pub use latents::{LatentRow, read_latents, write_latents};
pub use notes::{BY_LAYER, CROSS_ENTROPY, Curves, ENTROPY, Explanation, Notes, RANDOM, SAID, SELF_SIMILARITY};
pub use personal::{Candidate, Label, Note, Rating};
pub use profile::LatentProfile;
pub use run::{Manifest, Part, Run};
pub use scores::{CONTROLS, RANDOM_DIRECTION, SHUFFLED, Score, control_against, control_of, is_control};
pub use steps::{StepLog, StepRow, read_steps, write_steps};
pub use task::{Labelled, Task, TaskDocument, read_task};
pub use tokens::{TokenReader, Window, read_vocab, write_vocab, write_windows};
