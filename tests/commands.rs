//! The commands `lockhouse token` and `lockhouse check --database`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

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
fn tokens_are_created_before_the_first_start_and_while_running() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let first = fine(&run(&["token", "create", "--scope", "admin", "--user", "root"], &database));
    let mode = std::fs::metadata(&database).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "only its owner may read it");
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
fn the_token_command_needs_only_the_database_setting() {
    let directory = tempfile::tempdir().unwrap();
    let (config, database) = (directory.path().join("c.toml"), directory.path().join("lockhouse.db"));
    // The secret is in the server's environment.
    let text = format!("[auth]\nmode = \"jwt\"\n[database]\npath = {database:?}\n");
    std::fs::write(&config, text).unwrap();
    let made =
        lockhouse().args(["token", "create", "--scope", "read", "--config"]).arg(&config).output().unwrap();
    fine(&made);
    assert!(String::from_utf8_lossy(&made.stderr).contains("it was created"), "a wrong path must be noticed");
    let listed = lockhouse().args(["token", "list", "--config"]).arg(&config).output().unwrap();
    assert_eq!(fine(&listed).lines().count(), 1);
    assert!(listed.stderr.is_empty());
}

#[test]
fn invalid_arguments_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    refused(&run(&["token", "create", "--scope", "user"], &database), "--user");
    refused(&run(&["token", "create", "--scope", "god"], &database), "admin");
    refused(&run(&["token", "create", "--scope", "read", "--expires", "soon"], &database), "expires");
    refused(
        &run(&["token", "create", "--scope", "user", "--user", ""], &database),
        "user_id must have 1 to 255 bytes",
    );
    let expires = |expires| run(&["token", "create", "--scope", "read", "--expires", expires], &database);
    refused(&expires("0s"), "expire at once");
    refused(&expires("8000y"), "after the year 9999");
    refused(&expires("584000000y"), "after the year 9999");
    assert!(!database.exists());
    let foreign = directory.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    refused(&run(&["token", "create", "--scope", "admin"], &foreign), "not Lockhouse's");
    refused(&run(&["check"], &directory.path().join("none.db")), "there is no database");
    assert!(!directory.path().join("none.db").exists());
}

#[test]
fn a_token_that_cannot_be_printed_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    fine(&run(&["token", "create", "--scope", "read"], &database));
    for (out, says) in
        [(">&-", "would be lost"), (">/dev/null", "would be lost"), (">/dev/full", "it was revoked")]
    {
        let command = format!("\"$0\" token create --scope read --database \"$1\" {out}");
        let program = lockhouse().get_program().to_owned();
        let output = Command::new("sh").arg("-c").arg(command).arg(program).arg(&database).output().unwrap();
        refused(&output, says);
        assert_eq!(fine(&run(&["token", "list"], &database)).lines().count(), 1, "{out}");
    }
}

#[test]
fn the_token_command_refuses_a_hard_linked_database() {
    let directory = tempfile::tempdir().unwrap();
    let (database, other) = (directory.path().join("lockhouse.db"), directory.path().join("other.db"));
    fine(&run(&["token", "create", "--scope", "read"], &database));
    std::fs::hard_link(&database, &other).unwrap();
    for path in [&database, &other] {
        refused(&run(&["token", "create", "--scope", "admin"], path), "second name");
        refused(&run(&["token", "list"], path), "second name");
    }
}

#[test]
fn check_honours_the_restart_grace() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.terminate();
    // The server has been away for an hour, and the lease would have ended meanwhile.
    let sql = rusqlite::Connection::open(&database).unwrap();
    sql.execute_batch(
        "UPDATE meta SET last_seen_at = last_seen_at - 3600000;
         UPDATE locks SET expires_at = (SELECT last_seen_at + 60000 FROM meta)",
    )
    .unwrap();
    let seen = || {
        let rows = "SELECT last_seen_at, wall_offset_ms, expires_at FROM meta, locks";
        sql.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let before: (i64, i64, i64) = seen();
    assert_eq!(fine(&run(&["check", "--repair"], &database)), "0 found, 0 repaired\n");
    assert_eq!(seen(), before);
    let server = Process::serve(&database);
    assert_eq!(server.user("alice").lock("w")["locked_by_user_id"], "alice", "by restart grace");
    server.terminate();
}

