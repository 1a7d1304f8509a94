//! Activity of the holder: it postpones grants, and idle holders can be taken over.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Answer, Client, Server, follow, told};
use lockhouse::domain::access::Takeover;
use lockhouse::time::Ttl;
use serde_json::{Value, json};

fn locked(server: &Server) -> Client {
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    alice
}

fn knock(server: &Server, user: &str) -> Answer {
    server.user(user).post("/api/v1/workspaces/w/lock/knock", &json!({}))
}

/// The end of the first knock and the latest that it can become, in milliseconds from now.
fn ends(knock: &Value) -> (i64, Option<i64>) {
    (knock["auto_grant_in_ms"].as_i64().unwrap(), knock["auto_grant_at_latest_in_ms"].as_i64())
}

/// How often the history tells of a knock whose end was postponed.
fn postponements(server: &Server) -> Vec<Value> {
    let page = server.client().get("/api/v1/workspaces/w/history?limit=500").expect(200);
    let told = page["events"].as_array().unwrap().iter();
    told.filter(|event| event["detail"]["outcome"] == "postponed").cloned().collect()
}

#[test]
fn activity_postpones_a_grant_up_to_the_latest_time() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(10_000);
    let idle = alice.heartbeat("w", &json!({})).expect(200);
    assert_eq!(ends(&idle["knock"]), (20_000, Some(290_000)), "a tab that is only there is silent");
    let active = json!({ "active": true });
    let beat = alice.heartbeat("w", &active).expect(200);
    assert_eq!(ends(&beat["knock"]), (30_000, Some(290_000)));
    // The user who knocked sees it in every response.
    assert_eq!(alice.lock("w")["knock"], beat["knock"]);
    assert_eq!(knock(&server, "bob").expect(202)["knock"], beat["knock"]);
    let told = postponements(&server);
    assert_eq!((told.len(), &told[0]["type"]), (1, &json!("lock.knocked")));
    assert_eq!((&told[0]["user_id"], &told[0]["by_user_id"]), (&json!("alice"), &json!("bob")));
    assert_eq!(told[0]["detail"], json!({ "outcome": "postponed", "to_user_id": "bob" }));
    for second in (20..300).step_by(10) {
        server.pass(10_000);
        let many = json!({ "locks": [{ "workspace_id": "w", "active": true }] });
        let beat = alice.post("/api/v1/locks/heartbeat", &many).expect(200)["results"][0].clone();
        let latest = 300_000 - second * 1_000;
        assert_eq!(ends(&beat["knock"]), (latest.min(30_000), Some(latest)), "at {second} s");
    }
    server.pass(9_999);
    alice.heartbeat("w", &active).expect(200);
    assert!(postponements(&server).len() <= 20, "few of them are told");
    server.pass(1);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "bob");
    assert_eq!(alice.lock("w")["acquired_at"], "2026-11-23T12:05:00.000Z");
}

#[test]
fn postponement_events_are_at_most_15_seconds_behind() {
    let server = Server::start();
    let mut alice = locked(&server);
    let mut events = follow(&server, "bob", "?workspace_id=w");
    knock(&server, "bob").expect(202);
    assert_eq!(told(&mut events)["lock"]["knock"]["auto_grant_at"], "2026-11-23T12:00:30.000Z");
    let mut last = "2026-11-23T12:00:30.000Z".to_owned();
    let mut seen = 0;
    for _ in 0..12 {
        server.pass(10_000);
        let end = alice.heartbeat("w", &json!({ "active": true })).expect(200)["knock"].clone();
        let count = postponements(&server).len();
        for _ in seen..count {
            let event = told(&mut events);
            assert_eq!(event["detail"]["outcome"], "postponed");
            event["lock"]["knock"]["auto_grant_at"].as_str().unwrap().clone_into(&mut last);
        }
        seen = count;
        let end = humantime::parse_rfc3339(end["auto_grant_at"].as_str().unwrap()).unwrap();
        let heard = humantime::parse_rfc3339(&last).unwrap();
        assert!(end.duration_since(heard).unwrap().as_millis() < 15_000, "{last}");
    }
    assert!((2..10).contains(&seen), "{seen}");
}

#[test]
fn without_a_latest_time_activity_postpones_without_limit() {
    let server = Server::with(|config| config.locks.knock_grant_at_latest = None);
    let mut alice = locked(&server);
    assert_eq!(ends(&knock(&server, "bob").expect(202)["knock"]), (30_000, None));
    for _ in 0..50 {
        server.pass(29_000);
        let beat = alice.heartbeat("w", &json!({ "active": true })).expect(200);
        assert_eq!(ends(&beat["knock"]), (30_000, None));
    }
    server.pass(30_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "bob", "now they are silent");
}

#[test]
fn grant_times_count_from_when_the_knock_is_shown() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(20_000);
    let second = knock(&server, "carol").expect(202)["knock"].clone();
    assert_eq!(second["auto_grant_at_latest_in_ms"], Value::Null);
    alice.post("/api/v1/workspaces/w/lock/knock/decline", &json!({})).expect(200);
    assert_eq!(ends(&alice.lock("w")["knock"]), (30_000, Some(300_000)));
}

#[test]
fn a_restart_keeps_both_grant_times() {
    let mut server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(10_000);
    alice.heartbeat("w", &json!({ "active": true })).expect(200);
    server.restart();
    server.pass(5_000);
    let mut alice = server.user("alice");
    assert_eq!(ends(&alice.lock("w")["knock"]), (25_000, Some(285_000)));
    server.pass(20_000);
    assert_eq!(
        ends(&alice.heartbeat("w", &json!({ "active": true })).expect(200)["knock"]),
        (30_000, Some(265_000))
    );
}

#[test]
fn downtime_does_not_count_as_idle_time() {
    let mut server = Server::with(|config| {
        config.locks.takeover = Takeover::Nobody;
        config.locks.idle_takeover_after = Some(Ttl::from_millis(60_000));
    });
    locked(&server);
    server.pass(30_000);
    server.stop();
    server.pass(100_000);
    server.start_again();
    let mut bob = server.user("bob");
    server.pass(59_999);
    assert_eq!(bob.acquire("w", &json!({})).refused(409, "lock_held")["idle_for_ms"], 59_999);
    bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    server.pass(1);
    bob.acquire("w", &json!({ "force": true })).expect(200);
}

#[test]
fn idle_holders_can_be_taken_over_despite_the_policy() {
    let server = Server::with(|config| {
        config.locks.takeover = Takeover::Nobody;
        config.locks.idle_takeover_after = Some(Ttl::from_millis(60_000));
    });
    let mut alice = locked(&server);
    let mut bob = server.user("bob");
    server.pass(30_000);
    alice.heartbeat("w", &json!({ "active": true })).expect(200);
    for (after, idle) in [(30_000, 30_000), (29_999, 59_999)] {
        server.pass(after);
        alice.heartbeat("w", &json!({})).expect(200);
        let held = bob.acquire("w", &json!({})).refused(409, "lock_held");
        assert_eq!((&held["takeover_allowed"], &held["idle_for_ms"]), (&json!(false), &json!(idle)));
        bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    }
    server.pass(1);
    let held = bob.acquire("w", &json!({})).refused(409, "lock_held");
    assert_eq!((&held["takeover_allowed"], &held["idle_for_ms"]), (&json!(true), &json!(60_000)));
    assert_eq!(held["lock"]["last_active_at"], "2026-11-23T12:00:30.000Z");
    bob.acquire("w", &json!({ "force": true, "expected_fence": held["lock"]["fence"] })).expect(200);
    alice.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
}
