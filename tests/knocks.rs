//! Knocks: handover, decline, automatic grant; presence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Answer, Client, Server, eventually, follow, told};
use lockhouse::domain::access::SameUser;
use serde_json::{Value, json};

const KNOCK: &str = "/api/v1/workspaces/w/lock/knock";
const DECLINE: &str = "/api/v1/workspaces/w/lock/knock/decline";
const HANDOVER: &str = "/api/v1/workspaces/w/lock/handover";

fn locked(server: &Server) -> Client {
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    alice
}

fn knock(server: &Server, user: &str) -> Answer {
    server.user(user).post(KNOCK, &json!({}))
}

fn types(server: &Server) -> Vec<String> {
    server.client().history("w").into_iter().map(|event| event.0).collect()
}

#[test]
fn the_holder_sees_a_knock_everywhere_and_hands_over() {
    let server = Server::start();
    let mut alice = locked(&server);
    let fence = alice.lock("w")["fence"].clone();
    let asked = json!({ "name": "Bob Builder", "message": "Two minutes, please?" });
    let heard = server.user("bob").post(KNOCK, &asked).expect(202);
    let shown = json!({
        "user_id": "bob", "name": "Bob Builder", "message": "Two minutes, please?",
        "knocked_at": "2026-11-23T12:00:00.000Z", "auto_grant_at": "2026-11-23T12:00:30.000Z",
        "auto_grant_in_ms": 30_000, "auto_grant_at_latest_in_ms": 300_000,
    });
    assert_eq!(heard["knock"], shown);
    assert_eq!(heard["lock"]["fence"], fence, "nothing has changed yet");
    assert_eq!(alice.lock("w")["knock"], shown);
    server.pass(10_000);
    let beat = alice.heartbeat("w", &json!({})).expect(200);
    assert_eq!(
        (&beat["knock"]["user_id"], &beat["knock"]["auto_grant_in_ms"]),
        (&json!("bob"), &json!(20_000))
    );
    let many =
        alice.post("/api/v1/locks/heartbeat", &json!({ "locks": [{ "workspace_id": "w" }] })).expect(200);
    assert_eq!(many["results"][0]["knock"]["user_id"], "bob");

    let handed = alice.post(HANDOVER, &json!({ "fence": fence })).expect(200);
    let lock = &handed["lock"];
    assert_eq!((&lock["locked_by_user_id"], &lock["locked_by_name"]), (&json!("bob"), &json!("Bob Builder")));
    assert_eq!((&lock["knock"], &lock["expires_in_ms"]), (&Value::Null, &json!(15_000)));
    assert!(lock["fence"].as_i64() > fence.as_i64());
    let lost = alice.heartbeat("w", &json!({ "fence": fence })).refused(403, "not_holder")["lost"].clone();
    assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("handed_over"), &json!("alice")));
    server.user("bob").heartbeat("w", &json!({ "fence": lock["fence"] })).expect(200);

    let page = alice.get("/api/v1/workspaces/w/history").expect(200);
    let (handed, knocked) = (&page["events"][0], &page["events"][1]);
    assert_eq!((&handed["type"], &handed["by_user_id"]), (&json!("lock.handed_over"), &json!("alice")));
    assert_eq!(handed["detail"], json!({ "new_fence": lock["fence"], "to_user_id": "bob" }));
    assert_eq!((&knocked["type"], &knocked["user_id"]), (&json!("lock.knocked"), &json!("alice")));
    assert_eq!((&knocked["by_user_id"], &knocked["by_name"]), (&json!("bob"), &json!("Bob Builder")));
    assert_eq!(knocked["detail"], json!({ "message": "Two minutes, please?" }));
    assert_eq!(alice.post(DECLINE, &json!({})).refused(403, "not_holder")["lost"]["fence"], fence);
}

