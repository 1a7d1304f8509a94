//! Waiting for a lock: who comes into the line, who leaves it, and who is next. All of it happens inside the
//! transactions that end leases and begin them, so that nobody comes between.

use std::sync::Arc;

use super::Write;
use super::events::Author;
use super::locks::{self, apply};
use super::queue::{Place, Waiter};
use super::{rows, tokens, workspaces};
use crate::domain::access::{Privilege, Rules};
use crate::domain::member::Membership;
use crate::domain::rules::{self, Begins, Change};
use crate::domain::{Acquire, Acquired, Hold, Lock, SessionId, UserId, WorkspaceId};
use crate::error::{Error, Limit};
use crate::time::Timestamp;

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
    standing: Privilege,
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
        line = without_leavers(write, line, lock, rules)?;
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

fn is_of(place: &Place, request: &Acquire) -> bool {
    let waits = &place.waiter.request;
    waits.user_id == request.user_id && waits.session_id == request.session_id
}

/// Those of a line whose time is not up; the others are told who has this lock.
fn without_leavers(
    write: &Write<'_>,
    line: Vec<Place>,
    lock: &Lock,
    rules: &Rules,
) -> Result<Vec<Place>, Error> {
    let (there, leaving): (Vec<_>, Vec<_>) = line.into_iter().partition(|place| place.waits(write.now()));
    for Place { waiter, .. } in leaving {
        if let Some(why) = unfit(write, &waiter, rules)? {
            write.lines().turn_away(waiter, why);
        } else {
            let outcome = rules::held(lock.clone(), &waiter.request, rules, write.now());
            write.lines().tell(waiter, outcome);
        }
    }
    Ok(there)
}

/// Why the lock cannot become that of somebody who waits for it: their credentials have ended since they came, or they may
/// not hold it any more.
fn unfit(write: &Write<'_>, waiter: &Waiter, rules: &Rules) -> Result<Option<Error>, Error> {
    let Acquire { workspace_id, user_id, .. } = &waiter.request;
    if !tokens::are_good(write.connection(), &waiter.lasts, write.wall())? {
        return Ok(Some(Error::CredentialsEnded));
    }
    if !workspaces::may_hold(write.connection(), workspace_id, user_id, rules)? {
        return Ok(Some(Error::Denied(workspaces::why_not(write.connection(), workspace_id, user_id)?)));
    }
    Ok(None)
}

/// A lock came free at `freed_at`. It goes to the first who waited then. If nobody did, it goes to the first who is still
/// there: nobody is told that they cannot have a lock that is free.
pub(super) fn next_in_line(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    freed_at: Timestamp,
    rules: &Rules,
) -> Result<(), Error> {
    if !write.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut line = write.lines().line(workspace_id);
    let next = loop {
        let in_time = line.iter().position(|place| place.waits(freed_at));
        let next = in_time.or_else(|| line.iter().position(|place| !place.waiter.is_gone()));
        let Some(next) = next else { break None };
        let Place { waiter, .. } = line.remove(next);
        if let Some(why) = unfit(write, &waiter, rules)? {
            write.lines().turn_away(waiter, why);
        } else if !rows::has_fewer_than(write.read(), &waiter.request.user_id, rules.locks_per_user)? {
            write.lines().tell(waiter, Acquired::TooMany);
        } else {
            break Some(waiter);
        }
    };
    write.lines().set(workspace_id, line);
    let Some(waiter) = next else { return Ok(()) };
    let begins = Begins::now(write.now());
    let lock = rules::given(&waiter.request, Hold::Given, rules, begins, write.fresh_fence());
    write.lines().tell(Arc::clone(&waiter), Acquired::Acquired(lock.clone()));
    let by = Author::person(waiter.request.user_id.clone(), waiter.request.user_name.clone());
    apply(write, Change::Grant(lock), Some(&by), rules)
}

/// Of those who wait for this lock, whoever may not hold it any more is told so, and does not wait.
pub(super) fn turn_out(write: &Write<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<(), Error> {
    if rules.membership == Membership::Open || !write.lines().has_line(workspace_id) {
        return Ok(());
    }
    let mut there = Vec::new();
    for place in write.lines().line(workspace_id) {
        match unfit(write, &place.waiter, rules)? {
            Some(why) => write.lines().turn_away(place.waiter, why),
            None => there.push(place),
        }
    }
    write.lines().set(workspace_id, there);
    Ok(())
}

/// A lease has begun: whoever waits for it and has it now, by another way, is told, though their time may be up.
pub(super) fn arrived(write: &Write<'_>, lock: &Lock, rules: &Rules) -> Result<(), Error> {
    if !write.lines().has_line(&lock.workspace_id) {
        return Ok(());
    }
    let mine = |place: &Place| rules::arrives(&place.waiter.request, lock, rules);
    let (arrived, line): (Vec<_>, Vec<_>) =
        write.lines().line(&lock.workspace_id).into_iter().partition(mine);
    if arrived.is_empty() {
        return Ok(());
    }
    write.lines().set(&lock.workspace_id, line);
    for Place { waiter, .. } in arrived {
        if let Some(why) = unfit(write, &waiter, rules)? {
            write.lines().turn_away(waiter, why);
            continue;
        }
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
    Ok(())
}

/// Those who wait for these locks and cannot get them any more leave; they are told who has it.
///
/// # Errors
/// What SQLite refuses.
pub fn leave(write: &Write<'_>, workspaces: &[WorkspaceId], rules: &Rules) -> Result<(), Error> {
    for workspace_id in workspaces {
        // Should its lease have ended just now, somebody of the line has it.
        let lock = locks::settled(write, workspace_id, rules)?;
        let line = write.lines().line(workspace_id);
        let line = if let Some(lock) = &lock {
            without_leavers(write, line, lock, rules)?
        } else {
            // Whoever could have it has it: those who are left have gone.
            for Place { waiter, .. } in line {
                write.lines().turn_away(waiter, Error::Busy);
            }
            Vec::new()
        };
        write.lines().set(workspace_id, line);
    }
    Ok(())
}

/// What this user waits for there, if they do: in this session, if it is known and waits, else in the first that does.
pub(super) fn wish(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    (user_id, session_id): (&UserId, Option<&SessionId>),
    rules: &Rules,
) -> Result<Option<Acquire>, Error> {
    if !write.lines().has_line(workspace_id) {
        return Ok(None);
    }
    let mut first = None;
    for Place { waiter, .. } in write.lines().line(workspace_id) {
        if waiter.request.user_id != *user_id || waiter.is_gone() || unfit(write, &waiter, rules)?.is_some() {
            continue;
        }
        if session_id.is_some() && waiter.request.session_id.as_ref() == session_id {
            return Ok(Some(waiter.request.clone()));
        }
        first.get_or_insert_with(|| waiter.request.clone());
    }
    Ok(first)
}
