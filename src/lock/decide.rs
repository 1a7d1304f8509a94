//! The rules of the product. Each function takes what is stored, what is asked and the time, and returns what is to
//! be stored and what is to be answered. Nothing else is read and nothing is done: the store loads before and writes
//! after, inside one transaction.
//!
//! 1. A lease whose end has come is gone, whoever asks and whatever for.
//! 2. A free workspace goes to whoever asks first, with a fence above every other.
//! 3. One's own live lease starts over; one's own expired lease comes back with its fence if nobody came between.
//! 4. Somebody else's live lease is never renewed, lengthened or ended but by a takeover or an administrator.

use super::event::Ending;
use super::policy::{Rules, SameUser};
use super::{
    Acquire, Acquired, Activity, Authority, Beat, Claim, Fence, Force, Heartbeat, LastLease, Lock, Release,
    Released, Stored,
};
use crate::time::Timestamp;

/// What is to be stored, and what is to be answered once it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<T> {
    /// A lease that had ended and is still in the way: to be deleted first, and remembered as expired.
    pub expired: Option<Lock>,
    /// What changes then.
    pub change: Change,
    /// The answer.
    pub outcome: T,
}

/// What changes on a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// A new lease begins.
    Grant(Lock),
    /// An expired lease goes on.
    Reclaim(Lock),
    /// The live lease is replaced by this, which is the same lease.
    Renew(Lock),
    /// The live lease ends.
    End(Lock, Ending),
    /// The live lease ends and another begins.
    TakeOver {
        /// What ends.
        previous: Lock,
        /// What begins.
        lock: Lock,
    },
}

/// What is stored, as it is at `now`: the live lease, the one that is over but still there, and the last that ended.
struct Now {
    live: Option<Lock>,
    expired: Option<Lock>,
    last: Option<LastLease>,
}

fn at(stored: Stored, now: Timestamp) -> Now {
    match stored {
        Stored::Lock(lock) if lock.is_live(now) => Now { live: Some(lock), expired: None, last: None },
        Stored::Lock(lock) => Now {
            live: None,
            last: Some(LastLease {
                user_id: lock.user_id.clone(),
                session_id: lock.session_id.clone(),
                fence: lock.fence,
                ending: Ending::Expired,
                ended_at: lock.expires_at,
            }),
            expired: Some(lock),
        },
        Stored::None { last } => Now { live: None, expired: None, last },
    }
}

/// Somebody wants the lock. `fresh` is a fence above every other, should a new lease begin.
#[must_use]
pub fn acquire(
    stored: Stored,
    request: &Acquire,
    rules: &Rules,
    now: Timestamp,
    fresh: Fence,
) -> Decision<Acquired> {
    let Now { live, expired, last } = at(stored, now);
    let (change, outcome) = match live {
        None => match last {
            Some(last) if comes_back(request, &last, rules, now) => {
                let lock = lease(request, rules, now, last.fence);
                (Change::Reclaim(lock.clone()), Acquired::Reclaimed(lock))
            }
            Some(_) | None => {
                let lock = lease(request, rules, now, fresh);
                (Change::Grant(lock.clone()), Acquired::Acquired(lock))
            }
        },
        Some(lock) if owns(request, &lock, rules) => {
            let lock = start_over(lock, request, rules, now);
            (Change::Renew(lock.clone()), Acquired::Renewed(lock))
        }
        Some(lock) => contend(lock, request, rules, now, fresh),
    };
    Decision { expired, change, outcome }
}

/// Somebody else has it.
fn contend(held: Lock, request: &Acquire, rules: &Rules, now: Timestamp, fresh: Fence) -> (Change, Acquired) {
    let takeover_allowed = rules.takeover.allows(request.standing);
    match request.force {
        Force::No => {
            let same_user = held.user_id == request.user_id;
            (Change::Nothing, Acquired::Held { lock: held, same_user, takeover_allowed })
        }
        Force::Anyone | Force::Seen(_) if !takeover_allowed => {
            (Change::Nothing, Acquired::TakeoverForbidden(held))
        }
        Force::Seen(fence) if fence != held.fence => (Change::Nothing, Acquired::FenceMismatch(held)),
        Force::Anyone | Force::Seen(_) => {
            let lock = lease(request, rules, now, fresh);
            (
                Change::TakeOver { previous: held.clone(), lock: lock.clone() },
                Acquired::TakenOver { lock, previous: held },
            )
        }
    }
}

