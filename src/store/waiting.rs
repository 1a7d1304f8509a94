//! Waiting for a lock: who comes into the line, who leaves it, and who is next. All of it happens inside the
//! transactions that end leases and begin them, so that nobody comes between.

use std::sync::Arc;

use super::Write;
use super::events::By;
use super::locks::{self, apply};
use super::queue::{Place, Waiter};
use super::{rows, workspaces};
use crate::error::{Error, Limit};
use crate::lock::decide::{self, Change};
use crate::lock::member::Membership;
use crate::lock::policy::{Rules, Standing};
use crate::lock::{Acquire, Acquired, Hold, Lock, UserId, WorkspaceId};

/// What became of somebody who would wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// They need not wait, or it would be in vain.
    Answered(Box<Acquired>),
    /// They wait, and are told.
    Waits,
    /// Too many wait already.
    Full(Limit),
}

/// Somebody wants the lock, and waits for it if somebody else has it.
///
/// # Errors
/// What SQLite refuses.
pub fn acquire(
    write: &Write<'_>,
    waiter: &Arc<Waiter>,
    standing: Standing,
    rules: &Rules,
) -> Result<Came, Error> {
    let request = &Acquire { standing, ..waiter.request.clone() };
    if waiter.is_gone() {
        return Ok(Came::Waits);
    }
    let outcome = locks::acquire(write, request, rules)?;
    let Acquired::Held { lock, .. } = &outcome else { return Ok(Came::Answered(Box::new(outcome))) };
    let now = write.now();
    let mut line = write.lines().line(&request.workspace_id);
    let until = now.plus(waiter.wait);
    if let Some(place) = line.iter_mut().find(|place| is_of(place, request)) {
        // Whoever asks again waits once, where they were. Where they asked before, nobody listens any more.
        let before = std::mem::replace(&mut place.waiter, Arc::clone(waiter));
        place.until = until;
        write.lines().tell(before, outcome);
    } else {
        line = without_leavers(write, line, lock, rules);
        let theirs = line.iter().filter(|place| place.waiter.request.user_id == request.user_id).count();
        let came = if theirs >= write.lines().limits().per_user {
            Came::Full(Limit::Places)
        } else {
            write.lines().full(&request.workspace_id, line.len()).map_or(Came::Waits, Came::Full)
        };
        if came != Came::Waits {
            write.lines().set(&request.workspace_id, line);
            return Ok(came);
        }
        line.push(Place { waiter: Arc::clone(waiter), since: now, until });
    }
    write.lines().set(&request.workspace_id, line);
    write.lines().entered(waiter);
    Ok(Came::Waits)
}

/// Those of a line who can still get this lock; the others are told who has it.
fn without_leavers(write: &Write<'_>, line: Vec<Place>, lock: &Lock, rules: &Rules) -> Vec<Place> {
    let (there, leaving): (Vec<_>, Vec<_>) = line.into_iter().partition(|place| place.is_there(write.now()));
    for Place { waiter, .. } in leaving {
        let outcome = decide::held(lock.clone(), &waiter.request, rules, write.now());
        write.lines().tell(waiter, outcome);
    }
    there
}

fn is_of(place: &Place, request: &Acquire) -> bool {
    let waits = &place.waiter.request;
    waits.user_id == request.user_id && waits.session_id == request.session_id
}

/// The lock has come free: it goes to whoever waits longest and is still there.
pub(super) fn next_in_line(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<(), Error> {
    if !write.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut line = write.lines().line(workspace_id);
    let next = loop {
        let Some(next) = line.iter().position(|place| place.is_there(write.now())) else { break None };
        let Place { waiter, .. } = line.remove(next);
        let user_id = &waiter.request.user_id;
        if !workspaces::may_hold(write.connection(), workspace_id, user_id, rules)? {
            // They might when they came.
            let denied = workspaces::why_not(write.connection(), workspace_id, user_id)?;
            write.lines().turn_away(waiter, Error::Denied(denied));
        } else if !rows::has_fewer_than(write.read(), user_id, rules.locks_per_user)? {
            write.lines().tell(waiter, Acquired::TooMany);
        } else {
            break Some(waiter);
        }
    };
    write.lines().set(workspace_id, line);
    let Some(waiter) = next else { return Ok(()) };
    let lock = decide::given(&waiter.request, Hold::Given, rules, write.now(), write.fresh_fence());
    write.lines().tell(Arc::clone(&waiter), Acquired::Acquired(lock.clone()));
    let by = By::person(waiter.request.user_id.clone(), waiter.request.user_name.clone());
    apply(write, Change::Grant(lock), Some(&by), rules)
}

/// Of those who wait for this lock, whoever may not hold it any more is told so, and does not wait.
pub(super) fn turn_out(write: &Write<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<(), Error> {
    if rules.membership == Membership::Open || !write.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut there = Vec::new();
    for place in write.lines().line(workspace_id) {
        let user_id = &place.waiter.request.user_id;
        if workspaces::may_hold(write.connection(), workspace_id, user_id, rules)? {
            there.push(place);
        } else {
            let denied = workspaces::why_not(write.connection(), workspace_id, user_id)?;
            write.lines().turn_away(place.waiter, Error::Denied(denied));
        }
    }
    write.lines().set(workspace_id, there);
    Ok(())
}

/// A lease has begun: whoever waits for it and has it now, by another way, is told.
pub(super) fn arrived(write: &Write<'_>, lock: &Lock, rules: &Rules) {
    if !write.lines().has_line(&lock.workspace_id) {
        return;
    }
    let mine =
        |place: &Place| place.is_there(write.now()) && decide::arrives(&place.waiter.request, lock, rules);
    let (arrived, line): (Vec<_>, Vec<_>) =
        write.lines().line(&lock.workspace_id).into_iter().partition(mine);
    if arrived.is_empty() {
        return;
    }
    write.lines().set(&lock.workspace_id, line);
    for Place { waiter, .. } in arrived {
        // Where the sessions of a person share, another of them may have it.
        let is_theirs = match lock.hold {
            Hold::Claimed => false,
            Hold::Given => lock.session_id == waiter.request.session_id,
            Hold::GivenToPerson => true,
        };
        let outcome =
            if is_theirs { Acquired::Acquired(lock.clone()) } else { Acquired::Renewed(lock.clone()) };
        write.lines().tell(waiter, outcome);
    }
}

/// Those who wait for these locks and cannot get them any more leave; they are told who has it.
///
/// # Errors
/// What SQLite refuses.
pub fn leave(write: &Write<'_>, workspaces: &[WorkspaceId], rules: &Rules) -> Result<(), Error> {
    for workspace_id in workspaces {
        let before = rows::load(write.read(), workspace_id)?;
        // Should its lease have ended just now, somebody else is next.
        let lock = locks::settled(write, workspace_id, rules)?.or(before);
        let line = write.lines().line(workspace_id);
        let line = if let Some(lock) = &lock {
            without_leavers(write, line, lock, rules)
        } else {
            // It came free when nobody could take it. Those who are too late may ask again.
            for Place { waiter, .. } in line {
                write.lines().turn_away(waiter, Error::Busy);
            }
            Vec::new()
        };
        write.lines().set(workspace_id, line);
    }
    Ok(())
}

/// What this user waits for there, if they do.
pub(super) fn wish(write: &Write<'_>, workspace_id: &WorkspaceId, user_id: &UserId) -> Option<Acquire> {
    let line = write.lines().line(workspace_id);
    let place =
        line.iter().find(|place| place.waiter.request.user_id == *user_id && place.is_there(write.now()))?;
    Some(place.waiter.request.clone())
}
