//! AI agents: their tokens, their locks, and that people outrank them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::process::lockhouse;
use common::{Client, Server, eventually, follow, told};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use serde_json::{Value, json};

/// A server with tokens.
fn with_tokens() -> Server {
    Server::with(|config| config.auth.mode = AuthMode::Token)
}

/// The client of an agent that acts for `user`, with a token that an administrator made.
fn agent_of(server: &Server, user: &str) -> Client {
    let mut admin = server.with_token(Scope::Admin, None);
    let asked = json!({ "user_id": user, "name": "Claude", "agent": true });
    let made = admin.post("/api/v1/tokens", &asked).expect(201);
    assert_eq!((&made["agent"], &made["scope"]), (&json!(true), &json!("user")));
    server.client().with_token(made["token"].as_str().unwrap())
}

fn asks(session: &str) -> Value {
    json!({ "kind": "agent", "session_id": session })
}

#[test]
fn an_agents_lock_names_the_agent_and_for_whom_it_acts() {
    let server = with_tokens();
    let mut agent = agent_of(&server, "alice");
    let path = "/api/v1/workspaces/w/lock";
    let headers = [("X-User-Name", "Alice%20Martin"), ("Content-Type", "application/json")];
    let taken = agent.request("POST", path, &headers, asks("s").to_string().as_bytes()).expect(200);
    let shown = json!({ "name": "Claude", "for_user_id": "alice", "for_name": "Alice Martin" });
    let lock = &taken["lock"];
    assert_eq!((&lock["agent"], &lock["locked_by_user_id"]), (&shown, &json!("alice")));
    assert_eq!((&lock["locked_by_name"], &lock["kind"]), (&json!("Claude"), &json!("agent")));
    assert_eq!(agent.acquire("w", &asks("s")).expect(200)["lock"]["agent"], shown, "it is kept");
    assert_eq!(agent.get("/api/v1/whoami").expect(200)["agent"]["for_user_id"], "alice");
    let mut alice = server.with_token(Scope::User, Some("alice"));
    assert_eq!(alice.acquire("v", &json!({})).expect(200)["lock"]["agent"], Value::Null);

    // Without tokens the request names the agent.
    let server = Server::start();
    let body = json!({ "kind": "agent", "name": "Claude" }).to_string();
    let headers =
        [("X-User-Id", "alice"), ("X-User-Name", "Alice%20Martin"), ("Content-Type", "application/json")];
    let taken = server.client().request("POST", path, &headers, body.as_bytes()).expect(200);
    assert_eq!(taken["lock"]["agent"], shown);
    let history = server.user("bob").get("/api/v1/workspaces/w/history").expect(200);
    assert_eq!(
        (&history["events"][0]["by_name"], &history["events"][0]["kind"]),
        (&json!("Claude"), &json!("agent"))
    );
}

#[test]
fn a_token_of_an_agent_takes_no_other_kind_forces_nothing_and_administers_nothing() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = lockhouse::domain::access::Membership::Enforced;
    });
    let mut admin = server.with_token(Scope::Admin, None);
    admin.call("PUT", "/api/v1/workspaces/w", None).expect(200);
    for (user, role) in [("alice", "admin"), ("bob", "editor")] {
        admin
            .call("PUT", &format!("/api/v1/workspaces/w/members/{user}"), Some(&json!({ "role": role })))
            .expect(200);
    }
    let mut agent = agent_of(&server, "alice");
    for kind in [json!({}), json!({ "kind": "edit" }), json!({ "kind": "run", "session_id": "s" })] {
        agent.acquire("w", &kind).refused(403, "forbidden");
    }
    agent.post("/api/v1/workspaces/w/lock/knock", &json!({ "kind": "run" })).refused(403, "forbidden");
    assert_eq!(agent.post("/lfs/repo/locks", &json!({ "path": "a" })).status, 403);

    let mut bob = server.with_token(Scope::User, Some("bob"));
    let fence = bob.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    let mut force = asks("s");
    force["force"] = json!(true);
    agent.acquire("w", &force).refused(403, "takeover_forbidden");
    force["expected_fence"] = fence;
    agent.acquire("w", &force).refused(403, "takeover_forbidden");
    assert_eq!(agent.acquire("w", &asks("s")).refused(409, "lock_held")["takeover_allowed"], false);
    agent.release("w", &json!({ "force": true })).refused(403, "not_holder");
    agent
        .call("PUT", "/api/v1/workspaces/w/members/eve", Some(&json!({ "role": "admin" })))
        .refused(403, "forbidden");
    agent.delete("/api/v1/workspaces/w/members/bob").refused(403, "forbidden");
    agent.delete("/api/v1/users/alice/locks?kind=edit&kind=agent").refused(403, "forbidden");
    agent.post("/api/v1/tokens", &json!({ "user_id": "alice" })).refused(403, "forbidden");
    assert_eq!(bob.lock("w")["locked_by_user_id"], "bob");
}

