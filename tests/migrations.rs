//! Migrations from older versions of the schema keep all data.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{NOON, Server};
use lockhouse::auth::Scope;
use lockhouse::store::sqlite::{APPLICATION_ID, SCHEMA_VERSION};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A file as version 1 made it: alice has a lock that bob asks for, carol's is over, and there is a history.
fn version_1(path: &Path) {
    let noon = NOON.0;
    let sql = Connection::open(path).unwrap();
    sql.execute_batch(include_str!("schemas/1.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
         INSERT INTO meta VALUES (1, 1795435200000007, 4, {noon}, 0);
         INSERT INTO locks VALUES
             ('design', 'alice', 'Alice', 'tab', 1795435200000007, {noon}, {noon}, {noon}, {noon} + 600000, 600000, 'a note', '{{\"k\":1}}', 0, 1, {noon} + 20000),
             ('over', 'carol', NULL, NULL, 1795435200000006, {noon} - 9000, {noon} - 9000, {noon} - 9000, {noon} - 1, 8999, NULL, '{{}}', 0, 0, NULL);
         INSERT INTO knocks VALUES ('design', 1, 'bob', 'Bob', NULL, 'please', {noon});
         INSERT INTO workspaces VALUES ('design', 'The design', {noon});
         INSERT INTO members VALUES ('design', 'alice', 'admin');
         INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, fence)
             VALUES (3, 'over', 'lock.acquired', {noon} - 9000, {noon} - 9000, 'carol', 1795435200000006),
                    (4, 'design', 'lock.acquired', {noon}, {noon}, 'alice', 1795435200000007);"
    ))
    .unwrap();
}

#[test]
fn tokens_of_agents_need_a_migrated_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("schemas/6.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 6;
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 7, 2, {}, 0);",
        NOON.0
    ))
    .unwrap();
    drop(sql);
    let create = |agent: &[&str]| {
        let arguments =
            [&["token", "create", "--scope", "user", "--user", "alice", "--database"], agent].concat();
        let mut command = common::process::lockhouse();
        command.args(&arguments[..7]).arg(&path).args(&arguments[7..]).output().unwrap()
    };
    assert!(create(&[]).status.success());
    let refused = create(&["--agent"]);
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && says.contains("start the server of this version"), "{says}");
    let server = Server::with(|config| config.database.path.clone_from(&path));
    let tokens = server.user("alice").get("/api/v1/tokens").expect(200);
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 1);
    assert_eq!(tokens["tokens"][0]["agent"], false);
    assert!(create(&["--agent"]).status.success());
    assert_eq!(schema(&server.sql()), schema(&Server::start().sql()));
}

#[test]
fn locks_of_a_version_3_database_are_of_the_kind_edit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("schemas/3.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 3;
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms, lock_count) VALUES (1, 7, 1, {0}, 0, 1);
         INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms)
             VALUES ('w', 'carol', 7, {0}, {0}, {0}, {0} + 600000, 600000);
         INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, fence)
             VALUES (1, 'w', 'lock.acquired', {0}, {0}, 'carol', 7);",
        NOON.0
    ))
    .unwrap();
    drop(sql);
    let server = Server::with(|config| config.database.path.clone_from(&path));
    assert_eq!(server.user("alice").lock("w")["kind"], "edit");
    let events = server.user("alice").get("/api/v1/workspaces/w/history").expect(200);
    assert_eq!(events["events"][0]["kind"], "edit");
    assert_eq!(schema(&server.sql()), schema(&Server::start().sql()));
}

#[test]
fn a_version_5_database_gets_the_positions_of_webhooks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("schemas/5.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 5;
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 7, 0, {0}, 0);",
        NOON.0
    ))
    .unwrap();
    drop(sql);
    let server = Server::with(|config| config.database.path.clone_from(&path));
    assert_eq!(schema(&server.sql()), schema(&Server::start().sql()));
}

#[test]
fn a_version_2_database_migrates_to_the_current_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(include_str!("schemas/2.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2;
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 7, 2, {0}, 0);
         INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, fence)
             VALUES (1, 'w', 'lock.acquired', {0}, {0}, 'carol', 7), (2, 'w', 'workspace.deleted', {0}, {0}, 'carol', 7);",
        NOON.0
    ))
    .unwrap();
    drop(sql);
    let server = Server::with(|config| config.database.path.clone_from(&path));
    assert_eq!(server.user("alice").history("w").len(), 2);
    assert_eq!(schema(&server.sql()), schema(&Server::start().sql()));
}

