//! Ends all leases of a user, in steps of limited time.

use std::sync::Arc;

use super::Service;
use super::current::{apply, load_current};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::Author;
use crate::domain::rules;
use crate::domain::{Authority, Claim, LockKind, Release, UserId, WorkspaceId, WorkspaceState};
use crate::error::Error;
use crate::store::{Keys, WorkingSet};

/// Maximum number of workspaces that one step of [`release_user`] processes.
const MAX_WORKSPACES_PER_STEP: usize = 200;

/// Result of one step of [`release_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseStep {
    /// Number of live leases that ended.
    pub released: u32,
    /// The next step starts after this workspace; `None` when all are done.
    pub after: Option<WorkspaceId>,
}

/// Ends leases of `user_id` and of these kinds on workspaces after `after`, in one step of limited time. The author `by` is the
/// user or an administrator. Due changes are applied first, so a lock that was granted to the user but not
/// stored yet is also released.
///
/// # Errors
/// Any error of the store.
pub fn release_user(
    set: &WorkingSet<'_>,
    user_id: &UserId,
    kinds: &[LockKind],
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
        while let Some(lock) = load_current(set, &workspace_id, rules)?
            .filter(|lock| lock.user_id == *user_id && kinds.contains(&lock.kind))
        {
            let claim = Claim {
                workspace_id: workspace_id.clone(),
                user_id: by.user_id.clone(),
                session_id: None,
                fence: Some(lock.fence),
                is_agent: false,
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

impl Service {
    /// Ends all leases of a user that are of these kinds, one step per transaction. The reply is the number of ended leases. If a
    /// step fails, the reply is the error; earlier steps stay committed.
    pub fn release_user(
        self: &Arc<Self>,
        user_id: UserId,
        kinds: Vec<LockKind>,
        by: Author,
        reply: impl FnOnce(Result<u32, Error>) + Send + 'static,
    ) {
        let service = Arc::clone(self);
        let (user_id, kinds, by) = (Arc::new(user_id), kinds.into(), Arc::new(by));
        UserRelease { service, user_id, kinds, by, released: 0, reply: Box::new(reply) }.step(None);
    }
}

/// State of a running release of all leases of a user.
struct UserRelease {
    service: Arc<Service>,
    user_id: Arc<UserId>,
    kinds: Arc<[LockKind]>,
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
        let kinds = Arc::clone(&self.kinds);
        service.store.submit(
            Keys::default().and_user(&user_id),
            move |set| {
                let after = after.as_ref().map_or("", WorkspaceId::as_str);
                release_user(set, &user_id, &kinds, &by, &rules, after)
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
