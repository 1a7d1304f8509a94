//! The program on a disk that fails to sync, write and read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::disk::{DATABASE, Disk, EIO, ENOSPC, FOR_EVER, LOG, READ, SYNC};
use common::process::Process;
use common::{Client, eventually};
use serde_json::json;

#[test]
fn failed_syncs_are_reported_as_unknown_or_as_a_full_disk() {
    let Some(disk) = Disk::new() else { return };
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    disk.fail(SYNC, LOG, EIO, 1);
    let unknown = alice.acquire("once", &json!({})).refused(503, "busy");
    assert!(unknown["detail"].as_str().unwrap().contains("may or may not have been stored"), "{unknown}");
    // The next commit was written over it.
    assert!(alice.lock("once").is_null());
    disk.fail(SYNC, LOG, EIO, FOR_EVER);
    for _ in 0..3 {
        alice.heartbeat("w", &json!({})).refused(503, "busy");
        alice.get("/readyz").refused(503, "busy");
    }
    disk.heal();
    let fence = alice.acquire("again", &json!({})).expect(200)["lock"]["fence"].clone();
    alice.heartbeat("w", &json!({})).expect(200);
    disk.fail(SYNC, LOG, ENOSPC, 1);
    alice.acquire("full", &json!({})).refused(507, "storage_full");
    alice.get("/readyz").refused(507, "storage_full");
    process.kill();
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    assert!(alice.lock("once").is_null(), "it is known by now");
    assert!(alice.lock("full").is_null(), "it was refused, though all of it was in the log");
    assert_eq!(alice.lock("again")["fence"], fence);
    process.terminate();
}

#[test]
fn failed_checkpoints_are_logged_once_and_counted() {
    let Some(disk) = Disk::new() else { return };
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    let note = "n".repeat(400);
    let mut number = 0;
    let mut until = |so: &dyn Fn(u64) -> bool| {
        loop {
            let metrics = alice.get("/metrics");
            let name = "lockhouse_checkpoint_failures_total ";
            let failures = metrics.text().lines().find_map(|line| line.strip_prefix(name)).unwrap();
            if so(failures.parse().unwrap()) {
                return;
            }
            for _ in 0..50 {
                number += 1;
                let metadata = json!({ "note": note, "metadata": { "a": note } });
                alice.acquire(&format!("w{number}"), &metadata).expect(200);
            }
            assert!(number < 50_000, "the log is never folded in");
        }
    };
    disk.fail(SYNC, DATABASE, EIO, FOR_EVER);
    until(&|failures| failures >= 2);
    disk.heal();
    let size = || std::fs::metadata(disk.database()).unwrap().len();
    let before = size();
    until(&|_| size() > before);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    let said = |what: &str| log.matches(what).count();
    assert_eq!(said("the write-ahead log cannot be folded into"), 1, "{log}");
    assert_eq!(said("SQLITE_IOERR_FSYNC 1034"), 1, "{log}");
    assert_eq!(said("the write-ahead log is folded into"), 1, "{log}");
}

#[test]
fn failing_reads_make_the_server_not_ready_without_stopping_it() {
    let Some(disk) = Disk::new() else { return };
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    for number in 0..200 {
        alice.acquire(&format!("w{number}"), &json!({ "note": "n".repeat(400) })).expect(200);
    }
    process.terminate();
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    alice.get("/readyz").expect(200);
    disk.fail(READ, DATABASE | LOG, EIO, FOR_EVER);
    alice.get("/api/v1/locks").refused(500, "internal");
    let unready = alice.get("/readyz");
    assert!([503, 507].contains(&unready.status), "{}", unready.text());
    disk.heal();
    eventually(|| alice.get("/readyz").status == 200);
    alice.get("/api/v1/locks").expect(200);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("Input/output error"), "{log}");
}

#[test]
fn a_takeover_that_failed_to_sync_is_not_logged() {
    let Some(disk) = Disk::new() else { return };
    let mut command = disk.lockhouse();
    command.env("LOCKHOUSE_LOCKS_TAKEOVER", "anyone");
    let process = Process::start(&mut command, &disk.database());
    process.user("alice").acquire("w", &json!({})).expect(200);
    disk.fail(SYNC, LOG, EIO, 1);
    let mut bob = process.user("bob");
    let take_over = |bob: &mut Client| bob.post("/api/v1/workspaces/w/lock?force=true", &json!({}));
    take_over(&mut bob).refused(503, "busy");
    disk.heal();
    take_over(&mut bob).expect(200);
    let (_, log) = process.terminate();
    assert_eq!(log.matches("lock.taken_over").count(), 1, "{log}");
}
