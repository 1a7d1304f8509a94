//! Two sessions of one user with one lease.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::Server;
use lockhouse::domain::access::SameUser;
use serde_json::{Value, json};

#[test]
fn shared_sessions_never_shorten_the_lease() {
    let server = Server::start();
    let (mut one, mut two) = (server.user("alice"), server.user("alice"));
    one.acquire("w", &json!({ "session_id": "one", "ttl_ms": 60_000 })).expect(200);
    let short = json!({ "session_id": "two", "ttl_ms": 1_000 });
    let left = |answer: Value| (answer["expires_in_ms"].clone(), answer["ttl_ms"].clone());
    let renewed = two.heartbeat("w", &short).expect(200);
    assert_eq!(
        (&renewed["expires_in_ms"], &renewed["expires_at"]),
        (&json!(60_000), &json!("2026-11-23T12:01:00.000Z"))
    );
    server.pass(1_000);
    let acquired = two.acquire("w", &short).expect(200)["lock"].clone();
    assert_eq!(left(acquired), (json!(59_000), json!(60_000)));
    server.pass(1_000);
    for _ in 0..2 {
        assert_eq!(two.heartbeat("w", &short).expect(200)["expires_in_ms"], 58_000);
    }
    let many = json!({ "locks": [{ "workspace_id": "w", "session_id": "two" }], "ttl_ms": 1_000 });
    let results = two.post("/api/v1/locks/heartbeat", &many).expect(200)["results"].clone();
    assert_eq!(results[0]["expires_in_ms"], 58_000);
    server.user("bob").acquire("w", &json!({})).refused(409, "lock_held");
    // Near its end a short renewal lengthens it, and the next one without a length is as long as the longest that was asked.
    server.pass(57_500);
    assert_eq!(two.heartbeat("w", &short).expect(200)["expires_in_ms"], 1_000);
    assert_eq!(left(one.lock("w")), (json!(1_000), json!(60_000)));
    assert_eq!(one.heartbeat("w", &json!({ "session_id": "one" })).expect(200)["expires_in_ms"], 60_000);
    two.release("w", &json!({})).expect(200);
    assert_eq!(one.lock("w"), Value::Null, "a release ends it");
}

#[test]
fn separate_sessions_may_shorten_their_own_lease() {
    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "session_id": "one", "ttl_ms": 60_000 })).expect(200);
    let short = json!({ "session_id": "one", "ttl_ms": 1_000 });
    assert_eq!(alice.heartbeat("w", &short).expect(200)["expires_in_ms"], 1_000);
    assert_eq!(alice.acquire("w", &short).expect(200)["lock"]["ttl_ms"], 1_000);
}
