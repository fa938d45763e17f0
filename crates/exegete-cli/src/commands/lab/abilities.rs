//! `exegete lab abilities`: how well a model can do what the language teaches.

use anyhow::{Result, bail};
use exegete_base::stats::Estimate;
use exegete_lab::language::Language;
use exegete_lab::organism::abilities::{Ability, abilities, losses};
use exegete_lab::organism::items::tests;
use exegete_lab::organism::search::{Found, search};
use exegete_lab::organism::{Training, check_speaks};
use exegete_model::Model;
use serde_json::json;

use crate::args::{Common, LabAbilities};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &LabAbilities, common: &Common, printer: &Printer) -> Result<()> {
    let language = Language::new();
    let names: Vec<String> = tests(&language, 0, 0).into_iter().map(|test| test.name).collect();
    if let Some(other) = settings.but.iter().find(|name| !names.contains(name)) {
        bail!("--but {other:?} is no test; they are: {}", names.join("; "));
    }
    let model = open_model::open_plain(&settings.model, common, printer)?;
    check_speaks(&model)?;
    interrupt::listen();
    let losses = losses(&model, &language, settings.documents, common.seed, printer)?;
    let abilities = abilities(&model, &language, settings.items as usize, common.seed, printer)?;
    printer.line("loss, nats a token        model [95 %]               generator  above it [95 %]            tokens");
    for loss in &losses {
        let (model, gap) = (interval(&loss.model, 3), interval(&loss.gap, 3));
        printer.line(format!("{:<24}  {model:<25}  {:<9.3}  {gap:<25}  {}", loss.kind, loss.generator, loss.tokens));
    }
    match losses[0].left_out {
        0 => {}
        1 => printer.line("1 document longer than the context was left out"),
        n => printer.line(format!("{n} documents longer than the context were left out")),
    }
    printer.line("");
    printer.line("ability                             right [95 %]             n     asked for");
    for Ability { name, right, bar, missed, .. } in &abilities {
        let missed = missed.map(|why| format!("  {why}")).unwrap_or_default();
        printer.line(format!("{name:<34}  {:<23}  {:<5} {bar}{missed}", interval(right, 3), right.n));
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
    let mut faults = Vec::new();
    if found.is_some_and(|found| !found.is_clean()) {
        faults.push("the training documents are not what the tests take them for".to_owned());
    }
    if settings.strict {
        faults.extend(not_as_asked(&abilities, &settings.but));
    }
    match faults.is_empty() {
        true => Ok(()),
        false => bail!(faults.join("; ")),
    }
}

/// The bars that are missed but for those that may be, and the latter that are not missed: a list of exceptions is to stay
/// true.
fn not_as_asked(abilities: &[Ability], but: &[String]) -> Option<String> {
    let is_excepted = |a: &Ability| but.contains(&a.name);
    let fault = |a: &Ability| match a.missed {
        Some(why) if !is_excepted(a) => Some(format!("{} ({why}: {}, {})", a.name, interval(&a.right, 3), a.bar)),
        None if is_excepted(a) => Some(format!("{} (not missed any more; leave out its --but)", a.name)),
        _ => None,
    };
    let faults: Vec<String> = abilities.iter().filter_map(fault).collect();
    let told = || format!("not as asked for: {}", faults.join("; "));
    (!faults.is_empty()).then(told)
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

/// `0.123 [0.100, 0.150]`, or `0.123 [not known]` of so few units that there is no interval.
pub(crate) fn interval(e: &Estimate, digits: usize) -> String {
    match e.low.is_finite() && e.high.is_finite() {
        true => format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high),
        false => format!("{:.digits$} [not known]", e.value),
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::stats::ratio_of_sums;

    use super::interval;

    #[test]
    fn an_interval_of_one_unit_is_not_known() {
        assert_eq!(interval(&ratio_of_sums(&[(1.0, 2.0)]), 3), "0.500 [not known]");
        assert_eq!(interval(&ratio_of_sums(&[(1.0, 2.0), (2.0, 4.0)]), 1), "0.5 [0.5, 0.5]");
    }
}
