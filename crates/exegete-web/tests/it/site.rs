//! A run that is asked through the router, with no socket.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use exegete_web::{Dashboard, app};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

/// A router over a run.
pub(crate) struct Site(pub(crate) Router);

/// What a request is answered with.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Site {
    pub(crate) fn of(dir: &Path) -> Self {
        Self(app(Dashboard::open(dir).unwrap()))
    }

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, location, body: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub(crate) fn get(&self, uri: &str) -> Answer {
        self.ask(Request::builder().uri(uri).body(Body::empty()).unwrap())
    }

    pub(crate) fn post(&self, uri: &str, kind: &str, body: &str) -> Answer {
        let request = Request::builder().method("POST").uri(uri).header("content-type", kind);
        self.ask(request.body(Body::from(body.to_owned())).unwrap())
    }

    pub(crate) fn send(&self, uri: &str, body: &Value) -> Answer {
        self.post(uri, "application/json", &body.to_string())
    }
}
