//! `exegete model lens`: what every layer would say at every position.

use anyhow::{Context, Result};
use exegete_methods::lens::{self, Attribution, Lens as Found};
use exegete_model::Model;
use exegete_web::wire::{LensCell, LensRow, LensView};
use serde_json::json;

use super::{edits, prompt};
use crate::args::{Common, Lens};
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &Lens, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open(&settings.model, common, printer)?;
    let ids = prompt::ids(&model, &settings.prompt)?;
    let found = lens::lens(&model, &ids, settings.top, edits::hooks(&settings.edits, &model, printer)?)?;
    let attribution = match &settings.attribute {
        None => None,
        Some(text) => {
            let token = one_token(&model, text)?;
            Some(lens::attribute(&model, &ids, token, edits::hooks(&settings.edits, &model, printer)?)?)
        }
    };
    let view = view(settings, &model, &found, attribution.as_ref())?;
    if let Some(path) = &settings.html {
        std::fs::write(path, exegete_web::lens_page(&view))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    tell(&view, &found, printer);
    if let Some(path) = &settings.html {
        printer.line(format!("page: {}", path.display()));
    }
    printer.json(&json!({"tokens": view.tokens, "lens": found, "attribution": attribution}));
    Ok(())
}

/// The token that is spelled like this, to the byte.
fn one_token(model: &Model, text: &str) -> Result<u32> {
    let found = model.tokenizer()?.ids_spelled(text).first().copied();
    found.with_context(|| format!("--attribute: no token of this model is spelled {text:?} (a leading space counts)"))
}

fn view(settings: &Lens, model: &Model, found: &Found, attribution: Option<&Attribution>) -> Result<LensView> {
    let tokenizer = model.tokenizer()?;
    // Blank tokens would be blank cells.
    let spelled = |id: u32| match tokenizer.token_text(id) {
        blank if blank.trim().is_empty() => format!("{blank:?}"),
        text => text,
    };
    let rows = found.sites.iter().zip(&found.cells).map(|(site, cells)| LensRow {
        site: site.clone(),
        cells: cells
            .iter()
            .enumerate()
            .map(|(position, cell)| LensCell {
                token: spelled(cell.top[0].0),
                probability: cell.top[0].1,
                others: cell
                    .top
                    .iter()
                    .map(|(id, p)| format!("{:?} {p:.3}", spelled(*id)))
                    .collect::<Vec<_>>()
                    .join("  "),
                kl_to_final: cell.kl_to_final,
                kl_to_other: cell.kl_to_other,
                is_next: found.ids.get(position + 1) == Some(&cell.top[0].0),
            })
            .collect(),
    });
    let mut shares: Vec<(String, f64)> = Vec::new();
    if let Some(a) = attribution {
        shares.extend(a.shares.iter().map(|s| (s.site.clone(), s.logit)));
        shares.push(("constant".into(), a.constant));
        shares.push(("logit".into(), a.logit));
    }
    Ok(LensView {
        model: model
            .path
            .file_name()
            .map_or_else(|| settings.model.model.clone(), |n| n.to_string_lossy().into_owned()),
        tokens: found.ids.iter().map(|id| spelled(*id)).collect(),
        rows: rows.collect(),
        attributed: settings.attribute.clone().unwrap_or_default(),
        shares,
    })
}

/// Columns of a token in the table.
const WIDTH: usize = 12;

fn tell(view: &LensView, found: &Found, printer: &Printer) {
    let cut = |text: &str| {
        let short: String = text.chars().take(WIDTH - 1).collect();
        format!("{short:<WIDTH$}")
    };
    let label =
        |site: &str| site.replace("blocks.", "").replace(".hook_resid_post", "").replace("0.hook_resid_pre", "embed");
    printer.line(format!("{:>6}  {}", "after", view.tokens.iter().map(|t| cut(t)).collect::<String>()));
    for row in &view.rows {
        printer.line(format!(
            "{:>6}  {}",
            label(&row.site),
            row.cells.iter().map(|c| cut(&c.token)).collect::<String>()
        ));
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    printer.line("");
    printer.line(" after  KL to the final distribution, nats, mean over positions [control: to another position's]");
    for (row, cells) in view.rows.iter().zip(&found.cells) {
        let own = mean(cells.iter().map(|c| c.kl_to_final).collect());
        let other = mean(cells.iter().filter_map(|c| c.kl_to_other).collect());
        printer.line(format!("{:>6}  {own:.3} [{other:.3}]  n = {}", label(&row.site), cells.len()));
    }
    if !view.shares.is_empty() {
        printer.line("");
        printer.line(format!("logit of {:?} at the last position:", view.attributed));
        view.shares.iter().for_each(|(site, logit)| printer.line(format!("{logit:>+9.3}  {site}")));
    }
}
