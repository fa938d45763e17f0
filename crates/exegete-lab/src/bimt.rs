//! Placeholder for the study's modules.

use serde::{Deserialize, Serialize};

/// Settings of the study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Settings {}
