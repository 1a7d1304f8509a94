//! Which SQLite files are opened, and how.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{NOON, Server};
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::sqlite::{APPLICATION_ID, SCHEMA_VERSION};
use lockhouse::store::{Options, Store};
use lockhouse::time::Clock;
use rusqlite::Connection;
use serde_json::json;

fn open(path: &Path) -> Result<Store, Error> {
    let options = Options {
        url: None,
        path: path.to_owned(),
        busy_timeout: Duration::from_millis(50),
        max_size: None,
        restart_grace: Duration::from_secs(30),
        readers: 3,
        waiters: WaitlistLimits { per_workspace: 10, per_user: 10, total: 20 },
    };
    Store::open(&options, Clock::standing_at(NOON), &Arc::new(Metrics::default()))
}

#[track_caller]
fn refused(path: &Path, says: &str) {
    let before = std::fs::read(path).unwrap();
    let error = open(path).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
    assert!(std::fs::read(path).unwrap() == before, "what is not ours is left as it is");
}

#[test]
fn foreign_and_newer_databases_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);

    let foreign = path("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    refused(&foreign, "not Lockhouse's; it was left as it is: give another file with --database");

    let other_application = path("other.db");
    Connection::open(&other_application).unwrap().pragma_update(None, "application_id", 7).unwrap();
    refused(&other_application, "not Lockhouse's");

    let text = path("notes.txt");
    std::fs::write(&text, "This is not a database at all, but it is long enough to look at. ".repeat(20))
        .unwrap();
    refused(&text, "is not a SQLite database");

    let newer = path("newer.db");
    open(&newer).unwrap().close();
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    refused(&newer, "was made by a newer Lockhouse (schema version 8; this one knows 7)");

    let nowhere = path("no/such/folder.db");
    let error = open(&nowhere).unwrap_err().to_string();
    assert!(error.contains("there is no directory") && error.contains("no/such/folder.db"), "{error}");
}

#[test]
fn a_linked_database_has_one_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = open(&path("lockhouse.db")).unwrap();
    std::os::unix::fs::symlink(path("lockhouse.db"), path("link.db")).unwrap();
    let error = open(&path("link.db")).unwrap_err().to_string();
    assert!(error.contains("is in use by"), "{error}");
    std::fs::hard_link(path("lockhouse.db"), path("hard.db")).unwrap();
    let error = open(&path("hard.db")).unwrap_err().to_string();
    assert!(error.contains("hard link"), "{error}");
    store.close();
}

#[test]
fn a_foreign_database_keeps_its_wal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("foreign.db");
    let foreign = Connection::open(&path).unwrap();
    foreign.pragma_update(None, "journal_mode", "WAL").unwrap();
    foreign.execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('kept')").unwrap();
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| (entry.as_ref().unwrap().file_name(), entry.unwrap().metadata().unwrap().len()))
            .collect();
        names.sort();
        names
    };
    let before = files();
    assert!(open(&path).unwrap_err().to_string().contains("not Lockhouse's"));
    assert_eq!(files(), before);
}

#[test]
fn a_damaged_database_is_refused_with_advice() {
    let server = Server::start();
    for number in 0..200 {
        server.user("alice").acquire(&format!("w{number}"), &json!({})).expect(200);
    }
    let path = server.database();
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("damaged.db");
    server.sql().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(server);
    assert!(!path.exists());
    let mut bytes = std::fs::read(&copy).unwrap();
    // The first page says how many pages there are and where the tables begin; the tables themselves are gone.
    for byte in &mut bytes[4096..] {
        *byte = 0xA5;
    }
    std::fs::write(&copy, bytes).unwrap();
    let error = open(&copy).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains("put a backup in its place"), "{error}");
}

#[test]
fn a_new_database_has_its_application_id_and_mode_0600() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lockhouse.db");
    let store = open(&path).unwrap();
    for name in ["lockhouse.db", "lockhouse.db-wal", "lockhouse.db-shm", "lockhouse.db.lock"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close();
    drop(store);
    assert!(!directory.path().join("lockhouse.db-wal").exists(), "the log is folded in");
    let connection = Connection::open(&path).unwrap();
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).unwrap();
    assert_eq!((pragma("application_id"), pragma("user_version")), (APPLICATION_ID, SCHEMA_VERSION));
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
