//! Who follows the events, and the one thread that tells them.
//!
//! Everything that is told is read from the history, where each event has its revision, in the order in which it was
//! committed; what is told of a commit is only that there is something to read. So there is no seam between what
//! happened before somebody came and what happens while they are there: each follower has a place in the history, and
//! goes on from there. Those who are at its end are told of what is new all together, from one read; those who are
//! behind read on their own, as fast as they take what they get, a little at a time and in turn, and keep nobody waiting.
//!
//! The same thread sees to it that what is due happens on time ([`super::timer`]): a lease that ends is an event when it
//! ends, as long as anybody follows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::followers::{Audience, FULL, Follower, Page, Said};
use super::piece::{Meter, Piece};
use super::presence::{Face, Presence};
use super::stream_limit::{Seat, StreamLimit};
use super::timer::Dues;
use crate::domain::access::Rules;
use crate::domain::event::Event;
use crate::domain::{Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::events::Kept;
use crate::store::{Store, events};
use crate::time::{LeaseClock, Timestamp};

/// Something is said to a follower at least so often, so that nobody between takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(15);
/// Events that are read at a time.
const PAGE: u32 = 200;
/// Pages that are told in one round to those who are not behind.
const PAGES: usize = 16;
/// What is done in one round for those who are behind: reading an event, or looking up whether somebody may hear of it, is
/// one; so that whatever there is to read, those who are not behind, and what is due, wait for some milliseconds only.
const EFFORT: usize = 4_000;
/// Telling one of them a page is so much of it.
const TELLING: usize = 20;
/// One who has been at the end of the history, and is now so many events behind and takes no more, is told to begin
/// anew.
const LAG: i64 = 1_000;
/// How often those who were full are looked at again.
const AGAIN: Duration = Duration::from_millis(20);
/// Threads here that read from the store.
pub const READING_THREADS: u32 = 1;
/// How long to wait after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to a follower.
pub trait Outlet: Send {
    /// Says something. Returns whether anybody is still there.
    fn push(&self, piece: &Piece) -> bool;
    /// Bytes that were said and not taken.
    fn behind(&self) -> usize;
    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool;
    /// `callback` is called when nobody is there any more, and dropped when nothing more is to be said.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
}

/// How things are said.
#[derive(Clone, Copy)]
pub struct Words {
    /// An event, with the lock that it began if that is still there, as seen now.
    pub event: fn(&Event, Option<&Lock>, &Rules, Timestamp, &LeaseClock) -> Vec<u8>,
    /// What came before this revision is lost to the follower, who has to read the state anew.
    pub reset: fn(i64) -> Vec<u8>,
    /// Nothing, aloud.
    pub silence: &'static [u8],
}

/// From where somebody follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// What happens from now on.
    Now,
    /// Everything after this revision.
    After(i64),
}

/// What somebody wants to hear.
pub struct Wish {
    /// From where on.
    pub from: From,
    /// Only what happens on these workspaces; on all when there are none.
    pub workspaces: Vec<WorkspaceId>,
    /// Only what this member may see, and that they may not any more; everything if there is none.
    pub member: Option<UserId>,
    /// Whether they may still. It is asked every fifteen seconds.
    pub may_still: Box<dyn Fn() -> bool + Send>,
}

/// What is left to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    Nothing,
    /// Something, to those who have to take first what they were told before.
    Full,
    More,
}

/// Those who follow the events.
pub struct Broadcaster {
    store: Arc<Store>,
    rules: Arc<Rules>,
    faces: Arc<Presence>,
    seats: Arc<StreamLimit>,
    metrics: Arc<Metrics>,
    meter: Arc<Meter>,
    joining: Mutex<Vec<Follower>>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Broadcaster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Broadcaster").finish_non_exhaustive()
    }
}

