//! What happened: the history of a workspace, and of all of them as one caller may see it.

use std::collections::HashMap;
use std::sync::Arc;

use super::current::load_current;
use super::locks::Found;
use super::{STEP, Service, members};
use crate::domain::access::{Privilege, Rules};
use crate::domain::event::{Event, EventType};
use crate::domain::member::{Actor, Need};
use crate::domain::{UserId, WorkspaceId};
use crate::error::Error;
use crate::store::{Rows, Visit};
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
        if looked_at == ROWS {
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

/// After which revision `actor` sees the events of a workspace, if they may see it: what happened on a workspace that was
/// deleted since is for administrators.
fn visible_after(
    rows: &dyn Rows,
    actor: &Actor,
    workspace_id: &WorkspaceId,
    rules: &Rules,
) -> Result<Option<i64>, Error> {
    if actor.standing == Privilege::Administrator {
        return Ok(Some(0));
    }
    let sees = members::may(rows, actor, workspace_id, Need::See, rules)?;
    sees.ok().map(|_| rows.last_deletion(workspace_id)).transpose()
}

impl Service {
    /// The history of all workspaces that `actor` may see now: the events before revision `before` that `filter` lets
    /// through, newest first. May wait for the writer: expiries that are due are written down first, up to [`STEP`].
    ///
    /// # Errors
    /// What the store cannot read.
    pub fn whole_history(
        &self,
        actor: &Actor,
        filter: &Filter,
        before: i64,
        limit: usize,
    ) -> Result<Page, Error> {
        if self.store.read(|rows| Ok(rows.next_check()?.is_some_and(|due| due <= rows.now())))?.value {
            // Reads go on even if nothing can be written.
            let _ = self.sweep_step(STEP);
        }
        self.store.read(|rows| page(rows, actor, filter, before, limit, &self.rules)).map(|page| page.value)
    }

    /// The history of a workspace before revision `before`, newest first. An expiry that is not written down yet
    /// is written down first, so that it is not missing. Of a workspace that was deleted since, only administrators see it.
    ///
    /// # Errors
    /// What the store cannot read. Reads go on even if nothing can be written.
    pub fn history(
        &self,
        actor: &Actor,
        workspace_id: &WorkspaceId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        if let Found::Due(_) = self.peek(workspace_id)?.value {
            let (rules, of) = (Arc::clone(&self.rules), workspace_id.clone());
            let current = self.store.write(move |set| load_current(set, &of, &rules));
            current.map_or_else(|error| log::debug!("an expiry is not in the history yet: {error}"), drop);
        }
        let read = |rows: &dyn Rows| {
            let is_admin = actor.standing == Privilege::Administrator;
            let after = if is_admin { 0 } else { rows.last_deletion(workspace_id)? };
            rows.history(workspace_id, after, before, limit)
        };
        self.store.read(read).map(|events| events.value)
    }
}
