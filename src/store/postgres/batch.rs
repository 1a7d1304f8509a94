//! One batch of use cases: one transaction.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::keys;
use super::meta::{self, MetaRow, SLOTS};
use super::migrations;
use super::named::Named;
use super::node::Node;
use super::queries::Queries;
use super::row;
use super::session::{Command, Failure, Session, parameters};
use super::set::BatchRows;
use super::waiters::{self, Waiters};
use crate::error::Error;
use crate::store::engine::Work;
use crate::store::set::{Effects, FenceSlot, Meta, TransactionStart};
use crate::time::Timestamp;

/// Minimum time between two writes of `meta.seen_lease` if nothing else asks for it (milliseconds).
const SEEN_EVERY_MS: i64 = 1_000;

/// How often the outcome of a commit is asked for while it is not decided, and the pause.
const ASKED: u32 = 40;
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why an attempt failed.
pub(super) enum Failed {
    /// Another transaction has this key: run again with it.
    Needs(i64),
    /// Run again.
    Passing,
    /// Settle the time, then run again.
    TimeIsUnsettled,
    /// This node was away for so long that another has its slot. Take one, then run again.
    SlotIsTaken,
    /// A newer server has migrated the tables. Only programs that know this version can use them.
    TablesAreNewer(i32),
    /// The connection was lost, and nothing is committed.
    Lost(String),
    /// Give up.
    With(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::With(error)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(text) => Self::Lost(text),
            refused @ Failure::Refused(..) if refused.is_passing() => Self::Passing,
            refused @ Failure::Refused(..) => Self::With(refused.into()),
        }
    }
}

/// What a batch locks and loads before its use cases run.
pub(super) struct Plan {
    named: Named,
    locked: BTreeSet<i64>,
}

/// The transaction after its rows were loaded.
struct Started {
    read: MetaRow,
    now: Timestamp,
}

impl Plan {
    pub(super) fn of(work: &dyn Work, more: &BTreeSet<i64>) -> Self {
        let keys = work.keys();
        let mut locked: BTreeSet<i64> = keys::of_all(&keys).into_iter().collect();
        locked.extend(more);
        Self { named: Named::by(&keys), locked }
    }

    /// Runs the transaction. Only COMMIT ends it.
    pub(super) fn run(self, node: &Node, session: &Session, work: &mut dyn Work) -> Result<Effects, Failed> {
        let mut commands = vec![
            Command::new("BEGIN", Vec::new()),
            // A statement of its own: one that locks and loads would read rows as they were before the lock.
            Command::new(
                "SELECT pg_advisory_xact_lock(k) FROM (SELECT k FROM unnest($1::bigint[]) k ORDER BY k OFFSET 0) s",
                parameters![self.locked.iter().copied().collect::<Vec<_>>()],
            ),
            meta::read(node.slot()),
        ];
        commands.extend(self.named.loads());
        let found = session.run(&commands)?;
        let mut read = MetaRow::of(found.get(2).map_or(&[], Vec::as_slice))?;
        if read.usable_from > migrations::newest() {
            return Err(Failed::TablesAreNewer(read.usable_from));
        }
        if read.slot_of.as_deref() != Some(&node.id) {
            return Err(Failed::SlotIsTaken);
        }
        let now = node.now(&mut read).ok_or(Failed::TimeIsUnsettled)?;
        let queries = Queries::new(session, now, node.grace(session, read.run)?);
        let waiters = Waiters::of(node);
        let set = BatchRows::new(queries, waiters, self.locked.into_iter().collect());
        set.loaded(self.named, found.get(3..).unwrap_or_default())?;
        let outcome = work.run(&set, start(node, &read), Some(&set.waiters.queue));
        if let Some(key) = set.busy.get() {
            return Err(Failed::Needs(key));
        }
        let mut effects = outcome?;
        Started { read, now }.commit(node, session, &set, &mut effects)?;
        Ok(effects)
    }
}

fn start(node: &Node, read: &MetaRow) -> TransactionStart {
    TransactionStart {
        wall_micros: node.wall_micros(read),
        meta: Meta {
            last_fence: read.highest_fence,
            last_revision: read.last_revision,
            wall_offset_ms: read.seen.offset_ms,
            // The rows are counted when somebody asks.
            lock_count: 0,
            opened_at: read.opened_at,
        },
        fences: FenceSlot { slot: i64::from(node.slot()), slots: SLOTS },
    }
}

