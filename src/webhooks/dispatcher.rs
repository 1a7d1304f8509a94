//! The thread that reads the history for all webhooks, and hands each receiver its next message.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use ureq::http::Uri;

use super::claim::{self, Claimant};
use super::delivery::{Delivery, Failing, HistoryPage};
use super::inbox::News;
use super::receiver::{Outcome, Receiver, Trust};
use super::status::{WebhookShare, WebhookState, WebhookStatus};
use crate::config::Webhook;
use crate::domain::event::Event;
use crate::error::Error;
use crate::store::{Keys, WorkingSet};
use crate::time::{Clock, Ttl};

/// Most events of one read.
const PAGE: u32 = 100;
/// The thread wakes up at least this often.
const IDLE: Duration = Duration::from_secs(60);
/// Pause after the store could not be read or written.
const ERROR_RETRY: Duration = Duration::from_secs(1);
/// A position that moved only over events that the receiver is not to get is written down this often.
const STORE_SKIPPED: Duration = Duration::from_secs(10);
/// A claim is renewed this often before it ends.
const RENEWALS: u32 = 3;
/// How long a stop waits for messages that are on their way.
const STOP_WAIT: Duration = Duration::from_millis(500);

/// A webhook and its thread.
struct Lane {
    delivery: Delivery,
    receiver: Receiver,
    origin: String,
    /// Whether this server sends.
    is_ours: bool,
    /// The position that is written down.
    stored: i64,
    /// A write of the position, or a claim, has not been answered yet.
    is_storing: bool,
    /// The position moved because of a confirmed message since it was last written down.
    is_delivered: bool,
    /// When the last write was submitted, and before when no other is, on the monotonic clock.
    stored_at: Duration,
    store_not_before: Duration,
    /// The claim is good for its length from this time on.
    claimed_at: Duration,
}

pub(super) struct Dispatcher {
    shared: Arc<WebhookShare>,
    claimant: Claimant,
    encode: fn(&Event) -> Vec<u8>,
    lanes: Vec<Lane>,
    random: SystemRandom,
    /// Whether the last read of the store failed.
    cannot_read: bool,
}

impl Dispatcher {
    pub(super) fn new(shared: Arc<WebhookShare>, claimant: Claimant, encode: fn(&Event) -> Vec<u8>) -> Self {
        let (lanes, random) = (Vec::new(), SystemRandom::new());
        Self { shared, claimant, encode, lanes, random, cannot_read: false }
    }

    /// Claims a webhook, and starts its thread.
    pub(super) fn add(&mut self, webhook: &Webhook, trust: &Trust) -> Result<(), Error> {
        let place = self.lanes.len();
        let clock = self.clock();
        let now = clock.monotonic();
        let claimed = self.shared.store.write(self.claiming(webhook.name.clone()))?.value;
        let position = claimed.unwrap_or_default();
        let inbox = Arc::clone(&self.shared.inbox);
        let done = move |outcome| inbox.push(News::Attempted(place, outcome));
        self.lanes.push(Lane {
            delivery: Delivery::new(webhook.clone(), position),
            receiver: Receiver::start(webhook, trust, clock, done).map_err(no_thread)?,
            origin: origin(&webhook.url),
            is_ours: claimed.is_some(),
            stored: position,
            is_storing: false,
            is_delivered: false,
            stored_at: now,
            store_not_before: Duration::ZERO,
            claimed_at: now,
        });
        Ok(())
    }

    pub(super) fn start(self) -> Result<JoinHandle<()>, Error> {
        self.show();
        Builder::new().name("webhooks".to_owned()).spawn(move || self.run()).map_err(no_thread)
    }

    fn clock(&self) -> Clock {
        self.shared.store.clock().clock().clone()
    }

    fn claiming(
        &self,
        name: String,
    ) -> impl Fn(&WorkingSet<'_>) -> Result<Option<i64>, Error> + Send + use<> {
        let claimant = self.claimant.clone();
        move |set| claim::claim(set, &name, &claimant)
    }

    fn run(mut self) {
        let mut timeout = Duration::ZERO;
        loop {
            let (news, is_stopping) = self.shared.inbox.wait(timeout);
            self.learn_all(news);
            if is_stopping {
                break;
            }
            let now = self.clock().monotonic();
            timeout = (0..self.lanes.len()).map(|place| self.step(place, now)).min().unwrap_or(IDLE);
            self.show();
        }
        self.finish();
    }

    fn learn_all(&mut self, news: Vec<News>) {
        for news in news {
            self.learn(news);
        }
    }

