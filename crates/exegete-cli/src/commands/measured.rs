//! What commands that measure dictionaries share: the model and the sites, and how numbers are told.

use anyhow::{Context, Result, anyhow, bail};
use exegete_base::stats::Estimate;
use exegete_base::{Site, SiteKind};
use exegete_harvest::measure::{Measured, checked};
use exegete_harvest::training::Sites;
use exegete_model::{Model, Processing};
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

/// The sites that a dictionary reads and writes: those that are named, or as its files say; a transcoder whose files do not
/// say stands for the MLP whose input it reads.
pub(crate) fn sites(model: &Model, saved: &Saved, place: &PlaceArgs) -> Result<Sites> {
    let said = place.site.as_deref().or(saved.site());
    let said = said.context("the dictionary's files do not say which site it reads; give --site")?;
    let recorded = saved.metadata.get("hook_name_out").and_then(|v| v.as_str());
    let out = place.site_out.as_deref().or(recorded).filter(|_| saved.dictionary.transcodes());
    let fault = |e: String| anyhow!("the dictionary's site {said:?}: {e}");
    let mut sites = Sites::named(Some(said), out, &model.spec).map_err(fault)?;
    if saved.dictionary.transcodes() && out.is_none() {
        sites.writes = vec![mlp_of(&sites)?];
    }
    checked(model, &sites.reads, saved.dictionary.d_in())?;
    checked(model, sites.written(), saved.dictionary.d_out())?;
    Ok(sites)
}

/// The output of the MLP of the layer that is read.
fn mlp_of(sites: &Sites) -> Result<Site> {
    match sites.reads[..] {
        [Site { layer: Some(layer), .. }] => Ok(Site::at(SiteKind::MlpOut, layer)),
        _ => bail!("nothing says which site the transcoder writes; give --site-out"),
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
