//! The program as a process: start, stop, kill, two servers, and changes of the clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use common::Raw;
use common::load::{defects, highest, killed_under_load, missing};
use common::process::{Process, faketime_library, lockhouse};
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Output {
    lockhouse().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn sigterm_and_sigint_shut_down_gracefully() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("lockhouse.db");
        let process = Process::serve(&database);
        let fence = process.user("alice").acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
        let (code, log) = if signal == "TERM" {
            process.terminate()
        } else {
            Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
            process.wait()
        };
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("SIG{signal}: stopping")) && log.contains("stopped"), "{log}");
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "the log is folded in: {left:?}");
        let process = Process::serve(&database);
        assert_eq!(process.user("bob").lock("w")["fence"], fence);
    }
}

#[test]
fn each_refusal_is_one_log_line_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::serve(&directory.path().join("lockhouse.db"));
    let (mut alice, mut bob) = (process.user("alice"), process.user("bob"));
    alice.acquire("w", &json!({})).expect(200);
    bob.request("POST", "/api/v1/workspaces/w/lock", &[("X-Request-Id", "trace-1")], b"")
        .refused(409, "lock_held");
    bob.heartbeat("w", &json!({})).refused(403, "not_holder");
    bob.get("/nowhere?token=secret").refused(404, "not_found");
    bob.get(&format!("/{}", "x".repeat(15_000))).refused(404, "not_found");
    bob.send(b"GET /x\n2026-01-01T00:00:00.000Z[ERROR]forged\x1b[31m HTTP/1.1\r\nHost: t\r\n\r\n");
    bob.receive("GET").unwrap().refused(400, "invalid_request");
    let (_, log) = process.terminate();
    let line = log.lines().find(|line| line.contains("trace-1")).unwrap();
    for part in [
        "[INFO]",
        "127.0.0.1 POST /api/v1/workspaces/w/lock 409 lock_held ",
        " ms ",
        "user_id=\"bob\"",
        "request_id=\"trace-1\"",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(log.lines().all(|line| line.contains("[INFO]")), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(log.lines().all(|line| line.len() < 600), "nobody fills the disk with a long path: {log}");
}

#[test]
fn after_a_pause_received_bytes_are_read_before_timeouts_apply() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = lockhouse();
    command.env("LOCKHOUSE_SERVER_HEAD_TIMEOUT", "4s").env("LOCKHOUSE_SERVER_IDLE_TIMEOUT", "4s");
    let process = Process::start(&mut command, &directory.path().join("lockhouse.db"));
    let signal = |name: &str| Command::new("kill").args([name, &process.id().to_string()]).status().unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut clients: Vec<_> = (0..20).map(|_| Raw::connect(process.address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&request[..if number % 2 == 0 { 10 } else { 0 }]);
    }
    process.user("alice").lock("w");
    signal("-STOP");
    let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" T")
    };
    while !std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().all(is_stopped) {
        std::thread::yield_now();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&request[if number % 2 == 0 { 10 } else { 0 }..]);
    }
    // Longer than all of its deadlines.
    assert!(!clients[0].has_something(Duration::from_millis(4_500)));
    signal("-CONT");
    let answered: Vec<_> = clients.iter_mut().map(|client| client.answers().len()).collect();
    let metrics = process.user("alice").get("/metrics");
    let cuts: Vec<_> = metrics.text().lines().filter(|line| line.contains("_total{reason")).collect();
    assert_eq!(answered, [1; 20], "{cuts:?}");
}

