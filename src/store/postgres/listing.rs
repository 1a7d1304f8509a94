//! Lists locks, by workspace id. A page reads a bounded number of rows, whether or not they are shown.

use tokio_postgres::Row;

use super::queries::{Queries, at_most};
use super::row;
use super::session::{Parameter, parameter, parameters};
use crate::domain::Lock;
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery, successor};
use crate::store::rows::Rows as _;

/// Maximum number of rows that are read for one page.
const MAX_ROWS: usize = 2_000;
/// A text after all ids.
const AFTER_ALL: char = char::MAX;

const ALL: &str = concat!(
    "SELECT ",
    row::locks!(),
    " FROM locks WHERE workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3 ORDER BY workspace_id LIMIT $4"
);
const OF_FENCE: &str = concat!(
    "SELECT ",
    row::locks!(),
    " FROM locks WHERE workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3 AND fence = $5
     AND workspace_id >= 'lfs/' AND workspace_id < 'lfs0' ORDER BY workspace_id LIMIT $4"
);
const OF_USER: &str = concat!(
    "SELECT ",
    row::locks!(),
    " FROM locks WHERE user_id = $5 AND workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3
     ORDER BY workspace_id LIMIT $4"
);
const FOR_MEMBER: &str = concat!(
    "SELECT ",
    row::locks!(),
    " FROM locks WHERE (workspace_id IN (SELECT workspace_id FROM members WHERE user_id = $5)
      OR (workspace_id >= 'lfs/' AND workspace_id < 'lfs0' AND split_part(workspace_id, ':', 1) IN
      (SELECT workspace_id FROM members WHERE user_id = $5)))
     AND workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3 ORDER BY workspace_id LIMIT $4"
);

/// A page of the live locks that match `listing`.
pub(super) fn list(read: &Queries<'_>, listing: &LockQuery) -> Result<FoundLocks, Error> {
    let mut after = listing.after.clone();
    let mut locks: Vec<Lock> = Vec::new();
    let at_once = (listing.limit + 1).min(MAX_ROWS);
    for _ in 0..MAX_ROWS / at_once {
        let rows = rows(read, listing, &after, at_once)?;
        let is_last = rows.len() < at_once;
        for lock in read.locks(&rows, None)? {
            lock.workspace_id.as_str().clone_into(&mut after);
            if is_shown(read, listing, &lock)? {
                if locks.len() == listing.limit {
                    let next = locks.last().map(|lock| lock.workspace_id.as_str().to_owned());
                    return Ok(FoundLocks { locks, next });
                }
                locks.push(lock);
            }
        }
        if is_last {
            return Ok(FoundLocks { locks, next: None });
        }
    }
    Ok(FoundLocks { locks, next: Some(after) })
}

fn rows(read: &Queries<'_>, listing: &LockQuery, after: &str, limit: usize) -> Result<Vec<Row>, Error> {
    let LockQuery { user_id, fence, prefix, member, .. } = listing;
    let until = successor(prefix).unwrap_or_else(|| AFTER_ALL.to_string().repeat(64));
    let mut parameters: Vec<Parameter> = parameters![after.to_owned(), prefix.clone(), until, at_most(limit)];
    let (sql, key) = match (fence, user_id, member) {
        (Some(fence), ..) => (OF_FENCE, Some(parameter(fence.0))),
        (None, Some(user_id), _) => (OF_USER, Some(parameter(user_id.as_str().to_owned()))),
        (None, None, Some(member)) => (FOR_MEMBER, Some(parameter(member.as_str().to_owned()))),
        (None, None, None) => (ALL, None),
    };
    parameters.extend(key);
    Ok(read.session.query(sql, parameters)?)
}

fn is_shown(read: &Queries<'_>, listing: &LockQuery, lock: &Lock) -> Result<bool, Error> {
    if !lock.is_live(read.now) {
        return Ok(false);
    }
    let LockQuery { fence: None, user_id, member, .. } = listing else { return Ok(true) };
    if !listing.has_kind(lock.kind) {
        return Ok(false);
    }
    match (user_id, member) {
        (Some(_), Some(member)) => Ok(read.role(&lock.workspace_id.with_roles(), member)?.is_some()),
        _ => Ok(true),
    }
}
