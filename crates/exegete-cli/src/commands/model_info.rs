//! `exegete model info`: what a model is.

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{Common, ModelInfo};
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &ModelInfo, common: &Common, printer: &Printer) -> Result<()> {
    // Nothing is computed, so weights are left where they are.
    let model = open_model::open_to_look(&settings.model, common, printer)?;
    // It is built here, so that a damaged one is told of as damaged weights are.
    let tokenizer = if model.has_tokenizer() { model.tokenizer().map(|_| "yes")? } else { "none" };
    let s = &model.spec;
    printer.line(format!("{} ({}, {:.1} M parameters)", model.path.display(), s.family, s.n_parameters() as f64 / 1e6));
    printer.line(format!("layers     {}", s.n_layers));
    printer.line(format!("d_model    {}", s.d_model));
    printer.line(format!("heads      {} of width {}, {} for keys and values", s.n_heads, s.d_head, s.n_kv_heads));
    printer.line(format!("d_mlp      {} ({:?})", s.d_mlp, s.mlp));
    printer.line(format!("norm       {:?}", s.norm));
    printer.line(format!("vocabulary {}, unembedding {}", s.vocab_size, if s.tied { "tied" } else { "its own" }));
    printer.line(format!("context    {}", s.max_positions));
    printer.line(format!("tokenizer  {tokenizer}"));
    printer.line(format!("chat       {}", if model.chat.is_some() { "yes" } else { "none" }));
    printer.line(format!("weights    {:.1} MiB as stored", model.weights.matrix_bytes() as f64 / (1 << 20) as f64));
    let sites: Vec<Value> = s
        .sites()
        .iter()
        .map(|site| {
            let row = site.kind.row();
            let axes: Vec<&str> = row.axes.iter().map(|a| a.letter_and_word().1).collect();
            json!({"site": site.to_string(), "axes": axes, "formula": row.formula})
        })
        .collect();
    if settings.sites {
        for site in &sites {
            let axes: Vec<&str> = site["axes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let (name, formula) =
                (site["site"].as_str().unwrap_or_default(), site["formula"].as_str().unwrap_or_default());
            printer.line(format!("{name:<36} [{}]  {formula}", axes.join(", ")));
        }
    }
    let weights: Vec<Value> =
        s.weights().iter().map(|w| json!({"weight": w.to_string(), "shape": s.weight_shape(*w)})).collect();
    if settings.weights {
        for w in &weights {
            printer.line(format!("{:<28} {}", w["weight"].as_str().unwrap_or_default(), w["shape"]));
        }
    }
    let mut spec = serde_json::to_value(&**s)?;
    spec["n_parameters"] = json!(s.n_parameters());
    if settings.sites {
        spec["sites"] = json!(sites);
    }
    if settings.weights {
        spec["weights"] = json!(weights);
    }
    printer.json(&spec);
    Ok(())
}
