//! `lockhouse copy`, from a real file to a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::docs::blocks;
use common::eventually;
use common::postgres::{Cluster, new_database};
use common::process::{Process, fine, lockhouse, refused};
use lockhouse::config::Secret;
use rusqlite::Connection;
use serde_json::{Value, json};

fn copy(database: &Path, url: &Secret) -> Command {
    let mut command = lockhouse();
    command.args(["copy", "--database"]).arg(database).env("LOCKHOUSE_DATABASE_URL", url.as_str());
    command
}

fn serve(url: &Secret) -> Process {
    let mut command = lockhouse();
    command.env("LOCKHOUSE_DATABASE_URL", url.as_str());
    Process::start(&mut command, Path::new("unused.db"))
}

fn name(url: &Secret) -> &str {
    url.as_str().rsplit('/').next().unwrap()
}

/// Everything in the tables that is copied, as JSON of the database.
fn rows(cluster: &Cluster, url: &Secret, table: &str) -> String {
    cluster.sql(name(url), &format!("SELECT coalesce(json_agg(t ORDER BY t::text), '[]') FROM {table} t"))
}

#[test]
fn everything_is_copied_and_locks_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let (cluster, url) = (Cluster::of_this_process(), new_database());
    let server = Process::serve(&database);
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let note = "tab\there, \"quotes\", back\\slash\\N, ä 🔒";
    let held = alice.acquire("w", &json!({"ttl_ms": 600_000, "metadata": {"note": note}})).expect(200);
    bob.post("/api/v1/workspaces/w/lock/knock", &json!({"message": note})).expect(202);
    alice.call("PUT", "/api/v1/workspaces/w", Some(&json!({"name": "Ä\\N"}))).expect(200);
    alice.call("PUT", "/api/v1/workspaces/w/members/bob", Some(&json!({"role": "editor"}))).expect(200);
    for _ in 0..3 {
        bob.acquire("ended", &json!({})).expect(200);
        bob.release("ended", &json!({})).expect(200);
    }
    let history = bob.history("ended");
    refused(&copy(&database, &url).output().unwrap(), "is in use by the lockhouse with process id");
    assert_eq!(server.terminate().0, Some(0));
    fine(
        &lockhouse()
            .args(["token", "create", "--scope", "read", "--database"])
            .arg(&database)
            .output()
            .unwrap(),
    );

    let said = fine(&copy(&database, &url).output().unwrap());
    for part in [
        "1 workspace, 1 member, 1 token and ",
        " events of the history",
        ", 1 lock and",
        "start no server on",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Row by row, as SQLite has them.
    let sqlite = Connection::open(&database).unwrap();
    for table in ["locks", "knocks", "workspaces", "members", "tokens", "events"] {
        let count: i64 =
            sqlite.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        let copied: Vec<Value> = serde_json::from_str(&rows(cluster, &url, table)).unwrap();
        assert!(count > 0 && count == i64::try_from(copied.len()).unwrap(), "{table}");
    }
    let floor = cluster.sql(name(&url), "SELECT fence_floor FROM meta").trim().parse::<i64>().unwrap();
    let fence = held["lock"]["fence"].as_i64().unwrap();
    assert!(floor >= fence, "{floor} {fence}");

    let server = serve(&url);
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.heartbeat("w", &json!({})).expect(200);
    let lock = alice.lock("w");
    assert_eq!((&lock["fence"], &lock["metadata"]["note"]), (&json!(fence), &json!(note)));
    assert_eq!(lock["knock"]["message"], json!(note), "{lock}");
    assert_eq!(bob.history("ended"), history);
    let next = bob.acquire("ended", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert!(next > floor, "{next} {floor}");
    let invariants = alice.post("/api/v1/invariants/check", &json!({})).expect(200);
    assert_eq!(invariants["violations"], json!([]), "{invariants}");
    // A target that is in use, or that has data.
    let empty = directory.path().join("empty.db");
    fine(
        &lockhouse().args(["token", "create", "--scope", "read", "--database"]).arg(&empty).output().unwrap(),
    );
    refused(&copy(&empty, &url).output().unwrap(), "a server uses the PostgreSQL database");
    assert_eq!(server.terminate().0, Some(0));
    let before = rows(cluster, &url, "events");
    refused(&copy(&empty, &url).output().unwrap(), "has data of Lockhouse already");
    assert_eq!(rows(cluster, &url, "events"), before);
}

#[test]
fn a_copy_that_ends_in_the_middle_leaves_nothing_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let (cluster, url) = (Cluster::of_this_process(), new_database());
    let server = Process::serve(&database);
    let mut alice = server.user("alice");
    alice.call("PUT", "/api/v1/workspaces/w", Some(&json!({"name": "W"}))).expect(200);
    alice.acquire("w", &json!({})).expect(200);
    assert_eq!(server.terminate().0, Some(0));
    // Makes the tables.
    fine(&lockhouse().args(["token", "list"]).env("LOCKHOUSE_DATABASE_URL", url.as_str()).output().unwrap());
    // Another session holds the last table, so the copy stops before it, with the others written.
    let mut holder = Command::new("psql")
        .args(["-qAt", "-h", cluster.directory().to_str().unwrap(), "-U", "lockhouse", "-d", name(&url)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_holder = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut to_holder, b"BEGIN; LOCK TABLE events;\n").unwrap();
    let granted = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND granted AND mode = 'AccessExclusiveLock'";
    eventually(|| cluster.sql(name(&url), granted).trim() == "1");
    let mut child = copy(&database, &url).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted";
    eventually(|| cluster.sql(name(&url), waits).trim() == "1");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(to_holder);
    assert!(holder.wait().unwrap().success());
    let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lockhouse' AND datname = current_database()";
    eventually(|| cluster.sql(name(&url), others).trim() == "0");
    for table in ["locks", "workspaces", "events"] {
        assert_eq!(rows(cluster, &url, table).trim(), "[]", "{table}");
    }
    let said = fine(&copy(&database, &url).output().unwrap());
    assert!(said.contains("1 workspace, 0 members, 0 tokens and 1 event"), "{said}");
    // The file is as it was.
    let server = Process::serve(&database);
    server.user("alice").heartbeat("w", &json!({})).expect(200);
}

#[test]
fn a_copy_needs_a_file_and_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let url = new_database();
    refused(&copy(&database, &url).output().unwrap(), "there is no database");
    assert!(!database.exists());
    std::fs::write(&database, "").unwrap();
    refused(&copy(&database, &url).output().unwrap(), "is an empty file");
    let without = lockhouse().args(["copy", "--database"]).arg(&database).output().unwrap();
    refused(&without, "there is nothing to copy to: set LOCKHOUSE_DATABASE_URL");
}

