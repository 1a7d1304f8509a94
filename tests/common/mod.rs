//! A real server on a real socket and a real file, with a clock that moves only when it is told to; and a client that
//! holds every answer against the OpenAPI document.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::missing_errors_doc,
    reason = "each test uses what it needs, and a test may panic"
)]

pub mod browser;
pub mod client;
pub mod contract;
pub mod disk;
pub mod docs;
pub mod held;
pub mod jwt;
pub mod load;
pub mod nginx;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod reading;
pub mod receiver;
pub mod shim;
pub mod tls;
pub mod waiting;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockhouse::api::operation::Route;
use lockhouse::api::routes::ROUTES;
use lockhouse::auth::Scope;
use lockhouse::cli::serve::{self, Running};
use lockhouse::config::{Config, Secret};
use lockhouse::domain::UserId;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::ops::sweeper::{Swept, sweep_once};
use lockhouse::store::{Options, tokens};
use lockhouse::time::{Clock, ManualClock, WallTime};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::Value as SqlValue;
use serde_json::Value;
use tempfile::TempDir;

pub use client::{Answer, Client};
pub use raw::Raw;

/// 2026-11-23T12:00:00Z
pub const NOON: WallTime = WallTime(1_795_435_200_000);

/// Options of a store: a new database of the engine that the tests run on, or a file in `directory`.
pub fn options(directory: &Path) -> Options {
    Options {
        url: postgres::new_database_if_asked(),
        path: directory.join("lockhouse.db"),
        busy_timeout: Duration::from_secs(5),
        max_size: None,
        restart_grace: Duration::from_secs(30),
        readers: 3,
        waiters: WaitlistLimits { per_workspace: 10, per_user: 10, total: 20 },
    }
}

/// Waits until `condition` is true, for at least 30 seconds.
#[track_caller]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("the condition does not become true");
}

/// Waits until well-behaved clients are served. Tries again, because on a busy machine this thread may be paused for
/// longer than a short timeout.
pub fn is_well(server: &Server) {
    eventually(|| {
        let mut client = server.user("good");
        let locked = client.try_request("POST", "/api/v1/workspaces/good/lock", &[], b"");
        let is_up = client.try_request("GET", "/healthz", &[], b"");
        locked.is_ok_and(|locked| locked.status == 200) && is_up.is_ok_and(|is_up| is_up.status == 200)
    });
}

/// The value of the metric with this name and labels; 0 if it is missing. Tries again if the connection is closed.
pub fn metric(server: &Server, line: &str) -> f64 {
    metric_at(server.address(), line)
}

/// The same, of the server at this address.
pub fn metric_at(address: SocketAddr, line: &str) -> f64 {
    let mut answer = None;
    eventually(|| {
        answer = Client::connect(address).try_request("GET", "/metrics", &[], b"").ok();
        answer.is_some()
    });
    let answer = answer.unwrap();
    let text = answer.text();
    text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
}

