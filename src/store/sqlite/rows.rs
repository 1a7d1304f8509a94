//! The row functions that read.

use std::collections::BTreeSet;

use rusqlite::params;

use super::tables::{Tables, at_most};
use super::{listing, row};
use crate::domain::event::{Event, Lost};
use crate::domain::member::{Member, Role, Workspace};
use crate::domain::token::{Hash, Token};
use crate::domain::{Fence, LastLease, Lock, LockKind, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::listing::{FoundLocks, LockQuery};
use crate::store::rows::{RevisionRange, Rows, Visit, WebhookPosition};
use crate::time::{Timestamp, WallTime};

impl Rows for Tables<'_> {
    fn now(&self) -> Timestamp {
        Tables::now(self)
    }

    fn lock(&self, workspace_id: &WorkspaceId) -> Result<Option<Lock>, Error> {
        let sql = row::locks!("WHERE workspace_id = ?1");
        self.first(sql, [workspace_id], |found| row::lock(self, found))
    }

    fn locks_after(&self, after: &str, limit: u32) -> Result<Vec<Lock>, Error> {
        self.all(
            row::locks!("WHERE workspace_id > ?1 ORDER BY workspace_id LIMIT ?2"),
            params![after, limit],
            |found| row::lock(self, found),
        )
    }

    fn list_locks(&self, listing: &LockQuery) -> Result<FoundLocks, Error> {
        listing::list(self, listing)
    }

    fn locks_to_check(&self, limit: u32) -> Result<Vec<Lock>, Error> {
        self.all(
            row::locks!("WHERE check_at <= ?1 ORDER BY check_at LIMIT ?2"),
            params![self.now(), limit],
            |found| row::lock(self, found),
        )
    }

    fn next_check(&self) -> Result<Option<Timestamp>, Error> {
        self.value("SELECT min(check_at) FROM locks", [])
    }

    fn live_locks_of(&self, user_id: &UserId, kind: LockKind, limit: u32) -> Result<u32, Error> {
        // This count uses the index alone. It includes locks that have ended but are not deleted yet.
        let existing: u32 = self.value(
            "SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = ?1 AND kind = ?2 LIMIT ?3)",
            params![user_id, kind, limit],
        )?;
        if existing < limit {
            return Ok(existing);
        }
        let mut statement = self
            .connection()
            .prepare_cached("SELECT run, expires_at FROM locks WHERE user_id = ?1 AND kind = ?2")?;
        let mut rows = statement.query(params![user_id, kind])?;
        let mut live = 0;
        while live < limit
            && let Some(found) = rows.next()?
        {
            let end = self.grace().apply(found.get(0)?, found.get(1)?);
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
        self.all(
            "SELECT workspace_id FROM locks WHERE user_id = ?1 AND workspace_id > ?2
                 UNION
                 SELECT workspace_id FROM knocks WHERE user_id = ?1 AND workspace_id > ?2 AND place = 1
                 ORDER BY workspace_id LIMIT ?3",
            params![user_id, after, at_most(limit)],
            |found| found.get(0),
        )
    }

    fn lock_count(&self) -> Result<i64, Error> {
        self.value("SELECT lock_count FROM meta WHERE id = 1", [])
    }

    fn counted_locks(&self) -> Result<(i64, bool), Error> {
        // One statement, so that both values come from one snapshot.
        let sql = "SELECT count(*), count(*) = (SELECT lock_count FROM meta WHERE id = 1) FROM locks";
        let counted = self.first(sql, [], |found| Ok((found.get(0)?, found.get(1)?)))?;
        Ok(counted.unwrap_or_default())
    }

    fn last_lease(&self, workspace_id: &WorkspaceId) -> Result<Option<LastLease>, Error> {
        let newest = self.first(
            concat!(
                "SELECT ",
                row::events!(),
                ", lease_at, drain_until FROM events WHERE workspace_id = ?1 AND fence IS NOT NULL
                 ORDER BY revision DESC LIMIT 1"
            ),
            [workspace_id],
            |found| Ok((row::event(found)?, found.get(15)?, found.get(16)?)),
        )?;
        Ok(newest.and_then(|(event, ended_at, drain_until)| LastLease::of(event, ended_at, drain_until)))
    }

    fn lost(
        &self,
        workspace_id: &WorkspaceId,
        user_id: &UserId,
        is_agent: bool,
        live: Option<Fence>,
    ) -> Result<Option<Lost>, Error> {
        let event = self.first(
            row::events!("WHERE workspace_id = ?1 AND user_id = ?2
                 AND type <> 'lock.acquired' AND type <> 'lock.knocked' AND type <> 'lock.knock_declined' AND fence IS NOT NULL AND fence IS NOT ?3 AND (kind = 'agent' OR NOT ?4)
                 ORDER BY revision DESC LIMIT 1"),
            params![workspace_id, user_id, live, is_agent],
            row::event,
        )?;
        Ok(event.and_then(Lost::of))
    }

    fn last_deletion(&self, workspace_id: &WorkspaceId) -> Result<i64, Error> {
        self.value(
            "SELECT coalesce(max(revision), 0) FROM events WHERE workspace_id = ?1 AND type = 'workspace.deleted'",
            [workspace_id],
        )
    }

    fn history(
        &self,
        workspace_id: &WorkspaceId,
        after: i64,
        before: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        self.all(
            row::events!(
                "WHERE workspace_id = ?1 AND revision > ?2 AND revision < ?3 ORDER BY revision DESC LIMIT ?4"
            ),
            params![workspace_id, after, before, limit],
            row::event,
        )
    }

    fn events_after(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        self.all(
            row::events!("WHERE revision > ?1 ORDER BY revision LIMIT ?2"),
            params![after, limit],
            row::event,
        )
    }

    fn visit_events_before(
        &self,
        before: i64,
        visit: &mut dyn FnMut(Event) -> Result<Visit, Error>,
    ) -> Result<(), Error> {
        let mut statement =
            self.connection().prepare_cached(row::events!("WHERE revision < ?1 ORDER BY revision DESC"))?;
        let mut rows = statement.query([before])?;
        while let Some(found) = rows.next()? {
            if visit(row::event(found)?)? == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    fn revisions(&self) -> Result<RevisionRange, Error> {
        let found = self.first(
            "SELECT coalesce((SELECT min(revision) FROM events), last_revision + 1), last_revision FROM meta",
            [],
            |found| Ok(RevisionRange { first: found.get(0)?, last: found.get(1)? }),
        )?;
        found.ok_or_else(|| Error::Internal("the table meta has no row".to_owned()))
    }

    fn role(&self, workspace_id: &WorkspaceId, user_id: &UserId) -> Result<Option<Role>, Error> {
        let sql = "SELECT role FROM members WHERE workspace_id = ?1 AND user_id = ?2";
        self.first(sql, params![workspace_id, user_id], |found| found.get(0))
    }

    fn workspace(&self, workspace_id: &WorkspaceId) -> Result<Option<Workspace>, Error> {
        let sql = "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id = ?1";
        self.first(sql, [workspace_id], row::workspace)
    }

    fn workspaces(
        &self,
        member: Option<&UserId>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Workspace>, Error> {
        let limit = at_most(limit);
        if let Some(member) = member {
            // CROSS JOIN makes SQLite begin with the member's workspaces, which are in order in their index.
            return self.all(
                "SELECT members.workspace_id, name, created_at FROM members
                     CROSS JOIN workspaces ON workspaces.workspace_id = members.workspace_id
                     WHERE user_id = ?3 AND members.workspace_id > ?1 ORDER BY members.workspace_id LIMIT ?2",
                params![after, limit, member],
                row::workspace,
            );
        }
        self.all(
            "SELECT workspace_id, name, created_at FROM workspaces WHERE workspace_id > ?1
                     ORDER BY workspace_id LIMIT ?2",
            params![after, limit],
            row::workspace,
        )
    }

    fn members(&self, workspace_id: &WorkspaceId, after: &str, limit: usize) -> Result<Vec<Member>, Error> {
        self.all(
            "SELECT user_id, role FROM members WHERE workspace_id = ?1 AND user_id > ?2 ORDER BY user_id LIMIT ?3",
            params![workspace_id, after, at_most(limit)],
            |found| Ok(Member { user_id: found.get(0)?, role: found.get(1)? }),
        )
    }

    fn token(&self, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
        let sql = concat!("SELECT ", row::tokens!(), ", hash FROM tokens WHERE hash = ?1");
        self.first(sql, [hash], |found| Ok((row::token(found)?, found.get(8)?)))
    }

    fn tokens(&self, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
        self.all(
            row::tokens!("WHERE token_id > ?1 ORDER BY token_id LIMIT ?2"),
            params![after, at_most(limit)],
            row::token,
        )
    }

    fn has_tokens_expired_before(&self, before: WallTime) -> Result<bool, Error> {
        self.value("SELECT EXISTS (SELECT 1 FROM tokens WHERE expires_at < ?1)", [before])
    }

    fn webhook(&self, name: &str) -> Result<Option<WebhookPosition>, Error> {
        let sql = "SELECT name, position, owner, until, removed_at FROM webhooks WHERE name = ?1";
        self.first(sql, [name], row::webhook)
    }

    fn webhooks(&self, limit: usize) -> Result<Vec<WebhookPosition>, Error> {
        let sql = "SELECT name, position, owner, until, removed_at FROM webhooks ORDER BY name LIMIT ?1";
        self.all(sql, [at_most(limit)], row::webhook)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::event::EventType;

    #[test]
    fn sql_event_types_match_the_domain() {
        let others = EventType::ALL.into_iter().filter(|of| !matches!(of, EventType::Ended(_)));
        let conditions: Vec<_> = others.map(|of| format!("type <> '{}'", of.as_str())).collect();
        let condition = conditions.join(" AND ");
        assert!(include_str!("rows.rs").contains(&condition), "{condition}");
        assert!(include_str!("../../../schema.sql").contains(&condition), "{condition}");
    }
}
