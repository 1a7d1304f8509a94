//! The waiters of all nodes, as rows. The order of the rows is the order in which waiters get the lock.
//!
//! The node that ends a wait writes the outcome into the row if the waiter is connected to another node. That node
//! reads it when it is notified, and answers the waiter.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::Row;

use super::node::Node;
use super::outcome;
use super::row::{self, get};
use super::session::{Command, Parameter, parameter, parameters};
use crate::domain::access::Privilege;
use crate::domain::waitlist::is_repeated;
use crate::domain::{Acquire, UserId, WorkspaceId};
use crate::error::Error;
use crate::store::queue::{Queue, QueueChanges, QueuedWaiter, Waiter};
use crate::store::rows::AsOf;
use crate::time::{Timestamp, Ttl};

/// A waiter whose node was not seen for this time is not granted a lock (milliseconds).
const THERE_MS: i64 = 5_000;
/// The rows of a node that was not seen for this time are deleted (milliseconds).
const GONE_MS: i64 = 15_000;
/// How long the waiters of a node that stops keep their places.
const LEAVING: Ttl = Ttl::from_millis(5_000);

macro_rules! columns {
    () => {
        "w.place, w.node_id, w.waiter_id, w.workspace_id, w.user_id, w.user_name, w.session_id, w.privilege, w.ttl_ms, w.note, w.metadata, w.kind, w.token_hash, w.good_until, w.since, w.until, w.for_name, w.is_leaving"
    };
}

/// A waiter as it was loaded.
struct Stored {
    place: i64,
    node_id: String,
    queued: QueuedWaiter,
}

/// The waiters of one transaction.
pub(super) struct Waiters<'n> {
    node_id: &'n str,
    /// The waiters of this node.
    local: &'n Queue,
    /// The waiters of the loaded workspaces, for the use cases.
    pub(super) queue: Queue,
    stored: RefCell<HashMap<WorkspaceId, Vec<Stored>>>,
    /// Whether this node stops.
    pub(super) leaves: Cell<bool>,
}

/// The command that loads the waiters of workspaces.
pub(super) fn load(workspaces: &[String]) -> Command {
    Command::new(
        concat!(
            "SELECT ",
            columns!(),
            ", EXISTS (SELECT 1 FROM nodes n WHERE n.node_id = w.node_id AND n.seen_at >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2)
             FROM waiters w WHERE w.workspace_id = ANY($1::text[]) AND w.outcome IS NULL ORDER BY w.kind = 'agent', w.place"
        ),
        parameters![workspaces.to_vec(), THERE_MS],
    )
}

/// The command that deletes the rows of nodes that are gone, or have stopped a while ago.
pub(super) fn delete_gone(now: Timestamp) -> Command {
    Command::new(
        "DELETE FROM waiters WHERE CASE WHEN is_leaving THEN until <= $2 ELSE node_id NOT IN
         (SELECT node_id FROM nodes WHERE seen_at >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1) END",
        parameters![GONE_MS, now.0],
    )
}

impl<'n> Waiters<'n> {
    /// The waiters as `node` sees them.
    pub(super) fn of(node: &'n Node) -> Self {
        let waiters = Self::new(&node.id, &node.queue);
        waiters.leaves.set(node.is_leaving.load(Ordering::SeqCst));
        waiters
    }

    pub(super) fn new(node_id: &'n str, local: &'n Queue) -> Self {
        let queue = local.for_transaction();
        Self { node_id, local, queue, stored: RefCell::default(), leaves: Cell::new(false) }
    }