/// Follows the events. The server has accepted the stream when this returns.
pub fn follow(server: &Server, user: &str, query: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head =
        format!("GET /api/v1/events{query} HTTP/1.0\r\nX-User-Id: {user}\r\nX-User-Name: {user}!\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with(": still here") {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    reader
}

/// The next event of a stream.
pub fn told(events: &mut BufReader<TcpStream>) -> Value {
    let mut data = String::new();
    while !data.starts_with("data: ") {
        data.clear();
        events.read_line(&mut data).unwrap();
    }
    serde_json::from_str(&data[6..]).unwrap()
}

/// A server in this process.
pub struct Server {
    running: Option<Running>,
    pub config: Config,
    pub clock: Arc<ManualClock>,
    routes: &'static [Route],
    directory: TempDir,
}

impl Server {
    /// With the default settings, except for the port. The sweeper does not run.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With changed settings.
    pub fn with(set: impl FnOnce(&mut Config)) -> Self {
        Self::with_routes(ROUTES, set)
    }

    /// With other operations.
    pub fn with_routes(routes: &'static [Route], set: impl FnOnce(&mut Config)) -> Self {
        Self::on(postgres::new_database_if_asked(), routes, set)
    }

    /// On a SQLite file, also where `LH_STORE` is postgres: for a test of what only the file has.
    pub fn on_sqlite(set: impl FnOnce(&mut Config)) -> Self {
        Self::on(None, ROUTES, set)
    }

    /// On PostgreSQL, also where `LH_STORE` is not set.
    pub fn on_postgres() -> Self {
        Self::on(Some(postgres::new_database()), ROUTES, |_| {})
    }

    fn on(url: Option<Secret>, routes: &'static [Route], set: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.listen.set_port(0);
        config.database.path = directory.path().join("lockhouse.db");
        config.database.url = url;
        config.sweeper.interval = None;
        set(&mut config);
        let clock = ManualClock::starting_at(NOON);
        let mut server = Self { running: None, config, clock, routes, directory };
        server.start_again();
        server
    }

    /// Stops it as SIGTERM does.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    pub fn start_again(&mut self) {
        let clock = Clock::Manual(Arc::clone(&self.clock));
        self.running = Some(serve::start_on(&self.config, Vec::new(), clock, self.routes).unwrap());
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Moves the clock forward.
    pub fn pass(&self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
    }

    /// How many were answered with 429 for this limit, by the metrics.
    pub fn limited(&self, limit: &str) -> u64 {
        let text = self.running().service().metrics().to_text();
        let line = format!("lockhouse_limited_total{{limit=\"{limit}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    /// Runs the sweeper once.
    pub fn sweep(&self) -> Swept {
        sweep_once(self.running().service()).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.running().address().unwrap()
    }

    /// A connection without an identity.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A connection of `user`.
    pub fn user(&self, user: &str) -> Client {
        self.client().by(user)
    }

    /// A new token, written to the database as `lockhouse token create` does.
    pub fn token(&self, scope: Scope, user: Option<&str>) -> String {
        let user_id = user.map(|user| UserId::parse(user).unwrap());
        let now = Clock::Manual(Arc::clone(&self.clock)).wall();
        let (secret, token, hash) =
            lockhouse::auth::token::mint(scope, user_id, None, false, now, None).unwrap();
        tokens::beside(&self.config.database.location(), |rows| rows.insert_token(&token, &hash)).unwrap();
        secret
    }

    /// A connection with a new token.
    pub fn with_token(&self, scope: Scope, user: Option<&str>) -> Client {
        self.client().with_token(&self.token(scope, user))
    }

    pub fn database(&self) -> PathBuf {
        self.config.database.path.clone()
    }

    pub const fn is_on_postgres(&self) -> bool {
        self.config.database.url.is_some()
    }

    /// Runs statements in its database, on either engine, as another process. Returns the rows as text: a line for each,
    /// `|` between the values, nothing for NULL.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let rows = match &self.config.database.url {
            Some(url) => postgres::Cluster::of_this_process().sql(postgres::name_in(url), sql),
            None => rows_as_text(&self.sql(), sql).unwrap_or_else(|error| panic!("{sql}: {error}")),
        };
        rows.trim_end_matches('\n').to_owned()
    }

    /// A connection of another process to its SQLite file.
    #[track_caller]
    pub fn sql(&self) -> rusqlite::Connection {
        assert!(self.config.database.url.is_none(), "it has no file: use `query`, or start it `on_sqlite`");
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection
    }
}

fn rows_as_text(connection: &rusqlite::Connection, sql: &str) -> rusqlite::Result<String> {
    let mut text = String::new();
    let mut statements = rusqlite::Batch::new(connection, sql);
    while let Some(mut statement) = statements.next()? {
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|column| {
                Ok(match row.get(column)? {
                    SqlValue::Null => String::new(),
                    SqlValue::Integer(value) => value.to_string(),
                    SqlValue::Real(value) => value.to_string(),
                    SqlValue::Text(value) => value,
                    SqlValue::Blob(value) => panic!("{value:?} is no text"),
                })
            });
            text.push_str(&values.collect::<rusqlite::Result<Vec<_>>>()?.join("|"));
            text.push('\n');
        }
    }
    Ok(text)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
