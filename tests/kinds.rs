//! Kinds of locks, over HTTP and in the use cases: who owns a lock, how long its lease is, whether it passes on, and what
//! `force` does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Server, metric};
use lockhouse::app::locks;
use lockhouse::config::Config;
use lockhouse::domain::{Acquire, Acquired, LockKind, SessionId, UserId, WorkspaceId};
use lockhouse::metrics::Metrics;
use lockhouse::store::{Options, Store};
use lockhouse::time::{Clock, ManualClock, Ttl};
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn run(session: &str) -> Value {
    json!({ "kind": "run", "session_id": session })
}

/// A server whose agents hold their locks as people do.
fn without_yielding() -> Server {
    Server::with(|config| config.locks.agents_yield = false)
}

#[test]
fn a_lock_has_a_kind_and_the_lease_of_its_kind() {
    let server = without_yielding();
    let mut alice = server.user("alice");
    for (kind, ttl) in [("edit", 10 * MINUTE), ("agent", 2 * MINUTE), ("run", MINUTE / 2)] {
        let asked = json!({ "kind": kind, "session_id": "s" });
        let lock = alice.acquire(kind, &asked).expect(200)["lock"].clone();
        assert_eq!((&lock["kind"], &lock["ttl_ms"]), (&json!(kind), &json!(ttl)));
        assert_eq!(alice.lock(kind)["kind"], kind);
        let history = alice.get(&format!("/api/v1/workspaces/{kind}/history")).expect(200);
        assert_eq!(history["events"][0]["kind"], kind);
        let held = server.user("bob").acquire(kind, &json!({})).refused(409, "lock_held");
        assert_eq!(held["lock"]["kind"], kind);
    }
    assert_eq!(alice.acquire("plain", &json!({})).expect(200)["lock"]["kind"], "edit");
    for kind in ["terraform", "lfs", "dog", ""] {
        let refused = alice.acquire("w", &json!({ "kind": kind })).refused(400, "invalid_request");
        assert_eq!(refused["field"], "kind", "{kind}");
    }
}

#[test]
fn another_kind_of_the_same_user_is_refused_with_same_user() {
    let server = without_yielding();
    let mut alice = server.user("alice");
    for held in ["edit", "agent", "run"] {
        let lock = alice.acquire(held, &json!({ "kind": held, "session_id": "s" })).expect(200);
        for asked in ["edit", "agent", "run"].into_iter().filter(|asked| *asked != held) {
            let body = json!({ "kind": asked, "session_id": "s", "ttl_ms": 1000 });
            let refused = alice.acquire(held, &body).refused(409, "lock_held");
            assert_eq!(refused["same_user"], true, "{asked} while {held}");
            assert_eq!(refused["takeover_allowed"], held != "run" && asked != "agent");
        }
        assert_eq!(alice.lock(held)["expires_at"], lock["lock"]["expires_at"], "it is not shortened");
    }
}

#[test]
fn a_session_owns_its_run_lock() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let first = alice.acquire("w", &run("one")).expect(200);
    assert_eq!(alice.acquire("w", &run("one")).expect(200)["outcome"], "renewed");
    assert_eq!(alice.acquire("w", &run("two")).refused(409, "lock_held")["same_user"], true);
    for nameless in [json!({}), json!({ "session_id": "two" })] {
        alice.heartbeat("w", &nameless).refused(403, "not_holder");
        alice.release("w", &nameless).refused(403, "not_holder");
    }
    alice.heartbeat("w", &json!({ "session_id": "one" })).expect(200);
    alice.heartbeat("w", &json!({ "fence": first["lock"]["fence"] })).expect(200);
    assert_eq!(alice.release("w", &json!({ "session_id": "one" })).expect(200)["released"], true);

    // Two processes without a session id do not share a lock.
    let lock = alice.acquire("w", &json!({ "kind": "run" })).expect(200)["lock"].clone();
    alice.acquire("w", &json!({ "kind": "run" })).refused(409, "lock_held");
    alice.heartbeat("w", &json!({})).refused(403, "not_holder");
    server.pass(31_000);
    let next = alice.acquire("w", &json!({ "kind": "run" })).expect(200);
    assert_eq!(next["outcome"], "acquired", "nor do they reclaim it");
    assert!(next["lock"]["fence"].as_i64() > lock["fence"].as_i64());
    server.pass(31_000);
    let own = alice.acquire("w", &run("one")).expect(200)["lock"]["fence"].clone();
    server.pass(31_000);
    let reclaimed = alice.acquire("w", &run("one")).expect(200);
    assert_eq!((&reclaimed["outcome"], &reclaimed["lock"]["fence"]), (&json!("reclaimed"), &own));
}

#[test]
fn force_replaces_edit_and_agent_locks_and_no_others() {
    let server = without_yielding();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    for held in ["edit", "agent", "run"] {
        let lock = alice.acquire(held, &json!({ "kind": held, "session_id": "s" })).expect(200);
        let forced = bob.acquire(held, &json!({ "force": true }));
        if held == "run" {
            let refused = forced.refused(403, "takeover_forbidden");
            assert_eq!(refused["lock"]["fence"], lock["lock"]["fence"]);
            assert!(refused["detail"].as_str().unwrap().contains("forced release"), "{refused}");
            bob.release(held, &json!({ "force": true })).expect(200);
            bob.acquire(held, &json!({})).expect(200);
        } else {
            assert_eq!(forced.expect(200)["outcome"], "taken_over");
        }
    }
}

