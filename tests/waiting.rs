//! Waiting for a lock: in the order of arrival, and only while the client is connected.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Shutdown;

use common::held::{Held, hardly_wait};
use common::waiting::{ask, line, line_becomes};
use common::{Client, Server, eventually};
use lockhouse::domain::access::SameUser;
use serde_json::{Value, json};

/// Joins the end of the queue.
#[track_caller]
fn wait(server: &Server, user: &str, milliseconds: u64) -> Client {
    let mut expected = line(server);
    expected.push(user.to_owned());
    let client = ask(server, user, &json!({ "wait_ms": milliseconds }));
    eventually(|| line(server) == expected);
    client
}

#[track_caller]
fn granted(client: &mut Client, user: &str) -> Value {
    let answer = client.receive("POST").unwrap().expect(200);
    assert_eq!(
        (&answer["outcome"], &answer["lock"]["locked_by_user_id"]),
        (&json!("acquired"), &json!(user))
    );
    answer["lock"].clone()
}

fn locked() -> (Server, Client) {
    locked_for(600_000)
}

fn locked_for(milliseconds: u64) -> (Server, Client) {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "ttl_ms": milliseconds })).expect(200);
    (server, alice)
}

#[test]
fn waiters_get_the_lock_in_order_for_the_claim_time() {
    let (server, mut alice) = locked();
    let mut waiting: Vec<_> =
        ["bob", "carol", "dave"].map(|user| (user, wait(&server, user, 60_000))).into_iter().collect();
    alice.release("w", &json!({})).expect(200);
    for (user, client) in &mut waiting {
        let lock = granted(client, user);
        assert_eq!((&lock["expires_in_ms"], &lock["ttl_ms"]), (&json!(15_000), &json!(600_000)));
        // The connection can be used again.
        let mut known = server.user(user);
        let renewed = known.heartbeat("w", &json!({ "fence": lock["fence"] })).expect(200);
        assert_eq!(renewed["expires_in_ms"], 600_000);
        known.release("w", &json!({})).expect(200);
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(alice.lock("w"), Value::Null);
}

#[test]
fn a_waiter_gets_the_lock_when_the_lease_expires() {
    let (server, mut alice) = locked_for(5_000);
    let mut bob = wait(&server, "bob", 60_000);
    server.pass(4_999);
    assert_eq!(line(&server), ["bob"]);
    server.pass(1);
    let lock = granted(&mut bob, "bob");
    assert_eq!(lock["acquired_at"], "2026-11-23T12:00:05.000Z");
    alice.heartbeat("w", &json!({})).refused(403, "not_holder");
    assert_eq!(
        alice.history("w").iter().map(|event| event.0.as_str()).collect::<Vec<_>>(),
        ["lock.acquired", "lock.expired", "lock.acquired"]
    );
}

#[test]
fn waiters_are_granted_by_revocation_and_handover_not_takeover() {
    let (server, mut alice) = locked();
    let mut bob = wait(&server, "bob", 60_000);
    let mut carol = wait(&server, "carol", 60_000);
    server.user("dave").acquire("w", &json!({ "force": true })).expect(200);
    assert_eq!(line(&server), ["bob", "carol"]);
    let handed =
        server.user("dave").post("/api/v1/workspaces/w/lock/handover", &json!({ "to_user_id": "carol" }));
    let handed = handed.expect(200)["lock"].clone();
    assert_eq!(granted(&mut carol, "carol"), handed, "though bob came first: the holder decides");
    assert_eq!(line(&server), ["bob"]);
    alice.delete("/api/v1/workspaces/w/lock?force=true").expect(200);
    granted(&mut bob, "bob");
}

#[test]
fn a_waiter_who_takes_over_is_answered() {
    let (server, _alice) = locked();
    let mut waits = wait(&server, "bob", 60_000);
    let taken = server.user("bob").acquire("w", &json!({ "force": true })).expect(200);
    let answer = waits.receive("POST").unwrap().expect(200);
    assert_eq!((&answer["outcome"], &answer["lock"]), (&json!("renewed"), &taken["lock"]));
    assert!(line(&server).is_empty());
}

#[test]
fn a_wait_timeout_is_answered_with_the_holder() {
    let (server, mut alice) = locked();
    let mut bob = wait(&server, "bob", 1_000);
    let mut carol = wait(&server, "carol", 1_001);
    server.pass(1_000);
    let held = bob.receive("POST").unwrap();
    let problem = held.refused(409, "lock_held");
    assert_eq!(problem["lock"]["locked_by_user_id"], "alice");
    assert_eq!(problem["lock"]["expires_in_ms"], 599_000);
    assert_eq!((&problem["idle_for_ms"], &problem["takeover_allowed"]), (&json!(1_000), &json!(true)));
    assert_eq!(held.header("retry-after"), Some("599"));
    alice.release("w", &json!({})).expect(200);
    granted(&mut carol, "carol");
}

#[test]
fn a_wait_that_ends_with_the_lease_is_refused_for_a_later_one() {
    let (server, _alice) = locked_for(5_000);
    let mut late = wait(&server, "late", 5_000);
    let mut bob = wait(&server, "bob", 5_001);
    server.pass(5_000);
    granted(&mut bob, "bob");
    late.receive("POST").unwrap().refused(409, "lock_held");
}

#[test]
fn disconnected_waiters_leave_the_queue() {
    let (server, mut alice) = locked();
    let gone = wait(&server, "gone", 60_000);
    let closed = wait(&server, "closed", 60_000);
    let mut bob = wait(&server, "bob", 60_000);
    closed.stream().shutdown(Shutdown::Write).unwrap();
    drop(gone);
    line_becomes(&server, &["bob"]);
    alice.release("w", &json!({})).expect(200);
    granted(&mut bob, "bob");
    assert_eq!(alice.history("w").len(), 3);
}

#[test]
fn an_unclaimed_grant_passes_to_the_next_waiter() {
    let (server, mut alice) = locked();
    let mut bob = wait(&server, "bob", 60_000);
    let mut carol = wait(&server, "carol", 60_000);
    alice.release("w", &json!({})).expect(200);
    granted(&mut bob, "bob");
    server.pass(14_999);
    assert_eq!(line(&server), ["carol"]);
    server.pass(1);
    granted(&mut carol, "carol");
    // Acquiring again claims the lock too.
    let again = server.user("carol").acquire("w", &json!({})).expect(200);
    assert_eq!((&again["outcome"], &again["lock"]["expires_in_ms"]), (&json!("renewed"), &json!(600_000)));
}

#[test]
fn a_repeated_wait_keeps_its_place() {
    let (server, mut alice) = locked();
    let mut bob = wait(&server, "bob", 1_000);
    let _carol = wait(&server, "carol", 60_000);
    let mut again = ask(&server, "bob", &json!({ "wait_ms": 60_000 }));
    bob.receive("POST").unwrap().refused(409, "lock_held");
    server.pass(1_000);
    assert_eq!(line(&server), ["bob", "carol"], "for as long as they said last");
    // Another session has its own place.
    let _other = ask(&server, "bob", &json!({ "wait_ms": 60_000, "session_id": "other" }));
    line_becomes(&server, &["bob", "carol", "bob"]);
    alice.release("w", &json!({})).expect(200);
    granted(&mut again, "bob");
    line_becomes(&server, &["carol"]);
}

#[test]
fn separate_sessions_wait_for_each_other() {
    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "session_id": "one" })).expect(200);
    let mut two = ask(&server, "alice", &json!({ "session_id": "two", "wait_ms": 60_000 }));
    line_becomes(&server, &["alice"]);
    alice.release("w", &json!({ "session_id": "one" })).expect(200);
    assert_eq!(granted(&mut two, "alice")["session_id"], "two");
}

