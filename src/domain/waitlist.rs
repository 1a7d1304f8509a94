//! Wait list of a lock, as pure functions: who may join, who is next, and what waiters are told. First come,
//! first served; agents stand behind all others.

use super::access::{Rules, is_same_session};
use super::knocks::Knock;
use super::{Acquire, Acquired, GrantState, Lock, LockKind, SessionId, UserId};
use crate::error::{Denied, Error, Limit};
use crate::time::Timestamp;

/// Waiter for a lock.
pub trait QueueEntry {
    /// The waiter's acquire.
    fn request(&self) -> &Acquire;
    /// End of the wait. Under load, the waiter may be told later; until then the lock can still be granted to
    /// them.
    fn until(&self) -> Timestamp;
    /// Whether the client has disconnected.
    fn is_gone(&self) -> bool;

    /// Whether the waiter's server stops. The waiter can ask again at another server, until the end of the wait.
    fn is_leaving(&self) -> bool;

    /// Whether the waiter is connected at `at` and its wait is not over.
    fn waits(&self, at: Timestamp) -> bool {
        at < self.until() && !self.is_gone()
    }

    /// Whether the waiter keeps its position at `at`, although it may not be connected.
    fn keeps_position(&self, at: Timestamp) -> bool {
        at < self.until() && (self.is_leaving() || !self.is_gone())
    }
}

/// Limits on the number of waiters.
#[derive(Debug, Clone, Copy)]
pub struct WaitlistLimits {
    /// Per lock.
    pub per_workspace: usize,
    /// Per lock and user. Each session of a user counts as one waiter.
    pub per_user: usize,
    /// In total.
    pub total: usize,
}

/// Position of the waiter with the same user, session and kind of lock. A request that is repeated at `at` keeps this
/// position.
#[must_use]
pub fn position_of(line: &[impl QueueEntry], request: &Acquire, at: Timestamp) -> Option<usize> {
    line.iter().position(|waiting| {
        (!waiting.is_leaving() || waiting.keeps_position(at)) && is_repeated(waiting.request(), request)
    })
}

/// Whether the second request repeats the first one.
#[must_use]
pub fn is_repeated(first: &Acquire, second: &Acquire) -> bool {
    first.user_id == second.user_id
        && first.kind == second.kind
        && is_same_session(first.kind, first.session_id.as_ref(), second.session_id.as_ref())
}

/// Position of a new waiter: at the end, but before the agents, unless it is one.
#[must_use]
pub fn new_position(line: &[impl QueueEntry], request: &Acquire) -> usize {
    let first_agent = line.iter().position(|waiting| waiting.request().kind.is_agent());
    first_agent.filter(|_| !request.kind.is_agent()).unwrap_or(line.len())
}

/// Number of waiters, of all locks or of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaiterCount {
    /// All.
    pub all: usize,
    /// Those that are agents.
    pub agents: usize,
}

impl WaiterCount {
    /// Number of waiters in this line.
    #[must_use]
    pub fn of(line: &[impl QueueEntry]) -> Self {
        let agents = line.iter().filter(|waiting| waiting.request().kind.is_agent()).count();
        Self { all: line.len(), agents }
    }

    /// The count after one line was replaced by another.
    #[must_use]
    pub fn replaced<W: QueueEntry>(self, before: &[W], after: &[W]) -> Self {
        let (before, after) = (Self::of(before), Self::of(after));
        Self {
            all: (self.all + after.all).saturating_sub(before.all),
            agents: (self.agents + after.agents).saturating_sub(before.agents),
        }
    }

    /// Number of waiters that keep this kind out at a limit: agents keep only agents out.
    const fn against(self, kind: LockKind) -> usize {
        if kind.is_agent() { self.all } else { self.all.saturating_sub(self.agents) }
    }
}

