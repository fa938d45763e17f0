//! What is known of a latent besides its firings, its vocabulary and its nearest decoder rows: columns of `latents.parquet` that
//! older files do not have.

use arrow_array::ArrayRef;
use arrow_array::types::{Float32Type, UInt32Type};

use crate::error::Result;
use crate::table::{self, Columns};

/// Bins of the position profile: the window is cut into as many parts of equal length.
pub const N_POSITIONS: usize = 16;
/// Bins of the histogram of logits.
pub const N_LOGITS: usize = 50;

/// What is known of a latent besides. Each list is empty where it was not asked for or cannot be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatentProfile {
    /// Latents that fire on the same tokens: the share of the tokens of both, of the tokens of either (Jaccard). An estimate from
    /// the tokens of smallest hash; its standard error is `sqrt(J (1 - J) / n)` with the sketch's size as n.
    pub cofiring: Vec<(u32, f32)>,
    /// Coordinates of the site with the largest Pearson correlation to the activation, by size, over the sampled tokens.
    pub correlated_neurons: Vec<(u32, f32)>,
    /// Latents of the dictionary with the largest Pearson correlation, over the sampled tokens.
    pub correlated_latents: Vec<(u32, f32)>,
    /// The largest coordinates of the decoder row, by size.
    pub aligned_neurons: Vec<(u32, f32)>,
    /// L1 norm of the decoder row.
    pub decoder_l1: f32,
    /// L2 norm of the decoder row.
    pub decoder_norm: f32,
    /// Tokens on which it fires, with their shares of the firings, over the sampled firings.
    pub fired_tokens: Vec<(u32, f32)>,
    /// Number of firings that were sampled without regard to their strength.
    pub n_sampled: u32,
    /// Different tokens among those sampled firings that make up the strongest four fifths.
    pub distinct_tokens: u32,
    /// Mutual information of firing and the part of the window, in nats.
    pub position_information: f32,
    /// Counts of the vocabulary's logits in [`N_LOGITS`] bins between the ends.
    pub logit_histogram: Vec<u32>,
    /// The smallest and the largest logit.
    pub logit_ends: [f32; 2],
    /// Place of the decoder row on a map: its first two principal components.
    pub map: [f32; 2],
}

type Pairs = fn(&LatentProfile) -> &[(u32, f32)];
type Float = fn(&LatentProfile) -> f32;

/// Columns of pairs: their name, that of the weights, and which.
const PAIRS: [(&str, &str, Pairs); 5] = [
    ("cofiring", "cofiring_jaccard", |p| &p.cofiring),
    ("correlated_neurons", "correlated_neurons_pearson", |p| &p.correlated_neurons),
    ("correlated_latents", "correlated_latents_pearson", |p| &p.correlated_latents),
    ("aligned_neurons", "aligned_neurons_value", |p| &p.aligned_neurons),
    ("fired_tokens", "fired_tokens_share", |p| &p.fired_tokens),
];

/// Columns of numbers.
const FLOATS: [(&str, Float); 7] = [
    ("decoder_l1", |p| p.decoder_l1),
    ("decoder_norm", |p| p.decoder_norm),
    ("position_information", |p| p.position_information),
    ("logit_low", |p| p.logit_ends[0]),
    ("logit_high", |p| p.logit_ends[1]),
    ("map_x", |p| p.map[0]),
    ("map_y", |p| p.map[1]),
];

/// The columns of profiles.
pub(crate) fn columns_of(profiles: &[&LatentProfile]) -> Vec<(&'static str, ArrayRef)> {
    let mut columns = Vec::new();
    for (ids, weights, pick) in PAIRS {
        let lists: Vec<Vec<u32>> = profiles.iter().map(|p| pick(p).iter().map(|pair| pair.0).collect()).collect();
        columns.push((ids, table::lists::<UInt32Type>(lists.iter().map(Vec::as_slice))));
        let lists: Vec<Vec<f32>> = profiles.iter().map(|p| pick(p).iter().map(|pair| pair.1).collect()).collect();
        columns.push((weights, table::lists::<Float32Type>(lists.iter().map(Vec::as_slice))));
    }
    for (name, pick) in FLOATS {
        columns.push((name, table::numbers::<Float32Type>(profiles.iter().map(|p| pick(p)))));
    }
    columns.push(("n_sampled", table::numbers::<UInt32Type>(profiles.iter().map(|p| p.n_sampled))));
    columns.push(("distinct_tokens", table::numbers::<UInt32Type>(profiles.iter().map(|p| p.distinct_tokens))));
    columns
        .push(("logit_histogram", table::lists::<UInt32Type>(profiles.iter().map(|p| p.logit_histogram.as_slice()))));
    columns
}

/// The profile in a row; an empty one where the file has none.
///
/// # Errors
/// Columns of another type, lists that do not fit each other.
pub(crate) fn profile_in(columns: &Columns, row: usize) -> Result<LatentProfile> {
    if !columns.has("decoder_norm") {
        return Ok(LatentProfile::default());
    }
    let pairs = |at: usize| columns.pairs(row, PAIRS[at].0, PAIRS[at].1);
    let float = |at: usize| Ok::<f32, crate::StoreError>(columns.numbers::<Float32Type>(FLOATS[at].0)?[row]);
    Ok(LatentProfile {
        cofiring: pairs(0)?,
        correlated_neurons: pairs(1)?,
        correlated_latents: pairs(2)?,
        aligned_neurons: pairs(3)?,
        fired_tokens: pairs(4)?,
        decoder_l1: float(0)?,
        decoder_norm: float(1)?,
        position_information: float(2)?,
        logit_ends: [float(3)?, float(4)?],
        map: [float(5)?, float(6)?],
        n_sampled: columns.numbers::<UInt32Type>("n_sampled")?[row],
        distinct_tokens: columns.numbers::<UInt32Type>("distinct_tokens")?[row],
        logit_histogram: columns.lists::<UInt32Type>("logit_histogram")?.row(row).to_vec(),
    })
}
