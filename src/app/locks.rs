//! Use cases on locks: acquire, renew, release, read.

use std::sync::Arc;

use super::Service;
use super::current::{apply, load_current, state};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::{Author, Lost};
use crate::domain::member::{Actor, Need};
use crate::domain::rules::{self, Decision};
use crate::domain::{
    Acquire, Acquired, Authority, Claim, Fence, Heartbeat, HeartbeatOutcome, Lock, Release, Released, UserId,
    WorkspaceId, WorkspaceState,
};
use crate::error::{Denied, Error, Limit};
use crate::events::presence::PresentUser;
use crate::metrics::Metrics;
use crate::store::listing::{LockPage, LockQuery};
use crate::store::queue::{Client, QueuedWaiter};
use crate::store::{AsOf, Keys, Rows, WorkingSet};

/// Maximum number of followers that are listed for a workspace.
pub const MAX_PRESENT_USERS: usize = 500;
/// Maximum number of workspaces that one step of [`release_user`] processes.
const MAX_WORKSPACES_PER_STEP: usize = 200;

/// Users that are present on a workspace.
#[derive(Debug)]
pub struct WorkspacePresence {
    /// The live lock, with its holder and its knocks.
    pub lock: Option<Lock>,
    /// Waiters for the lock, in grant order.
    pub waiting: Vec<QueuedWaiter>,
    /// Users that follow the events of this workspace by its name, at most [`MAX_PRESENT_USERS`].
    pub followers: Vec<PresentUser>,
}

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

