//! How labelled text is asked what latents know.

use serde::{Deserialize, Serialize};

/// How probes are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct ProbeSettings {
    /// Latents of a sparse probe, as 1,2,5
    #[arg(long, value_name = "K", value_delimiter = ',', default_values_t = [1, 2, 5])]
    pub probe_k: Vec<usize>,
    /// Examples of a task, of which four fifths are to train on and the others to test on
    #[arg(long, default_value_t = 5000)]
    pub probe_examples: usize,
    /// Labels that are probed, the commonest ones; of first letters all are
    #[arg(long, default_value_t = 8)]
    pub probe_labels: usize,
    /// Key of a .jsonl record that holds a second property of the document, between which and the label SCR removes a
    /// spurious correlation
    #[arg(long, value_name = "KEY", default_value = "group")]
    pub probe_group: String,
    /// Solved examples before each word of the first-letter task
    #[arg(long, default_value_t = 10)]
    pub icl_examples: usize,
}

impl Default for ProbeSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        let probe_group = "group".into();
        Self { probe_k: vec![1, 2, 5], probe_examples: 5000, probe_labels: 8, probe_group, icl_examples: 10 }
    }
}

impl ProbeSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence naming the flag at fault.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (
                !self.probe_k.is_empty() && self.probe_k.iter().all(|k| (1..=4096).contains(k)),
                "--probe-k must be between 1 and 4096",
            ),
            ((50..=1_000_000).contains(&self.probe_examples), "--probe-examples must be between 50 and 1000000"),
            (self.probe_labels >= 1, "--probe-labels must be at least 1"),
            (self.icl_examples <= 100, "--icl-examples must be at most 100"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, text)| Err((*text).into()))
    }
}
