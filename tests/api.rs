//! The API over a real socket. The clock moves only when a test moves it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Client, Server};
use lockhouse::domain::access::{SameUser, Takeover};
use serde_json::{Value, json};

const TEN_MINUTES: u64 = 600_000;

#[test]
fn acquiring_a_free_workspace_uses_the_default_ttl() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let answer = alice.request(
        "POST",
        "/api/v1/workspaces/design-42/lock",
        &[("X-User-Name", "Zo%C3%AB Martin"), ("Content-Type", "application/json")],
        br#"{"session_id":"tab-1","note":"the header","metadata":{"color":"red"}}"#,
    );
    let granted = answer.expect(200);
    assert_eq!(granted["outcome"], "acquired");
    assert_eq!(
        granted["lock"],
        json!({
            "workspace_id": "design-42", "locked_by_user_id": "alice", "locked_by_name": "Zoë Martin",
            "session_id": "tab-1", "fence": common::NOON.0 * 1000,
            "acquired_at": "2026-11-23T12:00:00.000Z", "renewed_at": "2026-11-23T12:00:00.000Z",
            "last_active_at": "2026-11-23T12:00:00.000Z", "expires_at": "2026-11-23T12:10:00.000Z",
            "expires_in_ms": 600_000, "ttl_ms": 600_000, "note": "the header",
            "metadata": { "color": "red" }, "knock": null, "kind": "edit", "agent": null,
        })
    );
    assert_eq!(alice.lock("design-42"), granted["lock"]);
}

#[test]
fn an_expired_lock_never_blocks_the_next_user() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let first = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    server.pass(TEN_MINUTES - 1);
    bob.acquire("w", &json!({})).refused(409, "lock_held");
    server.pass(1);
    assert_eq!(bob.lock("w"), Value::Null);
    assert_eq!(bob.get("/api/v1/locks").expect(200)["locks"], json!([]));
    let granted = bob.acquire("w", &json!({})).expect(200);
    assert_eq!(granted["outcome"], "acquired");
    let second = granted["lock"]["fence"].as_i64().unwrap();
    assert!(second > first);
    assert_eq!(
        bob.history("w"),
        [
            ("lock.acquired".to_owned(), second),
            ("lock.expired".to_owned(), first),
            ("lock.acquired".to_owned(), first)
        ]
    );
}

#[test]
fn acquiring_again_renews_the_same_lease() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let first = alice.acquire("w", &json!({ "session_id": "s", "note": "kept" })).expect(200);
    server.pass(60_000);
    let again = alice.acquire("w", &json!({ "session_id": "s" })).expect(200);
    assert_eq!(again["outcome"], "renewed");
    assert_eq!(again["lock"]["fence"], first["lock"]["fence"]);
    assert_eq!(again["lock"]["acquired_at"], first["lock"]["acquired_at"]);
    assert_eq!(again["lock"]["expires_in_ms"], 600_000);
    assert_eq!(again["lock"]["note"], "kept");
}

#[test]
fn lock_held_shows_holder_remaining_time_and_takeover_right() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("w", &json!({ "name": "Alice Martin", "ttl_ms": 90_500 })).expect(200);
    let answer = bob.acquire("w", &json!({}));
    let held = answer.refused(409, "lock_held");
    assert_eq!(held["lock"]["locked_by_name"], "Alice Martin");
    assert_eq!(held["lock"]["expires_in_ms"], 90_500);
    assert_eq!((&held["same_user"], &held["takeover_allowed"]), (&json!(false), &json!(true)));
    assert_eq!(answer.header("retry-after"), Some("91"));
    let detail = held["detail"].as_str().unwrap();
    assert_eq!(
        detail,
        "Alice Martin has this workspace for another 1m 31s, and longer if they renew the lock."
    );
}

