//! Who follows the events, and the one thread that tells them.
//!
//! Everything that is told is read from the history, where each event has its revision, in the order in which it was
//! committed; what is told of a commit is only that there is something to read. So there is no seam between what
//! happened before somebody came and what happens while they are there: each follower has a place in the history, and
//! goes on from there. Those who are at its end are told of what is new all together, from one read; one who is behind
//! reads on its own, as fast as it takes what it gets, and keeps nobody waiting.
//!
//! The same thread sees to it that what is due happens on time ([`super::dues`]): a lease that ends is an event when it
//! ends, as long as anybody follows.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::dues::Dues;
use super::faces::{Face, Faces};
use super::seats::{Seat, Seats};
use crate::error::Error;
use crate::lock::event::{Ending, Event, EventType};
use crate::lock::policy::Rules;
use crate::lock::{Lock, UserId, WorkspaceId};
use crate::metrics::Metrics;
use crate::store::events::Kept;
use crate::store::{Store, events, workspaces};
use crate::time::{LeaseClock, Timestamp};

/// Something is said to a follower at least so often, so that nobody between takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(15);
/// Events that are read at a time.
const PAGE: u32 = 200;
/// A follower with so many bytes that it has not taken gets no more until it has (bytes).
const FULL: usize = 64 * 1024;
/// One who has been at the end of the history, and is now so many events behind and takes no more, is told to begin
/// anew.
const LAG: i64 = 1_000;
/// How often those who were full are looked at again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long to wait after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to a follower.
pub trait Outlet: Send {
    /// Says something. Returns whether anybody is still there.
    fn push(&self, bytes: Vec<u8>) -> bool;
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
    pub event: fn(&Event, Option<&Lock>, Timestamp, &LeaseClock) -> Vec<u8>,
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
    /// Whether they may still. It is asked every [`SILENCE`].
    pub may_still: Box<dyn Fn() -> bool + Send>,
}

struct Follower {
    /// The revision of the last event that it was told of, or that does not concern it.
    place: i64,
    /// It has been at the end of the history.
    caught_up: bool,
    wish: Wish,
    outlet: Box<dyn Outlet>,
    /// When something was last said.
    said_at: Duration,
    /// When it was last asked whether it may follow.
    asked_at: Duration,
}

