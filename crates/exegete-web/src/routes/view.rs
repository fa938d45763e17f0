//! The pages.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use exegete_base::LatentId;
use serde::Deserialize;

use super::api::{unknown, unknown_dictionary};
use crate::detail::{ContextQuery, LatentQuery, context as context_of, detail};
use crate::listing::{ListQuery, list};
use crate::pages::Frame;
use crate::rating::{self, RatingQuery};
use crate::respond::{answer, page};
use crate::training::{self, TrainingQuery};
use crate::{Dashboard, jobs as running, overview, pages};

/// What is said where latents are asked for and there are none.
pub(super) const NO_LATENTS: &str = "This run has no latents yet, or no dictionary of this name.";

/// The page for what is not there.
fn none(words: &str) -> Response {
    page(StatusCode::NOT_FOUND, &pages::not_found(words))
}

pub(super) async fn home(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else {
            return Ok(match query.dictionary.is_empty() {
                true => Redirect::to("/training").into_response(),
                false => none(NO_LATENTS),
            });
        };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let latents = list(&harvest, &query)?;
        Ok(page(StatusCode::OK, &pages::home(&frame, &harvest, &query, &latents)?))
    })
    .await
}

pub(super) async fn latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<LatentQuery>,
) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let found = match id.parse() {
            Ok(id) => detail(&harvest, LatentId(id), query.view())?,
            Err(_) => None,
        };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(match found {
            Some(detail) => page(StatusCode::OK, &pages::latent(&frame, &harvest, &detail, query.view())),
            None => none(&unknown(&id, &harvest)),
        })
    })
    .await
}

pub(super) async fn context(State(dashboard): State<Dashboard>, Query(query): Query<ContextQuery>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let Some(whole) = context_of(&harvest, &query)? else {
            return Ok(none("There is no such example of this latent."));
        };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(page(StatusCode::OK, &pages::context(&frame, &harvest, &whole)))
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
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let name = if query.other.is_empty() { &query.dictionary } else { &query.other };
        let Some(other) = dashboard.harvest(name)? else { return Ok(none(NO_LATENTS)) };
        let view = LatentQuery { view: query.view.clone(), ..LatentQuery::default() }.view();
        let mut sides = Vec::new();
        for (harvest, id) in [(&harvest, &query.left), (&other, &query.right)] {
            let id = id.trim().trim_start_matches('#');
            let found = match id.parse() {
                Ok(id) => detail(harvest, LatentId(id), view)?,
                Err(_) => None,
            };
            let missing = if id.is_empty() { String::new() } else { unknown(id, harvest) };
            sides.push((harvest.clone(), found.ok_or(missing)));
        }
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let [left, right] = &sides[..] else { return Ok(none(NO_LATENTS)) };
        let asked = [query.left.as_str(), query.right.as_str()];
        Ok(page(StatusCode::OK, &pages::compare(&frame, (&left.0, &left.1), (&right.0, &right.1), asked, view)))
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
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(page(StatusCode::OK, &pages::map(&frame, &harvest, &query.column)))
    })
    .await
}

pub(super) async fn training(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer(move || {
        let run = dashboard.run()?;
        let Some(view) = training::view(&run, &query) else { return Ok(none(&unknown_dictionary(&query))) };
        let frame = Frame::of(&dashboard, None)?;
        Ok(page(StatusCode::OK, &pages::training(&frame, &view)))
    })
    .await
}

pub(super) async fn jobs(State(dashboard): State<Dashboard>) -> Response {
    answer(move || {
        let frame = Frame::of(&dashboard, None)?;
        Ok(page(StatusCode::OK, &pages::jobs(&frame, &running::list(dashboard.dir()))))
    })
    .await
}

pub(super) async fn rate(State(dashboard): State<Dashboard>, Query(query): Query<RatingQuery>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        let task = rating::next(&harvest, &query)?;
        let counts = rating::counts(&harvest)?;
        Ok(page(StatusCode::OK, &pages::rate(&frame, &harvest, task.as_ref(), &counts, &query)))
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
}

pub(super) async fn try_it(State(dashboard): State<Dashboard>, Query(query): Query<TryQuery>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        if dashboard.session().is_none() {
            return Ok(none(overview::NO_MODEL));
        }
        Ok(page(StatusCode::OK, &pages::try_it(&frame, &harvest, &query.text, &query.order)))
    })
    .await
}