#[test]
fn after_a_decline_the_same_user_must_wait_to_knock_again() {
    let server = Server::start();
    let mut alice = locked(&server);
    assert_eq!(alice.post(DECLINE, &json!({})).expect(200), json!({ "declined": false }));
    knock(&server, "bob").expect(202);
    server.pass(5_000);
    assert_eq!(alice.post(DECLINE, &json!({})).expect(200), json!({ "declined": true }));
    assert_eq!(alice.lock("w")["last_active_at"], "2026-11-23T12:00:05.000Z");
    server.pass(30_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice");
    let soon = knock(&server, "bob");
    let problem = soon.refused(429, "knock_too_soon");
    assert_eq!(soon.header("retry-after"), Some("30"));
    assert_eq!((&problem["again_in_ms"], &problem["lock"]), (&json!(30_000), &alice.lock("w")));
    assert_eq!(problem["detail"], "alice has just kept the lock. You can ask again in 30s.");
    assert_eq!(server.limited("knock_again_after"), 1);
    knock(&server, "carol").expect(202);
    server.pass(29_999);
    assert_eq!(knock(&server, "bob").header("retry-after"), Some("1"));
    server.pass(1);
    // Carol's knock was not answered: she has the lock until the claim time ends.
    assert_eq!(alice.lock("w")["locked_by_user_id"], "carol");
    knock(&server, "bob").expect(202);
    let declined = &alice.get("/api/v1/workspaces/w/history").expect(200)["events"][3];
    assert_eq!(
        (&declined["type"], &declined["by_user_id"]),
        (&json!("lock.knock_declined"), &json!("alice"))
    );
    assert_eq!(declined["detail"], json!({ "to_user_id": "bob" }));
}

#[test]
fn an_unanswered_knock_is_granted_even_if_heartbeats_continue() {
    for away in [true, false] {
        let server = Server::start();
        let mut alice = locked(&server);
        alice.heartbeat("w", &json!({ "ttl_ms": 86_400_000 })).expect(200);
        knock(&server, "bob").expect(202);
        server.pass(29_999);
        if !away {
            alice.heartbeat("w", &json!({})).expect(200);
        }
        assert_eq!(alice.lock("w")["locked_by_user_id"], "alice");
        server.pass(1);
        // It happens without followers and requests.
        eventually(|| server.query("SELECT user_id FROM locks") == "bob");
        let lock = alice.lock("w");
        assert_eq!(
            (&lock["locked_by_user_id"], &lock["acquired_at"]),
            (&json!("bob"), &json!("2026-11-23T12:00:30.000Z"))
        );
        assert_eq!(lock["expires_in_ms"], 15_000);
        let lost = alice.heartbeat("w", &json!({})).refused(403, "not_holder")["lost"].clone();
        assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("handed_over"), &json!("bob")));
        server.user("bob").heartbeat("w", &json!({})).expect(200);
        server.pass(20_000);
        assert_eq!(alice.lock("w")["locked_by_user_id"], "bob");
    }
}

#[test]
fn an_unclaimed_grant_expires() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(30_000 + 15_000);
    assert_eq!(alice.lock("w"), Value::Null);
    let expected = ["lock.expired", "lock.handed_over", "lock.knocked", "lock.acquired"];
    assert_eq!(types(&server), expected);
    let again = alice.acquire("w", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired", "somebody came between");
}

#[test]
fn knocks_are_shown_to_the_holder_one_at_a_time() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(10_000);
    let second = knock(&server, "carol").expect(202);
    assert_eq!(
        (&second["knock"]["user_id"], &second["knock"]["auto_grant_at"]),
        (&json!("carol"), &Value::Null)
    );
    assert_eq!(second["lock"]["knock"]["user_id"], "bob");
    // A new message, the same knock.
    let reworded =
        server.user("bob").post(KNOCK, &json!({ "message": "Hello?" })).expect(202)["knock"].clone();
    assert_eq!((&reworded["message"], &reworded["auto_grant_in_ms"]), (&json!("Hello?"), &json!(20_000)));
    assert_eq!(types(&server).len(), 3);
    alice.post(DECLINE, &json!({})).expect(200);
    let shown = alice.lock("w")["knock"].clone();
    assert_eq!((&shown["user_id"], &shown["auto_grant_in_ms"]), (&json!("carol"), &json!(30_000)));
    knock(&server, "dave").expect(202);
    alice.post(DECLINE, &json!({ "user_id": "dave" })).expect(200);
    assert_eq!(alice.lock("w")["knock"]["user_id"], "carol");
    alice.post(HANDOVER, &json!({ "to_user_id": "eve" })).expect(200);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "eve", "the holder may give it to whom it likes");
    assert_eq!(alice.lock("w")["knock"], Value::Null, "they asked alice");
}

