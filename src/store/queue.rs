//! Who waits for a lock, first come first served. In memory: whoever waits has a connection, and it ends with us.
//!
//! Only the writer changes it, together with what it commits: within a transaction it sees what the transaction has
//! done so far ([`Lines`]), and if that is rolled back nobody has come, gone or been given anything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::write::At;
use crate::error::Error;
use crate::lock::{Acquire, Acquired, WorkspaceId};
use crate::time::{Timestamp, Ttl};

/// The way to somebody who waits.
pub trait Client: Send {
    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool;
    /// `callback` is called once when nobody is there any more, unless they were told before. It must not block.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
    /// Tells them what became of it.
    fn answer(self: Box<Self>, answer: Result<At<Acquired>, Error>);
}

/// Somebody who wants a lock, and waits for it if need be.
pub struct Waiter {
    /// What they want.
    pub request: Acquire,
    /// For how long they wait.
    pub wait: Ttl,
    client: Mutex<Option<Box<dyn Client>>>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Waiter").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Waiter {
    /// Somebody who wants this.
    #[must_use]
    pub fn new(request: Acquire, wait: Ttl, client: Box<dyn Client>) -> Arc<Self> {
        Arc::new(Self { request, wait, client: Mutex::new(Some(client)) })
    }

    /// Tells them, unless they were told before.
    pub fn answer(&self, answer: Result<At<Acquired>, Error>) {
        let client = lock(&self.client).take();
        if let Some(client) = client {
            client.answer(answer);
        }
    }

    fn is_gone(&self) -> bool {
        lock(&self.client).as_ref().is_none_or(|client| client.is_gone())
    }
}

/// Somebody's place in a line.
#[derive(Debug, Clone)]
pub struct Place {
    /// Who.
    pub waiter: Arc<Waiter>,
    /// Since when they wait.
    pub since: Timestamp,
    /// At this instant they wait no more.
    pub until: Timestamp,
}

impl Place {
    /// Whether they can be given the lock: they are there, and their time is not up.
    #[must_use]
    pub fn is_there(&self, now: Timestamp) -> bool {
        now < self.until && !self.waiter.is_gone()
    }
}

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For one lock.
    pub per_workspace: usize,
    /// In all.
    pub in_all: usize,
}

/// Everybody who waits.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    waiting: Mutex<Waiting>,
    /// Somebody has gone away since they were last looked for.
    left: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<WorkspaceId, Vec<Place>>,
    count: usize,
    /// Nobody's time is up before this.
    soonest: Option<Timestamp>,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, waiting: Mutex::default(), left: AtomicBool::new(false) }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.waiting).count
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who waits for this lock, in the order in which they will get it.
    #[must_use]
    pub fn line(&self, workspace_id: &WorkspaceId) -> Vec<Place> {
        lock(&self.waiting).lines.get(workspace_id).cloned().unwrap_or_default()
    }

    /// Somebody has gone away.
    pub fn somebody_left(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// The first instant at which somebody's time may be up.
    #[must_use]
    pub fn soonest(&self) -> Option<Timestamp> {
        lock(&self.waiting).soonest
    }

    /// The locks for which somebody waits who cannot get them any more.
    #[must_use]
    pub fn with_leavers(&self, now: Timestamp) -> Vec<WorkspaceId> {
        let mut waiting = lock(&self.waiting);
        if !self.left.swap(false, Ordering::SeqCst) && waiting.soonest.is_none_or(|soonest| now < soonest) {
            return Vec::new();
        }
        waiting.soonest = waiting.lines.values().flatten().map(|place| place.until).min();
        let leaving = |line: &Vec<Place>| line.iter().any(|place| !place.is_there(now));
        waiting.lines.iter().filter(|(_, line)| leaving(line)).map(|(id, _)| id.clone()).collect()
    }

    /// Those whose time is up are told why that cannot be settled properly; they are as good as gone.
    pub fn give_up(&self, now: Timestamp, error: &Error) {
        let late: Vec<_> = lock(&self.waiting)
            .lines
            .values()
            .flatten()
            .filter(|place| place.until <= now)
            .map(|place| Arc::clone(&place.waiter))
            .collect();
        for waiter in late {
            waiter.answer(Err(error.clone()));
        }
        self.somebody_left();
    }

    /// What a transaction has done to it is so. Returns whether anything has changed.
    pub(super) fn commit(&self, changed: HashMap<WorkspaceId, Vec<Place>>) -> bool {
        if changed.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.waiting);
        let Waiting { lines, count, soonest } = &mut *waiting;
        for (workspace_id, line) in changed {
            *count += line.len();
            let ends = line.iter().map(|place| place.until).min();
            *soonest = [*soonest, ends].into_iter().flatten().min();
            let before = match lines.entry(workspace_id) {
                Entry::Occupied(entry) if line.is_empty() => Some(entry.remove()),
                Entry::Occupied(mut entry) => Some(entry.insert(line)),
                Entry::Vacant(_) if line.is_empty() => None,
                Entry::Vacant(entry) => {
                    entry.insert(line);
                    None
                }
            };
            *count -= before.map_or(0, |line| line.len());
        }
        if *count == 0 {
            *soonest = None;
        }
        true
    }
}