#[test]
fn a_run_lock_passes_on_only_by_its_holder() {
    let server = Server::with(|config| {
        config.locks.idle_takeover_after = Some(Ttl::from_millis(1_000));
        config.locks.takeover = lockhouse::domain::access::Takeover::Nobody;
    });
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("w", &run("one")).expect(200);
    let knock = bob.post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    assert_eq!(knock["knock"]["auto_grant_at"], Value::Null);
    assert_eq!(alice.heartbeat("w", &json!({ "session_id": "one" })).expect(200)["knock"]["user_id"], "bob");
    for _ in 0..4 {
        server.pass(25_000);
        alice.heartbeat("w", &json!({ "session_id": "one" })).expect(200);
    }
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice", "nobody gets it after knock_grant_after");
    assert_eq!(bob.acquire("w", &json!({})).refused(409, "lock_held")["takeover_allowed"], false);
    bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");

    // An edit lock is there for anyone who asks by then.
    alice.acquire("v", &json!({})).expect(200);
    server.pass(2_000);
    assert_eq!(bob.acquire("v", &json!({ "force": true })).expect(200)["outcome"], "taken_over");
}

#[test]
fn a_handover_gives_the_kind_that_was_asked_for() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let knock = json!({ "kind": "run", "session_id": "job" });
    for (asked, kind) in [(json!({}), "edit"), (knock, "run")] {
        let shown = if kind == "edit" { Value::Null } else { json!(kind) };
        let fence = alice.acquire(kind, &json!({})).expect(200)["lock"]["fence"].clone();
        bob.post(&format!("/api/v1/workspaces/{kind}/lock/knock"), &asked).expect(202);
        assert_eq!(alice.lock(kind)["knock"]["kind"], shown);
        let handover = format!("/api/v1/workspaces/{kind}/lock/handover");
        let lock = alice.post(&handover, &json!({ "fence": fence })).expect(200)["lock"].clone();
        assert_eq!((&lock["kind"], &lock["locked_by_user_id"]), (&json!(kind), &json!("bob")));
        let left = if kind == "run" { 30_000 } else { 15_000 };
        assert_eq!(lock["expires_in_ms"], left, "only people must claim it");
    }
}

#[test]
fn a_process_is_told_how_long_an_earlier_one_may_still_run() {
    let mut server = Server::start();
    let drained = |server: &Server, user: &str, session: &str| {
        let answer = server.user(user).acquire("w", &run(session)).expect(200);
        (answer["outcome"].clone(), answer["drain_ms"].clone())
    };
    let edit = server.user("alice").acquire("v", &json!({})).expect(200);
    assert!(edit.get("drain_ms").is_none(), "only a process waits for another");
    assert_eq!(drained(&server, "alice", "one"), (json!("acquired"), json!(0)));
    server.pass(10_000);
    server.user("bob").release("w", &json!({ "force": true })).expect(200);
    server.pass(5_000);
    assert_eq!(drained(&server, "bob", "two"), (json!("acquired"), json!(15_000)), "alice's process");
    server.pass(1_000);
    assert_eq!(drained(&server, "bob", "two"), (json!("renewed"), json!(14_000)), "the answer was lost");

    // The next holders are told too, also after other leases and after a restart.
    server.user("bob").release("w", &json!({ "session_id": "two" })).expect(200);
    server.user("carol").acquire("w", &json!({})).expect(200);
    server.user("carol").release("w", &json!({})).expect(200);
    server.restart();
    server.pass(4_000);
    assert_eq!(drained(&server, "dave", "three"), (json!("acquired"), json!(10_000)));
    server.restart();
    assert_eq!(drained(&server, "dave", "three"), (json!("renewed"), json!(10_000)));
    server.pass(10_000);
    assert_eq!(drained(&server, "dave", "three"), (json!("renewed"), json!(0)));

    // Who lets the lease end, or gives it up, has stopped by then.
    server.user("dave").release("w", &json!({ "session_id": "three" })).expect(200);
    assert_eq!(drained(&server, "alice", "four"), (json!("acquired"), json!(0)));
    server.pass(30_000);
    assert_eq!(drained(&server, "bob", "five"), (json!("acquired"), json!(0)));
}

#[test]
fn the_trimmed_history_keeps_what_a_process_must_wait_for() {
    let server = Server::with(|config| config.history.keep = Some(Duration::from_millis(1)));
    server.user("alice").acquire("w", &run("one")).expect(200);
    server.user("bob").release("w", &json!({ "force": true })).expect(200);
    server.pass(10_000);
    server.sweep();
    assert_eq!(server.user("bob").acquire("w", &run("two")).expect(200)["drain_ms"], 20_000);
    server.user("bob").release("w", &json!({ "session_id": "two" })).expect(200);
    server.pass(20_001);
    server.sweep();
    assert!(server.user("bob").history("w").is_empty());
}