#[test]
fn knocks_on_a_lock_are_limited() {
    let server = Server::start();
    let mut alice = locked(&server);
    for number in 0..20 {
        knock(&server, &format!("user-{number}")).expect(202);
    }
    knock(&server, "one-more").refused(429, "rate_limited");
    assert_eq!(server.limited("knocks"), 1);
    alice.post(DECLINE, &json!({})).expect(200);
    knock(&server, "one-more").refused(429, "rate_limited");
    server.pass(60_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], Value::Null);
}

#[test]
fn knocks_end_with_their_lease() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    alice.release("w", &json!({})).expect(200);
    knock(&server, "bob").refused(404, "lock_not_found");
    alice.acquire("w", &json!({})).expect(200);
    assert_eq!(alice.lock("w")["knock"], Value::Null);
    knock(&server, "bob").expect(202);
    server.user("carol").acquire("w", &json!({ "force": true })).expect(200);
    server.pass(30_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "carol");
    assert_eq!(server.query("SELECT count(*) FROM knocks"), "0");
}

#[test]
fn invalid_knocks_and_answers_are_refused() {
    let server = Server::start();
    let mut alice = locked(&server);
    alice.post(KNOCK, &json!({})).refused(409, "knock_on_own_lock");
    let long = json!({ "message": "x".repeat(501) });
    assert_eq!(server.user("bob").post(KNOCK, &long).refused(400, "invalid_request")["field"], "message");
    assert_eq!(alice.post(HANDOVER, &json!({})).refused(400, "invalid_request")["field"], "to_user_id");
    alice.post(HANDOVER, &json!({ "to_user_id": "alice" })).refused(400, "invalid_request");
    alice.post(HANDOVER, &json!({ "to_user_id": "" })).refused(400, "invalid_request");
    knock(&server, "bob").expect(202);
    server.user("bob").post(DECLINE, &json!({})).refused(403, "not_holder");
    server.user("bob").post(HANDOVER, &json!({})).refused(403, "not_holder");
    alice.post(HANDOVER, &json!({ "fence": 1 })).refused(403, "not_holder");
    assert_eq!(alice.lock("w")["knock"]["user_id"], "bob");
}

#[test]
fn with_grant_after_never_a_knock_waits_for_an_answer() {
    let server = Server::with(|config| config.locks.knock_grant_after = None);
    let mut alice = locked(&server);
    let heard = knock(&server, "bob").expect(202);
    assert_eq!(heard["knock"]["auto_grant_at"], Value::Null);
    server.pass(599_999);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice");
    alice.post(HANDOVER, &json!({})).expect(200);
}

#[test]
fn knocks_survive_a_restart_and_the_holder_has_time_to_answer() {
    let mut server = Server::start();
    locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(10_000);
    server.stop();
    server.pass(25_000);
    server.start_again();
    let mut alice = server.user("alice");
    let shown = alice.heartbeat("w", &json!({})).expect(200)["knock"].clone();
    assert_eq!((&shown["user_id"], &shown["auto_grant_in_ms"]), (&json!("bob"), &json!(30_000)));
    server.pass(30_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "bob");
    alice.heartbeat("w", &json!({})).refused(403, "not_holder");
}

