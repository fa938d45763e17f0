//! The panels of numbers and lists beside a latent's examples. One that has nothing to show is not there.

use exegete_base::levels::N_LEVELS;
use maud::{Markup, html};

use super::pieces::{self, Activity, activity, chip, figure};
use crate::harvest::Harvest;
use crate::wire::{LatentDetail, Neuron, Profile, Related, TokenWeight};
use crate::{charts, format};

/// All panels of numbers of a served run.
pub(super) fn panels(harvest: &Harvest, detail: &LatentDetail) -> Markup {
    panels_with(detail, &|latent| Some(harvest.address(&format!("/latent/{latent}"), &[])))
}

/// All panels of numbers; `address` says where another latent is shown, if it is.
pub(crate) fn panels_with(detail: &LatentDetail, address: &dyn Fn(u32) -> Option<String>) -> Markup {
    let profile = &detail.profile;
    html! {
        (statistics(detail))
        @if detail.line.count > 0 {
            section { h2 { "Firings by strength" } (figure(charts::levels(&firings(detail)))) }
        }
        (fired_tokens(profile))
        (positions(profile))
        (vocabulary(detail))
        @if let Some(logits) = &profile.logits {
            section { h2 { "Logits of the whole vocabulary" } (figure(charts::logits(logits))) }
        }
        (related(address, "Nearest decoder rows", "cosine", &detail.neighbours))
        (related(address, "Firing on the same tokens", "Jaccard index, an estimate", &profile.cofiring))
        (related(address, "Correlated latents", "Pearson's coefficient", &profile.correlated_latents))
        (neurons("Correlated neurons", "Pearson's coefficient", &profile.correlated_neurons, 0.0))
        (neurons("Neurons of the decoder row", "value, and share of the row's L1 norm", &profile.aligned_neurons, profile.decoder_l1))
    }
}

/// Firings by level, those without any too.
fn firings(detail: &LatentDetail) -> [u64; N_LEVELS] {
    let mut counts = [0; N_LEVELS];
    detail.levels.iter().for_each(|level| counts[level.level] = level.count);
    counts
}

fn statistics(detail: &LatentDetail) -> Markup {
    let line = &detail.line;
    activity(&Activity {
        rate: &line.firing_rate,
        count: line.count,
        max: line.max,
        mean: detail.mean,
        std: detail.std,
        decoder_norm: detail.profile.decoder_norm,
    })
}

fn fired_tokens(profile: &Profile) -> Markup {
    html! {
        @if !profile.fired_tokens.is_empty() {
            section {
                h2 { "Tokens on which it fires" }
                table.plain.weights {
                    @for token in &profile.fired_tokens {
                        tr {
                            th scope="row" { (chip(&token.text, &format!("token {}", token.id))) }
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
                    "The place tells " (format::percent(profile.position_share)) " of what is uncertain about firing ("
                    (format::significant(profile.position_information.into())) " nats)"
                    @if profile.is_positional { ": a latent of positions." } @else { "." }
                }
            }
        }
    }
}

fn vocabulary(detail: &LatentDetail) -> Markup {
    let weights = |tokens: &[TokenWeight]| -> Vec<(Markup, f32)> {
        tokens.iter().map(|token| (chip(&token.text, &format!("token {}", token.id)), token.logit)).collect()
    };
    pieces::vocabulary(&weights(&detail.line.top_tokens), &weights(&detail.bottom_tokens))
}

fn related(address: &dyn Fn(u32) -> Option<String>, title: &str, measure: &str, related: &[Related]) -> Markup {
    html! {
        @if !related.is_empty() {
            section {
                h2 { (title) }
                table.plain {
                    caption { (measure) }
                    @for near in related {
                        tr {
                            th scope="row" {
                                @let name = html! {
                                    (near.latent) " "
                                    @if let Some(text) = &near.explanation { span.text dir="auto" { (format::said(text)) } }
                                };
                                @match address(near.latent) { Some(to) => a href=(to) { (name) }, None => (name) }
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
