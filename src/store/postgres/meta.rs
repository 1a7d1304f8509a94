//! What each batch reads first: the database's clock, the row of `meta`, and what concerns this node.

use tokio_postgres::Row;

use super::clock::Seen;
use super::row::get;
use super::session::{Command, parameters};
use crate::domain::Fence;
use crate::domain::grace::Run;
use crate::error::Error;
use crate::time::{Timestamp, WallTime};

/// Nodes that were seen within this time before the time was last written down were there then (milliseconds).
const THERE_MS: i64 = 5_000;

macro_rules! columns {
    () => {
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
         pg_current_xact_id()::text, last_revision, wall_offset_ms, seen_lease, seen_wall, run, opened_at,
         greatest(fence_floor, (SELECT max(highest_fence) FROM nodes)),
         (SELECT node_id FROM nodes WHERE slot = $1),
         EXISTS (SELECT 1 FROM nodes n WHERE n.slot <> $1 AND n.node_id <> '' AND n.seen_at >= seen_wall - $2)
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
    /// Whether another node was there when the time was last written down.
    pub(super) another_is_there: bool,
}

/// The command that reads it.
pub(super) fn read(slot: i32) -> Command {
    Command::new(columns!(), parameters![slot, THERE_MS])
}

/// The same, with a lock on the row.
pub(super) fn read_for_update(slot: i32) -> Command {
    Command::new(concat!(columns!(), " FOR UPDATE"), parameters![slot, THERE_MS])
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
        })
    }
}
