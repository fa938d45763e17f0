//! `exegete lab abilities`: how well a model can do what the language teaches.

use anyhow::{Result, bail};
use exegete_base::stats::Estimate;
use exegete_lab::language::Language;
use exegete_lab::organism::abilities::{abilities, losses};
use exegete_lab::organism::items::{Bar, tests};
use exegete_lab::organism::search::{Found, search};
use exegete_lab::organism::{Training, check_speaks};
use exegete_model::Model;
use serde_json::json;

use crate::args::{Common, LabAbilities};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabAbilities, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open_plain(&settings.model, common, printer)?;
    check_speaks(&model)?;
    let language = Language::new();
    interrupt::listen();
    let losses = losses(&model, &language, settings.documents, common.seed, printer)?;
    let abilities = abilities(&model, &language, settings.items as usize, common.seed, printer)?;
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
    let found = match settings.search {
        true => Some(search_training(&model, &language, settings.items as usize, common.seed, printer)?),
        false => None,
    };
    printer.json(&json!({"losses": losses, "abilities": abilities, "search": found, "seed": common.seed}));
    match found {
        Some(found) if !found.is_clean() => bail!("the training documents are not what the tests take them for"),
        _ => Ok(()),
    }
}

/// Looks for the tests in the documents that the model was trained on.
fn search_training(model: &Model, language: &Language, items: usize, seed: u64, printer: &Printer) -> Result<Found> {
    let training = Training::read(&model.path)?;
    let tests = tests(language, items, seed);
    let found = search(language, &training, &tests, printer)?;
    printer.line("");
    printer.line(format!("{} training documents were looked through:", found.documents));
    for (what, bad, n) in [
        ("prompts of tests are in one", &found.seen_prompts, found.prompts),
        ("sentences with untold facts are in one", &found.said_untold, found.untold),
        ("told facts are in none", &found.never_told, found.told),
        ("words are defined in none", &found.never_defined, found.words),
    ] {
        printer.line(format!("{:>6} of {n} {what}", bad.len()));
        bad.iter().take(3).for_each(|text| printer.line(format!("       {text:?}")));
    }
    Ok(found)
}

/// `0.123 [0.100, 0.150]`
pub(crate) fn interval(e: &Estimate, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high)
}
