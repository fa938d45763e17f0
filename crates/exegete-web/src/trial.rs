//! The latents that fire on a text, in the order asked for, with how rare so strong a firing is for each.

use exegete_base::LatentId;
use exegete_base::levels::{level_of, lower_edge, upper_edge};
use exegete_store::LatentRow;

use crate::Result;
use crate::harvest::Harvest;
use crate::wire::{FiringLatent, FiringOrder, TriedLatents};

/// Fills in what the run knows of the latents, sorts them, and keeps the first.
pub(crate) fn told(
    harvest: &Harvest,
    mut tried: TriedLatents,
    order: FiringOrder,
    limit: usize,
) -> Result<TriedLatents> {
    for firing in &mut tried.latents {
        let row = harvest.row(LatentId(firing.latent));
        firing.quantile = row.and_then(|row| weaker(row, firing.value));
    }
    let key = |firing: &FiringLatent| match order {
        FiringOrder::Activation => Some(firing.value),
        FiringOrder::Quantile => firing.quantile,
        // What presses a token down matters as much as what lifts it.
        FiringOrder::Effect => firing.effect.map(f32::abs),
    };
    let value = |firing: &FiringLatent| key(firing).unwrap_or(f32::NEG_INFINITY);
    tried
        .latents
        .sort_by(|a, b| value(b).total_cmp(&value(a)).then(b.value.total_cmp(&a.value)).then(a.latent.cmp(&b.latent)));
    tried.latents.truncate(limit);
    for firing in &mut tried.latents {
        firing.explanation = harvest.text_of(LatentId(firing.latent))?;
    }
    Ok(tried)
}

/// Share of a latent's firings that are weaker; within the value's own level, as if they lay evenly on a logarithmic scale.
fn weaker(row: &LatentRow, value: f32) -> Option<f32> {
    if row.stats.count == 0 {
        return None;
    }
    let level = level_of(value);
    let below: u64 = row.stats.histogram[..level].iter().sum();
    let inside = (value / lower_edge(level)).log2() / (upper_edge(level) / lower_edge(level)).log2();
    let weaker = below as f64 + row.stats.histogram[level] as f64 * f64::from(inside.clamp(0.0, 1.0));
    Some((weaker / row.stats.count as f64) as f32)
}
