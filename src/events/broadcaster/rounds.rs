//! The rounds of the events thread.
//!
//! Events are read from the history, in the order of their revisions. A commit only wakes the thread. Each follower has
//! a position in the history, so past and new events come by the same way. Followers at the end of the history share one
//! read. Followers behind it are served in turn, with a limited amount of work in each round.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use super::super::followers::{EncodedEvent, EncodedPage, Follower, Followers, SINK_FULL};
use super::super::subscription::{EventEncoder, StartFrom};
use super::Broadcaster;
use crate::domain::event::{Event, EventType};
use crate::domain::{Fence, Lock, WorkspaceId};
use crate::error::Error;
use crate::store::RevisionRange;
use crate::time::Timestamp;

/// Interval of keep-alive comments, so that no proxy takes the stream for dead. Permission is checked as often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most events of one read.
const PAGE: u32 = 200;
/// Most reads in one round for followers at the end of the history.
const PAGES_A_ROUND: usize = 16;
/// Work in one round for followers behind the end. One unit is one event read, or one role looked up. Other followers and
/// the timer wait for a round, which takes a few milliseconds.
const WORK_A_ROUND: usize = 4_000;
/// Units of work for sending a page to one follower.
const SEND_COST: usize = 20;
/// A follower that was at the end, is this many events behind, and takes no more, gets a `reset`.
const MAX_LAG: i64 = 1_000;
/// Interval at which full sinks are tried again.
const FULL_RETRY: Duration = Duration::from_millis(20);

/// What is left to send after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Backlog {
    Nothing,
    /// Only followers with full sinks are behind.
    Full,
    More,
}

impl Broadcaster {
    /// Sends a limited number of events. Returns how long the thread may sleep unless it is woken.
    pub(super) fn round(&self, all: &mut Followers, encoder: EventEncoder) -> Result<Duration, Error> {
        all.streams.retain(|follower| !follower.sink.is_gone());
        if all.streams.is_empty() {
            // A new follower reads from the history, so nothing is missed.
            all.end = self.store.notifier().revision();
        }
        self.add_new_followers(&mut all.streams, all.end, encoder)?;
        let count = all.streams.len();
        self.metrics.followers.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.store.notifier().wake_on_every_commit(count > 0 || !self.store.queue().is_empty());
        if count == 0 {
            return Ok(KEEP_ALIVE);
        }
        let backlog = self.send(all, encoder)?.max(self.catch_up(all, encoder)?);
        let until_keep_alive = self.send_keep_alives(&mut all.streams, encoder);
        Ok(match backlog {
            Backlog::Nothing => until_keep_alive,
            Backlog::Full => until_keep_alive.min(FULL_RETRY),
            Backlog::More => Duration::ZERO,
        })
    }

    fn add_new_followers(
        &self,
        followers: &mut Vec<Follower>,
        end: i64,
        encoder: EventEncoder,
    ) -> Result<(), Error> {
        let new_followers =
            std::mem::take(&mut *self.new_followers.lock().unwrap_or_else(PoisonError::into_inner));
        if new_followers.is_empty() {
            return Ok(());
        }
        let keep_alive = self.chunk(encoder.keep_alive);
        for mut follower in new_followers {
            // The client learns at once that the stream is open.
            let mut is_open = follower.sink.push(&keep_alive);
            follower.revision = match follower.subscription.from {
                StartFrom::Now => end,
                StartFrom::After(revision) => {
                    let RevisionRange { first, last } = self.revisions()?;
                    // A revision above the last one belongs to another or a restored database.
                    if revision > last || revision + 1 < first {
                        is_open = follower.sink.push(&self.chunk(&(encoder.reset)(last)));
                        last
                    } else {
                        revision
                    }
                }
            };
            if is_open {
                followers.push(follower);
            }
        }
        Ok(())
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        self.store.read(|rows| rows.revisions()).map(|kept| kept.value)
    }

    /// Sends new events to followers at the end of the history.
    fn send(&self, all: &mut Followers, encoder: EventEncoder) -> Result<Backlog, Error> {
        let Followers { streams: followers, end, .. } = all;
        for _ in 0..PAGES_A_ROUND {
            if *end >= self.store.notifier().revision() {
                return Ok(Backlog::Nothing);
            }
            let newest = self.store.notifier().revision();
            let mut page = self.page(*end, encoder)?;
            if *end + 1 < page.kept_from {
                // What came in between is lost, or was deleted.
                for follower in followers.iter_mut().filter(|follower| follower.revision >= *end) {
                    follower.sink.push(&self.chunk(&(encoder.reset)(newest)));
                    follower.revision = newest;
                }
                *end = newest;
                continue;
            }
            let Some(last) = page.events.last().map(|event| event.revision) else {
                return Ok(Backlog::Nothing);
            };
            for follower in followers.iter_mut().filter(|follower| follower.revision >= *end) {
                page.send(follower, &self.store)?;
            }
            *end = last;
        }
        Ok(Backlog::More)
    }

