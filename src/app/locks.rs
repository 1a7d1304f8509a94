//! Use cases on locks: acquire, renew, release, read.

use std::sync::Arc;

use super::Service;
use super::current::{apply, is_allowed, load_current, state, within_lock_limit};
use crate::domain::access::Rules;
use crate::domain::event::{Author, Lost};
use crate::domain::rights::{Actor, Need};
use crate::domain::rules;
use crate::domain::{
    Acquire, Acquired, Authority, Claim, Fence, Heartbeat, HeartbeatOutcome, Lock, Release, Released,
    WorkspaceId, WorkspaceState,
};
use crate::error::{Denied, Error, Limit};
use crate::metrics::Metrics;
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::{AsOf, Keys, Reply, Rows, WorkingSet};

/// Outcome of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReport {
    /// The renewal, or why it was refused.
    pub beat: HeartbeatOutcome,
    /// How the caller's last lease ended, if the heartbeat was refused.
    pub lost: Option<Lost>,
    /// Number of waiters for the lock.
    pub waiting: usize,
}

impl HeartbeatReport {
    /// The caller's lease ended like this, and no lock is reported.
    const fn lost(lost: Lost) -> Self {
        Self { beat: HeartbeatOutcome::NoLock, lost: Some(lost), waiting: 0 }
    }
}

/// Lock of a workspace as a read finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredLock {
    /// A live lock.
    Live(Lock),
    /// A lock with a due change that is not stored yet: the lease has expired, or a grant is due.
    Due(Lock),
    /// No lock.
    Free,
}

