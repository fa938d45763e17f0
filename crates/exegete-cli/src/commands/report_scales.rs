//! How rules of choosing a scale compare on a run: by what a scorer says of the text at each scale, and by what people picked.

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_methods::self_explain::plateaus::Background;
use exegete_methods::self_explain::study::{Comparison, Item, compare};
use exegete_methods::self_explain::{Curves, NAME};
use exegete_store::{CROSS_ENTROPY, ENTROPY, Notes, SAID, SELF_SIMILARITY, is_control};

use crate::commands::report::shown;
use crate::printer::Printer;

/// Compares the rules, and says how.
pub(super) fn tell(notes: &Notes, scorer: &str, printer: &Printer) -> Result<Comparison> {
    let mut items = Vec::new();
    let mut picked = 0;
    for latent in notes.explained_latents(NAME)? {
        if let Some((item, is_picked)) = item(notes, latent, scorer)? {
            picked += usize::from(is_picked);
            items.push(item);
        }
    }
    if items.len() < 4 {
        bail!(
            "--scales {scorer}: {} latents have scored texts at their scales; `exegete explain --method self` and `exegete score --scorer {scorer}` make them",
            items.len()
        );
    }
    // What is said of everything is seen among the latents themselves.
    let background = Background::of(&items.iter().map(|item| item.texts.clone()).collect::<Vec<_>>());
    let told = compare(&items, &background);
    printer.line(format!(
        "rules of choosing a scale, by {scorer} ({picked} latents by what people picked): weights chosen on {} latents, told of {} others",
        told.tuned_on, told.items
    ));
    for rule in &told.rules {
        let alpha = rule.alpha.map(|alpha| format!(", alpha {alpha}")).unwrap_or_default();
        let (first, three) = (shown(&rule.first), shown(&rule.best_of_three));
        printer
            .line(format!("  {:<27} first {first}  best of 3 {three}  {} abstained{alpha}", rule.rule, rule.abstained));
    }
    printer.line(format!("  best scale {}, any scale {}", shown(&told.oracle), shown(&told.any)));
    Ok(told)
}

/// A latent that explained itself, with what its texts are worth; and whether a person picked one.
fn item(notes: &Notes, latent: LatentId, scorer: &str) -> Result<Option<(Item, bool)>> {
    let texts = notes.explanations_of(latent)?;
    let texts: Vec<&str> = texts.iter().filter(|e| e.method == NAME && !e.abstained).map(|e| e.text.as_str()).collect();
    let Some((_, stored)) = notes.curves_of(latent)?.into_iter().find(|(method, _)| method == NAME) else {
        return Ok(None);
    };
    let curve = |name: &str| stored.curves.get(name).filter(|c| c.len() == stored.scales.len()).cloned();
    let all = (curve(SELF_SIMILARITY), curve(ENTROPY), curve(CROSS_ENTROPY), curve(SAID));
    let (Some(self_similarity), Some(entropy), Some(cross_entropy), Some(said)) = all else { return Ok(None) };
    let said: Vec<Option<&str>> =
        said.iter().map(|rank| if rank.is_finite() { texts.get(*rank as usize).copied() } else { None }).collect();
    let picked = notes.label_of(latent)?.filter(|label| label.method == NAME);
    let scores = notes.scores_of(latent)?;
    let worth = |text: &Option<&str>| -> Option<f64> {
        let text = (*text)?;
        if let Some(label) = &picked {
            return Some(f64::from(u8::from(label.text == text)));
        }
        let of = scores.iter().filter(|s| s.scorer == scorer && s.text == text && !is_control(&s.against));
        of.map(|s| s.value.value).find(|value| value.is_finite())
    };
    let worth: Vec<Option<f64>> = said.iter().map(worth).collect();
    if worth.iter().all(Option::is_none) {
        return Ok(None);
    }
    let curves = Curves {
        scales: stored.scales.clone(),
        self_similarity,
        entropy,
        cross_entropy,
        cross_entropy_random: Vec::new(),
        by_layer: Vec::new(),
    };
    let texts = said.iter().map(|text| text.unwrap_or_default().to_owned()).collect();
    Ok(Some((Item { about: u64::from(latent.0), curves, texts, worth }, picked.is_some())))
}
