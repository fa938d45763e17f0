//! `exegete sae info`: what a dictionary is, and what it does on a text.

use anyhow::{Context, Result};
use exegete_harvest::measure::{self, Measured};
use exegete_harvest::proof::{self, Verdict};
use exegete_harvest::windows::text_options;
use exegete_sae::formats::{Choices, Saved};
use exegete_sae::{AnyDictionary, Dictionary, InputNorm, Sae};
use exegete_store::open_corpus;
use serde_json::json;

use super::{measured, training_run};
use crate::args::{Common, SaeArgs, SaeInfo};
use crate::printer::Printer;
use crate::{builtin, open_dictionary};

pub(crate) fn run(settings: &SaeInfo, common: &Common, printer: &Printer) -> Result<()> {
    let saved = load(&settings.sae, printer)?;
    tell(&saved, printer);
    let proof = match &settings.model {
        None => None,
        Some(name) => Some(measure(settings, name, &saved, common, printer)?),
    };
    let verdict = proof.as_ref().map(|proof| proof::verdict(proof, proof::Stated::of(&saved)));
    if let (Some(proof), Some(verdict)) = (&proof, &verdict) {
        measured::tell(proof, &saved, printer);
        tell_verdict(verdict, printer);
    }
    let (all, sae) = (&saved.dictionary, &saved.dictionary.encoders()[0]);
    let (encoder, decoder) = norms(all);
    printer.json(&json!({
        "format": saved.format, "kind": all.kind(), "rule": sae.rule.describe(), "d_in": all.d_in(), "d_out": all.d_out(),
        "n_latents": all.n_latents(), "layers": all.encoders().len(), "transcoder": all.transcodes(), "centres_input": sae.centres_input,
        "input_norm": sae.norm.name(), "metadata": saved.metadata, "notes": saved.notes,
        "encoder_norms": encoder, "decoder_norms": decoder, "published_l0": saved.published_l0,
        "published_variance_explained": saved.published_variance,
        "proof": proof, "verdict": verdict,
    }));
    Ok(())
}

/// Reads the dictionary that was named.
pub(crate) fn load(args: &SaeArgs, printer: &Printer) -> Result<Saved> {
    let choices = Choices { format: args.format.clone(), k: args.k, ..Choices::default() };
    open_dictionary::load(&args.sae, &choices, printer)
}

/// The shortest and the longest row of the encoder, and of the decoder.
fn norms(all: &AnyDictionary) -> ([f32; 2], [f32; 2]) {
    let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let span = |[low, high]: [f32; 2], n: f32| [low.min(n), high.max(n)];
    let none = [f32::MAX, 0.0];
    let of = |found: ([f32; 2], [f32; 2]), sae: &Sae| {
        let encoder = sae.w_enc_FD.chunks(sae.d_in).map(norm).fold(found.0, span);
        (encoder, sae.w_dec_FD.chunks(sae.d_out).map(norm).fold(found.1, span))
    };
    all.encoders().iter().fold((none, none), of)
}

fn tell(saved: &Saved, printer: &Printer) {
    let all = &saved.dictionary;
    let sae = &all.encoders()[0];
    let rule = match sae.rule.describe() {
        text if text.is_empty() => text,
        text => format!(" ({text})"),
    };
    let layers = all.encoders().len();
    let what = match (layers, all.transcodes()) {
        (1, true) => "transcoder, ",
        (1, false) if saved.is_crosscoder() => "crosscoder, ",
        (1, false) => "",
        _ => "cross-layer transcoder, ",
    };
    printer.line(format!("layout    {}", saved.format));
    printer.line(format!("kind      {what}{}{rule}", all.kind()));
    let width = match all.d_in() == all.d_out() {
        true => format!("{} wide", all.d_in()),
        false => format!("{} wide, output {} wide", all.d_in(), all.d_out()),
    };
    let norm = match sae.norm {
        InputNorm::None => String::new(),
        norm => format!(", normalised ({})", norm.name()),
    };
    printer.line(format!("input     {width}, decoder bias taken off: {}{norm}", sae.centres_input));
    let skip = if sae.w_skip_DD.is_some() { ", and a linear path beside them" } else { "" };
    let each = if layers > 1 { format!(", {} in each of {layers} layers", sae.n_latents()) } else { String::new() };
    printer.line(format!("latents   {}{each}{skip}", all.n_latents()));
    let (encoder, decoder) = norms(all);
    printer.line(format!(
        "norms     encoder rows {:.3} to {:.3}, decoder rows {:.3} to {:.3}",
        encoder[0], encoder[1], decoder[0], decoder[1]
    ));
    let stated = [("L0", saved.published_l0), ("variance explained", saved.published_variance)];
    let stated: Vec<String> =
        stated.iter().filter_map(|(what, value)| value.map(|value| format!("{what} {value}"))).collect();
    if !stated.is_empty() {
        printer.line(format!("stated    {}", stated.join(", ")));
    }
    for note in &saved.notes {
        printer.line(format!("note      {note}"));
    }
    for (key, value) in &saved.metadata {
        printer.line(format!("          {key}: {value}"));
    }
}

/// Measures the dictionary at the site that is named, or that its files name.
fn measure(settings: &SaeInfo, name: &str, saved: &Saved, common: &Common, printer: &Printer) -> Result<Measured> {
    let model = measured::open_model(name, &[saved], common, printer)?;
    let sites = measured::sites(&model, saved, &settings.place)?;
    let mut text_settings = settings.place.text_settings(settings.tokens);
    let text = training_run::text_of(name, &settings.text, &mut text_settings)?;
    let corpus = open_corpus(&builtin::texts(&text)?, &text_options(&text_settings))?;
    let mut all = measure::measure(&model, &[(&*saved.dictionary, &sites)], &corpus, &text_settings, printer)?;
    all.pop().context("nothing was measured")
}

fn tell_verdict(verdict: &Verdict, printer: &Printer) {
    match verdict {
        Verdict::Consistent(why) => printer.line(format!("verdict   consistent: {why}")),
        Verdict::NotConsistent(why) => printer.line(format!("verdict   not consistent: {why}")),
        Verdict::NoFigure => printer.line("verdict   no published figure, and nothing that speaks against it"),
    }
}
