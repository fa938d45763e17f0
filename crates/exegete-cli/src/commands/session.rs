//! A model at hand for the pages: texts are run through it and encoded with the run's dictionaries.

use std::path::Path;

use anyhow::{Context, Result, bail};
use exegete_base::Site;
use exegete_base::settings::TextSettings;
use exegete_harvest::vocabulary::residual_rows;
use exegete_harvest::windows;
use exegete_model::{Batch, Hooks, Logits, Model, site_named};
use exegete_sae::{Codes, Dictionary, Sae};
use exegete_store::Run;
use exegete_store::harvested::{self, Harvested};
use exegete_tensor::{Tape, f32s};
use exegete_web::Session;
use exegete_web::wire::{FiringLatent, TriedLatents, TriedText, TriedToken};

use crate::args::Common;
use crate::printer::Printer;
use crate::{open_model, run_dictionary};

/// A model with the dictionaries of a run.
pub(crate) struct LiveSession {
    model: Model,
    /// How the run's texts became tokens.
    text: TextSettings,
    dictionaries: Vec<Named>,
}

/// A dictionary by its name in the run.
struct Named {
    name: String,
    /// The site that it reads.
    site: Site,
    /// The site that it writes.
    written: Site,
    dictionary: Sae,
}

impl LiveSession {
    /// Opens a model and the dictionaries that the run's manifest names.
    ///
    /// # Errors
    /// A model or a dictionary that cannot be read, a site that the model does not have, widths that do not fit.
    pub(crate) fn open(run: &Path, model: &str, common: &Common, printer: &Printer) -> Result<Self> {
        let run = Run::open(run)?;
        let model = open_model::open_plain(model, common, printer)?;
        let settings = &run.manifest().settings;
        let text = settings
            .get("windows")
            .map_or_else(|| Ok(TextSettings::default()), |w| serde_json::from_value(w.clone()))?;
        let all = harvested::dictionaries(&run);
        let dictionaries = all.iter().map(|of| named(&run, of, &model, printer)).collect::<Result<_>>()?;
        Ok(Self { model, text, dictionaries })
    }

    fn named(&self, name: &str) -> Result<&Named> {
        let found = self.dictionaries.iter().find(|named| named.name == name);
        found.with_context(|| {
            format!("the dictionary {name:?} was not there when the server began; serve the run again")
        })
    }

    /// The tokens of a text as the run's texts have them, and the codes of all but the first position.
    fn encode(&self, named: &Named, text: &str) -> Result<(Vec<u32>, Vec<f32>, Codes)> {
        let tokenizer = self.model.tokenizer()?;
        let (bos, room) = windows::bos_and_room(&self.model, &self.text)?;
        let body = match self.text.special_tokens {
            true => tokenizer.encode_prompt(text)?,
            false => tokenizer.encode_text(text)?,
        };
        if body.len() > room {
            bail!("the text has {} tokens, and the run's windows have room for {room}", body.len());
        }
        let ids: Vec<u32> = bos.into_iter().chain(body).collect();
        if ids.len() < 2 {
            bail!("the text is too short: nothing is computed on the first position, as in the run");
        }
        let mut hooks = Hooks::none().tap(named.site);
        hooks.stop_after_layer = named.site.layer;
        let logits = if hooks.stop_after_layer.is_none() { Logits::All } else { Logits::None };
        self.model.run(&Tape::new(), &Batch::uniform(ids.clone(), 1), None, &mut hooks, logits)?;
        let value = hooks.value(named.site).with_context(|| format!("{} was not reached", named.site))?;
        let x_ND = f32s(value.tensor())?[named.dictionary.d_in()..].to_vec();
        let codes = named.dictionary.encode(&x_ND)?;
        Ok((ids, x_ND, codes))
    }

    fn texts(&self, ids: &[u32]) -> Result<Vec<String>> {
        let tokenizer = self.model.tokenizer()?;
        Ok(ids.iter().map(|id| tokenizer.token_text(*id)).collect())
    }