#[test]
fn an_expired_lock_goes_to_the_first_waiter_not_a_newcomer() {
    // Either the timer or carol's request finds the expired lock.
    for _ in 0..20 {
        let (server, _alice) = locked_for(5_000);
        let mut bob = wait(&server, "bob", 60_000);
        let mut carol = server.user("carol");
        server.pass(5_000);
        let held = carol.acquire("w", &json!({})).refused(409, "lock_held");
        assert_eq!(held["lock"]["locked_by_user_id"], "bob");
        granted(&mut bob, "bob");
    }
}

#[test]
fn waiters_are_limited_and_freed_places_are_reused() {
    let server = Server::with(|config| {
        config.limits.waiters_per_workspace = 2;
        config.limits.waiters = 3;
    });
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    alice.acquire("v", &json!({})).expect(200);
    let bob = wait(&server, "bob", 60_000);
    let mut carol = wait(&server, "carol", 60_000);
    let mut dave = server.user("dave");
    let full = dave.acquire("w", &json!({ "wait_ms": 1_000 }));
    full.refused(429, "rate_limited");
    assert_eq!(full.header("retry-after"), Some("1"));
    // A waiter may repeat the request.
    let _again = ask(&server, "carol", &json!({ "wait_ms": 60_000 }));
    carol.receive("POST").unwrap().refused(409, "lock_held");
    drop(bob);
    line_becomes(&server, &["carol"]);
    let _dave = wait(&server, "dave", 60_000);
    let mut others = ["eve", "fay"].map(|user| server.user(user));
    others[0].send(b"POST /api/v1/workspaces/v/lock HTTP/1.1\r\nHost: t\r\nX-User-Id: eve\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"wait_ms\":900}");
    let metrics = || server.client().get("/metrics").text().contains("lockhouse_waiters 3\n");
    eventually(metrics);
    others[1].acquire("v", &json!({ "wait_ms": 1_000 })).refused(429, "rate_limited");
    assert_eq!((server.limited("waiters_per_workspace"), server.limited("waiters")), (1, 1));
    server.pass(60_000);
    eventually(|| server.client().get("/metrics").text().contains("lockhouse_waiters 0\n"));
}

