//! Lists locks, by workspace id. A page reads a bounded number of rows, whether or not they are shown.

use std::collections::HashSet;

use super::queries::{Queries, at_most};
use super::row::{self, get};
use super::session::{Parameter, parameter, parameters};
use crate::domain::Lock;
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery, successor};

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
const OF_IDS: &str = concat!(
    "SELECT ",
    row::locks!(),
    " FROM locks WHERE workspace_id = ANY($1::text[]) ORDER BY workspace_id"
);
/// The workspaces of a member, not all of which are locked; and the locked files, on which the roles of their
/// repositories hold.
const IDS_FOR_MEMBER: &str = "(SELECT workspace_id FROM members
     WHERE user_id = $5 AND workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3
     AND NOT (workspace_id >= 'lfs/' AND workspace_id < 'lfs0') ORDER BY workspace_id LIMIT $4)
     UNION ALL (SELECT workspace_id FROM locks
     WHERE workspace_id > $1 AND workspace_id >= $2 AND workspace_id < $3
     AND workspace_id >= 'lfs/' AND workspace_id < 'lfs0' ORDER BY workspace_id LIMIT $4)
     ORDER BY workspace_id LIMIT $4";

/// Rows that were read at once.
struct FoundRows {
    locks: Vec<Lock>,
    /// The number of rows, and the workspace of the last one.
    count: usize,
    last: Option<String>,
}

/// A page of the live locks that match `listing`.
pub(super) fn list(read: &Queries<'_>, listing: &LockQuery) -> Result<FoundLocks, Error> {
    let mut after = listing.after.clone();
    let mut locks: Vec<Lock> = Vec::new();
    // Most rows are shown. Where they are not, more are read at once, so that a page takes few round trips.
    let (mut count, mut at_once) = (0, listing.limit + 1);
    while count < MAX_ROWS {
        at_once = at_once.min(MAX_ROWS - count);
        let mut batch = batch(read, listing, &after, at_once)?;
        retain_shown(read, listing, &mut batch.locks)?;
        for lock in batch.locks {
            if locks.len() == listing.limit {
                let next = locks.last().map(|lock| lock.workspace_id.as_str().to_owned());
                return Ok(FoundLocks { locks, next });
            }
            locks.push(lock);
        }
        if batch.count < at_once {
            return Ok(FoundLocks { locks, next: None });
        }
        after = batch.last.unwrap_or(after);
        count += batch.count;
        at_once *= 4;
    }
    Ok(FoundLocks { locks, next: Some(after) })
}

fn batch(read: &Queries<'_>, listing: &LockQuery, after: &str, limit: usize) -> Result<FoundRows, Error> {
    let LockQuery { user_id, fence, prefix, member, .. } = listing;
    let until = successor(prefix).unwrap_or_else(|| AFTER_ALL.to_string().repeat(64));
    let mut parameters: Vec<Parameter> = parameters![after.to_owned(), prefix.clone(), until, at_most(limit)];
    let (sql, key) = match (fence, user_id, member) {
        (Some(fence), ..) => (OF_FENCE, Some(parameter(fence.0))),
        (None, Some(user_id), _) => (OF_USER, Some(parameter(user_id.as_str().to_owned()))),
        (None, None, Some(member)) => (IDS_FOR_MEMBER, Some(parameter(member.as_str().to_owned()))),
        (None, None, None) => (ALL, None),
    };
    parameters.extend(key);
    let mut rows = read.session.query(sql, parameters)?;
    let count = rows.len();
    let last = rows.last().map(|row| get(row, 0)).transpose()?;
    if sql == IDS_FOR_MEMBER {
        let ids = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>, _>>()?;
        rows = read.session.query(OF_IDS, parameters![ids])?;
    }
    Ok(FoundRows { locks: read.locks(&rows, None)?, count, last })
}

/// Removes the locks that are not shown: they have ended, or `listing` does not ask for them.
fn retain_shown(read: &Queries<'_>, listing: &LockQuery, locks: &mut Vec<Lock>) -> Result<(), Error> {
    locks.retain(|lock| lock.is_live(read.now));
    let LockQuery { fence: None, member, .. } = listing else { return Ok(()) };
    locks.retain(|lock| listing.has_kind(lock.kind));
    let (Some(member), false) = (member, locks.is_empty()) else { return Ok(()) };
    let ids: Vec<_> = locks.iter().map(|lock| lock.workspace_id.with_roles().as_str().to_owned()).collect();
    let of_member = read.session.query(
        "SELECT workspace_id FROM members WHERE user_id = $1 AND workspace_id = ANY($2::text[])",
        parameters![member.as_str().to_owned(), ids],
    )?;
    let seen = of_member.iter().map(|row| get(row, 0)).collect::<Result<HashSet<String>, _>>()?;
    locks.retain(|lock| seen.contains(lock.workspace_id.with_roles().as_str()));
    Ok(())
}
