//! Who waits for a lock, first come first served. In memory: whoever waits has a connection, and it ends with us.
//!
//! Only the writer changes it, together with what it commits: within a transaction it sees what the transaction has
//! done so far ([`Lines`]), and if that is rolled back nobody has come, gone or been given anything.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use super::lock;
use super::rows::AsOf;
use crate::domain::token::Lasts;
use crate::domain::waitlist::{Waiting, WaitlistLimits};
use crate::domain::{Acquire, Acquired, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, Ttl};

/// The way to somebody who waits.
pub trait Client: Send {
    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool;
    /// `callback` is called once when nobody is there any more, unless they were told before. It must not block.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
    /// Tells them what became of it.
    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>);
}

/// Somebody who wants a lock, and waits for it if need be.
pub struct Waiter {
    /// What they want.
    pub request: Acquire,
    /// For how long they wait.
    pub wait: Ttl,
    /// How long the credentials are good with which they came.
    pub lasts: Lasts,
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
    pub fn new(request: Acquire, wait: Ttl, lasts: Lasts, client: Box<dyn Client>) -> Arc<Self> {
        Arc::new(Self { request, wait, lasts, client: Mutex::new(Some(client)) })
    }

    /// Tells them, unless they were told before.
    pub fn answer(&self, answer: Result<AsOf<Acquired>, Error>) {
        let client = lock(&self.client).take();
        if let Some(client) = client {
            client.answer(answer);
        }
    }

    /// Whether nobody is there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
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
    /// At this instant they are told that they cannot have it, if somebody else has it then.
    pub until: Timestamp,
}

impl Waiting for Place {
    fn request(&self) -> &Acquire {
        &self.waiter.request
    }

    fn until(&self) -> Timestamp {
        self.until
    }

    fn is_gone(&self) -> bool {
        self.waiter.is_gone()
    }
}

/// Everybody who waits.
#[derive(Debug)]
pub struct Queue {
    limits: WaitlistLimits,
    waiting: Mutex<Lined>,
    /// Lines that somebody has left since they were last looked for.
    left: Mutex<BTreeSet<WorkspaceId>>,
}

#[derive(Debug, Default)]
struct Lined {
    lines: HashMap<WorkspaceId, Vec<Place>>,
    count: usize,
    /// When the first of a line waits no more, for each.
    ends: BTreeSet<(Timestamp, WorkspaceId)>,
}

impl Queue {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(limits: WaitlistLimits) -> Self {
        Self { limits, waiting: Mutex::default(), left: Mutex::default() }
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
    pub fn somebody_left(&self, workspace_id: &WorkspaceId) {
        lock(&self.left).insert(workspace_id.clone());
    }

    /// The first instant at which somebody's time may be up.
    #[must_use]
    pub fn soonest(&self) -> Option<Timestamp> {
        let ends = lock(&self.waiting).ends.first().map(|(end, _)| *end);
        // Whoever has left is to be looked after at once.
        if lock(&self.left).is_empty() { ends } else { Some(Timestamp(i64::MIN)) }
    }

    /// Locks for which somebody may wait who cannot get them any more, at most so many.
    #[must_use]
    pub fn with_leavers(&self, now: Timestamp, limit: usize) -> Vec<WorkspaceId> {
        let mut found: BTreeSet<_> = {
            let mut left = lock(&self.left);
            let rest = left.iter().nth(limit).cloned();
            let rest = rest.map_or_else(BTreeSet::new, |rest| left.split_off(&rest));
            std::mem::replace(&mut *left, rest)
        };
        let waiting = lock(&self.waiting);
        found.retain(|workspace_id| waiting.lines.contains_key(workspace_id));
        let late = waiting.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| id.clone());
        found.extend(late.take(limit.saturating_sub(found.len())));
        found.into_iter().collect()
    }

    /// Those whose time is up are told why that cannot be settled properly; they are as good as gone.
    pub fn give_up(&self, now: Timestamp, error: &Error) {
        let late: Vec<_> = {
            let waiting = lock(&self.waiting);
            let lines = waiting.ends.iter().take_while(|(end, _)| *end <= now);
            let places = lines.filter_map(|(_, id)| waiting.lines.get(id)).flatten();
            places.filter(|place| place.until <= now).map(|place| Arc::clone(&place.waiter)).collect()
        };
        for waiter in late {
            waiter.answer(Err(error.clone()));
        }
    }