impl Broadcaster {
    pub(crate) fn new(store: Arc<Store>, rules: Arc<Rules>, metrics: Arc<Metrics>) -> Arc<Self> {
        let watch = Arc::clone(store.watch());
        store.clock().clock().when_moved(move || watch.ring());
        Arc::new(Self {
            rules,
            faces: Arc::default(),
            seats: Arc::default(),
            metrics,
            meter: Arc::default(),
            store,
            joining: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Starts the thread that tells the followers.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self: &Arc<Self>, words: Words) -> io::Result<JoinHandle<()>> {
        let hub = Arc::clone(self);
        Builder::new().name("events".to_owned()).spawn(move || hub.run(words))
    }

    /// Room for one more stream of `of`, if they have fewer than `most`.
    #[must_use]
    pub fn seat(&self, of: String, most: u32) -> Option<Seat> {
        self.seats.take(of, most)
    }

    /// Somebody follows the events, until they go away or may not any more. Who they are is shown on the workspaces that
    /// they named.
    pub fn follow(&self, wish: Wish, face: Option<&Face>, seat: Option<Seat>, outlet: Box<dyn Outlet>) {
        let presence = face.map(|face| self.faces.enter(face, wish.workspaces.clone()));
        let watch = Arc::clone(self.store.watch());
        outlet.when_gone(Box::new(move || {
            drop((presence, seat));
            watch.ring();
        }));
        let now = self.store.clock().clock().monotonic();
        let follower = Follower { place: 0, caught_up: false, wish, outlet, said_at: now, asked_at: now };
        self.joining.lock().unwrap_or_else(PoisonError::into_inner).push(follower);
        self.store.watch().ring();
    }

    /// Who follows this workspace by its name, each person once, at most `limit`.
    #[must_use]
    pub fn faces(&self, workspace_id: &WorkspaceId, limit: usize) -> Vec<Face> {
        self.faces.of(workspace_id, limit)
    }

    /// What is kept of events on their way to those who follow.
    #[must_use]
    pub const fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    fn piece(&self, bytes: &[u8]) -> Piece {
        Piece::new(bytes, &self.meter)
    }

    /// Ends the thread. Whoever still follows is let go of.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.store.watch().ring();
    }

    fn run(&self, words: Words) {
        let mut audience = Audience { end: self.store.watch().revision(), ..Audience::default() };
        let mut dues = Dues::new(Arc::clone(&self.store), Arc::clone(&self.rules));
        while !self.stopping.load(Ordering::SeqCst) {
            let patience = match self.round(&mut audience, words) {
                Ok(patience) => patience,
                Err(error) => {
                    log::warn!("the followers of the events cannot be told just now: {error}");
                    PAUSE
                }
            };
            // What that brings about is told in the next round, for which the bell rings.
            let due = dues.see_to();
            self.store.watch().listen(patience.min(due));
        }
    }

    /// Tells everybody what there is to tell, but not more than takes a moment. Returns how long nothing happens unless the
    /// bell rings.
    fn round(&self, audience: &mut Audience, words: Words) -> Result<Duration, Error> {
        audience.followers.retain(|follower| !follower.outlet.is_gone());
        if audience.followers.is_empty() {
            // Nobody is told, and nobody misses it: whoever comes reads from the history.
            audience.end = self.store.watch().revision();
        }
        self.welcome(&mut audience.followers, audience.end, words)?;
        let count = audience.followers.len();
        self.metrics.followers.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.store.watch().ring_for_all(count > 0 || !self.store.queue().is_empty());
        if count == 0 {
            return Ok(SILENCE);
        }
        let rest = self.tell(audience, words)?.max(self.catch_up(audience, words)?);
        let next_word = self.break_the_silence(&mut audience.followers, words);
        Ok(match rest {
            Rest::Nothing => next_word,
            Rest::Full => next_word.min(AGAIN),
            Rest::More => Duration::ZERO,
        })
    }

    fn welcome(&self, followers: &mut Vec<Follower>, end: i64, words: Words) -> Result<(), Error> {
        let joining = std::mem::take(&mut *self.joining.lock().unwrap_or_else(PoisonError::into_inner));
        if joining.is_empty() {
            return Ok(());
        }
        let silence = self.piece(words.silence);
        for mut follower in joining {
            // So that whoever asked knows at once that it is heard.
            let mut heard = follower.outlet.push(&silence);
            follower.place = match follower.wish.from {
                From::Now => end,
                From::After(place) => {
                    let Kept { first, last } = self.kept()?;
                    // A revision beyond the last is of another database, or of one that was restored.
                    if place > last || place + 1 < first {
                        heard = follower.outlet.push(&self.piece(&(words.reset)(last)));
                        last
                    } else {
                        place
                    }
                }
            };
            if heard {
                followers.push(follower);
            }
        }
        Ok(())
    }

    fn kept(&self) -> Result<Kept, Error> {
        self.store.read(|connection, _| events::kept(connection)).map(|kept| kept.value)
    }

    /// Tells those who are at the end of the history what is new in it.
    fn tell(&self, audience: &mut Audience, words: Words) -> Result<Rest, Error> {
        let Audience { followers, end, .. } = audience;
        for _ in 0..PAGES {
            if *end >= self.store.watch().revision() {
                return Ok(Rest::Nothing);
            }
            let mut page = self.page(*end, words)?;
            let Some(last) = page.events.last().map(|said| said.revision) else { return Ok(Rest::Nothing) };
            for follower in followers.iter_mut().filter(|follower| follower.place >= *end) {
                page.tell(follower, &self.store)?;
            }
            *end = last;
        }
        Ok(Rest::More)
    }

    /// Tells those who are behind what they have not heard, as far as they take it, each in turn.
    fn catch_up(&self, audience: &mut Audience, words: Words) -> Result<Rest, Error> {
        let Audience { followers, end, turn } = audience;
        let (end, first) = (*end, *turn % followers.len().max(1));
        *turn = first;
        // Those who came together are at the same place.
        let mut pages: HashMap<i64, Page> = HashMap::new();
        let (mut effort, mut rest) = (EFFORT, Rest::Nothing);
        let (later, sooner) = followers.split_at_mut(first);
        for (passed, follower) in sooner.iter_mut().chain(later).enumerate() {
            if follower.place >= end {
                follower.caught_up = true;
                continue;
            }
            if follower.outlet.behind() >= FULL {
                if follower.caught_up && end - follower.place > LAG {
                    follower.outlet.push(&self.piece(&(words.reset)(end)));
                    follower.end();
                }
                rest = rest.max(Rest::Full);
                continue;
            }
            if effort == 0 {
                *turn = first + passed;
                return Ok(Rest::More);
            }
            let page = match pages.entry(follower.place) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(place) => {
                    let page = place.insert(self.page(follower.place, words)?);
                    effort = effort.saturating_sub(page.events.len());
                    page
                }
            };
            if follower.place + 1 < page.kept_from {
                follower.outlet.push(&self.piece(&(words.reset)(end)));
                follower.place = end;
                continue;
            }
            let before = page.looked_up;
            page.tell(follower, &self.store)?;
            let looked_up = page.looked_up - before;
            effort = effort.saturating_sub(TELLING + follower.wish.workspaces.len() + looked_up);
            if follower.place < end {
                let stuck = page.events.is_empty() || follower.outlet.behind() >= FULL;
                rest = rest.max(if stuck { Rest::Full } else { Rest::More });
            }
        }
        Ok(rest)
    }

