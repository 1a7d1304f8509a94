//! The log: of the program in both formats, and of transactions that are rolled back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::process::{Process, lockhouse};
use common::{Client, NOON, options, postgres};
use lockhouse::app::locks;
use lockhouse::config::Config;
use lockhouse::domain::{Acquire, UserId, WorkspaceId};
use lockhouse::error::Error;
use lockhouse::metrics::Metrics;
use lockhouse::store::{Keys, Store, WorkingSet};
use lockhouse::time::{Clock, ManualClock};
use serde_json::{Value, json};

fn serve(directory: &tempfile::TempDir, level: &str, format: &str) -> Process {
    let mut command = lockhouse();
    command
        .env("LOCKHOUSE_LOG_LEVEL", level)
        .env("LOCKHOUSE_LOG_FORMAT", format)
        .env("LOCKHOUSE_LOCKS_IDLE_TAKEOVER_AFTER", "15m");
    start(&mut command, directory)
}

fn start(command: &mut Command, directory: &tempfile::TempDir) -> Process {
    postgres::use_if_asked(command);
    Process::start(command, &directory.path().join("lockhouse.db"))
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Runs a server with a few requests. Returns its log.
fn log_of_a_run(level: &str, format: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&directory, level, format);
    let (mut alice, mut bob) = (process.user("alice"), process.user("bob%E2%80%AE"));
    let first = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    alice.heartbeat("w", &json!({ "fence": first })).expect(200);
    let beats = json!({ "locks": [{ "workspace_id": "w", "fence": first }] });
    alice.post("/api/v1/locks/heartbeat", &beats).expect(200);
    bob.acquire("w", &json!({})).refused(409, "lock_held");
    bob.post("/api/v1/workspaces/w/lock?force=true", &json!({})).expect(200);
    alice.heartbeat("w", &json!({ "fence": first })).refused(403, "not_holder");
    bob.release("w", &json!({})).expect(200);
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    log
}

#[test]
fn the_info_log_has_changes_and_refusals_but_no_heartbeats_and_reads() {
    let log = log_of_a_run("info", "text");
    // PostgreSQL is described before that.
    let begins_above = |line: &&str| postgres::is_asked_for() && !line.contains(" is listening on ");
    let lines: Vec<_> = log.lines().skip_while(begins_above).collect();
    let database = if postgres::is_asked_for() { "database.url = (not shown)" } else { "database.path = \"" };
    let expected: [&[&str]; 9] = [
        &["[INFO] lockhouse ", env!("CARGO_PKG_VERSION"), " is listening on http://127.0.0.1:"],
        &["defaults: ", database, "locks.idle_takeover_after = \"15m\""],
        &["[INFO] lock.acquired workspace_id=\"w\" user_id=\"alice\" fence=", " revision=1 request_id="],
        &["[INFO] 127.0.0.1 POST /api/v1/workspaces/w/lock 409 lock_held ", "bob\\u{202e}\" request_id="],
        &["lock.taken_over workspace_id=\"w\" user_id=\"alice\" fence=", " by_user_id=\"bob\\u{202e}\""],
        &["/heartbeat 403 not_holder "],
        &["lock.released workspace_id=\"w\" user_id=\"bob\\u{202e}\""],
        &["SIGTERM: stopping"],
        &["[INFO] lockhouse ", env!("CARGO_PKG_VERSION"), " has stopped"],
    ];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, parts) in lines.into_iter().zip(expected) {
        for part in parts {
            assert!(line.contains(part), "{part} is missing in {line}\n{log}");
        }
    }
    assert!(!log.contains('\u{202E}'), "{log}");
}

#[test]
fn json_log_lines_have_each_field_once() {
    let log = log_of_a_run("debug", "json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |target: &str| lines.iter().filter(|line| line["target"] == target).collect::<Vec<_>>();
    let changes = of("lockhouse::lock");
    let said: Vec<_> = changes.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(said, ["lock.acquired", "lock.taken_over", "lock.released"]);
    let takeover = changes[1];
    assert_eq!(
        (&takeover["workspace_id"], &takeover["user_id"], &takeover["by_user_id"]),
        (&json!("w"), &json!("alice"), &json!("bob\u{202E}"))
    );
    assert!(takeover["next_fence"].as_u64() > takeover["fence"].as_u64(), "{takeover}");
    let requests = of("lockhouse::request");
    for (line, revision) in changes.iter().zip(1..) {
        assert_eq!((&line["level"], &line["revision"]), (&json!("INFO"), &json!(revision)));
        let caused = requests.iter().filter(|request| request["request_id"] == line["request_id"]);
        assert_eq!(caused.count(), 1, "{line}");
    }
    for line in requests {
        assert_eq!(line["message"], "request");
        let is_refused = line["status"].as_u64().unwrap() >= 400;
        assert_eq!((line["code"].is_string(), line["level"] == "INFO"), (is_refused, is_refused), "{line}");
        let duration = line["duration_ms"].to_string();
        assert!(duration.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 2), "{duration}");
    }
    let codes: BTreeSet<_> = lines.iter().filter_map(|line| line["code"].as_str()).collect();
    assert_eq!(codes, BTreeSet::from(["lock_held", "not_holder"]));
}

