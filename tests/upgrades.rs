//! The tables in PostgreSQL: made by several servers at once, migrated from an older version, and used by servers of
//! two versions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::eventually;
use common::postgres::{Cluster, new_database};
use common::process::{Process, fine, lockhouse};
use lockhouse::cli::serve;
use lockhouse::config::{Config, Secret};
use lockhouse::time::Clock;
use serde_json::json;

/// A database, and what PostgreSQL says about it.
struct Database(Secret);

impl Database {
    fn empty() -> Self {
        Self(new_database())
    }

    /// One of version 1, with a lock of alice on `w` and a token. Returns the fence, too.
    fn of_version_1() -> (Self, i64) {
        let database = Self::empty();
        let server = database.serve();
        let fence = server.user("alice").acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
        server.user("bob").post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
        assert_eq!(server.terminate().0, Some(0));
        fine(&database.lockhouse().args(["token", "create", "--scope", "read"]).output().unwrap());
        database.sql("ALTER TABLE waiters DROP COLUMN is_leaving; UPDATE meta SET version = 1");
        (database, fence.as_i64().unwrap())
    }

    fn name(&self) -> &str {
        self.0.as_str().rsplit_once('/').unwrap().1
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        Cluster::of_this_process().sql(self.name(), sql).trim().to_owned()
    }

    fn version(&self) -> String {
        self.sql("SELECT version || ' from ' || usable_from FROM meta")
    }

    /// Its tables, columns and indexes.
    fn shape(&self) -> String {
        self.sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
             FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2;
             SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        )
    }

    fn lockhouse(&self) -> Command {
        let mut command = lockhouse();
        command.env("LOCKHOUSE_DATABASE_URL", self.0.as_str());
        command
    }

    fn serve(&self) -> Process {
        Process::start(&mut self.lockhouse(), Path::new("unused.db"))
    }

    /// What a server says that starts. It stops at once.
    fn start(&self) -> Result<(), String> {
        let mut config = Config::default();
        config.server.listen.set_port(0);
        config.database.url = Some(self.0.clone());
        serve::start(&config, Clock::system()).map(serve::Running::stop).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn is_refused(&self, says: &str) {
        let error = self.start().unwrap_err();
        assert!(error.contains(says), "{error}");
    }

    /// Waits until a session of a server waits for another one.
    fn is_held_up(&self) {
        eventually(|| {
            self.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'lockhouse' AND wait_event_type = 'Lock'",
            ) != "0"
        });
    }
}

#[test]
fn servers_that_start_at_once_make_the_tables_once() {
    let shape = {
        let database = Database::empty();
        database.start().unwrap();
        database.shape()
    };
    for _ in 0..4 {
        let database = Database::empty();
        thread::scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| database.start())).collect();
            for started in starts {
                assert_eq!(started.join().unwrap(), Ok(()));
            }
        });
        assert_eq!((database.version().as_str(), database.shape()), ("2 from 1", shape.clone()));
    }
}

#[test]
fn servers_that_start_at_once_migrate_an_older_version_with_its_data() {
    let new = Database::empty();
    new.start().unwrap();
    let (database, fence) = Database::of_version_1();
    assert_ne!(database.shape(), new.shape());
    let servers = thread::scope(|scope| {
        let starts = [0, 1].map(|_| scope.spawn(|| database.serve()));
        starts.map(|started| started.join().unwrap())
    });
    assert_eq!((database.version().as_str(), database.shape()), ("2 from 1", new.shape()));
    for server in &servers {
        server.user("alice").heartbeat("w", &json!({ "fence": fence })).expect(200);
    }
    assert_eq!(database.sql("SELECT user_id FROM knocks"), "bob");
    let tokens = fine(&database.lockhouse().args(["token", "list"]).output().unwrap());
    assert_eq!(tokens.lines().count(), 1, "{tokens}");
}

#[test]
fn a_migration_waits_for_others_and_holds_them_up_for_a_moment_only() {
    let (database, fence) = Database::of_version_1();
    // As pg_dump does.
    let held = Cluster::of_this_process().hold(database.name(), "LOCK TABLE waiters IN ACCESS SHARE MODE");
    let server = thread::scope(|scope| {
        let starts = scope.spawn(|| database.serve());
        database.is_held_up();
        // It gives up, and tries again.
        database.sql("SELECT count(*) FROM waiters");
        assert_eq!(database.version(), "1 from 1");
        drop(held);
        starts.join().unwrap()
    });
    assert_eq!(database.version(), "2 from 1");
    server.user("alice").heartbeat("w", &json!({ "fence": fence })).expect(200);
}

/// Kills a server that starts while `statement` of another session holds it up.
fn killed_while_it_starts(database: &Database, statement: &str) {
    let held = Cluster::of_this_process().hold(database.name(), statement);
    let mut server = database
        .lockhouse()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    database.is_held_up();
    server.kill().unwrap();
    server.wait().unwrap();
    drop(held);
    eventually(|| {
        database.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lockhouse'",
        ) == "0"
    });
}

#[test]
fn a_step_is_taken_as_a_whole_or_not_at_all() {
    let database = Database::empty();
    // The last table of the first step is held up.
    killed_while_it_starts(&database, "CREATE TABLE webhooks (name text)");
    assert_eq!(database.shape(), "");
    database.start().unwrap();
    let shape = database.shape();
    let (database, _) = Database::of_version_1();
    killed_while_it_starts(&database, "LOCK TABLE waiters IN ACCESS SHARE MODE");
    assert_eq!(database.version(), "1 from 1");
    database.start().unwrap();
    assert_eq!((database.version().as_str(), database.shape()), ("2 from 1", shape));
}

#[test]
fn a_newer_version_is_used_if_it_says_so_and_left_as_it_is() {
    let database = Database::empty();
    database.start().unwrap();
    // A newer program has expanded the tables.
    database.sql("ALTER TABLE locks ADD COLUMN novel text; UPDATE meta SET version = 3");
    let server = database.serve();
    server.user("alice").acquire("w", &json!({})).expect(200);
    assert_eq!(database.version(), "3 from 1");
    // A still newer one has removed what this program needs.
    database.sql("UPDATE meta SET version = 4, usable_from = 3");
    eventually(|| server.user("probe").get("/readyz").status == 503);
    server.user("bob").acquire("other", &json!({})).expect(503);
    let says = "can be used from version 3 on, and this Lockhouse knows version 2: update it";
    database.is_refused(says);
    common::process::refused(&database.lockhouse().args(["token", "list"]).output().unwrap(), says);
    database.sql("UPDATE meta SET usable_from = 2");
    eventually(|| server.user("bob").acquire("other", &json!({})).status == 200);
}

#[test]
fn a_step_that_older_servers_could_not_bear_waits_until_they_have_stopped() {
    let (database, _) = Database::of_version_1();
    database.sql(
        "UPDATE nodes SET node_id = 'old', version = '0.1.0', knows = 0,
         seen_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE slot = 3",
    );
    database.is_refused("a server of version 0.1.0 uses the database");
    assert_eq!(database.version(), "1 from 1");
    // Those that can go on, go on.
    database.sql("UPDATE nodes SET knows = 1 WHERE slot = 3");
    database.start().unwrap();
    assert_eq!(database.version(), "2 from 1");
}
