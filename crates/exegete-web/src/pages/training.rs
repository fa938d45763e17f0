//! The page of a training: how its dictionaries stand, and their curves.

use exegete_figure::swatch;
use maud::{Markup, PreEscaped, html};

use super::{Frame, figure, percent_encoded, shell};
use crate::training::DRAWN;
use crate::wire::{Progress, TrainedDictionary, TrainingCurves, TrainingResult, TrainingView};
use crate::{charts, format};

/// Seconds between two looks of a page that is left open.
const REFRESH_SECS: u64 = 10;

/// The page of a training.
pub(crate) fn training(frame: &Frame, view: &TrainingView) -> Markup {
    let is_open = view.progress != Progress::Finished;
    let content = html! {
        @if frame.has_latents { nav.steps { a href="/" { "All latents" } } }
        // The script replaces this part, and looks for no newer one once the attribute is gone.
        div #training data-refresh=[is_open.then_some(REFRESH_SECS)] {
            h1 { (heading(view)) }
            (status(view))
            @if is_open { noscript { p.note { "Reload this page to see newer figures." } } }
            (table(view))
            (links(view))
            (curves(view))
            (densities(view))
        }
    };
    shell(&format!("Training · {}", heading(view)), frame, &content)
}

fn is_only(view: &TrainingView) -> bool {
    view.dictionaries.len() == 1
}

fn heading(view: &TrainingView) -> String {
    let of = view.model.as_ref().map_or(String::new(), |model| format!(" of {model}"));
    match &view.dictionaries[..] {
        [one] if view.total > 1 => one.name.clone(),
        [_] => format!("A dictionary{of}"),
        _ => format!("{} dictionaries{of}", format::count(view.total as u64)),
    }
}

fn status(view: &TrainingView) -> Markup {
    let ago = view.written_secs_ago.map_or(String::new(), |secs| format!("last written {} ago", since(secs)));
    let finished = match view.finished {
        0 => String::new(),
        n => format!("{} of {} finished; ", format::count(n as u64), format::count(view.total as u64)),
    };
    let (class, name, more) = match view.progress {
        Progress::Waiting => {
            let parts = match view.activation_parts {
                0 => "the text is read first, and the model run over it".into(),
                1 => "activations come first, of which one file is there".into(),
                n => format!("activations come first, of which {} files are there", format::count(n as u64)),
            };
            ("waiting", "No step was saved yet", format!("{parts}; {ago}"))
        }
        Progress::Running => {
            ("running", "Training", format!("{finished}{ago}; figures are saved every 20 to 60 seconds"))
        }
        Progress::Quiet => (
            "quiet",
            "Not finished, and quiet",
            format!("{finished}{ago}. The command that began the training goes on with it, if it was stopped."),
        ),
        Progress::Finished => ("finished", "Finished", String::new()),
    };
    html! {
        p.status.(class) role="status" {
            strong { (name) }
            @if !more.is_empty() { " " span.note { (more) } }
        }
        // What the script says of its own: that nobody answers.
        p.status.quiet #unanswered hidden {}
    }
}

