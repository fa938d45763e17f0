//! What a run holds in numbers, and its map of decoder directions.

use exegete_base::levels::N_LEVELS;

use crate::columns::Column;
use crate::harvest::Harvest;
use crate::summary::{model_name, run_name};
use crate::wire::{MapView, Overview};

/// What the first page tells.
pub(crate) fn overview(harvest: &Harvest) -> Overview {
    let rows = harvest.rows();
    let mut latents_by_level = vec![0u64; N_LEVELS];
    for row in rows {
        for (latents, count) in latents_by_level.iter_mut().zip(row.stats.histogram) {
            *latents += u64::from(count > 0);
        }
    }
    Overview {
        run: run_name(harvest.run()),
        model: model_name(harvest.run()),
        program: harvest.run().manifest().program.clone(),
        dictionaries: harvest.dictionaries().iter().map(|named| named.told()).collect(),
        dictionary: harvest.named().name.clone(),
        latents: rows.len(),
        alive: rows.iter().filter(|row| row.stats.count > 0).count(),
        tokens: harvest.n_tokens(),
        l0: harvest.n_firings() as f64 / harvest.n_tokens() as f64,
        latents_by_level,
    }
}

/// The map, coloured by a column. Latents without a place are left out.
pub(crate) fn map(harvest: &Harvest, column: &Column) -> MapView {
    let placed = || harvest.rows().iter().filter(|row| row.profile.map != [0.0; 2]);
    MapView {
        column: column.name.into(),
        title: column.title.into(),
        is_logarithmic: column.is_logarithmic,
        variance: harvest.map_variance().map_or(Vec::new(), |shares| shares.to_vec()),
        latents: placed().map(|row| row.latent.0).collect(),
        x: placed().map(|row| row.profile.map[0]).collect(),
        y: placed().map(|row| row.profile.map[1]).collect(),
        values: placed().map(|row| (column.value)(row) as f32).collect(),
    }
}
