//! What a harvest counts.

use serde::{Deserialize, Serialize};

/// Which tokens a harvest counts, and what it estimates from samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct HarvestSettings {
    /// Tokens whose activation is longer than so many times the median, of the first windows of the text, are passed over as attention
    /// sinks; 0 counts all. The first token of a window is never counted
    #[arg(long, default_value_t = 10.0)]
    pub sink_norm: f64,
    /// Firings of each latent kept to tell which latents fire together and on which tokens, the standard error being at most
    /// half of one over its square root; 0 keeps none
    #[arg(long, default_value_t = 128)]
    pub sketch: usize,
    /// Tokens drawn for correlations between latents, and with the coordinates of the site; 0 draws none
    #[arg(long, default_value_t = 32_768)]
    pub correlation_tokens: u64,
}

impl Default for HarvestSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self { sink_norm: 10.0, sketch: 128, correlation_tokens: 32_768 }
    }
}

impl HarvestSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence naming the flag at fault.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (self.sink_norm == 0.0 || self.sink_norm >= 1.0, "--sink-norm must be 0, or 1 or more"),
            (self.sink_norm.is_finite(), "--sink-norm must be a number"),
            (self.sketch <= 1 << 14, "--sketch must be at most 16384"),
            (self.correlation_tokens <= 1 << 24, "--correlation-tokens must be at most 16777216"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, text)| Err((*text).into()))
    }
}
