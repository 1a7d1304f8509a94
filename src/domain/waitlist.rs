//! The line of those who wait for a lock: who may join it, who is next, who is told what. First come, first served.

use super::access::{Rules, SameUser};
use super::{Acquire, Acquired, Hold, Lock, SessionId, UserId};
use crate::error::{Denied, Error, Limit};
use crate::time::Timestamp;

/// Somebody who waits.
pub trait Waiting {
    /// What they want.
    fn request(&self) -> &Acquire;
    /// When their time is up. They may be told later, if there is much to do; until then the lock can still become theirs.
    fn until(&self) -> Timestamp;
    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool;

    /// Whether they wait at `at`: they are there, and their time is not up.
    fn waits(&self, at: Timestamp) -> bool {
        at < self.until() && !self.is_gone()
    }
}

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub struct WaitlistLimits {
    /// For one lock.
    pub per_workspace: usize,
    /// For one lock, of one user: each of their sessions has a place of its own.
    pub per_user: usize,
    /// In all.
    pub in_all: usize,
}

/// Where somebody stands who asks for the same again. They keep their place.
#[must_use]
pub fn place_of(line: &[impl Waiting], request: &Acquire) -> Option<usize> {
    line.iter().position(|waiting| {
        let waits = waiting.request();
        waits.user_id == request.user_id && waits.session_id == request.session_id
    })
}

/// Why not one more may join this line, while `in_all` wait for any lock.
#[must_use]
pub fn full(
    line: &[impl Waiting],
    request: &Acquire,
    in_all: usize,
    limits: WaitlistLimits,
) -> Option<Limit> {
    let theirs = line.iter().filter(|waiting| waiting.request().user_id == request.user_id).count();
    if theirs >= limits.per_user {
        Some(Limit::Places)
    } else if line.len() >= limits.per_workspace {
        Some(Limit::Line)
    } else {
        (in_all >= limits.in_all).then_some(Limit::Waiters)
    }
}

/// Why the lock cannot become that of somebody who waits for it: their credentials have ended since they came, or they
/// may not hold it any more.
#[must_use]
pub fn unfit(has_good_credentials: bool, may_hold: Result<(), Denied>) -> Option<Error> {
    if !has_good_credentials {
        return Some(Error::CredentialsEnded);
    }
    may_hold.err().map(Error::Denied)
}

/// Who is next for a lock that came free at `freed_at`: the first who waited then. If nobody did, the first who is still
/// there: nobody is told that they cannot have a lock that is free.
#[must_use]
pub fn next(line: &[impl Waiting], freed_at: Timestamp) -> Option<usize> {
    let in_time = line.iter().position(|waiting| waiting.waits(freed_at));
    in_time.or_else(|| line.iter().position(|waiting| !waiting.is_gone()))
}

/// What this user waits for: in this session, if it is known and waits, else in the first that does and `is_fit`.
///
/// # Errors
/// Those of `is_fit`.
pub fn wish<'a, W: Waiting>(
    line: &'a [W],
    (user_id, session_id): (&UserId, Option<&SessionId>),
    mut is_fit: impl FnMut(&W) -> Result<bool, Error>,
) -> Result<Option<&'a Acquire>, Error> {
    let mut theirs: Vec<_> =
        line.iter().filter(|waiting| waiting.request().user_id == *user_id && !waiting.is_gone()).collect();
    let is_of_session =
        |waiting: &&W| session_id.is_some() && waiting.request().session_id.as_ref() == session_id;
    theirs.sort_by_key(|waiting| !is_of_session(waiting));
    for waiting in theirs {
        if is_fit(waiting)? {
            return Ok(Some(waiting.request()));
        }
    }
    Ok(None)
}

/// Whether what somebody waits for has become theirs with this lease.
#[must_use]
pub fn arrives(request: &Acquire, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == request.user_id
        && match rules.same_user {
            SameUser::Share => true,
            SameUser::Separate => lock.session_id == request.session_id,
        }
}

/// What somebody is told for whom a lease [`arrives`]. Where the sessions of a person share, another of them may have it.
#[must_use]
pub fn arrival(request: &Acquire, lock: &Lock) -> Acquired {
    let is_theirs = match lock.hold {
        Hold::Claimed => false,
        Hold::Given => lock.session_id == request.session_id,
        Hold::GivenToPerson => true,
    };
    if is_theirs { Acquired::Acquired(lock.clone()) } else { Acquired::Renewed(lock.clone()) }
}