/// Acquires the lock for a caller.
///
/// # Errors
/// Any error of the store.
pub fn acquire(set: &WorkingSet<'_>, request: &Acquire, rules: &Rules) -> Result<Acquired, Error> {
    let found = match load_current(set, &request.workspace_id, rules)? {
        Some(lock) => WorkspaceState::Locked(lock),
        None => WorkspaceState::Free { last: set.last_lease(&request.workspace_id)? },
    };
    let decision = rules::acquire(found, request, rules, set.moment());
    let decision = within_lock_limit(set, decision, rules)?;
    let by = Author {
        reason: request.reason.clone(),
        ..Author::new(request.user_id.clone(), request.user_name.clone())
    };
    apply(set, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// Renews the lease of the holder.
///
/// # Errors
/// Any error of the store.
pub fn heartbeat(set: &WorkingSet<'_>, request: &Heartbeat, rules: &Rules) -> Result<HeartbeatReport, Error> {
    let claim = &request.claim;
    let decision = rules::heartbeat(state(set, &claim.workspace_id, rules)?, request, rules, set.now());
    apply(set, decision.change, None, rules)?;
    let beat = decision.outcome;
    let lost = match &beat {
        HeartbeatOutcome::Renewed(_) => None,
        HeartbeatOutcome::NotHolder { lock, .. } => lost(set, claim, Some(lock.fence))?,
        HeartbeatOutcome::NoLock => lost(set, claim, None)?,
    };
    Ok(HeartbeatReport { beat, lost, waiting: set.queue().count(&claim.workspace_id) })
}

/// Releases a lease, or revokes it for an administrator. If the caller is not the holder, the answer includes
/// how the caller's last lease ended.
///
/// # Errors
/// Any error of the store.
pub fn release(
    set: &WorkingSet<'_>,
    request: &Release,
    rules: &Rules,
) -> Result<(Released, Option<Lost>), Error> {
    let claim = &request.claim;
    let decision = rules::release(state(set, &claim.workspace_id, rules)?, request, rules);
    let by = Author {
        reason: request.reason.clone(),
        ..Author::new(claim.user_id.clone(), request.user_name.clone())
    };
    apply(set, decision.change, Some(&by), rules)?;
    let lost = match &decision.outcome {
        Released::Released(_) | Released::Nothing | Released::Forbidden(_) => None,
        Released::NotHolder { lock, .. } => lost(set, claim, Some(lock.fence))?,
    };
    Ok((decision.outcome, lost))
}

/// Revokes a lease. See [`release`].
///
/// # Errors
/// Any error of the store.
pub(super) fn revoke(
    set: &WorkingSet<'_>,
    mut request: Release,
    rules: &Rules,
) -> Result<(Released, Option<Lost>), Error> {
    let Claim { workspace_id, user_id, .. } = &request.claim;
    // A viewer takes nothing over.
    if is_allowed(&**set, workspace_id, user_id, rules)?.is_err() {
        request.authority = Authority::Administrator;
    }
    release(set, &request, rules)
}

/// How the last lease of the claimant ended. The live lease is excluded.
pub(super) fn lost(set: &WorkingSet<'_>, claim: &Claim, live: Option<Fence>) -> Result<Option<Lost>, Error> {
    set.lost(&claim.workspace_id, &claim.user_id, claim.is_agent, live)
}

/// Reads the lock of a workspace as stored. Writes nothing.
///
/// # Errors
/// An error of the store when it cannot read.
pub fn stored_lock(rows: &dyn Rows, workspace_id: &WorkspaceId) -> Result<StoredLock, Error> {
    Ok(match rows.lock(workspace_id)? {
        Some(lock) if rows.now() < lock.due_at() => StoredLock::Live(lock),
        Some(lock) => StoredLock::Due(lock),
        None => StoredLock::Free,
    })
}

impl Service {
    /// Acquires the lock of a workspace for a caller.
    pub fn acquire(&self, actor: Actor, request: Acquire, reply: impl Reply<Acquired>) {
        self.acquire_by(acquire, actor, request, reply);
    }

    /// Runs `acquire` for a caller who may edit the workspace, and counts its outcome.
    pub(super) fn acquire_by(
        &self,
        acquire: fn(&WorkingSet<'_>, &Acquire, &Rules) -> Result<Acquired, Error>,
        actor: Actor,
        request: Acquire,
        reply: impl Reply<Acquired>,
    ) {
        let metrics = Arc::clone(&self.metrics);
        let keys = Keys::workspace(&request.workspace_id).and_user(&request.user_id);
        self.submit_as(
            actor,
            keys,
            Need::Edit,
            move |set, rules, privilege| acquire(set, &Acquire { privilege, ..request.clone() }, rules),
            move |answer| {
                count(&metrics, &answer);
                reply(answer);
            },
        );
    }

    /// Renews several leases in one transaction. The answers have the order of the requests.
    pub fn heartbeats(
        &self,
        actor: Actor,
        requests: Vec<Heartbeat>,
        reply: impl Reply<Vec<Result<HeartbeatReport, Denied>>>,
    ) {
        let rules = Arc::clone(&self.rules);
        let by = actor.clone();
        let workspaces = requests.iter().map(|request| request.claim.workspace_id.clone()).collect();
        let beat = move |set: &WorkingSet<'_>, request: &Heartbeat| {
            let beat = || heartbeat(set, request, &rules);
            super::as_holder(set, &actor, &request.claim, &rules, beat, HeartbeatReport::lost)
        };
        self.store.submit(
            self.with_roles(Keys { workspaces, ..Keys::default() }, &by, Need::See),
            move |set| requests.iter().map(|request| beat(set, request)).collect(),
            reply,
        );
    }

    /// Renews the lease of the holder.
    pub fn heartbeat(&self, actor: Actor, request: Heartbeat, reply: impl Reply<HeartbeatReport>) {
        let claim = request.claim.clone();
        let work = move |set: &WorkingSet<'_>, rules: &Rules| heartbeat(set, &request, rules);
        self.submit_as_holder(actor, claim, work, HeartbeatReport::lost, reply);
    }

    /// Releases a lease, or revokes it for an administrator.
    pub fn release(&self, actor: Actor, request: Release, reply: impl Reply<(Released, Option<Lost>)>) {
        let claim = request.claim.clone();
        if request.authority == Authority::Holder {
            let work = move |set: &WorkingSet<'_>, rules: &Rules| release(set, &request, rules);
            return self.submit_as_holder(actor, claim, work, |lost| (Released::Nothing, Some(lost)), reply);
        }
        let work = move |set: &WorkingSet<'_>, rules: &Rules, privilege| {
            revoke(set, Release { privilege, ..request.clone() }, rules)
        };
        self.submit_as(actor, Keys::workspace(&claim.workspace_id), Need::Revoke, work, reply);
    }

    /// Returns the live lock of a workspace, if there is one. Due changes are stored before the answer, so
    /// that a crash cannot undo what was answered.
    ///
    /// # Errors
    /// An error of the store when it cannot read or write.
    pub fn lock(&self, workspace_id: &WorkspaceId) -> Result<AsOf<Option<Lock>>, Error> {
        let AsOf { now, value } = self.stored_lock(workspace_id)?;
        match value {
            StoredLock::Live(lock) => Ok(AsOf { now, value: Some(lock) }),
            StoredLock::Free => Ok(AsOf { now, value: None }),
            StoredLock::Due(_) => {
                self.wake_sweeper();
                let (rules, of) = (Arc::clone(&self.rules), workspace_id.clone());
                self.store.write(move |set| load_current(set, &of, &rules))
            }
        }
    }

    /// How the last lease of the claimant ended, as stored. The live lease is excluded.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn lost(&self, claim: &Claim, live: Option<Fence>) -> Result<Option<Lost>, Error> {
        let read = |rows: &dyn Rows| rows.lost(&claim.workspace_id, &claim.user_id, claim.is_agent, live);
        self.store.read(read).map(|found| found.value)
    }

    /// Reads the lock of a workspace as stored. Writes nothing.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn stored_lock(&self, workspace_id: &WorkspaceId) -> Result<AsOf<StoredLock>, Error> {
        self.store.read(|rows| stored_lock(rows, workspace_id))
    }

    /// Returns a page of live locks, ordered by workspace id.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn locks(&self, listing: &LockQuery) -> Result<AsOf<FoundLocks>, Error> {
        self.store.read(|rows| rows.list_locks(listing))
    }
}

/// Counts the outcome of an acquire.
pub(super) fn count(metrics: &Metrics, answer: &Result<AsOf<Acquired>, Error>) {
    match answer {
        Ok(AsOf { value, .. }) => metrics.acquisition(outcome_name(value)),
        Err(Error::TooMany(limit)) => metrics.limited(*limit),
        Err(_) => {}
    }
    if matches!(answer, Ok(AsOf { value: Acquired::TooMany, .. })) {
        metrics.limited(Limit::Locks);
    }
}

/// Label of the outcome in the metrics.
const fn outcome_name(acquired: &Acquired) -> &'static str {
    match acquired {
        Acquired::Acquired(_) => "acquired",
        Acquired::Renewed(_) => "renewed",
        Acquired::Reclaimed(_) => "reclaimed",
        Acquired::TakenOver { .. } => "taken_over",
        Acquired::Held { .. } => "held",
        Acquired::FenceMismatch(_) => "fence_mismatch",
        Acquired::TakeoverForbidden(_) => "takeover_forbidden",
        Acquired::TooMany => "too_many",
    }
}
