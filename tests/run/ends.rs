//! The ways in which the lock is lost, and that no two commands ever run at once.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::common::process::Process;
use super::common::{Client, Server, eventually};
use super::harness::{Run, lives, send};

/// Its end is noticed by the events alone: heartbeats are minutes apart.
const LONG: &str = "10m";
/// Writes `term` on TERM and ends, unless it is told to ignore it.
const STAYS: &str = "echo $$ >pid; trap 'touch term; exit 0' TERM; touch ready; while :; do sleep 0.05; done";
const IGNORES: &str = "echo $$ >pid; trap '' TERM; touch ready; while :; do sleep 0.05; done";

fn revoke(client: &mut Client, workspace: &str) {
    assert_eq!(client.release(workspace, &json!({ "force": true })).expect(200)["released"], true);
}

#[test]
fn a_forced_end_is_noticed_at_once_and_the_next_lock_is_let_be() {
    let server = Server::start();
    let run = Run::of(&server, "w", &["--ttl", LONG], &["sh", "-c", STAYS]);
    run.has("ready");
    let mut alice = server.user("alice");
    revoke(&mut alice, "w");
    let next = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    run.has("term");
    let (_directory, code, log) = run.finish_in();
    assert_eq!(code, 76, "{log}");
    assert!(log.contains("lost the lock of \"w\"") && log.contains("revoked by alice"), "{log}");
    assert_eq!(alice.lock("w")["fence"], next);
}

#[test]
fn what_ignores_term_is_killed_and_the_group_with_it() {
    let server = Server::start();
    let group = format!("({IGNORES}) & trap '' TERM; echo $$ >shell; wait");
    let flags = ["--ttl", LONG, "--kill-after", "200ms", "--lost-exit-code", "44"];
    let run = Run::of(&server, "w", &flags, &["sh", "-c", &group]);
    run.has("ready");
    run.has("shell");
    revoke(&mut server.user("alice"), "w");
    let (directory, code, log) = run.finish_in();
    assert_eq!(code, 44, "{log}");
    assert!(!lives(&directory.path().join("pid")) && !lives(&directory.path().join("shell")));
}

#[test]
fn on_lost_can_kill_at_once_or_let_the_command_run_on() {
    let server = Server::start();
    let run = Run::of(&server, "w", &["--ttl", LONG, "--on-lost", "kill"], &["sh", "-c", STAYS]);
    run.has("ready");
    revoke(&mut server.user("alice"), "w");
    let (directory, code, _) = run.finish_in();
    assert_eq!((code, directory.path().join("term").exists()), (76, false));

    let script = "touch ready; while [ ! -e end ]; do sleep 0.05; done; exit 5";
    let run = Run::of(&server, "v", &["--ttl", LONG, "--on-lost", "ignore"], &["sh", "-c", script]);
    run.has("ready");
    revoke(&mut server.user("alice"), "v");
    run.says("the command runs on");
    run.write("end");
    assert_eq!(run.finish().0, 5);
}

#[test]
fn after_a_forced_end_the_next_command_waits_for_what_was_left_of_the_lease() {
    // The server's clock stands still, so all of the lease is left.
    let server = Server::start();
    let mut alice = server.user("alice");
    let body = json!({ "kind": "run", "session_id": "s", "ttl_ms": 2_000 });
    alice.acquire("w", &body).expect(200);
    revoke(&mut alice, "w");
    let ended_at = uptime();
    let run = Run::of(&server, "w", &["--no-wait"], &["cat", "/proc/uptime"]);
    let (code, output) = run.finish_with_output();
    assert_eq!(code, 0);
    let started_at: f64 = output.split(' ').next().unwrap().parse().unwrap();
    assert!(started_at - ended_at >= 1.9, "{started_at} {ended_at}");
}

#[test]
fn when_run_is_killed_the_guard_ends_the_group() {
    let server = Server::start();
    let run = Run::of(&server, "w", &["--ttl", LONG], &["sh", "-c", &format!("({IGNORES}) & wait")]);
    run.has("ready");
    run.signal("KILL");
    // The lease has minutes left.
    eventually(|| !lives(&run.path("pid")));
    assert_eq!(server.user("bob").lock("w")["kind"], "run");
    assert_eq!(run.finish().0, -1);
}

