//! The timeline of PostgreSQL. A standby that was promoted has a new one, and commits of the last moments may be lost,
//! also some that were answered.

use super::meta::{MetaRow, SLOTS};
use super::row::get;
use super::session::{Command, Session, parameters};
use crate::domain::Fence;
use crate::error::Error;
use crate::time::Timestamp;

/// Fences go on this much above the last that is known. The lost ones are below: they are the database's clock in
/// microseconds, so this covers ten minutes.
const FENCES_LOST: i64 = 600_000_000;
/// Revisions go on this much above the last that is known.
const REVISIONS_LOST: i64 = 1_000_000;

/// Writes down the timeline, if it is not the known one. `meta` was read under a lock.
///
/// On a new timeline fences and revisions go on far above the known ones, and followers of the events are told to read
/// again. If commits did not wait for a standby, each lease gets a new fence: what came after it may be lost. Its
/// holder cannot renew it, but can acquire it again, with the new fence.
pub(super) fn follow(session: &Session, meta: &MetaRow, now: Timestamp) -> Result<(), Error> {
    if meta.known == meta.timeline {
        return Ok(());
    }
    if meta.known.is_synchronous && !meta.timeline.is_synchronous {
        log::warn!(
            "commits of PostgreSQL do not wait for a standby any more: if a standby takes over, the last moments are lost"
        );
    }
    let (id, is_synchronous) = (meta.timeline.id.clone(), meta.timeline.is_synchronous);
    let timeline = "UPDATE meta SET timeline = $1, is_synchronous = $2";
    session.query(timeline, parameters![id.clone(), is_synchronous])?;
    if meta.known.id.is_empty() || meta.known.id == id {
        return Ok(());
    }
    let known = meta.highest_fence.0.max(Fence::by_clock(meta.wall_micros));
    let mut floor = known.saturating_add(FENCES_LOST);
    if !meta.known.is_synchronous {
        floor = give_new_fences(session, floor)?;
    }
    log::warn!("PostgreSQL has a new timeline, {id}: fences go on above {floor}, and followers read again");
    session.run(&[Command::new(
        "UPDATE meta SET fence_floor = $1, last_revision = last_revision + $2,
         first_revision = last_revision + $2 + 1, opened_at = greatest(opened_at, $3)",
        parameters![floor, REVISIONS_LOST, now.0],
    )])?;
    Ok(())
}

/// Gives each lease, which is in doubt now, a new fence above `floor`. Returns the highest.
fn give_new_fences(session: &Session, floor: i64) -> Result<i64, Error> {
    let rows = session.query(
        "WITH given AS (UPDATE locks SET fence = n.fence, given = 3 FROM
         (SELECT workspace_id, $1 + $2 * row_number() OVER (ORDER BY workspace_id) AS fence FROM locks) n
         WHERE locks.workspace_id = n.workspace_id RETURNING locks.fence)
         SELECT coalesce(max(fence), $1) FROM given",
        parameters![floor, SLOTS],
    )?;
    rows.first().map_or(Ok(floor), |row| get(row, 0))
}