#[test]
fn only_a_token_that_acts_as_its_user_can_be_an_agents() {
    let server = with_tokens();
    let mut admin = server.with_token(Scope::Admin, None);
    for bad in [
        json!({ "scope": "admin", "agent": true }),
        json!({ "scope": "service", "user_id": "a", "agent": true }),
    ] {
        assert_eq!(admin.post("/api/v1/tokens", &bad).refused(400, "invalid_request")["field"], "agent");
    }
    let mut service = server.with_token(Scope::Service, None);
    service.post("/api/v1/tokens", &json!({ "user_id": "alice", "agent": true })).expect(201);
    let listed = admin.get("/api/v1/tokens").expect(200);
    let agents = listed["tokens"].as_array().unwrap().iter().filter(|token| token["agent"] == true);
    assert_eq!(agents.count(), 1);
}

#[test]
fn the_command_line_makes_tokens_of_agents() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let create = |arguments: &[&str]| {
        let mut command = lockhouse();
        command.args(["token", "create", "--database"]).arg(&database).args(arguments);
        command.output().unwrap()
    };
    let made = create(&["--agent", "--user", "alice", "--name", "Claude"]);
    assert!(made.status.success(), "{made:?}");
    assert!(!create(&["--agent"]).status.success(), "an agent acts for a user");
    assert!(!create(&["--agent", "--scope", "admin", "--user", "alice"]).status.success());
    let listed = lockhouse().args(["token", "list", "--database"]).arg(&database).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("name=\"Claude\"  agent  "), "{listed:?}");
}

#[test]
fn an_agent_is_never_a_session_of_its_user() {
    let server = with_tokens();
    let mut agent = agent_of(&server, "alice");
    let mut alice = server.with_token(Scope::User, Some("alice"));
    let lock = alice.acquire("w", &json!({ "session_id": "tab" })).expect(200)["lock"].clone();
    assert_eq!(agent.acquire("w", &asks("tab")).refused(409, "lock_held")["same_user"], true);
    for claim in [json!({}), json!({ "session_id": "tab" }), json!({ "fence": lock["fence"] })] {
        agent.heartbeat("w", &claim).refused(403, "not_holder");
        agent.release("w", &claim).refused(403, "not_holder");
        agent
            .post("/api/v1/workspaces/w/lock/handover", &json!({ "to_user_id": "bob" }))
            .refused(403, "not_holder");
    }
    let gate = format!("/api/v1/gate?workspace_id=w&fence={}", lock["fence"]);
    agent.get(&gate).refused(403, "not_holder");
    assert_eq!(alice.get(&gate).status, 204);
    let batch = json!({ "locks": [{ "workspace_id": "w", "fence": lock["fence"] }] });
    assert_eq!(agent.post("/api/v1/locks/heartbeat", &batch).expect(200)["results"][0]["status"], 403);
    assert_eq!(alice.lock("w")["expires_at"], lock["expires_at"]);
}

