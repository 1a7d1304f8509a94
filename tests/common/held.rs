//! A transaction of another process that holds up every write to the database of a server, and no read; and a disk of
//! PostgreSQL that is full.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use lockhouse::config::Config;

use super::postgres::{Cluster, name_in};
use super::{Server, eventually};

/// Ends when it is dropped.
pub struct Held(Transaction);

enum Transaction {
    Sqlite(rusqlite::Connection),
    Postgres(Child),
}

const LOCK_ALL: &str = "BEGIN;
    DO $$ BEGIN EXECUTE (SELECT 'LOCK TABLE ' || string_agg(tablename, ', ') || ' IN EXCLUSIVE MODE'
                         FROM pg_tables WHERE schemaname = 'public'); END $$;
    \\echo held\n";

/// A trigger on each table that fails as a full disk does.
const FILL: &str = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE format('CREATE TRIGGER no_space BEFORE INSERT OR UPDATE OR DELETE ON %I EXECUTE FUNCTION fail()', name);
        END LOOP;
    END $$";

impl Held {
    /// Holds up the writes from now on.
    pub fn on(server: &Server) -> Self {
        let Some(url) = &server.config.database.url else {
            let connection = server.sql();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            return Self(Transaction::Sqlite(connection));
        };
        let mut held = None;
        // PostgreSQL may choose it as the victim of a deadlock with a transaction of the server.
        eventually(|| {
            let mut psql = Cluster::of_this_process().psql(name_in(url));
            let mut child =
                psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            child.stdin.as_mut().unwrap().write_all(LOCK_ALL.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            held = Some(Self(Transaction::Postgres(child)));
            line == "held\n"
        });
        held.unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &mut self.0 {
            // Closing the connection rolls it back.
            Transaction::Sqlite(_) => {}
            Transaction::Postgres(psql) => {
                drop(psql.stdin.take());
                let _ = psql.wait();
            }
        }
    }
}

/// Writes hardly wait for a database that is held. PostgreSQL must answer in this time on a slow machine, too; and for
/// longer than 3 s it would count as away.
pub fn hardly_wait(config: &mut Config) {
    let on_postgres = config.database.url.is_some();
    config.database.busy_timeout = Duration::from_millis(if on_postgres { 2_000 } else { 5 });
}

/// Lets each change in the PostgreSQL of this server fail as on a full disk.
pub fn fill_disk(server: &Server) {
    server.query(FILL);
}

/// Undoes [`fill_disk`].
pub fn free_disk(server: &Server) {
    server.query("DROP FUNCTION fail CASCADE");
}

/// Takes the PostgreSQL of this server away: connections end, and none is accepted.
pub fn cut_off(server: &Server) {
    let (cluster, name) = (Cluster::of_this_process(), name_in(server.config.database.url.as_ref().unwrap()));
    cluster.sql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    cluster.sql("postgres", &end);
}
