//! History of one workspace, and of all workspaces that a caller may see.

use std::collections::HashMap;
use std::sync::Arc;

use super::current::load_current;
use super::locks::StoredLock;
use super::{STEP, Service, members};
use crate::domain::access::Rules;
use crate::domain::event::{Event, EventType};
use crate::domain::rights::{Actor, Need};
use crate::domain::{UserId, WorkspaceId};
use crate::error::Error;
use crate::store::{Rows, Visit};
use crate::time::WallTime;

/// Maximum number of rows that one page reads: a filter without matches must not read the whole history.
const MAX_ROWS_PER_PAGE: usize = 10_000;

/// Filter for events. All given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Id of the holder.
    pub user_id: Option<UserId>,
    /// Id of the author.
    pub by_user_id: Option<UserId>,
    /// Allowed event types; empty means all.
    pub types: Vec<EventType>,
    /// Earliest time, inclusive.
    pub from: Option<WallTime>,
    /// Latest time, exclusive.
    pub until: Option<WallTime>,
}

/// A page of events, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Matching events. May be empty even if more pages follow.
    pub events: Vec<Event>,
    /// The next page begins before this revision; `None` on the last page.
    pub next: Option<i64>,
}

/// Returns events before revision `before` that match `filter` and that `actor` may see now, newest first, at
/// most `limit`.
fn page(
    rows: &dyn Rows,
    actor: &Actor,
    filter: &Filter,
    before: i64,
    limit: usize,
    rules: &Rules,
) -> Result<Page, Error> {
    let mut page = Page { events: Vec::new(), next: None };
    let mut visible: HashMap<WorkspaceId, Option<i64>> = HashMap::new();
    let (mut looked_at, mut last) = (0, before);
    rows.visit_events_before(before, &mut |event| {
        if looked_at == MAX_ROWS_PER_PAGE {
            page.next = Some(last);
            return Ok(Visit::Stop);
        }
        looked_at += 1;
        let revision = event.revision;
        if filter.matches(&event) {
            let after = match visible.get(&event.workspace_id) {
                Some(known) => *known,
                None => visible_after(rows, actor, &event.workspace_id, rules)?,
            };
            visible.insert(event.workspace_id.clone(), after);
            let is_visible = after.is_some_and(|after| revision > after);
            if is_visible && page.events.len() == limit {
                page.next = Some(last);
                return Ok(Visit::Stop);
            }
            page.events.extend(Some(event).filter(|_| is_visible));
        }
        last = revision;
        Ok(Visit::Next)
    })?;
    Ok(page)
}

impl Filter {
    fn matches(&self, event: &Event) -> bool {
        let is = |found: &Option<UserId>, wanted: &Option<UserId>| wanted.is_none() || found == wanted;
        (self.types.is_empty() || self.types.contains(&event.event_type))
            && self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at < until)
            && is(&event.user_id, &self.user_id)
            && is(&event.by_user_id, &self.by_user_id)
    }
}

/// Revision after which `actor` sees the events of a workspace; `None` if the actor may not see it. Only
/// administrators see events from before a deletion of the workspace.
fn visible_after(
    rows: &dyn Rows,
    actor: &Actor,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<i64>, Error> {
    if actor.scope.sees_deleted() {
        return Ok(Some(0));
    }
    let sees = members::may(rows, actor, workspace_id, Need::See, rules)?;
    sees.ok().map(|_| rows.last_deletion(workspace_id)).transpose()
}

impl Service {
    /// Returns the history of all workspaces that `actor` may see now: events before revision `before` that
    /// match `filter`, newest first. May wait for the writer, because up to [`STEP`] due expiries are stored
    /// first.
    ///
    /// # Errors
    /// An error of the store when it cannot read.
    pub fn whole_history(
        &self,
        actor: &Actor,
        filter: &Filter,
        before: i64,
        limit: usize,
    ) -> Result<Page, Error> {
        if self.store.read(|rows| Ok(rows.next_check()?.is_some_and(|due| due <= rows.now())))?.value {
            // The read continues even if the store cannot write.
            let _ = self.sweep_step(STEP);
        }
        self.store.read(|rows| page(rows, actor, filter, before, limit, &self.rules)).map(|page| page.value)
    }

    /// Returns the history of a workspace before revision `before`, newest first. A due expiry is stored
    /// first, so that it is included. Only administrators see events from before a deletion of the workspace.
    ///
    /// # Errors
    /// An error of the store when it cannot read. If it cannot write, the read continues.
    pub fn history(
        &self,
        actor: &Actor,
        workspace_id: &WorkspaceId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        if let StoredLock::Due(_) = self.stored_lock(workspace_id)?.value {
            let (rules, of) = (Arc::clone(&self.rules), workspace_id.clone());
            let current = self.store.write(move |set| load_current(set, &of, &rules));
            current.map_or_else(|error| log::debug!("an expiry is not in the history yet: {error}"), drop);
        }
        let read = |rows: &dyn Rows| {
            let after = if actor.scope.sees_deleted() { 0 } else { rows.last_deletion(workspace_id)? };
            rows.history(workspace_id, after, before, limit)
        };
        self.store.read(read).map(|events| events.value)
    }
}
