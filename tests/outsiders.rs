//! Users who have lost the right to a workspace: their events, waits, locks and knocks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Client, Server, eventually};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::Membership;
use serde_json::{Value, json};

fn enforced() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
    })
}

fn user(server: &Server, name: &str) -> Client {
    server.with_token(Scope::User, Some(name))
}

fn workspace(server: &Server, id: &str, members: &[(&str, &str)]) {
    let mut app = server.with_token(Scope::Service, None);
    app.call("PUT", &format!("/api/v1/workspaces/{id}"), None).expect(200);
    for (user, role) in members {
        let path = format!("/api/v1/workspaces/{id}/members/{user}");
        app.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
    }
}

/// A stream of events, with what it tells.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Follows from now on. The server has accepted the stream when this returns.
    fn of(server: &Server, name: &str) -> Self {
        let token = server.token(Scope::User, Some(name));
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!("GET /api/v1/events HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        while stream.line() != ": still here" {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next event.
    fn next(&mut self) -> Value {
        loop {
            if let Some(data) = self.line().strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn next_is(&mut self, event: &str, workspace: &str) -> Value {
        let told = self.next();
        assert_eq!((&told["type"], &told["workspace_id"]), (&json!(event), &json!(workspace)), "{told}");
        told
    }
}

#[test]
fn a_deletion_is_sent_to_following_members_only() {
    let server = enforced();
    for held in [true, false] {
        workspace(&server, "w", &[("alice", "editor"), ("bob", "viewer"), ("carol", "editor")]);
        workspace(&server, "end", &[("bob", "editor"), ("carol", "editor"), ("mallory", "editor")]);
        let mut streams = ["alice", "bob", "mallory"].map(|name| Stream::of(&server, name));
        if held {
            user(&server, "alice").acquire("w", &json!({})).expect(200);
            streams[0].next_is("lock.acquired", "w");
            streams[1].next_is("lock.acquired", "w");
        }
        server.with_token(Scope::Admin, Some("root")).delete("/api/v1/workspaces/w").expect(200);
        let [alice, bob, mallory] = &mut streams;
        for stream in [alice, bob] {
            assert_eq!(stream.next_is("workspace.deleted", "w")["by_user_id"], "root");
        }
        user(&server, "mallory").acquire("end", &json!({})).expect(200);
        mallory.next_is("lock.acquired", "end");
        user(&server, "mallory").release("end", &json!({})).expect(200);
    }
}

/// Waits for the lock of `w`, as the last in its line.
fn wait(server: &Server, name: &str) -> Client {
    let (mut client, token) = (server.client(), server.token(Scope::User, Some(name)));
    let head =
        format!("POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n");
    client.send(format!("{head}Content-Length: 17\r\n\r\n{{\"wait_ms\":60000}}").as_bytes());
    eventually(|| waiting(server).last().is_some_and(|last| last == name));
    client
}

fn waiting(server: &Server) -> Vec<Value> {
    let presence = server.with_token(Scope::Read, None).get("/api/v1/workspaces/w/presence").expect(200);
    presence["waiting"].as_array().unwrap().iter().map(|place| place["user_id"].clone()).collect()
}

#[test]
fn waiters_who_lose_the_right_are_refused_at_once() {
    let server = enforced();
    let editors = [("alice", "editor"), ("bob", "editor"), ("carol", "editor"), ("dave", "editor")];
    workspace(&server, "w", &editors);
    user(&server, "alice").acquire("w", &json!({})).expect(200);
    let [mut bob, mut carol, mut dave] = ["bob", "carol", "dave"].map(|name| wait(&server, name));
    let mut app = server.with_token(Scope::Service, None);
    app.delete("/api/v1/workspaces/w/members/bob").expect(200);
    bob.receive("POST").unwrap().refused(404, "workspace_not_found");
    workspace(&server, "w", &[("carol", "viewer")]);
    carol.receive("POST").unwrap().refused(403, "not_a_member");
    assert_eq!(waiting(&server), ["dave"]);
    app.delete("/api/v1/workspaces/w").expect(200);
    dave.receive("POST").unwrap().refused(404, "workspace_not_found");
    // The same when the lock has expired and was not swept yet.
    workspace(&server, "w", &editors);
    user(&server, "alice").acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200);
    let mut bob = wait(&server, "bob");
    app.delete("/api/v1/workspaces/w/members/bob").expect(200);
    server.pass(1_000);
    bob.receive("POST").unwrap().refused(404, "workspace_not_found");
}

/// A server that begins to enforce membership.
fn from_open(before: impl FnOnce(&Server)) -> Server {
    let mut server = Server::with(|config| config.auth.mode = AuthMode::Token);
    before(&server);
    server.stop();
    server.config.workspaces.membership = Membership::Enforced;
    server.start_again();
    server
}

#[test]
fn knocks_of_non_members_are_not_granted_once_membership_is_enforced() {
    let knocked = |server: &Server| {
        workspace(server, "w", &[("alice", "editor"), ("bob", "editor"), ("eve", "viewer")]);
        user(server, "alice").acquire("w", &json!({})).expect(200);
        for name in ["mallory", "eve", "bob"] {
            user(server, name).post("/api/v1/workspaces/w/lock/knock", &json!({})).expect(202);
        }
    };
    let server = from_open(knocked);
    let mut alice = user(&server, "alice");
    let handed = alice.post("/api/v1/workspaces/w/lock/handover", &json!({})).expect(200);
    assert_eq!(handed["lock"]["locked_by_user_id"], "bob");
    // Nor does silence.
    let server = from_open(knocked);
    server.pass(31_000);
    let mut alice = user(&server, "alice");
    eventually(|| alice.lock("w")["knock"]["user_id"] == "bob");
    server.pass(31_000);
    eventually(|| alice.lock("w")["locked_by_user_id"] == "bob");
}

#[test]
fn locks_of_non_members_end_once_membership_is_enforced() {
    let mut fence = Value::Null;
    let mut server = from_open(|server| {
        workspace(server, "w", &[("eve", "viewer"), ("bob", "editor")]);
        fence = user(server, "eve").acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    });
    let mut eve = user(&server, "eve");
    eve.get(&format!("/api/v1/gate?workspace_id=w&fence={fence}")).refused(403, "not_holder");
    let lost = eve.heartbeat("w", &json!({ "fence": fence })).refused(404, "lock_not_found")["lost"].clone();
    assert_eq!((&lost["reason"], &lost["by_user_id"]), (&json!("revoked"), &Value::Null));
    user(&server, "bob").acquire("w", &json!({})).expect(200);
    for verb in ["handover", "knock/decline"] {
        let path = format!("/api/v1/workspaces/w/lock/{verb}");
        eve.post(&path, &json!({ "fence": fence })).refused(403, "not_holder");
    }
    // The same for a user who is no member. The next user finds the workspace free.
    user(&server, "bob").release("w", &json!({})).expect(200);
    server.stop();
    server.config.workspaces.membership = Membership::Open;
    server.start_again();
    user(&server, "mallory").acquire("w", &json!({})).expect(200);
    server.stop();
    server.config.workspaces.membership = Membership::Enforced;
    server.start_again();
    user(&server, "bob").acquire("w", &json!({})).expect(200);
    let history = user(&server, "bob").get("/api/v1/workspaces/w/history").expect(200);
    assert_eq!(history["events"][1]["type"], "member.removed");
    assert_eq!(history["events"][1]["user_id"], "mallory");
}

#[test]
fn members_list_only_the_locks_of_their_workspaces() {
    let server = enforced();
    for id in ["a1", "a2", "b1", "b2", "b3"] {
        let alice = if id == "b2" { "admin" } else { "viewer" };
        workspace(&server, id, &[("alice", alice), ("bob", "editor")]);
        user(&server, if id == "b2" { "alice" } else { "bob" }).acquire(id, &json!({})).expect(200);
    }
    workspace(&server, "b0", &[("bob", "editor")]);
    user(&server, "bob").acquire("b0", &json!({})).expect(200);
    let mut alice = user(&server, "alice");
    let mut ids = |query: &str| -> Vec<Value> {
        let page = alice.get(&format!("/api/v1/locks?{query}")).expect(200);
        page["locks"].as_array().unwrap().iter().map(|lock| lock["workspace_id"].clone()).collect()
    };
    assert_eq!(ids(""), ["a1", "a2", "b1", "b2", "b3"]);
    assert_eq!(ids("prefix=b"), ["b1", "b2", "b3"]);
    assert_eq!(ids("limit=2"), ["a1", "a2"]);
    assert_eq!(ids("limit=2&cursor=a2"), ["b1", "b2"]);
    assert_eq!(ids("user_id=alice"), ["b2"]);
    assert_eq!(ids("user_id=bob&prefix=b"), ["b1", "b3"]);
}
