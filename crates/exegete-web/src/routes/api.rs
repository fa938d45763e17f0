//! The JSON that only reads.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::change::{Change, answer_to, plain};
use super::view::MapQuery;
use crate::detail::{ContextQuery, LatentQuery, context as context_of, detail};
use crate::listing::{ListQuery, list};
use crate::pages::{self, Frame};
use crate::rating::{self, RatingQuery};
use crate::respond::{Page, Told, answer_json};
use crate::training::{self as trained, TrainingQuery};
use crate::wire::FiringOrder;
use crate::{Dashboard, Result, WebError, columns, jobs as running, overview as whole, trial};

/// Latents that are told of a text.
const FIRING_SHOWN: usize = 100;

/// A dictionary, where nothing else is asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DictionaryQuery {
    pub(super) dictionary: String,
}

pub(super) async fn overview(State(dashboard): State<Dashboard>, Query(query): Query<DictionaryQuery>) -> Response {
    answer_json(move || Ok(Told(whole::overview(&*dashboard.latents(&query.dictionary)?)))).await
}

pub(super) async fn latents(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer_json(move || Ok(Told(list(&*dashboard.latents(&query.dictionary)?, &query)?))).await
}

pub(super) async fn latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<LatentQuery>,
) -> Response {
    answer_json(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        Ok(Told(detail(&harvest, harvest.named_row(&id)?, query.view())?))
    })
    .await
}

pub(super) async fn context(State(dashboard): State<Dashboard>, Query(query): Query<ContextQuery>) -> Response {
    answer_json(move || Ok(Told(context_of(&*dashboard.latents(&query.dictionary)?, &query)?))).await
}

pub(super) async fn map(State(dashboard): State<Dashboard>, Query(query): Query<MapQuery>) -> Response {
    answer_json(move || {
        let column = columns::column(&query.column).unwrap_or(&columns::COLUMNS[0]);
        Ok(Told(whole::map(&*dashboard.latents(&query.dictionary)?, column)))
    })
    .await
}

pub(super) async fn training(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer_json(move || Ok(Told(trained::view(&*dashboard.run()?, &query)?))).await
}

pub(super) async fn jobs(State(dashboard): State<Dashboard>) -> Response {
    answer_json(move || Ok(Told(running::list(dashboard.dir())))).await
}

pub(super) async fn rating(State(dashboard): State<Dashboard>, Query(query): Query<RatingQuery>) -> Response {
    answer_json(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        match rating::next(&harvest, &query)? {
            Some(task) => Ok(Told(task)),
            None => Err(WebError::Absent(rating::none_left(&rating::counts(&harvest)?).into())),
        }
    })
    .await
}

/// A text that is tried.
#[derive(Debug, Deserialize)]
pub(super) struct Trial {
    text: String,
    #[serde(default)]
    order: FiringOrder,
    /// The token whose firings are asked for; empty for all tokens.
    #[serde(default, deserialize_with = "plain")]
    position: String,
}

pub(super) async fn try_latent(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(trial, back): Change<Trial>,
) -> Response {
    answer_to(&back.clone(), move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let session = dashboard.session(harvest.named())?;
        let _turn = dashboard.turn()?;
        let row = harvest.named_row(&id)?;
        refuse_long(&trial.text, session.max_text_bytes())?;
        let tried = session.activations(&harvest.named().of.name, row.latent.0, &trial.text);
        let tried = tried.map_err(WebError::Refused)?;
        if !back.is_of_form() {
            return Ok(Told(tried).into_response());
        }
        let frame = Frame::of(&dashboard, Some(&harvest))?;
        Ok(Page(pages::tried(&frame, &harvest, &tried, row.stats.max)).into_response())
    })
    .await
}

pub(super) async fn try_latents(
    State(dashboard): State<Dashboard>,
    Query(query): Query<DictionaryQuery>,
    Change(trial, _): Change<Trial>,
) -> Response {
    answer_json(move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let session = dashboard.session(harvest.named())?;
        let _turn = dashboard.turn()?;
        refuse_long(&trial.text, session.max_text_bytes())?;
        let position = match trial.position.as_str() {
            "" => None,
            given => {
                Some(given.parse().map_err(|_| WebError::Refused("position is a token's place in the text".into()))?)
            }
        };
        let tried = session.latents(&harvest.named().of.name, &trial.text, position).map_err(WebError::Refused)?;
        Ok(Told(trial::told(&harvest, tried, trial.order, FIRING_SHOWN)?))
    })
    .await
}

fn refuse_long(text: &str, most: usize) -> Result<()> {
    match text.len() <= most {
        true => Ok(()),
        false => Err(WebError::TooLong { len: text.len(), most }),
    }
}
