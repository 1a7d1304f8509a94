//! What those who follow the store are told without asking it: how far the history goes, and when the next lease ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

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
    /// No lease ends before this; nothing is known when it is missing.
    next_end: Option<Timestamp>,
    rung: bool,
    /// Somebody wants to hear the bell for every commit.
    for_all: bool,
}

impl Watch {
    /// The history goes as far as `revision`, and leases were written of which the first ends at `first_end`.
    pub(super) fn committed(&self, revision: i64, first_end: Option<Timestamp>) {
        let mut watched = self.lock();
        let earlier = first_end.filter(|end| watched.next_end.is_none_or(|next| *end < next));
        if revision > watched.revision || earlier.is_some() {
            watched.revision = watched.revision.max(revision);
            watched.next_end = earlier.or(watched.next_end);
            if watched.for_all {
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

    /// Whether a lease may have ended by `now`. Then it is to be looked up which is the next.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.lock().next_end
    }

    /// No lease ends before this, by what is in the store. What was written meanwhile counts if it is earlier.
    pub fn looked_up(&self, before: Option<Timestamp>, found: Option<Timestamp>) {
        let mut watched = self.lock();
        if watched.next_end == before {
            watched.next_end = found;
        } else if let Some(found) = found {
            watched.next_end = Some(watched.next_end.map_or(found, |next| next.min(found)));
        }
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
