//! `lockhouse run`, with real processes: exit codes, signals, the group, the terminal, and the ways to lose the lock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;
#[path = "run/ends.rs"]
mod ends;
#[path = "run/harness.rs"]
mod harness;

use std::ffi::OsStr;
use std::fs;
use std::process::Stdio;

use common::process::{Process, lockhouse};
use common::{Server, eventually, metric};
use harness::{Run, url, with_default_signals};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use serde_json::json;

#[test]
fn the_exit_code_is_that_of_the_command() {
    let server = Server::start();
    let run = |command: &[&str]| Run::of(&server, "w", &[], command).finish();
    assert_eq!(run(&["sh", "-c", "exit 7"]), (7, String::new()));
    assert_eq!(run(&["true"]).0, 0);
    assert_eq!(run(&["sh", "-c", "kill -KILL $$"]), (128 + 9, String::new()));
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).0, 128 + 15);
    let (code, log) = run(&["/no/such/command"]);
    assert_eq!((code, log.contains("/no/such/command")), (127, true), "{log}");
    assert_eq!(run(&["no-such-command"]).0, 127);
    assert_eq!(run(&["/etc/passwd"]).0, 126);
    assert_eq!(run(&["/"]).0, 126);
    assert!(server.user("bob").lock("w").is_null(), "it was released");
    // No shell in between.
    let run = Run::of(&server, "w", &[], &["printf", "%s", "$HOME *; exit 3"]);
    assert_eq!(run.finish_with_output(), (0, "$HOME *; exit 3".to_owned()));
}

