//! Edits as they are typed.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use exegete_base::{Site, SiteKind};
use exegete_methods::{MethodError, direction};
use exegete_model::edits::{Add, AddAtNorm, CutEdges, ProjectOut, Replace, Scale, ScaleHeads, SetComponent, Vectors};
use exegete_model::{Edit, Hooks, Model, Positions, Steps, site_named};
use exegete_sae::Clamp;
use exegete_sae::formats::Choices;
use exegete_tensor::SiteFn;

use super::numbers;
use crate::args::EditArgs;
use crate::open_dictionary;
use crate::printer::Printer;

/// Hooks with the edits asked for, in the order of their flags' list in the help.
pub(crate) fn hooks(args: &EditArgs, model: &Model, printer: &Printer) -> Result<Hooks> {
    let (positions, steps) = (positions(args, model)?, steps(&args.steps)?);
    let mut hooks = Hooks::none();
    for (site, f) in functions(args, model, printer)? {
        hooks = hooks.edit(Edit { site, rows: None, positions: positions.clone(), steps: steps.clone(), f });
    }
    Ok(hooks)
}

/// Says so where an edit touched nothing: its positions or steps did not come up.
pub(crate) fn tell_untouched(hooks: &Hooks, printer: &Printer) {
    for edit in hooks.untouched() {
        printer.note(&format!("note: the edit at {} touched no token; see --positions and --steps", edit.site));
    }
}

fn functions(args: &EditArgs, model: &Model, printer: &Printer) -> Result<Vec<(Site, Arc<dyn SiteFn>)>> {
    let mut all: Vec<(Site, Arc<dyn SiteFn>)> = Vec::new();
    for text in &args.add {
        let (site, vector, scale) = scaled(text, model, printer)?;
        all.push((site, Arc::new(Add { vectors: Vectors::One(vector), scale })));
    }
    for text in &args.add_at_norm {
        let (site, vector, scale) = scaled(text, model, printer)?;
        all.push((site, Arc::new(AddAtNorm { vectors: Vectors::One(vector), scale })));
    }
    for text in &args.replace {
        let (site, vector, scale) = scaled(text, model, printer)?;
        all.push((site, Arc::new(Replace(Vectors::One(vector.iter().map(|x| x * scale).collect())))));
    }
    for text in &args.project_out {
        let (site, name) = site_and_rest(text, model)?;
        all.push((site, Arc::new(ProjectOut::new(&direction(name, model, site, printer)?))));
    }
    for text in &args.set_component {
        let (site, vector, value) = scaled(text, model, printer)?;
        all.push((site, Arc::new(SetComponent::new(&vector, value))));
    }
    for text in &args.scale {
        let (site, factor) = site_and_rest(text, model)?;
        all.push((site, Arc::new(Scale(number(factor, text)?))));
    }
    for text in &args.ablate_heads {
        let (layer, list) = text.split_once(':').with_context(|| format!("{text:?} is not of the form LAYER:HEADS"))?;
        let site = layer_site(model, layer, text, SiteKind::AttnZ)?;
        let heads = heads(list, model)?.unwrap_or_else(|| (0..model.spec.n_heads).collect());
        all.push((site, Arc::new(ScaleHeads { heads, width: model.spec.d_head, factor: 0.0 })));
    }
    for text in &args.cut_edges {
        let [layer, list, keys] = text.split(':').collect::<Vec<_>>()[..] else {
            bail!("{text:?} is not of the form LAYER:HEADS:KEYS");
        };
        let site = layer_site(model, layer, text, SiteKind::AttnScores)?;
        let keys = numbers::parse(keys)?.into_iter().map(|k| k as usize).collect();
        all.push((site, Arc::new(CutEdges { heads: heads(list, model)?, n_heads: model.spec.n_heads, keys })));
    }
    for text in &args.clamp {
        let (site, rest) = site_and_rest(text, model)?;
        let form = || format!("{text:?} is not of the form SITE:SAE@LATENT:VALUE");
        let (name, value) = rest.rsplit_once(':').with_context(form)?;
        let (sae, latent) = name.rsplit_once('@').with_context(form)?;
        let latent: usize = latent.parse().with_context(form)?;
        let dictionary = Arc::new(open_dictionary::load(sae, &Choices::default(), printer)?.dictionary.into_sae()?);
        let width = model.spec.site_width(site, 0);
        all.push((site, Arc::new(Clamp::new(dictionary, vec![(latent, number(value, text)?)], width)?)));
    }
    Ok(all)
}

