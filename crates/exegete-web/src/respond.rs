//! Answers: pages, JSON, redirections, and what went wrong in either.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::Markup;
use serde::Serialize;

use crate::{Result, WebError, pages};

/// Runs what reads files for a page off the threads that serve.
pub(crate) async fn answer(work: impl FnOnce() -> Result<Response> + Send + 'static) -> Response {
    let failed = |error: WebError| page(status_of(&error), &pages::failed(&error.to_string()));
    run(work).await.unwrap_or_else(failed)
}

/// Runs what reads files for JSON off the threads that serve.
pub(crate) async fn answer_json(work: impl FnOnce() -> Result<Response> + Send + 'static) -> Response {
    run(work).await.unwrap_or_else(|error: WebError| self::error(status_of(&error), &error.to_string()))
}

async fn run(work: impl FnOnce() -> Result<Response> + Send + 'static) -> Result<Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(WebError::Serve(std::io::Error::other(error))),
    }
}

fn status_of(error: &WebError) -> StatusCode {
    match error {
        WebError::Unwritable { .. } => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn page(status: StatusCode, markup: &Markup) -> Response {
    (status, Html(markup.0.clone())).into_response()
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => {
            // In JSON this sign stands in strings alone; escaped, an answer cannot be mistaken for a page.
            let text = text.replace('<', "\\u003c");
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    json(status, &serde_json::json!({ "error": message }))
}
