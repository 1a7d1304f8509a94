//! What each batch reads first: the database's clock, the row of `meta`, and what concerns this node.

use tokio_postgres::Row;

use super::clock::Seen;
use super::row::get;
use super::session::{Command, parameters};
use crate::domain::Fence;
use crate::domain::grace::Run;
use crate::error::Error;
use crate::time::{Timestamp, WallTime};

/// The number of slots of nodes.
pub(super) const SLOTS: i64 = 16;
/// Nodes that were seen within this time before the time was last written down were there then (milliseconds).
const THERE_MS: i64 = 5_000;

macro_rules! columns {
    () => {
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
         pg_current_xact_id()::text, last_revision, wall_offset_ms, seen_lease, seen_wall, run, opened_at,
         greatest(fence_floor, (SELECT max(highest_fence) FROM nodes)),
         (SELECT node_id FROM nodes WHERE slot = $1),
         seen_wall > 0 AND EXISTS (SELECT 1 FROM nodes n WHERE n.slot <> $1 AND n.node_id <> '' AND n.seen_at >= seen_wall - $2),
         timeline, is_synchronous, left(pg_walfile_name(pg_current_wal_lsn()), 8),
         current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') NOT IN ('off', 'local'), usable_from
         FROM meta WHERE id = 1"
    };
}

/// The row of `meta`, and what was read with it.
#[derive(Debug, Clone)]
pub(super) struct MetaRow {
    /// The database's clock (microseconds since 1970).
    pub(super) wall_micros: i64,
    /// The number of the transaction.
    pub(super) transaction: String,
    pub(super) last_revision: i64,
    pub(super) seen: Seen,
    pub(super) run: Run,
    pub(super) opened_at: Timestamp,
    /// The highest fence that any node has given out.
    pub(super) highest_fence: Fence,
    /// The node that has the slot of this one.
    pub(super) slot_of: Option<String>,
    /// Whether another node was there when the time was last written down. The last node that stops leaves 0 behind: of
    /// several that start then, the first settles the time.
    pub(super) another_is_there: bool,
    /// What was written down about the history of this database.
    pub(super) known: Timeline,
    /// What is so now.
    pub(super) timeline: Timeline,
    /// The oldest version whose programs can use the tables.
    pub(super) usable_from: i32,
}

/// The history of a PostgreSQL. A standby that is promoted begins a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline {
    pub(super) id: String,
    /// Whether a commit waits for a standby, so that a promoted one has it.
    pub(super) is_synchronous: bool,
}

/// The command that reads it.
pub(super) fn read(slot: i32) -> Command {
    Command::new(columns!(), parameters![slot, THERE_MS])
}

/// The command that locks the row. What is read by the same statement would be as of before the lock.
pub(super) fn lock() -> Command {
    Command::new("SELECT 1 FROM meta FOR UPDATE", Vec::new())
}

impl MetaRow {
    pub(super) fn of(rows: &[Row]) -> Result<Self, Error> {
        let Some(row) = rows.first() else {
            return Err(Error::Internal("the row of meta is missing in PostgreSQL".to_owned()));
        };
        Ok(Self {
            wall_micros: get(row, 0)?,
            transaction: get(row, 1)?,
            last_revision: get(row, 2)?,
            seen: Seen {
                offset_ms: get(row, 3)?,
                lease: Timestamp(get(row, 4)?),
                wall: WallTime(get(row, 5)?),
            },
            run: Run(get(row, 6)?),
            opened_at: Timestamp(get(row, 7)?),
            highest_fence: Fence(get(row, 8)?),
            slot_of: get(row, 9)?,
            another_is_there: get(row, 10)?,
            known: Timeline { id: get(row, 11)?, is_synchronous: get(row, 12)? },
            timeline: Timeline { id: get(row, 13)?, is_synchronous: get(row, 14)? },
            usable_from: get(row, 15)?,
        })
    }
}
