//! The files of a database: one server for each file, under any of its names, and only regular files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use common::process::{Process, lockhouse, refused};
use common::{Server, eventually};
use rusqlite::Connection;
use serde_json::json;

fn run(arguments: &[&str], database: &Path) -> Output {
    lockhouse().args(arguments).arg("--database").arg(database).output().unwrap()
}

fn serve(database: &Path) -> Output {
    run(&["serve", "--listen", "127.0.0.1:0"], database)
}

#[track_caller]
fn refused_to_all(database: &Path, says: &str) {
    refused(&serve(database), says);
    refused(&run(&["check"], database), says);
    refused(&run(&["token", "create", "--scope", "admin"], database), says);
}

/// The lasting locks that this process has on the files of a database, as the system knows them. The locks of a running
/// read or write are left out: they are bytes 120 to 127 of the index of the log (SQLite's wal.c).
fn system_locks(database: &Path) -> BTreeSet<String> {
    let inodes: Vec<_> = ["", "-shm", "-wal", ".lock"]
        .iter()
        .filter_map(|end| std::fs::metadata(format!("{}{end}", database.display())).ok())
        .map(|file| format!(":{} ", file.ino()))
        .collect();
    let own = format!(" {} ", std::process::id());
    std::fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&own) && inodes.iter().any(|inode| line.contains(inode)))
        // The number in front counts all locks of the system.
        .filter_map(|line| line.split_once(": ").map(|(_, lock)| lock))
        .filter(|lock| {
            let start: u64 = lock.split_whitespace().rev().nth(1).unwrap().parse().unwrap();
            !(120..128).contains(&start)
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_moved_database_or_removed_lock_file_admits_no_second_server() {
    let directory = tempfile::tempdir().unwrap();
    let (database, moved) = (directory.path().join("l.db"), directory.path().join("m.db"));
    let mut server = Server::with(|config| config.database.path.clone_from(&database));
    std::fs::remove_file(directory.path().join("l.db.lock")).unwrap();
    refused(&serve(&database), "is in use by a lockhouse that may have it under another name");
    refused(&run(&["check", "--repair"], &database), "is in use by");
    std::fs::rename(&database, &moved).unwrap();
    refused_to_all(&moved, "under another name");
    server.stop();
}

#[test]
fn a_bind_mounted_database_has_one_server() {
    let directory = tempfile::tempdir().unwrap();
    let (database, other) = (directory.path().join("l.db"), directory.path().join("other.db"));
    let process = Process::serve(&database);
    std::fs::write(&other, "").unwrap();
    let mounted = Command::new("mount").arg("--bind").args([&database, &other]).output();
    if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: this machine lets nobody mount: {mounted:?}");
        return;
    }
    let outputs =
        [serve(&other), run(&["check"], &other), run(&["token", "create", "--scope", "admin"], &other)];
    Command::new("umount").arg(&other).status().unwrap();
    for output in outputs {
        refused(&output, "under another name");
    }
    process.user("alice").acquire("w", &json!({})).expect(200);
}

#[test]
fn inspecting_the_database_keeps_the_locks_of_sqlite() {
    let server = Server::start();
    let database = server.config.database.path.clone();
    let alice = &mut server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let before = system_locks(&database);
    assert!(before.iter().any(|lock| lock.starts_with("POSIX")), "{before:?}");
    assert!(before.iter().filter(|lock| lock.starts_with("FLOCK")).count() >= 2, "{before:?}");
    // A token is created in this process, and three more programs inspect the file.
    server.token(lockhouse::auth::Scope::Admin, None);
    refused(&run(&["check", "--repair"], &database), "is in use by");
    refused(&serve(&database), "is in use by");
    assert!(run(&["token", "list"], &database).status.success());
    for path in ["/readyz", "/metrics", "/healthz", "/api/v1/locks"] {
        assert_eq!(alice.get(path).status, 200);
    }
    alice.heartbeat("w", &json!({})).expect(200);
    server.sweep();
    let second = lockhouse::cli::serve::start(&server.config, lockhouse::time::Clock::system());
    assert!(second.is_err());
    eventually(|| system_locks(&database) == before);
}

#[test]
fn only_regular_files_are_opened_as_databases() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    std::os::unix::fs::symlink(path("nowhere.db"), path("link.db")).unwrap();
    std::fs::create_dir(path("directory")).unwrap();
    refused_to_all(&path("fifo"), "is a named pipe (FIFO), and the database must be a regular file");
    refused_to_all(&path("socket"), "is a socket, and");
    refused_to_all(&path("directory"), "is a directory, and");
    refused_to_all(Path::new("/dev/null"), "/dev/null is a device, and");
    let link = serve(&path("link.db"));
    refused(&link, "is a symbolic link to");
    refused(&link, "nowhere.db, which does not exist");
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["directory", "fifo", "link.db", "socket"], "nothing was made");
}

