//! The JSON that only reads.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use exegete_base::LatentId;
use serde::Deserialize;

use super::change::Change;
use super::view::{MapQuery, NO_LATENTS};
use crate::detail::{ContextQuery, LatentQuery, context as context_of, detail};
use crate::harvest::Harvest;
use crate::listing::{ListQuery, list};
use crate::rating::{self, RatingQuery};
use crate::respond::{answer_json, error, json};
use crate::training::{self as trained, TrainingQuery};
use crate::wire::FiringOrder;
use crate::{Dashboard, columns, jobs as running, overview as whole, trial};

/// Latents that are told of a text.
const FIRING_SHOWN: usize = 100;

pub(super) fn none(words: &str) -> Response {
    error(StatusCode::NOT_FOUND, words)
}

pub(super) fn unknown(id: &str, harvest: &Harvest) -> String {
    format!("There is no latent {id:?}; this dictionary has {} latents.", harvest.n_latents())
}

pub(super) fn unknown_dictionary(query: &TrainingQuery) -> String {
    format!("There is no dictionary {:?} in this run.", query.only)
}

/// A dictionary, where nothing else is asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DictionaryQuery {
    pub(super) dictionary: String,
}

pub(super) async fn overview(State(dashboard): State<Dashboard>, Query(query): Query<DictionaryQuery>) -> Response {
    answer_json(move || match dashboard.harvest(&query.dictionary)? {
        Some(harvest) => Ok(json(StatusCode::OK, &whole::overview(&harvest))),
        None => Ok(none(NO_LATENTS)),
    })
    .await
}

pub(super) async fn latents(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer_json(move || match dashboard.harvest(&query.dictionary)? {
        Some(harvest) => Ok(json(StatusCode::OK, &list(&harvest, &query)?)),
        None => Ok(none(NO_LATENTS)),
    })
    .await
}

pub(super) async fn latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<LatentQuery>,
) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let found = match id.parse() {
            Ok(id) => detail(&harvest, LatentId(id), query.view())?,
            Err(_) => None,
        };
        Ok(found.map_or_else(|| none(&unknown(&id, &harvest)), |detail| json(StatusCode::OK, &detail)))
    })
    .await
}

pub(super) async fn context(State(dashboard): State<Dashboard>, Query(query): Query<ContextQuery>) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let whole = context_of(&harvest, &query)?;
        Ok(whole.map_or_else(|| none("There is no such example of this latent."), |whole| json(StatusCode::OK, &whole)))
    })
    .await
}

pub(super) async fn map(State(dashboard): State<Dashboard>, Query(query): Query<MapQuery>) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let column = columns::column(&query.column).unwrap_or(&columns::COLUMNS[0]);
        Ok(json(StatusCode::OK, &whole::map(&harvest, column)))
    })
    .await
}

pub(super) async fn training(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer_json(move || {
        let view = trained::view(&*dashboard.run()?, &query);
        Ok(view.map_or_else(|| none(&unknown_dictionary(&query)), |view| json(StatusCode::OK, &view)))
    })
    .await
}

pub(super) async fn jobs(State(dashboard): State<Dashboard>) -> Response {
    answer_json(move || Ok(json(StatusCode::OK, &running::list(dashboard.dir())))).await
}

pub(super) async fn rating(State(dashboard): State<Dashboard>, Query(query): Query<RatingQuery>) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let task = rating::next(&harvest, &query)?;
        Ok(task.map_or_else(|| none("All texts of this dictionary are rated."), |task| json(StatusCode::OK, &task)))
    })
    .await
}

/// A text that is tried.
#[derive(Debug, Deserialize)]
pub(super) struct Trial {
    text: String,
    #[serde(default)]
    order: FiringOrder,
}

pub(super) async fn try_latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(trial, _): Change<Trial>,
) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let Some(session) = dashboard.session() else { return Ok(none(whole::NO_MODEL)) };
        let Some(row) = id.parse().ok().and_then(|id| harvest.row(LatentId(id))) else {
            return Ok(none(&unknown(&id, &harvest)));
        };
        if let Some(refused) = too_long(&trial.text, session.max_text_bytes()) {
            return Ok(refused);
        }
        Ok(match session.activations(&harvest.named().name, row.latent.0, &trial.text) {
            Ok(tried) => json(StatusCode::OK, &tried),
            Err(words) => error(StatusCode::UNPROCESSABLE_ENTITY, &words),
        })
    })
    .await
}

pub(super) async fn try_latents(
    State(dashboard): State<Dashboard>,
    Query(query): Query<DictionaryQuery>,
    Change(trial, _): Change<Trial>,
) -> Response {
    answer_json(move || {
        let Some(harvest) = dashboard.harvest(&query.dictionary)? else { return Ok(none(NO_LATENTS)) };
        let Some(session) = dashboard.session() else { return Ok(none(whole::NO_MODEL)) };
        if let Some(refused) = too_long(&trial.text, session.max_text_bytes()) {
            return Ok(refused);
        }
        Ok(match session.latents(&harvest.named().name, &trial.text) {
            Ok(tried) => json(StatusCode::OK, &trial::told(&harvest, tried, trial.order, FIRING_SHOWN)?),
            Err(words) => error(StatusCode::UNPROCESSABLE_ENTITY, &words),
        })
    })
    .await
}

fn too_long(text: &str, most: usize) -> Option<Response> {
    let words = format!("the text has {} bytes, at most {most} are tried at once", text.len());
    (text.len() > most).then(|| error(StatusCode::PAYLOAD_TOO_LARGE, &words))
}