    /// What a transaction has done to it is so. Returns whether anything has changed.
    pub(super) fn commit(&self, moved: Moved) -> bool {
        let Moved { changed, entered, told: _ } = moved;
        if changed.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.waiting);
        let Lined { lines, count, ends } = &mut *waiting;
        let end = |line: &[Place]| line.iter().map(|place| place.until).min();
        for (workspace_id, line) in changed {
            let before = lines.remove(&workspace_id).unwrap_or_default();
            if let Some(end) = end(&before) {
                ends.remove(&(end, workspace_id.clone()));
            }
            if let Some(end) = end(&line) {
                ends.insert((end, workspace_id.clone()));
            }
            *count = (*count + line.len()).saturating_sub(before.len());
            if !line.is_empty() {
                lines.insert(workspace_id, line);
            }
        }
        drop(waiting);
        // Whoever went away while it was committed may have been looked for too early.
        for waiter in entered.iter().filter(|waiter| waiter.is_gone()) {
            self.somebody_left(&waiter.request.workspace_id);
        }
        true
    }
}

/// Who waits, as a transaction sees it.
#[derive(Debug)]
pub struct Lines<'q> {
    queue: &'q Queue,
    changed: RefCell<HashMap<WorkspaceId, Vec<Place>>>,
    entered: RefCell<Vec<Arc<Waiter>>>,
    told: RefCell<Vec<Told>>,
}

/// Somebody who waits no more, and what became of it.
pub(super) type Told = (Arc<Waiter>, Result<Acquired, Error>);

/// What a transaction has done to those who wait.
#[derive(Debug, Default)]
pub(super) struct Moved {
    changed: HashMap<WorkspaceId, Vec<Place>>,
    entered: Vec<Arc<Waiter>>,
    pub(super) told: Vec<Told>,
}

impl<'q> Lines<'q> {
    pub(super) fn of(queue: &'q Queue) -> Self {
        Self { queue, changed: RefCell::default(), entered: RefCell::default(), told: RefCell::default() }
    }

    /// Who waits for this lock.
    #[must_use]
    pub fn line(&self, workspace_id: &WorkspaceId) -> Vec<Place> {
        let changed = self.changed.borrow().get(workspace_id).cloned();
        changed.unwrap_or_else(|| self.queue.line(workspace_id))
    }

    /// How many wait for this lock.
    #[must_use]
    pub fn count(&self, workspace_id: &WorkspaceId) -> usize {
        if !self.has_line(workspace_id) {
            return 0;
        }
        self.line(workspace_id).iter().filter(|place| !place.waiter.is_gone()).count()
    }

    /// For which locks after `after` this user waits, by workspace id, at most so many.
    #[must_use]
    pub fn of_user(&self, user_id: &UserId, after: &str, limit: usize) -> BTreeSet<WorkspaceId> {
        let is_theirs = |line: &[Place]| line.iter().any(|place| place.waiter.request.user_id == *user_id);
        let waiting = lock(&self.queue.waiting);
        let changed = self.changed.borrow();
        let lines = waiting.lines.iter().filter(|(id, _)| !changed.contains_key(*id)).chain(changed.iter());
        let mut found: BTreeSet<_> = lines
            .filter(|(id, line)| id.as_str() > after && is_theirs(line))
            .map(|(id, _)| id.clone())
            .collect();
        while found.len() > limit {
            found.pop_last();
        }
        found
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

    /// This one waits from now on.
    pub fn entered(&self, waiter: &Arc<Waiter>) {
        self.entered.borrow_mut().push(Arc::clone(waiter));
    }

    /// How many may wait.
    #[must_use]
    pub const fn limits(&self) -> WaitlistLimits {
        self.queue.limits
    }

    /// How many wait for any lock.
    #[must_use]
    pub fn in_all(&self) -> usize {
        let waiting = lock(&self.queue.waiting);
        self.changed.borrow().iter().fold(waiting.count, |count, (workspace_id, line)| {
            (count + line.len()).saturating_sub(waiting.lines.get(workspace_id).map_or(0, Vec::len))
        })
    }

    /// Once it is committed, this one is told.
    pub fn tell(&self, waiter: Arc<Waiter>, outcome: Acquired) {
        self.told.borrow_mut().push((waiter, Ok(outcome)));
    }

    /// Once it is committed, this one is told why they cannot have it.
    pub fn turn_away(&self, waiter: Arc<Waiter>, why: Error) {
        self.told.borrow_mut().push((waiter, Err(why)));
    }

    pub(super) fn into_moved(self) -> Moved {
        Moved {
            changed: self.changed.into_inner(),
            entered: self.entered.into_inner(),
            told: self.told.into_inner(),
        }
    }
}
