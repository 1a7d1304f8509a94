//! Late timers: a lock that was due to a waiter before the timer ran is granted to them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::process::{Process, lockhouse};
use common::{Client, NOON, Server, eventually};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::SameUser;
use lockhouse::store::tokens;
use lockhouse::time::Ttl;
use serde_json::{Value, json};

const LOCK: &str = "/api/v1/workspaces/w/lock";
const SECRET: &str = "a secret of at least thirty-two bytes";

/// Sends the request of a waiter without reading the answer.
fn ask(client: &mut Client, header: &str, body: &Value) {
    let body = body.to_string();
    client.send(
        format!(
            "POST {LOCK} HTTP/1.1\r\nHost: test\r\n{header}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
}

/// Adds a waiter; returns when they are in the queue.
fn wait(server: &Server, user: &str, body: &Value) -> Client {
    let count = || {
        let presence = server.client().get("/api/v1/workspaces/w/presence").expect(200);
        presence["waiting"].as_array().unwrap().len()
    };
    let before = count();
    let mut client = server.client();
    ask(&mut client, &format!("X-User-Id: {user}"), body);
    eventually(|| count() == before + 1);
    client
}

fn with_short_grant(same_user: SameUser) -> Server {
    Server::with(|config| {
        config.locks.knock_grant_after = Some(Ttl::from_millis(400));
        config.locks.same_user = same_user;
    })
}

#[test]
fn a_grant_during_sigstop_still_answers_the_waiter() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = lockhouse();
    command.env("LOCKHOUSE_LOCKS_KNOCK_GRANT_AFTER", "400ms");
    common::postgres::use_if_asked(&mut command);
    let server = Process::start(&mut command, &directory.path().join("lockhouse.db"));
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &server.id().to_string()]).status().unwrap().success());
    };
    server.user("bob").acquire("w", &json!({})).expect(200);
    let mut alice = server.user("alice");
    alice.post(&format!("{LOCK}/knock"), &json!({})).expect(202);
    ask(&mut alice, "X-User-Id: alice", &json!({ "wait_ms": 450 }));
    std::thread::park_timeout(Duration::from_millis(300));
    signal("-STOP");
    std::thread::park_timeout(Duration::from_millis(300));
    signal("-CONT");
    let answer = alice.receive("POST").unwrap().expect(200);
    assert_eq!(answer["lock"]["locked_by_user_id"], "alice");
    assert!(answer["lock"]["expires_in_ms"].as_i64().unwrap() > 0);
}

#[test]
fn a_grant_wins_over_a_wait_timeout_noticed_at_the_same_time() {
    for same_user in [SameUser::Share, SameUser::Separate] {
        let server = with_short_grant(same_user);
        server.user("bob").acquire("w", &json!({ "session_id": "b" })).expect(200);
        server.user("alice").post(&format!("{LOCK}/knock"), &json!({ "session_id": "one" })).expect(202);
        let mut alice = wait(&server, "alice", &json!({ "session_id": "one", "wait_ms": 450 }));
        let mut carol = wait(&server, "carol", &json!({ "wait_ms": 450 }));
        server.pass(600);
        let lock = alice.receive("POST").unwrap().expect(200)["lock"].clone();
        assert_eq!((&lock["locked_by_user_id"], &lock["session_id"]), (&json!("alice"), &json!("one")));
        let refusal = carol.receive("POST").unwrap().refused(409, "lock_held");
        assert_eq!(refusal["lock"]["locked_by_user_id"], "alice");
        assert!(refusal["lock"]["expires_in_ms"].as_i64().unwrap() > 0);
    }
}

#[test]
fn a_wait_that_ends_with_the_lease_is_not_refused_by_an_ended_lock() {
    let server = Server::start();
    server.user("bob").acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200);
    let mut first = wait(&server, "alice", &json!({ "wait_ms": 1_000 }));
    let mut second = wait(&server, "carol", &json!({ "wait_ms": 1_000 }));
    server.pass(1_000);
    assert_eq!(first.receive("POST").unwrap().expect(200)["lock"]["locked_by_user_id"], "alice");
    let refusal = second.receive("POST").unwrap().refused(409, "lock_held");
    assert_eq!(refusal["lock"]["locked_by_user_id"], "alice");
    assert!(refusal["lock"]["expires_in_ms"].as_i64().unwrap() > 0);
}

/// The ways in which credentials end.
#[derive(Debug, Clone, Copy)]
enum End {
    RevokedBeside,
    RevokedThroughTheApi,
    TokenExpired,
    JwtExpired,
}

/// Credentials of alice that are valid for five seconds, or until they are revoked.
fn credentials(server: &Server, end: End) -> String {
    match end {
        End::JwtExpired => {
            // There is a leeway of half a minute.
            let claims = json!({ "sub": "alice", "exp": NOON.0 / 1_000 - 25 });
            common::jwt::hs256(&claims, SECRET)
        }
        End::RevokedBeside | End::RevokedThroughTheApi | End::TokenExpired => {
            let mut asked = json!({ "user_id": "alice" });
            if matches!(end, End::TokenExpired) {
                asked["ttl_ms"] = json!(5_000);
            }
            let mut admin = server.with_token(Scope::Admin, None);
            admin.post("/api/v1/tokens", &asked).expect(201)["token"].as_str().unwrap().to_owned()
        }
    }
}

