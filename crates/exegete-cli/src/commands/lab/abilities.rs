//! `exegete lab abilities`: how well a model can do what the language teaches.

use anyhow::Result;
use exegete_base::stats::Estimate;
use exegete_lab::language::Language;
use exegete_lab::organism::abilities::{abilities, losses};
use exegete_lab::organism::items::Bar;
use serde_json::json;

use crate::args::{Common, LabAbilities};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabAbilities, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open_plain(&settings.model, common, printer)?;
    let language = Language::new();
    interrupt::listen();
    let losses = losses(&model, &language, settings.documents, common.seed, printer)?;
    let abilities = abilities(&model, &language, settings.items, common.seed, printer)?;
    printer.line("loss, nats a token        model [95 %]               generator  above it [95 %]            tokens");
    for loss in &losses {
        let (model, gap) = (interval(&loss.model, 3), interval(&loss.gap, 3));
        printer.line(format!("{:<24}  {model:<25}  {:<9.3}  {gap:<25}  {}", loss.kind, loss.generator, loss.tokens));
    }
    printer.line("");
    printer.line("ability                             right [95 %]             n     asked for");
    for ability in &abilities {
        let asked = match ability.bar {
            Bar::AtLeast(bar) => format!("at least {bar}"),
            Bar::AtMost(bar) => format!("at most {bar}"),
            Bar::Chance(bar) => format!("chance, {bar}"),
            Bar::None => String::new(),
        };
        let missed = if ability.holds == Some(false) { "  missed" } else { "" };
        let right = interval(&ability.right, 3);
        printer.line(format!("{:<34}  {right:<23}  {:<5} {asked}{missed}", ability.name, ability.right.n));
    }
    if settings.wrong {
        printer.line("");
        for (name, wrong) in abilities.iter().filter_map(|a| Some((&a.name, a.wrong.as_ref()?))) {
            printer.line(format!("{name}: {:?} wants {:?}, said {:?}", wrong.0, wrong.1, wrong.2));
        }
    }
    printer.json(&json!({"losses": losses, "abilities": abilities, "seed": common.seed}));
    Ok(())
}

/// `0.123 [0.100, 0.150]`
pub(crate) fn interval(e: &Estimate, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high)
}
