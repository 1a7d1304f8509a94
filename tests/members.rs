//! Workspaces and members: visibility, the right to lock, removal.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use common::{Client, Server, eventually};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::{Membership, Takeover};
use serde_json::{Value, json};

fn enforced() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
        config.locks.takeover = Takeover::Admins;
    })
}

/// The app's back end.
fn app(server: &Server) -> Client {
    server.with_token(Scope::Service, None)
}

fn user(server: &Server, name: &str) -> Client {
    server.with_token(Scope::User, Some(name))
}

fn workspace(app: &mut Client, id: &str, members: &[(&str, &str)]) {
    app.call("PUT", &format!("/api/v1/workspaces/{id}"), Some(&json!({ "name": "Plans" }))).expect(200);
    for (user, role) in members {
        member(app, id, user, role);
    }
}

fn member(app: &mut Client, id: &str, user: &str, role: &str) {
    let path = format!("/api/v1/workspaces/{id}/members/{user}");
    app.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
}

#[test]
fn workspaces_and_members_are_stored_listed_and_removed() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("alice", "admin"), ("bob", "editor"), ("carol", "viewer")]);
    workspace(&mut app, "v", &[("alice", "viewer")]);
    let shown = app.get("/api/v1/workspaces/w").expect(200);
    assert_eq!(
        shown,
        json!({ "workspace_id": "w", "name": "Plans", "created_at": "2026-11-23T12:00:00.000Z" })
    );
    // A repeat without a name keeps the name.
    assert_eq!(app.call("PUT", "/api/v1/workspaces/w", None).expect(200), shown);
    let members = app.get("/api/v1/workspaces/w/members?limit=2").expect(200);
    assert_eq!(
        members["members"],
        json!([{ "user_id": "alice", "role": "admin" }, { "user_id": "bob", "role": "editor" }])
    );
    app.get("/api/v1/workspaces/nowhere/members").refused(404, "workspace_not_found");
    let rest = app.get("/api/v1/workspaces/w/members?limit=2&cursor=bob").expect(200);
    assert_eq!(rest, json!({ "members": [{ "user_id": "carol", "role": "viewer" }], "next_cursor": null }));
    let ids = |client: &mut Client| -> Vec<String> {
        let page = client.get("/api/v1/workspaces").expect(200);
        let all = page["workspaces"].as_array().unwrap();
        all.iter().map(|workspace| workspace["workspace_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&mut app), ["v", "w"]);
    assert_eq!(ids(&mut user(&server, "bob")), ["w"], "each sees their own");
    let mut alice = user(&server, "alice");
    assert_eq!(alice.delete("/api/v1/workspaces/w/members/carol").expect(200), json!({ "removed": true }));
    assert_eq!(alice.delete("/api/v1/workspaces/w/members/carol").expect(200), json!({ "removed": false }));
    alice.delete("/api/v1/workspaces/v/members/alice").refused(403, "forbidden");
    let odd = app.call("PUT", "/api/v1/workspaces/w/members/dave", Some(&json!({ "role": "owner" })));
    assert_eq!(odd.refused(400, "invalid_request")["field"], "role");
    app.call("PUT", "/api/v1/workspaces/none/members/dave", Some(&json!({ "role": "viewer" })))
        .refused(404, "workspace_not_found");
    assert_eq!(app.delete("/api/v1/workspaces/w").expect(200), json!({ "deleted": true }));
    assert_eq!(app.delete("/api/v1/workspaces/w").expect(200), json!({ "deleted": false }));
    assert!(ids(&mut user(&server, "bob")).is_empty());
}

#[test]
fn an_invisible_workspace_looks_like_a_missing_one() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "secret", &[("alice", "editor")]);
    let (mut alice, mut mallory) = (user(&server, "alice"), user(&server, "mallory"));
    alice.acquire("secret", &json!({})).expect(200);
    let strip = |mut problem: Value| {
        problem.as_object_mut().unwrap().remove("request_id");
        problem
    };
    // A missing and an invisible workspace give the same answers.
    for what in ["", "/lock", "/history", "/presence", "/members"] {
        let ask = |client: &mut Client, id: &str| {
            strip(client.get(&format!("/api/v1/workspaces/{id}{what}")).refused(404, "workspace_not_found"))
        };
        assert_eq!(ask(&mut mallory, "secret"), ask(&mut mallory, "none"), "{what}");
    }
    let mut ask = |id| strip(mallory.acquire(id, &json!({})).refused(404, "workspace_not_found"));
    assert_eq!(ask("secret"), ask("none"));
    mallory.get("/api/v1/events?workspace_id=secret").refused(404, "workspace_not_found");
    assert_eq!(mallory.get("/api/v1/locks").expect(200)["locks"], json!([]));
    assert_eq!(alice.get("/api/v1/locks").expect(200)["locks"][0]["workspace_id"], "secret");
    let many = json!({ "locks": [{ "workspace_id": "secret" }, { "workspace_id": "none" }] });
    let results = mallory.post("/api/v1/locks/heartbeat", &many).expect(200)["results"].clone();
    for result in results.as_array().unwrap() {
        assert_eq!((&result["status"], &result["code"]), (&json!(404), &json!("workspace_not_found")));
    }
}

