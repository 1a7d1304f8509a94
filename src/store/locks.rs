//! The locks: each function that takes a [`Write`] is one use case. It loads, lets [`rules`] decide, and writes what
//! was decided, with the events that tell of it.

use rusqlite::Connection;

use super::events::{self, Author, NewEvent};
use super::{Read, Write, rows, waiting, workspaces};
use crate::domain::access::Rules;
use crate::domain::event::{Ending, EventType, Lost};
use crate::domain::rules::{self, Change};
use crate::domain::{
    Acquire, Acquired, Authority, Beat, Claim, Fence, Heartbeat, Lock, Now, Release, Released, UserId,
    WorkspaceId,
};
use crate::error::Error;
use crate::time::Timestamp;

/// Somebody wants the lock.
///
/// # Errors
/// What SQLite refuses.
pub fn acquire(write: &Write<'_>, request: &Acquire, rules: &Rules) -> Result<Acquired, Error> {
    let found = match settled(write, &request.workspace_id, rules)? {
        Some(lock) => Now::Locked(lock),
        None => Now::Free { last: events::last_lease(write.connection(), &request.workspace_id)? },
    };
    let decision = rules::acquire(found, request, rules, write.now(), write.fresh_fence());
    if matches!(decision.change, Change::Grant(_) | Change::TakeOver { .. } | Change::Reclaim(_))
        && !rows::has_fewer_than(write.read(), &request.user_id, rules.locks_per_user)?
    {
        return Ok(Acquired::TooMany);
    }
    let by = Author {
        reason: request.reason.clone(),
        ..Author::person(request.user_id.clone(), request.user_name.clone())
    };
    apply(write, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// What became of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// The renewal, or why there is none.
    pub beat: Beat,
    /// If there is none: how the caller's last lease ended.
    pub lost: Option<Lost>,
    /// How many wait for the lock.
    pub waiting: usize,
}

impl Beaten {
    /// There is no lock any more, and this is how the caller's ended.
    #[must_use]
    pub const fn lost(lost: Lost) -> Self {
        Self { beat: Beat::NoLock, lost: Some(lost), waiting: 0 }
    }
}

/// The holder renews the lease.
///
/// # Errors
/// What SQLite refuses.
pub fn heartbeat(write: &Write<'_>, request: &Heartbeat, rules: &Rules) -> Result<Beaten, Error> {
    let claim = &request.claim;
    let decision = rules::heartbeat(now(write, &claim.workspace_id, rules)?, request, rules, write.now());
    apply(write, decision.change, None, rules)?;
    let beat = decision.outcome;
    let lost = match &beat {
        Beat::Renewed(_) => None,
        Beat::NotHolder { lock, .. } => lost(write, claim, Some(lock.fence))?,
        Beat::NoLock => lost(write, claim, None)?,
    };
    Ok(Beaten { beat, lost, waiting: write.lines().count(&claim.workspace_id) })
}

/// A lease is given back, or ended by an administrator. When it cannot, the answer comes with how the caller's last
/// lease ended.
///
/// # Errors
/// What SQLite refuses.
pub fn release(
    write: &Write<'_>,
    request: &Release,
    rules: &Rules,
) -> Result<(Released, Option<Lost>), Error> {
    let claim = &request.claim;
    let decision = rules::release(now(write, &claim.workspace_id, rules)?, request, rules);
    let by = Author {
        reason: request.reason.clone(),
        ..Author::person(claim.user_id.clone(), request.user_name.clone())
    };
    apply(write, decision.change, Some(&by), rules)?;
    let released = decision.outcome;
    let lost = match &released {
        Released::Released(_) | Released::Nothing => None,
        Released::NotHolder { lock, .. } => lost(write, claim, Some(lock.fence))?,
    };
    Ok((released, lost))
}

/// How the last lease that the claimant had ended, other than the live one.
pub(super) fn lost(write: &Write<'_>, claim: &Claim, live: Option<Fence>) -> Result<Option<Lost>, Error> {
    events::lost(write.connection(), &claim.workspace_id, &claim.user_id, live)
}

/// Most workspaces that one step of [`release_user`] looks at.
const MOST_RELEASED: usize = 200;

/// What a step of [`release_user`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedSome {
    /// Live leases that ended.
    pub released: u32,
    /// It goes on after this workspace, if there may be more.
    pub after: Option<WorkspaceId>,
}

