//! Metrics in the text format of Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::error::Limit;

macro_rules! labels {
    ($($(#[$about:meta])* $name:ident { $($label:ident: $kind:ty),* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
            pub struct $name { $(#[allow(missing_docs, reason = "the name of the label")] pub $label: $kind),* }
        )*
    };
}

labels! {
    /// `route` is the operation's name in the OpenAPI document, or `none`.
    RequestLabels { route: &'static str, status: u16 }
    /// `route` is the operation's name in the OpenAPI document, or `none`.
    RouteLabels { route: &'static str }
    /// `acquired`, `renewed`, `reclaimed`, `taken_over`, `held`, `fence_mismatch`, `takeover_forbidden` or `too_many`.
    OutcomeLabels { outcome: &'static str }
    /// [`Limit::name`]
    LimitLabels { limit: &'static str }
    /// Why a request was refused or a connection closed.
    ReasonLabels { reason: &'static str }
    /// The name of a webhook.
    WebhookLabels { webhook: String }
    /// The name of a webhook; `delivered` or `failed`.
    DeliveryLabels { webhook: String, outcome: &'static str }
}

/// The metrics: field, type, initial value, name, unit and description, each once. The description is the doc comment of
/// the field, too.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $new:expr, $name:literal $([$unit:ident])?, $help:literal;)*) => {
        /// All metrics of the server, counted since it started.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("lockhouse");
                let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
                registry.register("build", "The version of the server", version);
                $(
                    let $field: $kind = $new;
                    metrics!(@register registry, $name, $help, $field $(, $unit)?);
                )*
                Self { registry, $($field,)* }
            }
        }
    };
    (@register $registry:ident, $name:literal, $help:literal, $field:ident) => {
        $registry.register($name, $help, $field.clone());
    };
    (@register $registry:ident, $name:literal, $help:literal, $field:ident, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $field.clone());
    };
}

type CountBy<Labels> = Family<Labels, Counter>;
type PlainCounter = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

metrics! {
    requests: CountBy<RequestLabels> = Family::default(),
        "http_requests", "Requests answered, by operation and status";
    request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(durations),
        "http_request_duration" [Seconds], "Time from the receipt of a request to its response, by operation";
    connections: Level = Gauge::default(),
        "connections", "Open client connections";
    connections_accepted: PlainCounter = Counter::default(),
        "connections_accepted", "Accepted connections";
    refusals: CountBy<ReasonLabels> = Family::default(),
        "refusals", "Requests refused before they were parsed, by reason";
    cuts: CountBy<ReasonLabels> = Family::default(),
        "cuts", "Connections closed early by the server, by reason";
    held_requests: Level = Gauge::default(),
        "held_requests", "Parked requests: waiting for a lock, or event streams";
    waiters: Level = Gauge::default(),
        "waiters", "Requests that wait for a lock";
    followers: Level = Gauge::default(),
        "followers", "Open event streams";
    live_locks: Level = Gauge::default(),
        "live_locks", "Live locks";
    database_size: Level = Gauge::default(),
        "database_size" [Bytes], "Size of the database file";
    wal_size: Level = Gauge::default(),
        "wal_size" [Bytes], "Size of the database's write-ahead log";
    oldest_transaction: Level = Gauge::default(),
        "postgres_oldest_transaction_age", "Transactions since the oldest one for which PostgreSQL keeps dead rows";
    acquisitions: CountBy<OutcomeLabels> = Family::default(),
        "acquisitions", "Attempts to acquire a lock, by outcome";
    limited: CountBy<LimitLabels> = Family::default(),
        "limited", "Requests answered with 429, by the limit that was reached";
    expiries: PlainCounter = Counter::default(),
        "expiries", "Expired leases, counted when the expiry is stored";
    takeovers: PlainCounter = Counter::default(),
        "takeovers", "Live leases that were taken over";
    batch_size: Histogram = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
        "writer_batch_size", "Use cases in one transaction";
    commit_seconds: Histogram = durations(),
        "writer_commit_duration" [Seconds], "Duration of a commit, including the sync to disk";
    queue_depth: Level = Gauge::default(),
        "writer_queue_depth", "Use cases in the queue of the writer";
    checkpoint_failures: PlainCounter = Counter::default(),
        "checkpoint_failures", "Checkpoints of the write-ahead log that failed";
    webhook_deliveries: CountBy<DeliveryLabels> = Family::default(),
        "webhook_deliveries", "Attempts to deliver an event to a webhook, by outcome";
    webhook_lag: Family<WebhookLabels, Level> = Family::default(),
        "webhook_lag", "Events that the receiver of a webhook has not confirmed";
    webhook_failing: Family<WebhookLabels, Level> = Family::default(),
        "webhook_failing", "1 if the last attempt to deliver to a webhook failed";
    clock_corrections: PlainCounter = Counter::default(),
        "clock_corrections", "Steps of the wall clock that were corrected";
}

fn durations() -> Histogram {
    Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0])
}

impl Metrics {
    /// Counts an attempt to acquire a lock.
    pub fn acquisition(&self, outcome: &'static str) {
        self.acquisitions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a request that was answered with 429.
    pub fn limited(&self, limit: Limit) {
        self.limited.get_or_create(&LimitLabels { limit: limit.name() }).inc();
    }

    /// Counts an attempt to deliver an event to a webhook: `delivered` or `failed`.
    pub fn delivery(&self, webhook: &str, outcome: &'static str) {
        let labels = DeliveryLabels { webhook: webhook.to_owned(), outcome };
        self.webhook_deliveries.get_or_create(&labels).inc();
    }

    /// Counts a request that was refused before it was parsed.
    pub fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a connection that was closed without an answer.
    pub fn cut(&self, reason: &'static str) {
        self.cuts.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a request that was answered with `status` after `seconds`.
    pub fn request(&self, route: &'static str, status: u16, seconds: f64) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.request_seconds.get_or_create(&RouteLabels { route }).observe(seconds);
    }

    /// The Prometheus text, of type [`Self::CONTENT_TYPE`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        plain(&text)
    }

    /// The media type of [`Self::to_text`].
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
}

/// Converts OpenMetrics to the older text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>): a counter
/// is named as its samples, an info is a gauge, and there are no units and no end mark.
fn plain(open_metrics: &str) -> String {
    let kind = |name: &str| {
        let line = format!("# TYPE {name} ");
        open_metrics.lines().find_map(|found| found.strip_prefix(&line))
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (about, name) = match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), _) => continue,
            (Some("#"), Some(about @ ("HELP" | "TYPE")), Some(name)) => (about, name),
            _ => {
                text.extend([line, "\n"]);
                continue;
            }
        };
        let (suffix, shown) = match kind(name) {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            other => ("", other.unwrap_or("untyped")),
        };
        let rest = if about == "TYPE" { shown } else { words.next().unwrap_or_default() };
        text.extend(["# ", about, " ", name, suffix, " ", rest, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_prometheus_text_format() {
        let metrics = Metrics::default();
        metrics.request("readLock", 200, 0.002);
        let text = metrics.to_text();
        for expected in [
            "# HELP lockhouse_http_requests_total Requests answered, by operation and status.\n# TYPE lockhouse_http_requests_total counter\n\
             lockhouse_http_requests_total{route=\"readLock\",status=\"200\"} 1\n",
            "# TYPE lockhouse_build_info gauge\nlockhouse_build_info{version=",
            "# TYPE lockhouse_http_request_duration_seconds histogram\n",
            "lockhouse_http_request_duration_seconds_bucket{le=\"+Inf\",route=\"readLock\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT") && text.ends_with('\n'));
    }
}