#[test]
fn wrong_use_is_2_and_no_server_or_a_refused_token_is_69() {
    let output = |arguments: &[&str]| {
        let output = lockhouse().arg("run").args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for wrong in [
        &["w", "true"][..],
        &["w", "--"],
        &["--", "true"],
        &["", "--", "true"],
        &["--wait", "1s", "--no-wait", "w", "--", "true"],
        &["--ttl", "0s", "w", "--", "true"],
        &["--ttl", "soon", "w", "--", "true"],
        &["--on-lost", "cry", "w", "--", "true"],
        &["--lost-exit-code", "256", "w", "--", "true"],
        &["--no-such-flag", "w", "--", "true"],
    ] {
        assert_eq!(output(wrong).0, 2, "{wrong:?}");
    }
    for (url, says) in [("http://127.0.0.1:1", "does not answer"), ("https://127.0.0.1:1", "does not answer")]
    {
        let (code, log) = output(&["--url", url, "w", "--", "true"]);
        assert_eq!((code, log.contains(says)), (69, true), "{log}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let path = file.to_str().unwrap();
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let url = url(&server);
    let run = ["--url", &url, "--token-file", path, "w", "--", "true"];
    let (code, log) = output(&run);
    assert_eq!((code, log.contains(path)), (69, true), "{log}");
    fs::write(&file, "lh_wrong").unwrap();
    let (code, log) = output(&run);
    assert_eq!((code, log.contains("401"), log.contains("lh_wrong")), (69, true, false), "{log}");
    // The flag goes before the variables.
    let token = server.token(Scope::User, Some("alice"));
    fs::write(&file, &token).unwrap();
    let finished = lockhouse().arg("run").args(run).env("LOCKHOUSE_TOKEN", "lh_wrong").status().unwrap();
    assert_eq!(finished.code(), Some(0));
    let finished = lockhouse()
        .args(["run", "w", "--", "sh", "-c", "test $LOCKHOUSE_WORKSPACE = w"])
        .env("LOCKHOUSE_URL", &url)
        .env("LOCKHOUSE_TOKEN_FILE", path)
        .status()
        .unwrap();
    assert_eq!(finished.code(), Some(0));
}

#[test]
fn a_conflict_has_its_own_exit_code() {
    // The server ends the waits, so its clock must run.
    let place = tempfile::tempdir().unwrap();
    let server = Process::serve(&place.path().join("lockhouse.db"));
    let url = format!("http://{}", server.address);
    server.user("alice").acquire("w", &json!({ "name": "Alice" })).expect(200);
    let run = |flags: &[&str]| Run::at(&url, "w", flags, &["touch", "started"]);
    for (flags, code) in [
        (&["--no-wait"][..], 75),
        (&["--no-wait", "--conflict-exit-code", "33"], 33),
        (&["--wait", "100ms"], 75),
        (&["--wait", "0s"], 75),
    ] {
        let run = run(flags);
        let (directory, found, log) = run.finish_in();
        let started = directory.path().join("started").exists();
        assert_eq!((found, log.contains("Alice"), started), (code, true, false), "{flags:?}: {log}");
    }
}

#[test]
fn the_command_has_the_fence_its_own_group_and_clean_signals() {
    let server = Server::start();
    let script = "env >env; cat /proc/self/stat >stat; cat /proc/self/status >status; cat <&0 >stdin; cat <&7 >seven; \
                  echo out; echo error >&2";
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("input"), "inherited").unwrap();
    // All signals that a shell can ignore, and SIGPIPE, which must not stay ignored.
    let shell = "trap '' PIPE; exec \"$0\" \"$@\" 7<input";
    let run = Run::in_shell(&server, directory, shell, "w", &["sh", "-c", script]);
    let lock_of_run = || server.user("bob").lock("w");
    eventually(|| !lock_of_run().is_null());
    let lock = lock_of_run();
    assert_eq!((&lock["kind"], &lock["ttl_ms"]), (&json!("run"), &json!(30_000)));
    let mut run = run;
    run.close_stdin("from outside");
    let (directory, code, log) = run.finish_in();
    assert_eq!((code, log.as_str()), (0, "error\n"));
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!((read("stdin"), read("seven")), ("from outside".to_owned(), "inherited".to_owned()));
    let environment = read("env");
    let has = |line: &str| environment.lines().any(|known| known == line);
    assert!(
        has(&format!("LOCKHOUSE_FENCE={}", lock["fence"])) && has("LOCKHOUSE_WORKSPACE=w"),
        "{environment}"
    );
    assert!(has(&format!("LOCKHOUSE_SESSION={}", lock["session_id"].as_str().unwrap())), "{environment}");
    // `cat` is in the group of the shell, which leads it.
    let stat = read("stat");
    let fields: Vec<i64> =
        stat.rsplit(") ").next().unwrap().split(' ').filter_map(|field| field.parse().ok()).collect();
    let (parent, group) = (fields[0], fields[1]);
    assert_eq!(parent, group, "{stat}");
    let status = read("status");
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    assert_eq!(mask("SigIgn:") >> 12 & 1, 0, "SIGPIPE has its default");
}

#[test]
fn signals_reach_the_whole_group_and_an_ignored_one_stays_ignored() {
    let server = Server::start();
    let script = "(trap 'echo child' TERM; touch ready.child; while :; do sleep 0.05; done) & \
                  trap 'echo got; kill -KILL $!; exit 9' SIGNAL; touch ready; while :; do sleep 0.05; done";
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3)] {
        let script = script.replace("SIGNAL", name);
        let run = Run::of(&server, name, &[], &["sh", "-c", &script]);
        run.has("ready");
        run.has("ready.child");
        run.signal(name);
        let (code, output) = run.finish_with_output();
        assert_eq!(code, 9, "{name} {number}");
        assert!(output.contains("got"), "{output}");
        let default = Run::of(&server, name, &[], &["sh", "-c", "touch ready; exec sleep 100"]);
        default.has("ready");
        default.signal(name);
        assert_eq!(default.finish().0, 128 + number, "{name}");
    }
    let script = "touch ready; while [ ! -e end ]; do sleep 0.05; done; exit 5";
    let shell = "trap '' HUP; exec \"$0\" \"$@\"";
    let run = Run::in_shell(&server, tempfile::tempdir().unwrap(), shell, "w", &["sh", "-c", script]);
    run.has("ready");
    run.signal("HUP");
    run.write("end");
    assert_eq!(run.finish().0, 5);
}

#[test]
fn the_lock_is_held_until_the_whole_group_is_gone() {
    let server = Server::start();
    let script = "(while [ ! -e end ]; do sleep 0.05; done; touch last) & touch ready; exit 4";
    let run = Run::of(&server, "w", &[], &["sh", "-c", script]);
    run.has("ready");
    // The shell ends at once. What it has left still runs, under the lock.
    for _ in 0..10 {
        assert_eq!(server.user("bob").lock("w")["kind"], "run");
    }
    run.write("end");
    let (directory, code, _) = run.finish_in();
    assert_eq!((code, directory.path().join("last").exists()), (4, true));
    assert!(server.user("bob").lock("w").is_null());
}

