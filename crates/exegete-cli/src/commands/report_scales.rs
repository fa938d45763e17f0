//! How rules of choosing a scale compare on a run: by what a scorer says of the text at each scale, and by what people picked.

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_methods::self_explain::plateaus::Background;
use exegete_methods::self_explain::study::{Comparison, Item, compare};
use exegete_methods::self_explain::{Curves, NAME};
use exegete_store::{CROSS_ENTROPY, ENTROPY, Notes, SAID, SELF_SIMILARITY, is_control};

use crate::commands::report::shown;
use crate::printer::Printer;

/// Latents of which anything can be told.
const FEWEST: usize = 4;

/// Compares the rules by a scorer, and by what people picked where there is enough of it; says how.
pub(super) fn tell(notes: &Notes, scorer: &str, printer: &Printer) -> Result<Vec<Comparison>> {
    let (mut scored, mut picked) = (Vec::new(), Vec::new());
    for latent in notes.explained_latents(NAME)? {
        if let Some(of) = Stored::read(notes, latent)? {
            scored.extend(of.by_scores(notes, latent, scorer)?);
            picked.extend(of.by_label(notes, latent)?);
        }
    }
    if scored.len() < FEWEST && picked.len() < FEWEST {
        bail!(
            "--scales {scorer}: {} latents have scored texts at their scales; `exegete explain --method self` and `exegete score --scorer {scorer}` make them",
            scored.len()
        );
    }
    let mut told = Vec::new();
    for (by, items) in [(scorer, scored), ("what people picked", picked)] {
        if items.len() < FEWEST {
            continue;
        }
        // What is said of everything is seen among the latents themselves.
        let background = Background::of(&items.iter().map(|item| item.texts.clone()).collect::<Vec<_>>());
        let of = compare(&items, &background);
        printer.line(format!(
            "rules of choosing a scale, by {by}: weights chosen on {} latents, told of {} others",
            of.tuned_on, of.items
        ));
        for rule in &of.rules {
            let alpha = rule.alpha.map(|alpha| format!(", alpha {alpha}")).unwrap_or_default();
            let (first, three) = (shown(&rule.first), shown(&rule.best_of_three));
            let n = rule.abstained;
            printer.line(format!("  {:<27} first {first}  best of 3 {three}  {n} abstained{alpha}", rule.rule));
        }
        printer.line(format!("  best scale {}, any scale {}", shown(&of.oracle), shown(&of.any)));
        told.push(of);
    }
    Ok(told)
}

/// What is kept of a latent that explained itself: its curves, and what it says at each scale.
struct Stored {
    curves: Curves,
    said: Vec<Option<String>>,
}

impl Stored {
    /// None of latents that abstained, and of those whose curves were kept before texts of every scale were.
    fn read(notes: &Notes, latent: LatentId) -> Result<Option<Self>> {
        let texts = notes.explanations_of(latent)?;
        let texts: Vec<&str> =
            texts.iter().filter(|e| e.method == NAME && !e.abstained).map(|e| e.text.as_str()).collect();
        let all = notes.curves_of(latent)?;
        let Some((_, stored)) = all.into_iter().find(|(method, _)| method == NAME) else { return Ok(None) };
        let curve = |name: &str| stored.curves.get(name).filter(|c| c.len() == stored.scales.len()).cloned();
        let all = (curve(SELF_SIMILARITY), curve(ENTROPY), curve(CROSS_ENTROPY), curve(SAID));
        let (Some(self_similarity), Some(entropy), Some(cross_entropy), Some(said)) = all else { return Ok(None) };
        let text =
            |rank: &f64| if rank.is_finite() { texts.get(*rank as usize).map(|t| (*t).to_owned()) } else { None };
        let said: Vec<Option<String>> = said.iter().map(text).collect();
        let curves = Curves {
            scales: stored.scales.clone(),
            self_similarity,
            entropy,
            cross_entropy,
            cross_entropy_random: Vec::new(),
            by_layer: Vec::new(),
        };
        Ok(said.iter().any(Option::is_some).then_some(Self { curves, said }))
    }

    fn item(&self, latent: LatentId, nothing: f64, worth: impl Fn(&str) -> Option<f64>) -> Option<Item> {
        let worth: Vec<Option<f64>> = self.said.iter().map(|text| worth(text.as_deref()?)).collect();
        let texts = self.said.iter().map(|text| text.clone().unwrap_or_default()).collect();
        let is_judged = worth.iter().any(Option::is_some);
        let curves = self.curves.clone();
        is_judged.then_some(Item { about: u64::from(latent.0), curves, texts, worth, nothing })
    }

    /// A text is worth its score.
    fn by_scores(&self, notes: &Notes, latent: LatentId, scorer: &str) -> Result<Option<Item>> {
        let scores = notes.scores_of(latent)?;
        let of = |text: &str| {
            scores
                .iter()
                .find(|s| s.scorer == scorer && s.text == text && !is_control(&s.against) && s.value.value.is_finite())
        };
        let chance = self.said.iter().flatten().find_map(|text| Some(of(text)?.chance)).unwrap_or(0.0);
        Ok(self.item(latent, chance, |text| Some(of(text)?.value.value)))
    }

    /// The text that a person kept as label is worth 1, every other nothing.
    fn by_label(&self, notes: &Notes, latent: LatentId) -> Result<Option<Item>> {
        let Some(label) = notes.label_of(latent)?.filter(|label| label.method == NAME) else { return Ok(None) };
        Ok(self.item(latent, 0.0, |text| Some(f64::from(u8::from(label.text == text)))))
    }
}