/// Those who follow the events.
pub struct Hub {
    store: Arc<Store>,
    dues: Dues,
    faces: Arc<Faces>,
    seats: Arc<Seats>,
    metrics: Arc<Metrics>,
    joining: Mutex<Vec<Follower>>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(store: Arc<Store>, rules: Arc<Rules>, metrics: Arc<Metrics>) -> Arc<Self> {
        let watch = Arc::clone(store.watch());
        store.clock().clock().when_moved(move || watch.ring());
        Arc::new(Self {
            dues: Dues::new(Arc::clone(&store), rules),
            faces: Arc::default(),
            seats: Arc::default(),
            metrics,
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
        if presence.is_some() || seat.is_some() {
            outlet.when_gone(Box::new(move || drop((presence, seat))));
        }
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

    /// Ends the thread. Whoever still follows is let go of.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.store.watch().ring();
    }

    fn run(&self, words: Words) {
        let mut followers = Vec::new();
        let mut end = self.store.watch().revision();
        while !self.stopping.load(Ordering::SeqCst) {
            let patience = match self.round(&mut followers, &mut end, words) {
                Ok(patience) => patience,
                Err(error) => {
                    log::warn!("the followers of the events cannot be told just now: {error}");
                    PAUSE
                }
            };
            // What that brings about is told in the next round, for which the bell rings.
            let due = self.dues.see_to(!followers.is_empty());
            self.store.watch().listen(patience.min(due));
        }
    }

    /// Tells everybody what there is to tell. Returns how long nothing happens unless the bell rings.
    fn round(&self, followers: &mut Vec<Follower>, end: &mut i64, words: Words) -> Result<Duration, Error> {
        followers.retain(|follower| !follower.outlet.is_gone());
        if followers.is_empty() {
            // Nobody is told, and nobody misses it: whoever comes reads from the history.
            *end = self.store.watch().revision();
        }
        self.welcome(followers, *end, words)?;
        self.metrics.followers.set(i64::try_from(followers.len()).unwrap_or(i64::MAX));
        self.store.watch().ring_for_all(!followers.is_empty() || !self.store.queue().is_empty());
        if followers.is_empty() {
            return Ok(SILENCE);
        }
        self.tell(followers, end, words)?;
        let all_there = self.catch_up(followers, *end, words)?;
        let next_word = self.break_the_silence(followers, words);
        Ok(if all_there { next_word } else { AGAIN })
    }

    fn welcome(&self, followers: &mut Vec<Follower>, end: i64, words: Words) -> Result<(), Error> {
        let joining = std::mem::take(&mut *self.joining.lock().unwrap_or_else(PoisonError::into_inner));
        for mut follower in joining {
            // So that whoever asked knows at once that it is heard.
            let mut heard = follower.outlet.push(words.silence.to_vec());
            follower.place = match follower.wish.from {
                From::Now => end,
                From::After(place) => {
                    let Kept { first, last } = self.kept()?;
                    // A revision beyond the last is of another database, or of one that was restored.
                    if place > last || place + 1 < first {
                        heard = follower.outlet.push((words.reset)(last));
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
    fn tell(&self, followers: &mut [Follower], end: &mut i64, words: Words) -> Result<(), Error> {
        while *end < self.store.watch().revision() {
            let page = self.page(*end, words)?;
            let Some(last) = page.last().map(|said| said.revision) else { return Ok(()) };
            for follower in followers.iter_mut().filter(|follower| follower.place >= *end) {
                follower.tell(&page, &self.store)?;
            }
            *end = last;
        }
        Ok(())
    }

    /// Tells those who are behind what they have not heard, as far as they take it. Returns whether all are at the end.
    fn catch_up(&self, followers: &mut [Follower], end: i64, words: Words) -> Result<bool, Error> {
        let mut all_there = true;
        for follower in followers.iter_mut() {
            if follower.place >= end {
                follower.caught_up = true;
                continue;
            }
            if follower.outlet.behind() >= FULL {
                if follower.caught_up && end - follower.place > LAG {
                    follower.outlet.push((words.reset)(end));
                    follower.end();
                }
                all_there = false;
                continue;
            }
            if follower.place + 1 < self.kept()?.first {
                follower.outlet.push((words.reset)(end));
                follower.place = end;
                continue;
            }
            let page = self.page(follower.place, words)?;
            follower.tell(&page, &self.store)?;
            all_there &= follower.place >= end;
        }
        Ok(all_there)
    }

    fn page(&self, after: i64, words: Words) -> Result<Vec<Said>, Error> {
        let found = self.store.read(|connection, now| events::after(connection, after, PAGE, now))?;
        let clock = self.store.clock();
        let say = |(event, lock): (Event, Option<Lock>)| Said {
            bytes: (words.event)(&event, lock.as_ref(), found.now, clock),
            revision: event.revision,
            farewell_to: match event.event_type {
                EventType::Ended(Ending::MemberRemoved | Ending::WorkspaceDeleted) => event.user_id,
                EventType::Acquired | EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => {
                    None
                }
            },
            workspace_id: event.workspace_id,
        };
        Ok(found.value.into_iter().map(say).collect())
    }

    /// Returns how long it is until somebody has heard nothing for too long.
    fn break_the_silence(&self, followers: &mut [Follower], words: Words) -> Duration {
        let now = self.store.clock().clock().monotonic();
        let mut next = SILENCE;
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
                follower.outlet.push(words.silence.to_vec());
                follower.said_at = now;
            } else {
                next = next.min(SILENCE.saturating_sub(silent));
            }
            next = next.min(SILENCE.saturating_sub(now.saturating_sub(follower.asked_at)));
        }
        next
    }
}

/// An event, as it is said.
struct Said {
    revision: i64,
    workspace_id: WorkspaceId,
    /// Who is told though they may see nothing of the workspace any more: it tells them why, and nothing of others.
    farewell_to: Option<UserId>,
    bytes: Vec<u8>,
}

impl Follower {
    /// Hangs up.
    fn end(&mut self) {
        self.outlet = Box::new(Nobody);
    }

    /// Tells it of those events that it has not heard of and that concern it, as far as it takes them.
    fn tell(&mut self, page: &[Said], store: &Store) -> Result<(), Error> {
        for said in page {
            if said.revision <= self.place {
                continue;
            }
            let wanted = self.wish.workspaces.is_empty() || self.wish.workspaces.contains(&said.workspace_id);
            if wanted && self.may_hear(said, store)? {
                if self.outlet.behind() >= FULL {
                    return Ok(());
                }
                self.outlet.push(said.bytes.clone());
                self.said_at = store.clock().clock().monotonic();
            }
            self.place = said.revision;
        }
        Ok(())
    }

    /// Whether it concerns them: as it is now, not as it was when they came.
    fn may_hear(&self, said: &Said, store: &Store) -> Result<bool, Error> {
        let Some(member) = &self.wish.member else { return Ok(true) };
        if said.farewell_to.as_ref() == Some(member) {
            return Ok(true);
        }
        let role = store.read(|connection, _| workspaces::role(connection, &said.workspace_id, member))?;
        Ok(role.value.is_some())
    }
}

/// The way to one whose stream has ended.
struct Nobody;

impl Outlet for Nobody {
    fn push(&self, _: Vec<u8>) -> bool {
        false
    }

    fn behind(&self) -> usize {
        0
    }

    fn is_gone(&self) -> bool {
        true
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}
}
