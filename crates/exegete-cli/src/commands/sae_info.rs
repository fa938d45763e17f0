//! `exegete sae info`: what a dictionary is, and what it does on a text.

use anyhow::{Context, Result, bail};
use exegete_base::settings::TextSettings;
use exegete_base::{Site, SiteKind};
use exegete_harvest::proof::{self, Proof, Verdict};
use exegete_harvest::windows::text_options;
use exegete_model::{Model, Processing, site_named};
use exegete_sae::formats::{Choices, Saved};
use exegete_sae::{AnyDictionary, Dictionary, InputNorm, Sae};
use exegete_store::open_corpus;
use serde_json::json;

use crate::args::{Common, SaeArgs, SaeInfo};
use crate::printer::Printer;
use crate::{builtin, open_dictionary, open_model};

pub(crate) fn run(settings: &SaeInfo, common: &Common, printer: &Printer) -> Result<()> {
    let saved = load(&settings.sae, printer)?;
    tell(&saved, printer);
    let proof = match &settings.model {
        None => None,
        Some(name) => Some(measure(settings, name, &saved, common, printer)?),
    };
    let verdict = proof.as_ref().map(|proof| proof::verdict(proof, saved.published_l0));
    if let (Some(proof), Some(verdict)) = (&proof, &verdict) {
        tell_proof(proof, &saved, verdict, printer);
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
fn measure(settings: &SaeInfo, name: &str, saved: &Saved, common: &Common, printer: &Printer) -> Result<Proof> {
    let processing = Processing { centre_writing: saved.wants_centred_writing(), ..Processing::default() };
    if processing.centre_writing {
        printer.note("proof: with the model's writing weights centred, as the dictionary was trained");
    }
    let model = open_model::open_processed(name, processing, common, printer)?;
    let said = settings.site.as_deref().or(saved.site());
    let said = said.context("the dictionary's files do not say which site it reads; give --site")?;
    let site = site_named(&model.spec, said).with_context(|| format!("the dictionary's site {said:?}"))?;
    let out = match &settings.site_out {
        Some(name) => site_named(&model.spec, name)?,
        None => written(&model, saved, site)?,
    };
    let text = TextSettings {
        jsonl_field: "text".into(),
        parquet_column: "text".into(),
        record_bytes: 4096,
        window: settings.window,
        bos: settings.bos,
        special_tokens: settings.special_tokens || builtin::is_builtin(name),
        max_tokens: settings.tokens,
    };
    let corpus = open_corpus(&builtin::texts(&settings.text)?, &text_options(&text))?;
    Ok(proof::measure(&model, &*saved.dictionary, (site, out), &corpus, &text, printer)?)
}

/// The site that a dictionary writes: its own, or for a transcoder the output of the MLP that it stands for.
fn written(model: &Model, saved: &Saved, site: Site) -> Result<Site> {
    if !saved.dictionary.transcodes() {
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

fn tell_proof(proof: &Proof, saved: &Saved, verdict: &Verdict, printer: &Printer) {
    let span = |e: &exegete_base::stats::Estimate| match e.low.is_finite() {
        true => format!("{:.4} [{:.4}, {:.4}]", e.value, e.low, e.high),
        false => format!("{:.4}", e.value),
    };
    printer.line(format!("measured  on {} tokens of {} documents", proof.tokens, proof.fvu.n));
    let stated = |value: Option<f64>| value.map(|value| format!(" (stated {value})")).unwrap_or_default();
    printer.line(format!("          L0 {:.2}{}", proof.l0, stated(saved.published_l0)));
    let (explained, beside) = (1.0 - proof.fvu.value, stated(saved.published_variance));
    printer.line(format!("          variance explained {explained:.4}{beside}, FVU {}", span(&proof.fvu)));
    let [clean, with, zero] = proof.loss;
    printer.line(format!(
        "          loss {clean:.4}, with the reconstruction {with:.4}, with zeros {zero:.4} nats a token"
    ));
    printer.line(format!("          CE recovered {}", span(&proof.ce_recovered)));
    printer.line(format!(
        "          latents silent on these tokens {:.1} %, active on more than a tenth of them {:.2} %",
        100.0 * proof.silent,
        100.0 * proof.dense
    ));
    match verdict {
        Verdict::Consistent(why) => printer.line(format!("verdict   consistent: {why}")),
        Verdict::NotConsistent(why) => printer.line(format!("verdict   not consistent: {why}")),
        Verdict::NoFigure => printer.line("verdict   no published figure, and nothing that speaks against it"),
    }
}
