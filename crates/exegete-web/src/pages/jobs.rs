//! The page of running jobs.

use maud::{Markup, html};

use super::{Frame, percent_encoded, shell};
use crate::format;
use crate::wire::{Job, JobList, JobState};

/// Seconds between two looks at running jobs.
const REFRESH_SECS: u32 = 2;

/// The page of running jobs.
pub(crate) fn jobs(frame: &Frame, list: &JobList) -> Markup {
    let is_running = |job: &Job| matches!(job.state, JobState::Running | JobState::Quiet);
    let refresh = list.jobs.iter().any(is_running).then_some(REFRESH_SECS);
    let content = html! {
        h1 { "Jobs" }
        p #unanswered.abstained hidden role="status" {}
        div #live data-refresh=[refresh] {
            @if list.jobs.is_empty() { p.muted { "No job has told of itself in this run." } }
            @for job in &list.jobs { (one(job, is_running(job))) }
            @for name in &list.unreadable { p.abstained { "jobs/" (name) ".json cannot be read as a job." } }
        }
    };
    shell("Jobs", frame, &content)
}

fn one(job: &Job, is_running: bool) -> Markup {
    let state = match job.state {
        JobState::Running if job.is_cancelled => "Stopping",
        JobState::Running => "Running",
        JobState::Quiet => "Not heard of",
        JobState::Finished => "Finished",
        JobState::Cancelled => "Stopped; the same command goes on",
        JobState::Failed => "Failed",
    };
    let class = match job.state {
        JobState::Running => "status running",
        JobState::Quiet => "status quiet",
        JobState::Finished => "status finished",
        JobState::Cancelled | JobState::Failed => "status",
    };
    html! {
        section.job {
            h2 { (job.kind) " " span.muted { (job.name) } }
            p class=(class) {
                (state)
                @if is_running { span.note { ", heard of " (seconds(job.heard_secs_ago)) " ago" } }
            }
            @if let Some(total) = job.total {
                progress max=(total) value=(job.done.min(total)) aria-label=(format!("Progress of {}", job.name)) {}
            }
            p {
                @if !job.stage.is_empty() { (job.stage) ": " }
                (format::count(job.done))
                @if let Some(total) = job.total { " of " (format::count(total)) }
                " " (job.unit)
                @if let Some(rate) = job.rate { ", " (format::significant(rate)) " a second" }
                @if let Some(left) = job.left_secs { ", " (seconds(left)) " left" }
            }
            @if is_running && !job.is_cancelled {
                form.inline method="post" action=(format!("/api/job/{}/cancel", percent_encoded(&job.name))) {
                    input type="hidden" name="back" value="/jobs";
                    button.plain-button type="submit" { "Stop" }
                }
            }
        }
    }
}

fn seconds(n: u64) -> String {
    match n {
        0..120 => format!("{n} s"),
        120..7200 => format!("{} min", n / 60),
        _ => format!("{} h {} min", n / 3600, n % 3600 / 60),
    }
}