/// A time in its largest unit.
fn since(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

fn table(view: &TrainingView) -> Markup {
    html! {
        table.latents.trained {
            thead { tr {
                th.name scope="col" { "Dictionary" }
                th.kind scope="col" { "Kind" }
                th.number scope="col" { "Latents" }
                th.number scope="col" { "Steps" }
                th.number scope="col" title="Fraction of variance unexplained, of the last batch that was logged" { "FVU" }
                th.number scope="col" title="Latents active at a token, of the last batch that was logged" { "L0" }
                th.number scope="col" title="Latents that have not fired for long" { "Dead" }
                th.outcome scope="col" { "On held-out text" }
            } }
            tbody {
                @for (i, dictionary) in view.dictionaries.iter().enumerate() {
                    (row(view, dictionary, view.drawn.contains(&i).then(|| i - view.drawn.start)))
                }
            }
        }
    }
}

fn row(view: &TrainingView, dictionary: &TrainedDictionary, drawn: Option<usize>) -> Markup {
    let count = |n: Option<u64>| n.map_or("–".into(), format::count);
    let last = dictionary.last.as_ref();
    let number = |pick: &dyn Fn(&crate::wire::LoggedStep) -> f32| {
        last.map_or("–".into(), |last| format::significant(pick(last).into()))
    };
    let href = format!("/training?only={}", percent_encoded(&dictionary.name));
    let is_link = view.total > 1 && !is_only(view);
    html! {
        tr {
            td.name {
                @if let Some(idx) = drawn { (PreEscaped(swatch(idx))) }
                @if is_link { a href=(href) { (dictionary.name) } } @else { (dictionary.name) }
            }
            td.kind { (dictionary.kind) }
            td.number data-name="latents" { (count(dictionary.latents)) }
            td.number data-name="steps" {
                (count(dictionary.step))
                @if dictionary.result.is_none() { @if let Some(planned) = dictionary.planned {
                    span.muted { " of " (format::count(planned)) }
                } }
            }
            td.number data-name="FVU" { (number(&|last| last.fvu)) }
            td.number data-name="L0" { (number(&|last| last.l0)) }
            td.number data-name="dead" { (count(last.map(|last| last.dead))) }
            td.outcome {
                @match &dictionary.result {
                    Some(result) => (outcome(result)),
                    None => span.muted { (if dictionary.step.is_some() { "not finished" } else { "not begun" }) },
                }
            }
        }
        @if let Some(problem) = &dictionary.problem { tr.problem { td colspan="8" { p.abstained { (problem) } } } }
    }
}

fn outcome(result: &TrainingResult) -> Markup {
    html! {
        @if let Some(fvu) = &result.fvu {
            span title=(format!("{}; on {}", format::interval(fvu, format::significant), result.measured_on)) {
                "FVU " strong { (format::significant(fvu.value)) }
            }
        }
        @if let Some(l0) = result.l0 { ", L0 " (format::significant(l0)) }
        @if let Some(silent) = result.silent { ", " (format::count(silent)) " silent" }
    }
}

/// Links to the dictionaries that are not drawn.
fn links(view: &TrainingView) -> Markup {
    if is_only(view) {
        return html! { @if view.total > 1 { nav.paging { a href="/training" { "All dictionaries" } } } };
    }
    let at = view.first + view.drawn.start;
    html! {
        @if view.total > DRAWN {
            nav.paging aria-label="Dictionaries that are drawn" {
                span { "Curves of" }
                span.pages {
                    @for from in (0..view.total).step_by(DRAWN) {
                        @let name = format!("{} to {}", from + 1, (from + DRAWN).min(view.total));
                        @if from == at {
                            strong aria-current="page" { (name) }
                        } @else {
                            a href=(format!("/training?from={from}")) { (name) }
                        }
                    }
                }
            }
        }
    }
}

type Pick = fn(&TrainingCurves) -> &Vec<f64>;

fn curves(view: &TrainingView) -> Markup {
    if view.steps.is_empty() {
        return html! {};
    }
    let all: [(&str, &str, Pick); 5] = [
        ("Loss", "of the batch, with penalties and AuxK", |c| &c.loss),
        ("FVU", "fraction of the batch's variance unexplained", |c| &c.fvu),
        ("L0", "latents active at a token", |c| &c.l0),
        ("Dead latents", "that have not fired for long", |c| &c.dead),
        ("Penalty weight", "what a penalty is multiplied by", |c| &c.sparsity),
    ];
    let has_values = |pick: Pick| {
        charts::drawn(view)
            .iter()
            .filter_map(|d| d.curves.as_ref())
            .any(|c| pick(c).iter().any(|y| *y != 0.0 && y.is_finite()))
    };
    html! {
        section {
            h2 { "While it trained" }
            @if view.steps_a_point > 1 {
                p.note { "A point is the mean of " (view.steps_a_point) " logged steps; a step in ten is logged." }
            }
            div.charts {
                @for (name, what, pick) in all {
                    // A line at 0 says less than the table does.
                    @if has_values(pick) {
                        figure {
                            figcaption { strong { (name) } ", " (what) }
                            (figure(charts::training(view, "", pick)))
                        }
                    }
                }
            }
        }
    }
}

fn densities(view: &TrainingView) -> Markup {
    let drawn = charts::drawn(view);
    let lowest = charts::lowest_rate(drawn.iter().filter_map(|dictionary| dictionary.density.as_ref()));
    html! {
        @if drawn.iter().any(|dictionary| dictionary.density.is_some()) {
            section {
                h2 { "How often latents fire" }
                p.note { "Latents by the share of tokens on which they fire, over the last hundred steps or fewer." }
                div.charts.many[drawn.len() > 1] {
                    @for (idx, dictionary) in drawn.iter().enumerate() {
                        @if let Some(density) = &dictionary.density {
                            figure {
                                figcaption {
                                    @if drawn.len() > 1 { (PreEscaped(swatch(idx))) strong { (dictionary.name) } ": " }
                                    span title=(format!("Steps to {}", format::count(density.step))) {
                                        (format::count(density.silent)) " silent on " (format::count(density.tokens)) " tokens"
                                    }
                                }
                                (figure(charts::density(density, lowest, drawn.len() == 1)))
                            }
                        }
                    }
                }
            }
        }
    }
}
