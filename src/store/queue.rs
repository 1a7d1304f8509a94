//! The queue of waiters for each lock, first come first served. It is in memory only: each waiter has a
//! connection to this server, and the connection ends with the server.
//!
//! Only the writer changes the queue, together with a commit. A transaction sees its own changes ([`QueueView`]).
//! If it is rolled back, the queue stays as it was and no waiter is answered.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use super::rows::AsOf;
use crate::domain::token::Validity;
use crate::domain::waitlist::{QueueEntry, WaiterCount, WaitlistLimits};
use crate::domain::{Acquire, Acquired, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::{Timestamp, Ttl};

/// The connection of a waiter.
pub trait Client: Send {
    /// Whether the client has disconnected or was answered.
    fn is_gone(&self) -> bool;
    /// Calls `callback` once when the client disconnects, unless it was answered before. `callback` must not
    /// block.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
    /// Sends the final answer.
    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>);
}

/// A request for a lock that may wait.
pub struct Waiter {
    /// The number of the waiter on its server.
    pub id: i64,
    /// Whether the waiter is connected to another server on the same database.
    is_elsewhere: bool,
    /// The request.
    pub request: Acquire,
    /// Maximum waiting time.
    pub wait: Ttl,
    /// How long the credentials of the request are valid.
    pub validity: Validity,
    client: Mutex<Option<Box<dyn Client>>>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Waiter").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Waiter {
    /// Creates a waiter for `request`.
    #[must_use]
    pub fn new(request: Acquire, wait: Ttl, validity: Validity, client: Box<dyn Client>) -> Arc<Self> {
        static LAST_ID: AtomicI64 = AtomicI64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Mutex::new(Some(client));
        Arc::new(Self { id, is_elsewhere: false, request, wait, validity, client })
    }

    /// A waiter that is connected to another server. That server answers it.
    #[must_use]
    pub fn of_other_server(id: i64, request: Acquire, validity: Validity, is_there: bool) -> Arc<Self> {
        let client: Box<dyn Client> = Box::new(OtherServer);
        let client = Mutex::new(is_there.then_some(client));
        Arc::new(Self { id, is_elsewhere: true, request, wait: Ttl::from_millis(0), validity, client })
    }

    /// Sends the answer, unless one was sent before.
    pub fn answer(&self, answer: Result<AsOf<Acquired>, Error>) {
        let client = lock(&self.client).take();
        if let Some(client) = client {
            client.answer(answer);
        }
    }

    /// Whether the client has disconnected or was answered.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        lock(&self.client).as_ref().is_none_or(|client| client.is_gone())
    }
}

/// The client of a waiter that is connected to another server.
struct OtherServer;

impl Client for OtherServer {
    fn is_gone(&self) -> bool {
        false
    }

    fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

    fn answer(self: Box<Self>, _: Result<AsOf<Acquired>, Error>) {}
}

/// A waiter in the queue of a lock.
#[derive(Debug, Clone)]
pub struct QueuedWaiter {
    /// The waiter.
    pub waiter: Arc<Waiter>,
    /// When the wait began (lease time).
    pub since: Timestamp,
    /// When the wait ends (lease time). If another holder has the lock then, the waiter is answered
    /// with that lock.
    pub until: Timestamp,
    /// Whether the server of the waiter stops.
    pub is_leaving: bool,
}

impl QueueEntry for QueuedWaiter {
    fn request(&self) -> &Acquire {
        &self.waiter.request
    }

    fn until(&self) -> Timestamp {
        self.until
    }

    fn is_gone(&self) -> bool {
        self.waiter.is_gone()
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving
    }
}

/// All waiters: one queue per workspace.
#[derive(Debug)]
pub struct Queue {
    limits: WaitlistLimits,
    waiting: Mutex<QueueState>,
    /// Workspaces whose queue a waiter has left since the last [`Queue::workspaces_with_leavers`].
    left: Mutex<BTreeSet<WorkspaceId>>,
}

#[derive(Debug, Default)]
struct QueueState {
    queues: HashMap<WorkspaceId, Vec<QueuedWaiter>>,
    count: WaiterCount,
    /// For each workspace, the earliest end of a wait.
    ends: BTreeSet<(Timestamp, WorkspaceId)>,
}

