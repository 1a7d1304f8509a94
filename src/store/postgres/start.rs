//! Opens the database: checks it, makes the tables, takes a slot.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Postgres;
use super::address::{POOLER, READ_ONLY, ServerAddress};
use super::listener::Listener;
use super::meta::{self, MetaRow};
use super::migrations;
use super::node::Node;
use super::queries::Queries;
use super::readers::Readers;
use super::row::get;
use super::session::{Session, parameters};
use super::set::BatchRows;
use super::waiters::Waiters;
use crate::domain::Fence;
use crate::domain::grace::RestartGrace;
use crate::domain::waitlist::WaitlistLimits;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::health::Health;
use crate::store::queue::Queue;
use crate::store::rows::Changes;
use crate::store::{Options, OtherServers};
use crate::time::{Clock, LeaseClock, Timestamp, Ttl};

/// The oldest PostgreSQL that is supported.
const OLDEST: i32 = 140_000;
/// How long another process waits for an answer.
pub(super) const BESIDE: Duration = Duration::from_secs(10);
/// How often a new node asks again while another has to say what time it is.
pub(super) const ASKS: u32 = 100;

/// Opens the database at `url`, and makes the tables if there are none.
pub(in crate::store) fn open(
    url: &str,
    options: &Options,
    metrics: &Arc<Metrics>,
    clock: Clock,
    (others, health): (&OtherServers, &Arc<Health>),
) -> Result<(Postgres, Readers, Arc<LeaseClock>), Error> {
    let deadline = options.busy_timeout.max(Duration::from_secs(1));
    let address = ServerAddress::parse(url, deadline)?;
    // The server gives up first, so that its answer says why.
    let deadline = deadline.saturating_mul(2);
    let session =
        Session::connect(&address, deadline).map_err(|failure| address.cannot_connect(failure.text()))?;
    let seen = prepare(&address, &session, &clock)?;
    warn_about_replication(&session)?;
    let clock = Arc::new(LeaseClock::starting_at(clock, seen));
    let grace = Ttl::from_duration(options.restart_grace);
    let metrics_and_health = (Arc::clone(metrics), Arc::clone(health));
    let queue = Arc::clone(&others.queue);
    let node = Arc::new(Node::new(address, deadline, Arc::clone(&clock), grace, metrics_and_health, queue)?);
    node.take_slot(&session)?;
    join(&node, &session)?;
    let readers = Readers::new(Arc::clone(&node));
    let listener = Listener::start(&node, others)?;
    Ok((Postgres { node, listener, session: Some(session) }, readers, clock))
}

/// What PostgreSQL says about itself.
struct Found {
    version: i32,
    encoding: String,
    is_read_only: bool,
    /// Whether the settings that came with the connection are in force.
    has_settings: bool,
}

impl Found {
    /// Why this PostgreSQL cannot be used.
    fn refusal(&self) -> Option<String> {
        if self.version < OLDEST {
            let version = self.version / 10_000;
            return Some(format!("PostgreSQL {version} is too old: Lockhouse needs version 14 or newer"));
        }
        if self.encoding != "UTF8" {
            let encoding = &self.encoding;
            return Some(format!("the database has the encoding {encoding}: make one with ENCODING 'UTF8'"));
        }
        if self.is_read_only {
            return Some(READ_ONLY.to_owned());
        }
        (!self.has_settings).then(|| POOLER.to_owned())
    }
}

/// Checks the server, and makes or migrates the tables. Returns the lease time that was last written down.
pub(super) fn prepare(address: &ServerAddress, session: &Session, clock: &Clock) -> Result<Timestamp, Error> {
    let rows = session.query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
         pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
         (SELECT source = 'client' FROM pg_settings WHERE name = 'lock_timeout')",
        Vec::new(),
    )?;
    let row = rows.first().ok_or(Error::Busy)?;
    let (version, encoding) = (get(row, 0)?, get(row, 1)?);
    let found = Found { version, encoding, is_read_only: get(row, 2)?, has_settings: get(row, 3)? };
    if let Some(refusal) = found.refusal() {
        return Err(Error::Internal(refusal));
    }
    migrations::migrate(address, session, clock)?;
    let rows = session.query("SELECT seen_lease FROM meta", Vec::new())?;
    let row = rows.first().ok_or(Error::Busy)?;
    get(row, 0).map(Timestamp)
}

