//! Tells the events thread and the webhooks about commits: the last revision, and the time of the next expiry or grant.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::set::earlier;
use crate::domain::UserId;
use crate::time::Timestamp;

/// Maximum number of members of deleted workspaces that are kept in memory.
const MAX_DELETED_MEMBERS: usize = 100_000;

/// The state after the last commit, with a condition variable for the one thread that waits for it.
#[derive(Debug, Default)]
pub struct CommitNotifier {
    state: Mutex<LastCommit>,
    wakeup: Condvar,
    watcher: OnceLock<Watcher>,
}

/// Is called after each commit that has written events.
struct Watcher(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Watcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Watcher")
    }
}

#[derive(Debug, Default)]
struct LastCommit {
    /// The revision of the last event that was committed.
    revision: i64,
    /// The earliest expiry or grant that is due.
    due: Option<Timestamp>,
    /// Members of deleted workspaces, by the revision of the deletion. The store has deleted them.
    deleted_members: BTreeMap<i64, Arc<HashSet<UserId>>>,
    woken: bool,
    /// Wake up on every commit, not only when something is due sooner.
    on_every_commit: bool,
}

impl CommitNotifier {
    /// Records a commit: its last revision, and the earliest expiry or grant of the locks that it wrote.
    pub(super) fn committed(&self, revision: i64, due: Option<Timestamp>) {
        let mut state = self.lock();
        let next = earlier(state.due, due);
        let sooner = next != state.due;
        let has_events = revision > state.revision;
        if has_events || sooner {
            state.revision = state.revision.max(revision);
            state.due = next;
            let wakes = state.on_every_commit || sooner;
            state.woken |= wakes;
            drop(state);
            if wakes {
                self.wakeup.notify_all();
            }
            if let Some(watcher) = self.watcher.get().filter(|_| has_events) {
                (watcher.0)();
            }
        }
    }

    /// Calls `watcher` after each commit that has written events. It must not block. The first call counts.
    pub fn watch_events(&self, watcher: impl Fn() + Send + Sync + 'static) {
        // An error means that there is a watcher already.
        let _ = self.watcher.set(Watcher(Box::new(watcher)));
    }

    /// Keeps the members of deleted workspaces, by revision. Call it before [`Self::committed`].
    pub(super) fn deleted_members(&self, deleted_members: Vec<(i64, HashSet<UserId>)>) {
        if deleted_members.is_empty() {
            return;
        }
        let mut state = self.lock();
        state
            .deleted_members
            .extend(deleted_members.into_iter().map(|(revision, members)| (revision, Arc::new(members))));
        let mut count: usize = state.deleted_members.values().map(|members| members.len()).sum();
        // Followers of the events have received the oldest ones. The last one is always kept.
        while count > MAX_DELETED_MEMBERS && state.deleted_members.len() > 1 {
            count -= state.deleted_members.pop_first().map_or(0, |(_, members)| members.len());
        }
    }

    /// The members of the workspace that was deleted at this revision, if they are still kept.
    #[must_use]
    pub fn members_of_deleted(&self, revision: i64) -> Option<Arc<HashSet<UserId>>> {
        self.lock().deleted_members.get(&revision).map(Arc::clone)
    }

    /// The last committed revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// The earliest expiry or grant that is due.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.lock().due
    }

    /// Takes the due time, before the store is asked for it. [`Self::found_due`] merges commits made in
    /// between.
    pub fn forget_due(&self) -> Option<Timestamp> {
        self.lock().due.take()
    }

    /// Merges the due time that the store returned.
    pub fn found_due(&self, due: Option<Timestamp>) {
        let mut state = self.lock();
        state.due = earlier(state.due, due);
    }

    /// Sets whether every commit wakes the thread.
    pub fn wake_on_every_commit(&self, on_every_commit: bool) {
        self.lock().on_every_commit = on_every_commit;
    }

    /// Wakes the waiting thread.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.wakeup.notify_all();
    }

    /// Waits until woken, for `at_most` this long. Only one thread may call it.
    pub fn wait(&self, at_most: Duration) {
        let state = self.lock();
        let (mut state, _) = self
            .wakeup
            .wait_timeout_while(state, at_most, |state| !state.woken)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
    }

    fn lock(&self) -> MutexGuard<'_, LastCommit> {
        // No code panics while it holds the mutex.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_due_time_wakes_the_thread() {
        let notifier = CommitNotifier::default();
        let rang = |due| {
            notifier.committed(1, due);
            std::mem::take(&mut notifier.lock().woken)
        };
        assert!(rang(Some(Timestamp(100))));
        assert!(!rang(Some(Timestamp(160))), "there is something sooner");
        assert!(!rang(None));
        assert!(rang(Some(Timestamp(50))));
        notifier.wake_on_every_commit(true);
        notifier.committed(2, Some(Timestamp(60)));
        assert!(notifier.lock().woken);
    }

    #[test]
    fn a_due_time_committed_during_a_lookup_is_not_lost() {
        let notifier = CommitNotifier::default();
        notifier.committed(1, Some(Timestamp(100)));
        assert_eq!(notifier.forget_due(), Some(Timestamp(100)));
        notifier.committed(2, Some(Timestamp(200)));
        notifier.found_due(Some(Timestamp(5_000)));
        assert_eq!(notifier.due(), Some(Timestamp(200)));
    }
}