impl Queue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(limits: WaitlistLimits) -> Self {
        Self { limits, waiting: Mutex::default(), left: Mutex::default() }
    }

    /// An empty queue for one transaction, which loads the waiters that it needs. It counts those of this server.
    pub(super) fn for_transaction(&self) -> Self {
        let queue = Self::new(self.limits);
        lock(&queue.waiting).count = lock(&self.waiting).count;
        queue
    }

    /// Adds a waiter to the queue of a transaction.
    pub(super) fn load(&self, workspace_id: &WorkspaceId, queued: QueuedWaiter) {
        let mut waiting = lock(&self.waiting);
        if queued.waiter.is_elsewhere {
            waiting.count = waiting.count.replaced(&[], std::slice::from_ref(&queued));
        }
        waiting.queues.entry(workspace_id.clone()).or_default().push(queued);
    }

    /// The waiter with this id.
    pub(super) fn find(&self, workspace_id: &WorkspaceId, id: i64) -> Option<Arc<Waiter>> {
        let waiting = lock(&self.waiting);
        let found = waiting.queues.get(workspace_id)?.iter().find(|queued| queued.waiter.id == id)?;
        Some(Arc::clone(&found.waiter))
    }

    /// Removes a waiter that another server has granted the lock or told why not.
    pub(super) fn remove(&self, workspace_id: &WorkspaceId, id: i64) {
        let mut waiters = self.waiters(workspace_id);
        waiters.retain(|queued| queued.waiter.id != id);
        let changed = HashMap::from([(workspace_id.clone(), waiters)]);
        self.commit(QueueChanges { changed, ..QueueChanges::default() });
    }

    /// The number of waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.waiting).count.all
    }

    /// Whether there are no waiters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The waiters for this lock, in the order in which they get it.
    #[must_use]
    pub fn waiters(&self, workspace_id: &WorkspaceId) -> Vec<QueuedWaiter> {
        lock(&self.waiting).queues.get(workspace_id).cloned().unwrap_or_default()
    }

    /// Records that a waiter for this lock has disconnected.
    pub fn client_left(&self, workspace_id: &WorkspaceId) {
        lock(&self.left).insert(workspace_id.clone());
    }

    /// The earliest time at which a waiter has to be handled.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let ends = lock(&self.waiting).ends.first().map(|(end, _)| *end);
        // A waiter that has left is handled at once.
        if lock(&self.left).is_empty() { ends } else { Some(Timestamp(i64::MIN)) }
    }

    /// Workspaces with a waiter that may have left or whose wait has ended, at most `limit`.
    #[must_use]
    pub fn workspaces_with_leavers(&self, now: Timestamp, limit: usize) -> Vec<WorkspaceId> {
        let mut found: BTreeSet<_> = {
            let mut left = lock(&self.left);
            let rest = left.iter().nth(limit).cloned();
            let rest = rest.map_or_else(BTreeSet::new, |rest| left.split_off(&rest));
            std::mem::replace(&mut *left, rest)
        };
        let waiting = lock(&self.waiting);
        found.retain(|workspace_id| waiting.queues.contains_key(workspace_id));
        let late = waiting.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| id.clone());
        found.extend(late.take(limit.saturating_sub(found.len())));
        found.into_iter().collect()
    }

    /// Answers `error` to the waiters whose wait has ended. Use it when the store cannot handle them. They
    /// count as gone afterwards.
    pub fn fail_overdue(&self, now: Timestamp, error: &Error) {
        let late: Vec<_> = {
            let waiting = lock(&self.waiting);
            let overdue = waiting.ends.iter().take_while(|(end, _)| *end <= now);
            let waiters = overdue.filter_map(|(_, id)| waiting.queues.get(id)).flatten();
            waiters.filter(|queued| queued.until <= now).map(|queued| Arc::clone(&queued.waiter)).collect()
        };
        for waiter in late {
            waiter.answer(Err(error.clone()));
        }
    }

    /// Applies the changes of a committed transaction. Returns whether anything has changed.
    pub(super) fn commit(&self, queue_changes: QueueChanges) -> bool {
        let QueueChanges { changed, joined, answers: _ } = queue_changes;
        if changed.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.waiting);
        let QueueState { queues, count, ends } = &mut *waiting;
        let end = |waiters: &[QueuedWaiter]| waiters.iter().map(|queued| queued.until).min();
        for (workspace_id, waiters) in changed {
            let before = queues.remove(&workspace_id).unwrap_or_default();
            if let Some(end) = end(&before) {
                ends.remove(&(end, workspace_id.clone()));
            }
            if let Some(end) = end(&waiters) {
                ends.insert((end, workspace_id.clone()));
            }
            *count = count.replaced(&before, &waiters);
            if !waiters.is_empty() {
                queues.insert(workspace_id, waiters);
            }
        }
        drop(waiting);
        // A client that disconnected during the commit may have been recorded before its queue existed.
        for waiter in joined.iter().filter(|waiter| waiter.is_gone()) {
            self.client_left(&waiter.request.workspace_id);
        }
        true
    }
}