fn positions(args: &EditArgs, model: &Model) -> Result<Positions> {
    let Some(text) = &args.positions else { return Ok(Positions::All) };
    if let Some(token) = text.strip_prefix("token:") {
        let ids = model.tokenizer()?.ids_spelled(token);
        if ids.is_empty() {
            bail!("--positions {text:?}: no token of this model is spelled {token:?} (a leading space counts)");
        }
        return Ok(Positions::Tokens(ids));
    }
    if text.trim_start().starts_with('-') {
        let from_end = |word: &str| {
            let n = word.trim().strip_prefix('-').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0);
            n.with_context(|| {
                format!("--positions {text:?}: {word:?} does not count from the prompt's end, as -1 does")
            })
        };
        return Ok(Positions::FromEnd(text.split(',').map(from_end).collect::<Result<_>>()?));
    }
    Ok(Positions::At(numbers::parse(text)?.into_iter().map(|p| p as usize).collect()))
}

fn steps(text: &str) -> Result<Steps> {
    Ok(match text {
        "all" => Steps::All,
        "prompt" => Steps::Prompt,
        "new" => Steps::New,
        list => Steps::At(
            numbers::parse(list)
                .context("--steps is all, prompt, new, or a list of numbers")?
                .into_iter()
                .map(|s| s as usize)
                .collect(),
        ),
    })
}

/// A list of heads that exist, or `None` for all of them.
fn heads(text: &str, model: &Model) -> Result<Option<Vec<usize>>> {
    if text == "all" {
        return Ok(None);
    }
    let heads: Vec<usize> = numbers::parse(text)?.into_iter().map(|h| h as usize).collect();
    match heads.iter().find(|h| **h >= model.spec.n_heads) {
        Some(head) => bail!("head {head} does not exist; the model has heads 0..={}", model.spec.n_heads - 1),
        None => Ok(Some(heads)),
    }
}

fn layer_site(model: &Model, layer: &str, text: &str, kind: SiteKind) -> Result<Site> {
    let layer: usize = layer.parse().with_context(|| format!("{layer:?} in {text:?} is no layer"))?;
    Ok(model.spec.site(Site::at(kind, layer))?)
}

/// `SITE:DIRECTION:SCALE`; a direction may hold colons of its own.
fn scaled(text: &str, model: &Model, printer: &Printer) -> Result<(Site, Vec<f32>, f32)> {
    let (site, rest) = site_and_rest(text, model)?;
    let Some((name, scale)) = rest.rsplit_once(':') else {
        bail!("{text:?} has no scale; the form is SITE:DIRECTION:SCALE");
    };
    Ok((site, direction(name, model, site, printer)?, number(scale, text)?))
}

/// A direction. Dictionaries are opened here, where every way to name one is known.
pub(crate) fn direction(name: &str, model: &Model, site: Site, printer: &Printer) -> Result<Vec<f32>> {
    let open = |sae: &str| {
        let saved = open_dictionary::load(sae, &Choices::default(), printer);
        let found = saved.and_then(|saved| Ok(saved.dictionary.into_sae()?));
        found.map_err(|error| MethodError::Request(format!("{error:#}")))
    };
    Ok(direction::resolve(name, model, site, &open)?)
}

fn site_and_rest<'a>(text: &'a str, model: &Model) -> Result<(Site, &'a str)> {
    let (site, rest) = text.split_once(':').with_context(|| format!("{text:?} has no colon behind its site"))?;
    Ok((site_named(&model.spec, site)?, rest))
}

fn number(word: &str, text: &str) -> Result<f32> {
    let value: f32 = word.parse().with_context(|| format!("{word:?} in {text:?} is no number"))?;
    if !value.is_finite() {
        bail!("{word:?} in {text:?} is not finite");
    }
    Ok(value)
}
