//! Addresses. Pages and the JSON under `/api` answer from the same functions.

mod api;
mod change;
mod view;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use rust_embed::RustEmbed;

use crate::access::guard;
use crate::limits::{Gate, limit};
use crate::respond::{error, page};
use crate::{Access, Dashboard, Limits, openapi, pages};

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// Addresses of the JSON, each with its methods. The document at `/api/openapi.json` tells of them all.
pub(crate) fn api() -> Vec<(&'static str, &'static str, MethodRouter<Dashboard>)> {
    vec![
        ("/api/overview", "get", get(api::overview)),
        ("/api/latents", "get", get(api::latents)),
        ("/api/latent/{id}", "get", get(api::latent)),
        ("/api/latent/{id}/note", "post", post(change::add_note)),
        ("/api/latent/{id}/bookmark", "post", post(change::bookmark)),
        ("/api/latent/{id}/label", "post", post(change::label)),
        ("/api/note/{id}/remove", "post", post(change::remove_note)),
        ("/api/context", "get", get(api::context)),
        ("/api/map", "get", get(api::map)),
        ("/api/training", "get", get(api::training)),
        ("/api/jobs", "get", get(api::jobs)),
        ("/api/job/{name}/cancel", "post", post(change::cancel)),
        ("/api/rating", "get", get(api::rating)),
        ("/api/rating/{id}", "post", post(change::rate)),
        ("/api/try/latent/{id}", "post", post(api::try_latent)),
        ("/api/try/latents", "post", post(api::try_latents)),
        ("/api/openapi.json", "get", get(openapi::answer)),
    ]
}

/// The dashboards as a router for this machine's own names, for a test.
pub fn app(dashboard: Dashboard) -> Router {
    app_with(dashboard, Access::default(), Limits::default())
}

/// The dashboards as a router.
pub fn app_with(dashboard: Dashboard, access: Access, limits: Limits) -> Router {
    let mut router = Router::new()
        .route("/", get(view::home))
        .route("/latent/{id}", get(view::latent))
        .route("/context", get(view::context))
        .route("/compare", get(view::compare))
        .route("/map", get(view::map))
        .route("/training", get(view::training))
        .route("/jobs", get(view::jobs))
        .route("/rate", get(view::rate))
        .route("/try", get(view::try_it))
        .route("/static/{name}", get(file));
    for (path, _, method) in api() {
        router = router.route(path, method);
    }
    let none = |uri: axum::http::Uri| async move {
        match uri.path().starts_with("/api/") {
            true => error(StatusCode::NOT_FOUND, "there is no such address; /api/openapi.json lists those there are"),
            false => page(StatusCode::NOT_FOUND, pages::not_found("There is no such page.")),
        }
    };
    let wrong_method = || async { error(StatusCode::METHOD_NOT_ALLOWED, "this address has other methods") };
    router
        .fallback(none)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Gate::new(limits), limit))
        .layer(from_fn_with_state(access, guard))
        .with_state(dashboard)
}

async fn file(Path(name): Path<String>) -> Response {
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    match Files::get(&name) {
        // Kept for a minute, so that a walk through latents does not fetch the style each time.
        Some(file) => {
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=60")];
            (headers, file.data.into_owned()).into_response()
        }
        None => page(StatusCode::NOT_FOUND, pages::not_found("There is no such file.")),
    }
}