#[test]
fn a_lease_given_to_a_user_belongs_to_the_first_claiming_session() {
    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "session_id": "a" })).expect(200);
    alice.post(HANDOVER, &json!({ "session_id": "a", "to_user_id": "bob" })).expect(200);
    let mut bob = server.user("bob");
    bob.heartbeat("w", &json!({ "session_id": "one" })).expect(200);
    bob.heartbeat("w", &json!({ "session_id": "two" })).refused(403, "not_holder");
    assert_eq!(bob.lock("w")["session_id"], "one");
    // A knock from a session is granted to that session.
    server.user("carol").post(KNOCK, &json!({ "session_id": "c" })).expect(202);
    bob.post(HANDOVER, &json!({ "session_id": "one" })).expect(200);
    assert_eq!(bob.lock("w")["session_id"], "c");
}

#[test]
fn a_holder_can_hand_over_to_their_own_knocking_session() {
    let server = Server::with(|config| config.locks.same_user = SameUser::Separate);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "session_id": "one" })).expect(200);
    let here = json!({ "session_id": "one", "to_user_id": "alice" });
    alice.post(HANDOVER, &here).refused(400, "invalid_request");
    alice.post(KNOCK, &json!({ "session_id": "two" })).expect(202);
    alice.post(HANDOVER, &here).expect(200);
    assert_eq!(alice.lock("w")["session_id"], "two");
}

#[test]
fn repeating_a_handover_is_idempotent() {
    for mode in [SameUser::Share, SameUser::Separate] {
        let server = Server::with(|config| config.locks.same_user = mode);
        let mut alice = server.user("alice");
        let lease = alice.acquire("w", &json!({ "session_id": "one" })).expect(200)["lock"].clone();
        knock(&server, "bob").expect(202);
        let asked = json!({ "fence": lease["fence"], "session_id": "one", "to_user_id": "bob" });
        let first = alice.post(HANDOVER, &asked).expect(200);
        assert_eq!(alice.post(HANDOVER, &asked).expect(200), first);
        assert_eq!(alice.post(HANDOVER, &json!({ "session_id": "one" })).expect(200), first);
        server.pass(1_000);
        let again = alice.post(HANDOVER, &asked).expect(200)["lock"].clone();
        assert_eq!((&again["fence"], &again["expires_in_ms"]), (&first["lock"]["fence"], &json!(14_000)));
        assert_eq!(types(&server).iter().filter(|event| *event == "lock.handed_over").count(), 1);
        // With another user, recipient, lease or session it is another handover.
        server.user("carol").post(HANDOVER, &asked).refused(403, "not_holder");
        for (name, value) in [("to_user_id", json!("carol")), ("fence", json!(1))] {
            let mut other = asked.clone();
            other[name] = value;
            alice.post(HANDOVER, &other).refused(403, "not_holder");
        }
        let other = alice.post(HANDOVER, &json!({ "session_id": "two" }));
        assert_eq!(other.status, if mode == SameUser::Share { 200 } else { 403 });
        // After the next handover there is nothing to repeat.
        server.user("bob").post(HANDOVER, &json!({ "to_user_id": "carol" })).expect(200);
        let lost = alice.post(HANDOVER, &asked).refused(403, "not_holder")["lost"].clone();
        assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("handed_over"), &json!("alice")));
    }
}

#[test]
fn an_automatic_grant_is_no_handover_of_the_holder() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    server.pass(30_000);
    alice.post(HANDOVER, &json!({ "to_user_id": "bob" })).refused(403, "not_holder");
}