#[test]
fn a_takeover_starts_a_new_lease_and_tells_the_previous_holder() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let old = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    server.pass(1_000);
    let taken = bob.acquire("w", &json!({ "force": true, "name": "Bob" })).expect(200);
    assert_eq!(taken["outcome"], "taken_over");
    assert_eq!(taken["previous"]["fence"], old);
    assert!(taken["lock"]["fence"].as_i64() > old.as_i64());
    let refused = alice.heartbeat("w", &json!({ "fence": old })).refused(403, "not_holder");
    assert_eq!(
        refused["lost"],
        json!({ "reason": "taken_over", "fence": old, "at": "2026-11-23T12:00:01.000Z", "by_user_id": "bob", "by_name": "Bob" })
    );
    assert_eq!(refused["lock"]["fence"], taken["lock"]["fence"]);
    let event = bob.get("/api/v1/workspaces/w/history").expect(200)["events"][0].clone();
    assert_eq!(
        (&event["type"], &event["user_id"], &event["by_user_id"], &event["fence"], &event["detail"]),
        (
            &json!("lock.taken_over"),
            &json!("alice"),
            &json!("bob"),
            &old,
            &json!({ "new_fence": taken["lock"]["fence"] })
        )
    );
    // The query works too.
    let back = alice.call("POST", "/api/v1/workspaces/w/lock?force=true", None).expect(200);
    assert_eq!(back["outcome"], "taken_over");
}

#[test]
fn a_takeover_with_expected_fence_applies_to_that_lease_only() {
    let server = Server::start();
    let (mut alice, mut bob, mut carol) = (server.user("alice"), server.user("bob"), server.user("carol"));
    let seen = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    bob.acquire("w", &json!({ "force": true, "expected_fence": seen })).expect(200);
    let moved =
        carol.acquire("w", &json!({ "force": true, "expected_fence": seen })).refused(409, "fence_mismatch");
    assert_eq!(moved["lock"]["locked_by_user_id"], "bob");
    assert_eq!(carol.lock("w")["locked_by_user_id"], "bob");
    let unseen = json!({ "force": true, "expected_fence": 9_007_199_254_740_991_i64 });
    carol.acquire("w", &unseen).refused(409, "fence_mismatch");
    // After a lost response the same request renews the lease.
    assert_eq!(
        bob.acquire("w", &json!({ "force": true, "expected_fence": seen })).expect(200)["outcome"],
        "renewed"
    );
    let refused = bob.acquire("w", &json!({ "expected_fence": seen })).refused(400, "invalid_request");
    assert_eq!(refused["field"], "expected_fence");
}

#[test]
fn a_takeover_without_the_right_is_refused() {
    let server = Server::with(|config| config.locks.takeover = Takeover::Nobody);
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("w", &json!({})).expect(200);
    assert_eq!(bob.acquire("w", &json!({})).refused(409, "lock_held")["takeover_allowed"], false);
    let refused = bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    assert_eq!(refused["lock"]["locked_by_user_id"], "alice");
    // An administrator can still end it.
    bob.release("w", &json!({ "force": true })).expect(200);
    assert_eq!(alice.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"]["reason"], "revoked");
}

#[test]
fn an_expired_lease_is_reclaimed_with_its_fence_if_unclaimed_since() {
    for swept in [false, true] {
        let server = Server::start();
        let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
        let asked = json!({ "session_id": "s" });
        let fence = alice.acquire("w", &asked).expect(200)["lock"]["fence"].clone();
        server.pass(TEN_MINUTES * 3);
        if swept {
            // The timer may have run first.
            server.sweep();
        }
        // Another session of the same user does not reclaim.
        let back = alice.acquire("w", &asked).expect(200);
        assert_eq!((&back["outcome"], &back["lock"]["fence"]), (&json!("reclaimed"), &fence));
        server.pass(TEN_MINUTES);
        bob.acquire("w", &json!({})).expect(200);
        bob.delete("/api/v1/workspaces/w/lock").expect(200);
        let new = alice.acquire("w", &asked).expect(200);
        assert_eq!(new["outcome"], "acquired");
        assert!(new["lock"]["fence"].as_i64() > fence.as_i64());
        server.pass(TEN_MINUTES);
        assert_eq!(alice.acquire("w", &json!({ "session_id": "t" })).expect(200)["outcome"], "acquired");
    }
}

#[test]
fn a_late_heartbeat_neither_revives_nor_extends_a_lease() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    server.pass(TEN_MINUTES);
    let gone = alice.heartbeat("w", &json!({ "fence": fence })).refused(404, "lock_not_found");
    assert_eq!(
        gone["lost"],
        json!({ "reason": "expired", "fence": fence, "at": "2026-11-23T12:10:00.000Z", "by_user_id": null, "by_name": null })
    );
    let bobs = bob.acquire("w", &json!({})).expect(200)["lock"].clone();
    server.pass(1_000);
    alice.heartbeat("w", &json!({ "fence": fence })).refused(403, "not_holder");
    alice.heartbeat("w", &json!({ "fence": bobs["fence"] })).refused(403, "not_holder");
    bob.heartbeat("w", &json!({ "fence": fence })).refused(403, "not_holder");
    assert_eq!(bob.lock("w")["expires_at"], bobs["expires_at"]);
    assert_eq!(
        server.user("carol").heartbeat("w", &json!({})).refused(403, "not_holder")["lost"],
        Value::Null
    );
}