    /// Takes the rows of [`load`] for these workspaces.
    pub(super) fn loaded(&self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            let stored = self.waiter(row)?;
            let workspace_id = stored.queued.waiter.request.workspace_id.clone();
            self.queue.load(&workspace_id, stored.queued.clone());
            self.stored.borrow_mut().entry(workspace_id).or_default().push(stored);
        }
        Ok(())
    }

    fn waiter(&self, row: &Row) -> Result<Stored, Error> {
        let (place, node_id, id): (i64, String, i64) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        let request = request(row)?;
        let (since, until) = (Timestamp(get(row, 14)?), Timestamp(get(row, 15)?));
        let is_leaving: bool = get(row, 17)?;
        let known = if node_id == self.node_id { self.local.find(&request.workspace_id, id) } else { None };
        let waiter = if let Some(waiter) = known {
            waiter
        } else {
            let validity = row::validity(get(row, 12)?, get(row, 13)?)?;
            let is_there = node_id != self.node_id && !is_leaving && get(row, 18)?;
            Waiter::of_other_server(id, request, validity, is_there)
        };
        Ok(Stored { place, node_id, queued: QueuedWaiter { waiter, since, until, is_leaving } })
    }

    /// The commands that write the changes, and whether another node has to look.
    pub(super) fn commands(&self, changes: &QueueChanges, now: Timestamp) -> (Vec<Command>, bool) {
        let (mut commands, mut concerns_others) = (Vec::new(), false);
        let stored = self.stored.borrow();
        for (workspace_id, line) in &changes.changed {
            let mut before: Vec<&Stored> = stored.get(workspace_id).into_iter().flatten().collect();
            let mut new = Vec::new();
            for queued in line {
                let known =
                    before.iter().position(|stored| Arc::ptr_eq(&stored.queued.waiter, &queued.waiter));
                match known.map(|at| before.remove(at)) {
                    Some(stored) if stored.queued.until == queued.until => {}
                    Some(stored) => commands.push(self.update(stored.place, queued)),
                    None => new.push(queued),
                }
            }
            for queued in new {
                // A repeated request keeps the place.
                let same = before.iter().position(|stored| is_same(stored, queued));
                match same.map(|at| before.remove(at)) {
                    Some(stored) => {
                        commands.push(self.update(stored.place, queued));
                        concerns_others |= self.leave(stored, None, changes, &mut commands);
                    }
                    None => commands.push(self.insert(queued)),
                }
            }
            for stored in before {
                concerns_others |= self.leave(stored, Some(stored.place), changes, &mut commands);
            }
        }
        if self.leaves.get() {
            commands.push(self.leave_all(now));
        }
        (commands, concerns_others)
    }

    /// The command that keeps the places of this node's waiters while they ask again at another node.
    fn leave_all(&self, now: Timestamp) -> Command {
        Command::new(
            "UPDATE waiters SET is_leaving = true, until = least(until, $2)
             WHERE node_id = $1 AND outcome IS NULL AND NOT is_leaving",
            parameters![self.node_id.to_owned(), now.plus(LEAVING).0],
        )
    }

    /// Adds the command for a waiter that leaves the row at `place`, or whose row another has. Returns whether its
    /// node has to look.
    fn leave(
        &self,
        stored: &Stored,
        place: Option<i64>,
        changes: &QueueChanges,
        commands: &mut Vec<Command>,
    ) -> bool {
        let waiter = &stored.queued.waiter;
        let answer = changes.answers.iter().find(|(answered, _)| Arc::ptr_eq(answered, waiter));
        let outcome =
            answer.filter(|_| stored.node_id != self.node_id).map(|(_, answer)| outcome::to_json(answer));
        match (place, outcome) {
            (Some(place), Some(outcome)) => {
                commands.push(Command::new(
                    "UPDATE waiters SET outcome = $2 WHERE place = $1",
                    parameters![place, outcome],
                ));
                true
            }
            (Some(place), None) => {
                commands.push(Command::new("DELETE FROM waiters WHERE place = $1", parameters![place]));
                false
            }
            (None, Some(outcome)) => {
                commands.push(Command::new(
                    "INSERT INTO waiters (workspace_id, node_id, waiter_id, user_id, privilege, kind, since, until, outcome) VALUES ($1, $2, $3, $4, 0, $5, 0, 0, $6)",
                    parameters![
                        waiter.request.workspace_id.as_str().to_owned(),
                        stored.node_id.clone(),
                        waiter.id,
                        waiter.request.user_id.as_str().to_owned(),
                        waiter.request.kind.as_str(),
                        outcome
                    ],
                ));
                true
            }
            (None, None) => false,
        }
    }

    fn insert(&self, queued: &QueuedWaiter) -> Command {
        let mut parameters = self.values(queued);
        parameters.push(parameter(queued.since.0));
        Command::new(
            "INSERT INTO waiters (node_id, waiter_id, workspace_id, user_id, user_name, session_id, privilege, ttl_ms, note, metadata, kind, token_hash, good_until, for_name, until, since)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            parameters,
        )
    }

    fn update(&self, place: i64, queued: &QueuedWaiter) -> Command {
        let mut parameters = self.values(queued);
        parameters.push(parameter(place));
        Command::new(
            "UPDATE waiters SET (node_id, waiter_id, workspace_id, user_id, user_name, session_id, privilege, ttl_ms, note, metadata, kind, token_hash, good_until, for_name, until, is_leaving)
             = ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, false) WHERE place = $16",
            parameters,
        )
    }

    fn values(&self, queued: &QueuedWaiter) -> Vec<Parameter> {
        let waiter = &queued.waiter;
        let Acquire {
            workspace_id,
            kind,
            user_id,
            user_name,
            session_id,
            for_name,
            privilege,
            ttl,
            note,
            metadata,
            force: _,
            reason: _,
        } = &waiter.request;
        let (token_hash, good_until) = row::validity_columns(&waiter.validity);
        parameters![
            self.node_id.to_owned(),
            waiter.id,
            workspace_id.as_str().to_owned(),
            user_id.as_str().to_owned(),
            user_name.as_ref().map(|name| name.as_str().to_owned()),
            session_id.as_ref().map(|id| id.as_str().to_owned()),
            privilege_number(*privilege),
            ttl.map(Ttl::as_millis),
            note.clone(),
            metadata.clone(),
            kind.as_str(),
            token_hash,
            good_until,
            for_name.as_ref().map(|name| name.as_str().to_owned()),
            queued.until.0,
        ]
    }
}