/// What a schema consists of, whatever the words.
fn schema(sql: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |query: &str| {
        let mut statement = sql.prepare(query).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap()));
            found.push(values.collect::<Vec<_>>().join(" "));
        }
    };
    add(
        "SELECT name, strict, wr FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    );
    add("SELECT tables.name, columns.* FROM sqlite_schema AS tables, pragma_table_xinfo(tables.name) AS columns
         WHERE tables.type = 'table' ORDER BY tables.name, columns.cid");
    add("SELECT indexes.name, columns.name, columns.\"desc\", columns.key FROM sqlite_schema AS indexes, pragma_index_xinfo(indexes.name) AS columns
         WHERE indexes.type = 'index' ORDER BY indexes.name, columns.seqno");
    found
}

#[test]
fn a_version_1_database_migrates_with_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    version_1(&path);
    let server = Server::with(|config| config.database.path.clone_from(&path));
    let mut alice = server.user("alice");
    let lock = alice.lock("design");
    assert_eq!(
        (&lock["fence"], &lock["expires_in_ms"], &lock["note"], &lock["metadata"], &lock["knock"]["user_id"]),
        (
            &json!(1_795_435_200_000_007_i64),
            &json!(600_000),
            &json!("a note"),
            &json!({ "k": 1 }),
            &json!("bob")
        )
    );
    assert_eq!(lock["knock"]["auto_grant_in_ms"], 30_000, "nobody could answer while it was away");
    assert_eq!(alice.lock("over"), Value::Null);
    let carols = alice.history("over");
    assert_eq!(
        carols.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(),
        ["lock.expired", "lock.acquired"]
    );
    assert!(alice.get("/metrics").text().contains("lockhouse_live_locks 1\n"));
    assert_eq!(alice.get("/api/v1/workspaces/design").expect(200)["name"], "The design");
    assert_eq!(schema(&server.sql()), schema(&Server::start().sql()), "as if it were new");
    let version: i32 = server.sql().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
    server.pass(30_000);
    common::eventually(|| alice.lock("design")["locked_by_user_id"] == "bob");
}

#[test]
fn creating_a_token_does_not_migrate_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    version_1(&path);
    let mut server = Server::start();
    server.stop();
    server.config.database.path.clone_from(&path);
    let token = server.token(Scope::Admin, None);
    let version = || -> i32 {
        Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    assert_eq!(version(), 1, "a server of the older version may run on it");
    server.config.auth.mode = lockhouse::config::AuthMode::Token;
    server.start_again();
    assert_eq!(version(), SCHEMA_VERSION);
    server.client().with_token(&token).get("/api/v1/tokens").expect(200);
}

#[test]
fn migrations_are_atomic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    version_1(&path);
    // Something is in the way of one of its steps.
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch("CREATE INDEX locks_by_check ON locks (fence)").unwrap();
    drop(sql);
    let mut server = Server::start();
    server.stop();
    server.config.database.path.clone_from(&path);
    let clock = lockhouse::time::Clock::Manual(std::sync::Arc::clone(&server.clock));
    let refused = lockhouse::cli::serve::start(&server.config, clock);
    assert!(refused.is_err_and(|error| error.to_string().contains("locks_by_check")));
    let sql = Connection::open(&path).unwrap();
    let version: i32 = sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let columns: i64 =
        sql.query_row("SELECT count(*) FROM pragma_table_info('locks')", [], |row| row.get(0)).unwrap();
    assert_eq!((version, columns), (1, 15));
}

/// A database in which something was changed by hand is refused with what it lacks, and left as it is.
#[track_caller]
fn refused(make: impl Fn(&Path), change: &str, says: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("changed.db");
    make(&path);
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(change).unwrap();
    drop(sql);
    let floor = directory.path().join(".changed.db.fence");
    let before = [&path, &floor].map(|file| std::fs::read(file).ok());
    let mut server = Server::start();
    server.stop();
    server.config.database.path.clone_from(&path);
    let clock = lockhouse::time::Clock::Manual(std::sync::Arc::clone(&server.clock));
    let error = lockhouse::cli::serve::start(&server.config, clock).err().unwrap().to_string();
    let shown = path.to_str().unwrap();
    assert!(error.starts_with(&format!("{shown} has {says}")), "{change}: {error}");
    assert!(error.contains("put a backup in its place"), "{error}");
    let after = [&path, &floor].map(|file| std::fs::read(file).ok());
    assert!(after == before, "{change}: nothing is written before");
}

fn newest(path: &Path) {
    let mut server = Server::with(|config| path.clone_into(&mut config.database.path));
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.stop();
}

