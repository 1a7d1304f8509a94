//! Limits of one user: locks granted by waiting, places in a queue, event streams.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Client, NOON, Raw, Server, eventually};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use serde_json::{Value, json};

/// Asks for the lock of `workspace` in a session, and waits for it.
fn wait(server: &Server, user: &str, workspace: &str, session: &str) -> Client {
    let mut client = server.client();
    let body = json!({ "wait_ms": 60_000, "session_id": session }).to_string();
    client.send(
        format!(
            "POST /api/v1/workspaces/{workspace}/lock HTTP/1.1\r\nHost: t\r\nX-User-Id: {user}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    client
}

fn waiting(server: &Server, workspace: &str) -> usize {
    let presence = server.client().get(&format!("/api/v1/workspaces/{workspace}/presence")).expect(200);
    presence["waiting"].as_array().unwrap().len()
}

#[test]
fn locks_granted_to_waiters_count_for_the_limit() {
    let server = Server::with(|config| config.limits.locks_per_user = 1);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    // When they join, both are below their limit.
    let mut bob = wait(&server, "bob", "w", "s");
    eventually(|| waiting(&server, "w") == 1);
    let mut carol = wait(&server, "carol", "w", "s");
    eventually(|| waiting(&server, "w") == 2);
    server.user("bob").acquire("another", &json!({})).expect(200);
    alice.release("w", &json!({})).expect(200);
    let full = bob.receive("POST").unwrap();
    full.refused(429, "rate_limited");
    assert!(full.header("retry-after").is_some());
    assert_eq!(server.limited("locks_per_user"), 1);
    let granted = carol.receive("POST").unwrap().expect(200);
    assert_eq!(granted["lock"]["locked_by_user_id"], "carol");
    // The queue is empty, and the lock is free when it is released.
    server.user("carol").release("w", &json!({})).expect(200);
    assert_eq!(alice.lock("w"), Value::Null);
}

#[test]
fn waiters_are_limited_per_user() {
    let server = Server::with(|config| config.limits.waiters_per_user = 2);
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.user("alice").acquire("v", &json!({})).expect(200);
    let mut known: Vec<_> = ["a", "b"].map(|session| wait(&server, "bob", "w", session)).into();
    eventually(|| waiting(&server, "w") == 2);
    let full = wait(&server, "bob", "w", "c").receive("POST").unwrap();
    full.refused(429, "rate_limited");
    assert!(full.header("retry-after").is_some());
    assert_eq!(server.limited("waiters_per_user"), 1);
    // Other users can wait, and he can wait elsewhere and repeat a wait.
    known.push(wait(&server, "carol", "w", "a"));
    known.push(wait(&server, "bob", "v", "c"));
    eventually(|| waiting(&server, "w") == 3 && waiting(&server, "v") == 1);
    let again = wait(&server, "bob", "w", "a");
    known[0].receive("POST").unwrap().refused(409, "lock_held");
    assert_eq!(waiting(&server, "w"), 3);
    // A disconnected waiter makes room.
    drop(again);
    eventually(|| waiting(&server, "w") == 2);
    known.push(wait(&server, "bob", "w", "c"));
    eventually(|| waiting(&server, "w") == 3);
}

/// A stream of events, as far as its status line.
fn follow(server: &Server, headers: &str) -> (Raw, u16) {
    let mut raw = Raw::connect(server.address());
    raw.send(format!("GET /api/v1/events HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
    let head = raw.read_until("\r\n\r\n");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (raw, status)
}

#[test]
fn event_streams_are_limited_per_user() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.limits.streams_per_user = Some(2);
    });
    let bearer = |scope, user| format!("Authorization: Bearer {}\r\n", server.token(scope, user));
    let alice = bearer(Scope::User, Some("alice"));
    let status = |headers: &str| follow(&server, headers).1;
    let one = follow(&server, &alice);
    let two = follow(&server, &alice);
    assert_eq!((one.1, two.1), (200, 200));
    // Another token of the same user has the same limit.
    let third = server.client().with_token(&server.token(Scope::User, Some("alice"))).get("/api/v1/events");
    third.refused(429, "rate_limited");
    assert_eq!(server.limited("streams_per_user"), 1);
    assert!(third.header("retry-after").is_some());
    assert_eq!(status(&bearer(Scope::User, Some("bob"))), 200);
    // Callers without a user are counted by their token.
    let monitor = bearer(Scope::Read, None);
    let watching = [follow(&server, &monitor), follow(&server, &monitor)];
    assert_eq!((watching[1].1, status(&monitor)), (200, 429));
    assert_eq!(status(&bearer(Scope::Read, None)), 200);
    drop(one);
    eventually(|| status(&alice) == 200);
}

#[test]
fn invalid_credentials_are_rate_limited_per_address() {
    const SECRET: &str = "a secret of the app, 32 bytes long";
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Jwt;
        config.auth.jwt_secret = vec![SECRET.into()];
    });
    let jwt = |user: &str, secret: &str| {
        common::jwt::hs256(&json!({ "sub": user, "exp": NOON.0 / 1_000 + 300 }), secret)
    };
    let get = |token: &str| server.client().with_token(token).get("/api/v1/locks");
    let wrong = |number: u32| jwt(&number.to_string(), "not the secret of the app, as long as it");
    let (alice, bob) = (jwt("alice", SECRET), server.token(Scope::User, Some("bob")));
    for token in [&alice, &bob] {
        get(token).expect(200);
    }
    for number in 0..200 {
        get(&wrong(number)).refused(401, "unauthenticated");
    }
    for token in [wrong(200), "lh_unknown".to_owned()] {
        let refused = get(&token);
        refused.refused(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(server.limited("bad_credentials"), 2);
    // Known callers are still served.
    for token in [&alice, &bob] {
        get(token).expect(200);
    }
    server.pass(50);
    get(&wrong(201)).refused(401, "unauthenticated");
    get(&wrong(202)).refused(429, "rate_limited");
    // Also when a token must be looked up again. Unknown callers are served when the rate allows it.
    server.pass(1_000);
    for number in 0..20 {
        get(&wrong(300 + number)).refused(401, "unauthenticated");
    }
    get(&bob).expect(200);
    get(&jwt("carol", SECRET)).refused(429, "rate_limited");
    server.pass(50);
    get(&jwt("carol", SECRET)).expect(200);
}

#[test]
fn locks_are_limited_per_user() {
    let server = Server::with(|config| config.limits.locks_per_user = 2);
    let mut alice = server.user("alice");
    for workspace in ["a", "b"] {
        alice.acquire(workspace, &json!({ "ttl_ms": 60_000 })).expect(200);
    }
    let full = alice.acquire("c", &json!({}));
    full.refused(429, "rate_limited");
    assert!(full.header("retry-after").is_some());
    alice.acquire("a", &json!({ "ttl_ms": 60_000 })).expect(200);
    server.user("bob").acquire("d", &json!({})).expect(200);
    alice.acquire("d", &json!({ "force": true })).refused(429, "rate_limited");
    assert_eq!(server.limited("locks_per_user"), 2);
    alice.release("a", &json!({})).expect(200);
    alice.acquire("c", &json!({})).expect(200);
    server.pass(60_000);
    alice.acquire("e", &json!({})).expect(200);
}