#[test]
fn a_removed_member_loses_the_lock_and_is_told_why() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("alice", "editor"), ("bob", "editor"), ("boss", "admin")]);
    let mut alice = user(&server, "alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    // Bob waits, and is granted the lock at once.
    let mut bob = user(&server, "bob");
    let token = server.token(Scope::User, Some("bob"));
    let mut waits = server.client();
    waits.send(
        format!("POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{{\"wait_ms\":60000}}")
            .as_bytes(),
    );
    eventually(|| bob.get("/api/v1/workspaces/w/presence").expect(200)["waiting"] != json!([]));
    user(&server, "boss").delete("/api/v1/workspaces/w/members/alice").expect(200);
    assert_eq!(waits.receive("POST").unwrap().expect(200)["lock"]["locked_by_user_id"], "bob");
    // They are told the reason, and not the new holder. Repeating the release is harmless.
    let gone = alice.heartbeat("w", &json!({ "fence": fence })).refused(404, "lock_not_found");
    assert_eq!((&gone["lost"]["reason"], &gone["lost"]["fence"]), (&json!("member_removed"), &fence));
    assert!(gone["detail"].as_str().unwrap().contains("no longer a member of the workspace"));
    let many =
        alice.post("/api/v1/locks/heartbeat", &json!({ "locks": [{ "workspace_id": "w" }] })).expect(200);
    assert_eq!(many["results"][0]["lost"], gone["lost"]);
    for path in ["release", "handover", "knock/decline"] {
        let answer = alice.post(&format!("/api/v1/workspaces/w/lock/{path}"), &json!({}));
        match path {
            "release" => assert_eq!(answer.expect(200), json!({ "released": false })),
            _ => assert_eq!(answer.refused(404, "lock_not_found")["lost"], gone["lost"]),
        }
    }
    for other in ["lock", "history", "presence"] {
        alice.get(&format!("/api/v1/workspaces/w/{other}")).refused(404, "workspace_not_found");
    }
    member(&mut app, "w", "alice", "viewer");
    let lost = alice.heartbeat("w", &json!({ "fence": fence })).refused(403, "not_holder")["lost"].clone();
    assert_eq!(
        (&lost["reason"], &lost["by_user_id"], &lost["fence"]),
        (&json!("member_removed"), &json!("boss"), &fence)
    );
    let events = bob.get("/api/v1/workspaces/w/history").expect(200)["events"].clone();
    assert_eq!(events[1]["type"], "member.removed");
    // A viewer cannot lock. An editor who becomes a viewer loses the lock.
    alice.lock("w");
    alice.acquire("w", &json!({})).refused(403, "not_a_member");
    member(&mut app, "w", "bob", "viewer");
    assert_eq!(bob.lock("w"), Value::Null);
    let lost = bob.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!(lost["reason"], "revoked");
    // The removal of a member without a lock is an event too.
    app.delete("/api/v1/workspaces/w/members/bob").expect(200);
    let events = alice.get("/api/v1/workspaces/w/history").expect(200)["events"].clone();
    assert_eq!(
        (&events[0]["type"], &events[0]["user_id"], &events[0]["fence"]),
        (&json!("member.removed"), &json!("bob"), &Value::Null)
    );
}