/// Ends the leases of `user_id` on workspaces after `after`, as many as a step has time for, on behalf of `by`: their own,
/// or an administrator. What is due comes first: a lock that has passed to them without anybody's having noticed is
/// theirs, too.
///
/// # Errors
/// What SQLite refuses.
pub fn release_user(
    write: &Write<'_>,
    user_id: &UserId,
    by: &Author,
    rules: &Rules,
    after: &str,
) -> Result<ReleasedSome, Error> {
    let step = write.step();
    let limit = MOST_RELEASED;
    let mut workspaces = rows::concerning(write.connection(), user_id, after, limit)?;
    workspaces.extend(write.lines().of_user(user_id, after, limit));
    let all = workspaces.len() < limit;
    let mut some = ReleasedSome { released: 0, after: None };
    for (count, workspace_id) in workspaces.into_iter().enumerate() {
        if count >= limit || (count > 0 && step.is_over()) {
            return Ok(some);
        }
        while let Some(lock) = settled(write, &workspace_id, rules)?.filter(|lock| lock.user_id == *user_id) {
            let claim = Claim {
                workspace_id: workspace_id.clone(),
                user_id: by.user_id.clone(),
                session_id: None,
                fence: Some(lock.fence),
            };
            let request = Release {
                claim,
                user_name: by.name.clone(),
                authority: Authority::Administrator,
                reason: by.reason.clone(),
            };
            let decision = rules::release(Now::Locked(lock), &request, rules);
            apply(write, decision.change, Some(by), rules)?;
            some.released += 1;
        }
        some.after = Some(workspace_id);
    }
    Ok(if all { ReleasedSome { after: None, ..some } } else { some })
}

/// What a step of something long did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// How many were done.
    pub done: usize,
    /// Whether there may be more.
    pub more: bool,
}

/// Clears leases away whose end has come, and lets locks pass on to those whose knock was not answered: at most `rows`, and
/// as many as a step has time for.
///
/// # Errors
/// What SQLite refuses.
pub fn sweep(write: &Write<'_>, rules: &Rules, rows: u32) -> Result<Stepped, Error> {
    let step = write.step();
    let locks = rows::to_check(write.read(), rows)?;
    let mut swept = Stepped { done: 0, more: locks.len() >= usize::try_from(rows).unwrap_or(usize::MAX) };
    for lock in locks {
        if lock.due_at() <= write.now() {
            swept.done += 1;
            settled(write, &lock.workspace_id, rules)?;
        } else {
            rows::check_again(write, &lock)?;
        }
        // After the first: it always goes on.
        if step.is_over() {
            return Ok(Stepped { more: true, ..swept });
        }
    }
    Ok(swept)
}

/// What a reader finds on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A live lock.
    Live(Lock),
    /// A lock with which time has not had its say yet: it has ended, or passed to somebody else.
    Due(Lock),
    /// No lock.
    Free,
}

/// The lock of a workspace.
///
/// # Errors
/// What SQLite refuses.
pub fn get(read: &Read<'_>, workspace_id: &WorkspaceId) -> Result<Found, Error> {
    Ok(match rows::load(read, workspace_id)? {
        Some(lock) if read.now() < lock.due_at() => Found::Live(lock),
        Some(lock) => Found::Due(lock),
        None => Found::Free,
    })
}

/// How many locks there are, those among them that have ended just now.
///
/// # Errors
/// What SQLite refuses.
pub fn count(connection: &Connection) -> Result<i64, Error> {
    Ok(connection
        .prepare_cached("SELECT lock_count FROM meta WHERE id = 1")?
        .query_row([], |row| row.get(0))?)
}

/// Nothing is due before this.
///
/// # Errors
/// What SQLite refuses.
pub fn next_due(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    rows::next_check(connection)
}