/// An accident with a file while the server runs, and the message in the log.
type Accident = (fn(&Path, &Path), &'static str);

const ACCIDENTS: &[Accident] = &[
    (|database, _| std::fs::remove_file(database).unwrap(), "l.db was removed or moved while the server ran"),
    (|database, _| std::fs::remove_file(beside(database, "-wal")).unwrap(), "l.db-wal was removed or moved"),
    (|database, _| std::fs::remove_file(beside(database, "-shm")).unwrap(), "l.db-shm was removed or moved"),
    (|database, _| std::fs::rename(database, beside(database, ".old")).unwrap(), "l.db was removed or moved"),
    (
        |database, _| {
            let folder = database.parent().unwrap();
            std::fs::rename(folder, folder.with_extension("old")).unwrap();
        },
        "l.db was removed or moved",
    ),
    (|database, backup| std::fs::rename(backup, database).unwrap(), "l.db was replaced by another file"),
    (|database, backup| overwrite(database, backup), "l.db was overwritten"),
    (|database, _| std::fs::write(database, "").unwrap(), "l.db was overwritten"),
    (|database, _| cut_log(database, 0), "l.db-wal was cut or changed"),
    (|database, _| cut_log(database, 32), "l.db-wal was cut or changed"),
    (|database, _| overwrite_log(database, &[0; 4096]), "l.db-wal was cut or changed"),
    (
        |database, backup| overwrite_log(database, &std::fs::read(backup).unwrap()),
        "l.db-wal was cut or changed",
    ),
    (restore, "has older data, or that of another database"),
    (|database, _| change(database, "DROP TABLE meta"), "has no table meta"),
    (|database, _| change(database, "DELETE FROM meta"), "has 0 rows in the table meta"),
    (|database, _| change(database, "DROP TABLE events"), "has no table events"),
    (|database, _| change(database, "UPDATE meta SET last_fence = last_fence - 1"), "has older data"),
    (|database, _| change(database, "UPDATE meta SET run = 9223372036854775807"), "has meta.run = 92"),
    (
        |database, _| {
            change(database, "CREATE TRIGGER t BEFORE UPDATE ON locks BEGIN SELECT RAISE(ABORT, 'no'); END");
        },
        "has the trigger t (locks)",
    ),
];

/// By SQLite's own means, as `.restore` does it.
fn restore(database: &Path, backup: &Path) {
    let (from, mut to) = (Connection::open(backup).unwrap(), Connection::open(database).unwrap());
    to.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let copy = rusqlite::backup::Backup::new(&from, &mut to).unwrap();
    copy.run_to_completion(1_000, std::time::Duration::ZERO, None).unwrap();
}

fn change(database: &Path, sql: &str) {
    let foreign = Connection::open(database).unwrap();
    foreign.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    foreign.execute_batch(sql).unwrap();
}

/// In place, as `cp` does it.
fn overwrite(database: &Path, backup: &Path) {
    std::fs::copy(backup, database).unwrap();
}

fn cut_log(database: &Path, length: u64) {
    let log = std::fs::OpenOptions::new().write(true).open(beside(database, "-wal")).unwrap();
    log.set_len(length).unwrap();
}

/// Its beginning, and not what follows.
fn overwrite_log(database: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let log = std::fs::OpenOptions::new().write(true).open(beside(database, "-wal")).unwrap();
    log.write_all_at(bytes, 0).unwrap();
}

fn beside(database: &Path, end: &str) -> String {
    format!("{}{end}", database.display())
}

#[test]
fn a_lost_database_is_noticed_before_the_next_acknowledgement() {
    for (accident, says) in ACCIDENTS {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("data/l.db");
        let backup = directory.path().join("backup.db");
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let mut process = Process::serve(&database);
        let mut alice = process.user("alice");
        alice.acquire("before", &json!({})).expect(200);
        // The newest possible backup.
        let into = format!("VACUUM INTO '{}'", backup.display());
        Connection::open(&database).unwrap().execute_batch(&into).unwrap();
        let backed_up = std::fs::read(&backup).unwrap();
        alice.acquire("after", &json!({})).expect(200);
        accident(&database, &backup);
        // The connection may also have ended.
        if let Ok(answer) = alice.try_request("POST", "/api/v1/workspaces/after/lock/heartbeat", &[], b"") {
            answer.refused(503, "busy");
        }
        if let Ok(answer) = alice.try_request("GET", "/readyz", &[], b"") {
            answer.refused(503, "busy");
        }
        eventually(|| process.has_ended());
        let (code, log) = process.wait();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(says), "{says} is missing in {log}");
        assert!(log.contains("Put a backup in the place of"), "{log}");
        if database.exists() && says.contains("overwritten") || says.contains("replaced") {
            let now = std::fs::read(&database).unwrap();
            assert!(now == backed_up || now.is_empty(), "nothing is written into it");
        }
    }
}

