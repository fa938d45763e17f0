//! What changes something: notes, bookmarks, labels, ratings, and stopping a job. A script sends JSON and is answered with JSON;
//! a form is answered with the page that it stands on.

use std::collections::BTreeMap;

use axum::Form;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use exegete_base::LatentId;
use exegete_store::Notes;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::api::DictionaryQuery;
use crate::rating::BEST_GRADE;
use crate::respond::{Told, answer, answer_json, error};
use crate::{Dashboard, Result, WebError, jobs, rating};

/// Most letters of a note.
const LONGEST_NOTE: usize = 4000;

/// Where a form wants to go afterwards: an address of ours. JSON has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Back {
    back: String,
}

impl Back {
    /// Whether a form asks, which is answered with a page.
    pub(super) fn is_of_form(&self) -> bool {
        !self.back.is_empty()
    }
}

/// What is sent, as JSON or as a form, with the same fields, all of them text.
pub(super) struct Change<T>(pub(super) T, pub(super) Back);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Change<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let kind = {
            let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        };
        let unreadable = |words: String| error(StatusCode::UNPROCESSABLE_ENTITY, &words);
        match kind.as_deref() {
            Some("application/json") => {
                let bytes =
                    axum::body::Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
                let change = serde_json::from_slice(&bytes)
                    .map_err(|e| unreadable(format!("the body is not as it should be: {e}")))?;
                Ok(Change(change, Back::default()))
            }
            Some("application/x-www-form-urlencoded") => {
                let read = |e: axum::extract::rejection::FormRejection| unreadable(e.body_text());
                let Form(mut fields) =
                    Form::<BTreeMap<String, String>>::from_request(request, state).await.map_err(read)?;
                let back = fields.remove("back").unwrap_or_default();
                let wrong = |e| unreadable(format!("the form is not as it should be: {e}"));
                Ok(Change(serde_json::from_value(json!(fields)).map_err(wrong)?, Back { back }))
            }
            _ => Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json, or a form")),
        }
    }
}

/// A value that a form sends as text, and JSON as text, a number or a truth value.
pub(super) fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        value @ (Value::Bool(_) | Value::Number(_)) => Ok(value.to_string()),
        _ => Err(D::Error::custom("expected text, a number, or true or false")),
    }
}

/// The answer to a change: JSON, or the page that the form stands on.
fn done(back: &Back, value: impl Serialize) -> Response {
    let is_ours = back.back.starts_with('/')
        && !back.back.starts_with("//")
        && !back.back.contains(|c: char| c == '\\' || c.is_control());
    if is_ours { Redirect::to(&back.back).into_response() } else { Told(value).into_response() }
}

/// Runs a change. What goes wrong is told as a page to a form, and as JSON to a script.
pub(super) async fn answer_to(back: &Back, work: impl FnOnce() -> Result<Response> + Send + 'static) -> Response {
    if back.is_of_form() { answer(work).await } else { answer_json(work).await }
}

/// Changes what is said about a latent that there is; the change may find that there is nothing of the kind.
async fn change_latent(
    dashboard: Dashboard,
    (id, dictionary): (String, String),
    back: Back,
    change: impl FnOnce(&Notes, LatentId) -> exegete_store::Result<Option<Value>> + Send + 'static,
) -> Response {
    answer_to(&back.clone(), move || {
        let harvest = dashboard.latents(&dictionary)?;
        let latent = harvest.named_row(&id)?.latent;
        let told = dashboard.change(harvest.named(), |notes| change(notes, latent))?;
        Ok(done(&back, told.ok_or_else(|| WebError::Absent("There is no such text.".into()))?))
    })
    .await
}

/// A new note.
#[derive(Debug, Deserialize)]
pub(super) struct NewNote {
    text: String,
}

pub(super) async fn add_note(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(note, back): Change<NewNote>,
) -> Response {
    let text = note.text.trim().to_owned();
    if text.is_empty() || text.chars().count() > LONGEST_NOTE {
        let words = format!("a note has between 1 and {LONGEST_NOTE} letters");
        return answer_to(&back, || Err(WebError::Refused(words))).await;
    }
    change_latent(dashboard, (id, query.dictionary), back, move |notes, latent| {
        let id = notes.add_note(latent, &text)?;
        Ok(Some(json!({ "note": id })))
    })
    .await
}

