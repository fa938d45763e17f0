//! What was measured of one dictionary, for people.

use exegete_harvest::probing::TaskReport;
use exegete_sae::metrics::ablation::{AtN, UNRELIABLE};

use super::Evaluated;
use crate::args_eval::SaeEval;
use crate::commands::measured::{self, span};
use crate::printer::Printer;

pub(super) fn tell(evaluated: &Evaluated, settings: &SaeEval, printer: &Printer) {
    let sae = &evaluated.saved.dictionary;
    let at = evaluated.sites.reads.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    printer.line(format!("{}: {}, {} latents, at {at}", evaluated.name, sae.kind(), sae.n_latents()));
    measured::tell(&evaluated.measured, &evaluated.saved, printer);
    printer.line("density   latents by the share of tokens on which they are active");
    for bin in evaluated.measured.densities.iter().filter(|bin| bin.latents > 0) {
        printer.line(format!("          {:.1e} to {:.1e}: {}", bin.from, bin.to, bin.latents));
    }
    for (name, estimate) in &evaluated.geometry {
        printer.line(format!("latents   mean {name} {}, interval over latents", span(estimate)));
    }
    for tool in &settings.compat {
        let tool = tool.tool();
        let name = serde_json::to_value(tool).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        printer.line(format!("compat    what {name} prints of these tokens; for comparison with its tables alone"));
        for number in evaluated.measured.batches.numbers(tool) {
            let wrong = number.known_wrong.map(|why| format!("  KNOWN WRONG: {why}")).unwrap_or_default();
            printer.line(format!("          {} {:.6}{wrong}", number.name, number.value));
        }
    }
    evaluated.tasks.iter().for_each(|task| tell_task(task, printer));
    printer.line("");
}

fn tell_task(task: &TaskReport, printer: &Printer) {
    printer.line(format!(
        "probes    {}: {} labels, {} examples to train on, {} to test on",
        task.task,
        task.labels.len(),
        task.examples.0,
        task.examples.1
    ));
    let over = if task.labels.len() == 1 { "documents" } else { "labels" };
    printer.line(format!("          {:<22} {:<26} {:<26} AUC, intervals over {over}", "", "accuracy", "F1"));
    for mean in &task.means {
        let latents =
            mean.k.map_or("the activations".into(), |k| format!("{k} latent{}", if k == 1 { "" } else { "s" }));
        let name = format!("{latents}{}", if mean.is_shuffled { ", shuffled" } else { "" });
        let [accuracy, f1, auc] = [mean.score.accuracy, mean.score.f1, mean.score.auc].map(|e| span(&e));
        printer.line(format!("          {name:<22} {accuracy:<26} {f1:<26} {auc}"));
    }
    for label in &task.labels {
        let first = label.probed.sparse.first();
        let best = first.map(|probe| {
            let latents: Vec<String> = probe.latents.iter().map(ToString::to_string).collect();
            format!("k = {}: F1 {} by {}", probe.k, span(&probe.score.f1), latents.join(", "))
        });
        printer.line(format!("          {:<22} {}", label.label, best.unwrap_or_default()));
    }
    if let Some(found) = &task.absorption {
        if let Some(mean) = &found.mean {
            printer.line(format!(
                "          absorption: fraction {}, full {}, further main latents {}; {} letters, lower is better",
                span(&mean.fraction),
                span(&mean.full),
                span(&mean.split),
                found.classes.len()
            ));
        }
        if !found.is_enough {
            printer.line(format!(
                "          absorption: too few letters for a mean that counts: a probe on the activations finds {} letters with an F1 above {}, \
                 of {} that it takes",
                found.classes.len(),
                found.thresholds.least_f1,
                found.thresholds.least_classes
            ));
        }
    }
    if let Some(tpp) = &task.tpp {
        printer.line(format!("          TPP at n latents: {}", at(tpp)));
    }
    if let Some(scr) = &task.scr {
        let between =
            format!("{} or {}, when it goes with {} or {}", scr.labels[0], scr.labels[1], scr.groups[0], scr.groups[1]);
        printer.line(format!("          SCR of {between}, at n latents: {}", at(&scr.at)));
    }
    if task.tpp.is_some() || task.scr.is_some() {
        printer.line(format!("          {UNRELIABLE}"));
    }
    task.left_out.iter().for_each(|why| printer.line(format!("          left out: {why}")));
}

fn at(scores: &[AtN]) -> String {
    scores.iter().map(|at| format!("{} {:.3}", at.n, at.score.value)).collect::<Vec<String>>().join(", ")
}