#[test]
fn when_run_is_stopped_the_guard_ends_the_group_before_the_lease_ends() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("lockhouse.db"));
    let url = format!("http://{}", server.address);
    let script = format!("exec 9>>running; flock -n 9; {IGNORES}");
    let run = Run::at(&url, "w", &["--ttl", "3s"], &["sh", "-c", &script]);
    run.has("ready");
    run.signal("STOP");
    let mut alice = server.user("alice");
    let mut next = Value::Null;
    eventually(|| {
        let answer = alice.acquire("w", &json!({}));
        next = answer.json()["lock"]["fence"].clone();
        answer.status == 200
    });
    assert!(!lives(&run.path("pid")), "the command runs beside the next holder");
    run.signal("CONT");
    let (directory, code, log) = run.finish_in();
    assert_eq!((code, directory.path().join("term").exists()), (76, false), "{log}");
    assert_eq!(alice.lock("w")["fence"], next, "the next holder's lock is let be");
    server.terminate();
}

#[test]
fn a_short_silence_of_the_server_is_no_loss_and_a_long_one_ends_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("lockhouse.db"));
    let url = format!("http://{}", server.address);
    let run = Run::at(&url, "w", &["--ttl", "8s"], &["sh", "-c", STAYS]);
    run.has("ready");
    let id = server.id().to_string();
    send("STOP", &id);
    // Longer than the time between two heartbeats.
    assert!(Command::new("sleep").arg("3").status().unwrap().success());
    send("CONT", &id);
    let mut alice = server.user("alice");
    let renewed_at = alice.lock("w")["renewed_at"].clone();
    eventually(|| alice.lock("w")["renewed_at"] != renewed_at);
    assert!(!run.path("term").exists());
    let stopped_at = uptime();
    server.kill();
    run.has("term");
    let (directory, code, log) = run.finish_in();
    assert_eq!(code, 76, "{log}");
    assert!(log.contains("could not be renewed"), "{log}");
    assert!(!lives(&directory.path().join("pid")));
    assert!(uptime() - stopped_at < 80.0);
}

/// Time since the start of the machine, in seconds.
fn uptime() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    uptime.split(' ').next().unwrap().parse().unwrap()
}

/// Contenders of which some lose the lock by force, some are killed and some stopped. Each command and all of its children
/// keep a lock of the kernel, which nobody else may have.
#[test]
fn no_two_commands_ever_run_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&directory.path().join("lockhouse.db"));
    let url = format!("http://{}", server.address);
    let place = directory.path().to_str().unwrap().to_owned();
    let script = format!(
        "cd {place}; exec 9>>alone; flock -n 9 || echo $LOCKHOUSE_FENCE >>beside; \
         echo $LOCKHOUSE_FENCE >>order; trap '' TERM; (trap '' TERM; sleep 0.4) & sleep 0.3; wait"
    );
    let start = || Run::at(&url, "w", &["--ttl", "4s", "--kill-after", "500ms"], &["sh", "-c", &script]);
    let begun = || fs::read_to_string(Path::new(&place).join("order")).unwrap_or_default().lines().count();
    let mut alice = server.user("alice");
    let mut runs: Vec<Run> = (0..3).map(|_| start()).collect();
    let mut codes = Vec::new();
    for round in 0..6 {
        let before = begun();
        runs.push(start());
        // A command has begun, and has a moment left.
        eventually(|| begun() > before);
        if round % 3 == 0 {
            let _ = alice.release("w", &json!({ "force": true }));
        } else if round == 1 {
            for run in &runs {
                run.signal("STOP");
            }
            let before = alice.lock("w")["session_id"].clone();
            eventually(|| alice.lock("w")["session_id"] != before);
            for run in &runs {
                run.signal("CONT");
            }
        } else if round == 2 {
            let last = runs.pop().unwrap();
            last.signal("KILL");
            codes.push(last.finish().0);
        }
    }
    codes.extend(runs.into_iter().map(|run| run.finish().0));
    let beside = fs::read_to_string(Path::new(&place).join("beside")).unwrap_or_default();
    assert_eq!(beside, "", "commands ran beside others; {codes:?}");
    let order = fs::read_to_string(Path::new(&place).join("order")).unwrap();
    let fences: Vec<i64> = order.lines().map(|fence| fence.parse().unwrap()).collect();
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
    assert!(codes.iter().all(|code| [0, 76, -1].contains(code)), "{codes:?}");
    assert!(codes.contains(&0) && codes.len() == 9, "{codes:?}");
    server.terminate();
}
