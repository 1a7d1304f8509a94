//! `lockhouse restore`, with the real program and real files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use common::Client;
use common::process::{Process, fine, lockhouse, refused};
use common::shim;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

fn run(command: &str, file: &Path, database: &Path, flags: &[&str]) -> Output {
    lockhouse().arg(command).arg(file).arg("--database").arg(database).args(flags).output().unwrap()
}

fn new_fence(client: &mut Client, workspace: &str) -> i64 {
    client.acquire(workspace, &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap()
}

fn floor(database: &Path) -> i64 {
    let name = format!(".{}.fence", database.file_name().unwrap().to_str().unwrap());
    fs::read_to_string(database.with_file_name(name)).unwrap().lines().last().unwrap().parse().unwrap()
}

/// The files of a directory, with their contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap_or_default())
        })
        .collect();
    files.sort();
    files
}

/// The file that a restore has kept.
fn kept(folder: &Path) -> PathBuf {
    let names = files(folder).into_iter().map(|(name, _)| name);
    let kept: Vec<_> =
        names.filter(|name| name.contains(".before-restore-") && !name.ends_with("-shm")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    folder.join(&kept[0])
}

/// A stopped server's database and an older backup of it. At the time of the backup alice had "design".
/// Since then bob has had a lock with the highest fence, on "after".
struct Story {
    directory: TempDir,
    database: PathBuf,
    backup: PathBuf,
    last: i64,
}

impl Story {
    fn tell() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (database, backup) = (directory.path().join("lockhouse.db"), directory.path().join("backup.db"));
        let server = Process::serve(&database);
        let mut root = server.user("root");
        let workspace = "/api/v1/workspaces/design";
        root.call("PUT", workspace, Some(&json!({ "name": "The design" }))).expect(200);
        root.call("PUT", &format!("{workspace}/members/alice"), Some(&json!({ "role": "editor" })))
            .expect(200);
        new_fence(&mut server.user("alice"), "design");
        let create = ["token", "create", "--scope", "read", "--database", database.to_str().unwrap()];
        fine(&lockhouse().args(create).output().unwrap());
        fine(&run("backup", &backup, &database, &[]));
        let last = new_fence(&mut server.user("bob"), "after");
        // The last writes are in the write-ahead log only.
        server.kill();
        Self { directory, database, backup, last }
    }

    fn restore(&self, flags: &[&str]) -> Output {
        run("restore", &self.backup, &self.database, flags)
    }
}

fn is_locked(server: &Process, workspace: &str) -> bool {
    !server.user("root").lock(workspace).is_null()
}