#[test]
fn a_repeated_refusal_is_logged_once_and_a_flood_of_refusals_is_limited() {
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&directory, "info", "text");
    process.user("alice").acquire("w", &json!({})).expect(200);
    let mut bob = process.user("bob");
    for _ in 0..50 {
        bob.acquire("w", &json!({})).refused(409, "lock_held");
    }
    bob.heartbeat("w", &json!({})).refused(403, "not_holder");
    process.user("carol").acquire("w", &json!({})).refused(409, "lock_held");
    let asked = 1_000;
    for number in 0..asked {
        bob.acquire(&format!("{number}"), &json!({ "tll_ms": 1 })).refused(400, "invalid_request");
    }
    let (_, log) = process.terminate();
    assert_eq!(log.matches(" 409 lock_held ").count(), 2, "{log}");
    assert_eq!(log.matches(" 403 not_holder ").count(), 1, "{log}");
    let seconds: BTreeSet<_> = log.lines().map(|line| line.split('.').next().unwrap()).collect();
    // The limit counts seconds of another clock, which begin at another moment.
    let most = 20 * (seconds.len() + 1);
    let lines = log.matches(" 400 invalid_request ").count();
    assert!(lines <= most.min(asked), "{lines} in {seconds:?}");
}

#[test]
fn a_request_is_found_by_its_trace_id() {
    let directory = tempfile::tempdir().unwrap();
    let process = serve(&directory, "info", "json");
    let (mut alice, mut bob) = (process.user("alice"), process.user("bob"));
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let path = "/api/v1/workspaces/w/lock";
    let taken = alice.request("POST", path, &[("traceparent", &valid)], b"");
    taken.expect(200);
    assert!(!taken.text().contains(TRACE) && taken.header("traceparent").is_none());
    bob.request("POST", path, &[("TraceParent", &valid)], b"").refused(409, "lock_held");
    // What is invalid is ignored, and nothing is refused because of it.
    let too_long = format!("{valid}-more");
    for (number, invalid) in ["00-x", "\u{e9}", &too_long].iter().enumerate() {
        let path = format!("/api/v1/workspaces/w{number}/lock");
        let headers = [("traceparent", *invalid), ("X-Request-Id", "\u{e9}")];
        alice.request("POST", &path, &headers, b"").expect(200);
    }
    let twice = [("traceparent", valid.as_str()), ("traceparent", valid.as_str())];
    alice.request("POST", "/api/v1/workspaces/twice/lock", &twice, b"").expect(200);
    let (_, log) = process.terminate();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let found: Vec<Value> = lines.filter(|line: &Value| line["trace_id"] == TRACE).collect();
    let [change, refusal] = &found[..] else { panic!("{log}") };
    assert_eq!((&change["message"], &change["user_id"]), (&json!("lock.acquired"), &json!("alice")));
    assert_eq!((&refusal["code"], &refusal["user_id"]), (&json!("lock_held"), &json!("bob")));
    assert_eq!(refusal["parent_id"], "00f067aa0ba902b7");
    assert_eq!(log.matches("trace_id").count(), 2, "{log}");
    assert_eq!(log.matches("lock.acquired").count(), 5, "{log}");
}

#[test]
fn the_settings_are_logged_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = lockhouse();
    let secret = "a secret of more than thirty-two bytes";
    command.env("LOCKHOUSE_AUTH_MODE", "jwt").env("LOCKHOUSE_AUTH_JWT_SECRET", secret);
    let process = start(&mut command, &directory);
    let (_, log) = process.terminate();
    assert!(log.contains("auth.mode = \"jwt\"") && log.contains("auth.jwt_secret = (not shown)"), "{log}");
    assert!(!log.contains(secret), "{log}");
}

