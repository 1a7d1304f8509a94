//! Use cases on the wait list: join, leave and grant. They run inside the transactions that end and begin
//! leases, so that no other caller gets the lock in between.

use std::sync::Arc;

use super::Service;
use super::current::{apply, is_allowed, load_current};
use super::locks::{self, Counted};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::Author;
use crate::domain::member::{Actor, Membership, Need};
use crate::domain::rules::{self, Begins, Change};
use crate::domain::token::Lasts;
use crate::domain::waitlist::{self as line, Waiting as _};
use crate::domain::{Acquire, Acquired, Hold, Lock, SessionId, UserId, WorkspaceId};
use crate::error::{Error, Limit};
use crate::store::queue::{Client, Place, Waiter};
use crate::store::{AsOf, Keys, WorkingSet};
use crate::time::{Timestamp, Ttl};

/// Outcome of an acquire that may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// Answered at once: the caller need not wait, or waiting is useless.
    Answered(Box<Acquired>),
    /// The caller waits and is answered later.
    Waits,
    /// A limit on waiters is reached.
    Full(Limit),
}

impl Service {
    /// Acquires the lock of a workspace, and waits for it if another holder has it.
    pub fn acquire_waiting(
        self: &Arc<Self>,
        actor: Actor,
        request: Acquire,
        wait: Ttl,
        lasts: Lasts,
        client: Box<dyn Client>,
    ) {
        let store = Arc::clone(&self.store);
        let of = request.workspace_id.clone();
        client.when_gone(Box::new(move || {
            store.queue().somebody_left(&of);
            store.notifier().wake();
        }));
        let keys = Keys::workspace(&request.workspace_id).and_user(&request.user_id);
        let client = Counted { client, metrics: Arc::clone(&self.metrics) };
        let waiter = Waiter::new(request, wait.min(self.max_wait), lasts, Box::new(client));
        let rules = Arc::clone(&self.rules);
        let asks = Arc::clone(&waiter);
        self.submit_as(
            actor,
            keys,
            Need::Edit,
            move |set, standing| acquire(set, &asks, standing, &rules),
            move |came| {
                waiter.answer(match came {
                    Ok(AsOf { value: Came::Waits, .. }) => return,
                    Ok(AsOf { now, value: Came::Answered(value) }) => Ok(AsOf { now, value: *value }),
                    Ok(AsOf { value: Came::Full(limit), .. }) => Err(Error::TooMany(limit)),
                    Err(error) => Err(error),
                });
            },
        );
    }
}

/// Acquires the lock, and adds the caller to the wait list if another holder has it.
///
/// # Errors
/// Any error of the store.
pub fn acquire(
    set: &WorkingSet<'_>,
    waiter: &Arc<Waiter>,
    standing: Privilege,
    rules: &Rules,
) -> Result<Came, Error> {
    let request = &Acquire { standing, ..waiter.request.clone() };
    if waiter.is_gone() {
        return Ok(Came::Waits);
    }
    let outcome = locks::acquire(set, request, rules)?;
    let Acquired::Held { lock, .. } = &outcome else { return Ok(Came::Answered(Box::new(outcome))) };
    let now = set.now();
    let until = now.plus(waiter.wait);
    let mut places = set.lines().line(&request.workspace_id);
    if let Some(place) = line::place_of(&places, request).and_then(|place| places.get_mut(place)) {
        // The new request replaces the earlier one; the client of the earlier request is answered.
        let before = std::mem::replace(&mut place.waiter, Arc::clone(waiter));
        place.until = until;
        set.lines().tell(before, outcome);
    } else {
        places = without_leavers(set, places, lock, rules)?;
        set.lines().set(&request.workspace_id, places.clone());
        if let Some(limit) = line::full(&places, request, set.lines().in_all(), set.lines().limits()) {
            return Ok(Came::Full(limit));
        }
        places.push(Place { waiter: Arc::clone(waiter), since: now, until });
    }
    set.lines().set(&request.workspace_id, places);
    set.lines().entered(waiter);
    Ok(Came::Waits)
}

/// Removes the waiters whose wait is over, and tells them who holds this lock.
fn without_leavers(
    set: &WorkingSet<'_>,
    places: Vec<Place>,
    lock: &Lock,
    rules: &Rules,
) -> Result<Vec<Place>, Error> {
    let (there, leaving): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.waits(set.now()));
    for Place { waiter, .. } in leaving {
        let held = rules::held(lock.clone(), &waiter.request, rules, set.moment());
        tell_if_fit(set, waiter, rules, held)?;
    }
    Ok(there)
}

/// Answers a leaving waiter with the outcome, or with the reason why it may not have the lock.
fn tell_if_fit(
    set: &WorkingSet<'_>,
    waiter: Arc<Waiter>,
    rules: &Rules,
    outcome: Acquired,
) -> Result<(), Error> {
    match unfit(set, &waiter, rules)? {
        Some(why) => set.lines().turn_away(waiter, why),
        None => set.lines().tell(waiter, outcome),
    }
    Ok(())
}

