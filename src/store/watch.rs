//! What those who follow the store are told without asking it: how far the history goes, and when time has its say next.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::write::Dues;

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

    /// How far the history goes.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// Nothing is due before this. When it comes, it is to be looked up what is due next.
    #[must_use]
    pub fn dues(&self) -> Dues {
        self.lock().dues
    }

    /// Nothing is due before `found`, by what is in the store. What was written since `before` counts if it is earlier.
    pub fn looked_up(&self, before: Dues, found: Dues) {
        let mut watched = self.lock();
        watched.dues = if watched.dues == before { found } else { watched.dues.or(found) };
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
