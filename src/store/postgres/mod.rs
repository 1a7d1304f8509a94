//! The PostgreSQL engine: any number of nodes, up to [`meta::SLOTS`], on one database.
//!
//! - **A batch** is one transaction with two round trips (`batch.rs`): lock the keys by advisory locks, in order, and
//!   load the rows; decide in memory; write the changes and commit.
//! - **Time** (`clock.rs`) is the database's clock, and each node's monotonic clock checks it. Where they disagree, a
//!   node settles the time in `meta` before anyone decides.
//! - **Fences** of a node are equal to its slot modulo [`meta::SLOTS`], so no two nodes give the same.
//! - **A failover** (`timeline.rs`) shows in a new timeline. Fences and revisions then go on far above all that may be
//!   lost.
//! - **A commit without an answer** is asked for by `pg_xact_status` on a new connection.
//! - **Notifications** (`listener.rs`) tell nodes of each other's commits. They are not part of the batches: commits
//!   with NOTIFY wait for each other.
//! - **Waiters** (`waiters.rs`) of all nodes are rows. The node that ends a wait writes the outcome, and the node of
//!   the waiter answers.

mod address;
mod batch;
mod changes;
mod clock;
mod fill;
mod flush;
mod keys;
mod listener;
mod listing;
mod meta;
mod migrations;
mod named;
mod node;
mod outcome;
mod queries;
mod readers;
mod row;
mod rows;
mod session;
mod set;
mod signals;
#[cfg(test)]
mod simulation;
mod start;
mod timeline;
mod waiters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::batch::{Failed, Plan};
use self::listener::Listener;
use self::node::Node;
pub(super) use self::readers::Readers;
use self::session::{Command, Failure, Session, parameters};
use super::engine::{Engine, Probe, Work};
use super::set::Effects;
use crate::error::Error;
pub(super) use fill::fill;
pub(super) use start::{beside, fence_at_least, open};

/// How often a batch runs again because another transaction had what it needed.
const ATTEMPTS: usize = 100;

/// A connection that is lost within this time was ended by the server, and is replaced at once. A server that does not
/// answer is not asked again.
const SOON: Duration = Duration::from_secs(1);

/// The engine: the connection that writes.
pub(super) struct Postgres {
    node: Arc<Node>,
    session: Option<Session>,
    listener: Listener,
}

impl Postgres {
    fn session(&mut self) -> Result<&Session, Error> {
        if self.session.as_ref().is_none_or(Session::is_lost) {
            self.session = None;
            self.session = Some(self.node.connect()?);
        }
        self.session.as_ref().ok_or(Error::Busy)
    }

    /// Runs `work` once, with locks on `more` keys than it has named.
    fn attempt(&mut self, work: &mut dyn Work, more: &BTreeSet<i64>) -> Result<Effects, Failed> {
        let node = Arc::clone(&self.node);
        let session = self.session()?;
        let outcome = Plan::of(work, more).run(&node, session, work);
        if outcome.is_err() && !session.is_lost() {
            // A failure marks the session, which is replaced then.
            let _ = session.run(&[Command::new("ROLLBACK", Vec::new())]);
        }
        let outcome = match outcome {
            Err(Failed::TimeIsUnsettled) => {
                node.settle(session).map_err(Failed::With).and(Err(Failed::Passing))
            }
            Err(Failed::TablesAreNewer(usable_from)) => {
                log::error!("{}", migrations::too_old(usable_from));
                self.session = None;
                return Err(Failed::With(Error::Busy));
            }
            Err(Failed::SlotIsTaken) => {
                node.take_slot(session).map_err(Failed::With).and(Err(Failed::Passing))
            }
            outcome => outcome,
        };
        match outcome {
            // It was lost before the commit.
            Err(Failed::With(Error::Busy)) if session.is_lost() => {
                Err(Failed::Lost("it has ended".to_owned()))
            }
            outcome => outcome,
        }
    }

    /// Runs `work` until it succeeds, unless it fails for good.
    fn transact_again(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        let mut more = BTreeSet::new();
        let (soon, mut is_replaced) = (self.node.system.monotonic() + SOON, false);
        for _ in 0..ATTEMPTS {
            match self.attempt(work, &more) {
                Ok(effects) => return Ok(effects),
                Err(Failed::Needs(key)) => {
                    more.insert(key);
                }
                Err(
                    Failed::Passing
                    | Failed::TimeIsUnsettled
                    | Failed::SlotIsTaken
                    | Failed::TablesAreNewer(_),
                ) => {}
                // A connection that was ended by the server is replaced at once.
                Err(Failed::Lost(text)) if !is_replaced && self.node.system.monotonic() < soon => {
                    is_replaced = true;
                    log::info!("a connection to PostgreSQL was lost, and is replaced: {text}");
                }
                Err(Failed::Lost(text)) => return Err(Failure::Lost(text).into()),
                Err(Failed::With(error)) => return Err(error),
            }
        }
        Err(Error::Busy)
    }
}

impl Engine for Postgres {
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error> {
        let node = Arc::clone(&self.node);
        node.health.asked();
        let outcome = self.transact_again(work);
        if outcome.is_ok() || self.session.as_ref().is_some_and(|session| !session.is_lost()) {
            node.health.answered();
        } else {
            node.health.lost();
        }
        outcome
    }

    fn idle(&mut self) {
        if self.node.has_to_tick()
            && let Err(error) = self.transact(&mut Probe)
        {
            log::debug!("the time is not written down: {error}");
        }
    }

    fn resolve_failed_commit(&mut self) -> bool {
        // `pg_xact_status` has said what became of a commit that was not answered.
        true
    }

    fn checkpoint_if_long(&mut self) {}

    fn checkpoint(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn finish(&mut self) {
        self.listener.stop();
        let (slot, node_id) = (self.node.slot(), self.node.id.clone());
        let leaving = [
            Command::new("BEGIN", Vec::new()),
            Command::new(
                "UPDATE nodes SET node_id = '', seen_at = 0 WHERE slot = $1 AND node_id = $2",
                parameters![slot, node_id],
            ),
            // Without nodes nobody watches the time. The next start settles it, and gives the restart grace.
            Command::new(
                "UPDATE meta SET seen_wall = 0 WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE node_id <> '')",
                Vec::new(),
            ),
            Command::new("COMMIT", Vec::new()),
        ];
        let written = self.transact(&mut Probe).and_then(|_| {
            let left = self.session()?.run(&leaving);
            left.map(drop).map_err(Failure::into)
        });
        if let Err(error) = written {
            log::warn!("this server could not sign off: {error}");
        }
    }
}