/// Reason why the lock cannot be granted to a waiter, if any.
fn unfit(set: &WorkingSet<'_>, waiter: &Waiter, rules: &Rules) -> Result<Option<Error>, Error> {
    let Acquire { workspace_id, user_id, .. } = &waiter.request;
    Ok(line::unfit(are_good(set, &waiter.lasts)?, is_allowed(&**set, workspace_id, user_id, rules)?))
}

/// Whether the credentials are still valid.
pub(super) fn are_good(set: &WorkingSet<'_>, lasts: &Lasts) -> Result<bool, Error> {
    Ok(match lasts {
        Lasts::Always => true,
        Lasts::Until(end) => set.wall() < *end,
        Lasts::AsLongAs(hash) => set.token(hash)?.is_some_and(|(token, _)| token.is_good(set.wall())),
    })
}

/// Grants a lock that became free at `freed_at` to the next waiter.
pub(super) fn grant_next(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    freed_at: Timestamp,
    rules: &Rules,
) -> Result<(), Error> {
    if !set.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut places = set.lines().line(workspace_id);
    let mut granted = None;
    while granted.is_none()
        && let Some(next) = line::next(&places, freed_at)
    {
        let Place { waiter, .. } = places.remove(next);
        if let Some(why) = unfit(set, &waiter, rules)? {
            set.lines().turn_away(waiter, why);
            continue;
        }
        let lock =
            rules::given(&waiter.request, Hold::Given, rules, Begins::now(set.now()), set.moment().fresh);
        let decision =
            rules::Decision { change: Change::Grant(lock.clone()), outcome: Acquired::Acquired(lock) };
        let decision = locks::limited(set, decision, &waiter.request.user_id, rules)?;
        set.lines().tell(Arc::clone(&waiter), decision.outcome);
        granted = (decision.change != Change::Nothing).then_some((waiter, decision.change));
    }
    set.lines().set(workspace_id, places);
    let Some((waiter, change)) = granted else { return Ok(()) };
    let by = Author::person(waiter.request.user_id.clone(), waiter.request.user_name.clone());
    apply(set, change, Some(&by), rules)
}

/// Removes the waiters who may no longer hold this lock, and tells them why.
pub(super) fn turn_out(set: &WorkingSet<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<(), Error> {
    if rules.membership == Membership::Open || !set.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut there = Vec::new();
    for place in set.lines().line(workspace_id) {
        match unfit(set, &place.waiter, rules)? {
            Some(why) => set.lines().turn_away(place.waiter, why),
            None => there.push(place),
        }
    }
    set.lines().set(workspace_id, there);
    Ok(())
}

/// After a lease begins, answers the waiters whose acquire it satisfies, even if their wait is over. The
/// lease may come from another request or a handover.
pub(super) fn tell_arrived(set: &WorkingSet<'_>, lock: &Lock, rules: &Rules) -> Result<(), Error> {
    if !set.lines().has_line(&lock.workspace_id) {
        return Ok(());
    }
    let (arrived, places): (Vec<_>, Vec<_>) = set
        .lines()
        .line(&lock.workspace_id)
        .into_iter()
        .partition(|place| line::arrives(&place.waiter.request, lock, rules));
    if !arrived.is_empty() {
        set.lines().set(&lock.workspace_id, places);
    }
    for Place { waiter, .. } in arrived {
        let outcome = line::arrival(&waiter.request, lock);
        tell_if_fit(set, waiter, rules, outcome)?;
    }
    Ok(())
}

/// Removes the waiters of these workspaces whose wait is over, and tells them who holds the lock.
///
/// # Errors
/// Any error of the store.
pub fn leave(set: &WorkingSet<'_>, workspaces: &[WorkspaceId], rules: &Rules) -> Result<(), Error> {
    for workspace_id in workspaces {
        // If the lease has just expired, this grants the lock to a waiter.
        let lock = load_current(set, workspace_id, rules)?;
        let places = set.lines().line(workspace_id);
        let places = if let Some(lock) = &lock {
            without_leavers(set, places, lock, rules)?
        } else {
            // The grant skipped only disconnected clients, so the remaining waiters are gone.
            for Place { waiter, .. } in places {
                set.lines().turn_away(waiter, Error::Busy);
            }
            Vec::new()
        };
        set.lines().set(workspace_id, places);
    }
    Ok(())
}

/// Waiting acquire of this user on the workspace, if there is one.
pub(super) fn wish(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    who: (&UserId, Option<&SessionId>),
    rules: &Rules,
) -> Result<Option<Acquire>, Error> {
    if !set.lines().has_line(workspace_id) {
        return Ok(None);
    }
    let places = set.lines().line(workspace_id);
    let wish = line::wish(&places, who, |place| Ok(unfit(set, &place.waiter, rules)?.is_none()))?;
    Ok(wish.cloned())
}