/// Who waits, as a transaction sees it.
#[derive(Debug)]
pub struct Lines<'q> {
    queue: &'q Queue,
    changed: RefCell<HashMap<WorkspaceId, Vec<Place>>>,
    told: RefCell<Vec<Told>>,
}

/// Somebody who waits no more, and what became of it; nothing when they may ask again.
pub(super) type Told = (Arc<Waiter>, Option<Acquired>);

/// What a transaction has done to those who wait.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) changed: HashMap<WorkspaceId, Vec<Place>>,
    pub(super) told: Vec<Told>,
}

impl<'q> Lines<'q> {
    pub(super) fn of(queue: &'q Queue) -> Self {
        Self { queue, changed: RefCell::default(), told: RefCell::default() }
    }

    /// Who waits for this lock.
    #[must_use]
    pub fn line(&self, workspace_id: &WorkspaceId) -> Vec<Place> {
        let changed = self.changed.borrow().get(workspace_id).cloned();
        changed.unwrap_or_else(|| self.queue.line(workspace_id))
    }

    /// Whether somebody waits for this lock.
    #[must_use]
    pub fn has_line(&self, workspace_id: &WorkspaceId) -> bool {
        let changed = self.changed.borrow().get(workspace_id).map(|line| !line.is_empty());
        changed.unwrap_or_else(|| lock(&self.queue.waiting).lines.contains_key(workspace_id))
    }

    /// From now on these wait for this lock.
    pub fn set(&self, workspace_id: &WorkspaceId, line: Vec<Place>) {
        self.changed.borrow_mut().insert(workspace_id.clone(), line);
    }

    /// Whether one more may wait for this lock, for which so many do.
    #[must_use]
    pub fn has_room(&self, workspace_id: &WorkspaceId, in_line: usize) -> bool {
        let before = |workspace_id| lock(&self.queue.waiting).lines.get(workspace_id).map_or(0, Vec::len);
        let mut count = (self.queue.len() + in_line).saturating_sub(before(workspace_id));
        for (changed, line) in self.changed.borrow().iter().filter(|(changed, _)| *changed != workspace_id) {
            count = (count + line.len()).saturating_sub(before(changed));
        }
        in_line < self.queue.limits.per_workspace && count < self.queue.limits.in_all
    }

    /// Once it is committed, this one is told.
    pub fn tell(&self, waiter: Arc<Waiter>, outcome: Acquired) {
        self.told.borrow_mut().push((waiter, Some(outcome)));
    }

    /// Once it is committed, this one is told to ask again.
    pub fn turn_away(&self, waiter: Arc<Waiter>) {
        self.told.borrow_mut().push((waiter, None));
    }

    pub(super) fn into_moved(self) -> Moved {
        Moved { changed: self.changed.into_inner(), told: self.told.into_inner() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