#[test]
fn deleting_a_workspace_ends_its_lock_waits_and_knocks() {
    let server = enforced();
    let mut app = app(&server);
    let members = [("alice", "editor"), ("bob", "editor"), ("carol", "editor")];
    workspace(&mut app, "w", &members);
    let mut alice = user(&server, "alice");
    alice.acquire("w", &json!({})).expect(200);
    let token = server.token(Scope::User, Some("bob"));
    let mut waits = server.client();
    waits.send(
        format!("POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{{\"wait_ms\":60000}}")
            .as_bytes(),
    );
    eventually(|| alice.get("/api/v1/workspaces/w/presence").expect(200)["waiting"] != json!([]));
    user(&server, "carol").post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    app.delete("/api/v1/workspaces/w").expect(200);
    waits.receive("POST").unwrap().refused(404, "workspace_not_found");
    let lost = alice.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!(lost["reason"], "workspace_deleted");
    // An administrator can read the history.
    let mut admin = server.with_token(Scope::Admin, None);
    let events = admin.get("/api/v1/workspaces/w/history").expect(200)["events"].clone();
    assert_eq!(events[0]["type"], "workspace.deleted");
    workspace(&mut app, "w", &members);
    let lost = alice.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!(lost["reason"], "workspace_deleted");
    server.pass(60_000);
    assert_eq!(alice.lock("w"), Value::Null);
    // The knock of a removed member ends too.
    alice.acquire("w", &json!({})).expect(200);
    user(&server, "carol").post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    app.delete("/api/v1/workspaces/w/members/carol").expect(200);
    assert_eq!(alice.lock("w")["knock"], Value::Null);
    server.pass(60_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice");
}

#[test]
fn with_open_membership_deletion_and_removal_end_locks_too() {
    let server = Server::start();
    let (mut admin, mut alice) = (server.user("admin"), server.user("alice"));
    let deleted = json!({ "deleted": true });
    alice.acquire("w", &json!({})).expect(200);
    assert_eq!(admin.delete("/api/v1/workspaces/w").expect(200), deleted);
    let lost = alice.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("workspace_deleted"), &json!("admin")));
    assert_eq!(admin.delete("/api/v1/workspaces/w").expect(200), json!({ "deleted": false }));
    admin.call("PUT", "/api/v1/workspaces/w", None).expect(200);
    alice.acquire("w", &json!({})).expect(200);
    // A user who is no member may knock too.
    server.user("bob").post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
    assert_eq!(admin.delete("/api/v1/workspaces/w/members/bob").expect(200), json!({ "removed": false }));
    assert_eq!(alice.lock("w")["knock"]["user_id"], "bob");
    let member = "/api/v1/workspaces/w/members/alice";
    assert_eq!(admin.delete(member).expect(200), json!({ "removed": true }));
    let lost = alice.heartbeat("w", &json!({})).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!(lost["reason"], "member_removed");
    assert_eq!(admin.delete(member).expect(200), json!({ "removed": false }));
}

#[test]
fn a_workspace_keeps_its_name_until_it_is_changed() {
    let server = Server::start();
    let mut admin = server.user("admin");
    for (body, name) in [
        (json!({ "name": "Design" }), json!("Design")),
        (json!({}), json!("Design")),
        (json!({ "name": "Plan" }), json!("Plan")),
        (json!({ "name": "" }), Value::Null),
    ] {
        assert_eq!(admin.call("PUT", "/api/v1/workspaces/w", Some(&body)).expect(200)["name"], name);
    }
}

#[test]
fn workspace_admins_take_over_and_revoke_with_a_reason() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("alice", "editor"), ("bob", "editor"), ("boss", "admin")]);
    let (mut alice, mut bob, mut boss) =
        (user(&server, "alice"), user(&server, "bob"), user(&server, "boss"));
    alice.acquire("w", &json!({})).expect(200);
    let held = bob.acquire("w", &json!({})).refused(409, "lock_held");
    assert_eq!(held["takeover_allowed"], false);
    bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    let refused = bob.release("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    assert_eq!(refused["lock"]["locked_by_user_id"], "alice");
    assert_eq!(boss.acquire("w", &json!({})).refused(409, "lock_held")["takeover_allowed"], true);
    boss.acquire("w", &json!({ "force": true, "reason": "The printer waits." })).expect(200);
    boss.release("w", &json!({})).expect(200);
    alice.acquire("w", &json!({})).expect(200);
    // A wrong fence is another refusal than a missing right.
    boss.delete("/api/v1/workspaces/w/lock?force=true&fence=1").refused(403, "not_holder");
    boss.delete("/api/v1/workspaces/w/lock?force=true&reason=Enough").expect(200);
    let events = alice.get("/api/v1/workspaces/w/history").expect(200)["events"].clone();
    let told = |place: usize| (events[place]["type"].clone(), events[place]["detail"]["reason"].clone());
    assert_eq!(told(0), (json!("lock.revoked"), json!("Enough")));
    assert_eq!(told(3), (json!("lock.taken_over"), json!("The printer waits.")));
}

#[test]
fn a_removed_member_is_no_longer_a_follower() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("alice", "editor"), ("bob", "viewer")]);
    let follow = |user: &str| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let token = server.token(Scope::User, Some(user));
        let head =
            format!("GET /api/v1/events?workspace_id=w HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let _streams = ["alice", "bob"].map(follow);
    let mut alice = user(&server, "alice");
    let mut followers_shown = || {
        let presence = alice.get("/api/v1/workspaces/w/presence").expect(200);
        let followers = presence["followers"].as_array().unwrap();
        let mut users: Vec<_> =
            followers.iter().map(|follower| follower["user_id"].as_str().unwrap().to_owned()).collect();
        users.sort();
        users
    };
    eventually(|| followers_shown() == ["alice", "bob"]);
    app.delete("/api/v1/workspaces/w/members/bob").expect(200);
    assert_eq!(followers_shown(), ["alice"]);
}

