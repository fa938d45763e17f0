//! The tour's last stage: latents spread over firing rates explain themselves, and random directions as a control.

use std::collections::BTreeSet;

use anyhow::Result;
use exegete_base::LatentId;
use exegete_base::stats::wilson;
use exegete_harvest::{Progress, firings, training};
use exegete_methods::self_explain::{NAME, SelfExplainer};
use exegete_model::Model;
use exegete_sae::Dictionary;
use exegete_store::{LatentRow, Notes, Run, read_latents};
use serde_json::json;

use crate::args::Tour;
use crate::commands::explain::{NOTES, asked_of, keep};
use crate::printer::Printer;

/// The stage's name in the manifest.
pub(crate) const STAGE: &str = "explain";
/// Latents that fired less often are not worth a question.
const LEAST_FIRINGS: u64 = 5;
/// Random directions asked as a control.
const N_CONTROLS: u64 = 8;
/// Latents asked for each text wanted, at most: where nearly all abstain, more asking would only take time.
const MOST_TRIES: usize = 4;

/// Explains latents until as many as asked for have a text; abstentions are kept and counted, not hidden.
pub(crate) fn run(run: &mut Run, model: &Model, settings: &Tour, seed: u64, printer: &Printer) -> Result<()> {
    let asked = json!({"explain": settings.explain, "self_explain": serde_json::to_value(&settings.self_explain)?});
    if run.stage(STAGE).is_some_and(|summary| summary["asked"] == asked) {
        return Ok(());
    }
    let dictionary = training::dictionary(run)?;
    let rows = read_latents(&run.path(firings::LATENTS))?;
    let explainer = SelfExplainer::new(model, &settings.self_explain)?;
    let mut notes = Notes::open(&run.path(NOTES))?;
    let same_settings = asked_of(&settings.self_explain, &settings.model)?;
    let (mut explained, mut abstained) = (0usize, 0usize);
    // Many latents that are given one text are not explained by it.
    let mut texts = BTreeSet::new();
    printer.begin(STAGE, settings.explain as u64 + N_CONTROLS, "latents", 0);
    for latent in spread(&rows).into_iter().take(settings.explain * MOST_TRIES) {
        if explained == settings.explain {
            break;
        }
        printer.check()?;
        let there =
            notes.explanations_of(latent)?.into_iter().find(|e| e.method == NAME && e.settings == same_settings);
        let text = match there {
            Some(earlier) => (!earlier.abstained).then_some(earlier.text),
            None => {
                let new = explainer.explain(dictionary.decoder_row(latent.0 as usize))?;
                keep(&mut notes, latent, &new, &same_settings)?;
                let best = new.answers.into_iter().next().map(|answer| answer.text);
                (!new.abstained).then(|| best.unwrap_or_default())
            }
        };
        match text {
            Some(text) => {
                explained += 1;
                texts.insert(text);
            }
            None => abstained += 1,
        }
        printer.at(explained as u64, &format!("{abstained} abstained"));
    }
    let mut control = Vec::new();
    for number in 0..N_CONTROLS {
        printer.check()?;
        printer.at(explained as u64 + number, "controls");
        control.push(explainer.explain(&explainer.random_direction(seed, number))?);
    }
    let silent = control.iter().filter(|c| c.abstained).count() as u64;
    let summary = json!({
        "method": NAME, "explained": explained, "texts": texts.len(), "abstained": abstained, "asked": asked, "seed": seed,
        "abstention_rate": wilson(abstained as u64, (explained + abstained) as u64),
        "control": {"what": exegete_methods::method(NAME).map(|m| m.control), "abstention_rate": wilson(silent, N_CONTROLS),
                    "texts": control.iter().map(|c| c.answers.first().map(|a| &a.text)).collect::<Vec<_>>()},
    });
    run.finish_stage(STAGE, summary)?;
    printer.end(&format!(
        "{explained} of {} latents with texts, of which {} are different, {abstained} abstained; {silent} of {N_CONTROLS} random directions abstained",
        settings.explain,
        texts.len()
    ));
    Ok(())
}

/// Alive latents in an order whose every beginning is spread over firing rates: ranks by halves (van der Corput).
fn spread(rows: &[LatentRow]) -> Vec<LatentId> {
    let mut alive: Vec<&LatentRow> = rows.iter().filter(|r| r.stats.count >= LEAST_FIRINGS).collect();
    alive.sort_by_key(|r| (r.stats.count, r.latent));
    let mut order: Vec<(u32, LatentId)> =
        alive.iter().enumerate().map(|(rank, r)| (fraction(rank, alive.len()).reverse_bits(), r.latent)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, latent)| latent).collect()
}

/// `rank / n` as 32 binary digits.
fn fraction(rank: usize, n: usize) -> u32 {
    ((rank as u64) << 32).checked_div(n as u64).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use exegete_store::LatentStats;

    #[test]
    fn every_beginning_is_spread_over_firing_rates() {
        let row = |i: u32| {
            let stats = LatentStats { count: u64::from(i) * 10, ..LatentStats::default() };
            LatentRow::new(LatentId(i), stats, 10_000)
        };
        let order = spread(&(0..257).map(row).collect::<Vec<_>>());
        assert_eq!(order.len(), 256, "the latent that never fired is left out");
        let mut first: Vec<u32> = order[..64].iter().map(|l| l.0).collect();
        first.sort_unstable();
        assert!(first.windows(2).all(|w| w[1] - w[0] <= 6), "{first:?}");
    }
}