    fn learn(&mut self, news: News) {
        let now = self.clock().monotonic();
        let (place, stored) = match news {
            News::Attempted(place, outcome) => return self.attempted(place, outcome),
            News::Hurry(place) => {
                return self.lanes.get_mut(place).map_or((), |lane| lane.delivery.hurry());
            }
            News::Stored(place, position, Ok(is_ours)) => (place, Ok(is_ours.then_some(position))),
            News::Stored(place, _, Err(error)) => (place, Err(error)),
            News::Claimed(place, claimed) => (place, claimed),
        };
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.is_storing = false;
        match stored {
            Ok(Some(position)) => {
                if !lane.is_ours {
                    lane.delivery.begin_at(position);
                }
                lane.stored = position;
                lane.is_ours = true;
                lane.claimed_at = lane.stored_at;
            }
            Ok(None) => lane.is_ours = false,
            Err(error) => {
                log::debug!(
                    "the position of webhook {} is not written down: {error}",
                    lane.delivery.webhook.name
                );
                lane.store_not_before = now.saturating_add(ERROR_RETRY);
            }
        }
    }

    fn attempted(&mut self, place: usize, outcome: Outcome) {
        let (clock, chance) = (self.clock(), self.chance());
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let (name, delivery) = (lane.delivery.webhook.name.clone(), &mut lane.delivery);
        let outcome_label = if outcome.is_ok() { "delivered" } else { "failed" };
        match outcome {
            Ok(()) => {
                lane.is_delivered = true;
                if let Some(Failing { attempts, .. }) = delivery.confirmed(clock.wall()) {
                    log::info!(
                        "webhook {name}: {} confirms again, after {attempts} failed attempts",
                        lane.origin
                    );
                }
            }
            Err(error) => {
                let warning = format!("has not confirmed an event: {error}; it is tried again until it does");
                if delivery.failed(error, clock.monotonic(), clock.wall(), chance) {
                    log::warn!("webhook {name}: {} {warning}", lane.origin);
                }
            }
        }
        self.shared.metrics.delivery(&name, outcome_label);
    }

    fn chance(&self) -> u16 {
        let mut bytes = [0; 2];
        // Without chance the pauses are the shortest.
        let _ = self.random.fill(&mut bytes);
        u16::from_ne_bytes(bytes)
    }

    /// Does what is due for one webhook. Returns the time until the next step.
    fn step(&mut self, place: usize, now: Duration) -> Duration {
        let sends = match self.send(place, now) {
            Ok(timeout) => {
                self.cannot_read = false;
                timeout
            }
            Err(error) => {
                if !std::mem::replace(&mut self.cannot_read, true) {
                    log::warn!("cannot read events for the webhooks: {error}; they are tried again");
                }
                ERROR_RETRY
            }
        };
        sends.min(self.store(place, now))
    }

    /// Hands the receiver its next message, if it is due.
    fn send(&mut self, place: usize, now: Duration) -> Result<Duration, Error> {
        let store = Arc::clone(&self.shared.store);
        let (wall, end) = (self.clock().wall(), store.notifier().revision());
        let Some(lane) = self.lanes.get_mut(place) else { return Ok(IDLE) };
        let delivery = &mut lane.delivery;
        // If the store cannot be written, another server may have claimed it in the meantime.
        let is_over = |ttl: Ttl| now >= lane.claimed_at.saturating_add(whole(ttl));
        if !lane.is_ours || delivery.is_on_its_way() || self.claimant.ttl.is_some_and(is_over) {
            return Ok(IDLE);
        }
        if !delivery.is_due(now) {
            return Ok(delivery.not_before.saturating_sub(now));
        }
        if let Some(after) = delivery.reads_after(end) {
            let page = store.read(|rows| {
                let mut events = rows.events_after(after, PAGE)?;
                let is_last = events.len() < usize::try_from(PAGE).unwrap_or_default();
                // Events that a failed commit has left are not there.
                events.retain(|event| event.revision <= end);
                Ok(HistoryPage { events, is_last, kept: rows.revisions()? })
            })?;
            let (position, is_last) = (delivery.position, page.value.is_last);
            if delivery.take(page.value, wall) {
                log::info!(
                    "webhook {}: the events after revision {position} are no longer kept; a reset is sent instead",
                    delivery.webhook.name
                );
            } else if !is_last && delivery.reads_after(end).is_some() {
                return Ok(Duration::ZERO);
            }
        }
        if let Some(message) = delivery.next(self.encode, end) {
            lane.receiver.send(message);
        }
        Ok(IDLE)
    }