#[test]
fn a_heartbeat_renews_for_the_previous_or_the_given_ttl() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({ "ttl_ms": 60_000 })).expect(200)["lock"]["fence"].clone();
    server.pass(30_000);
    let beat = alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
    assert_eq!(
        beat,
        json!({ "success": true, "expires_at": "2026-11-23T12:01:30.000Z", "expires_in_ms": 60_000, "fence": fence, "knock": null, "waiting": 0 })
    );
    assert_eq!(alice.lock("w")["last_active_at"], "2026-11-23T12:00:00.000Z");
    // The response names another session of the same user that has the lease.
    alice.acquire("shared", &json!({ "session_id": "laptop" })).expect(200);
    let beat = |alice: &mut Client| alice.heartbeat("shared", &json!({ "session_id": "laptop" })).expect(200);
    assert_eq!(beat(&mut alice).get("session_id"), None);
    alice.acquire("shared", &json!({ "session_id": "phone" })).expect(200);
    assert_eq!(beat(&mut alice)["session_id"], "phone");
    alice.heartbeat("w", &json!({ "ttl_ms": 120_000, "active": true })).expect(200);
    let lock = alice.lock("w");
    assert_eq!(
        (&lock["ttl_ms"], &lock["last_active_at"]),
        (&json!(120_000), &json!("2026-11-23T12:00:30.000Z"))
    );
}

#[test]
fn the_ttl_is_clamped_to_the_limits() {
    let server = Server::start();
    let mut alice = server.user("alice");
    assert_eq!(alice.acquire("w", &json!({ "ttl_ms": 1 })).expect(200)["lock"]["ttl_ms"], 1_000);
    assert_eq!(
        alice.acquire("w", &json!({ "ttl_ms": 9_007_199_254_740_991_i64 })).expect(200)["lock"]["ttl_ms"],
        86_400_000
    );
    alice.acquire("short", &json!({ "ttl_ms": 1 })).expect(200);
    assert_eq!(alice.heartbeat("short", &json!({ "ttl_ms": 5 })).expect(200)["expires_in_ms"], 1_000);
}

#[test]
fn a_release_is_idempotent_and_ends_only_the_named_lease() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    bob.delete("/api/v1/workspaces/w/lock").refused(403, "not_holder");
    assert_eq!(
        alice.delete(&format!("/api/v1/workspaces/w/lock?fence={fence}")).expect(200),
        json!({ "released": true })
    );
    assert_eq!(
        alice.delete(&format!("/api/v1/workspaces/w/lock?fence={fence}")).expect(200),
        json!({ "released": false })
    );
    let newer = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    assert!(newer.as_i64() > fence.as_i64());
    // The repeat comes late: the newer lease stays.
    let refused = alice.release("w", &json!({ "fence": fence })).refused(403, "not_holder");
    assert_eq!((&refused["same_user"], &refused["lost"]["reason"]), (&json!(true), &json!("released")));
    assert_eq!(alice.lock("w")["fence"], newer);
    alice.release("w", &json!({ "fence": newer })).expect(200);
    assert_eq!(alice.lock("w"), Value::Null);
}

