//! Fences grow, also when the database is lost or restored, or the clock is set.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::disk::{Disk, EIO, ENOSPC, FENCE, FOR_EVER, RENAME, SYNC, WRITE};
use common::process::{Process, lockhouse};
use common::{Client, Server};
use serde_json::json;

fn floor_of(database: &Path) -> PathBuf {
    let name = database.file_name().unwrap().to_str().unwrap();
    database.with_file_name(format!(".{name}.fence"))
}

fn floor(database: &Path) -> i64 {
    fs::read_to_string(floor_of(database)).unwrap().lines().last().unwrap().parse().unwrap()
}

/// `rm lockhouse.db*`
fn remove(database: &Path) {
    for entry in fs::read_dir(database.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("lockhouse.db") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn new_fence(client: &mut Client, workspace: &str) -> i64 {
    client.acquire(workspace, &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap()
}

#[test]
fn fences_grow_while_the_clock_is_set_back() {
    let mut server = Server::start();
    let mut last = new_fence(&mut server.user("alice"), "w");
    for round in 0..4 {
        server.clock.set_wall_by(-3_600_000);
        if round % 2 > 0 {
            server.restart();
        }
        let next = new_fence(&mut server.user("alice"), &format!("w{round}"));
        assert!(next > last, "round {round}");
        last = next;
    }
}

#[test]
fn fences_grow_after_database_loss_and_clock_changes() {
    let mut server = Server::on_sqlite(|_| {});
    let database = server.database();
    server.clock.set_wall_by(3_600_000);
    let mut last = new_fence(&mut server.user("alice"), "w");
    server.clock.set_wall_by(-3_600_000);
    for round in 0..3 {
        server.stop();
        assert_eq!(floor(&database), last, "nothing above the last fence was given");
        remove(&database);
        server.start_again();
        let next = new_fence(&mut server.user("alice"), "w");
        assert!(next > last, "round {round}");
        last = next;
    }
    // A backup that is older.
    server.stop();
    let backup = fs::read(&database).unwrap();
    server.start_again();
    server.clock.set_wall_by(86_400_000);
    let last = new_fence(&mut server.user("alice"), "another");
    server.clock.set_wall_by(-86_400_000);
    server.stop();
    fs::write(&database, backup).unwrap();
    server.start_again();
    assert!(new_fence(&mut server.user("alice"), "third") > last);
    // Under another name of the directory it is the same floor.
    let link = database.parent().unwrap().join("link.db");
    server.stop();
    std::os::unix::fs::symlink(&database, &link).unwrap();
    server.config.database.path = link.clone();
    server.start_again();
    assert!(!floor_of(&link).exists());
    server.stop();
}

#[test]
fn the_fence_floor_is_raised_ahead_and_rarely() {
    let server = Server::on_sqlite(|_| {});
    let database = server.database();
    let mut alice = server.user("alice");
    let first = new_fence(&mut alice, "first");
    let ahead = floor(&database);
    assert_eq!(ahead, first + 60_000_000);
    for number in 0..20 {
        server.pass(2_500);
        assert!(new_fence(&mut alice, &format!("w{number}")) <= ahead);
        assert_eq!(floor(&database), ahead, "a minute has not passed");
    }
    server.clock.advance(Duration::from_secs(15));
    let next = new_fence(&mut alice, "next");
    assert!(next > ahead);
    assert_eq!(floor(&database), next + 60_000_000);
}

#[test]
fn fences_grow_after_a_kill_and_the_loss_of_the_files() {
    let Some(library) = common::process::faketime_library() else { return };
    for ends in ["kill", "stop"] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("lockhouse.db");
        let mut command = lockhouse();
        command.env("LD_PRELOAD", &library).env("FAKETIME", "+1h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let process = Process::start(&mut command, &database);
        let fence = new_fence(&mut process.user("alice"), "w");
        if ends == "kill" {
            process.kill();
        } else {
            process.terminate();
        }
        remove(&database);
        // Neither of these gives a fence, nor takes one back.
        let text = database.to_str().unwrap();
        let token = ["token", "create", "--scope", "admin", "--database", text];
        assert!(lockhouse().args(token).output().unwrap().status.success());
        assert!(
            lockhouse().args(["check", "--repair", "--database", text]).output().unwrap().status.success()
        );
        let process = Process::serve(&database);
        assert!(new_fence(&mut process.user("alice"), "w") > fence, "{ends}");
    }
}

fn refused(database: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()];
    let output = lockhouse().args(serve).args(arguments).output().unwrap();
    assert!(output.stdout.is_empty(), "it started");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unusable_fence_floor_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    Process::serve(&database).terminate();
    let file = floor_of(&database);
    let process = Process::serve(&database);
    new_fence(&mut process.user("alice"), "w");
    process.terminate();
    let whole = fs::read_to_string(&file).unwrap();
    let last = floor(&database).to_string();
    let others = ["", "0", "nonsense", &whole[..whole.len() - 1], &format!("{whole} ")];
    let out_of_range = ["0", "-1", "9007199254740992", "9223372036854775807", "99999999999999999999"];
    let out_of_range = out_of_range.map(|number| whole.replace(&last, number));
    for damaged in others.into_iter().chain(out_of_range.iter().map(String::as_str)) {
        fs::write(&file, damaged).unwrap();
        let (code, message) = refused(&database, &[]);
        assert_eq!(code, Some(1), "{damaged:?}: {message}");
        for part in [file.to_str().unwrap(), "is damaged", "--fence-at-least"] {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged, "it is left as it is");
    }
    fs::remove_file(&file).unwrap();
    for make in ["mkdir", "mkfifo"] {
        std::process::Command::new(make).arg(&file).status().unwrap();
        assert!(refused(&database, &[]).1.contains("is not a regular file"), "{make}");
        fs::remove_dir(&file).or_else(|_| fs::remove_file(&file)).unwrap();
    }
    // Then it is as on a new machine.
    Process::serve(&database).terminate();
    assert_eq!(floor(&database).to_string(), last, "the database has it, too");
}

#[test]
fn fence_at_least_sets_the_first_fence_on_a_new_machine() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let serve = |least: &str| {
        let mut command = lockhouse();
        command.args(["serve", "--fence-at-least", least]);
        Process::start_with(&mut command, &database)
    };
    let process = serve("7999999999999990");
    assert_eq!(new_fence(&mut process.user("alice"), "w"), 7_999_999_999_999_991);
    process.kill();
    remove(&database);
    // It need not be said again, and what is less changes nothing.
    let process = serve("1");
    assert!(new_fence(&mut process.user("alice"), "w") > 7_999_999_999_999_991);
    process.terminate();
    let process = serve("8000000000000000");
    assert!(new_fence(&mut process.user("bob"), "v") > 8_000_000_000_000_000);
    process.terminate();
    for wrong in ["0", "-1", "8000000000000001", "99999999999999999999", "x", ""] {
        let (code, message) = refused(&database, &["--fence-at-least", wrong]);
        assert_eq!(code, Some(2), "{wrong}: {message}");
        assert!(message.contains("--fence-at-least"), "{wrong}: {message}");
    }
}

#[test]
fn an_unwritable_fence_floor_refuses_only_new_fences() {
    let Some(disk) = Disk::new() else { return };
    let process = Process::start(&mut disk.lockhouse(), &disk.database());
    let mut alice = process.user("alice");
    for (calls, error, status, code) in [
        (WRITE, ENOSPC, 507, "storage_full"),
        (SYNC, ENOSPC, 507, "storage_full"),
        (SYNC, EIO, 500, "internal"),
        (RENAME, EIO, 500, "internal"),
    ] {
        disk.fail(calls, FENCE, error, FOR_EVER);
        alice.acquire("w", &json!({})).refused(status, code);
        alice.get("/api/v1/locks").expect(200);
        assert!(disk.failed() > 0);
        disk.heal();
    }
    let fence = new_fence(&mut alice, "w");
    disk.fail(WRITE, FENCE, ENOSPC, FOR_EVER);
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
    alice.release("w", &json!({ "fence": fence })).expect(200);
    // Up to the floor there is room.
    assert!(new_fence(&mut alice, "w") > fence);
    process.kill();
    assert!(floor(&disk.database()) > fence);
}