/// The lock of a workspace, once time has had its say: what has ended is gone, and whoever is next has it. Nobody has it
/// who may not, whatever the settings were before.
///
/// # Errors
/// What SQLite refuses.
pub fn settled(write: &Write<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<Option<Lock>, Error> {
    loop {
        let Some(lock) = timely(write, workspace_id, rules)? else { return Ok(None) };
        let Some(ending) = workspaces::must_end(write.connection(), workspace_id, &lock.user_id, rules)?
        else {
            return Ok(Some(lock));
        };
        apply(write, Change::End(lock, ending), None, rules)?;
    }
}

/// The lock of a workspace, once time has had its say, of which nobody takes part who may not.
///
/// # Errors
/// What SQLite refuses.
pub(super) fn timely(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<Lock>, Error> {
    while let Some(mut lock) = rows::load(write.read(), workspace_id)? {
        forget_strangers(write, &mut lock, rules)?;
        let wish = match lock.knocks.pending.first() {
            Some(knock) if lock.due_at() <= write.now() => {
                waiting::wish(write, workspace_id, (&knock.user_id, knock.session_id.as_ref()), rules)?
            }
            Some(_) | None => None,
        };
        let change = rules::settle(&lock, wish, rules, write.now(), write.fresh_fence());
        if change == Change::Nothing {
            return Ok(Some(lock));
        }
        // What follows is later each time: it passes on, ends, goes to one who waits.
        apply(write, change, None, rules)?;
    }
    Ok(None)
}

/// Those who may not hold the lock ask for it no more.
fn forget_strangers(write: &Write<'_>, lock: &mut Lock, rules: &Rules) -> Result<(), Error> {
    let asking: Vec<_> = lock.knocks.pending.iter().map(|knock| knock.user_id.clone()).collect();
    let mut forgotten = false;
    for user_id in asking {
        if !workspaces::may_hold(write.connection(), &lock.workspace_id, &user_id, rules)? {
            forgotten |= lock.knocks.forget(&user_id, rules, write.now());
        }
    }
    if forgotten { rows::update_knocks(write, lock) } else { Ok(()) }
}

/// A workspace, for use cases that do not care who had it last.
pub(super) fn now(write: &Write<'_>, workspace_id: &WorkspaceId, rules: &Rules) -> Result<Now, Error> {
    Ok(settled(write, workspace_id, rules)?.map_or(Now::Free { last: None }, Now::Locked))
}

/// Writes what was decided, with the events that tell of it. A lock that comes free goes to whoever is next in line.
pub(super) fn apply(
    write: &Write<'_>,
    change: Change,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<(), Error> {
    let now = write.now();
    match change {
        Change::Nothing => {}
        Change::Grant(lock) => {
            rows::put(write, &lock)?;
            write.fence_given(lock.fence)?;
            events::record(write, &NewEvent { by, ..NewEvent::to(&lock, EventType::Acquired, now) })?;
            waiting::arrived(write, &lock, rules)?;
        }
        Change::Reclaim(lock) => {
            rows::put(write, &lock)?;
            let happened = NewEvent { by, reclaimed: true, ..NewEvent::to(&lock, EventType::Acquired, now) };
            events::record(write, &happened)?;
            waiting::arrived(write, &lock, rules)?;
        }
        Change::Renew(lock) => rows::update(write, &lock)?,
        Change::Postpone(lock) => {
            rows::update(write, &lock)?;
            if let Some(knock) = lock.knocks.pending.first() {
                // Told like the knock itself. `to` tells that it is no new one.
                let by = Author::person(knock.user_id.clone(), knock.name.clone());
                let (by, to) = (Some(&by), Some(&knock.user_id));
                events::record(write, &NewEvent { by, to, ..NewEvent::to(&lock, EventType::Knocked, now) })?;
            }
        }
        Change::Reword(lock) => rows::update_knocks(write, &lock)?,
        Change::End(lock, ending) => {
            rows::delete(write, &lock)?;
            // An expiry happened at the end of the lease, whenever it was noticed.
            let at = if ending == Ending::Expired { lock.expires_at } else { now };
            let happened = NewEvent::to(&lock, EventType::Ended(ending), at);
            let message = by.and_then(|by| by.reason.as_deref());
            events::record(write, &NewEvent { by, message, ..happened })?;
            if ending == Ending::Expired {
                write.count_expiry();
            }
            waiting::next_in_line(write, &lock.workspace_id, at, rules)?;
        }
        Change::TakeOver { previous, lock } => {
            replace(write, &previous, &lock)?;
            let happened = NewEvent::to(&previous, EventType::Ended(Ending::TakenOver), now);
            let message = by.and_then(|by| by.reason.as_deref());
            events::record(write, &NewEvent { next_fence: Some(lock.fence), by, message, ..happened })?;
            write.count_takeover();
            waiting::arrived(write, &lock, rules)?;
        }
        Change::HandOver { previous, lock, asked } => {
            replace(write, &previous, &lock)?;
            let silence = Author::person(lock.user_id.clone(), lock.user_name.clone());
            let by = if asked { by } else { Some(&silence) };
            let at = lock.acquired_at;
            let happened = NewEvent::to(&previous, EventType::Ended(Ending::HandedOver), at);
            let (next_fence, to) = (Some(lock.fence), Some(&lock.user_id));
            events::record(write, &NewEvent { next_fence, by, to, ..happened })?;
            waiting::arrived(write, &lock, rules)?;
        }
        Change::Knock(lock) => {
            rows::update_knocks(write, &lock)?;
            let message = lock.knocks.pending.last().and_then(|knock| knock.message.as_deref());
            let happened = NewEvent::to(&lock, EventType::Knocked, now);
            events::record(write, &NewEvent { by, message, ..happened })?;
        }
        Change::Decline(lock, user_id) => {
            rows::update_knocks(write, &lock)?;
            let happened = NewEvent::to(&lock, EventType::KnockDeclined, now);
            events::record(write, &NewEvent { by, to: Some(&user_id), ..happened })?;
        }
    }
    Ok(())
}

/// One lease ends and another begins.
fn replace(write: &Write<'_>, previous: &Lock, lock: &Lock) -> Result<(), Error> {
    rows::delete(write, previous)?;
    rows::put(write, lock)?;
    write.fence_given(lock.fence)
}
