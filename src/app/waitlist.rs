//! Use cases on the queue of waiters: join and leave.

use std::sync::Arc;

use super::Service;
use super::current::{answer_if_allowed, load_current, refusal};
use super::locks;
use crate::domain::access::{Membership, Privilege, Rules};
use crate::domain::rights::{Actor, Need};
use crate::domain::rules;
use crate::domain::token::Validity;
use crate::domain::waitlist::{self as rule, QueueEntry as _};
use crate::domain::{Acquire, Acquired, Lock, WorkspaceId};
use crate::error::{Error, Limit};
use crate::metrics::Metrics;
use crate::store::queue::{Client, QueuedWaiter, Waiter};
use crate::store::{AsOf, Keys, WorkingSet};
use crate::time::Ttl;

/// Outcome of an acquire that may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitOutcome {
    /// Answered at once: the caller need not wait, or waiting is useless.
    Answered(Box<Acquired>),
    /// The caller waits and is answered later.
    Waiting,
    /// A limit on waiters is reached.
    LimitReached(Limit),
}

impl Service {
    /// Acquires the lock of a workspace, and waits for it if another holder has it.
    pub fn acquire_waiting(
        self: &Arc<Self>,
        actor: Actor,
        request: Acquire,
        wait: Ttl,
        validity: Validity,
        client: Box<dyn Client>,
    ) {
        let store = Arc::clone(&self.store);
        let of = request.workspace_id.clone();
        client.when_gone(Box::new(move || {
            store.queue().client_left(&of);
            store.notifier().wake();
        }));
        let keys = Keys::workspace(&request.workspace_id).and_user(&request.user_id);
        let client = CountingClient { client, metrics: Arc::clone(&self.metrics) };
        let waiter = Waiter::new(request, wait.min(self.max_wait), validity, Box::new(client));
        let asks = Arc::clone(&waiter);
        self.submit_as(
            actor,
            keys,
            Need::Edit,
            move |set, rules, privilege| acquire(set, &asks, privilege, rules),
            move |came| {
                waiter.answer(match came {
                    Ok(AsOf { value: WaitOutcome::Waiting, .. }) => return,
                    Ok(AsOf { now, value: WaitOutcome::Answered(value) }) => Ok(AsOf { now, value: *value }),
                    Ok(AsOf { value: WaitOutcome::LimitReached(limit), .. }) => Err(Error::TooMany(limit)),
                    Err(error) => Err(error),
                });
            },
        );
    }
}

/// Acquires the lock, and adds the caller to the queue if another holder has it.
///
/// # Errors
/// Any error of the store.
pub fn acquire(
    set: &WorkingSet<'_>,
    waiter: &Arc<Waiter>,
    privilege: Privilege,
    rules: &Rules,
) -> Result<WaitOutcome, Error> {
    let request = &Acquire { privilege, ..waiter.request.clone() };
    if waiter.is_gone() {
        return Ok(WaitOutcome::Waiting);
    }
    let outcome = locks::acquire(set, request, rules)?;
    let Acquired::Held { lock, .. } = &outcome else {
        return Ok(WaitOutcome::Answered(Box::new(outcome)));
    };
    let now = set.now();
    let until = now.plus(waiter.wait);
    let mut waiters = set.queue().waiters(&request.workspace_id);
    if let Some(queued) =
        rule::position_of(&waiters, request, now).and_then(|position| waiters.get_mut(position))
    {
        // The new request replaces the earlier one; the client of the earlier request is answered.
        let before = std::mem::replace(&mut queued.waiter, Arc::clone(waiter));
        (queued.until, queued.is_leaving) = (until, false);
        set.queue().answer(before, outcome);
    } else {
        waiters = remove_overdue(set, waiters, lock, rules)?;
        set.queue().replace(&request.workspace_id, waiters.clone());
        if let Some(limit) = rule::limit_reached(&waiters, request, set.queue().total(), set.queue().limits())
        {
            return Ok(WaitOutcome::LimitReached(limit));
        }
        let place = rule::new_position(&waiters, request);
        waiters
            .insert(place, QueuedWaiter { waiter: Arc::clone(waiter), since: now, until, is_leaving: false });
    }
    set.queue().replace(&request.workspace_id, waiters);
    set.queue().joined(waiter);
    Ok(WaitOutcome::Waiting)
}

/// Removes the waiters who do not keep their positions, and answers them with the current lock.
fn remove_overdue(
    set: &WorkingSet<'_>,
    waiters: Vec<QueuedWaiter>,
    lock: &Lock,
    rules: &Rules,
) -> Result<Vec<QueuedWaiter>, Error> {
    let (waiting, leaving): (Vec<_>, Vec<_>) =
        waiters.into_iter().partition(|queued| queued.keeps_position(set.now()));
    for QueuedWaiter { waiter, .. } in leaving {
        let held = rules::held(lock.clone(), &waiter.request, rules, set.moment());
        answer_if_allowed(set, waiter, rules, held)?;
    }
    Ok(waiting)
}

/// Removes the waiters who may no longer hold this lock, and answers them with the reason.
pub(super) fn remove_excluded(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<(), Error> {
    if rules.membership == Membership::Open || !set.queue().has_waiters(workspace_id) {
        return Ok(());
    }
    let mut waiting = Vec::new();
    for queued in set.queue().waiters(workspace_id) {
        match refusal(set, &queued.waiter, rules)? {
            Some(why) => set.queue().reject(queued.waiter, why),
            None => waiting.push(queued),
        }
    }
    set.queue().replace(workspace_id, waiting);
    Ok(())
}

/// Removes the waiters of these workspaces whose wait is over, and answers them with the current lock.
///
/// # Errors
/// Any error of the store.
pub fn remove_leavers(set: &WorkingSet<'_>, workspaces: &[WorkspaceId], rules: &Rules) -> Result<(), Error> {
    for workspace_id in workspaces {
        // If the lease has just expired, this grants the lock to a waiter.
        let lock = load_current(set, workspace_id, rules)?;
        let waiters = set.queue().waiters(workspace_id);
        let waiters = if let Some(lock) = &lock {
            remove_overdue(set, waiters, lock, rules)?
        } else {
            // The grant skipped only disconnected clients. The others have left for another server.
            let (leaving, gone): (Vec<_>, Vec<_>) =
                waiters.into_iter().partition(|queued| queued.keeps_position(set.now()));
            for QueuedWaiter { waiter, .. } in gone {
                set.queue().reject(waiter, Error::Busy);
            }
            leaving
        };
        set.queue().replace(workspace_id, waiters);
    }
    Ok(())
}

/// Client of a waiter. Counts the outcome in the metrics.
struct CountingClient {
    client: Box<dyn Client>,
    metrics: Arc<Metrics>,
}

impl Client for CountingClient {
    fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        self.client.when_gone(callback);
    }

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        locks::count(&self.metrics, &answer);
        self.client.answer(answer);
    }
}
