//! The delivery of one webhook: what comes next, and when. Pure: the time and chance are arguments.
//!
//! One message is on its way at a time, so the receiver gets the events in their order. A message that is not
//! confirmed is sent again until it is. What was read ahead is then dropped, and read again before the next
//! attempt: if the history has lost it in the meantime, a reset takes its place.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::Message;
use crate::config::Webhook;
use crate::domain::event::Event;
use crate::store::RevisionRange;
use crate::time::WallTime;

/// The first pause after a failed attempt. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. A receiver that comes back is served within this time.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A page of the history.
pub(super) struct HistoryPage {
    pub(super) events: Vec<Event>,
    /// Whether there are no events after these.
    pub(super) is_last: bool,
    /// The revisions in the history, read after the events.
    pub(super) kept: RevisionRange,
}

/// Failed attempts since the last successful one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) since: WallTime,
    pub(super) attempts: u32,
}

/// The delivery of one webhook.
pub(super) struct Delivery {
    pub(super) webhook: Webhook,
    /// The receiver has confirmed the events up to this revision, or is not to get them.
    pub(super) position: i64,
    /// Events after `position` that the receiver is to get.
    ahead: VecDeque<Event>,
    /// The events up to this revision have been read.
    read_to: i64,
    /// Events after `position` are lost: a reset is sent until it is confirmed.
    reset: Option<Message>,
    /// The position after the message that is on its way is confirmed.
    on_its_way: Option<i64>,
    /// No attempt is made before this time, on the monotonic clock.
    pub(super) not_before: Duration,
    /// The next attempt is to be made at once, also if the current one fails.
    is_hurried: bool,
    pub(super) failing: Option<Failing>,
    pub(super) last_error: Option<(WallTime, String)>,
    pub(super) last_delivered_at: Option<WallTime>,
}

impl Delivery {
    pub(super) fn new(webhook: Webhook, position: i64) -> Self {
        Self {
            webhook,
            position,
            ahead: VecDeque::new(),
            read_to: position,
            reset: None,
            on_its_way: None,
            not_before: Duration::ZERO,
            is_hurried: false,
            failing: None,
            last_error: None,
            last_delivered_at: None,
        }
    }

    /// Begins again at `position`. What is on its way stays so.
    pub(super) fn begin_at(&mut self, position: i64) {
        self.position = position;
        self.drop_ahead();
        self.reset = None;
    }

    fn drop_ahead(&mut self) {
        self.ahead.clear();
        self.read_to = self.position;
    }

    pub(super) const fn is_on_its_way(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// Whether an attempt may be made.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.on_its_way.is_none() && self.not_before <= now
    }

    /// The position after which events are to be read, if there may be some before `end` and none is waiting to
    /// be sent.
    pub(super) fn reads_after(&self, end: i64) -> Option<i64> {
        let reads = self.reset.is_none() && self.ahead.is_empty() && self.read_to != end;
        reads.then_some(self.read_to)
    }

    /// Takes the events after `read_to`. Returns whether the history has lost some of them.
    pub(super) fn take(&mut self, page: HistoryPage, now: WallTime) -> bool {
        let next = self.read_to.saturating_add(1);
        let found = page.events.first().map(|event| event.revision);
        // A revision above the last one belongs to another or a restored database.
        if (next < page.kept.first && found != Some(next)) || self.read_to > page.kept.last {
            self.drop_ahead();
            self.reset = Some(Message::reset(self.position, now));
            return true;
        }
        if let Some(last) = page.events.last() {
            self.read_to = last.revision;
        }
        let webhook = &self.webhook;
        self.ahead.extend(page.events.into_iter().filter(|event| is_wanted(webhook, event)));
        if self.ahead.is_empty() {
            self.position = self.read_to;
        }
        false
    }

    /// The next message. It counts as on its way. `end` is the last revision.
    pub(super) fn next(&mut self, encode: fn(&Event) -> Vec<u8>, end: i64) -> Option<Message> {
        let (message, position) = match (&self.reset, self.ahead.front()) {
            // The receiver reads the state after this, so it needs nothing up to now.
            (Some(reset), _) => (reset.clone(), end),
            (None, Some(event)) => (Message::of(event, encode(event)), event.revision),
            (None, None) => return None,
        };
        self.on_its_way = Some(position);
        Some(message)
    }

    /// The receiver has confirmed the message. Returns the attempts that had failed before.
    pub(super) fn confirmed(&mut self, now: WallTime) -> Option<Failing> {
        let position = self.on_its_way.take()?;
        self.is_hurried = false;
        self.last_delivered_at = Some(now);
        self.position = position;
        if self.reset.take().is_some() {
            self.drop_ahead();
        } else {
            self.ahead.pop_front();
            if self.ahead.is_empty() {
                self.position = self.position.max(self.read_to);
            }
        }
        self.failing.take()
    }

    /// An attempt has failed. `chance` is random. Returns whether it is the first one.
    pub(super) fn failed(&mut self, error: String, now: Duration, wall: WallTime, chance: u16) -> bool {
        self.on_its_way = None;
        self.drop_ahead();
        let failing = self.failing.get_or_insert(Failing { since: wall, attempts: 0 });
        failing.attempts = failing.attempts.saturating_add(1);
        let pause = if std::mem::take(&mut self.is_hurried) {
            Duration::ZERO
        } else {
            pause(failing.attempts, chance)
        };
        self.not_before = now.saturating_add(pause);
        self.last_error = Some((wall, error));
        self.failing.as_ref().is_some_and(|failing| failing.attempts == 1)
    }

    /// Makes the next attempt at once.
    pub(super) fn hurry(&mut self) {
        self.not_before = Duration::ZERO;
        self.is_hurried = self.is_on_its_way();
    }
}

fn is_wanted(webhook: &Webhook, event: &Event) -> bool {
    (webhook.events.is_empty() || webhook.events.contains(&event.event_type))
        && event.workspace_id.as_str().starts_with(&webhook.workspace_prefix)
}

/// The pause after this number of failed attempts: between half of it and all of it, by chance, so that
/// receivers that fail together are not tried again together.
fn pause(attempts: u32, chance: u16) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    longest / 2 + (longest / 2).saturating_mul(u32::from(chance)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary_by_half() {
        let milliseconds = |attempts, chance| pause(attempts, chance).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 5, 99].map(|attempts| milliseconds(attempts, u16::MAX)),
            [500, 1_000, 2_000, 4_000, 5_000, 5_000]
        );
        assert_eq!([1, 2, 99].map(|attempts| milliseconds(attempts, 0)), [250, 500, 2_500]);
        let silent = Webhook::default().answer_within + pause(u32::MAX, u16::MAX);
        assert!(silent < Duration::from_secs(35), "a silent receiver is tried again within 35 s: {silent:?}");
    }
}
