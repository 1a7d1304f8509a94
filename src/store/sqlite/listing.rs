//! Lists locks, by workspace id.
//!
//! The cost of a page depends on its length, not on the number of rows. Each query begins and ends in an
//! index at the requested range, and a page ends after a bounded number of rows, whether or not they are
//! shown.

use rusqlite::params;
use rusqlite::types::Value;

use super::row;
use super::tables::Tables;
use crate::domain::{Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery, successor};
use crate::store::rows::Rows as _;

/// Maximum number of rows that are read for one page. Locks that have ended, and locks on workspaces that the
/// caller may not see, are not shown.
const MAX_ROWS: usize = 2_000;

/// The workspaces of a member.
const OF_MEMBER: &str = "SELECT workspace_id FROM members WHERE user_id = ?1 AND workspace_id >= ?2 AND workspace_id < ?3 ORDER BY workspace_id";

/// A page of the live locks that match `listing`.
pub(super) fn list(read: &Tables<'_>, listing: &LockQuery) -> Result<FoundLocks, Error> {
    let range = Range::of(&listing.prefix, &listing.after);
    let Range { from, until } = &range;
    let connection = read.connection();
    if let Some(fence) = listing.fence {
        // The bounds in the text let SQLite use the index `locks_by_fence`.
        let mut statement = connection.prepare_cached(row::locks!(
            "WHERE fence = ?1 AND workspace_id >= ?2 AND workspace_id < ?3 AND workspace_id >= 'lfs/' AND workspace_id < 'lfs0'"
        ))?;
        let mut rows = statement.query(params![fence, from, until])?;
        return page(listing.limit, || next_lock(read, &mut rows), |_| Ok(true));
    }
    match (&listing.user_id, &listing.member) {
        // A user has few locks, compared with the number of workspaces.
        (Some(user_id), member) => {
            let mut statement = connection.prepare_cached(row::locks!(
                "WHERE user_id = ?1 AND workspace_id >= ?2 AND workspace_id < ?3 ORDER BY workspace_id"
            ))?;
            let mut rows = statement.query(params![user_id, from, until])?;
            page(
                listing.limit,
                || next_lock(read, &mut rows),
                |lock| {
                    let Some(member) = member else { return Ok(listing.has_kind(lock.kind)) };
                    Ok(listing.has_kind(lock.kind)
                        && read.role(&lock.workspace_id.with_roles(), member)?.is_some())
                },
            )
        }
        (None, Some(member)) => list_for_member(read, listing, member, &range),
        (None, None) => {
            let mut statement = connection.prepare_cached(row::locks!(
                "WHERE workspace_id >= ?1 AND workspace_id < ?2 ORDER BY workspace_id"
            ))?;
            let mut rows = statement.query(params![from, until])?;
            page(listing.limit, || next_lock(read, &mut rows), |lock| Ok(listing.has_kind(lock.kind)))
        }
    }
}

/// The locks on workspaces of which `member` is a member. Roles on a repository hold for its files, which are not in
/// `members`.
fn list_for_member(
    read: &Tables<'_>,
    listing: &LockQuery,
    member: &UserId,
    range: &Range,
) -> Result<FoundLocks, Error> {
    let connection = read.connection();
    // Three parts, in the order of the ids.
    let mut before = connection.prepare_cached(OF_MEMBER)?;
    let mut files = connection.prepare_cached(row::locks!(
        "WHERE workspace_id >= ?1 AND workspace_id < ?2 ORDER BY workspace_id"
    ))?;
    let mut after = connection.prepare_cached(OF_MEMBER)?;
    let Range { from, until } = range.before("lfs/");
    let mut before = before.query(params![member, from, until])?;
    let Range { from, until } = range.since("lfs/").before("lfs0");
    let mut files = files.query(params![from, until])?;
    let Range { from, until } = range.since("lfs0");
    let mut after = after.query(params![member, from, until])?;
    let next = || {
        if let Some(row) = before.next()? {
            return next_of_member(read, row).map(Some);
        }
        if let Some((workspace_id, lock)) = next_lock(read, &mut files)? {
            let is_seen = read.role(&workspace_id.with_roles(), member)?.is_some();
            return Ok(Some((workspace_id, lock.filter(|_| is_seen))));
        }
        after.next()?.map(|row| next_of_member(read, row)).transpose()
    };
    page(listing.limit, next, |lock| Ok(listing.has_kind(lock.kind)))
}

