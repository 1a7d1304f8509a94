//! What those who follow the store are told without asking it: how far the history goes, and when time has its say next.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::write::Dues;
use crate::lock::UserId;

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
    dues: Dues,
    /// By the revision at which a workspace was deleted, who its members were: nobody could tell any more.
    parted: BTreeMap<i64, Arc<HashSet<UserId>>>,
    rung: bool,
    /// Somebody wants to hear the bell for every commit.
    for_all: bool,
}

impl Watch {
    /// The history goes as far as `revision`, and locks were written about which time has its say then.
    pub(super) fn committed(&self, revision: i64, dues: Dues) {
        let mut watched = self.lock();
        let all = watched.dues.or(dues);
        if revision > watched.revision || all != watched.dues {
            // Whoever knocked gets an answer, whether somebody listens or not.
            let ring = watched.for_all || all.grant != watched.dues.grant;
            watched.revision = watched.revision.max(revision);
            watched.dues = all;
            if ring {
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
    pub fn dues(&self) -> Dues {
        self.lock().dues
    }

    /// Forgets what is due, to look it up anew: what is written from now on is remembered besides what is found.
    pub fn forget_dues(&self) -> Dues {
        std::mem::take(&mut self.lock().dues)
    }

    /// Nothing of what is in the store is due before this.
    pub fn found(&self, dues: Dues) {
        let mut watched = self.lock();
        watched.dues = watched.dues.or(dues);
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
    use crate::time::Timestamp;

    #[test]
    fn a_knock_rings_the_bell_though_nobody_follows_and_other_writes_do_not() {
        let watch = Watch::default();
        let rang = |dues| {
            watch.committed(1, dues);
            std::mem::take(&mut watch.lock().rung)
        };
        let at = |at| Some(Timestamp(at));
        assert!(!rang(Dues { end: at(100), grant: None }));
        assert!(rang(Dues { end: None, grant: at(50) }));
        assert!(!rang(Dues { end: None, grant: at(60) }), "there is an earlier one");
        watch.ring_for_all(true);
        assert!(rang(Dues { end: at(90), grant: None }));
    }

    #[test]
    fn what_is_written_while_it_is_looked_up_what_is_due_is_not_forgotten() {
        let due = |at| Dues { end: Some(Timestamp(at)), grant: Some(Timestamp(at)) };
        let watch = Watch::default();
        watch.committed(1, due(100));
        watch.forget_dues();
        watch.committed(2, due(200));
        watch.found(due(5_000));
        assert_eq!(watch.dues(), due(200));
    }
}
