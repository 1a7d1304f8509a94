//! The request log: counts and logs answered requests.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::kv::Value;
use log::{Level, Record};

use super::exchange::{ClientAddress, Request, Response, Trace};
use crate::metrics::Metrics;
use crate::ops::log_limit::{LineLimit, Repeats};
use crate::time::Clock;

const TARGET: &str = "lockhouse::request";
/// Most refusals that are logged in a second.
const REFUSALS: u32 = 20;

/// Counts and logs responses.
pub struct RequestLog {
    metrics: Arc<Metrics>,
    clock: Clock,
    refusals: Mutex<(Repeats, LineLimit)>,
}

/// The data of a request that its log line shows.
pub(super) struct RequestLine {
    pub(super) request_id: String,
    /// The operation's name in the OpenAPI document, or the name of all pages. `None` for other requests.
    pub(super) route: Option<&'static str>,
    /// The level of the line if the request succeeds.
    pub(super) level: Level,
    pub(super) user_id: Option<String>,
    method: String,
    path: String,
    client: Option<IpAddr>,
    trace: Option<Trace>,
    started: Duration,
}

impl RequestLog {
    /// Counts in `metrics`, and measures durations with `clock`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { metrics, clock, refusals: Mutex::new((Repeats::default(), LineLimit::new(REFUSALS))) }
    }

    /// Starts the log line of a received request.
    pub(super) fn entry(&self, request: &Request) -> RequestLine {
        RequestLine {
            request_id: request.id.clone(),
            route: None,
            level: Level::Debug,
            user_id: None,
            method: truncated(&request.method).into_owned(),
            path: truncated(&request.path).into_owned(),
            client: request.client,
            trace: request.trace.clone(),
            started: self.clock.monotonic(),
        }
    }

    /// Counts and logs a response.
    pub(super) fn note(&self, entry: &RequestLine, response: &Response) {
        let now = self.clock.monotonic();
        let seconds = now.saturating_sub(entry.started).as_secs_f64();
        self.metrics.request(entry.route.unwrap_or("none"), response.status, seconds);
        let (level, repeats) = self.level(entry, response, now);
        if log::log_enabled!(target: TARGET, level) {
            entry.log(level, response, seconds, repeats);
        }
    }

    /// The level of a line, and how many refusals like this one were left out at `info` since the last one.
    fn level(&self, entry: &RequestLine, response: &Response, now: Duration) -> (Level, u64) {
        if response.status < 400 {
            return (entry.level, 0);
        }
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let (repeats, limit) = &mut *refusals;
        let what = (&entry.user_id, entry.client, &entry.method, &entry.path, response.status, response.code);
        match repeats.due(&what, now) {
            Some(count) if limit.allows(now) => (Level::Info, count),
            Some(_) | None => (Level::Debug, 0),
        }
    }
}

impl RequestLine {
    /// Writes the line. The query is left out, because it may contain secrets.
    fn log(&self, level: Level, response: &Response, seconds: f64, repeats: u64) {
        let client = ClientAddress(self.client);
        let duration_ms = (seconds * 1e5).round() / 1e2;
        let mut fields = vec![
            ("message", Value::from("request")),
            ("client", Value::from_display(&client)),
            ("method", Value::from(self.method.as_str())),
            ("path", Value::from(self.path.as_str())),
            ("status", Value::from(response.status)),
            ("code", Value::from(response.code.unwrap_or_default())),
            ("duration_ms", Value::from(duration_ms)),
        ];
        let mut text = format!("{client} {} {} {} ", self.method, self.path, response.status);
        response.code.iter().for_each(|code| text.extend([code, " "]));
        // Writing into a string does not fail.
        let _ = write!(text, "{duration_ms:.2} ms");
        let mut ids: Vec<_> = self.user_id.iter().map(|id| ("user_id", Value::from(id.as_str()))).collect();
        ids.push(("request_id", Value::from(self.request_id.as_str())));
        if let Some(Trace { trace_id, parent_id }) = &self.trace {
            ids.extend([
                ("trace_id", Value::from(trace_id.as_str())),
                ("parent_id", parent_id.as_str().into()),
            ]);
        }
        ids.extend((repeats > 0).then(|| ("repeats", Value::from(repeats))));
        for (name, value) in &ids {
            let _ = write!(text, " {name}={value:?}");
        }
        fields.extend(ids);
        let mut record = Record::builder();
        record.target(TARGET).level(level).key_values(&fields);
        log::logger().log(&record.args(format_args!("{text}")).build());
    }
}

/// Shortens a text for a log line.
fn truncated(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        Some(_) => Cow::Owned(text.chars().take(SHOWN - 1).chain(['…']).collect()),
        None => Cow::Borrowed(text),
    }
}
