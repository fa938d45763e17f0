//! `exegete show`: a latent in the terminal.

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_base::levels::{lower_edge, upper_edge};
use exegete_harvest::firings::LATENTS;
use exegete_store::{Example, ExampleKind, ExampleReader, Notes, Run, TokenReader, read_latents, read_vocab};
use serde_json::json;

use crate::args::Show;
use crate::printer::Printer;

/// Tokens shown on each side of an example.
const AROUND: usize = 12;
/// Examples shown of each group.
const N_SHOWN: usize = 5;

pub(crate) fn run(settings: &Show, printer: &Printer) -> Result<()> {
    let run = Run::open(&settings.run)?;
    let rows = read_latents(&run.path(LATENTS))?;
    let latent = LatentId(settings.latent);
    // A run that was imported has the latents of its files, which need not begin at 0.
    let Some(row) = rows.iter().find(|row| row.latent == latent) else {
        let ends =
            rows.first().zip(rows.last()).map_or("none".into(), |(a, b)| format!("{}..={}", a.latent.0, b.latent.0));
        bail!("latent {} does not exist; the run has latents {ends}", settings.latent);
    };
    let vocab = read_vocab(&run.path("tokens/vocab.parquet"))?;
    let tokens = TokenReader::open(&run.parts_under("tokens/part-"))?;
    let examples = ExampleReader::open(&run.parts_under("examples/part-"))?.latent(latent)?;
    let notes = run.path("run.sqlite");
    let texts = if notes.exists() { Notes::open_read_only(&notes)?.explanations_of(latent)? } else { Vec::new() };
    let token = |id: u32| vocab.get(id as usize).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default();

    let rate = &row.firing_rate;
    printer.line(format!("latent {}", settings.latent));
    printer.line(format!(
        "fires on {:.4} % of {} tokens (95 %: {:.4} to {:.4}), mean {:.3}, max {:.3}",
        100.0 * rate.value,
        rate.n,
        100.0 * rate.low,
        100.0 * rate.high,
        row.stats.mean(),
        row.stats.max
    ));
    for text in &texts {
        let text = if text.abstained { "(abstained)" } else { &text.text };
        printer.line(format!("  says: {text}"));
    }
    let words =
        |list: &[(u32, f32)]| list.iter().map(|(id, _)| format!("{:?}", token(*id))).collect::<Vec<_>>().join(" ");
    printer.line(format!("promotes   {}", words(&row.top_tokens)));
    printer.line(format!("suppresses {}", words(&row.bottom_tokens)));
    let line = |e: &Example| -> Result<String> {
        let Some(window) = tokens.window_of(e.doc, e.window)? else { return Ok("(window missing)".into()) };
        let at = e.position as usize;
        let part = |from: usize, to: usize| -> String {
            let to = to.min(window.token_ids.len());
            window.token_ids[from.min(to)..to].iter().map(|id| token(*id)).collect::<String>().replace('\n', "⏎")
        };
        let (before, after) = (part(at.saturating_sub(AROUND), at), part(at + 1, at + 1 + AROUND));
        Ok(format!("  {:>8.3}  {before}[{}]{after}", e.value, part(at, at + 1)))
    };
    let top: Vec<&Example> = examples.iter().filter(|e| e.kind == ExampleKind::Top).collect();
    printer.line("top examples");
    for e in top.iter().take(N_SHOWN) {
        printer.line(line(e)?);
    }
    for (level, count) in row.stats.histogram.iter().enumerate().rev().filter(|(_, count)| **count > 0) {
        let share = 100.0 * *count as f64 / row.stats.count as f64;
        printer.line(format!(
            "level {:.3} to {:.3}: {count} firings ({share:.1} %)",
            lower_edge(level),
            upper_edge(level)
        ));
        for e in examples.iter().filter(|e| e.kind == ExampleKind::Sample && e.level as usize == level) {
            printer.line(line(e)?);
        }
    }
    printer.json(&json!({
        "latent": settings.latent, "firing_rate": rate, "mean": row.stats.mean(), "max": row.stats.max,
        "texts": texts.iter().map(|t| &t.text).collect::<Vec<_>>(),
        "top_tokens": row.top_tokens.iter().map(|(id, x)| json!([token(*id), x])).collect::<Vec<_>>(),
        "bottom_tokens": row.bottom_tokens.iter().map(|(id, x)| json!([token(*id), x])).collect::<Vec<_>>(),
    }));
    Ok(())
}
