//! Opens the database: checks it, makes the tables, takes a slot.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::Postgres;
use super::bell::Bell;
use super::meta::{self, MetaRow};
use super::node::Node;
use super::queries::Queries;
use super::readers::Readers;
use super::row::get;
use super::session::{Failure, Session, parameters};
use super::set::BatchRows;
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::rows::Changes;
use crate::store::{Options, OtherServers};
use crate::time::{Clock, LeaseClock, Timestamp, Ttl};

/// The version of the tables.
const SCHEMA_VERSION: i32 = 1;
/// The oldest PostgreSQL that is supported.
const OLDEST: i32 = 140_000;
/// A transaction of a server that hangs ends after this time, so that the others go on.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// How long another process waits for an answer.
const BESIDE: Duration = Duration::from_secs(10);
/// How often a new node asks again while another has to say what time it is.
const ASKS: u32 = 60;

/// Opens the database at `url`, and makes the tables if there are none.
pub(in crate::store) fn open(
    url: &str,
    options: &Options,
    metrics: &Arc<Metrics>,
    clock: Clock,
    shared: &OtherServers,
) -> Result<(Postgres, Readers, Arc<LeaseClock>), Error> {
    let deadline = options.busy_timeout.max(Duration::from_secs(1));
    let config = configure(url, deadline)?;
    // The server gives up first, so that its answer says why.
    let deadline = deadline.saturating_mul(2);
    let session = Session::connect(&config, deadline).map_err(|failure| cannot_connect(&config, failure))?;
    let seen = prepare(&session, &clock)?;
    let clock = Arc::new(LeaseClock::starting_at(clock, seen));
    let grace = Ttl::from_duration(options.restart_grace);
    let node = Arc::new(Node::new(config, deadline, Arc::clone(&clock), grace, Arc::clone(metrics))?);
    node.take_slot(&session)?;
    join(&node, &session)?;
    let readers = Readers::new(Arc::clone(&node));
    let bell = Bell::start(&node, shared)?;
    Ok((Postgres { node, bell, session: Some(session) }, readers, clock))
}

/// The settings of each connection.
fn configure(url: &str, deadline: Duration) -> Result<Config, Error> {
    // The error may show a part of the address, which has a password.
    let mut config = Config::from_str(url)
        .map_err(|_| Error::Internal("database.url is not a valid address of PostgreSQL".to_owned()))?;
    let milliseconds = deadline.as_millis();
    let idle = deadline.min(IDLE_IN_TRANSACTION).as_millis();
    config
        .application_name("lockhouse")
        .connect_timeout(Duration::from_secs(5))
        .tcp_user_timeout(deadline)
        .keepalives_idle(Duration::from_secs(10))
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .options(format!(
            "-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={idle} -c timezone=UTC -c search_path=public"
        ));
    Ok(config)
}

/// The sentence about a database that cannot be reached. It has no password.
fn cannot_connect(config: &Config, failure: Failure) -> Error {
    let hosts: Vec<_> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let (Failure::Refused(_, text) | Failure::Lost(text)) = failure;
    Error::Internal(format!("cannot connect to PostgreSQL at {}: {text}", hosts.join(", ")))
}

/// Checks the server, and makes the tables. Returns the lease time that was last written down.
fn prepare(session: &Session, clock: &Clock) -> Result<Timestamp, Error> {
    let rows = session.query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, to_regclass('meta')::text",
        Vec::new(),
    )?;
    let row = rows.first().ok_or(Error::Busy)?;
    let (version, encoding): (i32, String) = (get(row, 0)?, get(row, 1)?);
    if version < OLDEST {
        return Err(Error::Internal(format!(
            "PostgreSQL {} is too old: Lockhouse needs version 14 or newer",
            version / 10_000
        )));
    }
    if encoding != "UTF8" {
        return Err(Error::Internal(format!(
            "the database has the encoding {encoding}: make one with ENCODING 'UTF8'"
        )));
    }
    if get(row, 2)? {
        return Err(Error::Internal(
            "the database is read-only, or a standby: give the address of the primary".to_owned(),
        ));
    }
    if get::<Option<String>>(row, 3)?.is_none() {
        create(session, clock)?;
    }
    let rows = session.query("SELECT version, seen_lease FROM meta", Vec::new())?;
    let row =
        rows.first().ok_or_else(|| Error::Internal("the row of meta is missing in PostgreSQL".to_owned()))?;
    let version: i32 = get(row, 0)?;
    if version != SCHEMA_VERSION {
        return Err(Error::Internal(format!(
            "the tables have version {version}, and this Lockhouse knows {SCHEMA_VERSION}"
        )));
    }
    get(row, 1).map(Timestamp)
}

/// Makes the tables. Another node may do so at the same time.
fn create(session: &Session, clock: &Clock) -> Result<(), Error> {
    let wall_ms = match clock {
        Clock::System(_) => "(extract(epoch FROM clock_timestamp()) * 1000)::bigint".to_owned(),
        Clock::Manual(_) => clock.wall().0.to_string(),
    };
    session.script("BEGIN; SELECT pg_advisory_xact_lock(0)")?;
    let rows = session.query("SELECT to_regclass('meta')::text", Vec::new())?;
    let is_there = rows.first().map_or(Ok(None), |row| get::<Option<String>>(row, 0))?.is_some();
    if !is_there {
        session.script(include_str!("schema.sql"))?;
        session.script(&format!(
            "INSERT INTO meta SELECT 1, {SCHEMA_VERSION}, 0, 0, {wall_ms}, 0, 0, {wall_ms}, 0, '', false"
        ))?;
    }
    session.script("COMMIT")?;
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

/// Runs `work` in one transaction, as a process that is no server.
pub(in crate::store) fn beside<T>(
    url: &str,
    work: impl FnOnce(&dyn Changes) -> Result<T, Error>,
) -> Result<T, Error> {
    let config = configure(url, BESIDE)?;
    let session = Session::connect(&config, BESIDE).map_err(|failure| cannot_connect(&config, failure))?;
    prepare(&session, &Clock::system())?;
    session.query("BEGIN", Vec::new())?;
    // Tokens do not use lease time.
    let queries = Queries::new(&session, Timestamp(0), Arc::new(RestartGrace::none()));
    let set = BatchRows::new(queries, HashSet::new());
    // Without a commit the server rolls back when the connection ends.
    let done = work(&set)?;
    session.query("COMMIT", Vec::new())?;
    Ok(done)
}