    fn activations_of(&self, dictionary: &str, latent: u32, text: &str) -> Result<TriedText> {
        let named = self.named(dictionary)?;
        let (ids, _, codes) = self.encode(named, text)?;
        let value =
            |token: usize| codes.of(token).find(|(active, _)| *active == latent).map_or(0.0, |(_, value)| value);
        let values = std::iter::once(None).chain((0..codes.n_tokens()).map(|token| Some(value(token))));
        let tokens = self.texts(&ids)?.into_iter().zip(values).map(|(text, value)| TriedToken { text, value });
        Ok(TriedText { latent, tokens: tokens.collect() })
    }

    fn firing_on(&self, dictionary: &str, text: &str, position: Option<usize>) -> Result<TriedLatents> {
        let named = self.named(dictionary)?;
        let (ids, x_ND, codes) = self.encode(named, text)?;
        let mut strongest = std::collections::BTreeMap::new();
        // Position 0 has no codes.
        for token in (0..codes.n_tokens()).filter(|token| position.is_none_or(|at| at == token + 1)) {
            for (latent, value) in codes.of(token) {
                let best = strongest.entry(latent).or_insert((token, value));
                if value > best.1 {
                    *best = (token, value);
                }
            }
        }
        let mut latents = Vec::with_capacity(strongest.len());
        for (latent, (token, value)) in strongest {
            let effect = self.effect(named, &x_ND, &ids, (latent, token, value))?;
            let position = token + 1;
            latents.push(FiringLatent { latent, position, value, quantile: None, effect, explanation: None });
        }
        Ok(TriedLatents { tokens: self.texts(&ids)?, total: latents.len(), latents })
    }

    /// What a firing writes, read by the unembedding for the token that follows: through the final norm's gain, without its
    /// division, as the vocabulary of a decoder row is. Of a dictionary that does not write to the residual stream there is none.
    fn effect(
        &self,
        named: &Named,
        x_ND: &[f32],
        ids: &[u32],
        (latent, token, value): (u32, usize, f32),
    ) -> Result<Option<f32>> {
        let (d, next) = (named.dictionary.d_in(), ids.get(token + 2));
        let own = named.dictionary.decoder_row(latent as usize).to_vec();
        let (Some(next), Some(row)) = (next, residual_rows(&self.model, named.written, own)?) else { return Ok(None) };
        let mut unembed_D = vec![0f32; self.model.spec.d_model];
        self.model.weights.unembed.w.row(*next as usize, &mut unembed_D);
        let gain = f32s(self.model.weights.norm_final.gain.tensor())?;
        let unit = named.dictionary.unit(&x_ND[token * d..(token + 1) * d]);
        let per_unit: f32 =
            row.iter().zip(gain.iter()).zip(&unembed_D).map(|((row, gain), unembed)| row * gain * unembed).sum();
        Ok(Some(value * unit * per_unit))
    }
}

impl Session for LiveSession {
    fn activations(&self, dictionary: &str, latent: u32, text: &str) -> Result<TriedText, String> {
        self.activations_of(dictionary, latent, text).map_err(|error| format!("{error:#}"))
    }

    fn latents(&self, dictionary: &str, text: &str, position: Option<usize>) -> Result<TriedLatents, String> {
        self.firing_on(dictionary, text, position).map_err(|error| format!("{error:#}"))
    }
}

/// A dictionary of the run, whose site the model has to have.
fn named(run: &Run, of: &Harvested, model: &Model, printer: &Printer) -> Result<Named> {
    let dictionary = run_dictionary::weights(run, of, printer).context("--model")?;
    let site = site_named(&model.spec, &run_dictionary::site(run, of).context("--model")?)?;
    let (d, width) = (dictionary.d_in(), model.spec.site_width(site, 0));
    if d != width {
        bail!(
            "--model: the dictionary reads {d} values, and {site} of this model has {width}; give the run's own model"
        );
    }
    let written = run_dictionary::written(run, of).map_or(Ok(site), |name| site_named(&model.spec, &name))?;
    Ok(Named { name: of.name.clone(), site, written, dictionary })
}
