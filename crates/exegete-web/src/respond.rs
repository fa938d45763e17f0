//! Answers: pages, JSON, redirections, and what went wrong in either.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::Markup;
use serde::Serialize;

use crate::{Result, WebError, pages};

/// A page that is there.
pub(crate) struct Page(pub(crate) Markup);

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        page(StatusCode::OK, self.0)
    }
}

/// A value as JSON.
pub(crate) struct Told<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Told<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// Runs what reads files for a page off the threads that serve.
pub(crate) async fn answer<T: IntoResponse>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Response {
    let failed = |error: WebError| match &error {
        WebError::Absent(words) => page(StatusCode::NOT_FOUND, pages::not_found(words)),
        error => page(status_of(error), pages::failed(&error.to_string())),
    };
    run(work).await.unwrap_or_else(failed)
}

/// Runs what reads files for JSON off the threads that serve.
pub(crate) async fn answer_json<T: IntoResponse>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Response {
    run(work).await.unwrap_or_else(|error: WebError| self::error(status_of(&error), &error.to_string()))
}

async fn run<T: IntoResponse>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Response> {
    match tokio::task::spawn_blocking(move || work().map(IntoResponse::into_response)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(WebError::Serve(std::io::Error::other(error))),
    }
}

fn status_of(error: &WebError) -> StatusCode {
    match error {
        WebError::Absent(_) => StatusCode::NOT_FOUND,
        WebError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        WebError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        WebError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        WebError::Unwritable { .. } => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn page(status: StatusCode, markup: Markup) -> Response {
    (status, Html(markup.0)).into_response()
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
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
