//! The request log: counts and logs answered requests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::exchange::{ClientAddress, Request, Response};
use super::pages;
use super::routes::{RENEW, RENEW_MANY};
use crate::metrics::Metrics;
use crate::time::Clock;

/// Operations that are logged at `debug` when they succeed: they are frequent, and a line adds nothing new.
const ROUTINE: [&str; 3] = [pages::NAME, RENEW, RENEW_MANY];

/// Counts and logs responses.
#[derive(Debug)]
pub struct RequestLog {
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// The data of a request that its log line shows.
pub(super) struct RequestLine {
    pub(super) request_id: String,
    /// The operation's name in the OpenAPI document, or the name of all pages. `None` for other requests.
    pub(super) route: Option<&'static str>,
    pub(super) user_id: Option<String>,
    method: String,
    path: String,
    client: Option<IpAddr>,
    started: Duration,
}

impl RequestLog {
    /// Counts in `metrics`, and measures durations with `clock`.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { metrics, clock }
    }

    /// Starts the log line of a received request.
    pub(super) fn entry(&self, request: &Request) -> RequestLine {
        RequestLine {
            request_id: request.id.clone(),
            route: None,
            user_id: None,
            method: shortened(&request.method).into_owned(),
            path: shortened(&request.path).into_owned(),
            client: request.client,
            started: self.clock.monotonic(),
        }
    }

    /// Counts and logs a response. The query is left out, because it may contain secrets.
    pub(super) fn note(&self, entry: &RequestLine, response: &Response) {
        let RequestLine { request_id: id, route, method, path, .. } = entry;
        let status = response.status;
        let seconds = self.clock.monotonic().saturating_sub(entry.started).as_secs_f64();
        self.metrics.request(route.unwrap_or("none"), status, seconds);
        let is_routine = status < 400 && route.is_some_and(|route| ROUTINE.contains(&route));
        let level = if is_routine { log::Level::Debug } else { log::Level::Info };
        if !log::log_enabled!(target: "lockhouse::request", level) {
            return;
        }
        let (id, method, path) = (id.as_str(), method.as_str(), path.as_str());
        let user = entry.user_id.as_deref().unwrap_or_default();
        let client = ClientAddress(entry.client);
        let code = response.code.unwrap_or_default();
        let space = if code.is_empty() { "" } else { " " };
        let duration_ms = (seconds * 1e5).round() / 1e2;
        log::log!(
            target: "lockhouse::request",
            level,
            message = "request", id = id, client:% = client, method = method, path = path, status = status, code = code, duration_ms = duration_ms, user = user;
            "{client} {method} {path} {status}{space}{code} {duration_ms:.2} ms user={user:?} id={id}"
        );
    }
}

/// Shortens a text for a log line.
fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        Some(_) => Cow::Owned(text.chars().take(SHOWN - 1).chain(['…']).collect()),
        None => Cow::Borrowed(text),
    }
}