    /// Sends missed events to followers behind the end, each in turn.
    fn catch_up(&self, all: &mut Followers, encoder: EventEncoder) -> Result<Backlog, Error> {
        let Followers { streams: followers, end, next_turn } = all;
        let (end, first) = (*end, *next_turn % followers.len().max(1));
        *next_turn = first;
        // Followers at the same position share a page.
        let mut pages: HashMap<i64, EncodedPage> = HashMap::new();
        let (mut work, mut backlog) = (WORK_A_ROUND, Backlog::Nothing);
        let (later, sooner) = followers.split_at_mut(first);
        for (passed, follower) in sooner.iter_mut().chain(later).enumerate() {
            if follower.revision >= end {
                follower.caught_up = true;
                continue;
            }
            if follower.sink.behind() >= SINK_FULL {
                if follower.caught_up && end - follower.revision > MAX_LAG {
                    follower.sink.push(&self.chunk(&(encoder.reset)(end)));
                    follower.end();
                }
                backlog = backlog.max(Backlog::Full);
                continue;
            }
            if work == 0 {
                *next_turn = first + passed;
                return Ok(Backlog::More);
            }
            let page = match pages.entry(follower.revision) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(revision) => {
                    let page = revision.insert(self.page(follower.revision, encoder)?);
                    work = work.saturating_sub(page.events.len());
                    page
                }
            };
            if follower.revision + 1 < page.kept_from {
                follower.sink.push(&self.chunk(&(encoder.reset)(end)));
                follower.revision = end;
                continue;
            }
            let before = page.looked_up;
            page.send(follower, &self.store)?;
            let looked_up = page.looked_up - before;
            work = work.saturating_sub(SEND_COST + follower.subscription.workspaces.len() + looked_up);
            if follower.revision < end {
                let stuck = page.events.is_empty() || follower.sink.behind() >= SINK_FULL;
                backlog = backlog.max(if stuck { Backlog::Full } else { Backlog::More });
            }
        }
        Ok(backlog)
    }

    /// Reads and encodes the events after a revision.
    fn page(&self, after: i64, encoder: EventEncoder) -> Result<EncodedPage, Error> {
        let notifier = self.store.notifier();
        let last = notifier.revision();
        // `kept_from` is read after the events: events deleted in between are noticed.
        let found = self.store.read(|rows| {
            let events = rows.events_after(after, PAGE)?;
            // Together: a database on another machine is asked once for each.
            let concerned: HashSet<_> = events.iter().map(|event| &event.workspace_id).collect();
            let begun = events.iter().filter(|event| begun(event).is_some());
            let locks = rows.locks_of(&begun.map(|event| &event.workspace_id).collect())?;
            let deletions = rows.last_deletions(&concerned)?;
            let found: Vec<_> = events
                .into_iter()
                .map(|event| {
                    let deleted = deletions.get(&event.workspace_id).copied().unwrap_or(0);
                    let lock = lock_of(&event, &locks, rows.now());
                    (event.revision <= deleted, event, lock)
                })
                .collect();
            Ok((found, rows.revisions()?.first))
        })?;
        let now = found.now;
        let (found, kept_from) = found.value;
        let clock = self.store.clock();
        let encode = |(is_deleted, event, lock): (bool, Event, Option<Lock>)| EncodedEvent {
            is_deleted,
            chunk: self.chunk(&(encoder.event)(&event, lock.as_ref(), &self.rules, now, clock)),
            revision: event.revision,
            members: notifier.members_of_deleted(event.revision),
            event_type: event.event_type,
            with_roles: event.workspace_id.with_roles(),
            workspace_id: event.workspace_id,
            user_id: event.user_id,
        };
        let events = found.into_iter().filter(|(_, event, _)| event.revision <= last).map(encode).collect();
        Ok(EncodedPage::of(events, kept_from))
    }

    /// Sends keep-alives and checks permissions that are due. Returns the time until the next one.
    fn send_keep_alives(&self, followers: &mut [Follower], encoder: EventEncoder) -> Duration {
        let now = self.store.clock().clock().monotonic();
        let mut next = KEEP_ALIVE;
        let mut keep_alive = None;
        for follower in followers {
            let unchecked = now.saturating_sub(follower.checked_at);
            if unchecked >= KEEP_ALIVE {
                follower.checked_at = now;
                if !(follower.subscription.still_allowed)() {
                    follower.end();
                }
            }
            let quiet = now.saturating_sub(follower.sent_at);
            if quiet >= KEEP_ALIVE {
                follower.sink.push(keep_alive.get_or_insert_with(|| self.chunk(encoder.keep_alive)));
                follower.sent_at = now;
            } else {
                next = next.min(KEEP_ALIVE.saturating_sub(quiet));
            }
            next = next.min(KEEP_ALIVE.saturating_sub(now.saturating_sub(follower.checked_at)));
        }
        next
    }
}

