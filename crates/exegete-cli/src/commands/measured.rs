//! What commands that measure dictionaries share: the model and the sites, and how numbers are told.

use anyhow::{Context, Result, bail};
use exegete_base::stats::Estimate;
use exegete_base::{Site, SiteKind};
use exegete_harvest::measure::{Measured, checked};
use exegete_model::{Model, Processing, site_named};
use exegete_sae::formats::Saved;

use crate::args::Common;
use crate::args_eval::PlaceArgs;
use crate::open_model;
use crate::printer::Printer;

/// Opens the model as the dictionaries were trained on it.
pub(crate) fn open_model(name: &str, saved: &[&Saved], common: &Common, printer: &Printer) -> Result<Model> {
    let wanted = saved.iter().filter(|saved| saved.wants_centred_writing()).count();
    if wanted != 0 && wanted != saved.len() {
        bail!(
            "some of the dictionaries were trained on the model with its writing weights centred, and others were not; \
             measure them apart"
        );
    }
    let processing = Processing { centre_writing: wanted > 0, ..Processing::default() };
    if processing.centre_writing {
        printer.note("proof: with the model's writing weights centred, as the dictionary was trained");
    }
    open_model::open_processed(name, processing, common, printer)
}

/// The site that a dictionary reads, named or as its files say, and the one that it writes.
pub(crate) fn sites(model: &Model, saved: &Saved, place: &PlaceArgs) -> Result<(Site, Site)> {
    let said = place.site.as_deref().or(saved.site());
    let said = said.context("the dictionary's files do not say which site it reads; give --site")?;
    let site = site_named(&model.spec, said).with_context(|| format!("the dictionary's site {said:?}"))?;
    let out = match &place.site_out {
        Some(name) => site_named(&model.spec, name)?,
        None => written(model, saved, site)?,
    };
    Ok((checked(model, site, saved.dictionary.d_in)?, checked(model, out, saved.dictionary.d_out)?))
}

/// The site that a dictionary writes: its own, or for a transcoder the output of the MLP that it stands for.
fn written(model: &Model, saved: &Saved, site: Site) -> Result<Site> {
    if !saved.dictionary.transcodes {
        return Ok(site);
    }
    if let Some(name) = saved.metadata.get("hook_name_out").and_then(|v| v.as_str()) {
        return Ok(site_named(&model.spec, name)?);
    }
    match site.layer {
        Some(layer) => Ok(Site::at(SiteKind::MlpOut, layer)),
        None => bail!("nothing says which site the transcoder writes; give --site-out"),
    }
}

/// A number with its interval, where it has one.
pub(crate) fn span(e: &Estimate) -> String {
    match e.low.is_finite() {
        true => format!("{:.4} [{:.4}, {:.4}]", e.value, e.low, e.high),
        false => format!("{:.4}", e.value),
    }
}

/// Tells what was measured, with what the publisher states beside it.
pub(crate) fn tell(measured: &Measured, saved: &Saved, printer: &Printer) {
    let n = measured.numbers.first().map_or(0, |number| number.estimate.n);
    printer.line(format!("measured  on {} tokens of {n} documents, intervals over documents", measured.tokens));
    for number in &measured.numbers {
        let stated = match number.name {
            "L0" => saved.published_l0.map(|stated| format!(" (stated {stated})")),
            "FVU" => {
                let explained = format!(", variance explained {:.4}", 1.0 - number.estimate.value);
                let stated = saved.published_variance.map(|stated| format!(" (stated {stated})"));
                Some(explained + &stated.unwrap_or_default())
            }
            _ => None,
        };
        printer.line(format!("          {} {}{}", number.name, span(&number.estimate), stated.unwrap_or_default()));
    }
    let [clean, with, zero] = measured.loss;
    printer.line(format!(
        "          loss {clean:.4}, with the reconstruction {with:.4}, with zeros {zero:.4} nats a token"
    ));
    let [with, zero] = measured.kl;
    printer.line(format!("          KL from the model as it is {with:.4}, with zeros {zero:.4} nats a token"));
    let dense = measured
        .dense
        .iter()
        .map(|(above, share)| format!("on more than {above} of them {:.2} %", 100.0 * share.value));
    printer.line(format!(
        "          latents silent on these tokens {:.1} %, active {}",
        100.0 * measured.dead.value,
        dense.collect::<Vec<String>>().join(", ")
    ));
}
