//! `lockhouse backup`, with the real program and real files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::eventually;
use common::process::{Process, fine, lockhouse, refused};
use rusqlite::Connection;
use serde_json::json;

fn backup(database: &Path, file: &Path) -> Output {
    lockhouse().arg("backup").arg(file).arg("--database").arg(database).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn is_whole(file: &Path) -> Connection {
    let sql = Connection::open(file).unwrap();
    let found: String = sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
    sql
}

fn number(sql: &Connection, query: &str) -> i64 {
    sql.query_row(query, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_backup_is_private_overwrites_nothing_and_has_the_fence_floor() {
    let directory = tempfile::tempdir().unwrap();
    let (database, file) = (directory.path().join("lockhouse.db"), directory.path().join("a backup.db"));
    let server = Process::serve(&database);
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    let said = fine(&backup(&database, &file));
    assert!(said.contains("a backup.db has 0 workspaces, 0 members, 0 tokens and 1 event of"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let sql = is_whole(&file);
    assert_eq!(number(&sql, "SELECT count(*) FROM locks"), 1);
    // The floor is ahead of the last fence while the server runs.
    assert_eq!(number(&sql, "SELECT last_fence FROM meta"), fence + 60_000_000);
    drop(sql);
    let before = fs::read(&file).unwrap();
    refused(&backup(&database, &file), "does not overwrite");
    assert_eq!(fs::read(&file).unwrap(), before);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    refused(&backup(&database, &link), "does not overwrite");
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
    let (code, _) = server.terminate();
    assert_eq!(code, Some(0));
    let second = directory.path().join("second.db");
    fine(&backup(&database, &second));
    is_whole(&second);
    let left =
        [".lockhouse.db.fence", "a backup.db", "link", "lockhouse.db", "lockhouse.db.lock", "second.db"];
    assert_eq!(names(directory.path()), left);
}

#[test]
fn a_backup_under_load_has_everything_that_was_acknowledged_before() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    let (stop, acquired) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut alice = server.user("alice");
            while !stop.load(Ordering::SeqCst) {
                let number = acquired.load(Ordering::SeqCst);
                if number < 900 {
                    alice.acquire(&format!("w{number}"), &json!({})).expect(200);
                    acquired.store(number + 1, Ordering::SeqCst);
                } else {
                    alice.heartbeat("w0", &json!({})).expect(200);
                }
            }
        });
        for round in 1..=3 {
            eventually(|| acquired.load(Ordering::SeqCst) > round);
            let before = acquired.load(Ordering::SeqCst);
            let file = directory.path().join(format!("{round}.db"));
            fine(&backup(&database, &file));
            let locks = number(&is_whole(&file), "SELECT count(*) FROM locks");
            assert!(usize::try_from(locks).unwrap() >= before, "{locks} of {before}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    server.terminate();
}

#[test]
fn paths_of_every_kind_work_or_are_refused_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("a folder");
    fs::create_dir(&folder).unwrap();
    let database = folder.join("lock house.db");
    Process::serve(&database).terminate();
    let odd = folder.join(OsStr::from_bytes(b"b\xffckup.db"));
    fine(&backup(&database, &odd));
    is_whole(&odd);
    let mut here = lockhouse();
    let here = here.current_dir(&folder).args(["backup", "here.db", "--database", "lock house.db"]);
    fine(&here.output().unwrap());
    is_whole(&folder.join("here.db"));
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    fine(&backup(&link, &folder.join("by link.db")));

    let before = (names(directory.path()), names(&folder));
    let target = directory.path().join("b.db");
    refused(&backup(&database, &folder), "does not overwrite");
    refused(&backup(&database, &directory.path().join("none/b.db")), "cannot write");
    refused(&backup(&database, &database.join("b.db")), "cannot write");
    refused(&backup(&directory.path().join("none.db"), &target), "there is no database");
    refused(&backup(&folder, &target), "is a directory");
    let (empty, foreign) = (folder.join("empty.db"), folder.join("foreign.db"));
    fs::write(&empty, "").unwrap();
    refused(&backup(&empty, &target), "is an empty file");
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
    fs::write(&foreign, "a".repeat(200)).unwrap();
    refused(&backup(&foreign, &target), "is not a SQLite database");
    fs::remove_file(empty).unwrap();
    fs::remove_file(foreign).unwrap();
    assert_eq!((names(directory.path()), names(&folder)), before, "nothing is left behind");
}

#[test]
fn a_full_disk_or_an_interrupt_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    Process::serve(&database).terminate();
    let before = names(directory.path());
    let sql = Connection::open(&database).unwrap();
    sql.execute_batch(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
         INSERT INTO events (revision, workspace_id, type, at, lease_at, message)
         SELECT n, 'w', 'lock.knocked', 0, 0, hex(zeroblob(100)) FROM n;
         UPDATE meta SET last_revision = 2000",
    )
    .unwrap();
    drop(sql);
    // Blocks of 512 or 1,024 bytes: enough for the index of the log, and less than the events take.
    let limited = "ulimit -f 100; exec \"$0\" backup \"$1\" --database \"$2\"";
    let file = directory.path().join("b.db");
    let program = lockhouse().get_program().to_owned();
    let output =
        Command::new("sh").args(["-c", limited]).arg(program).arg(&file).arg(&database).output().unwrap();
    refused(&output, "cannot copy");
    assert_eq!(names(directory.path()), before);

    let other = Connection::open(&database).unwrap();
    other.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut command = lockhouse();
    let command = command.arg("backup").arg(&file).arg("--database").arg(&database).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // It waits for the other program now, for five seconds.
    eventually(|| names(directory.path()).iter().any(|name| name.starts_with(".lockhouse-backup-")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(2) || status.code() == Some(1), "{status}");
    drop(other);
    assert_eq!(names(directory.path()), before);
}
