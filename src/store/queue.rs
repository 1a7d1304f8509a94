//! The queue of waiters for each lock, first come first served. It is in memory only: each waiter has a
//! connection to this server, and the connection ends with the server.
//!
//! Only the writer changes the queue, together with a commit. A transaction sees its own changes ([`QueueView`]).
//! If it is rolled back, the queue stays as it was and no waiter is answered.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use super::lock;
pub use super::waiter::{Client, QueuedWaiter, Waiter};
use crate::domain::waitlist::{WaiterCount, WaitlistLimits};
use crate::domain::{Acquired, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::Timestamp;

/// All waiters: one queue per workspace.
#[derive(Debug)]
pub struct Queue {
    limits: WaitlistLimits,
    waiting: Mutex<QueueState>,
    /// Workspaces whose queue a waiter has left since the last [`Queue::workspaces_with_leavers`].
    left: Mutex<BTreeSet<WorkspaceId>>,
    /// The waiters that join with the transaction that is being committed. Another server may answer them before the
    /// commit is known here.
    joining: Mutex<Vec<Arc<Waiter>>>,
}

#[derive(Debug, Default)]
struct QueueState {
    queues: HashMap<WorkspaceId, Vec<QueuedWaiter>>,
    count: WaiterCount,
    /// For each workspace, the earliest end of a wait.
    ends: BTreeSet<(Timestamp, WorkspaceId)>,
}

impl QueueState {
    /// Replaces the queue of a workspace by what `new` makes of it.
    fn replace(&mut self, workspace_id: WorkspaceId, new: impl FnOnce(&[QueuedWaiter]) -> Vec<QueuedWaiter>) {
        let end = |waiters: &[QueuedWaiter]| waiters.iter().map(|queued| queued.until).min();
        let before = self.queues.remove(&workspace_id).unwrap_or_default();
        let waiters = new(&before);
        if let Some(end) = end(&before) {
            self.ends.remove(&(end, workspace_id.clone()));
        }
        if let Some(end) = end(&waiters) {
            self.ends.insert((end, workspace_id.clone()));
        }
        self.count = self.count.replaced(&before, &waiters);
        if !waiters.is_empty() {
            self.queues.insert(workspace_id, waiters);
        }
    }
}

impl Queue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(limits: WaitlistLimits) -> Self {
        Self { limits, waiting: Mutex::default(), left: Mutex::default(), joining: Mutex::default() }
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
        let queued = waiting.queues.get(workspace_id).into_iter().flatten().map(|queued| &queued.waiter);
        let joining = lock(&self.joining);
        queued.chain(joining.iter()).find(|waiter| waiter.id == id).cloned()
    }

    /// Removes a waiter that another server has granted the lock or told why not.
    pub(super) fn remove(&self, workspace_id: &WorkspaceId, id: i64) {
        let others = |waiters: &[QueuedWaiter]| {
            waiters.iter().filter(|queued| queued.waiter.id != id).cloned().collect()
        };
        lock(&self.waiting).replace(workspace_id.clone(), others);
    }

    /// Makes the waiters that join with a transaction known before its commit.
    pub(super) fn joining(&self, queue_changes: &QueueChanges) {
        lock(&self.joining).clone_from(&queue_changes.joined);
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
        let QueueChanges { changed, joined, loaded, answers: _ } = queue_changes;
        if changed.is_empty() {
            return false;
        }
        let mut waiting = lock(&self.waiting);
        for (workspace_id, mut waiters) in changed {
            let loaded = loaded.get(&workspace_id);
            waiting.replace(workspace_id, |before| {
                let is_hidden = |queued: &&QueuedWaiter| {
                    loaded.is_some_and(|loaded| !loaded.contains(&queued.waiter.id))
                        && !queued.waiter.is_gone()
                };
                waiters.extend(before.iter().filter(is_hidden).cloned());
                waiters
            });
        }
        drop(waiting);
        lock(&self.joining).clear();
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
    /// The waiters that the transaction has loaded, where other servers change them too. A waiter of this server that is
    /// not among them has an outcome, and stays until it is answered.
    loaded: HashMap<WorkspaceId, Vec<i64>>,
}

impl QueueChanges {
    /// Leaves out the waiters that are connected to other servers. `queue` is the one that the transaction has loaded.
    pub(super) fn keep_own(&mut self, queue: &Queue) {
        for (workspace_id, waiters) in &mut self.changed {
            waiters.retain(|queued| !queued.waiter.is_elsewhere);
            let loaded = queue.waiters(workspace_id).iter().map(|queued| queued.waiter.id).collect();
            self.loaded.insert(workspace_id.clone(), loaded);
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
            loaded: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Acquire;
    use crate::domain::token::Validity;
    use crate::store::rows::AsOf;
    use crate::time::Ttl;

    /// A client that stays.
    struct Connected;

    impl Client for Connected {
        fn is_gone(&self) -> bool {
            false
        }

        fn when_gone(&self, _: Box<dyn FnOnce() + Send>) {}

        fn answer(self: Box<Self>, _: Result<AsOf<Acquired>, Error>) {}
    }

    fn workspace() -> WorkspaceId {
        WorkspaceId::parse("w").unwrap()
    }

    fn queued() -> QueuedWaiter {
        let request = Acquire::new(workspace(), UserId::parse("alice").unwrap());
        let waiter = Waiter::new(request, Ttl::from_millis(9), Validity::Unlimited, Box::new(Connected));
        QueuedWaiter { waiter, since: Timestamp(0), until: Timestamp(9), is_leaving: false }
    }

    /// The changes of a transaction on a database that other servers share. It has loaded a line, and leaves another.
    fn changes(node: &Queue, loaded: &[&QueuedWaiter], line: &[&QueuedWaiter]) -> QueueChanges {
        let queue = node.for_transaction();
        for queued in loaded {
            queue.load(&workspace(), (*queued).clone());
        }
        let view = QueueView::of(&queue);
        view.replace(&workspace(), line.iter().map(|queued| (*queued).clone()).collect());
        for queued in line.iter().filter(|queued| node.find(&workspace(), queued.waiter.id).is_none()) {
            view.joined(&queued.waiter);
        }
        let mut changes = view.into_changes();
        changes.keep_own(&queue);
        changes
    }

    #[test]
    fn a_waiter_whom_another_server_has_given_an_outcome_stays_until_it_is_answered() {
        let node = Queue::new(WaitlistLimits { per_workspace: 9, per_user: 9, total: 9 });
        let (first, second) = (queued(), queued());
        node.commit(changes(&node, &[], &[&first]));
        // The row of the first one has an outcome, so it is not loaded.
        node.commit(changes(&node, &[], &[&second]));
        let found = node.find(&workspace(), first.waiter.id).unwrap();
        assert_eq!(node.len(), 2);
        found.answer(Err(Error::Busy));
        node.remove(&workspace(), found.id);
        assert_eq!((node.len(), node.find(&workspace(), found.id).is_none()), (1, true));
        node.commit(changes(&node, &[&second], &[]));
        assert!(node.is_empty(), "a waiter that was loaded leaves");
    }

    #[test]
    fn a_waiter_can_be_answered_before_its_server_knows_of_the_commit() {
        let node = Queue::new(WaitlistLimits { per_workspace: 9, per_user: 9, total: 9 });
        let joins = queued();
        let joined = changes(&node, &[], &[&joins]);
        node.joining(&joined);
        let found = node.find(&workspace(), joins.waiter.id).unwrap();
        found.answer(Err(Error::Busy));
        node.remove(&workspace(), found.id);
        node.commit(joined);
        assert_eq!(
            node.workspaces_with_leavers(Timestamp(0), 9),
            [workspace()],
            "it is removed as one that has left"
        );
        node.commit(changes(&node, &[], &[]));
        assert!(node.is_empty());
    }
}
