//! The row functions that read.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::tables::{Tables, at_most};
use super::{listing, row};
use crate::domain::event::{Event, Lost};
use crate::domain::grace::Run;
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Token};
use crate::domain::{Fence, LastLease, Lock, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::rows::{RevisionRange, Rows, Visit};
use crate::time::{Timestamp, WallTime};

impl Rows for Tables<'_> {
    fn now(&self) -> Timestamp {
        Tables::now(self)
    }

    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!("SELECT ", row::locks!(), " FROM locks WHERE workspace_id = ?1"))?
            .query_row([workspace_id.as_str()], |found| row::lock(self, found))
            .optional()?)
    }

    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::locks!(),
                " FROM locks WHERE workspace_id > ?1 ORDER BY workspace_id LIMIT ?2"
            ))?
            .query_map(params![after, limit], |found| row::lock(self, found))?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error> {
        listing::list(self, listing)
    }

    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::locks!(),
                " FROM locks WHERE check_at <= ?1 ORDER BY check_at LIMIT ?2"
            ))?
            .query_map(params![self.now().0, limit], |found| row::lock(self, found))?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn next_check(&self) -> Result<Option<Timestamp>, Error> {
        let next: Option<i64> = self
            .connection()
            .prepare_cached("SELECT min(check_at) FROM locks")?
            .query_row([], |found| found.get(0))?;
        Ok(next.map(Timestamp))
    }

    fn live_locks_of(&self, user_id: &UserId, limit: u32) -> Result<u32, Error> {
        // This count uses the index alone. It includes locks that have ended but are not deleted yet.
        let there: u32 = self
            .connection()
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = ?1 LIMIT ?2)")?
            .query_row(params![user_id.as_str(), limit], |found| found.get(0))?;
        if there < limit {
            return Ok(there);
        }
        let mut statement =
            self.connection().prepare_cached("SELECT run, expires_at FROM locks WHERE user_id = ?1")?;
        let mut rows = statement.query([user_id.as_str()])?;
        let mut live = 0;
        while live < limit
            && let Some(found) = rows.next()?
        {
            let end = self.grace().apply(Run(found.get(0)?), Timestamp(found.get(1)?));
            self.found_due(end);
            live += u32::from(Tables::now(self) < end);
        }
        Ok(live)
    }

    fn workspaces_concerning(
        &self,
        user_id: &UserId,
        after: &str,
        limit: usize,
    ) -> Result<BTreeSet<WorkspaceId>, Error> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT workspace_id FROM locks WHERE user_id = ?1 AND workspace_id > ?2
                 UNION
                 SELECT workspace_id FROM knocks WHERE user_id = ?1 AND workspace_id > ?2 AND place = 1
                 ORDER BY workspace_id LIMIT ?3",
            )?
            .query_map(params![user_id.as_str(), after, at_most(limit)], |found| {
                found.get(0).map(WorkspaceId::trusted)
            })?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn lock_count(&self) -> Result<i64, Error> {
        Ok(self
            .connection()
            .prepare_cached("SELECT lock_count FROM meta WHERE id = 1")?
            .query_row([], |found| found.get(0))?)
    }

    fn counted_locks(&self) -> Result<(i64, bool), Error> {
        // One statement, so that both values come from one snapshot.
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT count(*), count(*) = (SELECT lock_count FROM meta WHERE id = 1) FROM locks",
            )?
            .query_row([], |found| Ok((found.get(0)?, found.get(1)?)))?)
    }

    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error> {
        let newest = self
            .connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::events!(),
                ", lease_at FROM events WHERE workspace_id = ?1 AND fence IS NOT NULL
                 ORDER BY revision DESC LIMIT 1"
            ))?
            .query_row([workspace_id.as_str()], |found| Ok((row::event(found)?, Timestamp(found.get(13)?))))
            .optional()?;
        let Some((event, ended_at)) = newest else { return Ok(None) };
        Ok(LastLease::of(event?, ended_at))
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        let event = self.connection()
            .prepare_cached(concat!("SELECT ", row::events!(), " FROM events
                 WHERE workspace_id = ?1 AND user_id = ?2
                 AND type NOT IN ('lock.acquired', 'lock.knocked', 'lock.knock_declined') AND fence IS NOT NULL AND fence IS NOT ?3
                 ORDER BY revision DESC LIMIT 1"))?
            .query_row(
                params![workspace_id.as_str(), user_id.as_str(), live.map(|fence| fence.0)],
                row::event,
            )
            .optional()?
            .transpose()?;
        Ok(event.and_then(Lost::of))
    }

    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error> {
        Ok(self.connection()
            .prepare_cached(
                "SELECT coalesce(max(revision), 0) FROM events WHERE workspace_id = ?1 AND type = 'workspace.deleted'",
            )?
            .query_row([workspace_id.as_str()], |found| found.get(0))?)
    }

    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        self.connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::events!(),
                " FROM events WHERE workspace_id = ?1 AND revision > ?2 AND revision < ?3 ORDER BY revision DESC LIMIT ?4"
            ))?
            .query_map(params![workspace_id.as_str(), after, before, limit], row::event)?
            .map(|event| event?)
            .collect()
    }

    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        self.connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::events!(),
                " FROM events WHERE revision > ?1 ORDER BY revision LIMIT ?2"
            ))?
            .query_map(params![after, limit], row::event)?
            .map(|event| event?)
            .collect()
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        let mut statement = self.connection().prepare_cached(concat!(
            "SELECT ",
            row::events!(),
            " FROM events WHERE revision < ?1 ORDER BY revision DESC"
        ))?;
        let mut rows = statement.query([before])?;
        while let Some(found) = rows.next()? {
            if visit(row::event(found)??)? == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        Ok(self.connection()
            .prepare_cached(
                "SELECT coalesce((SELECT min(revision) FROM events), last_revision + 1), last_revision FROM meta",
            )?
            .query_row([], |found| Ok(RevisionRange { first: found.get(0)?, last: found.get(1)? }))?)
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        let role: Option<String> = self
            .connection()
            .prepare_cached("SELECT role FROM members WHERE workspace_id = ?1 AND user_id = ?2")?
            .query_row([workspace_id.as_str(), user_id.as_str()], |found| found.get(0))
            .optional()?;
        Ok(role.as_deref().and_then(Role::parse))
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        Ok(self
            .connection()
            .prepare_cached("SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id = ?1")?
            .query_row([workspace_id.as_str()], row::workspace)
            .optional()?)
    }

    fn workspaces(
        &self,
        member: Option<&UserId>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Workspace>, Error> {
        let limit = at_most(limit);
        let found = if let Some(member) = member {
            // CROSS JOIN makes SQLite begin with the member's workspaces, which are in order in their index.
            self.connection()
                .prepare_cached(
                    "SELECT members.workspace_id, name, created_at FROM members
                     CROSS JOIN workspaces ON workspaces.workspace_id = members.workspace_id
                     WHERE user_id = ?3 AND members.workspace_id > ?1 ORDER BY members.workspace_id LIMIT ?2",
                )?
                .query_map(params![after, limit, member.as_str()], row::workspace)?
                .collect::<rusqlite::Result<_>>()?
        } else {
            self.connection()
                .prepare_cached(
                    "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id > ?1
                     ORDER BY workspace_id LIMIT ?2",
                )?
                .query_map(params![after, limit], row::workspace)?
                .collect::<rusqlite::Result<_>>()?
        };
        Ok(found)
    }

    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error> {
        Ok(self.connection()
            .prepare_cached(
                "SELECT user_id, role FROM members WHERE workspace_id = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3",
            )?
            .query_map(params![workspace_id.as_str(), after, at_most(limit)], |found| {
                let role: String = found.get(1)?;
                let role = Role::parse(&role).unwrap_or(Role::Viewer);
                Ok(Member { user_id: UserId::trusted(found.get(0)?), role })
            })?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!("SELECT ", row::tokens!(), ", hash FROM tokens WHERE hash = ?1"))?
            .query_row([hash], |found| Ok((row::token(found)?, found.get(7)?)))
            .optional()?)
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        Ok(self
            .connection()
            .prepare_cached(concat!(
                "SELECT ",
                row::tokens!(),
                " FROM tokens WHERE token_id > ?1 ORDER BY token_id LIMIT ?2"
            ))?
            .query_map(params![after, at_most(limit)], row::token)?
            .collect::<rusqlite::Result<_>>()?)
    }

    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error> {
        Ok(self
            .connection()
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM tokens WHERE expires_at < ?1)")?
            .query_row([before.0], |found| found.get(0))?)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::event::EventType;

    #[test]
    fn sql_event_types_match_the_domain() {
        let others = EventType::ALL.into_iter().filter(|of| !matches!(of, EventType::Ended(_)));
        let names: Vec<_> = others.map(|of| format!("'{}'", of.as_str())).collect();
        let condition = format!("type NOT IN ({})", names.join(", "));
        assert!(include_str!("rows.rs").contains(&condition), "{condition}");
        assert!(include_str!("../../../schema.sql").contains(&condition), "{condition}");
    }
}
