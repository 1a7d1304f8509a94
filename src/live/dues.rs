//! What is to happen at a certain time, and does, whether anybody asks or not: a lease that ends while somebody waits
//! for it or watches it, a lock that passes to whoever knocked, a wait that is over.
//!
//! Nothing that a client is told depends on it but *when* they are told: every transaction lets time have its say first.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::lock::policy::Rules;
use crate::store::{Store, locks, waiting};
use crate::time::Timestamp;

/// Lines that are looked through in one.
const LINES: usize = 500;
/// How long to wait after the store could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait when nothing is due.
const LONG: Duration = Duration::from_secs(60);

/// Sees to it that what is due happens.
#[derive(Debug)]
pub(super) struct Dues {
    store: Arc<Store>,
    rules: Arc<Rules>,
}

impl Dues {
    pub(super) const fn new(store: Arc<Store>, rules: Arc<Rules>) -> Self {
        Self { store, rules }
    }

    /// Lets happen what is due, a bounded number at a time. Returns how long it is until there is something to do again.
    pub(super) fn see_to(&self) -> Duration {
        let next = self.leave().and_then(|leave| Ok(leave.min(self.settle()?)));
        next.unwrap_or_else(|error| {
            log::warn!("what is due cannot be done just now: {error}");
            self.store.queue().give_up(self.store.clock().now(), &error);
            PAUSE
        })
    }

    /// Those who wait and cannot get what they wait for any more are told.
    fn leave(&self) -> Result<Duration, Error> {
        let queue = self.store.queue();
        let leaving = queue.with_leavers(self.store.clock().now(), LINES);
        if leaving.is_empty() {
            return Ok(self.until(queue.soonest()));
        }
        let rules = Arc::clone(&self.rules);
        let lines = leaving.clone();
        self.store.write(move |write| waiting::leave(write, &lines, &rules)).inspect_err(|_| {
            // They are looked for again.
            for workspace_id in &leaving {
                queue.somebody_left(workspace_id);
            }
        })?;
        Ok(Duration::ZERO)
    }

    /// Ends leases whose end has come, and lets locks pass on.
    fn settle(&self) -> Result<Duration, Error> {
        let watch = self.store.watch();
        let now = self.store.clock().now();
        let due = watch.due();
        if due.is_none_or(|due| due > now) {
            return Ok(self.until(due));
        }
        let before = watch.forget_due();
        let rules = Arc::clone(&self.rules);
        let swept = self.store.write(move |write| locks::sweep(write, &rules));
        match swept.and_then(|_| self.store.next_due()) {
            Ok(found) => watch.found_due(found),
            Err(error) => {
                watch.found_due(before);
                return Err(error);
            }
        }
        // There may be more. Others come first.
        Ok(Duration::ZERO)
    }

    fn until(&self, due: Option<Timestamp>) -> Duration {
        due.map_or(LONG, |due| {
            Duration::from_millis(due.since(self.store.clock().now()).max(0).unsigned_abs())
        })
    }
}
