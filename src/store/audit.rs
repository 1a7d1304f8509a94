//! The history over all workspaces, as one caller may see it.

use std::collections::HashMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::events::{self, read_event};
use super::workspaces;
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::{Event, EventType};
use crate::domain::member::{Actor, Need};
use crate::domain::{UserId, WorkspaceId};
use crate::error::Error;
use crate::time::WallTime;

/// Most rows that one page looks at, whatever it finds: a filter that matches nothing must not read the whole history.
const ROWS: usize = 10_000;

/// Which events are wanted. Every condition that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose lease it was.
    pub user_id: Option<UserId>,
    /// Who did it.
    pub by_user_id: Option<UserId>,
    /// What happened: one of these; anything when it is empty.
    pub types: Vec<EventType>,
    /// Not before this instant.
    pub from: Option<WallTime>,
    /// Before this instant.
    pub until: Option<WallTime>,
}

/// A page of events, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Those that were found. There may be none though more follow.
    pub events: Vec<Event>,
    /// The revision before which the next page begins; none when this is the last page.
    pub next: Option<i64>,
}

/// The events before revision `before` that `filter` lets through and `actor` may see now, newest first, at most `limit`.
///
/// # Errors
/// [`Error::Internal`] when SQLite cannot read, or a row is not what this program writes.
pub fn page(
    connection: &Connection,
    actor: &Actor,
    filter: &Filter,
    before: i64,
    limit: usize,
    rules: &Rules,
) -> Result<Page, Error> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        events::columns!(),
        " FROM events WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2"
    ))?;
    // One row more than is looked at tells whether there are more.
    let most = i64::try_from(ROWS.saturating_add(1)).unwrap_or(i64::MAX);
    let mut rows = statement.query([before, most])?;
    let mut seen = Visible { connection, actor, rules, known: HashMap::new() };
    let mut events: Vec<Event> = Vec::new();
    let (mut looked_at, mut last) = (0, before);
    while let Some(row) = rows.next()? {
        if looked_at == ROWS {
            return Ok(Page { events, next: Some(last) });
        }
        looked_at += 1;
        if filter.matches(row)? && seen.shows(row)? {
            if events.len() == limit {
                return Ok(Page { events, next: Some(last) });
            }
            events.push(read_event(row)??);
        }
        last = row.get(0)?;
    }
    Ok(Page { events, next: None })
}

impl Filter {
    /// Whether a row of `columns` is one of those that are wanted.
    fn matches(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let is = |column, wanted: Option<&UserId>| {
            let Some(wanted) = wanted else { return Ok(true) };
            Ok::<_, rusqlite::Error>(row.get_ref(column)? == ValueRef::Text(wanted.as_str().as_bytes()))
        };
        let event_type = row.get_ref(2)?;
        let is_of_type = |known: &EventType| event_type == ValueRef::Text(known.as_str().as_bytes());
        let at = WallTime(row.get(3)?);
        Ok((self.types.is_empty() || self.types.iter().any(is_of_type))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
            && is(4, self.user_id.as_ref())?
            && is(8, self.by_user_id.as_ref())?)
    }
}

/// Which events a caller may see, looked up once for each workspace of a page.
struct Visible<'a> {
    connection: &'a Connection,
    actor: &'a Actor,
    rules: &'a Rules,
    /// After which revision they see those of a workspace, if they may see it.
    known: HashMap<String, Option<i64>>,
}

impl Visible<'_> {
    /// Whether the caller may see the event of this row: that of a workspace that is gone is for administrators.
    fn shows(&mut self, row: &Row<'_>) -> Result<bool, Error> {
        if self.actor.standing == Privilege::Administrator {
            return Ok(true);
        }
        let workspace_id: String = row.get(1)?;
        let after = if let Some(known) = self.known.get(&workspace_id) {
            *known
        } else {
            let after = self.look_up(&WorkspaceId::trusted(workspace_id.clone()))?;
            self.known.insert(workspace_id, after);
            after
        };
        let revision: i64 = row.get(0)?;
        Ok(after.is_some_and(|after| revision > after))
    }

    fn look_up(&self, workspace_id: &WorkspaceId) -> Result<Option<i64>, Error> {
        let sees = workspaces::may(self.connection, self.actor, workspace_id, Need::See, self.rules)?;
        sees.ok().map(|_| events::last_deletion(self.connection, workspace_id)).transpose()
    }
}