#[test]
fn a_waiting_process_is_told_when_it_gets_the_lock() {
    let server = Server::start();
    server.user("alice").acquire("w", &run("one")).expect(200);
    server.pass(10_000);
    let mut bob = server.user("bob");
    let waiting = std::thread::spawn(move || {
        let body = json!({ "kind": "run", "session_id": "two", "wait_ms": 60_000 });
        bob.acquire("w", &body).expect(200)
    });
    common::eventually(|| metric(&server, "lockhouse_held_requests") > 0.0);
    server.user("carol").release("w", &json!({ "force": true })).expect(200);
    let waits = waiting.join().unwrap();
    assert_eq!((&waits["drain_ms"], &waits["lock"]["expires_in_ms"]), (&json!(20_000), &json!(30_000)));
}

#[test]
fn limits_and_leases_are_settings_of_each_kind() {
    let server = Server::with(|config| {
        config.kinds_run.locks_per_user = 1;
        config.kinds_run.default_ttl = Ttl::from_millis(5_000);
        config.kinds_run.max_ttl = Ttl::from_millis(7_000);
    });
    let mut alice = server.user("alice");
    let mut long = run("one");
    long["ttl_ms"] = json!(DAY);
    assert_eq!(alice.acquire("a", &run("one")).expect(200)["lock"]["ttl_ms"], 5_000);
    assert_eq!(alice.acquire("a", &long).expect(200)["lock"]["ttl_ms"], 7_000);
    alice.acquire("b", &run("one")).refused(429, "rate_limited");
    alice.acquire("b", &json!({})).expect(200);
    server.pass(7_000);
    alice.acquire("c", &run("one")).expect(200);
}

#[test]
fn locks_are_listed_and_released_by_kind() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for kind in ["edit", "agent", "run"] {
        alice.acquire(kind, &json!({ "kind": kind, "session_id": "s" })).expect(200);
    }
    let mut listed = |query: &str| {
        let found = alice.get(&format!("/api/v1/locks?{query}")).expect(200);
        let ids = found["locks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lock| lock["workspace_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed("kind=run"), ["run"]);
    assert_eq!(listed("kind=run&kind=edit&user_id=alice"), ["edit", "run"]);
    assert_eq!(listed("kind=terraform"), Vec::<String>::new());
    assert_eq!(listed("prefix="), ["agent", "edit", "run"]);
    assert_eq!(alice.delete("/api/v1/users/alice/locks").expect(200)["released"], 1);
    assert_eq!(alice.delete("/api/v1/users/alice/locks?kind=edit&kind=run").expect(200)["released"], 1);
    assert_eq!(alice.lock("agent")["kind"], "agent");
}

/// The kinds that have paths of their own: here through the use case that these paths call.
#[test]
fn terraform_owns_by_its_lock_id_and_git_lfs_by_the_user() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(common::NOON);
    let config = Config::default();
    let options = Options {
        url: common::postgres::new_database_if_asked(),
        path: directory.path().join("lockhouse.db"),
        busy_timeout: Duration::from_secs(5),
        max_size: None,
        restart_grace: Duration::ZERO,
        readers: 1,
        waiters: lockhouse::domain::waitlist::WaitlistLimits { per_workspace: 9, per_user: 9, total: 9 },
    };
    let store = Store::open(&options, Clock::Manual(clock), &Arc::new(Metrics::default())).unwrap();
    let acquire = |kind: LockKind, user: &str, session: Option<&str>, at: &str| {
        let request = Acquire {
            kind,
            session_id: session.map(|session| SessionId::parse(session).unwrap()),
            ..Acquire::new(WorkspaceId::parse(at).unwrap(), UserId::parse(user).unwrap())
        };
        let rules = config.rules();
        store.write(move |set| locks::acquire(set, &request, &rules)).unwrap().value
    };
    let ttl = |acquired: &Acquired| {
        if let Acquired::Acquired(lock) = acquired { Some(lock.ttl.as_millis()) } else { None }
    };
    assert_eq!(ttl(&acquire(LockKind::Terraform, "ci", Some("id-1"), "t")), Some(DAY));
    assert!(matches!(acquire(LockKind::Terraform, "ci", Some("id-1"), "t"), Acquired::Renewed(_)));
    assert!(matches!(
        acquire(LockKind::Terraform, "ci", Some("id-2"), "t"),
        Acquired::Held { same_user: true, takeover_allowed: false, .. }
    ));
    assert_eq!(ttl(&acquire(LockKind::Lfs, "alice", None, "lfs/r:f")), Some(90 * DAY));
    assert!(matches!(acquire(LockKind::Lfs, "alice", Some("s"), "lfs/r:f"), Acquired::Renewed(_)));
    assert!(matches!(
        acquire(LockKind::Edit, "alice", None, "lfs/r:f"),
        Acquired::Held { same_user: true, .. }
    ));
    assert!(matches!(
        acquire(LockKind::Lfs, "bob", None, "lfs/r:f"),
        Acquired::Held { same_user: false, .. }
    ));
}
