//! The row functions that read, as queries.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::listing;
use super::queries::{LAST_LEASES, LOCKS, Queries, at_most};
use super::row::{self, get};
use super::session::{Parameter, parameters};
use crate::domain::event::{Event, Lost};
use crate::domain::grace::Run;
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Token};
use crate::domain::{Fence, LastLease, Lock, LockKind, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::rows::{RevisionRange, Rows, Visit, WebhookPosition};
use crate::time::{Timestamp, WallTime};

/// The number of events that are read at once when all are visited.
const VISITED_AT_ONCE: i64 = 500;

/// Ids as the one parameter of a statement.
fn ids(workspaces: &HashSet<&WorkspaceId>) -> Vec<Parameter> {
    parameters![workspaces.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()]
}

impl Rows for Queries<'_> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
        let ids = || parameters![vec![workspace_id.as_str().to_owned()]];
        let rows = self.session.query(LOCKS, ids())?;
        Ok(self.locks(&rows, None)?.pop())
    }

    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
        let rows = self.session.query(
            concat!(
                "SELECT ",
                row::locks!(),
                " FROM locks WHERE workspace_id > $1 ORDER BY workspace_id LIMIT $2"
            ),
            parameters![after.to_owned(), i64::from(limit)],
        )?;
        self.locks(&rows, None)
    }

    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error> {
        listing::list(self, listing)
    }

    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error> {
        let rows = self.session.query(
            concat!("SELECT ", row::locks!(), " FROM locks WHERE check_at <= $1 ORDER BY check_at LIMIT $2"),
            parameters![self.now.0, i64::from(limit)],
        )?;
        self.locks(&rows, None)
    }

    fn next_check(&self) -> Result<Option<Timestamp>, Error> {
        let next: Option<i64> = self.number("SELECT min(check_at) FROM locks", Vec::new())?;
        Ok(next.map(Timestamp))
    }

    fn live_locks_of(&self, user_id: &UserId, kind: LockKind, limit: u32) -> Result<u32, Error> {
        let rows = self.session.query(
            "SELECT run, expires_at FROM locks WHERE user_id = $1 AND kind = $2",
            parameters![user_id.as_str().to_owned(), kind.as_str()],
        )?;
        let mut live = 0;
        for row in &rows {
            let end = self.grace.apply(Run(get(row, 0)?), Timestamp(get(row, 1)?));
            self.found_due(end);
            live += u32::from(self.now < end);
        }
        Ok(live.min(limit))
    }

    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error> {
        let rows = self.session.query(
            "SELECT workspace_id FROM locks WHERE user_id = $1 AND workspace_id > $2
             UNION SELECT workspace_id FROM knocks WHERE user_id = $1 AND workspace_id > $2 AND place = 1
             UNION SELECT workspace_id FROM waiters WHERE user_id = $1 AND workspace_id > $2 AND outcome IS NULL
             ORDER BY workspace_id LIMIT $3",
            parameters![user_id.as_str().to_owned(), after.to_owned(), at_most(limit)],
        )?;
        rows.iter().map(|row| get(row, 0).map(WorkspaceId::trusted)).collect()
    }

    fn lock_count(&self) -> Result<i64, Error> {
        self.number("SELECT count(*) FROM locks", Vec::new())
    }

    fn counted_locks(&self) -> Result<(i64, bool), Error> {
        // PostgreSQL counts the rows themselves: there is no counter that could be wrong.
        Ok((self.lock_count()?, true))
    }

    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error> {
        let rows = self.session.query(LAST_LEASES, parameters![vec![workspace_id.as_str().to_owned()]])?;
        Ok(Self::first(&rows, row::last_lease)?.and_then(|(_, lease)| lease))
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        is_agent: bool,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        let rows = self.session.query(
            concat!(
                "SELECT ",
                row::events!(),
                " FROM events WHERE workspace_id = $1 AND user_id = $2
                 AND type NOT IN ('lock.acquired', 'lock.knocked', 'lock.knock_declined')
                 AND fence IS NOT NULL AND fence IS DISTINCT FROM $3 AND (kind = 'agent' OR NOT $4) ORDER BY revision DESC LIMIT 1"
            ),
            parameters![
                workspace_id.as_str().to_owned(),
                user_id.as_str().to_owned(),
                live.map(|fence| fence.0),
                is_agent,
            ],
        )?;
        Ok(Self::first(&rows, row::event)?.and_then(Lost::of))
    }

    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let rows = self.session.query(
            concat!(
                "SELECT ",
                row::events!(),
                " FROM events WHERE workspace_id = $1 AND revision > $2 AND revision < $3
                 ORDER BY revision DESC LIMIT $4"
            ),
            parameters![workspace_id.as_str().to_owned(), after, before, i64::from(limit)],
        )?;
        rows.iter().map(row::event).collect()
    }

    fn locks_of(&self, workspaces: &HashSet<&WorkspaceId>) -> Result<HashMap<WorkspaceId, Lock>, Error> {
        let found = self.locks(&self.session.query(LOCKS, ids(workspaces))?, None)?;
        Ok(found.into_iter().map(|lock| (lock.workspace_id.clone(), lock)).collect())
    }

    fn last_deletions(&self, workspaces: &HashSet<&WorkspaceId>) -> Result<HashMap<WorkspaceId, i64>, Error> {
        let rows = self.session.query(
            "SELECT workspace_id, max(revision) FROM events WHERE workspace_id = ANY($1::text[])
             AND type = 'workspace.deleted' GROUP BY workspace_id",
            ids(workspaces),
        )?;
        rows.iter().map(|row| Ok((WorkspaceId::trusted(get(row, 0)?), get(row, 1)?))).collect()
    }

    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error> {
        self.number(
            "SELECT coalesce(max(revision), 0) FROM events WHERE workspace_id = $1 AND type = 'workspace.deleted'",
            parameters![workspace_id.as_str().to_owned()],
        )
    }

    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        let rows = self.session.query(
            concat!("SELECT ", row::events!(), " FROM events WHERE revision > $1 ORDER BY revision LIMIT $2"),
            parameters![after, i64::from(limit)],
        )?;
        rows.iter().map(row::event).collect()
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        let mut before = before;
        loop {
            let rows = self.session.query(
                concat!(
                    "SELECT ",
                    row::events!(),
                    " FROM events WHERE revision < $1 ORDER BY revision DESC LIMIT $2"
                ),
                parameters![before, VISITED_AT_ONCE],
            )?;
            for row in &rows {
                let event = row::event(row)?;
                before = event.revision;
                if visit(event)? == Visit::Stop {
                    return Ok(());
                }
            }
            if at_most(rows.len()) < VISITED_AT_ONCE {
                return Ok(());
            }
        }
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        let rows = self.session.query(
            "SELECT greatest(first_revision, coalesce((SELECT min(revision) FROM events), last_revision + 1)), last_revision FROM meta",
            Vec::new(),
        )?;
        let found = Self::first(&rows, |row| Ok(RevisionRange { first: get(row, 0)?, last: get(row, 1)? }))?;
        found.ok_or_else(|| Error::Internal("there is no row of meta".to_owned()))
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        let rows = self.session.query(
            "SELECT role FROM members WHERE workspace_id = $1 AND user_id = $2",
            parameters![workspace_id.as_str().to_owned(), user_id.as_str().to_owned()],
        )?;
        Ok(Self::first(&rows, |row| get::<String>(row, 0))?.as_deref().and_then(Role::parse))
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        let rows = self.session.query(
            "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id = $1",
            parameters![workspace_id.as_str().to_owned()],
        )?;
        Self::first(&rows, row::workspace)
    }

    fn workspaces(
        &self,
        member: Option<&UserId>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Workspace>, Error> {
        let rows = if let Some(member) = member {
            self.session.query(
                "SELECT workspace_id, name, created_at FROM members JOIN workspaces USING (workspace_id)
                 WHERE user_id = $3 AND workspace_id > $1 ORDER BY workspace_id LIMIT $2",
                parameters![after.to_owned(), at_most(limit), member.as_str().to_owned()],
            )?
        } else {
            self.session.query(
                "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id > $1 ORDER BY workspace_id LIMIT $2",
                parameters![after.to_owned(), at_most(limit)],
            )?
        };
        rows.iter().map(row::workspace).collect()
    }

    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error> {
        let rows = self.session.query(
            "SELECT user_id, role FROM members WHERE workspace_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3",
            parameters![workspace_id.as_str().to_owned(), after.to_owned(), at_most(limit)],
        )?;
        rows.iter().map(row::member).collect()
    }

    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
        let rows = self.session.query(
            concat!("SELECT ", row::tokens!(), " FROM tokens WHERE hash = $1"),
            parameters![hash.to_vec()],
        )?;
        Self::first(&rows, row::token)
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        let rows = self.session.query(
            concat!("SELECT ", row::tokens!(), " FROM tokens WHERE token_id > $1 ORDER BY token_id LIMIT $2"),
            parameters![after.to_owned(), at_most(limit)],
        )?;
        rows.iter().map(|row| Ok(row::token(row)?.0)).collect()
    }

    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error> {
        self.number("SELECT EXISTS (SELECT 1 FROM tokens WHERE expires_at < $1)", parameters![before.0])
    }

    fn webhook(&self, name: &str) -> Result<Option<WebhookPosition>, Error> {
        let rows = self.session.query(
            "SELECT name, position, owner, until, removed_at FROM webhooks WHERE name = $1",
            parameters![name.to_owned()],
        )?;
        Self::first(&rows, row::webhook)
    }

    fn webhooks(&self, limit: usize) -> Result<Vec<WebhookPosition>, Error> {
        let rows = self.session.query(
            "SELECT name, position, owner, until, removed_at FROM webhooks ORDER BY name LIMIT $1",
            parameters![at_most(limit)],
        )?;
        rows.iter().map(row::webhook).collect()
    }
}