#[test]
fn it_waits_in_the_line_and_a_full_line_is_no_conflict() {
    let server = Server::with(|config| config.limits.waiters_per_workspace = 1);
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    let first =
        Run::of(&server, "w", &[], &["sh", "-c", "touch ready; while [ ! -e end ]; do sleep 0.05; done"]);
    let waits = || {
        let presence = server.user("alice").get("/api/v1/workspaces/w/presence").expect(200);
        presence["waiting"].as_array().unwrap().len()
    };
    eventually(|| waits() == 1);
    let second = Run::of(&server, "w", &[], &["true"]);
    eventually(|| server.limited("waiters_per_workspace") >= 2);
    alice.release("w", &json!({ "fence": fence })).expect(200);
    first.has("ready");
    first.write("end");
    assert_eq!(first.finish().0, 0);
    assert_eq!(second.finish().0, 0);
}

#[test]
fn a_signal_ends_the_wait() {
    let server = Server::start();
    server.user("alice").acquire("w", &json!({})).expect(200);
    let run = Run::of(&server, "w", &[], &["touch", "started"]);
    run.says("waiting for the lock");
    run.signal("TERM");
    let (directory, code, _) = run.finish_in();
    assert_eq!((code, directory.path().join("started").exists()), (128 + 15, false));
}

#[test]
fn a_terminal_is_given_to_the_command_and_taken_back() {
    if common::process::is_missing("script") {
        return;
    }
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let command = "trap 'echo interrupted; exit 5' INT; read line; echo \"read $line\"; cut -d' ' -f5,8 /proc/$$/stat >groups; \
                   touch ready; while :; do sleep 0.05; done";
    fs::write(directory.path().join("command"), command).unwrap();
    let outer = "lockhouse run w -- sh command; echo \"code $?\"; read line; echo \"again $line\"";
    let mut script = with_default_signals(OsStr::new("script"))
        .args(["-qec", &outer.replace("lockhouse", env!("CARGO_BIN_EXE_lockhouse")), "/dev/null"])
        .current_dir(directory.path())
        .env("LOCKHOUSE_URL", url(&server))
        .env("LOCKHOUSE_USER", "bob")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = script.stdin.take().unwrap();
    let mut types = |text: &[u8]| std::io::Write::write_all(&mut terminal, text).unwrap();
    types(b"one\n");
    eventually(|| directory.path().join("ready").exists());
    let groups = fs::read_to_string(directory.path().join("groups")).unwrap();
    let (own, foreground) = groups.trim().split_once(' ').unwrap();
    assert_eq!(own, foreground, "the group of the command has the terminal");
    types(b"\x03");
    types(b"two\n");
    let output = script.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["read one", "interrupted", "code 5", "again two"] {
        assert!(output.contains(part), "{part:?} is missing in {output}");
    }
}

#[test]
fn a_place_in_the_line_is_kept_beyond_the_longest_wait_of_a_request() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let lock = alice.acquire("w", &json!({ "ttl_ms": 3_600_000 })).expect(200)["lock"].clone();
    let run = Run::of(&server, "w", &[], &["touch", "started"]);
    run.says("waiting for the lock");
    let mut since = || {
        let presence = alice.get("/api/v1/workspaces/w/presence").expect(200);
        presence["waiting"][0]["since_at"].clone()
    };
    let held = || metric(&server, "lockhouse_acquisitions_total{outcome=\"held\"}");
    // The end of the first request tells how long a request may wait.
    let first = since();
    server.pass(60_000);
    eventually(|| ![json!(null), first.clone()].contains(&since()));
    // From now on each request is replaced before it ends, and the new one has its place.
    let place = since();
    for _ in 0..6 {
        let before = held();
        eventually(|| held() > before);
        server.pass(20_000);
    }
    assert_eq!(since(), place);
    alice.release("w", &json!({ "fence": lock["fence"] })).expect(200);
    let (directory, code, _) = run.finish_in();
    assert_eq!((code, directory.path().join("started").exists()), (0, true));
}
