//! Workspaces and their members: each function that takes a [`Write`] is one use case.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::events::{Author, NewEvent};
use super::locks::{apply, settled, timely};
use super::{Write, events, rows, waiting};
use crate::domain::access::{Privilege, Rules, Takeover};
use crate::domain::event::{Ending, EventType, Lost};
use crate::domain::member::{Actor, Member, Membership, Need, Role, Workspace, access};
use crate::domain::rules::Change;
use crate::domain::{Claim, DisplayName, UserId, WorkspaceId};
use crate::error::{Denied, Error};
use crate::time::WallTime;

/// What this user is on this workspace.
///
/// # Errors
/// What SQLite refuses.
pub fn role(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
) -> Result<Option<Role>, Error> {
    let role: Option<String> = connection
        .prepare_cached("SELECT role FROM members WHERE workspace_id = ?1 AND user_id = ?2")?
        .query_row([workspace_id.as_str(), user_id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(role.as_deref().and_then(Role::parse))
}

pub(super) fn exists(connection: &Connection, workspace_id: &WorkspaceId) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM workspaces WHERE workspace_id = ?1)")?
        .query_row([workspace_id.as_str()], |row| row.get(0))?)
}

/// Whether it matters what somebody is on a workspace, for what they need there.
#[must_use]
pub fn matters(need: Need, rules: &Rules) -> bool {
    rules.membership == Membership::Enforced
        || rules.takeover == Takeover::Admins
        || matches!(need, Need::Manage | Need::Revoke)
}

/// Whether `actor` may do what they need on a workspace. Returns what they may do besides, or why not.
///
/// # Errors
/// What SQLite refuses.
pub fn may(
    connection: &Connection,
    actor: &Actor,
    workspace_id: &WorkspaceId,
    need: Need,
    rules: &Rules,
) -> Result<Result<Privilege, Denied>, Error> {
    if !matters(need, rules) {
        return Ok(Ok(actor.standing));
    }
    let role = match &actor.user_id {
        Some(user_id) => role(connection, workspace_id, user_id)?,
        None => None,
    };
    let exists = role.is_some() || exists(connection, workspace_id)?;
    Ok(access(actor, exists, role, need, rules.membership))
}

/// Whether this user may hold the lock of this workspace.
pub(super) fn may_hold(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    rules: &Rules,
) -> Result<bool, Error> {
    Ok(match rules.membership {
        Membership::Open => true,
        Membership::Enforced => {
            role(connection, workspace_id, user_id)?.is_some_and(|role| role >= Role::Editor)
        }
    })
}

/// Why somebody may not hold it who may not.
pub(super) fn why_not(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
) -> Result<Denied, Error> {
    Ok(match role(connection, workspace_id, user_id)? {
        Some(_) => Denied::NotAMember,
        None => Denied::NoSuchWorkspace,
    })
}

/// How the claimant's last lease ended, if that was because they belong to the workspace no more.
///
/// # Errors
/// What SQLite refuses.
pub fn turned_out(write: &Write<'_>, claim: &Claim) -> Result<Option<Lost>, Error> {
    let lost = events::lost(write.connection(), &claim.workspace_id, &claim.user_id, None)?;
    Ok(lost.filter(|lost| matches!(lost.ending, Ending::MemberRemoved | Ending::WorkspaceDeleted)))
}

/// How the lease of somebody ends who may not hold it, though nobody has ended it: it is of before membership was
/// enforced, or the file was edited. Nothing if they may.
pub(super) fn must_end(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    rules: &Rules,
) -> Result<Option<Ending>, Error> {
    if may_hold(connection, workspace_id, user_id, rules)? {
        return Ok(None);
    }
    Ok(Some(match role(connection, workspace_id, user_id)? {
        Some(_) => Ending::Revoked,
        None if exists(connection, workspace_id)? => Ending::MemberRemoved,
        None => Ending::WorkspaceDeleted,
    }))
}

/// Names a workspace, or names it anew. One that is there keeps its name unless `anew`.
///
/// # Errors
/// What SQLite refuses.
pub fn put(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    name: Option<&DisplayName>,
    anew: bool,
) -> Result<Workspace, Error> {
    let name = name.map(DisplayName::as_str);
    Ok(write
        .connection()
        .prepare_cached(
            "INSERT INTO workspaces (workspace_id, name, created_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (workspace_id) DO UPDATE SET name = iif(?4, excluded.name, name)
             RETURNING workspace_id, name, created_at",
        )?
        .query_row(params![workspace_id.as_str(), name, write.wall_at(write.now()).0, anew], read)?)
}

/// A workspace, if somebody named it.
///
/// # Errors
/// What SQLite refuses.
pub fn get(connection: &Connection, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
    Ok(connection
        .prepare_cached("SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id = ?1")?
        .query_row([workspace_id.as_str()], read)
        .optional()?)
}

/// Workspaces by id, after `after`, at most `limit`; those of `member` only, if there is one.
///
/// # Errors
/// What SQLite refuses.
pub fn list(
    connection: &Connection,
    member: Option<&UserId>,
    after: &str,
    limit: usize,
) -> Result<Vec<Workspace>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = if let Some(member) = member {
        // CROSS JOIN: SQLite begins with the member's workspaces, which their index has in order.
        connection
            .prepare_cached(
                "SELECT members.workspace_id, name, created_at FROM members
                 CROSS JOIN workspaces ON workspaces.workspace_id = members.workspace_id
                 WHERE user_id = ?3 AND members.workspace_id > ?1 ORDER BY members.workspace_id LIMIT ?2",
            )?
            .query_map(params![after, limit, member.as_str()], read)?
            .collect::<rusqlite::Result<_>>()?
    } else {
        connection
            .prepare_cached(
                "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id > ?1
                 ORDER BY workspace_id LIMIT ?2",
            )?
            .query_map(params![after, limit], read)?
            .collect::<rusqlite::Result<_>>()?
    };
    Ok(found)
}