#[test]
fn schema_differences_are_refused_before_any_write() {
    for (change, says) in [
        ("ALTER TABLE locks DROP COLUMN note", "no column locks.note"),
        ("DROP TABLE events", "no table events:"),
        ("DELETE FROM meta", "0 rows in the table meta, and must have one"),
        ("DROP INDEX locks_by_check", "no index locks_by_check"),
        ("DROP TABLE restarts", "no table restarts:"),
        ("ALTER TABLE knocks RENAME COLUMN at TO knocked_at", "no column knocks.at"),
        (
            "DROP INDEX locks_by_user; CREATE INDEX locks_by_user ON locks (fence)",
            "another index locks_by_user",
        ),
        (
            "DROP TABLE knocks; CREATE TABLE knocks (workspace_id, place, user_id, user_name, session_id, message, at)",
            "another column knocks.at",
        ),
        (
            "CREATE TRIGGER t BEFORE INSERT ON locks BEGIN SELECT RAISE(ABORT, 'no'); END",
            "the trigger t (locks), which Lockhouse has not made:",
        ),
        (
            "CREATE TRIGGER t AFTER DELETE ON events BEGIN DELETE FROM locks; END",
            "the trigger t (events), which",
        ),
        ("CREATE UNIQUE INDEX u ON locks (user_id)", "the index u (locks (user_id), unique), which"),
        (
            "CREATE TABLE notes (w TEXT REFERENCES workspaces)",
            "the reference notes.w (workspaces on delete no action)",
        ),
        (
            "DROP TABLE restarts;
             CREATE TABLE restarts (run INTEGER PRIMARY KEY, last_seen_at INTEGER NOT NULL, grace_ends_at INTEGER NOT NULL,
                                    more INTEGER NOT NULL) STRICT",
            "the column restarts.more (INTEGER not null), which",
        ),
    ] {
        refused(newest, change, says);
    }
}

#[test]
fn invalid_counters_are_refused_before_any_write() {
    for (change, says) in [
        (
            "UPDATE meta SET last_fence = 9223372036854775807",
            "meta.last_fence = 9223372036854775807 (from 0 to 89",
        ),
        ("UPDATE meta SET last_fence = 9000000000000000", "meta.last_fence = 9000000000000000 (from"),
        ("UPDATE meta SET last_revision = 0", "meta.last_revision = 0 (from max(events.revision) to"),
        ("UPDATE meta SET last_revision = 9007199254740992", "meta.last_revision = 9007199254740992"),
        ("UPDATE meta SET run = 9223372036854775807", "meta.run = 9223372036854775807 (from 0"),
        ("UPDATE meta SET run = -1; DELETE FROM restarts", "meta.run = -1"),
        ("UPDATE meta SET last_seen_at = 9223372036854775807", "meta.last_seen_at = 9223372036854775807"),
        ("UPDATE meta SET last_seen_at = -1; DELETE FROM restarts", "meta.last_seen_at = -1"),
        (
            "UPDATE meta SET wall_offset_ms = -9223372036854775808",
            "meta.wall_offset_ms = -9223372036854775808",
        ),
        (
            "DELETE FROM restarts; INSERT INTO restarts VALUES (5, 0, 0)",
            "restarts.run = 5 (from 1 to meta.run)",
        ),
        (
            "DELETE FROM restarts; INSERT INTO restarts VALUES (1, 9223372036854775806, 9223372036854775807)",
            "restarts.last_seen_at = 9223372036854775806",
        ),
        (
            "DELETE FROM restarts; INSERT INTO restarts VALUES (1, 0, -1)",
            "restarts.grace_ends_at = -1 (from restarts.last_seen_at)",
        ),
        (
            "UPDATE meta SET last_fence = 9223372036854775807, run = 9223372036854775806",
            "meta.last_fence = 9223372036854775807 (from 0 to 8999999999999999), meta.run = 9223372036854775806",
        ),
    ] {
        refused(newest, change, says);
    }
}

#[test]
fn a_damaged_old_schema_is_refused_and_not_migrated() {
    refused(
        version_1,
        "ALTER TABLE locks DROP COLUMN note; PRAGMA wal_checkpoint(TRUNCATE)",
        "no column locks.note",
    );
    refused(version_1, "DELETE FROM meta; PRAGMA wal_checkpoint(TRUNCATE)", "0 rows in the table meta");
}

#[test]
fn harmless_extra_schema_objects_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("more.db");
    newest(&path);
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(
        "CREATE TABLE notes (text); CREATE INDEX notes_on_locks ON locks (note); CREATE VIEW v AS SELECT 1; ANALYZE;
         ALTER TABLE locks ADD COLUMN more INTEGER NOT NULL DEFAULT 0; CREATE TRIGGER t INSERT ON notes BEGIN SELECT 1; END;",
    )
    .unwrap();
    drop(sql);
    let server = Server::with(|config| config.database.path.clone_from(&path));
    assert_eq!(server.user("alice").lock("w")["locked_by_user_id"], "alice");
}