    /// Submits the position to the writer, if it is to be written down. Never waits.
    fn store(&mut self, place: usize, now: Duration) -> Duration {
        let renew_after = self.claimant.ttl.map(|ttl| whole(ttl) / RENEWALS);
        let Some(lane) = self.lanes.get(place) else { return IDLE };
        if lane.is_storing || (!lane.is_ours && lane.delivery.is_on_its_way()) {
            return IDLE;
        }
        let due_after = if !lane.is_ours {
            Some(renew_after.unwrap_or(STORE_SKIPPED))
        } else if lane.delivery.position == lane.stored {
            renew_after
        } else if lane.is_delivered {
            Some(Duration::ZERO)
        } else {
            Some(STORE_SKIPPED.min(renew_after.unwrap_or(STORE_SKIPPED)))
        };
        let Some(due_after) = due_after else { return IDLE };
        let due = lane.stored_at.saturating_add(due_after).max(lane.store_not_before);
        if due > now {
            return due.saturating_sub(now);
        }
        let (name, position) = (lane.delivery.webhook.name.clone(), lane.delivery.position);
        let (store, inbox) = (&self.shared.store, Arc::clone(&self.shared.inbox));
        if lane.is_ours {
            let claimant = self.claimant.clone();
            store.submit(
                Keys::default(),
                move |set| claim::advance(set, &name, &claimant, position),
                move |stored| inbox.push(News::Stored(place, position, stored.map(|stored| stored.value))),
            );
        } else {
            store.submit(Keys::default(), self.claiming(name), move |claimed| {
                inbox.push(News::Claimed(place, claimed.map(|claimed| claimed.value)));
            });
        }
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.is_storing = true;
            lane.is_delivered = false;
            lane.stored_at = now;
        }
        IDLE
    }

    /// Waits a moment for messages that are on their way, and writes the positions down.
    fn finish(mut self) {
        // The manual clock of a test does not move here.
        let clock = Clock::system();
        while self.lanes.iter().any(|lane| lane.delivery.is_on_its_way()) {
            let left = STOP_WAIT.saturating_sub(clock.monotonic());
            if left.is_zero() {
                break;
            }
            let (news, _) = self.shared.inbox.wait(left);
            self.learn_all(news);
        }
        let given_up = Claimant { ttl: None, ..self.claimant };
        for Lane { delivery, receiver, is_ours, stored, .. } in self.lanes {
            let (name, position, claimant) = (delivery.webhook.name, delivery.position, given_up.clone());
            if is_ours && (position != stored || !claimant.owner.is_empty()) {
                let written =
                    self.shared.store.write(move |set| claim::advance(set, &name, &claimant, position));
                if let Err(error) = written {
                    log::warn!(
                        "the position of a webhook is not written down: {error}; it gets some events again"
                    );
                }
            }
            receiver.hang_up();
        }
    }

    /// Publishes the statuses.
    fn show(&self) {
        let now = self.clock().monotonic();
        let status = |lane: &Lane| {
            let delivery = &lane.delivery;
            let failing = delivery.failing.as_ref();
            let state = match failing {
                _ if !lane.is_ours => WebhookState::Elsewhere,
                Some(_) => WebhookState::Failing,
                None if delivery.is_on_its_way() => WebhookState::Sending,
                None => WebhookState::UpToDate,
            };
            let waits = failing.is_some() && !delivery.is_on_its_way();
            WebhookStatus {
                name: delivery.webhook.name.clone(),
                origin: lane.origin.clone(),
                state,
                position: delivery.position,
                lag: 0,
                failures: failing.map_or(0, |failing| failing.attempts),
                failing_since: failing.map(|failing| failing.since),
                next_try_in: waits.then(|| delivery.not_before.saturating_sub(now)),
                last_error: delivery.last_error.clone(),
                last_delivered_at: delivery.last_delivered_at,
            }
        };
        self.shared.publish(self.lanes.iter().map(status).collect());
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it fits `map_err`")]
fn no_thread(error: io::Error) -> Error {
    Error::Internal(format!("cannot start a thread: {error}"))
}

fn whole(ttl: Ttl) -> Duration {
    Duration::from_millis(ttl.as_millis().unsigned_abs())
}

/// The scheme, host and port of a URL.
fn origin(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let origin = uri.and_then(|uri| Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?)));
    origin.unwrap_or_default()
}
