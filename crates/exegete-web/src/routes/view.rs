//! The pages.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::detail::{ContextQuery, LatentQuery, context as context_of, detail};
use crate::listing::{ListQuery, list};
use crate::pages::Frame;
use crate::rating::{self, RatingQuery};
use crate::respond::{Page, answer};
use crate::training::{self, TrainingQuery};
use crate::{Dashboard, WebError, jobs as running, pages};

pub(super) async fn home(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer(move || {
        // A run that is under way has no latents yet.
        if let ("", None, Some(to)) = (query.dictionary.as_str(), dashboard.harvest("")?, dashboard.elsewhere()?) {
            return Ok(Redirect::to(to).into_response());
        }
        let harvest = dashboard.latents(&query.dictionary)?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let latents = list(&harvest, &query)?;
        Ok(Page(pages::home(&frame, &harvest, &query, &latents)?).into_response())
    })
    .await
}

pub(super) async fn latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<LatentQuery>,
) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let detail = detail(&harvest, harvest.named_row(&id)?, query.view())?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(Page(pages::latent(&frame, &harvest, &detail, query.view())))
    })
    .await
}

pub(super) async fn context(State(dashboard): State<Dashboard>, Query(query): Query<ContextQuery>) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let whole = context_of(&harvest, &query)?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(Page(pages::context(&frame, &harvest, &whole)))
    })
    .await
}

/// Two latents, as they stand in the address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CompareQuery {
    dictionary: String,
    left: String,
    right: String,
    /// Dictionary of the right one; empty for that of the left.
    other: String,
    view: String,
}

pub(super) async fn compare(State(dashboard): State<Dashboard>, Query(query): Query<CompareQuery>) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let other = dashboard.latents(if query.other.is_empty() { &query.dictionary } else { &query.other })?;
        let view = LatentQuery { view: query.view.clone(), ..LatentQuery::default() }.view();
        let side = |harvest, id: &str| -> crate::Result<Result<_, String>> {
            let id = id.trim().trim_start_matches('#');
            match crate::harvest::Harvest::named_row(harvest, id) {
                Ok(row) => Ok(Ok(detail(harvest, row, view)?)),
                // The other side is shown all the same.
                Err(WebError::Absent(words)) => Ok(Err(if id.is_empty() { String::new() } else { words })),
                Err(error) => Err(error),
            }
        };
        let (left, right) = (side(&harvest, &query.left)?, side(&other, &query.right)?);
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let asked = [query.left.as_str(), query.right.as_str()];
        Ok(Page(pages::compare(&frame, (&harvest, &left), (&other, &right), asked, view)))
    })
    .await
}

/// What is asked of the map.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MapQuery {
    pub(super) dictionary: String,
    /// The column that colours it; anything unknown is the firing rate.
    pub(super) column: String,
}

pub(super) async fn map(State(dashboard): State<Dashboard>, Query(query): Query<MapQuery>) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(Page(pages::map(&frame, &harvest, &query.column)))
    })
    .await
}

pub(super) async fn training(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer(move || {
        let run = dashboard.run()?;
        let view = training::view(&run, &query)?;
        let frame = Frame::of(&dashboard, None)?;
        Ok(Page(pages::training(&frame, &view)))
    })
    .await
}

pub(super) async fn jobs(State(dashboard): State<Dashboard>) -> Response {
    answer(move || {
        let frame = Frame::of(&dashboard, None)?;
        Ok(Page(pages::jobs(&frame, &running::list(dashboard.dir()))))
    })
    .await
}

pub(super) async fn rate(State(dashboard): State<Dashboard>, Query(query): Query<RatingQuery>) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let task = rating::next(&harvest, &query)?;
        let counts = rating::counts(&harvest)?;
        Ok(Page(pages::rate(&frame, &harvest, task.as_ref(), &counts, &query)))
    })
    .await
}

/// What is asked of the page on which texts are tried.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TryQuery {
    dictionary: String,
    text: String,
    order: String,
    position: String,
}

pub(super) async fn try_it(State(dashboard): State<Dashboard>, Query(query): Query<TryQuery>) -> Response {
    answer(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        dashboard.session(harvest.named())?;
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(Page(pages::try_it(&frame, &harvest, &query.text, &query.order, &query.position)))
    })
    .await
}