/// Limit that keeps one more waiter from joining, if any. `total` is the number of waiters for all locks.
#[must_use]
pub fn limit_reached(
    line: &[impl QueueEntry],
    request: &Acquire,
    total: WaiterCount,
    limits: WaitlistLimits,
) -> Option<Limit> {
    let Acquire { user_id, kind, .. } = request;
    let is_theirs = |waits: &Acquire| waits.user_id == *user_id && waits.kind.is_agent() == kind.is_agent();
    let theirs = line.iter().filter(|waiting| is_theirs(waiting.request())).count();
    if theirs >= limits.per_user {
        Some(Limit::WaitersPerUser)
    } else if WaiterCount::of(line).against(*kind) >= limits.per_workspace {
        Some(Limit::WaitersPerWorkspace)
    } else {
        (total.against(*kind) >= limits.total).then_some(Limit::Waiters)
    }
}

/// Reason why the lock cannot be granted to a waiter, if any: its credentials have ended since, or it may no
/// longer hold the lock.
#[must_use]
pub fn refusal(has_good_credentials: bool, may_hold: Result<(), Denied>) -> Option<Error> {
    if !has_good_credentials {
        return Some(Error::CredentialsEnded);
    }
    may_hold.err().map(Error::Denied)
}

/// Position of the next waiter for a lock that became free at `freed_at`: the first one whose wait was not
/// over then. If there is none, the first one that is still connected: no waiter is told that a free lock is
/// held. Agents come after all others.
#[must_use]
pub fn next<W: QueueEntry>(line: &[W], freed_at: Timestamp) -> Option<usize> {
    let first = |is_agent: bool| {
        let is_next = |waiting: &W| waiting.request().kind.is_agent() == is_agent;
        let in_time = line.iter().position(|waiting| is_next(waiting) && waiting.waits(freed_at));
        in_time.or_else(|| line.iter().position(|waiting| is_next(waiting) && !waiting.is_gone()))
    };
    first(false).or_else(|| first(true))
}

/// Who is to get a lock: by a knock or by name.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Kind of the lock.
    pub kind: LockKind,
    /// Id of the user.
    pub user_id: &'a UserId,
    /// Session of the knock.
    pub session_id: Option<&'a SessionId>,
}

impl<'a> Recipient<'a> {
    /// The user who knocked.
    #[must_use]
    pub const fn of(knock: &'a Knock) -> Self {
        Self { kind: knock.kind, user_id: &knock.user_id, session_id: knock.session_id.as_ref() }
    }
}

/// Waiting acquire of this recipient: the one of the session if there is one, else the first. A person's is not an
/// agent's. Only waiters that pass `is_fit` count.
///
/// # Errors
/// Errors of `is_fit`.
pub fn acquire_of<'a, W: QueueEntry>(
    line: &'a [W],
    recipient: Recipient<'_>,
    mut is_fit: impl FnMut(&W) -> Result<bool, Error>,
) -> Result<Option<&'a Acquire>, Error> {
    let Recipient { kind, user_id, session_id } = recipient;
    let is_theirs = |waits: &Acquire| waits.user_id == *user_id && waits.kind.is_agent() == kind.is_agent();
    let mut theirs: Vec<_> =
        line.iter().filter(|waiting| is_theirs(waiting.request()) && !waiting.is_gone()).collect();
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

/// Whether this lease satisfies the waiter's acquire.
#[must_use]
pub fn satisfies(request: &Acquire, lock: &Lock, rules: &Rules) -> bool {
    lock.user_id == request.user_id
        && lock.kind == request.kind
        && rules.is_same_owner(lock.kind, lock.session_id.as_ref(), request.session_id.as_ref())
}

/// Outcome for a waiter whose acquire is satisfied by this lease (see [`satisfies`]). If the sessions of a user
/// share the lock, another session may hold it.
#[must_use]
pub fn outcome_when_satisfied(request: &Acquire, lock: &Lock) -> Acquired {
    let is_theirs = match lock.grant_state {
        GrantState::Claimed | GrantState::InDoubt => false,
        GrantState::ToSession => lock.session_id == request.session_id,
        GrantState::ToUser => true,
    };
    if is_theirs { Acquired::Acquired(lock.clone()) } else { Acquired::Renewed(lock.clone()) }
}