fn end_credentials(server: &Server, end: End) {
    let id = || server.query("SELECT token_id FROM tokens WHERE user_id = 'alice'");
    match end {
        End::RevokedBeside => tokens::beside(&server.config.database.location(), |rows| {
            assert!(rows.delete_token(&id(), None)?.is_some());
            Ok(())
        })
        .unwrap(),
        End::RevokedThroughTheApi => {
            let mut admin = server.with_token(Scope::Admin, None);
            let revoked = admin.delete(&format!("/api/v1/tokens/{}", id())).expect(200);
            assert_eq!(revoked, json!({ "revoked": true }));
        }
        End::TokenExpired | End::JwtExpired => server.pass(5_000),
    }
}

#[test]
fn a_waiter_with_ended_credentials_gets_401_and_the_next_the_lock() {
    for end in [End::RevokedBeside, End::RevokedThroughTheApi, End::TokenExpired, End::JwtExpired] {
        for next in [true, false] {
            let server = Server::with(|config| {
                config.auth.mode = AuthMode::Jwt;
                config.auth.jwt_secret = vec![SECRET.into()];
            });
            let mut bob = server.with_token(Scope::User, Some("bob"));
            bob.acquire("w", &json!({})).expect(200);
            let mut secrets = vec![credentials(&server, end)];
            secrets.extend(next.then(|| server.token(Scope::User, Some("carol"))));
            let mut waiting = Vec::new();
            for (place, secret) in secrets.iter().enumerate() {
                let mut client = server.client();
                ask(&mut client, &format!("Authorization: Bearer {secret}"), &json!({ "wait_ms": 60_000 }));
                eventually(|| bob.heartbeat("w", &json!({})).expect(200)["waiting"] == place + 1);
                waiting.push(client);
            }
            let many = json!({ "locks": [{ "workspace_id": "w" }] });
            let beat = bob.post("/api/v1/locks/heartbeat", &many).expect(200)["results"][0].clone();
            assert_eq!(beat["waiting"], secrets.len());
            end_credentials(&server, end);
            bob.release("w", &json!({})).expect(200);
            waiting[0].receive("POST").unwrap().refused(401, "unauthenticated");
            if next {
                let answer = waiting[1].receive("POST").unwrap().expect(200);
                assert_eq!(answer["lock"]["locked_by_user_id"], "carol", "{end:?}");
            } else {
                assert_eq!(bob.lock("w"), Value::Null, "{end:?}: it stays free");
            }
        }
    }
}

#[test]
fn knocks_are_not_granted_after_the_credentials_end() {
    for end in [End::RevokedBeside, End::RevokedThroughTheApi, End::TokenExpired, End::JwtExpired] {
        let server = Server::with(|config| {
            config.auth.mode = AuthMode::Jwt;
            config.auth.jwt_secret = vec![SECRET.into()];
            config.locks.knock_grant_at_latest = None;
        });
        let mut bob = server.with_token(Scope::User, Some("bob"));
        bob.acquire("w", &json!({})).expect(200);
        for secret in [credentials(&server, end), server.token(Scope::User, Some("carol"))] {
            let header = format!("Bearer {secret}");
            let headers = [("Authorization", header.as_str())];
            server.client().request("POST", &format!("{LOCK}/knock"), &headers, b"").expect(202);
        }
        let asks = |bob: &mut Client| bob.lock("w")["knock"]["user_id"].clone();
        assert_eq!(asks(&mut bob), "alice", "{end:?}");
        end_credentials(&server, end);
        server.pass(30_000);
        // The next knock is shown to the holder, who has the full time to answer.
        assert_eq!(
            (&bob.lock("w")["locked_by_user_id"], asks(&mut bob)),
            (&json!("bob"), json!("carol")),
            "{end:?}"
        );
        server.pass(30_000);
        assert_eq!(bob.lock("w")["locked_by_user_id"], "carol", "{end:?}");
    }
}

#[test]
fn a_declined_knocker_keeps_its_place_in_the_queue() {
    let server = Server::start();
    let mut bob = server.user("bob");
    bob.acquire("w", &json!({})).expect(200);
    server.user("alice").post(&format!("{LOCK}/knock"), &json!({})).expect(202);
    let mut alice = wait(&server, "alice", &json!({ "wait_ms": 60_000 }));
    let _carol = wait(&server, "carol", &json!({ "wait_ms": 60_000 }));
    bob.post(&format!("{LOCK}/knock/decline"), &json!({})).expect(200);
    let refusal =
        server.user("alice").post(&format!("{LOCK}/knock"), &json!({})).refused(429, "knock_too_soon");
    assert_eq!(
        (&refusal["again_in_ms"], &refusal["lock"]["locked_by_user_id"]),
        (&json!(60_000), &json!("bob"))
    );
    assert_eq!(bob.heartbeat("w", &json!({})).expect(200)["waiting"], 2);
    bob.release("w", &json!({})).expect(200);
    assert_eq!(alice.receive("POST").unwrap().expect(200)["lock"]["locked_by_user_id"], "alice");
}
