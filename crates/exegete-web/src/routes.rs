//! Addresses, and what every answer has in common.

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use exegete_base::LatentId;
use maud::Markup;
use rust_embed::RustEmbed;
use serde::Serialize;

use crate::harvest::{Harvest, LATENTS};
use crate::listing::{ListQuery, list};
use crate::training::{self, TrainingQuery};
use crate::{Dashboard, Result, pages, summary};

/// Nothing but our own style, script and pictures; nobody may frame the pages.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What is said where latents are asked for and there are none.
const NO_LATENTS: &str = "This run has no latents yet.";

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// The dashboards as a router, for a server or for a test.
pub fn app(dashboard: Dashboard) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/latent/{id}", get(latent))
        .route("/api/latents", get(api_latents))
        .route("/api/latent/{id}", get(api_latent))
        .route("/training", get(training_page))
        .route("/api/training", get(api_training))
        .route("/static/{name}", get(file))
        .fallback(|| async { page(StatusCode::NOT_FOUND, &pages::not_found("There is no such page.")) })
        .layer(from_fn(guard))
        .with_state(dashboard)
}

async fn home(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest()? else { return Ok(Redirect::to("/training").into_response()) };
        let latents = list(&harvest, &query)?;
        Ok(page(StatusCode::OK, &pages::home(&harvest, &query, &latents)?))
    })
    .await
}

async fn latent(State(dashboard): State<Dashboard>, Path(id): Path<String>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest()? else {
            return Ok(page(StatusCode::NOT_FOUND, &pages::not_found(NO_LATENTS)));
        };
        let detail = match id.parse() {
            Ok(id) => harvest.detail(LatentId(id))?,
            Err(_) => None,
        };
        Ok(match detail {
            Some(detail) => page(StatusCode::OK, &pages::latent(&harvest, &detail)),
            None => page(StatusCode::NOT_FOUND, &pages::not_found(&unknown(&id, &harvest))),
        })
    })
    .await
}

async fn api_latents(State(dashboard): State<Dashboard>, Query(query): Query<ListQuery>) -> Response {
    answer(move || match dashboard.harvest()? {
        Some(harvest) => Ok(json(StatusCode::OK, &list(&harvest, &query)?)),
        None => Ok(error(StatusCode::NOT_FOUND, NO_LATENTS)),
    })
    .await
}

async fn api_latent(State(dashboard): State<Dashboard>, Path(id): Path<String>) -> Response {
    answer(move || {
        let Some(harvest) = dashboard.harvest()? else { return Ok(error(StatusCode::NOT_FOUND, NO_LATENTS)) };
        let detail = match id.parse() {
            Ok(id) => harvest.detail(LatentId(id))?,
            Err(_) => None,
        };
        let none = || error(StatusCode::NOT_FOUND, &unknown(&id, &harvest));
        Ok(detail.map_or_else(none, |detail| json(StatusCode::OK, &detail)))
    })
    .await
}

async fn training_page(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer(move || {
        let run = dashboard.run()?;
        let Some(view) = training::view(&run, &query) else {
            return Ok(page(StatusCode::NOT_FOUND, &pages::not_found(&unknown_dictionary(&query))));
        };
        let has_latents = run.part_done(LATENTS);
        Ok(page(StatusCode::OK, &pages::training(&summary::run_name(&run), &view, has_latents)))
    })
    .await
}

async fn api_training(State(dashboard): State<Dashboard>, Query(query): Query<TrainingQuery>) -> Response {
    answer(move || {
        let none = || error(StatusCode::NOT_FOUND, &unknown_dictionary(&query));
        let view = training::view(&dashboard.run()?, &query);
        Ok(view.map_or_else(none, |view| json(StatusCode::OK, &view)))
    })
    .await
}

async fn file(Path(name): Path<String>) -> Response {
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    match Files::get(&name) {
        Some(file) => ([(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response(),
        None => page(StatusCode::NOT_FOUND, &pages::not_found("There is no such file.")),
    }
}

fn unknown(id: &str, harvest: &Harvest) -> String {
    format!("There is no latent {id:?}; this run has {} latents.", harvest.n_latents())
}

fn unknown_dictionary(query: &TrainingQuery) -> String {
    format!("There is no dictionary {:?} in this run.", query.only)
}

/// Runs what reads files off the threads that serve, and turns its errors into a page.
async fn answer(work: impl FnOnce() -> Result<Response> + Send + 'static) -> Response {
    let failed = |message: String| page(StatusCode::INTERNAL_SERVER_ERROR, &pages::failed(&message));
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

fn page(status: StatusCode, markup: &Markup) -> Response {
    (status, Html(markup.0.clone())).into_response()
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

fn error(status: StatusCode, message: &str) -> Response {
    json(status, &serde_json::json!({ "error": message }))
}

/// Refuses requests meant for another host, and puts the policy on every answer.
async fn guard(request: Request, next: Next) -> Response {
    // A foreign page could point its own name at this address and then read us as its own site.
    if !is_for_this_machine(request.headers()) {
        return (StatusCode::FORBIDDEN, "this server answers to localhost only").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
