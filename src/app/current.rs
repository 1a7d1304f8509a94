//! Loads the current lock of a workspace, and applies a decision to it.
//!
//! Every use case begins with [`load_current`] and ends with [`apply`]. A lock that becomes free is granted to the
//! next waiter in the same transaction, so that no other caller gets it in between.

use std::sync::Arc;

use crate::domain::access::{Membership, Rules};
use crate::domain::event::{Author, Ending, EventType, NewEvent};
use crate::domain::grants::{self, GrantTime};
use crate::domain::rights::{forced_ending, may_hold};
use crate::domain::rules::{self, Change, Decision};
use crate::domain::token::Validity;
use crate::domain::waitlist::{self, Recipient};
use crate::domain::{Acquire, Acquired, GrantState, Lock, UserId, WorkspaceId, WorkspaceState};
use crate::error::{Denied, Error};
use crate::store::queue::{QueuedWaiter, Waiter};
use crate::store::{Rows, WorkingSet};
use crate::time::Timestamp;

/// Returns the lock of a workspace after due expiries and grants are applied. An expired lease is ended, and
/// the next waiter gets the lock. A lease is also ended if its holder may not hold it, for example because
/// the settings changed.
///
/// # Errors
/// Any error of the store.
pub fn load_current(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<Lock>, Error> {
    loop {
        let Some(lock) = apply_due(set, workspace_id, rules)? else { return Ok(None) };
        let Some(ending) = must_end(&**set, &lock, rules)? else { return Ok(Some(lock)) };
        apply(set, Change::End(lock, ending), None, rules)?;
    }
}

/// Like [`load_current`], for decisions that do not depend on the last lease.
pub(super) fn state(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<WorkspaceState, Error> {
    Ok(load_current(set, workspace_id, rules)?
        .map_or(WorkspaceState::Free { last: None }, WorkspaceState::Locked))
}

/// Returns the lock of a workspace after due expiries and grants are applied. Its holder may be a user who
/// may not hold it.
pub(super) fn apply_due(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<Lock>, Error> {
    while let Some(mut lock) = set.lock(workspace_id)? {
        remove_knocks_without_access(set, &mut lock, rules)?;
        let waiting = match lock.knocks.pending.first() {
            Some(knock) if lock.due_at() <= set.now() => {
                if !are_valid(set, &knock.validity)? {
                    let user_id = knock.user_id.clone();
                    lock.knocks.remove(lock.kind, &user_id, rules, set.now());
                    set.put_knocks(&lock)?;
                    continue;
                }
                acquire_of(set, workspace_id, Recipient::of(knock), rules)?
            }
            Some(_) | None => None,
        };
        let change = rules::due(&lock, waiting.as_ref(), rules, set.moment());
        if change == Change::Nothing {
            return Ok(Some(lock));
        }
        // The loop ends: each change is later than the one before (a grant to a knock, an expiry, a grant to
        // a waiter).
        apply(set, change, None, rules)?;
    }
    Ok(None)
}

/// Removes the knocks of users who may not hold the lock.
fn remove_knocks_without_access(set: &WorkingSet<'_>, lock: &mut Lock, rules: &Rules) -> Result<(), Error> {
    let mut denied = Vec::new();
    for knock in &lock.knocks.pending {
        if is_allowed(&**set, &lock.workspace_id, &knock.user_id, rules)?.is_err() {
            denied.push(knock.user_id.clone());
        }
    }
    for user_id in &denied {
        lock.knocks.remove(lock.kind, user_id, rules, set.now());
    }
    if denied.is_empty() { Ok(()) } else { set.put_knocks(lock) }
}

/// Checks whether a user may hold the lock of a workspace, and why not.
pub(super) fn is_allowed(
    rows: &(impl Rows + ?Sized),
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    rules: &Rules,
) -> Result<Result<(), Denied>, Error> {
    // With open membership, which most servers use, no role is looked up.
    let role = match rules.membership {
        Membership::Open => None,
        Membership::Enforced => rows.role(&workspace_id.with_roles(), user_id)?,
    };
    Ok(may_hold(role, rules.membership))
}

/// How this lease must be ended because its holder may not hold it; `None` if the holder may. This happens if
/// the lease began before membership was enforced, or if the file was edited.
pub(super) fn must_end(
    rows: &(impl Rows + ?Sized),
    lock: &Lock,
    rules: &Rules,
) -> Result<Option<Ending>, Error> {
    let Lock { workspace_id, user_id, .. } = lock;
    if is_allowed(rows, workspace_id, user_id, rules)?.is_ok() {
        return Ok(None);
    }
    let workspace_id = workspace_id.with_roles();
    let role = rows.role(&workspace_id, user_id)?;
    Ok(Some(forced_ending(role, rows.workspace(&workspace_id)?.is_some())))
}

/// Stores a change with its events. A lock that becomes free is granted to the next waiter.
///
/// # Errors
/// Any error of the store.
pub fn apply(set: &WorkingSet<'_>, change: Change, by: Option<&Author>, rules: &Rules) -> Result<(), Error> {
    let now = set.now();
    let reason = by.and_then(|by| by.reason.as_deref());
    match change {
        Change::Nothing => {}
        Change::Grant(lock) => {
            set.begin_lease(&lock)?;
            set.record(&NewEvent { by, ..NewEvent::on_lease(&lock, EventType::Acquired, now) })?;
            answer_satisfied(set, &lock, rules)?;
        }
        Change::Reclaim(lock) => {
            set.resume_lease(&lock)?;
            let event = NewEvent::on_lease(&lock, EventType::Acquired, now);
            set.record(&NewEvent { by, reclaimed: true, ..event })?;
            answer_satisfied(set, &lock, rules)?;
        }
        Change::Extend(lock) => set.extend(&lock)?,
        Change::Renew(lock) => set.renew(&lock)?,
        Change::Postpone(lock) => {
            set.renew(&lock)?;
            if let Some(knock) = lock.knocks.pending.first() {
                // Recorded like the knock itself. `to` marks that it is not a new knock.
                let by = Author::new(knock.user_id.clone(), knock.name.clone());
                let event = NewEvent::on_lease(&lock, EventType::Knocked, now);
                set.record(&NewEvent { by: Some(&by), to: Some(&knock.user_id), ..event })?;
            }
        }
        Change::UpdateKnock(lock) => set.put_knocks(&lock)?,
        Change::End(lock, ending) => {
            set.end_lease(&lock)?;
            // An expiry has the end time of the lease, even if it was noticed later.
            let at = if ending == Ending::Expired { lock.expires_at } else { now };
            let event = NewEvent::of_end(&lock, ending, at);
            let drain_until = event.drain_until;
            set.record(&NewEvent { by, message: reason, ..event })?;
            if ending == Ending::Expired {
                set.count_expiry();
            }
            grant_next(set, &lock.workspace_id, at, drain_until, rules)?;
        }
        Change::TakeOver { previous, lock, yielded } => {
            replace(set, &previous, &lock)?;
            let event = NewEvent::of_end(&previous, Ending::TakenOver, now);
            set.record(&NewEvent { next_fence: Some(lock.fence), by, message: reason, yielded, ..event })?;
            set.count_takeover();
            answer_satisfied(set, &lock, rules)?;
        }
        Change::HandOver { previous, lock, requested } => {
            replace(set, &previous, &lock)?;
            let silence = Author::new(lock.user_id.clone(), lock.user_name.clone());
            let by = if requested { by } else { Some(&silence) };
            let event = NewEvent::of_end(&previous, Ending::HandedOver, lock.acquired_at);
            set.record(&NewEvent { next_fence: Some(lock.fence), by, to: Some(&lock.user_id), ..event })?;
            answer_satisfied(set, &lock, rules)?;
            yield_to_waiter(set, &lock, rules)?;
        }
        Change::Knock(lock, message) => {
            set.put_knocks(&lock)?;
            let message = message.as_deref();
            set.record(&NewEvent { by, message, ..NewEvent::on_lease(&lock, EventType::Knocked, now) })?;
        }
        Change::Decline(lock, user_id) => {
            set.put_knocks(&lock)?;
            let event = NewEvent::on_lease(&lock, EventType::KnockDeclined, now);
            set.record(&NewEvent { by, to: Some(&user_id), ..event })?;
        }
    }
    Ok(())
}

/// Ends one lease and begins another.
fn replace(set: &WorkingSet<'_>, previous: &Lock, lock: &Lock) -> Result<(), Error> {
    set.end_lease(previous)?;
    set.begin_lease(lock)
}

/// Grants a lock that became free at `freed_at` to the next waiter. `drain_until` is what the ended lease has left.
fn grant_next(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    freed_at: Timestamp,
    drain_until: Option<Timestamp>,
    rules: &Rules,
) -> Result<(), Error> {
    if !set.queue().has_waiters(workspace_id) {
        return Ok(());
    }
    let mut places = set.queue().waiters(workspace_id);
    let mut lease_for = None;
    while lease_for.is_none()
        && let Some(next) = waitlist::next(&places, freed_at)
    {
        let QueuedWaiter { waiter, .. } = places.remove(next);
        if let Some(why) = refusal(set, &waiter, rules)? {
            set.queue().reject(waiter, why);
            continue;
        }
        let lock = grants::granted_lease(
            &waiter.request,
            GrantState::ToSession,
            rules,
            GrantTime::now(set.now()),
            set.moment().next_fence,
            drain_until,
        );
        let decision = Decision { change: Change::Grant(lock.clone()), outcome: Acquired::Acquired(lock) };
        let decision = within_lock_limit(set, decision, rules)?;
        set.queue().answer(Arc::clone(&waiter), decision.outcome);
        lease_for = (decision.change != Change::Nothing).then_some((waiter, decision.change));
    }
    set.queue().replace(workspace_id, places);
    let Some((waiter, change)) = lease_for else { return Ok(()) };
    let by = Author::new(waiter.request.user_id.clone(), waiter.request.user_name.clone());
    apply(set, change, Some(&by), rules)
}

/// After a lease begins, answers the waiters whose acquire it satisfies, even if their wait is over. The
/// lease may come from another request or a handover.
fn answer_satisfied(set: &WorkingSet<'_>, lock: &Lock, rules: &Rules) -> Result<(), Error> {
    if !set.queue().has_waiters(&lock.workspace_id) {
        return Ok(());
    }
    let (arrived, places): (Vec<_>, Vec<_>) = set
        .queue()
        .waiters(&lock.workspace_id)
        .into_iter()
        .partition(|place| waitlist::satisfies(&place.waiter.request, lock, rules));
    if !arrived.is_empty() {
        set.queue().replace(&lock.workspace_id, places);
    }
    for QueuedWaiter { waiter, .. } in arrived {
        let outcome = waitlist::outcome_when_satisfied(&waiter.request, lock);
        answer_if_allowed(set, waiter, rules, outcome)?;
    }
    Ok(())
}

/// After a lease was handed over to an agent: if a person waits, the agent yields at once. In no other way does an
/// agent get a lock that a person waits for.
fn yield_to_waiter(set: &WorkingSet<'_>, lock: &Lock, rules: &Rules) -> Result<(), Error> {
    let yields =
        |place: &QueuedWaiter| rules.yields(lock.kind, place.waiter.request.kind) && !place.waiter.is_gone();
    if !lock.kind.is_agent() || !set.queue().has_waiters(&lock.workspace_id) {
        return Ok(());
    }
    let mut places = set.queue().waiters(&lock.workspace_id);
    let mut decision = None;
    while decision.is_none()
        && let Some(next) = places.iter().position(yields)
    {
        let QueuedWaiter { waiter, .. } = places.remove(next);
        if let Some(why) = refusal(set, &waiter, rules)? {
            set.queue().reject(waiter, why);
            continue;
        }
        let yielding = rules::yield_to_waiter(lock.clone(), &waiter.request, rules, set.moment());
        let Decision { change, outcome } = within_lock_limit(set, yielding, rules)?;
        set.queue().answer(Arc::clone(&waiter), outcome);
        decision = (change != Change::Nothing).then_some((waiter, change));
    }
    set.queue().replace(&lock.workspace_id, places);
    let Some((waiter, change)) = decision else { return Ok(()) };
    let by = Author::new(waiter.request.user_id.clone(), waiter.request.user_name.clone());
    apply(set, change, Some(&by), rules)
}

/// Waiting acquire of this recipient on the workspace, if there is one.
pub(super) fn acquire_of(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    recipient: Recipient<'_>,
    rules: &Rules,
) -> Result<Option<Acquire>, Error> {
    if !set.queue().has_waiters(workspace_id) {
        return Ok(None);
    }
    let places = set.queue().waiters(workspace_id);
    let acquire =
        waitlist::acquire_of(&places, recipient, |place| Ok(refusal(set, &place.waiter, rules)?.is_none()))?;
    Ok(acquire.cloned())
}

/// Answers a leaving waiter with the outcome, or with the reason why it may not have the lock.
pub(super) fn answer_if_allowed(
    set: &WorkingSet<'_>,
    waiter: Arc<Waiter>,
    rules: &Rules,
    outcome: Acquired,
) -> Result<(), Error> {
    match refusal(set, &waiter, rules)? {
        Some(why) => set.queue().reject(waiter, why),
        None => set.queue().answer(waiter, outcome),
    }
    Ok(())
}

/// Reason why the lock cannot be granted to a waiter, if any.
pub(super) fn refusal(set: &WorkingSet<'_>, waiter: &Waiter, rules: &Rules) -> Result<Option<Error>, Error> {
    let Acquire { workspace_id, user_id, .. } = &waiter.request;
    Ok(waitlist::refusal(
        are_valid(set, &waiter.validity)?,
        is_allowed(&**set, workspace_id, user_id, rules)?,
    ))
}

/// Whether the credentials are still valid.
fn are_valid(set: &WorkingSet<'_>, validity: &Validity) -> Result<bool, Error> {
    Ok(match validity {
        Validity::Unlimited => true,
        Validity::Until(end) => set.wall() < *end,
        Validity::WhileTokenValid(hash) => {
            set.token(hash)?.is_some_and(|(token, _)| token.is_valid(set.wall()))
        }
    })
}

/// Applies the limit of locks per user to the decision.
pub(super) fn within_lock_limit(
    set: &WorkingSet<'_>,
    decision: Decision<Acquired>,
    rules: &Rules,
) -> Result<Decision<Acquired>, Error> {
    let Some(lock) = decision.change.begun_lease() else { return Ok(decision) };
    let live_locks = set.live_locks_of(&lock.user_id, lock.kind, rules.of(lock.kind).locks_per_user)?;
    Ok(rules::within_limit(decision, live_locks, rules))
}