/// The queue as a transaction sees it.
#[derive(Debug)]
pub struct QueueView<'q> {
    queue: &'q Queue,
    changed: RefCell<HashMap<WorkspaceId, Vec<QueuedWaiter>>>,
    joined: RefCell<Vec<Arc<Waiter>>>,
    answers: RefCell<Vec<WaiterAnswer>>,
}

/// A waiter whose wait has ended, and its outcome.
pub(super) type WaiterAnswer = (Arc<Waiter>, Result<Acquired, Error>);

/// The changes of a transaction to the queue.
#[derive(Debug, Default)]
pub(super) struct QueueChanges {
    pub(super) changed: HashMap<WorkspaceId, Vec<QueuedWaiter>>,
    joined: Vec<Arc<Waiter>>,
    pub(super) answers: Vec<WaiterAnswer>,
}

impl QueueChanges {
    /// Leaves out the waiters that are connected to other servers.
    pub(super) fn keep_own(&mut self) {
        for waiters in self.changed.values_mut() {
            waiters.retain(|queued| !queued.waiter.is_elsewhere);
        }
    }
}

impl<'q> QueueView<'q> {
    pub(super) fn of(queue: &'q Queue) -> Self {
        Self { queue, changed: RefCell::default(), joined: RefCell::default(), answers: RefCell::default() }
    }

    /// The waiters for this lock.
    #[must_use]
    pub fn waiters(&self, workspace_id: &WorkspaceId) -> Vec<QueuedWaiter> {
        let changed = self.changed.borrow().get(workspace_id).cloned();
        changed.unwrap_or_else(|| self.queue.waiters(workspace_id))
    }

    /// The number of waiters for this lock whose client is still connected.
    #[must_use]
    pub fn count(&self, workspace_id: &WorkspaceId) -> usize {
        if !self.has_waiters(workspace_id) {
            return 0;
        }
        self.waiters(workspace_id).iter().filter(|queued| !queued.waiter.is_gone()).count()
    }

    /// Workspaces after `after` whose lock this user waits for, by workspace id, at most `limit`.
    #[must_use]
    pub fn workspaces_of(&self, user_id: &UserId, after: &str, limit: usize) -> BTreeSet<WorkspaceId> {
        let is_theirs =
            |waiters: &[QueuedWaiter]| waiters.iter().any(|queued| queued.waiter.request.user_id == *user_id);
        let waiting = lock(&self.queue.waiting);
        let changed = self.changed.borrow();
        let queues = waiting.queues.iter().filter(|(id, _)| !changed.contains_key(*id)).chain(changed.iter());
        let mut found: BTreeSet<_> = queues
            .filter(|(id, waiters)| id.as_str() > after && is_theirs(waiters))
            .map(|(id, _)| id.clone())
            .collect();
        while found.len() > limit {
            found.pop_last();
        }
        found
    }

    /// Whether this lock has waiters.
    #[must_use]
    pub fn has_waiters(&self, workspace_id: &WorkspaceId) -> bool {
        let changed = self.changed.borrow().get(workspace_id).map(|waiters| !waiters.is_empty());
        changed.unwrap_or_else(|| lock(&self.queue.waiting).queues.contains_key(workspace_id))
    }

    /// Replaces the queue of this lock.
    pub fn replace(&self, workspace_id: &WorkspaceId, waiters: Vec<QueuedWaiter>) {
        self.changed.borrow_mut().insert(workspace_id.clone(), waiters);
    }

    /// Records that this waiter has joined a queue.
    pub fn joined(&self, waiter: &Arc<Waiter>) {
        self.joined.borrow_mut().push(Arc::clone(waiter));
    }

    /// The limits on the number of waiters.
    #[must_use]
    pub const fn limits(&self) -> WaitlistLimits {
        self.queue.limits
    }

    /// The number of waiters for all locks.
    #[must_use]
    pub fn total(&self) -> WaiterCount {
        let waiting = lock(&self.queue.waiting);
        self.changed.borrow().iter().fold(waiting.count, |count, (workspace_id, waiters)| {
            count.replaced(waiting.queues.get(workspace_id).map_or(&[], Vec::as_slice), waiters)
        })
    }

    /// Answers `outcome` to this waiter after the commit.
    pub fn answer(&self, waiter: Arc<Waiter>, outcome: Acquired) {
        self.answers.borrow_mut().push((waiter, Ok(outcome)));
    }

    /// Answers the error `why` to this waiter after the commit.
    pub fn reject(&self, waiter: Arc<Waiter>, why: Error) {
        self.answers.borrow_mut().push((waiter, Err(why)));
    }

    pub(super) fn into_changes(self) -> QueueChanges {
        QueueChanges {
            changed: self.changed.into_inner(),
            joined: self.joined.into_inner(),
            answers: self.answers.into_inner(),
        }
    }
}