#[test]
fn a_beacon_releases_a_lock() {
    let server = Server::start();
    server.user("alice").acquire("w", &json!({})).expect(200);
    let mut page = server.client();
    let beacon = |token: &str| format!(r#"{{"access_token":"{token}"}}"#);
    let path = "/api/v1/workspaces/w/lock/release";
    let text = [("Content-Type", "text/plain;charset=UTF-8")];
    page.request("POST", path, &text, b"{}").refused(401, "unauthenticated");
    page.request("POST", path, &text, beacon("bob").as_bytes()).refused(403, "not_holder");
    assert_eq!(page.request("POST", path, &text, beacon("alice").as_bytes()).expect(200)["released"], true);
    // Only for releases.
    page.request("POST", "/api/v1/workspaces/w/lock", &text, beacon("alice").as_bytes())
        .refused(401, "unauthenticated");
}

#[test]
fn sessions_of_a_user_share_or_compete_as_configured() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({ "session_id": "one" })).expect(200)["lock"]["fence"].clone();
    let other = alice.acquire("w", &json!({ "session_id": "two" })).expect(200);
    assert_eq!((&other["outcome"], &other["lock"]["session_id"]), (&json!("renewed"), &json!("two")));
    alice.heartbeat("w", &json!({ "session_id": "one", "fence": fence })).expect(200);

    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({ "session_id": "one" })).expect(200)["lock"]["fence"].clone();
    let held = alice.acquire("w", &json!({ "session_id": "two" })).refused(409, "lock_held");
    assert_eq!(held["same_user"], true);
    alice.heartbeat("w", &json!({ "session_id": "two", "fence": fence })).refused(403, "not_holder");
    alice.heartbeat("w", &json!({})).refused(403, "not_holder");
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
    alice.release("w", &json!({ "session_id": "two" })).refused(403, "not_holder");
    let taken = alice.acquire("w", &json!({ "session_id": "two", "force": true })).expect(200);
    assert_eq!(taken["outcome"], "taken_over");
    // A release without session and fence releases the user's lease.
    assert_eq!(alice.release("w", &json!({})).expect(200), json!({ "released": true }));
}

#[test]
fn batch_renewal_has_one_result_per_lease() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let fence = alice.acquire("mine", &json!({})).expect(200)["lock"]["fence"].clone();
    bob.acquire("his", &json!({})).expect(200);
    server.pass(1_000);
    let results = alice
        .post("/api/v1/locks/heartbeat", &json!({
            "ttl_ms": 700_000,
            "locks": [{ "workspace_id": "mine", "fence": fence }, { "workspace_id": "his" }, { "workspace_id": "none" }],
        }))
        .expect(200)["results"]
        .clone();
    let statuses: Vec<_> =
        results.as_array().unwrap().iter().map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, [200, 403, 404]);
    assert_eq!(
        (&results[0]["expires_in_ms"], &results[1]["code"], &results[2]["code"]),
        (&json!(700_000), &json!("not_holder"), &json!("lock_not_found"))
    );
    let many: Vec<_> = (0..101).map(|number| json!({ "workspace_id": format!("w{number}") })).collect();
    assert_eq!(
        alice.post("/api/v1/locks/heartbeat", &json!({ "locks": many })).refused(400, "invalid_request")["field"],
        "locks"
    );
    let bad = json!({ "locks": [{ "workspace_id": "a" }, { "workspace_id": "" }] });
    assert_eq!(
        alice.post("/api/v1/locks/heartbeat", &bad).refused(400, "invalid_request")["field"],
        "locks[1].workspace_id"
    );
}

#[test]
fn all_locks_of_a_user_are_released_in_one_call() {
    let server = Server::with(|config| config.limits.locks_per_user = 2_000);
    let (mut alice, mut admin) = (server.user("alice"), server.user("admin"));
    server.user("bob").acquire("his", &json!({})).expect(200);
    alice.acquire("expired", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(1_000);
    // More than fits into one transaction of the operation.
    let many = 1_234;
    for number in 0..many {
        alice.acquire(&format!("w{number}"), &json!({})).expect(200);
    }
    assert_eq!(admin.delete("/api/v1/users/alice/locks").expect(200), json!({ "released": many }));
    assert_eq!(admin.delete("/api/v1/users/alice/locks").expect(200), json!({ "released": 0 }));
    assert_eq!(alice.history("w7")[0].0, "lock.revoked");
    assert_eq!(alice.history("expired")[0].0, "lock.expired");
    assert_eq!(alice.lock("his")["locked_by_user_id"], "bob");
    alice.acquire("w7", &json!({})).expect(200);
    assert_eq!(alice.delete("/api/v1/users/alice/locks").expect(200), json!({ "released": 1 }));
    assert_eq!(alice.history("w7")[0].0, "lock.released");
}