/// The holder renews the lease.
#[must_use]
pub fn heartbeat(stored: Stored, request: &Heartbeat, rules: &Rules, now: Timestamp) -> Decision<Beat> {
    let Now { live, expired, last: _ } = at(stored, now);
    let (change, outcome) = match live {
        None => (Change::Nothing, Beat::NoLock),
        Some(lock) if holds(&request.claim, &lock, rules) => {
            let ttl = rules.ttl(request.ttl, lock.ttl);
            let lock = Lock {
                renewed_at: now,
                last_active_at: match request.activity {
                    Activity::Active => now,
                    Activity::Idle => lock.last_active_at,
                },
                expires_at: now.plus(ttl),
                ttl,
                ..lock
            };
            (Change::Renew(lock.clone()), Beat::Renewed(lock))
        }
        Some(lock) => {
            let same_user = lock.user_id == request.claim.user_id;
            (Change::Nothing, Beat::NotHolder { lock, same_user })
        }
    };
    Decision { expired, change, outcome }
}

/// A lease is given back, or ended by an administrator.
#[must_use]
pub fn release(stored: Stored, request: &Release, rules: &Rules, now: Timestamp) -> Decision<Released> {
    let Now { live, expired, last: _ } = at(stored, now);
    let claim = &request.claim;
    let (change, outcome) = match live {
        None => (Change::Nothing, Released::Nothing),
        Some(lock) if holds(claim, &lock, rules) => {
            (Change::End(lock.clone(), Ending::Released), Released::Released(lock))
        }
        Some(lock)
            if request.authority == Authority::Administrator
                && claim.fence.is_none_or(|fence| fence == lock.fence) =>
        {
            (Change::End(lock.clone(), Ending::Revoked), Released::Released(lock))
        }
        Some(lock) => {
            let same_user = lock.user_id == claim.user_id;
            (Change::Nothing, Released::NotHolder { lock, same_user })
        }
    };
    Decision { expired, change, outcome }
}

/// Nobody asks for anything; a lease whose end has come is cleared away.
#[must_use]
pub fn sweep(stored: Stored, now: Timestamp) -> Decision<()> {
    Decision { expired: at(stored, now).expired, change: Change::Nothing, outcome: () }
}

/// Whether the caller was the last to have a lease here and only lost it to time, not too long ago.
fn comes_back(request: &Acquire, last: &LastLease, rules: &Rules, now: Timestamp) -> bool {
    last.ending == Ending::Expired
        && last.user_id == request.user_id
        && last.session_id == request.session_id
        && last.ended_at >= rules.reclaim_from
        && now <= last.ended_at.plus(rules.reclaim_within)
}

/// Whether a live lease is that of whoever wants to acquire.
fn owns(request: &Acquire, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == request.user_id
        && match rules.same_user {
            SameUser::Share => true,
            SameUser::Separate => lock.session_id == request.session_id,
        }
}

/// Whether a live lease is the one that is claimed. A fence names it for sure; where the sessions of one person are
/// separate and no fence is given, the session must be the lease's.
fn holds(claim: &Claim, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == claim.user_id
        && claim.fence.is_none_or(|fence| fence == lock.fence)
        && match (rules.same_user, &claim.session_id, claim.fence) {
            (SameUser::Share, _, _) | (SameUser::Separate, None, Some(_)) => true,
            (SameUser::Separate, session_id @ Some(_), _) | (SameUser::Separate, session_id @ None, None) => {
                lock.session_id == *session_id
            }
        }
}

/// The lease that `request` gets.
fn lease(request: &Acquire, rules: &Rules, now: Timestamp, fence: Fence) -> Lock {
    let ttl = rules.ttl(request.ttl, rules.default_ttl);
    Lock {
        workspace_id: request.workspace_id.clone(),
        user_id: request.user_id.clone(),
        user_name: request.user_name.clone(),
        session_id: request.session_id.clone(),
        fence,
        acquired_at: now,
        renewed_at: now,
        last_active_at: now,
        expires_at: now.plus(ttl),
        ttl,
        note: request.note.clone(),
        metadata: request.metadata.clone().unwrap_or_else(|| "{}".to_owned()),
    }
}

/// The same lease from now on. What the request does not say stays as it was.
fn start_over(lock: Lock, request: &Acquire, rules: &Rules, now: Timestamp) -> Lock {
    let ttl = rules.ttl(request.ttl, rules.default_ttl);
    Lock {
        user_name: request.user_name.clone().or(lock.user_name),
        session_id: request.session_id.clone().or(lock.session_id),
        renewed_at: now,
        last_active_at: now,
        expires_at: now.plus(ttl),
        ttl,
        note: request.note.clone().or(lock.note),
        metadata: request.metadata.clone().unwrap_or(lock.metadata),
        ..lock
    }
}
