//! How much a request may ask for: the length of its address and body, its time, and how many are answered at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Limits on what is asked.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of an address.
    pub address_bytes: usize,
    /// Bytes of a request's head, and headers in it.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Time for a request's head to arrive, for its body, and for a piece of the answer to be taken.
    pub patience: Duration,
    /// Time for an answer.
    pub answer: Duration,
    /// Requests that are answered at once.
    pub in_flight: usize,
    /// Connections that are open at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 << 10,
            address_bytes: 4 << 10,
            head_bytes: 16 << 10,
            headers: 64,
            patience: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            in_flight: 128,
            connections: 512,
        }
    }
}

/// The limits with what counts the requests.
#[derive(Clone)]
pub(crate) struct Gate {
    limits: Limits,
    in_flight: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { in_flight: Arc::new(Semaphore::new(limits.in_flight)), limits }
    }
}

/// Turns away what asks for too much. A body is taken whole before anything else happens, so that none waits for it.
pub(crate) async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let limits = &gate.limits;
    let refuse =
        |status: StatusCode, words: &'static str| (status, [(header::RETRY_AFTER, "1")], words).into_response();
    if request.uri().path_and_query().is_some_and(|asked| asked.as_str().len() > limits.address_bytes) {
        return refuse(StatusCode::URI_TOO_LONG, "this address is too long\n");
    }
    let Ok(_permit) = gate.in_flight.try_acquire() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again\n");
    };
    let has_body = ![Method::GET, Method::HEAD].contains(request.method());
    let (head, body) = request.into_parts();
    let stated = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limits.body_bytes as u64) {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "this body is too long\n");
    }
    let body = match has_body {
        false => Body::empty(),
        true => match timeout(limits.patience, to_bytes(body, limits.body_bytes)).await {
            Ok(Ok(bytes)) => Body::from(bytes),
            Ok(Err(_)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "this body is too long, or broke off\n"),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "this body took too long to arrive\n"),
        },
    };
    match timeout(limits.answer, next.run(Request::from_parts(head, body))).await {
        Ok(response) => response,
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "this answer took too long; try again\n"),
    }
}