#[test]
fn an_agent_yields_to_a_person_and_learns_who_and_why() {
    let server = Server::start();
    let mut events = follow(&server, "claude", "?workspace_id=w");
    let mut agent = server.user("alice");
    let fence = agent.acquire("w", &asks("s")).expect(200)["lock"]["fence"].clone();
    let person = json!({ "name": "Bob" });
    let taken = server.user("bob").acquire("w", &person).expect(200);
    assert_eq!((&taken["outcome"], &taken["previous"]["fence"]), (&json!("taken_over"), &fence));
    assert!(taken["lock"]["fence"].as_i64() > fence.as_i64());

    let lost = json!({ "reason": "taken_over", "fence": fence, "at": "2026-11-23T12:00:00.000Z",
        "by_user_id": "bob", "by_name": "Bob", "yielded": true });
    let gate = format!("/api/v1/gate?workspace_id=w&fence={fence}");
    for refused in [agent.heartbeat("w", &json!({ "fence": fence })), agent.get(&gate)] {
        let refused = refused.refused(403, "not_holder");
        assert_eq!((&refused["lost"], &refused["lock"]["locked_by_user_id"]), (&lost, &json!("bob")));
    }
    let server_events = [told(&mut events), told(&mut events)];
    assert_eq!(server_events[1]["type"], "lock.taken_over");
    assert_eq!(server_events[1]["detail"]["yielded"], true);
    assert_eq!((&server_events[1]["kind"], &server_events[1]["by_name"]), (&json!("agent"), &json!("Bob")));
    assert_eq!(server_events[1]["lock"]["locked_by_user_id"], "bob");

    let server = with_tokens();
    let mut agent = agent_of(&server, "alice");
    let fence = agent.acquire("w", &asks("s")).expect(200)["lock"]["fence"].clone();
    let mut alice = server.with_token(Scope::User, Some("alice"));
    alice.acquire("w", &json!({})).expect(200);
    alice.release("w", &json!({})).expect(200);
    server.with_token(Scope::User, Some("bob")).acquire("w", &json!({})).expect(200);
    let refused = agent.heartbeat("w", &json!({ "fence": fence })).refused(403, "not_holder");
    let by_alice =
        |lost: &Value| (lost["reason"].clone(), lost["yielded"].clone(), lost["by_user_id"].clone());
    let expected = (lost["reason"].clone(), json!(true), json!("alice"));
    assert_eq!(by_alice(&refused["lost"]), expected, "its own lease, not its user's");
    let gate = format!("/api/v1/gate?workspace_id=w&fence={fence}");
    assert_eq!(by_alice(&agent.get(&gate).refused(403, "not_holder")["lost"]), expected);
}

#[test]
fn with_agents_yield_false_agents_hold_as_people_do() {
    let server = Server::with(|config| config.locks.agents_yield = false);
    server.user("alice").acquire("w", &asks("s")).expect(200);
    assert_eq!(server.user("alice").acquire("w", &json!({})).refused(409, "lock_held")["same_user"], true);
    let held = server.user("bob").acquire("w", &json!({})).refused(409, "lock_held");
    assert_eq!(held["takeover_allowed"], true);
    let taken = server.user("bob").acquire("w", &json!({ "force": true })).expect(200);
    assert_eq!(taken["outcome"], "taken_over");
    let history = server.user("bob").get("/api/v1/workspaces/w/history").expect(200);
    assert_eq!(history["events"][0]["detail"].get("yielded"), None);
}

#[test]
fn processes_do_not_take_over_from_agents() {
    let server = Server::start();
    server.user("alice").acquire("w", &asks("s")).expect(200);
    server.user("bob").acquire("w", &json!({ "kind": "run", "session_id": "r" })).refused(409, "lock_held");
    server.user("bob").acquire("w", &asks("t")).refused(409, "lock_held");
}

/// The users in the line, in the order in which they get the lock.
fn line(server: &Server) -> Vec<Value> {
    let presence = server.user("looks").get("/api/v1/workspaces/w/presence").expect(200);
    presence["waiting"].as_array().unwrap().clone()
}

/// Starts a request that waits, and waits until it is in the line, which has this length then.
fn waits(server: &Server, user: &str, mut body: Value, length: usize) -> std::thread::JoinHandle<Value> {
    body["wait_ms"] = json!(60_000);
    let mut client = server.user(user);
    let waiting = std::thread::spawn(move || client.acquire("w", &body).expect(200));
    eventually(|| line(server).len() == length);
    waiting
}