#[test]
fn shutdown_answers_waiters_with_retry_after() {
    let (mut server, _alice) = locked();
    let mut bob = wait(&server, "bob", 60_000);
    server.stop();
    let answer = bob.receive("POST").unwrap();
    answer.refused(503, "busy");
    assert_eq!(answer.header("retry-after"), Some("1"));
    server.start_again();
    assert_eq!(server.client().lock("w")["locked_by_user_id"], "alice");
}

#[test]
fn unneeded_or_invalid_waits_are_answered_at_once() {
    let (server, _alice) = locked();
    let mut bob = server.user("bob");
    bob.acquire("free", &json!({ "wait_ms": 60_000 })).expect(200);
    let lock = bob.acquire("free", &json!({ "wait_ms": 60_000 })).expect(200)["lock"].clone();
    assert_eq!(lock["expires_in_ms"], 600_000, "who did not wait has nothing to claim");
    bob.acquire("w", &json!({ "wait_ms": 0 })).refused(409, "lock_held");
    bob.acquire("w", &json!({ "wait_ms": 60_001 })).refused(400, "invalid_request");
    let stale = json!({ "wait_ms": 1_000, "force": true, "expected_fence": 1 });
    bob.acquire("w", &stale).refused(409, "fence_mismatch");
}

#[test]
fn waits_are_limited_by_max_wait() {
    let server = Server::with(|config| config.locks.max_wait = lockhouse::time::Ttl::from_millis(5_000));
    server.user("alice").acquire("w", &json!({})).expect(200);
    let mut bob = wait(&server, "bob", 60_000);
    server.pass(4_999);
    assert_eq!(line(&server), ["bob"]);
    server.pass(1);
    bob.receive("POST").unwrap().refused(409, "lock_held");
}

#[test]
fn a_locked_database_does_not_extend_waits() {
    let server = Server::with(hardly_wait);
    server.user("alice").acquire("w", &json!({})).expect(200);
    let mut bob = wait(&server, "bob", 1_000);
    let held = Held::on(&server);
    server.pass(1_000);
    bob.receive("POST").unwrap().refused(503, "busy");
    drop(held);
    server.user("alice").release("w", &json!({})).expect(200);
    assert_eq!(server.client().lock("w"), Value::Null, "nothing is given to one who was sent away");
}