#[test]
fn presence_lists_holder_knocks_waiters_and_followers() {
    let server = Server::start();
    let presence = |path: &str| server.client().get(path).expect(200);
    let nobody = json!({ "lock": null, "knocks": [], "waiting": [], "followers": [] });
    assert_eq!(presence("/api/v1/workspaces/w/presence"), nobody);
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    knock(&server, "carol").expect(202);
    let dave = follow(&server, "dave", "?workspace_id=w&workspace_id=v");
    server.pass(1_000);
    let again = follow(&server, "dave", "?workspace_id=w");
    let _admin = follow(&server, "admin", "");
    let mut eve = server.client();
    eve.send(b"POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nX-User-Id: eve\r\nX-User-Name: Eve\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{\"wait_ms\": 60000,\"session_id\":\"tab\"}");
    eventually(|| presence("/api/v1/workspaces/w/presence")["waiting"] != json!([]));
    let shown = presence("/api/v1/workspaces/w/presence");
    assert_eq!(shown["lock"], alice.lock("w"));
    let knocks: Vec<_> = shown["knocks"].as_array().unwrap().iter().map(|knock| &knock["user_id"]).collect();
    assert_eq!(knocks, ["bob", "carol"]);
    let waits = json!({ "user_id": "eve", "name": "Eve", "session_id": "tab", "since_at": "2026-11-23T12:00:01.000Z" });
    assert_eq!(shown["waiting"], json!([waits]));
    let follows = json!({ "user_id": "dave", "name": "dave!", "since_at": "2026-11-23T12:00:00.000Z" });
    assert_eq!(shown["followers"], json!([follows]), "each person once");
    assert_eq!(presence("/api/v1/workspaces/v/presence")["followers"], json!([follows]));
    drop(dave);
    eventually(|| presence("/api/v1/workspaces/v/presence")["followers"] == json!([]));
    assert_eq!(
        presence("/api/v1/workspaces/w/presence")["followers"][0]["since_at"],
        "2026-11-23T12:00:01.000Z"
    );
    drop(again);
    eventually(|| presence("/api/v1/workspaces/w/presence")["followers"] == json!([]));
    alice.release("w", &json!({})).expect(200);
    eve.receive("POST").unwrap().expect(200);
}

#[test]
fn knock_events_carry_the_current_lock() {
    let server = Server::start();
    let mut alice = locked(&server);
    let mut events = follow(&server, "alice", "?workspace_id=w");
    let mut told = |event: &str| {
        let data = told(&mut events);
        assert_eq!(data["type"], event);
        data
    };
    server.user("bob").post(KNOCK, &json!({ "message": "Hello" })).expect(202);
    let knocked = told("lock.knocked");
    assert_eq!(
        (&knocked["lock"]["knock"]["user_id"], &knocked["detail"]["message"]),
        (&json!("bob"), &json!("Hello"))
    );
    alice.post(DECLINE, &json!({})).expect(200);
    let declined = told("lock.knock_declined");
    assert_eq!(declined["lock"]["knock"], Value::Null);
    assert_eq!(declined["detail"], json!({ "to_user_id": "bob", "again_in_ms": 60_000 }));
    knock(&server, "carol").expect(202);
    told("lock.knocked");
    server.pass(30_000);
    let handed = told("lock.handed_over");
    assert_eq!(
        (&handed["by_user_id"], &handed["lock"]["locked_by_user_id"]),
        (&json!("carol"), &json!("carol"))
    );
    assert_eq!(handed["at"], "2026-11-23T12:00:30.000Z");
}

#[test]
fn replayed_declines_show_the_remaining_time() {
    let server = Server::start();
    let mut alice = locked(&server);
    knock(&server, "bob").expect(202);
    alice.post(DECLINE, &json!({})).expect(200);
    let again_in_ms = || {
        let mut events = follow(&server, "bob", "?workspace_id=w&since=0");
        let declined = std::iter::repeat_with(|| told(&mut events))
            .find(|event| event["type"] == "lock.knock_declined")
            .unwrap();
        declined["detail"]["again_in_ms"].clone()
    };
    assert_eq!(again_in_ms(), 60_000);
    server.pass(20_000);
    assert_eq!(again_in_ms(), 40_000);
    server.pass(40_000);
    assert_eq!(again_in_ms(), 0);
    knock(&server, "bob").expect(202);
}