#[test]
fn every_end_of_a_lock_is_logged_with_its_author() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = lockhouse();
    command
        .env("LOCKHOUSE_LOG_FORMAT", "json")
        .env("LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER", "1s")
        .env("LOCKHOUSE_LOCKS_KNOCK_GRANT_AT_LATEST", "1s");
    let process = start(&mut command, &directory);
    let (mut alice, mut bob) = (process.user("alice"), process.user("bob"));
    alice.acquire("revoked", &json!({})).expect(200);
    bob.request("DELETE", "/api/v1/workspaces/revoked/lock?force=true", &[], b"").expect(200);
    alice.acquire("silent", &json!({})).expect(200);
    bob.post("/api/v1/workspaces/silent/lock/knock", &json!({})).expect(202);
    common::eventually(|| bob.lock("silent")["locked_by_user_id"] == "bob");
    let fence = alice.acquire("handed", &json!({})).expect(200)["lock"]["fence"].clone();
    let gift = json!({ "fence": fence, "to_user_id": "bob" });
    alice.post("/api/v1/workspaces/handed/lock/handover", &gift).expect(200);
    alice.acquire("deleted", &json!({})).expect(200);
    bob.request("DELETE", "/api/v1/workspaces/deleted", &[], b"").expect(200);
    alice.acquire("expired", &json!({ "ttl_ms": 1_000 })).expect(200);
    common::eventually(|| bob.acquire("expired", &json!({})).status == 200);
    let (_, log) = process.terminate();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines
        .iter()
        .filter(|line| line["target"] == "lockhouse::lock")
        .filter(|line| !["lock.acquired", "lock.knocked"].contains(&line["message"].as_str().unwrap()))
        .map(|line| {
            let by = if line["automatic"] == true { &line["automatic"] } else { &line["by_user_id"] };
            (line["message"].as_str().unwrap(), &line["user_id"], by, &line["to_user_id"])
        })
        .collect();
    let (alice, bob, null) = (json!("alice"), json!("bob"), Value::Null);
    assert_eq!(
        said,
        [
            ("lock.revoked", &alice, &bob, &null),
            ("lock.handed_over", &alice, &json!(true), &bob),
            ("lock.handed_over", &alice, &null, &bob),
            ("workspace.deleted", &alice, &bob, &null),
            ("lock.expired", &alice, &null, &null)
        ]
    );
}

#[test]
fn token_secrets_are_not_logged() {
    let directory = tempfile::tempdir().unwrap();
    let database = options(directory.path());
    let [mut create, mut serve] = [lockhouse(), lockhouse()];
    for command in [&mut create, &mut serve] {
        match &database.url {
            Some(url) => command.env("LOCKHOUSE_DATABASE_URL", url.as_str()),
            None => command.env("LOCKHOUSE_DATABASE_PATH", &database.path),
        };
    }
    let made = create.args(["token", "create", "--scope", "admin"]).output().unwrap();
    let admin = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    serve.env("LOCKHOUSE_AUTH_MODE", "token").env("LOCKHOUSE_LOG_LEVEL", "trace");
    let process = Process::start(&mut serve, &database.path);
    let mut client = Client::connect(process.address).with_token(&admin);
    let token = client.post("/api/v1/tokens", &json!({ "scope": "user", "user_id": "alice" })).expect(201);
    let (secret, id) = (token["token"].as_str().unwrap(), token["token_id"].as_str().unwrap());
    Client::connect(process.address).with_token(secret).acquire("w", &json!({})).expect(200);
    client.request("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").expect(200);
    client.request("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").expect(200);
    Client::connect(process.address)
        .with_token(secret)
        .acquire("w", &json!({}))
        .refused(401, "unauthenticated");
    let (_, log) = process.terminate();
    for event in ["created", "revoked"] {
        let line = format!("[INFO] token.{event} token_id={id:?} scope=\"user\" user_id=\"alice\"");
        assert_eq!(log.matches(&line).count(), 1, "{line}: {log}");
    }
    for secret in [secret, &admin] {
        assert!(secret.len() > 20 && !log.contains(secret.rsplit('_').next().unwrap()), "{log}");
    }
}

/// Keeps what is logged about locks by this process.
struct Kept(Mutex<Vec<String>>);

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == "lockhouse::lock" {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

#[test]
fn rolled_back_changes_are_not_logged_and_others_once() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let clock = Clock::Manual(ManualClock::starting_at(NOON));
    let store = Store::open(&options, clock, &Arc::new(Metrics::default())).unwrap();
    let acquire = |workspace: &'static str| {
        move |set: &WorkingSet<'_>| {
            let (workspace_id, user_id) =
                (WorkspaceId::parse(workspace).unwrap(), UserId::parse("alice").unwrap());
            let request = Acquire::new(workspace_id, user_id);
            locks::acquire(set, &request, &Config::default().rules())
        }
    };
    // The first job blocks the writer until the others are queued, so that they share a transaction.
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let (answered, answers) = std::sync::mpsc::channel();
    store.submit(Keys::default(), move |_| Ok(gone.lock().unwrap().recv().is_ok()), |_| {});
    let told = answered.clone();
    store.submit(Keys::default(), acquire("kept"), move |answer| told.send(answer.is_ok()).unwrap());
    let fails = acquire("rolled back");
    store.submit(
        Keys::default(),
        move |set| fails(set).and_then(|_| Err::<(), _>(Error::Internal("it fails".to_owned()))),
        move |answer| answered.send(answer.is_ok()).unwrap(),
    );
    drop(go);
    assert_eq!((answers.recv().unwrap(), answers.recv().unwrap()), (true, false));
    store.close();
    let kept = KEPT.0.lock().unwrap().clone();
    let [line] = &kept[..] else { panic!("{kept:?}") };
    assert!(line.starts_with("lock.acquired workspace_id=\"kept\" user_id=\"alice\" fence="), "{line}");
}