#[test]
fn of_separate_waiting_sessions_one_is_granted() {
    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let mut none = wait(&server, "bob", 60_000);
    let mut one = ask(&server, "bob", &json!({ "session_id": "one", "wait_ms": 60_000 }));
    line_becomes(&server, &["bob", "bob"]);
    alice.release("w", &json!({})).expect(200);
    let lock = granted(&mut none, "bob");
    assert_eq!((&lock["session_id"], line(&server)), (&Value::Null, vec!["bob".to_owned()]));
    let mut bob = server.user("bob");
    bob.heartbeat("w", &json!({ "session_id": "one", "fence": lock["fence"] })).refused(403, "not_holder");
    bob.heartbeat("w", &json!({ "fence": lock["fence"] })).expect(200);
    // A knock without a session is granted to a waiting session.
    bob.release("w", &json!({ "fence": lock["fence"] })).expect(200);
    granted(&mut one, "bob");
    bob.release("w", &json!({ "session_id": "one" })).expect(200);
    alice.acquire("w", &json!({})).expect(200);
    let mut two = ask(&server, "bob", &json!({ "session_id": "two", "wait_ms": 60_000 }));
    let mut three = ask(&server, "bob", &json!({ "session_id": "three", "wait_ms": 60_000 }));
    line_becomes(&server, &["bob", "bob"]);
    bob.post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    server.pass(30_000);
    line_becomes(&server, &["bob"]);
    let session = server.client().lock("w")["session_id"].clone();
    let (has, waits) = if session == "two" { (&mut two, &mut three) } else { (&mut three, &mut two) };
    assert_eq!(granted(has, "bob")["session_id"], session);
    server.pass(15_000);
    granted(waits, "bob");
}

#[test]
fn of_shared_waiting_sessions_the_first_is_granted() {
    let (server, mut alice) = locked();
    let mut sessions = ["one", "two"].map(|session| {
        let client = ask(&server, "bob", &json!({ "session_id": session, "wait_ms": 60_000 }));
        eventually(|| {
            line(&server).iter().filter(|user| *user == "bob").count() == if session == "one" { 1 } else { 2 }
        });
        client
    });
    alice.release("w", &json!({})).expect(200);
    let [one, two] = [0, 1].map(|session| sessions[session].receive("POST").unwrap().expect(200));
    assert_eq!((&one["outcome"], &two["outcome"]), (&json!("acquired"), &json!("renewed")));
    assert_eq!(one["lock"], two["lock"]);
    assert_eq!(two["lock"]["session_id"], "one");
}

#[test]
fn outcomes_of_waits_are_counted() {
    let (server, mut alice) = locked();
    let counted = |outcome: &str| {
        let line = format!("lockhouse_acquisitions_total{{outcome=\"{outcome}\"}} ");
        let text = server.client().get("/metrics").text().to_owned();
        text.lines().find_map(|known| known.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or_default()
    };
    let (acquired, held) = (counted("acquired"), counted("held"));
    let mut bob = wait(&server, "bob", 1_000);
    let mut carol = wait(&server, "carol", 60_000);
    server.pass(1_000);
    bob.receive("POST").unwrap().refused(409, "lock_held");
    alice.release("w", &json!({})).expect(200);
    granted(&mut carol, "carol");
    assert_eq!((counted("acquired"), counted("held")), (acquired + 1, held + 1));
}

#[test]
fn clients_gone_before_queueing_leave_no_place() {
    let (server, _alice) = locked();
    let held = Held::on(&server);
    for number in 0..20 {
        drop(ask(&server, &format!("user-{number}"), &json!({ "wait_ms": 60_000 })));
    }
    eventually(|| server.client().get("/metrics").text().contains("lockhouse_held_requests 0\n"));
    drop(held);
    server.user("alice").heartbeat("w", &json!({})).expect(200);
    eventually(|| server.client().get("/metrics").text().contains("lockhouse_waiters 0\n"));
}