#[test]
fn an_idle_server_notices_a_lost_database() {
    let directory = tempfile::tempdir().unwrap();
    let acts: [Accident; 2] = [
        (|database, _| change(database, "DELETE FROM meta"), "has 0 rows in the table meta"),
        (|database, _| std::fs::remove_file(database).unwrap(), "was removed or moved"),
    ];
    for (act, says) in acts {
        let database = directory.path().join(format!("{}.db", says.len()));
        let mut process = Process::serve(&database);
        act(&database, &database);
        eventually(|| process.has_ended());
        let (code, log) = process.wait();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(says), "{log}");
    }
}

#[test]
fn permitted_access_by_other_programs_is_no_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("l.db");
    let process = Process::serve(&database);
    let mut alice = process.user("alice");
    let foreign = Connection::open(&database).unwrap();
    foreign.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let mut beat = |round: u32| {
        alice.acquire(&format!("w{}", round % 7), &json!({ "note": "n".repeat(300) })).expect(200);
    };
    for round in 0..120 {
        beat(round);
        match round % 8 {
            0 => drop(Command::new("touch").arg(&database).status().unwrap()),
            1 => drop(Command::new("chmod").arg("600").arg(&database).status().unwrap()),
            2 => foreign.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap(),
            3 => foreign.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap(),
            4 => {
                let copy = directory.path().join(format!("{round}.db"));
                foreign.execute_batch(&format!("VACUUM INTO '{}'", copy.display())).unwrap();
                std::fs::copy(&database, copy).unwrap();
            }
            5 => assert!(run(&["token", "create", "--scope", "read"], &database).status.success()),
            6 if round % 5 == 0 => foreign.execute_batch("VACUUM").unwrap(),
            _ => {
                let count = "SELECT count(*) FROM locks";
                foreign.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap();
            }
        }
    }
    // Another process runs checkpoints while the server writes.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let foreign = Connection::open(&database).unwrap();
            while !done.load(Ordering::SeqCst) {
                for mode in ["PASSIVE", "RESTART", "TRUNCATE"] {
                    let folded = foreign.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
                    folded.unwrap();
                }
            }
        });
        for round in 0..300 {
            beat(round);
        }
        done.store(true, Ordering::SeqCst);
    });
    // Closing it would run a checkpoint if the server were not running.
    foreign.close().unwrap();
    // The server also checks when it is idle.
    std::thread::park_timeout(std::time::Duration::from_millis(600));
    beat(0);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("was "), "{log}");
}

#[test]
fn an_overwritten_database_is_noticed_before_and_after_a_checkpoint() {
    for is_later in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (database, backup) = (directory.path().join("l.db"), directory.path().join("backup.db"));
        let mut process = Process::serve(&database);
        let mut alice = process.user("alice");
        let note = "n".repeat(400);
        let mut acquire = |number: u32| {
            alice.acquire(&format!("w{number}"), &json!({ "note": note, "metadata": { "a": note } })).status
        };
        let make_it = || {
            let into = format!("VACUUM INTO '{}'", backup.display());
            Connection::open(&database).unwrap().execute_batch(&into).unwrap();
        };
        let size = || std::fs::metadata(&database).unwrap().len();
        let (first, mut number) = (size(), 0);
        if !is_later {
            assert_eq!(acquire(number), 200);
            make_it();
        }
        while size() < first + 100_000 {
            number += 1;
            assert_eq!(acquire(number), 200);
            assert!(number < 20_000, "the log is never folded in");
        }
        let log = std::fs::metadata(beside(&database, "-wal")).unwrap().len();
        assert!(log < 16 << 20, "{log}");
        number += 1;
        assert_eq!(acquire(number), 200);
        if is_later {
            make_it();
            number += 1;
            assert_eq!(acquire(number), 200);
        }
        overwrite(&database, &backup);
        // The server may have noticed already, and have ended.
        let last = alice.try_request("POST", "/api/v1/workspaces/last/lock", &[], b"");
        assert!(last.is_err() || last.is_ok_and(|last| last.status == 503), "later: {is_later}");
        eventually(|| process.has_ended());
        assert_eq!(process.wait().0, Some(1));
    }
}