/// A row that was read: its workspace, and the live lock on it if there is one.
type ListedRow = (WorkspaceId, Option<Lock>);

/// Builds a page from the rows that `next` returns, with the locks for which `is_shown` is true.
fn page(
    limit: usize,
    mut next: impl FnMut() -> Result<Option<ListedRow>, Error>,
    is_shown: impl Fn(&Lock) -> Result<bool, Error>,
) -> Result<FoundLocks, Error> {
    let mut locks: Vec<Lock> = Vec::new();
    for row_count in 1.. {
        let Some((workspace_id, lock)) = next()? else { break };
        if let Some(lock) = lock
            && is_shown(&lock)?
        {
            if locks.len() == limit {
                let next = locks.last().map(|lock| lock.workspace_id.as_str().to_owned());
                return Ok(FoundLocks { locks, next });
            }
            locks.push(lock);
        }
        if row_count == MAX_ROWS {
            return Ok(FoundLocks { locks, next: Some(workspace_id.as_str().to_owned()) });
        }
    }
    Ok(FoundLocks { locks, next: None })
}

fn next_of_member(read: &Tables<'_>, row: &rusqlite::Row<'_>) -> Result<ListedRow, Error> {
    let workspace_id: WorkspaceId = row.get(0)?;
    let lock = read.lock(&workspace_id)?;
    Ok((workspace_id, live(read, lock)))
}

fn next_lock(read: &Tables<'_>, rows: &mut rusqlite::Rows<'_>) -> Result<Option<ListedRow>, Error> {
    let Some(found) = rows.next()? else { return Ok(None) };
    let lock = row::lock(read, found)?;
    Ok(Some((lock.workspace_id.clone(), live(read, Some(lock)))))
}

fn live(read: &Tables<'_>, lock: Option<Lock>) -> Option<Lock> {
    lock.filter(|lock| lock.is_live(read.now()))
}

/// The workspace ids from `from` to before `until`.
///
/// SQLite compares text byte by byte, which is the order of the code points. So ids with the same prefix are
/// adjacent.
struct Range {
    from: String,
    /// A text, or a blob, which every text sorts before (<https://www.sqlite.org/datatype3.html>, section 4.1).
    until: Value,
}

impl Range {
    /// The ids with this prefix after `after`.
    fn of(prefix: &str, after: &str) -> Self {
        // No id is between an id and the same id followed by a NUL.
        let beyond = if after.is_empty() { String::new() } else { format!("{after}\0") };
        let from = beyond.max(prefix.to_owned());
        let until = successor(prefix).map_or_else(|| Value::Blob(Vec::new()), Value::Text);
        Self { from, until }
    }

    /// The part of it before `until`.
    fn before(&self, until: &str) -> Self {
        let earlier = if let Value::Text(text) = &self.until { until.min(text) } else { until };
        Self { from: self.from.clone(), until: Value::Text(earlier.to_owned()) }
    }

    /// The part of it from `from` on.
    fn since(&self, from: &str) -> Self {
        Self { from: self.from.clone().max(from.to_owned()), until: self.until.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_starts_at_the_later_of_prefix_and_cursor() {
        let from = |prefix, after| Range::of(prefix, after).from;
        assert_eq!(from("b", ""), "b");
        assert_eq!(from("b", "a"), "b");
        assert_eq!(from("b", "b"), "b\0");
        assert_eq!(from("", "ab"), "ab\0");
    }
}
