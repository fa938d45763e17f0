//! Columns of the table of latents: what they are sorted by, compared by, and coloured by on the map.

use exegete_store::LatentRow;

/// From this share of the firing's entropy on that the position tells, a latent counts as one of positions. Mutual information alone
/// cannot be larger than that entropy, which of most latents is below any fixed number of nats.
const POSITIONAL: f64 = 0.05;
/// The least statistic `2 n I` (a G-test of firing and position): of 16 parts of a window, chance alone reaches it once in a million.
const SURELY: f64 = 56.0;
/// Up to so many different tokens in the strongest four fifths of its firings, a latent counts as one of few tokens.
const FEW_TOKENS: u32 = 20;
/// Fewer sampled firings than this lie on few tokens by themselves.
const ENOUGH: u32 = 2 * FEW_TOKENS;

/// A column of numbers.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in an address.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) title: &'static str,
    /// Whether its values span powers of ten.
    pub(crate) is_logarithmic: bool,
    /// A latent's value; not a number where it has none.
    pub(crate) value: fn(&LatentRow) -> f64,
}

/// All columns. Those of profiles have no values in runs that were made without them.
pub(crate) const COLUMNS: [Column; 13] = [
    Column { name: "rate", title: "firing rate", is_logarithmic: true, value: |row| row.firing_rate.value },
    Column { name: "count", title: "firings", is_logarithmic: true, value: |row| row.stats.count as f64 },
    Column { name: "max", title: "largest activation", is_logarithmic: true, value: |row| row.stats.max.into() },
    Column { name: "mean", title: "mean activation", is_logarithmic: true, value: |row| fired(row, row.stats.mean()) },
    Column {
        name: "std",
        title: "spread of activation",
        is_logarithmic: true,
        value: |row| fired(row, row.stats.std()),
    },
    Column { name: "logit", title: "largest logit", is_logarithmic: false, value: |row| first(&row.top_tokens) },
    Column { name: "cosine", title: "nearest decoder row", is_logarithmic: false, value: |row| first(&row.neighbours) },
    Column {
        name: "cofiring",
        title: "closest co-firing",
        is_logarithmic: false,
        value: |row| first(&row.profile.cofiring),
    },
    Column {
        name: "correlation",
        title: "closest correlation",
        is_logarithmic: false,
        value: |row| first(&row.profile.correlated_latents),
    },
    Column {
        name: "distinct",
        title: "different tokens",
        is_logarithmic: true,
        value: |row| sampled(row, f64::from(row.profile.distinct_tokens)),
    },
    Column {
        name: "token",
        title: "share of its commonest token",
        is_logarithmic: false,
        value: |row| first(&row.profile.fired_tokens),
    },
    Column {
        name: "position",
        title: "share of firing that position tells",
        is_logarithmic: false,
        value: position_share,
    },
    Column {
        name: "norm",
        title: "norm of the decoder row",
        is_logarithmic: false,
        value: |row| {
            if row.profile.decoder_norm > 0.0 { row.profile.decoder_norm.into() } else { f64::NAN }
        },
    },
];

/// A column by its name.
pub(crate) fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

/// Those in which any latent has a value.
pub(crate) fn there(rows: &[LatentRow]) -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| rows.iter().any(|row| (column.value)(row).is_finite())).collect()
}

/// Whether a latent fires on few different tokens.
pub(crate) fn is_of_few_tokens(row: &LatentRow) -> bool {
    row.profile.n_sampled >= ENOUGH && (1..=FEW_TOKENS).contains(&row.profile.distinct_tokens)
}

/// Whether where a latent fires tells the position.
pub(crate) fn is_positional(row: &LatentRow) -> bool {
    let information = f64::from(row.profile.position_information);
    position_share(row) > POSITIONAL && 2.0 * row.firing_rate.n as f64 * information > SURELY
}

/// What part of the entropy of firing the position tells; not a number where that was not measured.
pub(crate) fn position_share(row: &LatentRow) -> f64 {
    let p = row.firing_rate.value;
    let entropy = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    sampled(row, f64::from(row.profile.position_information) / entropy)
}

fn fired(row: &LatentRow, value: f64) -> f64 {
    if row.stats.count > 0 { value } else { f64::NAN }
}

fn sampled(row: &LatentRow, value: f64) -> f64 {
    if row.profile.n_sampled > 0 { value } else { f64::NAN }
}

fn first(pairs: &[(u32, f32)]) -> f64 {
    pairs.first().map_or(f64::NAN, |pair| pair.1.into())
}
