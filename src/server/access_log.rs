//! What is counted and logged of refusals and of connections that are cut off: the log gets a few lines a second,
//! whatever strangers do.

use std::sync::Arc;
use std::time::Duration;

use super::refusal::Refusal;
use crate::api::correlation_id::Client;
use crate::metrics::Metrics;

/// Most lines a second.
const LINES: u32 = 5;

/// Why a connection was ended without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing was asked on it for long.
    Idle,
    /// Its answer was left unread.
    Unread,
    /// Another needed its place.
    Room,
    /// It took the most memory when there was too little.
    Memory,
    /// The grace of a stop was over.
    Stopping,
}

impl Cut {
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

pub(super) struct Journal {
    metrics: Arc<Metrics>,
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Journal {
    pub(super) const fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, second: 0, lines: 0, left_out: 0 }
    }

    pub(super) fn refused(&mut self, refusal: Refusal, client: Client, now: Duration) {
        self.metrics.refusal(refusal.name());
        if self.may_log(now) {
            let (name, code) = (refusal.name(), refusal.code());
            log::info!(
                message = "refused", client:% = client, reason = name, status = code.status(), code = code.name();
                "{client} was refused: {} {} ({name}). {}", code.status(), code.name(), refusal.detail()
            );
        }
    }

    pub(super) fn cut(&mut self, cut: Cut, client: Client, now: Duration) {
        self.metrics.cut(cut.name());
        // To be idle is no news.
        if cut != Cut::Idle && self.may_log(now) {
            log::info!(
                message = "cut", client:% = client, reason = cut.name();
                "the connection of {client} was cut: {}", cut.name()
            );
        }
    }

    pub(super) fn cannot_accept(&mut self, error: &std::io::Error, now: Duration) {
        if self.may_log(now) {
            log::warn!("a connection cannot be accepted just now: {error}");
        }
    }

    pub(super) fn connected(&self, connections: usize) {
        self.metrics.connections_accepted.inc();
        self.count(connections);
    }

    pub(super) fn count(&self, connections: usize) {
        self.metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(super) fn held(&self, holds: usize) {
        self.metrics.held_requests.set(i64::try_from(holds).unwrap_or(i64::MAX));
    }

    fn may_log(&mut self, now: Duration) -> bool {
        if now.as_secs() != self.second {
            if self.left_out > 0 {
                log::info!("{} more refusals and cuts like these were not logged", self.left_out);
            }
            (self.second, self.lines, self.left_out) = (now.as_secs(), 0, 0);
        }
        if self.lines == LINES {
            self.left_out += 1;
            return false;
        }
        self.lines += 1;
        true
    }
}