#[test]
fn people_go_before_agents_in_the_line_each_in_order() {
    let server = Server::start();
    let mut holder = server.user("holder");
    holder.acquire("w", &json!({})).expect(200);
    let mut waiters = Vec::new();
    for (place, (user, body)) in
        [("a1", asks("1")), ("a2", asks("2")), ("p1", json!({})), ("p2", json!({}))].into_iter().enumerate()
    {
        waiters.push((user, waits(&server, user, body, place + 1)));
    }
    let waiting = line(&server);
    assert_eq!(
        waiting.iter().map(|one| one["user_id"].as_str().unwrap()).collect::<Vec<_>>(),
        ["p1", "p2", "a1", "a2"]
    );
    assert_eq!((&waiting[0]["agent"], &waiting[2]["agent"]["for_user_id"]), (&Value::Null, &json!("a1")));
    holder.release("w", &json!({})).expect(200);
    for next in ["p1", "p2", "a1", "a2"] {
        let place = waiters.iter().position(|(user, _)| *user == next).unwrap();
        let lock = waiters.remove(place).1.join().unwrap()["lock"].clone();
        assert_eq!(lock["locked_by_user_id"], next);
        server.user(next).release("w", &json!({ "fence": lock["fence"] })).expect(200);
    }
}

#[test]
fn agents_in_line_do_not_keep_people_out() {
    let server = Server::with(|config| {
        config.limits.waiters_per_workspace = 1;
        config.limits.waiters_per_user = 1;
        config.limits.waiters = 1;
    });
    let mut holder = server.user("holder");
    holder.acquire("w", &json!({})).expect(200);
    let agent = waits(&server, "alice", asks("s"), 1);
    let mut second = asks("t");
    second["wait_ms"] = json!(60_000);
    server.user("carol").acquire("w", &second).refused(429, "rate_limited");
    let person = waits(&server, "alice", json!({}), 2);
    holder.release("w", &json!({})).expect(200);
    assert_eq!(person.join().unwrap()["lock"]["kind"], "edit");
    server.user("alice").release("w", &json!({})).expect(200);
    assert_eq!(agent.join().unwrap()["lock"]["kind"], "agent");
}

#[test]
fn an_agents_knock_takes_nothing_from_a_person_and_waits_behind_people() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let knock = "/api/v1/workspaces/w/lock/knock";
    alice.acquire("w", &json!({})).expect(200);
    let asked = json!({ "kind": "agent", "name": "Claude", "session_id": "s", "message": "May I?" });
    let shown = bob.post(knock, &asked).expect(202)["knock"].clone();
    assert_eq!((&shown["auto_grant_at"], &shown["kind"]), (&Value::Null, &json!("agent")));
    assert_eq!(shown["agent"], json!({ "name": "Claude", "for_user_id": "bob", "for_name": null }));
    server.pass(60_000);
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice", "it does not pass to an agent");

    // A person who knocks, even the agent's user, comes first, and gets the lock from a silent holder.
    let own = bob.post(knock, &json!({})).expect(202)["knock"].clone();
    assert_eq!(own["auto_grant_in_ms"], 30_000);
    assert_eq!(alice.lock("w")["knock"].get("kind"), None);
    alice.post("/api/v1/workspaces/w/lock/knock/decline", &json!({})).expect(200);
    bob.post(knock, &json!({})).refused(429, "knock_too_soon");
    assert_eq!(alice.lock("w")["knock"]["kind"], "agent", "the agent was not declined");
    let handed = alice.post("/api/v1/workspaces/w/lock/handover", &json!({})).expect(200)["lock"].clone();
    assert_eq!((&handed["kind"], &handed["agent"]["name"]), (&json!("agent"), &json!("Claude")));
}

#[test]
fn an_agent_that_is_given_the_lock_yields_to_a_person_in_line() {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let carol = waits(&server, "carol", json!({}), 1);
    let knock = json!({ "kind": "agent", "session_id": "s" });
    server.user("bob").post("/api/v1/workspaces/w/lock/knock", &knock).expect(202);
    alice.post("/api/v1/workspaces/w/lock/handover", &json!({})).expect(200);
    assert_eq!(carol.join().unwrap()["lock"]["locked_by_user_id"], "carol");
    let history: Vec<_> = alice.history("w").into_iter().map(|(event, _)| event).collect();
    assert_eq!(history, ["lock.taken_over", "lock.handed_over", "lock.knocked", "lock.acquired"]);
}

#[test]
fn an_agent_does_not_use_up_the_rate_limit_of_its_user() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.limits.requests_per_second = Some(1);
    });
    let mut agent = agent_of(&server, "alice");
    for _ in 0..10 {
        agent.get("/api/v1/whoami").expect(200);
    }
    agent.get("/api/v1/whoami").refused(429, "rate_limited");
    server.with_token(Scope::User, Some("alice")).get("/api/v1/whoami").expect(200);
}
