//! The lock of a workspace as it is now, and what a decision does to it.
//!
//! Every use case begins with [`load_current`] and ends with [`apply`].

use super::waitlist;
use crate::domain::access::Rules;
use crate::domain::event::{Author, Ending, EventType, NewEvent};
use crate::domain::member::{Membership, forced_ending, may_hold};
use crate::domain::rules::{self, Change};
use crate::domain::{Lock, Now, UserId, WorkspaceId};
use crate::error::{Denied, Error};
use crate::store::{Rows, WorkingSet};

/// The lock of a workspace, after what is due was applied: what has ended is gone, and the next in line has it. Nobody has
/// it who may not, whatever the settings were before.
///
/// # Errors
/// What the store refuses.
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

/// The same for decisions that do not depend on who had it last.
pub(super) fn now(set: &WorkingSet<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<Now, Error> {
    Ok(load_current(set, workspace_id, rules)?.map_or(Now::Free { last: None }, Now::Locked))
}

/// The lock of a workspace, after what is due was applied; it may be that of somebody who may not hold it.
pub(super) fn apply_due(
    set: &WorkingSet<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<Lock>, Error> {
    while let Some(mut lock) = set.lock(workspace_id)? {
        forget_strangers(set, &mut lock, rules)?;
        let wish = match lock.knocks.pending.first() {
            Some(knock) if lock.due_at() <= set.now() => {
                if !waitlist::are_good(set, &knock.lasts)? {
                    let user_id = knock.user_id.clone();
                    lock.knocks.forget(&user_id, rules, set.now());
                    set.put_knocks(&lock)?;
                    continue;
                }
                waitlist::wish(set, workspace_id, (&knock.user_id, knock.session_id.as_ref()), rules)?
            }
            Some(_) | None => None,
        };
        let change = rules::due(&lock, wish, rules, set.moment());
        if change == Change::Nothing {
            return Ok(Some(lock));
        }
        // What follows is later each time: it passes on, ends, goes to one who waits.
        apply(set, change, None, rules)?;
    }
    Ok(None)
}

/// Those who may not hold the lock ask for it no more.
fn forget_strangers(set: &WorkingSet<'_>, lock: &mut Lock, rules: &Rules) -> Result<(), Error> {
    let mut strangers = Vec::new();
    for knock in &lock.knocks.pending {
        if is_allowed(&**set, &lock.workspace_id, &knock.user_id, rules)?.is_err() {
            strangers.push(knock.user_id.clone());
        }
    }
    for user_id in &strangers {
        lock.knocks.forget(user_id, rules, set.now());
    }
    if strangers.is_empty() { Ok(()) } else { set.put_knocks(lock) }
}

/// Whether a user may hold the lock of a workspace, and why not.
pub(super) fn is_allowed(
    rows: &(impl Rows + ?Sized),
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    rules: &Rules,
) -> Result<Result<(), Denied>, Error> {
    // Most servers do not ask: then nothing is looked up.
    let role = match rules.membership {
        Membership::Open => None,
        Membership::Enforced => rows.role(workspace_id, user_id)?,
    };
    Ok(may_hold(role, rules.membership))
}

/// How this lease ends, though nobody has ended it: its holder may not hold it. It is of before membership was enforced,
/// or the file was edited.
pub(super) fn must_end(
    rows: &(impl Rows + ?Sized),
    lock: &Lock,
    rules: &Rules,
) -> Result<Option<Ending>, Error> {
    let Lock { workspace_id, user_id, .. } = lock;
    if is_allowed(rows, workspace_id, user_id, rules)?.is_ok() {
        return Ok(None);
    }
    let role = rows.role(workspace_id, user_id)?;
    Ok(Some(forced_ending(role, rows.workspace(workspace_id)?.is_some())))
}

/// Writes what was decided, with the events that tell of it. A lock that comes free goes to the next in line.
///
/// # Errors
/// What the store refuses.
pub fn apply(set: &WorkingSet<'_>, change: Change, by: Option<&Author>, rules: &Rules) -> Result<(), Error> {
    let now = set.now();
    let reason = by.and_then(|by| by.reason.as_deref());
    match change {
        Change::Nothing => {}
        Change::Grant(lock) => {
            set.begin_lease(&lock)?;
            set.record(&NewEvent { by, ..NewEvent::to(&lock, EventType::Acquired, now) })?;
            waitlist::tell_arrived(set, &lock, rules)?;
        }
        Change::Reclaim(lock) => {
            set.resume_lease(&lock)?;
            let event = NewEvent::to(&lock, EventType::Acquired, now);
            set.record(&NewEvent { by, reclaimed: true, ..event })?;
            waitlist::tell_arrived(set, &lock, rules)?;
        }
        Change::Renew(lock) => set.renew(&lock)?,
        Change::Postpone(lock) => {
            set.renew(&lock)?;
            if let Some(knock) = lock.knocks.pending.first() {
                // Told like the knock itself. `to` tells that it is no new one.
                let by = Author::person(knock.user_id.clone(), knock.name.clone());
                let event = NewEvent::to(&lock, EventType::Knocked, now);
                set.record(&NewEvent { by: Some(&by), to: Some(&knock.user_id), ..event })?;
            }
        }
        Change::Reword(lock) => set.put_knocks(&lock)?,
        Change::End(lock, ending) => {
            set.end_lease(&lock)?;
            // An expiry happened at the end of the lease, whenever it was noticed.
            let at = if ending == Ending::Expired { lock.expires_at } else { now };
            let event = NewEvent::to(&lock, EventType::Ended(ending), at);
            set.record(&NewEvent { by, message: reason, ..event })?;
            if ending == Ending::Expired {
                set.count_expiry();
            }
            waitlist::grant_next(set, &lock.workspace_id, at, rules)?;
        }
        Change::TakeOver { previous, lock } => {
            replace(set, &previous, &lock)?;
            let event = NewEvent::to(&previous, EventType::Ended(Ending::TakenOver), now);
            set.record(&NewEvent { next_fence: Some(lock.fence), by, message: reason, ..event })?;
            set.count_takeover();
            waitlist::tell_arrived(set, &lock, rules)?;
        }
        Change::HandOver { previous, lock, asked } => {
            replace(set, &previous, &lock)?;
            let silence = Author::person(lock.user_id.clone(), lock.user_name.clone());
            let by = if asked { by } else { Some(&silence) };
            let event = NewEvent::to(&previous, EventType::Ended(Ending::HandedOver), lock.acquired_at);
            set.record(&NewEvent { next_fence: Some(lock.fence), by, to: Some(&lock.user_id), ..event })?;
            waitlist::tell_arrived(set, &lock, rules)?;
        }
        Change::Knock(lock) => {
            set.put_knocks(&lock)?;
            let message = lock.knocks.pending.last().and_then(|knock| knock.message.as_deref());
            set.record(&NewEvent { by, message, ..NewEvent::to(&lock, EventType::Knocked, now) })?;
        }
        Change::Decline(lock, user_id) => {
            set.put_knocks(&lock)?;
            let event = NewEvent::to(&lock, EventType::KnockDeclined, now);
            set.record(&NewEvent { by, to: Some(&user_id), ..event })?;
        }
    }
    Ok(())
}

/// One lease ends and another begins.
fn replace(set: &WorkingSet<'_>, previous: &Lock, lock: &Lock) -> Result<(), Error> {
    set.end_lease(previous)?;
    set.begin_lease(lock)
}