    /// The events after a revision, as far as it is known who was there when they happened.
    fn page(&self, after: i64, words: Words) -> Result<Page, Error> {
        let watch = self.store.watch();
        let last = watch.revision();
        // What is forgotten meanwhile is missed by nobody who is told only where the history begins after that.
        let found = self.store.read_locks(|read| {
            let found = events::after(read, after, PAGE)?;
            Ok((found, events::kept(read.connection())?.first))
        })?;
        let now = found.now;
        let (found, kept_from) = found.value;
        let clock = self.store.clock();
        let say = |(event, lock): (Event, Option<Lock>)| Said {
            piece: self.piece(&(words.event)(&event, lock.as_ref(), &self.rules, now, clock)),
            revision: event.revision,
            members: watch.members_until(event.revision),
            event_type: event.event_type,
            workspace_id: event.workspace_id,
            user_id: event.user_id,
        };
        let events = found.into_iter().filter(|(event, _)| event.revision <= last).map(say).collect();
        Ok(Page::of(events, kept_from))
    }

    /// Returns how long it is until somebody has heard nothing for too long.
    fn break_the_silence(&self, followers: &mut [Follower], words: Words) -> Duration {
        let now = self.store.clock().clock().monotonic();
        let mut next = SILENCE;
        let mut silence = None;
        for follower in followers {
            let unasked = now.saturating_sub(follower.asked_at);
            if unasked >= SILENCE {
                follower.asked_at = now;
                if !(follower.wish.may_still)() {
                    follower.end();
                }
            }
            let silent = now.saturating_sub(follower.said_at);
            if silent >= SILENCE {
                follower.outlet.push(silence.get_or_insert_with(|| self.piece(words.silence)));
                follower.said_at = now;
            } else {
                next = next.min(SILENCE.saturating_sub(silent));
            }
            next = next.min(SILENCE.saturating_sub(now.saturating_sub(follower.asked_at)));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::config::Config;
    use crate::domain::{Acquire, Authority, Claim, Release};
    use crate::store::queue::Limits;
    use crate::store::{Options, locks};
    use crate::time::{Clock, ManualClock, WallTime};

    /// A follower's events, counted.
    struct Ear(Arc<AtomicUsize>);

    impl Outlet for Ear {
        fn push(&self, piece: &Piece) -> bool {
            self.0.fetch_add(usize::from(piece.bytes() == b"event"), Ordering::SeqCst);
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

    const COUNTED: Words = Words {
        event: |_, _, _, _, _| {
            READ.fetch_add(1, Ordering::SeqCst);
            b"event".to_vec()
        },
        reset: |_| b"reset".to_vec(),
        silence: b"",
    };

    /// A hub with a history of so many events, two for each turn.
    fn with_history(path: std::path::PathBuf, turns: usize) -> Arc<Broadcaster> {
        let options = Options {
            path,
            busy_timeout: Duration::from_secs(5),
            max_size: None,
            restart_grace: Duration::ZERO,
            readers: 2,
            waiters: Limits { per_workspace: 1, per_user: 1, in_all: 1 },
        };
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::Manual(ManualClock::starting_at(WallTime(1_795_435_200_000)));
        let store = Arc::new(Store::open(&options, clock, &metrics).unwrap());
        let rules = Arc::new(Config::default().locks.rules);
        let by = Arc::clone(&rules);
        store
            .write(move |write| {
                let (workspace_id, user_id) = (WorkspaceId::parse("w")?, UserId::parse("alice")?);
                let request = Acquire::of_nobody_else(workspace_id.clone(), user_id.clone());
                let claim = Claim { workspace_id, user_id, session_id: None, fence: None };
                let release = Release { claim, user_name: None, authority: Authority::Holder, reason: None };
                for _ in 0..turns {
                    locks::acquire(write, &request, &by)?;
                    locks::release(write, &release, &by)?;
                }
                Ok(())
            })
            .unwrap();
        Broadcaster::new(store, rules, metrics)
    }

    #[test]
    fn whoever_is_behind_is_told_a_little_at_a_time_each_in_turn_and_keeps_nobody_waiting() {
        const FOLLOWERS: usize = 500;
        const EVENTS: usize = 2_000;
        let directory = tempfile::tempdir().unwrap();
        let hub = with_history(directory.path().join("lockhouse.db"), EVENTS / 2);
        let heard: Vec<Arc<AtomicUsize>> = (0..FOLLOWERS).map(|_| Arc::default()).collect();
        for heard in &heard {
            let wish = Wish {
                from: From::After(0),
                workspaces: Vec::new(),
                member: None,
                may_still: Box::new(|| true),
            };
            hub.follow(wish, None, None, Box::new(Ear(Arc::clone(heard))));
        }
        let mut audience = Audience { end: hub.store.watch().revision(), ..Audience::default() };
        let (mut rounds, mut told) = (0, 0);
        while hub.round(&mut audience, COUNTED).unwrap() == Duration::ZERO {
            rounds += 1;
            let counts: Vec<_> = heard.iter().map(|heard| heard.load(Ordering::SeqCst)).collect();
            let now: usize = counts.iter().sum();
            assert!(now - told <= EFFORT / TELLING * 200, "a round ends");
            told = now;
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 200, "each in turn: {least} to {most}");
        }
        assert!(rounds > 10, "{rounds}");
        assert!(heard.iter().all(|heard| heard.load(Ordering::SeqCst) == EVENTS));
        // They came together: a page is read for all whose turn it is.
        assert!(READ.load(Ordering::SeqCst) < EVENTS * 10, "{READ:?}");
    }
}
