//! Use cases on the locks of files in Git LFS repositories. The locks are those of workspaces: see
//! [`crate::domain::lfs`].

use super::Service;
use super::current::load_current;
use super::locks::{HeartbeatReport, acquire, heartbeat};
use crate::domain::access::Rules;
use crate::domain::lfs::Repository;
use crate::domain::rights::Actor;
use crate::domain::{Acquire, Acquired, Activity, Claim, Fence, Heartbeat, Lock, LockKind, UserId};
use crate::error::{Denied, Error};
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::{AsOf, Reply, WorkingSet};
use crate::time::{Timestamp, Ttl};

/// A lease is renewed when less than this part of it is left: 60 of 90 days.
const RENEWED_BELOW: (i64, i64) = (2, 3);

/// Locks a file. A lock that the caller has already is refused like that of another user. It is renewed if it is
/// due for that.
///
/// # Errors
/// Any error of the store.
pub fn lock_file(set: &WorkingSet<'_>, request: &Acquire, rules: &Rules) -> Result<Acquired, Error> {
    match load_current(set, &request.workspace_id, rules)? {
        Some(lock) if lock.user_id == request.user_id => {
            if let Some(renewal) = renewal(&lock, &request.user_id, set.now()) {
                heartbeat(set, &renewal, rules)?;
            }
            Ok(Acquired::Held { lock, same_user: true, takeover_allowed: false, idle: Ttl::from_millis(0) })
        }
        Some(_) | None => acquire(set, request, rules),
    }
}

/// The renewal of the caller's lock, if it is due.
fn renewal(lock: &Lock, user_id: &UserId, now: Timestamp) -> Option<Heartbeat> {
    let (part, whole) = RENEWED_BELOW;
    let is_due = lock.expires_at.since(now) < lock.ttl.as_millis() / whole * part;
    (lock.kind == LockKind::Lfs && lock.user_id == *user_id && is_due).then(|| Heartbeat {
        claim: Claim {
            workspace_id: lock.workspace_id.clone(),
            user_id: user_id.clone(),
            session_id: lock.session_id.clone(),
            fence: Some(lock.fence),
            is_agent: false,
        },
        ttl: None,
        activity: Activity::Active,
    })
}

impl Service {
    /// Locks a file for a caller. See [`lock_file`].
    pub fn lock_file(&self, actor: Actor, request: Acquire, reply: impl Reply<Acquired>) {
        self.acquire_by(lock_file, actor, request, reply);
    }

    /// Returns a page of the live locks on files of a repository, ordered by path.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn file_locks(
        &self,
        repository: &Repository,
        after: &str,
        limit: usize,
    ) -> Result<AsOf<FoundLocks>, Error> {
        let after = if after.is_empty() { String::new() } else { format!("{}{after}", repository.prefix()) };
        self.locks(&LockQuery { prefix: repository.prefix(), after, limit, ..LockQuery::default() })
    }

    /// Returns the live lock with this fence on a file of a repository.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn file_lock(&self, repository: &Repository, fence: Fence) -> Result<AsOf<Option<Lock>>, Error> {
        let query =
            LockQuery { prefix: repository.prefix(), fence: Some(fence), limit: 1, ..LockQuery::default() };
        let AsOf { now, value } = self.locks(&query)?;
        Ok(AsOf { now, value: value.locks.into_iter().next() })
    }

    /// Renews the caller's locks of `found` that are due for that. The answer comes after they are stored.
    pub fn renew_file_locks(
        &self,
        actor: Actor,
        found: &AsOf<FoundLocks>,
        reply: impl Reply<Vec<Result<HeartbeatReport, Denied>>>,
    ) {
        let user_id = actor.user_id.clone();
        let due = |lock| user_id.as_ref().and_then(|user_id| renewal(lock, user_id, found.now));
        let due: Vec<_> = found.value.locks.iter().filter_map(due).collect();
        if due.is_empty() {
            return reply(Ok(AsOf { now: found.now, value: Vec::new() }));
        }
        self.heartbeats(actor, due, reply);
    }
}
