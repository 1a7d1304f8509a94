//! What must always be so of the data, looked for and put right. None of it happens by itself: a file that was edited by
//! hand, restored in part, or served under other settings than before can have it.

use rusqlite::params;

use super::events::By;
use super::locks::{apply, timely};
use super::{Write, rows};
use crate::error::Error;
use crate::lock::decide::Change;
use crate::lock::event::Ending;
use crate::lock::member::Membership;
use crate::lock::policy::Rules;
use crate::lock::{Fence, WorkspaceId};

/// Most violations of a kind that are looked at in one transaction.
pub const STEP: u32 = 500;

/// What is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A lock whose holder is no editor or admin of the workspace, where they must be.
    HolderIsNoMember,
    /// A lock on a workspace that does not exist, where it must.
    NoSuchWorkspace,
    /// An expired row that was left.
    ExpiredLock,
    /// A fence above the fence counter: it could be given out again.
    FenceAboveCounter,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 4] =
        [Self::FenceAboveCounter, Self::ExpiredLock, Self::NoSuchWorkspace, Self::HolderIsNoMember];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HolderIsNoMember => "holder_is_no_member",
            Self::NoSuchWorkspace => "no_such_workspace",
            Self::ExpiredLock => "expired_lock",
            Self::FenceAboveCounter => "fence_above_counter",
        }
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub kind: Kind,
    /// Where.
    pub workspace_id: WorkspaceId,
    /// The fence of the lease.
    pub fence: Fence,
}

/// Looks for what is not as it must be, and puts it right: at most 500 of a kind. Returns what was found.
///
/// # Errors
/// What SQLite refuses.
pub fn repair(write: &Write<'_>, by: Option<&By>, rules: &Rules) -> Result<Vec<Violation>, Error> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        if matches!(kind, Kind::HolderIsNoMember | Kind::NoSuchWorkspace)
            && rules.membership == Membership::Open
        {
            continue;
        }
        for violation in find(write, kind)? {
            put_right(write, &violation, by, rules)?;
            found.push(violation);
        }
    }
    Ok(found)
}

fn find(write: &Write<'_>, kind: Kind) -> Result<Vec<Violation>, Error> {
    let read = write.read();
    let (condition, bound) = match kind {
        Kind::NoSuchWorkspace => ("?1 = ?1 AND workspace_id NOT IN (SELECT workspace_id FROM workspaces)", 0),
        Kind::HolderIsNoMember => (
            "?1 = ?1 AND NOT EXISTS (SELECT 1 FROM members WHERE members.workspace_id = locks.workspace_id
             AND members.user_id = locks.user_id AND role <> 'viewer')",
            0,
        ),
        Kind::ExpiredLock => ("expires_at <= ?1", write.now().0),
        Kind::FenceAboveCounter => ("fence > ?1", write.last_fence().0),
    };
    let found: Vec<_> = read
        .connection()
        .prepare(&format!(
            "SELECT {} FROM locks WHERE {condition} ORDER BY workspace_id LIMIT ?2",
            rows::COLUMNS
        ))?
        .query_map(params![bound, STEP], |row| rows::lock(read, row))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found
        .into_iter()
        .filter(|lock| match kind {
            Kind::ExpiredLock => !lock.is_live(write.now()),
            Kind::HolderIsNoMember | Kind::NoSuchWorkspace => lock.is_live(write.now()),
            Kind::FenceAboveCounter => true,
        })
        .map(|lock| Violation { kind, workspace_id: lock.workspace_id, fence: lock.fence })
        .collect())
}

fn put_right(write: &Write<'_>, violation: &Violation, by: Option<&By>, rules: &Rules) -> Result<(), Error> {
    let ending = match violation.kind {
        // Another one of them has raised it.
        Kind::FenceAboveCounter if violation.fence <= write.last_fence() => return Ok(()),
        // The next fence is above this one. No fence that was given out is so great that there would be none left above.
        Kind::FenceAboveCounter if violation.fence.0 <= Fence::GREATEST_BY_CLOCK => {
            return write.fence_given(violation.fence);
        }
        Kind::FenceAboveCounter => Ending::Revoked,
        Kind::ExpiredLock => return timely(write, &violation.workspace_id, rules).map(drop),
        Kind::HolderIsNoMember => Ending::MemberRemoved,
        Kind::NoSuchWorkspace => Ending::WorkspaceDeleted,
    };
    match rows::load(write.read(), &violation.workspace_id)? {
        Some(lock) => apply(write, Change::End(lock, ending), by, rules),
        None => Ok(()),
    }
}
