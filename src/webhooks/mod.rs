//! Webhooks: each event is sent to the receivers that the settings name.
//!
//! One thread (`dispatcher.rs`) reads the history, decides what each receiver gets next (`delivery.rs`), and
//! writes down how far each has been served (`claim.rs`). Each receiver has a thread (`receiver.rs`) that sends
//! one message at a time. So a receiver that does not answer holds up nobody.

pub mod claim;
mod delivery;
mod dispatcher;
mod inbox;
mod message;
mod receiver;
mod status;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::claim::Claimant;
use self::dispatcher::Dispatcher;
pub use self::receiver::Trust;
use self::status::WebhookShare;
pub use self::status::{WebhookState, WebhookStatus};
use crate::config::Webhook;
use crate::domain::event::Event;
use crate::error::Error;
use crate::metrics::{Metrics, WebhookLabels};
use crate::store::Store;

/// Threads of this module that read from the store, if there are webhooks.
pub const READING_THREADS: u32 = 1;

/// The webhooks of a server.
pub struct Webhooks {
    settings: Vec<Webhook>,
    shared: Arc<WebhookShare>,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Webhooks {
    /// Prepares the webhooks. Nothing is sent before [`Self::start`].
    #[must_use]
    pub fn new(store: Arc<Store>, settings: Vec<Webhook>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { settings, shared: Arc::new(WebhookShare::new(store, metrics)) })
    }

    /// Claims the webhooks and starts the threads. The first events that a new webhook gets are those after
    /// this. `encode` writes the body of an event.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator, and errors of the store.
    pub fn start(
        &self,
        claimant: Claimant,
        encode: fn(&Event) -> Vec<u8>,
    ) -> Result<Option<JoinHandle<()>>, Error> {
        let known = self.shared.store.read(|rows| rows.webhooks(1))?.value;
        if self.settings.is_empty() && known.is_empty() {
            return Ok(None);
        }
        let names: Vec<_> = self.settings.iter().map(|webhook| webhook.name.clone()).collect();
        self.shared.store.write(move |set| claim::tidy(set, &names))?;
        if self.settings.is_empty() {
            return Ok(None);
        }
        let trust = Trust::of_this_machine(&self.settings)?;
        let mut dispatcher = Dispatcher::new(Arc::clone(&self.shared), claimant, encode);
        for webhook in &self.settings {
            dispatcher.add(webhook, &trust)?;
        }
        let clock = self.shared.store.clock().clock();
        let (commits, moves) = (Arc::clone(&self.shared.inbox), Arc::clone(&self.shared.inbox));
        self.shared.store.notifier().watch_events(move || commits.wake());
        clock.when_moved(move || moves.wake());
        dispatcher.start().map(Some)
    }

    /// The status of each webhook, in the order of the settings.
    #[must_use]
    pub fn statuses(&self) -> Vec<WebhookStatus> {
        self.shared.statuses()
    }

    /// Makes the next attempt of a webhook at once. Returns whether there is a webhook of this name.
    #[must_use]
    pub fn try_now(&self, name: &str) -> bool {
        let place = self.settings.iter().position(|webhook| webhook.name == name);
        place.map(|place| self.shared.inbox.hurry(place)).is_some()
    }

    /// Updates the gauges.
    pub fn show_metrics(&self) {
        for WebhookStatus { name, state, lag, .. } in self.statuses() {
            let labels = WebhookLabels { webhook: name };
            self.shared.metrics.webhook_lag.get_or_create(&labels).set(lag);
            let failing = i64::from(state == WebhookState::Failing);
            self.shared.metrics.webhook_failing.get_or_create(&labels).set(failing);
        }
    }

    /// Tells the thread to stop. It waits a moment for messages that are on their way.
    pub fn stop(&self) {
        self.shared.inbox.stop();
    }
}
