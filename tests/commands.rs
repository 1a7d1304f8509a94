//! `lockhouse token` and `lockhouse check --database`, as the program that people type.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use common::process::{Process, lockhouse};
use common::{Client, eventually};
use serde_json::json;

fn run(arguments: &[&str], database: &Path) -> Output {
    lockhouse().args(arguments).arg("--database").arg(database).output().unwrap()
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, says: &str) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(0) && message.contains(says), "{message}");
}

#[test]
fn tokens_are_made_before_the_first_start_and_beside_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let first = fine(&run(&["token", "create", "--scope", "admin", "--user", "root"], &database));
    let mode = std::fs::metadata(&database).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "whoever can read it could not use it, but need not know");
    let first = first.strip_suffix('\n').unwrap();
    assert!(first.starts_with("lh_") && first.len() == 46, "the token and nothing else: {first:?}");

    let server = Process::start(lockhouse().env("LOCKHOUSE_AUTH_MODE", "token"), &database);
    let with = |token: &str| Client::connect(server.address).with_token(token);
    with(first).get("/api/v1/tokens").expect(200);
    let create =
        ["token", "create", "--scope", "user", "--user", "alice", "--name", "Alice", "--expires", "90d"];
    let second = fine(&run(&create, &database));
    let lock = with(second.trim()).acquire("w", &json!({})).expect(200)["lock"].clone();
    assert_eq!((&lock["locked_by_user_id"], &lock["locked_by_name"]), (&json!("alice"), &json!("Alice")));

    let list = fine(&run(&["token", "list"], &database));
    assert!(!list.contains("lh_"), "{list}");
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    let alices = lines.iter().find(|line| line.contains("user=\"alice\"")).unwrap();
    let id = alices.split(' ').next().unwrap();
    fine(&run(&["token", "revoke", id], &database));
    // Within a second.
    eventually(|| with(second.trim()).get("/api/v1/locks").status == 401);
    refused(&run(&["token", "revoke", id], &database), "there is no token with the id");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(!log.contains("lh_"), "no token is in the log: {log}");
}

#[test]
fn what_cannot_be_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    refused(&run(&["token", "create", "--scope", "user"], &database), "--user");
    refused(&run(&["token", "create", "--scope", "god"], &database), "admin");
    refused(&run(&["token", "create", "--scope", "read", "--expires", "soon"], &database), "expires");
    refused(
        &run(&["token", "create", "--scope", "user", "--user", ""], &database),
        "user_id must have 1 to 255 bytes",
    );
    let foreign = directory.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    refused(&run(&["token", "create", "--scope", "admin"], &foreign), "not Lockhouse's");
    refused(&run(&["check"], &directory.path().join("none.db")), "there is no database");
    assert!(!directory.path().join("none.db").exists());
}

#[test]
fn check_finds_what_must_not_be_and_puts_it_right() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({ "ttl_ms": 86_400_000 })).expect(200);
    refused(&run(&["check"], &database), "is in use by the lockhouse with process id");
    server.terminate();
    assert_eq!(fine(&run(&["check"], &database)), "0 found, 0 put right\n");
    let sql = rusqlite::Connection::open(&database).unwrap();
    let raised: i64 = sql
        .query_row("UPDATE locks SET fence = fence + 1000000000 RETURNING fence", [], |row| row.get(0))
        .unwrap();
    drop(sql);
    let expected = format!("fence_above_counter workspace=\"w\" fence={raised}\n1 found, 1 put right\n");
    assert_eq!(fine(&run(&["check"], &database)), expected);
    // By the settings that are given: where one has to be a member, alice may not have it.
    let enforced = lockhouse()
        .args(["check", "--database"])
        .arg(&database)
        .env("LOCKHOUSE_WORKSPACES_MEMBERSHIP", "enforced")
        .output();
    assert_eq!(
        fine(&enforced.unwrap()),
        format!("no_such_workspace workspace=\"w\" fence={raised}\n1 found, 1 put right\n")
    );
    let server = Process::serve(&database);
    let lock = server.user("bob").acquire("w", &json!({})).expect(200)["lock"].clone();
    assert!(lock["fence"].as_i64().unwrap() > raised);
    server.terminate();
}
