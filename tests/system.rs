//! Signals and too low system limits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::process::{Command, Stdio};

use common::process::Process;
use serde_json::json;

/// The program, started by a shell that does this first.
fn after(first: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{first}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_lockhouse")]);
    command
}

fn send(process: &Process, signal: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
}

#[test]
fn sighup_shuts_down_gracefully() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("l.db"));
    server.user("alice").acquire("w", &json!({})).expect(200);
    send(&server, "HUP");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGHUP: stopping") && log.contains("stopped"), "{log}");
}

#[test]
fn sighup_ignored_by_nohup_stays_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&mut after("trap '' HUP"), &directory.path().join("l.db"));
    send(&server, "HUP");
    server.user("alice").acquire("w", &json!({})).expect(200);
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGTERM: stopping") && !log.contains("SIGHUP"), "{log}");
}

#[test]
fn too_few_open_files_are_reported_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let output = after("ulimit -n 12")
        .args(["serve", "--listen", "127.0.0.1:0", "--database"])
        .arg(directory.path().join("l.db"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("only 12 files") && said.contains("at least 64") && said.contains("ulimit -n"),
        "{said}"
    );
    assert!(!directory.path().join("l.db").exists(), "nothing was touched");
    let enough = Process::start(&mut after("ulimit -n 64"), &directory.path().join("l.db"));
    enough.user("alice").acquire("w", &json!({})).expect(200);
    assert_eq!(enough.terminate().0, Some(0));
}

#[test]
fn the_file_size_limit_acts_as_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("l.db");
    // In units of 512 or 1024 bytes, by the shell.
    let mut process = Process::start(&mut after("ulimit -f 600"), &database);
    let mut alice = process.user("alice");
    let metadata = json!({ "metadata": { "a": "a".repeat(3_900) } });
    let mut granted = 0;
    let refused = loop {
        let answer = alice.acquire(&format!("w{granted}"), &metadata);
        if answer.status != 200 {
            break answer;
        }
        granted += 1;
        assert!(granted < 10_000, "the limit is never reached");
    };
    refused.refused(507, "storage_full");
    assert!(granted > 0);
    assert!(!process.has_ended());
    let metrics = alice.get("/metrics");
    let locks = metrics.text();
    assert!(locks.contains(&format!("lockhouse_live_locks {granted}\n")), "reads go on");
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    let again = Process::start(&mut after(":"), &database);
    let mut alice = again.user("alice");
    for number in 0..granted {
        assert_eq!(alice.lock(&format!("w{number}"))["locked_by_user_id"], "alice", "{number} of {granted}");
    }
    alice.acquire(&format!("w{granted}"), &metadata).expect(200);
}
