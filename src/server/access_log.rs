//! Counts and logs refusals and disconnections. The number of log lines is limited.

use std::sync::Arc;
use std::time::Duration;

use super::refusal::HttpRefusal;
use super::socket::Peer;
use crate::api::exchange::ClientAddress;
use crate::metrics::Metrics;
use crate::ops::log_limit::LineLimit;

/// Maximum number of log lines per second.
const LINES: u32 = 5;

/// Why a connection was closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The idle timeout expired.
    Idle,
    /// The client did not read its answer in time.
    Unread,
    /// There were too many connections.
    Room,
    /// Memory was short, and this connection was chosen to free some.
    Memory,
    /// The time limit of the shutdown expired.
    Stopping,
}

impl CloseReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unread => "unread",
            Self::Room => "room",
            Self::Memory => "memory",
            Self::Stopping => "stopping",
        }
    }
}

pub(super) struct AccessLog {
    metrics: Arc<Metrics>,
    limit: LineLimit,
}

impl AccessLog {
    pub(super) const fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, limit: LineLimit::new(LINES) }
    }

    pub(super) fn refused(&mut self, refusal: HttpRefusal, peer: Peer, now: Duration) {
        self.metrics.refusal(refusal.name());
        if self.limit.allows(now) {
            let (name, code, client) = (refusal.name(), refusal.code(), shown(peer));
            log::info!(
                message = "refused", client:% = client, reason = name, status = code.status(), code = code.name();
                "{client} was refused: {} {} ({name}). {}", code.status(), code.name(), refusal.detail()
            );
        }
    }

    pub(super) fn close_early(&mut self, reason: CloseReason, peer: Peer, now: Duration) {
        self.metrics.cut(reason.name());
        // Idle connections are normal and are not logged.
        if reason != CloseReason::Idle && self.limit.allows(now) {
            let client = shown(peer);
            log::info!(
                message = "cut", client:% = client, reason = reason.name();
                "the connection of {client} was closed without an answer: {}", reason.name()
            );
        }
    }

    pub(super) fn cannot_accept(&mut self, error: &std::io::Error, now: Duration) {
        if self.limit.allows(now) {
            log::warn!("cannot accept a connection: {error}");
        }
    }

    pub(super) fn connected(&self, connections: usize) {
        self.metrics.connections_accepted.inc();
        self.count(connections);
    }

    pub(super) fn count(&self, connections: usize) {
        self.metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(super) fn parked(&self, requests: usize) {
        self.metrics.held_requests.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }
}

const fn shown(peer: Peer) -> ClientAddress {
    match peer {
        Peer::Ip(address) => ClientAddress(Some(address)),
        Peer::Local => ClientAddress(None),
    }
}