/// Warns if a failover or a crash could lose commits that were answered.
fn warn_about_replication(session: &Session) -> Result<(), Error> {
    let rows = session.query(
        "SELECT current_setting('synchronous_commit') IN ('off', 'local'), current_setting('synchronous_standby_names') = ''",
        Vec::new(),
    )?;
    let row = rows.first().ok_or(Error::Busy)?;
    let why = match (get(row, 0)?, get(row, 1)?) {
        (true, _) => "synchronous_commit is off",
        (_, true) => "synchronous_standby_names is empty",
        (false, false) => return Ok(()),
    };
    log::warn!(
        "PostgreSQL does not replicate synchronously, as far as it shows ({why}): a failover may forget the locks of the last moments; their fences are not given again"
    );
    Ok(())
}

/// Takes the time over from the other nodes, or settles it if there are none.
fn join(node: &Node, session: &Session) -> Result<(), Error> {
    for attempt in 0.. {
        let mut read = MetaRow::of(&session.run(&[meta::read(node.slot())])?.pop().unwrap_or_default())?;
        if node.now(&mut read).is_some() {
            node.grace(session, read.run)?;
            return Ok(());
        }
        match node.settle(session) {
            Err(Error::Busy) if attempt < ASKS => std::thread::park_timeout(Duration::from_millis(50)),
            Err(Error::Busy) => {
                // The nodes that were seen are gone. This one has to say.
                let forget = "UPDATE nodes SET seen_at = 0 WHERE slot <> $1";
                session.query(forget, parameters![node.slot()])?;
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Gives only fences greater than `fence` from now on.
pub(in crate::store) fn fence_at_least(url: &str, fence: Fence) -> Result<(), Error> {
    let session = connect_beside(url)?;
    session.query("UPDATE meta SET fence_floor = greatest(fence_floor, $1)", parameters![fence.0])?;
    Ok(())
}

/// A connection of a process that is no server, to a database with tables.
fn connect_beside(url: &str) -> Result<Session, Error> {
    let address = ServerAddress::parse(url, BESIDE)?;
    let session =
        Session::connect(&address, BESIDE).map_err(|failure| address.cannot_connect(failure.text()))?;
    prepare(&address, &session, &Clock::system())?;
    Ok(session)
}

/// Runs `work` in one transaction, as a process that is no server.
pub(in crate::store) fn beside<T>(
    url: &str,
    work: impl FnOnce(&dyn Changes) -> Result<T, Error>,
) -> Result<T, Error> {
    let session = connect_beside(url)?;
    session.query("BEGIN", Vec::new())?;
    // Tokens do not use lease time.
    let queries = Queries::new(&session, Timestamp(0), Arc::new(RestartGrace::none()));
    let nobody = Queue::new(WaitlistLimits { per_workspace: 0, per_user: 0, total: 0 });
    let set = BatchRows::new(queries, Waiters::new("", &nobody), HashSet::new());
    // Without a commit the server rolls back when the connection ends.
    let done = work(&set)?;
    session.query("COMMIT", Vec::new())?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_used_is_refused_with_a_sentence() {
        let found = |version, encoding: &str, is_read_only, has_settings| {
            Found { version, encoding: encoding.to_owned(), is_read_only, has_settings }.refusal()
        };
        assert_eq!(found(140_000, "UTF8", false, true), None);
        assert_eq!(found(190_001, "UTF8", false, true), None);
        for (refusal, says) in [
            (found(130_022, "UTF8", false, true), "PostgreSQL 13 is too old"),
            (found(90_624, "UTF8", false, true), "PostgreSQL 9 is too old"),
            (found(150_000, "SQL_ASCII", false, true), "encoding SQL_ASCII"),
            (found(150_000, "UTF8", true, true), "the address of the primary"),
            (found(150_000, "UTF8", false, false), "PgBouncer"),
        ] {
            assert!(refusal.as_deref().is_some_and(|refusal| refusal.contains(says)), "{refusal:?}");
        }
    }
}
