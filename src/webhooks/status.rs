//! How webhooks do, and what the dispatcher shares with other threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::inbox::Inbox;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::time::WallTime;

/// How a webhook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// The receiver has all events.
    UpToDate,
    /// Events are on their way.
    Sending,
    /// The last attempt has failed.
    Failing,
    /// Another server sends.
    Elsewhere,
}

impl WebhookState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::UpToDate, Self::Sending, Self::Failing, Self::Elsewhere];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Sending => "sending",
            Self::Failing => "failing",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// The status of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// Scheme, host and port of its URL. The rest may be secret.
    pub origin: String,
    /// How it does.
    pub state: WebhookState,
    /// The receiver has confirmed the events up to this revision, or is not to get them.
    pub position: i64,
    /// The number of later revisions. 0 if another server sends.
    pub lag: i64,
    /// Failed attempts since the last confirmed message.
    pub failures: u32,
    /// When the first of them failed.
    pub failing_since: Option<WallTime>,
    /// Time until the next attempt, after a failed one.
    pub next_try_in: Option<Duration>,
    /// Why the last failed attempt failed, and when. It stays after the receiver has come back.
    pub last_error: Option<(WallTime, String)>,
    /// When a message was last confirmed.
    pub last_delivered_at: Option<WallTime>,
}

/// What the dispatcher shares with other threads.
pub(super) struct WebhookShare {
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) inbox: Arc<Inbox>,
    statuses: Mutex<Vec<WebhookStatus>>,
}

impl WebhookShare {
    pub(super) fn new(store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, inbox: Arc::default(), statuses: Mutex::default() }
    }

    /// Publishes the statuses. Their `lag` does not matter.
    pub(super) fn publish(&self, statuses: Vec<WebhookStatus>) {
        *self.lock() = statuses;
    }

    /// The statuses, with the current `lag`.
    pub(super) fn statuses(&self) -> Vec<WebhookStatus> {
        let mut statuses = self.lock().clone();
        let last = self.store.notifier().revision();
        for status in statuses.iter_mut().filter(|status| status.state != WebhookState::Elsewhere) {
            status.lag = last.saturating_sub(status.position).max(0);
        }
        statuses
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WebhookStatus>> {
        // No code panics while it holds the mutex.
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