impl Started {
    /// The commands that write down the time and the highest fence, and whether the time is among them.
    fn of_node(&self, node: &Node, set: &BatchRows<'_>, effects: &Effects) -> (Vec<Command>, bool) {
        let Self { read, now } = self;
        let mut commands = Vec::new();
        let writes_time = effects.is_touched
            || now.since(read.seen.lease) >= SEEN_EVERY_MS
            || set.latest_due() > Some(read.seen.lease)
            || node.has_to_tick();
        if writes_time {
            // If the clock was set in between, the node that settled it has written down the time.
            commands.push(Command::new(
                "UPDATE meta SET seen_lease = greatest(seen_lease, $1), seen_wall = greatest(seen_wall, $2) WHERE wall_offset_ms = $3",
                parameters![now.0, node.wall_micros(read).div_euclid(1_000), read.seen.offset_ms],
            ));
        }
        if writes_time || effects.meta.last_fence > read.highest_fence {
            commands.push(Command::new(
                "UPDATE nodes SET highest_fence = greatest(highest_fence, $2), seen_at = $3 WHERE slot = $1",
                parameters![node.slot(), effects.meta.last_fence.0, read.wall_micros.div_euclid(1_000)],
            ));
        }
        if writes_time {
            commands.push(waiters::delete_gone(*now));
        }
        (commands, writes_time)
    }

    /// Writes what is pending, and commits.
    fn commit(
        &self,
        node: &Node,
        session: &Session,
        set: &BatchRows<'_>,
        effects: &mut Effects,
    ) -> Result<(), Failed> {
        let (mut commands, writes_time) = self.of_node(node, set, effects);
        let (of_waiters, mut concerns_others) = set.waiters.commands(&effects.queue_changes, self.now);
        effects.queue_changes.keep_own(&set.waiters.queue);
        node.queue.joining(&effects.queue_changes);
        commands.extend(of_waiters);
        // The command that writes events must be the last.
        commands.extend(set.flush());
        let written = commands.len();
        commands.push(Command::new("COMMIT", Vec::new()));
        let began = node.system.monotonic();
        match session.run(&commands) {
            Ok(found) => set.flushed(found.get(..written).unwrap_or_default())?,
            Err(Failure::Lost(text)) => match in_doubt(node, &self.read) {
                // The revisions of its events are not known here. The listener finds them.
                Some(true) => set.shift.set(Some(self.read.last_revision - effects.meta.last_revision)),
                Some(false) => return Err(Failed::Lost(text)),
                None => return Err(Failed::With(Error::Unknown(text))),
            },
            Err(refused) => return Err(refused.into()),
        }
        let took = node.system.monotonic().saturating_sub(began);
        node.metrics.commit_seconds.observe(took.as_secs_f64());
        if let Some(shift) = set.shift.get() {
            effects.shift_revisions(shift);
        }
        concerns_others |= effects.meta.last_revision > self.read.last_revision;
        if concerns_others {
            node.signals.notify_others();
        }
        if set.waiters.leaves.get() {
            node.is_leaving.store(true, Ordering::SeqCst);
        }
        if writes_time {
            node.ticked();
            node.seen.fetch_max(self.now.0, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Whether a transaction whose commit was not answered is committed. `None` if nobody can say.
fn in_doubt(node: &Node, read: &MetaRow) -> Option<bool> {
    let session = node.connect().ok()?;
    for _ in 0..ASKED {
        let asked = [
            Command::new("SELECT pg_xact_status($1::text::xid8)", parameters![read.transaction.clone()]),
            meta::read(node.slot()),
        ];
        let rows = session.run(&asked).ok()?;
        // After a failover the number may be that of another transaction.
        if MetaRow::of(rows.get(1)?).ok()?.timeline.id != read.timeline.id {
            return None;
        }
        match row::get::<Option<String>>(rows.first()?.first()?, 0).ok()?.as_deref() {
            Some("committed") => return Some(true),
            Some("aborted") => return Some(false),
            // The server has not noticed yet that the connection is gone, or carries the commit out just now.
            Some("in progress") => std::thread::park_timeout(ASK_AGAIN),
            _ => return None,
        }
    }
    None
}