/// Whether `queued` has taken the position of `stored`.
fn is_same(stored: &Stored, queued: &QueuedWaiter) -> bool {
    let (first, second) = (&stored.queued.waiter.request, &queued.waiter.request);
    stored.queued.since == queued.since && is_repeated(first, second)
}

/// The request of a waiter. A request that waits does not take over.
fn request(row: &Row) -> Result<Acquire, Error> {
    let workspace_id = WorkspaceId::trusted(get(row, 3)?);
    Ok(Acquire {
        user_name: row::name(row, 5)?,
        session_id: row::session(row, 6)?,
        for_name: row::name(row, 16)?,
        privilege: privilege(get(row, 7)?),
        ttl: get::<Option<i64>>(row, 8)?.map(Ttl::from_millis),
        note: get(row, 9)?,
        metadata: get(row, 10)?,
        kind: row::kind(row, 11)?,
        ..Acquire::new(workspace_id, UserId::trusted(get(row, 4)?))
    })
}

const fn privilege_number(privilege: Privilege) -> i64 {
    match privilege {
        Privilege::Ordinary => 0,
        Privilege::WorkspaceAdmin => 1,
        Privilege::Administrator => 2,
    }
}

const fn privilege(number: i64) -> Privilege {
    match number {
        0 => Privilege::Ordinary,
        1 => Privilege::WorkspaceAdmin,
        _ => Privilege::Administrator,
    }
}

/// The command that reads the outcomes for the waiters of a node.
pub(super) fn outcomes(node_id: &str) -> Command {
    Command::new(
        "SELECT place, workspace_id, waiter_id, outcome FROM waiters WHERE node_id = $1 AND outcome IS NOT NULL",
        parameters![node_id.to_owned()],
    )
}

/// Answers the waiters of this node with the outcomes that other nodes have written. Returns the places of their rows,
/// which can be deleted.
pub(super) fn answer(rows: &[Row], local: &Queue, now: Timestamp) -> Result<Vec<i64>, Error> {
    rows.iter()
        .map(|row| {
            let (workspace_id, id) = (WorkspaceId::trusted(get(row, 1)?), get(row, 2)?);
            if let Some(waiter) = local.find(&workspace_id, id) {
                let outcome = outcome::from_json(&get::<String>(row, 3)?);
                waiter.answer(outcome.map(|value| AsOf { now, value }));
                local.remove(&workspace_id, id);
            }
            get(row, 0)
        })
        .collect()
}