/// Deletes a workspace with its members, and ends its lock, which it may have though nobody named it. Returns whether there
/// was one of them.
///
/// # Errors
/// What SQLite refuses.
pub fn delete(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    let lock = settled(write, workspace_id, rules)?;
    // Those who follow are told that it is gone. Afterwards nobody could tell who they were.
    let members = match rules.membership {
        Membership::Enforced => all_members(write.connection(), workspace_id)?,
        Membership::Open => HashSet::new(),
    };
    let deleted = write
        .connection()
        .prepare_cached("DELETE FROM workspaces WHERE workspace_id = ?1")?
        .execute([workspace_id.as_str()])?;
    if deleted == 0 && lock.is_none() {
        return Ok(false);
    }
    waiting::turn_out(write, workspace_id, rules)?;
    if let Some(lock) = lock {
        apply(write, Change::End(lock, Ending::WorkspaceDeleted), by, rules)?;
    } else {
        let happened = NewEvent::without_lease(
            workspace_id,
            None,
            EventType::Ended(Ending::WorkspaceDeleted),
            write.now(),
        );
        events::record(write, &NewEvent { by, ..happened })?;
    }
    if !members.is_empty() {
        write.parted(members);
    }
    Ok(true)
}

fn all_members(connection: &Connection, workspace_id: &WorkspaceId) -> Result<HashSet<UserId>, Error> {
    Ok(connection
        .prepare_cached("SELECT user_id FROM members WHERE workspace_id = ?1")?
        .query_map([workspace_id.as_str()], |row| row.get(0).map(UserId::trusted))?
        .collect::<rusqlite::Result<_>>()?)
}

/// Makes somebody a member, or changes what they may do. A holder who may not hold the lock any more loses it.
///
/// # Errors
/// What SQLite refuses.
pub fn put_member(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    member: &Member,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<(), Error> {
    write
        .connection()
        .prepare_cached(
            "INSERT INTO members (workspace_id, user_id, role) VALUES (?1, ?2, ?3)
             ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role",
        )?
        .execute([workspace_id.as_str(), member.user_id.as_str(), member.role.as_str()])?;
    if !may_hold(write.connection(), workspace_id, &member.user_id, rules)? {
        loses_hold(write, workspace_id, &member.user_id, Ending::Revoked, by, rules)?;
    }
    Ok(())
}

/// The members of a workspace by id, after `after`, at most `limit`.
///
/// # Errors
/// What SQLite refuses.
pub fn members(
    connection: &Connection,
    workspace_id: &WorkspaceId,
    after: &str,
    limit: usize,
) -> Result<Vec<Member>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(connection
        .prepare_cached(
            "SELECT user_id, role FROM members WHERE workspace_id = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3",
        )?
        .query_map(params![workspace_id.as_str(), after, limit], |row| {
            let role: String = row.get(1)?;
            let role = Role::parse(&role).unwrap_or(Role::Viewer);
            Ok(Member { user_id: UserId::trusted(row.get(0)?), role })
        })?
        .collect::<rusqlite::Result<_>>()?)
}

/// Removes a member, and ends their lock, which they may have without being one. Returns whether they were or had one.
///
/// # Errors
/// What SQLite refuses.
pub fn remove_member(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    let removed = write
        .connection()
        .prepare_cached("DELETE FROM members WHERE workspace_id = ?1 AND user_id = ?2")?
        .execute([workspace_id.as_str(), user_id.as_str()])?;
    let held = loses_hold(write, workspace_id, user_id, Ending::MemberRemoved, by, rules)?;
    if removed == 0 {
        return Ok(held);
    }
    if !held {
        let happened = NewEvent::without_lease(
            workspace_id,
            Some(user_id),
            EventType::Ended(Ending::MemberRemoved),
            write.now(),
        );
        events::record(write, &NewEvent { by, ..happened })?;
    }
    Ok(true)
}

/// Somebody may not hold the lock any more: their lease ends, and they wait no more; nor do they knock, unless
/// they may all the same. Returns whether they had a lease.
fn loses_hold(
    write: &Write<'_>,
    workspace_id: &WorkspaceId,
    user_id: &UserId,
    ending: Ending,
    by: Option<&Author>,
    rules: &Rules,
) -> Result<bool, Error> {
    // First: what becomes of the lock now is nothing to them.
    waiting::turn_out(write, workspace_id, rules)?;
    let Some(mut lock) = timely(write, workspace_id, rules)? else { return Ok(false) };
    if lock.user_id == *user_id {
        apply(write, Change::End(lock, ending), by, rules)?;
        return Ok(true);
    }
    if !may_hold(write.connection(), workspace_id, user_id, rules)?
        && lock.knocks.forget(user_id, rules, write.now())
    {
        rows::update_knocks(write, &lock)?;
    }
    Ok(false)
}

/// A row of `workspace_id, name, created_at`.
fn read(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace {
        workspace_id: WorkspaceId::trusted(row.get(0)?),
        // An older version kept names that show nothing.
        name: row.get::<_, Option<String>>(1)?.and_then(|name| DisplayName::parse(&name).ok().flatten()),
        created_at: WallTime(row.get(2)?),
    })
}