#[test]
fn a_restore_ends_the_locks_raises_the_fences_and_keeps_the_old_file() {
    let story = Story::tell();
    let said = fine(&story.restore(&[]));
    for part in [
        "1 workspace, 1 member, 1 token and 1 event of the history, as of 20",
        "1 lock of the backup ended",
        "revoke and remove them again",
        "the previous database is in",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    let old = Connection::open(kept(story.directory.path())).unwrap();
    let holder: String = old
        .query_row("SELECT user_id FROM locks WHERE workspace_id = 'after'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(holder, "bob", "the log was folded in");
    assert!(floor(&story.database) >= story.last + 3_600_000_000);

    let server = Process::serve(&story.database);
    assert!(!is_locked(&server, "design") && !is_locked(&server, "after"));
    let mut alice = server.user("alice");
    let lost = alice.heartbeat("design", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("revoked"), &Value::Null));
    let history = alice.get("/api/v1/workspaces/design/history").expect(200);
    assert_eq!(history["events"][0]["detail"]["reason"], "a backup was restored");
    // It is a new lease: others may have had the workspace since the backup was made.
    let again = alice.acquire("design", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired");
    assert!(again["lock"]["fence"].as_i64().unwrap() > story.last + 3_600_000_000);
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let check = ["check", "--database", story.database.to_str().unwrap()];
    assert_eq!(fine(&lockhouse().args(check).output().unwrap()), "0 found\n");
}

#[test]
fn tokens_come_back_unless_they_are_revoked() {
    for (flags, left) in [(&[][..], 1), (&["--revoke-tokens"][..], 0)] {
        let story = Story::tell();
        let said = fine(&story.restore(flags));
        assert_eq!(said.contains("all tokens were revoked"), left == 0, "{said}");
        let list = ["token", "list", "--database", story.database.to_str().unwrap()];
        assert_eq!(fine(&lockhouse().args(list).output().unwrap()).lines().count(), left);
    }
}

#[test]
fn a_restore_is_refused_while_a_server_or_another_program_has_the_database() {
    let story = Story::tell();
    let server = Process::serve(&story.database);
    refused(&story.restore(&[]), "is in use by the lockhouse with process id");
    refused(
        &run("restore", &story.database, &story.directory.path().join("new.db"), &[]),
        "a server has it open",
    );
    assert!(is_locked(&server, "after"));
    server.terminate();
    let other = Connection::open(&story.database).unwrap();
    other.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
    refused(&story.restore(&[]), "another program has");
    drop(other);
    fine(&story.restore(&[]));
}

#[test]
fn what_is_no_backup_is_refused_and_nothing_is_changed() {
    let story = Story::tell();
    let folder = story.directory.path();
    let whole = fs::read(&story.backup).unwrap();
    let bad = folder.join("bad.db");
    let changed = |sql: &str| {
        fs::write(&bad, &whole).unwrap();
        Connection::open(&bad).unwrap().execute_batch(sql).unwrap();
        fs::read(&bad).unwrap()
    };
    let mut torn = whole.clone();
    torn[4_096..12_288].fill(0xff);
    let cases = [
        (Vec::new(), "it is empty"),
        (b"nonsense".repeat(99), "is not a SQLite database"),
        (whole[..whole.len() / 2].to_vec(), "is damaged"),
        (torn, "is damaged"),
        (changed("PRAGMA user_version = 99"), "made by a newer Lockhouse (schema version 99"),
        (changed("PRAGMA application_id = 7"), "not Lockhouse's"),
        (changed("DROP TABLE members"), "has no table members"),
    ];
    // The lock file is empty or has a note.
    let before = files(folder);
    for (bytes, says) in cases {
        fs::write(&bad, bytes).unwrap();
        let output = run("restore", &bad, &story.database, &[]);
        refused(&output, says);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("new.db"), "the copy is not named");
        fs::write(&bad, &before.iter().find(|(name, _)| name == "bad.db").unwrap().1).unwrap();
        assert!(files(folder) == before, "{says}: something was changed");
    }
    refused(&run("restore", folder, &story.database, &[]), "no regular file");
    refused(&run("restore", &folder.join("none.db"), &story.database, &[]), "none.db");
    refused(&run("restore", &story.database, &story.database, &[]), "it is the database itself");
    refused(&run("restore", &bad, &folder.join("none/lockhouse.db"), &[]), "there is no directory");
    fs::write(&bad, "").unwrap();
    refused(&run("restore", &bad, &folder.join("new.db"), &[]), "it is empty");
    assert!(!folder.join("new.db").exists());
}

#[test]
fn a_backup_of_an_older_version_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) = (directory.path().join("lockhouse.db"), directory.path().join("old.db"));
    let sql = Connection::open(&backup).unwrap();
    sql.execute_batch(include_str!("schemas/2.sql")).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA application_id = {}; PRAGMA user_version = 2; PRAGMA journal_mode = WAL;
         INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 7, 2, 1795435200000, 0);
         INSERT INTO workspaces VALUES ('design', 'The design', 1);",
        lockhouse::store::sqlite::APPLICATION_ID
    ))
    .unwrap();
    // The backup has a log beside it, and is in a directory of its own.
    let copied = directory.path().join("copied");
    fs::create_dir(&copied).unwrap();
    for end in ["", "-wal"] {
        fs::copy(directory.path().join(format!("old.db{end}")), copied.join(format!("old.db{end}"))).unwrap();
    }
    drop(sql);
    let said = fine(&run("restore", &copied.join("old.db"), &database, &[]));
    assert!(said.contains("1 workspace,"), "{said}");
    assert!(!said.contains("the previous database"), "there was none: {said}");
    let server = Process::serve(&database);
    assert_eq!(server.user("root").get("/api/v1/workspaces/design").expect(200)["name"], "The design");
    server.terminate();
}

