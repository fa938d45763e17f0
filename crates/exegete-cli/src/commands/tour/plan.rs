//! `--dry-run`: what a tour would take.

use anyhow::Result;
use exegete_base::Site;
use exegete_lab::builtin;
use exegete_model::Model;
use exegete_store::Corpus;
use serde_json::json;

use crate::args::Tour;
use crate::commands::estimate;
use crate::printer::Printer;

/// Tells bytes, disk and time expected.
pub(crate) fn tell(settings: &Tour, model: &Model, site: Site, corpus: &Corpus, printer: &Printer) -> Result<()> {
    let (spec, train) = (&model.spec, &settings.train);
    let (bytes, tokens) = (estimate::bytes(corpus), estimate::tokens(model, corpus, &settings.text_settings)?);
    let d = spec.d_model as f64;
    let cache_bytes = tokens * d * 4.0;
    let (tables, per_layer) = (spec.vocab_size as f64 * d, estimate::per_layer(model));
    let layers = site.layer.map_or(spec.n_layers, |l| l + 1) as f64;
    let encode = 2.0 * d * train.latents as f64;
    let cache = 2.0 * per_layer * layers * tokens;
    let training = encode * tokens * train.epochs as f64 * 2.0;
    let mut stages = vec![
        ("cache", cache),
        ("train", training),
        ("harvest", encode * tokens + 2.0 * train.latents as f64 * tables),
        (
            "explain",
            settings.explain as f64 * settings.self_explain.scales as f64 * 60.0 * per_layer * spec.n_layers as f64,
        ),
    ];
    if settings.model == builtin::NAME {
        // A second dictionary, and four sources of features on two halves of text.
        let products = 4.0 * 2.0 * settings.truth.truth_tokens as f64 * (encode + 2.0 * per_layer * layers);
        stages.push(("truth", cache + training + products));
    }
    let cores = estimate::cores();
    let secs: Vec<(&str, f64)> = stages.iter().map(|(name, flops)| (*name, estimate::secs(*flops))).collect();
    let total: f64 = secs.iter().map(|(_, s)| s).sum();
    printer.line(format!(
        "text     {:.1} MB in {} files, about {tokens:.0} tokens",
        bytes as f64 / 1e6,
        corpus.sources.len()
    ));
    printer.line(format!("site     {site}, {layers} of {} layers are run", spec.n_layers));
    printer.line(format!(
        "disk     about {:.0} MB while it runs, of which the cache is {:.0} MB",
        cache_bytes / 1e6 * 1.1 + 60.0,
        cache_bytes / 1e6
    ));
    for (name, secs) in &secs {
        printer.line(format!("{name:<8} at least {secs:.0} s"));
    }
    printer.line(format!("in all   at least {total:.0} s on {cores} cores; twice that is likely"));
    printer.json(&json!({
        "text_bytes": bytes, "tokens": tokens.round(), "cache_bytes": cache_bytes.round(), "floor_secs": total,
        "stages_secs": secs.iter().map(|(n, s)| json!({"stage": n, "secs": s})).collect::<Vec<_>>(),
    }));
    Ok(())
}
