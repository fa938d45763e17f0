//! What single latents know, where it is known what there is to know: F1 of the organism's concepts.
//!
//! As `exegete lab truth` has it, without its controls: for each concept the best latent and its level are chosen on one half
//! of the tokens, and F1 is read on the other.

use std::path::Path;

use anyhow::{Result, ensure};
use exegete_base::Site;
use exegete_lab::builtin::{self, Part};
use exegete_lab::language::Language;
use exegete_lab::truth::{LabelledTokens, SparseLatents, TruthSettings, activations, match_concepts, report};
use exegete_model::Model;
use exegete_sae::Dictionary;
use exegete_sae::formats::{self, Choices};

/// Documents are of another seed than those that dictionaries are trained on or measured on.
const SEED: u64 = 13;

/// Labelled tokens with the activations of a site.
pub(crate) struct Truth {
    language: Language,
    tokens: LabelledTokens,
    acts: Vec<f32>,
    settings: TruthSettings,
}

impl Truth {
    /// Runs the organism up to a site.
    pub(crate) fn of(site: Site) -> Result<Self> {
        let (language, model) = (Language::new(), Model::open(&builtin::path(Part::Model)?)?);
        // Intervals are those over seeds; the study has no use for intervals over documents.
        let settings = TruthSettings { truth_tokens: 50_000, resamplings: 10, ..TruthSettings::default() };
        let longest = model.spec.max_positions;
        let tokens = LabelledTokens::new(&language, model.tokenizer()?, SEED, settings.truth_tokens, longest)?;
        let acts = activations(&model, site, &tokens)?;
        Ok(Self { language, tokens, acts, settings })
    }

    /// The mean of the concepts' F1, each of its best latent, and the share of concepts that are recovered.
    pub(crate) fn scores(&self, dictionary: &Path) -> Result<[f64; 2]> {
        let dictionary = formats::load(dictionary, &Choices::default())?.dictionary.into_sae()?;
        let (latents, concepts) = (SparseLatents::new(&dictionary, &self.acts)?, self.language.concepts());
        let found = match_concepts(&latents, &self.tokens, concepts.all().len(), self.settings.least_tokens);
        let all = [("dictionary", dictionary.n_latents(), found)];
        let truth = report(&all, &self.tokens, concepts, &self.settings, SEED);
        ensure!(truth.concepts > 0, "no concept has {} tokens or more", self.settings.least_tokens);
        let n = truth.concepts as f64;
        let sum: f64 = truth.by_concept.iter().map(|concept| concept.f1.value).sum();
        Ok([sum / n, truth.counts[0].recovered as f64 / n])
    }
}
