//! Use cases on the locks of Terraform states. The lock id of Terraform is the session of the lock.

use super::Service;
use super::current::load_current;
use super::locks::{release, revoke};
use crate::domain::access::{Privilege, Rules};
use crate::domain::rights::{Actor, Need};
use crate::domain::{Authority, Claim, DisplayName, Lock, LockKind, Release, Released, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::{Keys, Reply, WorkingSet};

/// Request to unlock a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlock {
    /// The workspace of the state.
    pub workspace_id: WorkspaceId,
    /// Id of the caller.
    pub user_id: UserId,
    /// Display name of the caller, for the history.
    pub user_name: Option<DisplayName>,
    /// The lock id of Terraform. Without it, any lock of Terraform is meant.
    pub id: Option<String>,
}

/// Outcome of an [`Unlock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocked {
    /// The lease ended.
    Unlocked,
    /// There was no live lock.
    Nothing,
    /// The live lock has another id, or is none of Terraform.
    OtherLock(Lock),
    /// The lock belongs to another user, and the caller may not take it over.
    Forbidden(Lock),
}

/// Unlocks a state: releases the caller's lock, or revokes that of another user.
///
/// # Errors
/// Any error of the store.
pub fn unlock(
    set: &WorkingSet<'_>,
    request: &Unlock,
    privilege: Privilege,
    rules: &Rules,
) -> Result<Unlocked, Error> {
    let Some(lock) = load_current(set, &request.workspace_id, rules)? else { return Ok(Unlocked::Nothing) };
    let is_meant = match &request.id {
        Some(id) => lock.is_state_lock(id),
        None => lock.kind == LockKind::Terraform,
    };
    if !is_meant {
        return Ok(Unlocked::OtherLock(lock));
    }
    let is_own = lock.user_id == request.user_id;
    let claim = Claim {
        workspace_id: request.workspace_id.clone(),
        user_id: request.user_id.clone(),
        session_id: None,
        fence: Some(lock.fence),
        is_agent: false,
    };
    let release_of = |authority| Release {
        claim,
        user_name: request.user_name.clone(),
        authority,
        privilege,
        reason: None,
    };
    let (released, _) = if is_own {
        release(set, &release_of(Authority::Holder), rules)?
    } else {
        revoke(set, release_of(Authority::TakesOver), rules)?
    };
    Ok(match released {
        Released::Released(_) => Unlocked::Unlocked,
        Released::Nothing => Unlocked::Nothing,
        Released::Forbidden(lock) | Released::NotHolder { lock, .. } => Unlocked::Forbidden(lock),
    })
}

impl Service {
    /// Unlocks a state for a caller. See [`unlock`].
    pub fn unlock_state(&self, actor: Actor, request: Unlock, reply: impl Reply<Unlocked>) {
        let keys = Keys::workspace(&request.workspace_id);
        let work =
            move |set: &WorkingSet<'_>, rules: &Rules, privilege| unlock(set, &request, privilege, rules);
        self.submit_as(actor, keys, Need::Revoke, work, reply);
    }
}