#[test]
fn the_log_format_can_be_json() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = lockhouse();
    command.env("LOCKHOUSE_LOG_FORMAT", "json");
    let process = Process::start(&mut command, &directory.path().join("lockhouse.db"));
    process.user("alice").heartbeat("w", &json!({})).refused(404, "lock_not_found");
    let (_, log) = process.terminate();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = lines.iter().find(|line| line["method"] == "POST").unwrap();
    assert_eq!(
        (&request["level"], &request["path"], &request["status"], &request["user_id"]),
        (&json!("INFO"), &json!("/api/v1/workspaces/w/lock/heartbeat"), &json!(404), &json!("alice"))
    );
    assert!(request["duration_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_second_server_on_a_database_names_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let first = Process::serve(&database);
    let second = run(&["serve", "--listen", "127.0.0.1:0", "--database", database.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(text(&second.stdout), "");
    let message = text(&second.stderr);
    for part in
        ["is in use by", &format!("process id {}", first.id()), &first.address.to_string(), "--database"]
    {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    first.user("alice").acquire("w", &json!({})).expect(200);
    // The system lets go of the lock when the process ends, however it ends.
    first.kill();
    Process::serve(&database).user("alice").acquire("w", &json!({})).expect(200);
}

#[test]
fn an_address_in_use_is_reported_before_any_file_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let first = Process::serve(&directory.path().join("first.db"));
    let other = directory.path().join("second.db");
    let second =
        run(&["serve", "--listen", &first.address.to_string(), "--database", other.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let message = text(&second.stderr);
    assert!(message.contains(&first.address.to_string()) && message.contains("--listen"), "{message}");
    assert!(!other.exists());
}

#[test]
fn check_prints_effective_settings_and_refuses_bad_ones() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lockhouse.toml");
    std::fs::write(&file, "[locks]\ndefault_ttl = \"5m\"\n").unwrap();
    let file = file.to_str().unwrap();
    let checked = run(&["check", "--config", file, "--listen", "[::1]:9"]);
    assert_eq!(checked.status.code(), Some(0));
    let shown: toml::Table = text(&checked.stdout).parse().unwrap();
    assert_eq!(shown["locks"]["default_ttl"].as_str(), Some("5m"));
    assert_eq!(shown["server"]["listen"].as_str(), Some("[::1]:9"));
    // What it prints is itself a file of settings that means the same.
    let again = directory.path().join("again.toml");
    std::fs::write(&again, &checked.stdout).unwrap();
    assert_eq!(run(&["check", "--config", again.to_str().unwrap()]).stdout, checked.stdout);

    for (arguments, says) in [
        (vec!["check", "--listen", "0.0.0.0:7311"], "loopback"),
        (vec!["serve", "--listen", "0.0.0.0:7311"], "loopback"),
        (vec!["check", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (vec!["check", "--database", ":memory:"], "--database: database.path = \":memory:\""),
    ] {
        let refused = run(&arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused.stderr).contains(says), "{}", text(&refused.stderr));
    }
}

#[test]
fn help_lists_commands_and_flags() {
    let help = text(&run(&["--help"]).stdout);
    for part in ["lease", "serve", "check", "LOCKHOUSE_<SECTION>_<NAME>", "curl -X POST"] {
        assert!(help.contains(part), "{part} is missing in {help}");
    }
    let serve = text(&run(&["serve", "--help"]).stdout);
    for part in ["--config", "--listen", "--database", "SIGTERM", "127.0.0.1:7311"] {
        assert!(serve.contains(part), "{part} is missing in {serve}");
    }
    assert_eq!(run(&["serv"]).status.code(), Some(2));
}

#[test]
fn acknowledged_writes_survive_repeated_kills() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let mut all = Vec::new();
    for round in 0..8 {
        // In the middle of the load, at another point each time.
        let told = killed_under_load(Process::serve(&database), round, 150 + round * 37);
        assert_eq!(missing(&database, &told), [""; 0]);
        all.push(highest(&told));
    }
    assert!(all.is_sorted_by(|before, after| before < after), "fences go on after each crash: {all:?}");
    assert_eq!(defects(&database), [""; 0]);
}

#[test]
fn a_lease_seen_as_expired_stays_expired_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let mut command = lockhouse();
    command.env("LOCKHOUSE_SWEEPER_INTERVAL", "never");
    let process = Process::start(&mut command, &database);
    let mut alice = process.user("alice");
    let fence = alice.acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200)["lock"]["fence"].clone();
    while alice.lock("w") != Value::Null {
        std::thread::yield_now();
    }
    process.kill();
    let process = Process::serve(&database);
    let mut alice = process.user("alice");
    assert_eq!(alice.lock("w"), Value::Null);
    alice.heartbeat("w", &json!({ "fence": fence })).refused(404, "lock_not_found");
}

#[test]
fn the_server_runs_when_stdout_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = lockhouse()
        .args(["serve", "--listen", "127.0.0.1:0", "--database"])
        .arg(directory.path().join("lockhouse.db"))
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    assert!(line.contains("is listening on http://127.0.0.1:"), "{line}");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn setting_the_system_clock_keeps_the_remaining_lease_time() {
    let Some(library) = faketime_library() else { return };
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    // In one step: the server may read the clock at any time, and an empty file would be an offset of zero.
    let set = |offset_text: &str| {
        let next = directory.path().join("next");
        std::fs::write(&next, format!("{offset_text}\n")).unwrap();
        std::fs::rename(next, &offset).unwrap();
    };
    let database = directory.path().join("lockhouse.db");
    let start = || {
        let mut command = lockhouse();
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Process::start(&mut command, &database)
    };
    set("+0");
    let process = start();
    let (mut alice, mut bob) = (process.user("alice"), process.user("bob"));
    let before = alice.acquire("w", &json!({})).expect(200)["lock"].clone();
    let day = |lock: &Value| lock["expires_at"].as_str().unwrap()[..10].to_owned();
    let mut fence = before["fence"].as_i64();
    for (set_to, moved) in [("+5d", true), ("-5d", true), ("+0", false)] {
        set(set_to);
        // The next write notices.
        bob.acquire("w", &json!({})).refused(409, "lock_held");
        let shown = alice.lock("w");
        let left = shown["expires_in_ms"].as_i64().unwrap();
        assert!((500_000..=600_000).contains(&left), "{set_to}: {left} ms are left");
        assert_eq!(day(&shown) != day(&before), moved, "{set_to}: {shown}");
        let other = bob.acquire(&format!("other{set_to}"), &json!({})).expect(200)["lock"]["fence"].as_i64();
        assert!(other > fence, "{set_to}: a fence fell");
        fence = other;
    }
    let (_, log) = process.terminate();
    assert_eq!(log.matches("the wall clock was set by").count(), 3, "{log}");
    // Set back while it is away.
    set("-5d");
    let process = start();
    let shown = process.user("alice").lock("w");
    assert!((500_000..=600_000).contains(&shown["expires_in_ms"].as_i64().unwrap()), "{shown}");
    assert!(process.user("bob").acquire("last", &json!({})).expect(200)["lock"]["fence"].as_i64() > fence);
}
