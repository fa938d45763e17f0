//! `exegete model self-explain`: the model says what directions mean, wherever they come from.

use anyhow::{Result, bail};
use exegete_base::{Site, SiteKind};
use exegete_methods::adapter::{Adapter, AdapterExplainer};
use exegete_methods::self_explain::SelfExplainer;
use exegete_model::site_named;
use exegete_web::plain;
use serde_json::{Value, json};

use super::edits;
use super::explain::adapter_template;
use crate::args::Common;
use crate::args_explain::SelfExplain;
use crate::open_model;
use crate::printer::Printer;

/// Answers of a direction that are printed.
const SHOWN: usize = 5;

pub(crate) fn run(settings: &SelfExplain, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open(&settings.model, common, printer)?;
    let site = match &settings.site {
        Some(site) => site_named(&model.spec, site)?,
        None => Site::at(SiteKind::ResidPost, model.spec.n_layers / 4),
    };
    if model.spec.site_width(site, 0) != model.spec.d_model {
        bail!("--site {site} is not as wide as the residual stream, into which directions are inserted");
    }
    let named = settings.directions.iter();
    let mut directions: Vec<Vec<f32>> =
        named.map(|name| edits::direction(name, &model, site, printer)).collect::<Result<_>>()?;
    if settings.less_mean {
        if directions.len() < 2 {
            bail!("--less-mean takes the mean over the directions off each; give several");
        }
        let n = directions.len() as f32;
        let mean: Vec<f32> =
            (0..model.spec.d_model).map(|i| directions.iter().map(|d| d[i]).sum::<f32>() / n).collect();
        directions.iter_mut().for_each(|d| d.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
    }
    let mut told = Vec::new();
    if let Some(path) = &settings.adapter {
        let trained = Adapter::open(path)?;
        let template = adapter_template(&settings.self_explain, &trained).to_owned();
        let explainer = AdapterExplainer::new(&model, &template, trained)?;
        for (name, direction) in settings.directions.iter().zip(&directions) {
            let texts = explainer.texts(direction, SHOWN, settings.self_explain.explanation_tokens, common.seed)?;
            printer.line(format!("{name}: {}", plain(&texts.join(" | "))));
            told.push(json!({"direction": name, "texts": texts}));
        }
    } else {
        let explainer = SelfExplainer::new(&model, &settings.self_explain)?;
        for (name, direction) in settings.directions.iter().zip(&directions) {
            let explained = explainer.explain(direction)?;
            let best = explained.best_similarity;
            printer.line(format!(
                "{name}: highest self-similarity {best:.3}{}",
                match explained.abstained {
                    true => "; the rule abstained",
                    false => "",
                }
            ));
            for answer in explained.answers.iter().take(SHOWN) {
                printer.line(format!("  scale {:>6.1}  {}", answer.scale, plain(&answer.text)));
            }
            printer.line(format!("  added at norm {}", plain(&explained.at_norm)));
            told.push(json!({"direction": name, "explanation": explained}));
        }
    }
    printer.json(&Value::Array(told));
    Ok(())
}