/// Result of one step of [`release_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseStep {
    /// Number of live leases that ended.
    pub released: u32,
    /// The next step starts after this workspace; `None` when all are done.
    pub after: Option<WorkspaceId>,
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
    let decision = within_lock_limit(set, decision, &request.user_id, rules)?;
    let by = Author {
        reason: request.reason.clone(),
        ..Author::new(request.user_id.clone(), request.user_name.clone())
    };
    apply(set, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// Applies the limit of locks per user to the decision.
pub(super) fn within_lock_limit(
    set: &WorkingSet<'_>,
    decision: Decision<Acquired>,
    user_id: &UserId,
    rules: &Rules,
) -> Result<Decision<Acquired>, Error> {
    if !decision.change.begins_lease() {
        return Ok(decision);
    }
    let live_locks = set.live_locks_of(user_id, rules.locks_per_user)?;
    Ok(rules::within_limit(decision, live_locks, rules))
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

/// How the last lease of the claimant ended. The live lease is excluded.
pub(super) fn lost(set: &WorkingSet<'_>, claim: &Claim, live: Option<Fence>) -> Result<Option<Lost>, Error> {
    set.lost(&claim.workspace_id, &claim.user_id, live)
}

/// Ends leases of `user_id` on workspaces after `after`, in one step of limited time. The author `by` is the
/// user or an administrator. Due changes are applied first, so a lock that was granted to the user but not
/// stored yet is also released.
///
/// # Errors
/// Any error of the store.
pub fn release_user(
    set: &WorkingSet<'_>,
    user_id: &UserId,
    by: &Author,
    rules: &Rules,
    after: &str,
) -> Result<ReleaseStep, Error> {
    let step = set.step_budget();
    let limit = MAX_WORKSPACES_PER_STEP;
    let mut workspaces = set.workspaces_concerning(user_id, after, limit)?;
    workspaces.extend(set.queue().workspaces_of(user_id, after, limit));
    let all = workspaces.len() < limit;
    let mut some = ReleaseStep { released: 0, after: None };
    for (count, workspace_id) in workspaces.into_iter().enumerate() {
        if count >= limit || (count > 0 && step.is_over()) {
            return Ok(some);
        }
        while let Some(lock) =
            load_current(set, &workspace_id, rules)?.filter(|lock| lock.user_id == *user_id)
        {
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
                privilege: Privilege::Administrator,
                reason: by.reason.clone(),
            };
            let decision = rules::release(WorkspaceState::Locked(lock), &request, rules);
            apply(set, decision.change, Some(by), rules)?;
            some.released += 1;
        }
        some.after = Some(workspace_id);
    }
    Ok(if all { ReleaseStep { after: None, ..some } } else { some })
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
    pub fn acquire(
        &self,
        actor: Actor,
        request: Acquire,
        reply: impl FnOnce(Result<AsOf<Acquired>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let metrics = Arc::clone(&self.metrics);
        let keys = Keys::workspace(&request.workspace_id).and_user(&request.user_id);
        self.submit_as(
            actor,
            keys,
            Need::Edit,
            move |set, privilege| acquire(set, &Acquire { privilege, ..request.clone() }, &rules),
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
        reply: impl FnOnce(Result<AsOf<Vec<Result<HeartbeatReport, Denied>>>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let workspaces = requests.iter().map(|request| request.claim.workspace_id.clone()).collect();
        let beat = move |set: &WorkingSet<'_>, request: &Heartbeat| {
            let beat = || heartbeat(set, request, &rules);
            super::as_holder(set, &actor, &request.claim, &rules, beat, HeartbeatReport::lost)
        };
        self.store.submit(
            Keys { workspaces, users: Vec::new() },
            move |set| requests.iter().map(|request| beat(set, request)).collect(),
            reply,
        );
    }

    /// Renews the lease of the holder.
    pub fn heartbeat(
        &self,
        actor: Actor,
        request: Heartbeat,
        reply: impl FnOnce(Result<AsOf<HeartbeatReport>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        let work = move |set: &WorkingSet<'_>| heartbeat(set, &request, &rules);
        self.submit_as_holder(actor, claim, work, HeartbeatReport::lost, reply);
    }

    /// Releases a lease, or revokes it for an administrator.
    pub fn release(
        &self,
        actor: Actor,
        request: Release,
        reply: impl FnOnce(Result<AsOf<(Released, Option<Lost>)>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        if request.authority == Authority::Holder {
            let work = move |set: &WorkingSet<'_>| release(set, &request, &rules);
            return self.submit_as_holder(actor, claim, work, |lost| (Released::Nothing, Some(lost)), reply);
        }
        let work = move |set: &WorkingSet<'_>, privilege| {
            release(set, &Release { privilege, ..request.clone() }, &rules)
        };
        self.submit_as(actor, Keys::workspace(&claim.workspace_id), Need::Revoke, work, reply);
    }

    /// Ends all leases of a user, one step per transaction. The reply is the number of ended leases. If a
    /// step fails, the reply is the error; earlier steps stay committed.
    pub fn release_user(
        self: &Arc<Self>,
        user_id: UserId,
        by: Author,
        reply: impl FnOnce(Result<u32, Error>) + Send + 'static,
    ) {
        let (user_id, by) = (Arc::new(user_id), Arc::new(by));
        UserRelease { service: Arc::clone(self), user_id, by, released: 0, reply: Box::new(reply) }
            .step(None);
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

    /// Reads the lock of a workspace as stored. Writes nothing.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn stored_lock(&self, workspace_id: &WorkspaceId) -> Result<AsOf<StoredLock>, Error> {
        self.store.read(|rows| stored_lock(rows, workspace_id))
    }

    /// Lists the users that are present on a workspace.
    ///
    /// # Errors
    /// Same as [`Self::lock`].
    pub fn presence(&self, workspace_id: &WorkspaceId) -> Result<AsOf<WorkspacePresence>, Error> {
        use crate::domain::waitlist::QueueEntry as _;
        let AsOf { now, value: lock } = self.lock(workspace_id)?;
        let mut waiting = self.store.queue().waiters(workspace_id);
        waiting.retain(|place| place.waits(now));
        let followers = self.followers(workspace_id)?;
        Ok(AsOf { now, value: WorkspacePresence { lock, waiting, followers } })
    }

    /// Followers of a workspace that receive its events.
    fn followers(&self, workspace_id: &WorkspaceId) -> Result<Vec<PresentUser>, Error> {
        let mut users = self.broadcaster.presence(workspace_id, MAX_PRESENT_USERS);
        if users.iter().any(|user| user.is_member) {
            let members = self.store.read(|rows| {
                let is_member = |user: &PresentUser| Ok(rows.role(workspace_id, &user.user_id)?.is_some());
                users.iter().map(is_member).collect::<Result<Vec<_>, Error>>()
            })?;
            let mut are_members = members.value.into_iter();
            users.retain(|user| are_members.next() == Some(true) || !user.is_member);
        }
        Ok(users)
    }

    /// Returns a page of live locks, ordered by workspace id.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn locks(&self, listing: &LockQuery) -> Result<AsOf<LockPage>, Error> {
        self.store.read(|rows| rows.list_locks(listing))
    }
}

/// State of a running release of all leases of a user.
struct UserRelease {
    service: Arc<Service>,
    user_id: Arc<UserId>,
    by: Arc<Author>,
    released: u32,
    reply: Box<dyn FnOnce(Result<u32, Error>) + Send>,
}

impl UserRelease {
    /// Runs the next step, after this workspace.
    fn step(mut self, after: Option<WorkspaceId>) {
        let service = Arc::clone(&self.service);
        let rules = Arc::clone(&service.rules);
        let (user_id, by) = (Arc::clone(&self.user_id), Arc::clone(&self.by));
        service.store.submit(
            Keys::default().and_user(&user_id),
            move |set| {
                let after = after.as_ref().map_or("", WorkspaceId::as_str);
                release_user(set, &user_id, &by, &rules, after)
            },
            move |answer| match answer.map(|answer| answer.value) {
                Ok(ReleaseStep { released, after }) => {
                    self.released = self.released.saturating_add(released);
                    if after.is_some() { self.step(after) } else { (self.reply)(Ok(self.released)) }
                }
                Err(error) => (self.reply)(Err(error)),
            },
        );
    }
}

/// Client of a waiter. Counts the outcome in the metrics.
pub(super) struct CountingClient {
    pub(super) client: Box<dyn Client>,
    pub(super) metrics: Arc<Metrics>,
}

impl Client for CountingClient {
    fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>) {
        self.client.when_gone(callback);
    }

    fn answer(self: Box<Self>, answer: Result<AsOf<Acquired>, Error>) {
        count(&self.metrics, &answer);
        self.client.answer(answer);
    }
}

/// Counts the outcome of an acquire.
fn count(metrics: &Metrics, answer: &Result<AsOf<Acquired>, Error>) {
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
