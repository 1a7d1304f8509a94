//! What those who follow the store are told without asking it: how far the history goes, and when time has its say next.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::write::earlier;
use crate::domain::UserId;
use crate::time::Timestamp;

/// Most members of workspaces that were deleted that are remembered.
const PARTED: usize = 100_000;

/// What has changed, and a bell.
#[derive(Debug, Default)]
pub struct Watch {
    watched: Mutex<Watched>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    /// The revision of the last event that was committed.
    revision: i64,
    /// Nothing is due before this.
    due: Option<Timestamp>,
    /// By the revision at which a workspace was deleted, who its members were: nobody could tell any more.
    parted: BTreeMap<i64, Arc<HashSet<UserId>>>,
    rung: bool,
    /// Somebody wants to hear the bell for every commit.
    for_all: bool,
}

impl Watch {
    /// The history goes as far as `revision`, and nothing is due before `due` about the locks that were written.
    pub(super) fn committed(&self, revision: i64, due: Option<Timestamp>) {
        let mut watched = self.lock();
        let next = earlier(watched.due, due);
        let sooner = next != watched.due;
        if revision > watched.revision || sooner {
            watched.revision = watched.revision.max(revision);
            watched.due = next;
            if watched.for_all || sooner {
                watched.rung = true;
                drop(watched);
                self.bell.notify_all();
            }
        }
    }

    /// Workspaces are deleted, at these revisions, and these were their members. To be said before what is committed with
    /// it.
    pub(super) fn parted(&self, parted: Vec<(i64, HashSet<UserId>)>) {
        if parted.is_empty() {
            return;
        }
        let mut watched = self.lock();
        watched.parted.extend(parted.into_iter().map(|(revision, members)| (revision, Arc::new(members))));
        let mut count: usize = watched.parted.values().map(|members| members.len()).sum();
        // Those who follow have heard of it long since. The last is always kept.
        while count > PARTED && watched.parted.len() > 1 {
            count -= watched.parted.pop_first().map_or(0, |(_, members)| members.len());
        }
    }

    /// Who were the members of a workspace that was deleted at this revision, as far as that is remembered.
    #[must_use]
    pub fn members_until(&self, revision: i64) -> Option<Arc<HashSet<UserId>>> {
        self.lock().parted.get(&revision).map(Arc::clone)
    }

    /// How far the history goes.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// Nothing is due before this.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.lock().due
    }

    /// Forgets what is due, to look it up anew: what is written from now on is remembered besides what is found.
    pub fn forget_due(&self) -> Option<Timestamp> {
        self.lock().due.take()
    }

    /// Nothing of what is in the store is due before this.
    pub fn found_due(&self, due: Option<Timestamp>) {
        let mut watched = self.lock();
        watched.due = earlier(watched.due, due);
    }

    /// Whether the bell is rung for what is committed.
    pub fn ring_for_all(&self, for_all: bool) {
        self.lock().for_all = for_all;
    }

    /// Rings the bell.
    pub fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_all();
    }

    /// Waits until the bell is rung, for `at_most` so long. For one listener.
    pub fn listen(&self, at_most: Duration) {
        let watched = self.lock();
        let (mut watched, _) = self
            .bell
            .wait_timeout_while(watched, at_most, |watched| !watched.rung)
            .unwrap_or_else(PoisonError::into_inner);
        watched.rung = false;
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing panics while it is held.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_rings_for_what_is_due_sooner_though_nobody_follows_and_not_for_other_writes() {
        let watch = Watch::default();
        let rang = |due| {
            watch.committed(1, due);
            std::mem::take(&mut watch.lock().rung)
        };
        assert!(rang(Some(Timestamp(100))));
        assert!(!rang(Some(Timestamp(160))), "there is something sooner");
        assert!(!rang(None));
        assert!(rang(Some(Timestamp(50))));
        watch.ring_for_all(true);
        watch.committed(2, Some(Timestamp(60)));
        assert!(watch.lock().rung);
    }

    #[test]
    fn what_is_written_while_it_is_looked_up_what_is_due_is_not_forgotten() {
        let watch = Watch::default();
        watch.committed(1, Some(Timestamp(100)));
        assert_eq!(watch.forget_due(), Some(Timestamp(100)));
        watch.committed(2, Some(Timestamp(200)));
        watch.found_due(Some(Timestamp(5_000)));
        assert_eq!(watch.due(), Some(Timestamp(200)));
    }
}