/// Nothing but where to go afterwards.
#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

pub(super) async fn remove_note(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(Nothing {}, back): Change<Nothing>,
) -> Response {
    answer_to(&back.clone(), move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let absent = || WebError::Absent("There is no such note.".into());
        let id = id.parse::<i64>().map_err(|_| absent())?;
        let is_removed = dashboard.change(harvest.named(), |notes| notes.remove_note(id))?;
        if is_removed { Ok(done(&back, json!({ "note": id }))) } else { Err(absent()) }
    })
    .await
}

/// Whether a latent is to have a bookmark: `true` or `false`.
#[derive(Debug, Deserialize)]
pub(super) struct Bookmark {
    #[serde(deserialize_with = "plain")]
    is_set: String,
}

pub(super) async fn bookmark(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(bookmark, back): Change<Bookmark>,
) -> Response {
    let is_set = match bookmark.is_set.as_str() {
        "true" => true,
        "false" => false,
        _ => return answer_to(&back, || Err(WebError::Refused("is_set is true or false".into()))).await,
    };
    change_latent(dashboard, (id, query.dictionary), back, move |notes, latent| {
        notes.set_bookmark(latent, is_set)?;
        Ok(Some(json!({ "is_bookmarked": is_set })))
    })
    .await
}

/// Which text is picked: that of a method, by its place; neither, to take the label away.
#[derive(Debug, Deserialize)]
pub(super) struct Pick {
    #[serde(default)]
    method: String,
    #[serde(default, deserialize_with = "plain")]
    rank: String,
}

pub(super) async fn label(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(pick, back): Change<Pick>,
) -> Response {
    change_latent(dashboard, (id, query.dictionary), back, move |notes, latent| {
        let explanations = notes.explanations_of(latent)?;
        let picked = explanations.into_iter().find(|e| e.method == pick.method && e.rank.to_string() == pick.rank);
        match picked {
            Some(picked) => {
                let scale = picked.scale.is_finite().then_some(picked.scale);
                notes.set_label(latent, &picked.method, scale, &picked.text)?;
                Ok(Some(json!({ "label": picked.text })))
            }
            None if pick.method.is_empty() && pick.rank.is_empty() => {
                notes.remove_label(latent)?;
                Ok(Some(json!({ "label": null })))
            }
            None => Ok(None),
        }
    })
    .await
}

/// A person's judgement.
#[derive(Debug, Deserialize)]
pub(super) struct Grade {
    /// From 1 (wrong) to 5 (right), 0 for "cannot tell".
    #[serde(deserialize_with = "plain")]
    grade: String,
    #[serde(deserialize_with = "plain")]
    seed: String,
}

pub(super) async fn rate(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<DictionaryQuery>,
    Change(grade, back): Change<Grade>,
) -> Response {
    let (Some(value), Ok(seed)) = (grade.grade.parse().ok().filter(|g| *g <= BEST_GRADE), grade.seed.parse()) else {
        let words = format!("a grade is a number from 0 to {BEST_GRADE}, a seed a number");
        return answer_to(&back, || Err(WebError::Refused(words))).await;
    };
    answer_to(&back.clone(), move || {
        let harvest = dashboard.latents(&query.dictionary)?;
        let absent = || WebError::Absent("There is no such text.".into());
        let id = id.parse::<i64>().map_err(|_| absent())?;
        let is_there = dashboard.change(harvest.named(), |notes| match notes.candidate(id)? {
            Some(candidate) => notes.rate(&candidate, value, seed).map(|()| true),
            None => Ok(false),
        })?;
        if !is_there {
            return Err(absent());
        }
        let counts = rating::counts(&harvest)?;
        Ok(done(&back, json!({ "rated": counts.rated, "total": counts.total })))
    })
    .await
}

pub(super) async fn cancel(
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    Change(Nothing {}, back): Change<Nothing>,
) -> Response {
    answer_to(&back.clone(), move || {
        let job = jobs::cancel(dashboard.dir(), &name)?;
        Ok(done(&back, job.ok_or_else(|| WebError::Absent("There is no such job.".into()))?))
    })
    .await
}