/// The lock that an event began, or is about, if that is still there.
fn lock_of(event: &Event, locks: &HashMap<WorkspaceId, Lock>, now: Timestamp) -> Option<Lock> {
    let lock = locks.get(&event.workspace_id)?;
    (Some(lock.fence) == begun(event) && lock.is_live(now)).then(|| lock.clone())
}

/// The fence of that lock.
const fn begun(event: &Event) -> Option<Fence> {
    match event.event_type {
        EventType::Acquired | EventType::Knocked | EventType::KnockDeclined => event.fence,
        EventType::Ended(_) => event.next_fence,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::super::subscription::{EventSink, Subscription};
    use super::*;
    use crate::app::locks;
    use crate::config::Config;
    use crate::domain::access::Privilege;
    use crate::domain::waitlist::WaitlistLimits;
    use crate::domain::{Acquire, Authority, Claim, Release, UserId, WorkspaceId};
    use crate::events::chunk::StreamChunk;
    use crate::metrics::Metrics;
    use crate::store::{Options, Store};
    use crate::time::{Clock, ManualClock, WallTime};

    /// Counts the events that it is sent.
    struct CountingSink(Arc<AtomicUsize>);

    impl EventSink for CountingSink {
        fn push(&self, chunk: &StreamChunk) -> bool {
            self.0.fetch_add(usize::from(chunk.bytes() == b"event"), Ordering::SeqCst);
            true
        }

        fn behind(&self) -> usize {
            0
        }

        fn is_gone(&self) -> bool {
            false
        }

        fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}
    }

    static READ: AtomicUsize = AtomicUsize::new(0);

    const COUNTING: EventEncoder = EventEncoder {
        event: |_, _, _, _, _| {
            READ.fetch_add(1, Ordering::SeqCst);
            b"event".to_vec()
        },
        reset: |_| b"reset".to_vec(),
        keep_alive: b"",
    };

    /// A broadcaster with a history of two events for each turn.
    fn with_history(path: std::path::PathBuf, turns: usize) -> Arc<Broadcaster> {
        let options = Options {
            url: None,
            path,
            busy_timeout: Duration::from_secs(5),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 2,
            waiters: WaitlistLimits { per_workspace: 1, per_user: 1, total: 1 },
        };
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::Manual(ManualClock::starting_at(WallTime(1_795_435_200_000)));
        let store = Arc::new(Store::open(&options, clock, &metrics).unwrap());
        let rules = Arc::new(Config::default().rules());
        let by = Arc::clone(&rules);
        store
            .write(move |set| {
                let (workspace_id, user_id) = (WorkspaceId::parse("w")?, UserId::parse("alice")?);
                let request = Acquire::new(workspace_id.clone(), user_id.clone());
                let claim = Claim { workspace_id, user_id, session_id: None, fence: None, is_agent: false };
                let release = Release {
                    claim,
                    user_name: None,
                    authority: Authority::Holder,
                    privilege: Privilege::Ordinary,
                    reason: None,
                };
                for _ in 0..turns {
                    locks::acquire(set, &request, &by)?;
                    locks::release(set, &release, &by)?;
                }
                Ok(())
            })
            .unwrap();
        Broadcaster::new(store, rules, metrics)
    }

    #[test]
    fn followers_catch_up_in_turn_with_a_limit_per_round() {
        const FOLLOWERS: usize = 500;
        const EVENTS: usize = 2_000;
        let directory = tempfile::tempdir().unwrap();
        let broadcaster = with_history(directory.path().join("lockhouse.db"), EVENTS / 2);
        let received: Vec<Arc<AtomicUsize>> = (0..FOLLOWERS).map(|_| Arc::default()).collect();
        for received in &received {
            let subscription = Subscription {
                from: StartFrom::After(0),
                workspaces: Vec::new(),
                member: None,
                sees_deleted: true,
                still_allowed: Box::new(|| true),
            };
            broadcaster.follow(subscription, None, None, Box::new(CountingSink(Arc::clone(received))));
        }
        let mut all = Followers { end: broadcaster.store.notifier().revision(), ..Followers::default() };
        let (mut rounds, mut told) = (0, 0);
        while broadcaster.round(&mut all, COUNTING).unwrap() == Duration::ZERO {
            rounds += 1;
            let counts: Vec<_> = received.iter().map(|received| received.load(Ordering::SeqCst)).collect();
            let now: usize = counts.iter().sum();
            assert!(now - told <= WORK_A_ROUND / SEND_COST * 200, "a round ends");
            told = now;
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 200, "each in turn: {least} to {most}");
        }
        assert!(rounds > 10, "{rounds}");
        assert!(received.iter().all(|received| received.load(Ordering::SeqCst) == EVENTS));
        // They share their pages.
        assert!(READ.load(Ordering::SeqCst) < EVENTS * 10, "{READ:?}");
    }
}