#[test]
fn on_a_new_machine_fences_begin_above_those_since_the_backup() {
    let story = Story::tell();
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("other name.db");
    fine(&run("restore", &story.backup, &database, &[]));
    assert!(floor(&database) >= story.last + 3_600_000_000);
    let server = Process::serve(&database);
    assert!(new_fence(&mut server.user("carol"), "after") > story.last);
    server.terminate();
}

#[test]
fn a_restore_by_root_leaves_all_files_to_the_user_of_the_server() {
    const USER: u32 = 4_711;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let story = Story::tell();
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("lockhouse.db");
    fs::copy(&story.database, &database).unwrap();
    for path in [folder.path(), &database] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    fine(&run("restore", &story.backup, &database, &[]));
    for (name, _) in files(folder.path()) {
        assert_eq!(fs::metadata(folder.path().join(&name)).unwrap().uid(), USER, "{name}");
    }
    assert_eq!(files(folder.path()).len(), 4, "the database, the old one, the fence floor, the lock file");
}

#[test]
fn a_damaged_database_is_replaced_and_kept() {
    let story = Story::tell();
    fs::remove_file(story.directory.path().join("lockhouse.db-wal")).unwrap();
    let mut bytes = fs::read(&story.database).unwrap();
    bytes[100..].fill(0xff);
    fs::write(&story.database, &bytes).unwrap();
    let said = fine(&story.restore(&[]));
    assert!(said.contains("it could not be read"), "{said}");
    assert!(fs::metadata(kept(story.directory.path())).unwrap().len() > 0);
    let server = Process::serve(&story.database);
    // The fence file knows what the damaged file cannot tell.
    assert!(new_fence(&mut server.user("carol"), "after") > story.last);
    server.terminate();
}

#[test]
fn a_restore_that_is_killed_anywhere_leaves_a_usable_database_and_repeats_no_fence() {
    let shims = tempfile::tempdir().unwrap();
    let Some(library) = shim::compile("kill", shims.path()) else { return };
    let story = Story::tell();
    let mut before = Vec::new();
    for at in 1.. {
        assert!(at < 1_000, "it does not end");
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files(story.directory.path()) {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let database = directory.path().join("lockhouse.db");
        let mut command = lockhouse();
        command.env("LD_PRELOAD", &library).env("SHIM_KILL_AT", at.to_string());
        let output =
            command.arg("restore").arg(&story.backup).arg("--database").arg(&database).output().unwrap();
        let is_done = output.status.success();
        let now = files(directory.path());
        if is_done || now != before {
            let server = Process::serve(&database);
            let mut carol = server.user("carol");
            assert_eq!(
                is_locked(&server, "after"),
                is_locked(&server, "design"),
                "the old or the new one, {at}"
            );
            let fence = new_fence(&mut carol, "fresh");
            assert!(fence > story.last, "{at}");
            server.kill();
            if !is_done {
                fine(&run("restore", &story.backup, &database, &[]));
                assert!(!directory.path().join(".lockhouse.db.restore").exists(), "{at}");
                let server = Process::serve(&database);
                assert!(
                    !is_locked(&server, "after") && new_fence(&mut server.user("dora"), "fresh") > fence,
                    "{at}"
                );
                server.kill();
            }
        }
        if is_done {
            return;
        }
        assert_eq!(output.status.code(), None, "{at}: {}", String::from_utf8_lossy(&output.stderr));
        before = now;
    }
}
