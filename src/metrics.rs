//! What is counted, and how Prometheus reads it.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::error::Limit;

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The operation's name in the OpenAPI document, or `none`.
    pub route: &'static str,
    /// The status of the answer.
    pub status: u16,
}

/// Labels of a request's duration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteLabels {
    /// The operation's name in the OpenAPI document, or `none`.
    pub route: &'static str,
}

/// Labels of an acquisition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `acquired`, `renewed`, `reclaimed`, `taken_over`, `held`, `fence_mismatch`, `takeover_forbidden` or `too_many`.
    pub outcome: &'static str,
}

/// Labels of what there was too much of.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LimitLabels {
    /// [`Limit::name`]
    pub limit: &'static str,
}

/// Labels of what the door turns away.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Why.
    pub reason: &'static str,
}

/// Everything that is counted since the server started.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from a request's head to its answer.
    pub request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Clients that are connected.
    pub connections: Gauge<i64, AtomicI64>,
    /// Connections that were accepted.
    pub connections_accepted: Counter<u64, AtomicU64>,
    /// Requests that the door refused.
    pub refusals: Family<ReasonLabels, Counter>,
    /// Connections that the door ended without a word.
    pub cuts: Family<ReasonLabels, Counter>,
    /// Requests whose answer is put off.
    pub held_requests: Gauge<i64, AtomicI64>,
    /// Clients that wait for a lock.
    pub waiters: Gauge<i64, AtomicI64>,
    /// Clients that follow the events.
    pub followers: Gauge<i64, AtomicI64>,
    /// Locks whose lease has not ended, when last asked.
    pub live_locks: Gauge<i64, AtomicI64>,
    /// Bytes of the database file, when last asked.
    pub database_size: Gauge<i64, AtomicI64>,
    /// Bytes of its write-ahead log, when last asked.
    pub wal_size: Gauge<i64, AtomicI64>,
    /// What became of the attempts to acquire a lock.
    pub acquisitions: Family<OutcomeLabels, Counter>,
    /// Requests answered with 429.
    pub limited: Family<LimitLabels, Counter>,
    /// Leases that ended because nobody renewed them, as far as somebody came across it.
    pub expiries: Counter<u64, AtomicU64>,
    /// Leases that somebody took over.
    pub takeovers: Counter<u64, AtomicU64>,
    /// Use cases in one transaction.
    pub batch_size: Histogram,
    /// Seconds that a commit took.
    pub commit_seconds: Histogram,
    /// Use cases that wait for the writer.
    pub queue_depth: Gauge<i64, AtomicI64>,
    /// How often the write-ahead log could not be folded in because of an error.
    pub checkpoint_failures: Counter<u64, AtomicU64>,
    /// How often somebody set the wall clock while the server ran.
    pub clock_corrections: Counter<u64, AtomicU64>,
}

fn durations() -> Histogram {
    Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("lockhouse"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(durations),
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            refusals: Family::default(),
            cuts: Family::default(),
            held_requests: Gauge::default(),
            waiters: Gauge::default(),
            followers: Gauge::default(),
            live_locks: Gauge::default(),
            database_size: Gauge::default(),
            wal_size: Gauge::default(),
            acquisitions: Family::default(),
            limited: Family::default(),
            expiries: Counter::default(),
            takeovers: Counter::default(),
            batch_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
            commit_seconds: durations(),
            queue_depth: Gauge::default(),
            checkpoint_failures: Counter::default(),
            clock_corrections: Counter::default(),
        };
        metrics.register()
    }
}

impl Metrics {
    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The version that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "http_requests",
            "Requests answered, by operation and status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer, by operation",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register("connections", "Clients that are connected", self.connections.clone());
        registry.register(
            "connections_accepted",
            "Connections that were accepted",
            self.connections_accepted.clone(),
        );
        registry.register(
            "refusals",
            "Requests refused before they were understood, by reason",
            self.refusals.clone(),
        );
        registry.register("cuts", "Connections ended without a word, by reason", self.cuts.clone());
        registry.register("held_requests", "Requests that wait for something", self.held_requests.clone());
        registry.register("waiters", "Clients that wait for a lock", self.waiters.clone());
        registry.register("followers", "Clients that follow the events", self.followers.clone());
        registry.register("live_locks", "Locks whose lease has not ended", self.live_locks.clone());
        registry.register_with_unit(
            "database_size",
            "Size of the database file",
            Unit::Bytes,
            self.database_size.clone(),
        );
        registry.register_with_unit(
            "wal_size",
            "Size of the database's write-ahead log",
            Unit::Bytes,
            self.wal_size.clone(),
        );
        registry.register(
            "acquisitions",
            "Attempts to acquire a lock, by outcome",
            self.acquisitions.clone(),
        );
        registry.register(
            "limited",
            "Requests refused because there were too many, by the limit that was met",
            self.limited.clone(),
        );
        registry.register(
            "expiries",
            "Leases that ended because nobody renewed them, counted when noticed",
            self.expiries.clone(),
        );
        registry.register("takeovers", "Live leases that somebody took over", self.takeovers.clone());
        registry.register("writer_batch_size", "Use cases in one transaction", self.batch_size.clone());
        registry.register_with_unit(
            "writer_commit_duration",
            "Time of a commit, to the disk",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register(
            "writer_queue_depth",
            "Use cases that wait for the writer",
            self.queue_depth.clone(),
        );
        registry.register(
            "checkpoint_failures",
            "Times that the write-ahead log could not be folded into the database because of an error",
            self.checkpoint_failures.clone(),
        );
        registry.register(
            "clock_corrections",
            "Times that somebody set the wall clock while the server ran",
            self.clock_corrections.clone(),
        );
        self
    }

    /// One attempt to acquire, with what became of it.
    pub fn acquisition(&self, outcome: &'static str) {
        self.acquisitions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// One request that was answered with 429.
    pub fn limited(&self, limit: Limit) {
        self.limited.get_or_create(&LimitLabels { limit: limit.name() }).inc();
    }

    /// One request that the door refused.
    pub fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// One connection that the door ended without a word.
    pub fn cut(&self, reason: &'static str) {
        self.cuts.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// One request, answered with `status` after `seconds`.
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

/// OpenMetrics as the older text format, which everybody reads
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>): there a counter is called what its samples are, an
/// info is a gauge, and there are no units and no end.
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
    fn what_is_measured_reads_as_prometheus_text() {
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
