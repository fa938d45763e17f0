//! The panels of numbers and lists beside a latent's examples. One that has nothing to show is not there.

use maud::{Markup, html};

use super::figure;
use crate::columns::POSITIONAL;
use crate::harvest::Harvest;
use crate::vocabulary::spaces_shown;
use crate::wire::{LatentDetail, Neuron, Profile, Related, TokenWeight};
use crate::{charts, format};

/// All panels of numbers.
pub(super) fn panels(harvest: &Harvest, detail: &LatentDetail) -> Markup {
    let profile = &detail.profile;
    html! {
        (statistics(detail))
        @if detail.line.count > 0 {
            section { h2 { "Firings by strength" } (figure(charts::levels(&detail.levels))) }
        }
        (fired_tokens(profile))
        (positions(profile))
        (vocabulary(detail))
        @if let Some(logits) = &profile.logits {
            section { h2 { "Logits of the whole vocabulary" } (figure(charts::logits(logits))) }
        }
        (related(harvest, "Nearest decoder rows", "cosine", &detail.neighbours))
        (related(harvest, "Firing on the same tokens", "Jaccard index, an estimate", &profile.cofiring))
        (related(harvest, "Correlated latents", "Pearson's coefficient", &profile.correlated_latents))
        (neurons("Correlated neurons", "Pearson's coefficient", &profile.correlated_neurons, 0.0))
        (neurons("Neurons of the decoder row", "value, and share of the row's L1 norm", &profile.aligned_neurons, profile.decoder_l1))
    }
}

fn statistics(detail: &LatentDetail) -> Markup {
    let (rate, profile) = (&detail.line.firing_rate, &detail.profile);
    html! {
        section {
            h2 { "Activity" }
            table.plain.activity {
                tr { th scope="row" { "Firing rate" } td { (format::percent(rate.value)) } }
                tr.note { td colspan="2" { (format::interval(rate, format::percent)) } }
                tr { th scope="row" { "Firings" } td { (format::count(detail.line.count)) } }
                tr.note { td colspan="2" { "of " (format::count(rate.n)) " tokens" } }
                tr { th scope="row" { "Largest" } td { (format::significant(detail.line.max.into())) } }
                tr { th scope="row" { "Mean when firing" } td { (format::significant(detail.mean)) } }
                tr { th scope="row" { "Spread when firing" } td { (format::significant(detail.std)) } }
                @if profile.decoder_norm > 0.0 {
                    tr { th scope="row" { "Norm of the decoder row" } td { (format::significant(profile.decoder_norm.into())) } }
                }
            }
        }
    }
}

fn fired_tokens(profile: &Profile) -> Markup {
    html! {
        @if !profile.fired_tokens.is_empty() {
            section {
                h2 { "Tokens on which it fires" }
                table.plain.weights {
                    @for token in &profile.fired_tokens {
                        tr {
                            th scope="row" { code.chip dir="auto" title=(format!("token {}", token.id)) { (spaces_shown(&token.text)) } }
                            td { (format::percent(token.share.into())) }
                        }
                    }
                }
                p.note {
                    "Shares of " (format::count(profile.n_sampled.into())) " sampled firings; the strongest four fifths of these lie on "
                    (format::count(profile.distinct_tokens.into())) " different tokens."
                }
            }
        }
    }
}

fn positions(profile: &Profile) -> Markup {
    html! {
        @if profile.positions.iter().any(|n| *n > 0) {
            section {
                h2 { "Place in the window" }
                (figure(charts::positions(&profile.positions)))
                p.note {
                    "Firing and place share " (format::significant(profile.position_information.into())) " nats"
                    @if profile.position_information > POSITIONAL { ": this latent tells positions." } @else { "." }
                }
            }
        }
    }
}

fn vocabulary(detail: &LatentDetail) -> Markup {
    let (top, bottom) = (&detail.line.top_tokens, &detail.bottom_tokens);
    html! {
        @if !top.is_empty() || !bottom.is_empty() {
            section {
                h2 { "Vocabulary of the decoder row" }
                div.pair { (tokens("Promoted", top)) (tokens("Suppressed", bottom)) }
            }
        }
    }
}

fn tokens(name: &str, tokens: &[TokenWeight]) -> Markup {
    html! {
        table.plain.weights {
            caption { (name) }
            @for token in tokens {
                tr {
                    th scope="row" { code.chip dir="auto" title=(format!("token {}", token.id)) { (spaces_shown(&token.text)) } }
                    td title=(token.logit) { (format!("{:+.2}", token.logit)) }
                }
            }
        }
    }
}

fn related(harvest: &Harvest, title: &str, measure: &str, related: &[Related]) -> Markup {
    html! {
        @if !related.is_empty() {
            section {
                h2 { (title) }
                table.plain {
                    caption { (measure) }
                    @for near in related {
                        tr {
                            th scope="row" {
                                a href=(harvest.address(&format!("/latent/{}", near.latent), &[])) {
                                    (near.latent) " "
                                    @if let Some(text) = &near.explanation { span.text dir="auto" { (format::said(text)) } }
                                }
                            }
                            td title=(near.value) { (format!("{:.2}", near.value)) }
                        }
                    }
                }
            }
        }
    }
}

fn neurons(title: &str, measure: &str, neurons: &[Neuron], l1: f32) -> Markup {
    html! {
        @if !neurons.is_empty() {
            section {
                h2 { (title) }
                table.plain {
                    caption { (measure) }
                    @for neuron in neurons {
                        tr {
                            th scope="row" { "neuron " (neuron.neuron) }
                            td title=(neuron.value) {
                                (format!("{:+.2}", neuron.value))
                                @if l1 > 0.0 { span.muted { " " (format::percent(f64::from(neuron.value.abs() / l1))) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