#[test]
fn check_repairs_any_number_of_violations() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({ "ttl_ms": 86_400_000 })).expect(200);
    server.terminate();
    let sql = rusqlite::Connection::open(&database).unwrap();
    let columns = "user_id, fence + 1, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, metadata";
    sql.execute_batch(&format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1234)
         INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, metadata)
         SELECT 'v' || n, {columns} FROM locks, n"
    ))
    .unwrap();
    sql.execute("UPDATE locks SET expires_at = 0 WHERE workspace_id <> 'w'", []).unwrap();
    drop(sql);
    let said = fine(&run(&["check", "--repair"], &database));
    assert_eq!(said.lines().filter(|line| line.starts_with("expired_lock")).count(), 1_234);
    assert_eq!(fine(&run(&["check", "--repair"], &database)), "0 found, 0 repaired\n");
}

#[test]
fn check_finds_and_repairs_violations() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({ "ttl_ms": 86_400_000 })).expect(200);
    refused(&run(&["check", "--repair"], &database), "is in use by the lockhouse with process id");
    assert_eq!(fine(&run(&["check"], &database)), "0 found\n", "a server may run");
    server.terminate();
    assert_eq!(fine(&run(&["check", "--repair"], &database)), "0 found, 0 repaired\n");
    let sql = rusqlite::Connection::open(&database).unwrap();
    let raised: i64 = sql
        .query_row("UPDATE locks SET fence = fence + 1000000000 RETURNING fence", [], |row| row.get(0))
        .unwrap();
    drop(sql);
    let found = format!("fence_above_counter workspace=\"w\" fence={raised}\n1 found");
    for _ in 0..2 {
        let looked = run(&["check"], &database);
        refused(&looked, "--repair");
        assert_eq!(String::from_utf8_lossy(&looked.stdout), format!("{found}\n"), "it only looks");
    }
    let expected = format!("{found}, 1 repaired\n");
    assert_eq!(fine(&run(&["check", "--repair"], &database)), expected);
    // By the settings that are given: where one has to be a member, alice may not have it.
    let enforced = lockhouse()
        .args(["check", "--repair", "--database"])
        .arg(&database)
        .env("LOCKHOUSE_WORKSPACES_MEMBERSHIP", "enforced")
        .output();
    assert_eq!(
        fine(&enforced.unwrap()),
        format!("no_such_workspace workspace=\"w\" fence={raised}\n1 found, 1 repaired\n")
    );
    let server = Process::serve(&database);
    let lock = server.user("bob").acquire("w", &json!({})).expect(200)["lock"].clone();
    assert!(lock["fence"].as_i64().unwrap() > raised);
    server.terminate();
}

#[test]
fn check_only_reads_and_tells_of_damage() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.terminate();
    let whole = std::fs::read(&database).unwrap();
    assert_eq!(fine(&run(&["check"], &database)), "0 found\n");
    assert_eq!(std::fs::read(&database).unwrap(), whole);
    let floor = directory.path().join(".lockhouse.db.fence");
    let floor_text = std::fs::read(&floor).unwrap();
    std::fs::write(&floor, "nonsense").unwrap();
    refused(&run(&["check"], &database), "the fence floor");
    std::fs::write(&floor, floor_text).unwrap();
    let mut torn = whole.clone();
    torn[8_192..12_288].fill(0xff);
    std::fs::write(&database, &torn).unwrap();
    refused(&run(&["check"], &database), "is damaged");
    std::fs::write(&database, "").unwrap();
    refused(&run(&["check"], &database), "is an empty file");
    assert_eq!(std::fs::metadata(&database).unwrap().len(), 0, "no tables are made");
    // Both ways of checking read the same settings.
    std::fs::write(&database, &whole).unwrap();
    let path = database.to_str().unwrap();
    let repaired = lockhouse().args(["check", "--repair"]).env("LOCKHOUSE_DATABASE_PATH", path).output();
    assert_eq!(fine(&repaired.unwrap()), "0 found, 0 repaired\n");
}