/// The events of a follower without a filter, up to the first of the workspace `last`.
fn told(server: &Server, token: &str, last: &str) -> Vec<Value> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!("GET /api/v1/events?since=0 HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut told: Vec<Value> = Vec::new();
    for line in BufReader::new(stream).lines() {
        let Some(data) = line.unwrap().strip_prefix("data: ").map(str::to_owned) else { continue };
        told.push(serde_json::from_str(&data).unwrap());
        if told.last().unwrap()["workspace_id"] == last {
            break;
        }
    }
    told
}

/// Type and workspace of each.
fn pairs(told: &[Value]) -> Vec<(String, String)> {
    let text = |data: &Value, name: &str| data[name].as_str().unwrap().to_owned();
    told.iter().map(|data| (text(data, "type"), text(data, "workspace_id"))).collect()
}

#[test]
fn followers_see_only_their_workspaces() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "a", &[("alice", "editor")]);
    workspace(&mut app, "b", &[("bob", "editor")]);
    workspace(&mut app, "end", &[("alice", "editor"), ("bob", "editor")]);
    user(&server, "alice").acquire("a", &json!({})).expect(200);
    user(&server, "bob").acquire("b", &json!({})).expect(200);
    app.delete("/api/v1/workspaces/a/members/alice").expect(200);
    member(&mut app, "a", "bob", "viewer");
    user(&server, "bob").acquire("end", &json!({})).expect(200);
    let pair = |kind: &str, workspace: &str| (kind.to_owned(), workspace.to_owned());
    let alice = pairs(&told(&server, &server.token(Scope::User, Some("alice")), "end"));
    let own = [pair("member.removed", "a"), pair("lock.acquired", "end")];
    assert_eq!(alice, own, "she is no member any more, and is told so");
    let bob = pairs(&told(&server, &server.token(Scope::User, Some("bob")), "end"));
    assert_eq!(bob[..2], [pair("lock.acquired", "a"), pair("lock.acquired", "b")]);
    let all = told(&server, &server.token(Scope::Read, None), "end");
    assert_eq!(all.len(), 4);
}

#[test]
fn events_before_a_deletion_are_for_administrators_only() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("carol", "editor")]);
    workspace(&mut app, "end", &[("dave", "editor")]);
    user(&server, "carol").acquire("w", &json!({})).expect(200);
    app.delete("/api/v1/workspaces/w").expect(200);
    workspace(&mut app, "w", &[("dave", "editor")]);
    user(&server, "dave").acquire("w", &json!({})).expect(200);
    user(&server, "dave").acquire("end", &json!({})).expect(200);
    let pair = |kind: &str, workspace: &str| (kind.to_owned(), workspace.to_owned());
    let own = [pair("lock.acquired", "w"), pair("lock.acquired", "end")];
    let dave = told(&server, &server.token(Scope::User, Some("dave")), "end");
    assert_eq!(pairs(&dave), own);
    assert!(!json!(dave).to_string().contains("carol"));
    let monitor = pairs(&told(&server, &server.token(Scope::Read, None), "end"));
    assert_eq!(monitor[0], pair("workspace.deleted", "w"), "the lease that was known before has ended");
    assert_eq!(monitor[1..], own);
    let admin = pairs(&told(&server, &server.token(Scope::Admin, None), "end"));
    assert_eq!(admin[..2], [pair("lock.acquired", "w"), pair("workspace.deleted", "w")]);
    assert_eq!(admin[2..], own);
}

#[test]
fn former_members_do_not_see_who_took_over() {
    let server = enforced();
    let mut app = app(&server);
    workspace(&mut app, "w", &[("alice", "editor"), ("boss", "admin")]);
    workspace(&mut app, "end", &[("alice", "editor")]);
    user(&server, "alice").acquire("w", &json!({})).expect(200);
    let mut boss = user(&server, "boss");
    let asked = json!({ "force": true, "reason": "dismissed", "note": "secret plans", "name": "The Boss" });
    boss.acquire("w", &asked).expect(200);
    app.delete("/api/v1/workspaces/w/members/alice").expect(200);
    user(&server, "alice").acquire("end", &json!({})).expect(200);
    let told = told(&server, &server.token(Scope::User, Some("alice")), "end");
    let expected = [("member.removed", "w"), ("lock.acquired", "end")];
    assert_eq!(pairs(&told), expected.map(|(kind, id)| (kind.to_owned(), id.to_owned())));
    let all = json!(told).to_string();
    assert!(!["dismissed", "secret", "boss", "Boss"].iter().any(|word| all.contains(word)), "{all}");
}
