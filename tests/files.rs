//! The files of a database: one server for each, whatever its name, and what is no regular file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use common::process::{Process, lockhouse};
use common::{Server, eventually};
use serde_json::json;

fn run(arguments: &[&str], database: &Path) -> Output {
    lockhouse().args(arguments).arg("--database").arg(database).output().unwrap()
}

fn serve(database: &Path) -> Output {
    run(&["serve", "--listen", "127.0.0.1:0"], database)
}

#[track_caller]
fn refused(output: &Output, says: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(says), "{says} is missing in {message}");
}

#[track_caller]
fn refused_to_all(database: &Path, says: &str) {
    refused(&serve(database), says);
    refused(&run(&["check"], database), says);
    refused(&run(&["token", "create", "--scope", "admin"], database), says);
}

/// The locks that this process has on the files of a database, as the system knows them.
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
        .filter_map(|line| line.split_once(": ").map(|(_, lock)| lock.to_owned()))
        .collect()
}

#[test]
fn a_moved_file_and_a_removed_lock_file_let_no_second_server_in() {
    let directory = tempfile::tempdir().unwrap();
    let (database, moved) = (directory.path().join("l.db"), directory.path().join("m.db"));
    let mut server = Server::with(|config| config.database.path.clone_from(&database));
    std::fs::remove_file(directory.path().join("l.db.lock")).unwrap();
    refused(&serve(&database), "is in use by a lockhouse that may have it under another name");
    refused(&run(&["check"], &database), "is in use by");
    std::fs::rename(&database, &moved).unwrap();
    refused_to_all(&moved, "under another name");
    server.stop();
}

#[test]
fn a_file_that_is_mounted_under_a_second_name_has_one_server() {
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
fn nothing_that_looks_at_the_database_drops_the_locks_of_sqlite() {
    let server = Server::start();
    let database = server.config.database.path.clone();
    let alice = &mut server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let before = system_locks(&database);
    assert!(before.iter().any(|lock| lock.starts_with("POSIX")), "{before:?}");
    assert!(before.iter().filter(|lock| lock.starts_with("FLOCK")).count() >= 2, "{before:?}");
    // A token is made from beside in this process, and three more programs look at the file.
    server.token(lockhouse::auth::Scope::Admin, None);
    refused(&run(&["check"], &database), "is in use by");
    refused(&serve(&database), "is in use by");
    assert!(run(&["token", "list"], &database).status.success());
    for path in ["/readyz", "/metrics", "/healthz", "/api/v1/locks"] {
        assert_eq!(alice.get(path).status, 200);
    }
    alice.heartbeat("w", &json!({})).expect(200);
    server.sweep();
    let second = lockhouse::cli::serve::start(&server.config, lockhouse::time::Clock::system());
    assert!(second.is_err());
    // A reader may be at work still.
    eventually(|| system_locks(&database) == before);
}

#[test]
fn only_a_regular_file_is_a_database() {
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