/// What docs/scale.md says about a backup of PostgreSQL.
#[test]
fn a_dump_is_restored_without_its_locks_and_with_greater_fences() {
    let (cluster, before, after) = (Cluster::of_this_process(), new_database(), new_database());
    let server = serve(&before);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    server.user("bob").post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    let dump = "pg_dump \"$0\" | psql -q -v ON_ERROR_STOP=1 \"$1\" >/dev/null";
    let copied =
        Command::new("bash").args(["-o", "pipefail", "-c", dump, before.as_str(), after.as_str()]).output();
    fine(&copied.unwrap());
    // Given after the backup was made.
    let lost = alice.acquire("later", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert_eq!(server.terminate().0, Some(0));
    let forget = blocks("scale.md", "sh").into_iter().find(|block| block.contains("DELETE")).unwrap();
    let forgets =
        Command::new("bash").args(["-ec", &forget]).env("LOCKHOUSE_DATABASE_URL", after.as_str()).output();
    fine(&forgets.unwrap());
    let floor = lost + 1_000_000_000_000;
    let mut command = lockhouse();
    command.args(["serve", "--fence-at-least", &floor.to_string()]);
    command.env("LOCKHOUSE_DATABASE_URL", after.as_str());
    let server = Process::start_with(&mut command, Path::new("unused.db"));
    let mut bob = server.user("bob");
    let fence = bob.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert!(fence > floor, "{fence} {floor}");
    assert_eq!(bob.post("/api/v1/invariants/check", &json!({})).expect(200)["violations"], json!([]));
    assert_eq!(rows(cluster, &after, "knocks").trim(), "[]");
}
