//! The OpenAPI document matches the server: every declared response occurs here, and every response
//! in any test is declared (see `common::contract`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::{Membership, Takeover};

use common::held::{self, Held};
use common::process::Process;
use common::{Answer, Client, Server, contract, eventually, postgres};
use lockhouse::api::dialect::Dialect;
use lockhouse::api::operation::{BodyKind, Right, Route, StoreAccess};
use lockhouse::api::routes::ROUTES;
use lockhouse::error::Error;
use serde_json::json;

/// A call of an operation that goes well wherever the store is well.
fn call(client: &mut Client, route: &Route, query: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let id = if route.name == "unlockFile" {
        let locks = client.get("/lfs/game/locks").json();
        locks["locks"][0]["id"].as_str().unwrap_or("7").to_owned()
    } else {
        String::new()
    };
    let workspace = if Dialect::of(route.path) == Dialect::Terraform { "state" } else { "w" };
    let path = route
        .path
        .replace("{workspace_id}", workspace)
        .replace("{user_id}", "alice")
        .replace("{token_id}", "t")
        .replace("{repository}", "game")
        .replace("{id}", &id);
    client.request(route.method, &format!("{path}{query}"), headers, body.as_bytes())
}

fn fine(client: &mut Client, route: &Route) -> Answer {
    let body = match route.name {
        "renewLocks" => r#"{"locks":[{"workspace_id":"w"}]}"#,
        "putWorkspace" => r#"{"name":"W"}"#,
        "putMember" => r#"{"role":"editor"}"#,
        "createToken" => r#"{"user_id":"bob"}"#,
        "handOverLock" => r#"{"to_user_id":"bob"}"#,
        "lockFile" => r#"{"path":"a"}"#,
        "lockState" | "lockStateByPut" | "lockStateByLock" => STATE_LOCK,
        _ => "",
    };
    let query = match route.name {
        "passGate" => "?workspace_id=w&fence=1",
        "passStateGate" => "?ID=one",
        _ => "",
    };
    let headers: &[(&str, &str)] =
        if body == STATE_LOCK { &[("Content-Type", "application/json")] } else { &[] };
    call(client, route, query, headers, body)
}

/// What Terraform sends.
const STATE_LOCK: &str = r#"{"ID":"one"}"#;

/// Locks a state of Terraform.
fn lock_a_state(client: &mut Client) {
    // A slow PostgreSQL may not answer within the short time that `busy` gives it.
    eventually(|| client.post("/terraform/state/lock", &json!({ "ID": "one" })).status == 200);
}

/// Locks a file by Git LFS, with a lease that is due for renewal.
fn lock_a_file(client: &mut Client, run: &dyn Fn(&str)) {
    eventually(|| [201, 409].contains(&client.post("/lfs/game/locks", &json!({ "path": "a" })).status));
    run("UPDATE locks SET ttl_ms = ttl_ms * 4 WHERE workspace_id = 'lfs/game:a'");
}

/// A call with an input that the operation does not take.
fn bad(client: &mut Client, route: &Route) -> Answer {
    let (query, body) = match (Dialect::of(route.path), route.body) {
        // Unknown parameters and fields are ignored.
        (Dialect::Lfs, BodyKind::None) => ("?limit=x", ""),
        (Dialect::Lfs, _) => ("", "{"),
        (Dialect::Lockhouse | Dialect::Terraform, _) => ("?what", ""),
    };
    call(client, route, query, &[], body)
}

fn writes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| matches!(route.store, StoreAccess::Writes | StoreAccess::ReadsThenWrites))
}

/// The responses that follow from the route table.
fn responses_of_all_routes() {
    let server = Server::start();
    let (mut alice, mut nobody) = (server.user("alice"), server.client());
    for route in ROUTES {
        if ["renewLock", "renewLocks", "passGate"].contains(&route.name) {
            alice.acquire("w", &json!({ "force": true })).expect(200);
        }
        if ["readWorkspace", "listMembers", "putMember"].contains(&route.name) {
            alice.call("PUT", "/api/v1/workspaces/w", None).expect(200);
        }
        if route.name == "passGate" {
            let fence = alice.lock("w")["fence"].to_string();
            let query = format!("?workspace_id=w&fence={fence}");
            call(&mut alice, route, &query, &[], "").expect_any(204);
            fine(&mut alice, route).refused(403, "not_holder");
            call(&mut alice, route, "?what", &[], "").refused(403, "not_holder");
            continue;
        }
        if route.name == "passStateGate" {
            lock_a_state(&mut alice);
            fine(&mut alice, route).expect_any(204);
            call(&mut alice, route, "", &[], "").refused(403, "not_holder");
            continue;
        }
        if route.name == "unlockFile" {
            lock_a_file(&mut alice, &|sql| drop(server.query(sql)));
        }
        // A stream needs a connection of its own, and users cannot knock on their own lock.
        let mut own = server.user(if route.name == "knock" { "bob" } else { "alice" });
        let other = ["followEvents", "knock"].contains(&route.name);
        fine(if other { &mut own } else { &mut alice }, route).expect_any(route.status);
        bad(&mut alice, route).refused(400, "invalid_request");
        if route.right != Right::Open {
            call(&mut alice, route, "", &[("Origin", "https://evil.example")], "").refused(403, "forbidden");
        }
        if route.right == Right::Lock {
            fine(&mut nobody, route).refused(401, "unauthenticated");
        }
        if !matches!(route.body, BodyKind::None) {
            let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(70_000));
            // After that the connection is closed.
            call(&mut server.user("alice"), route, "", &[], &large).refused(413, "body_too_large");
            call(&mut alice, route, "", &[("Content-Type", "text/html")], "{}")
                .refused(415, "unsupported_media_type");
        }
    }
}

/// Refusals for missing credentials and missing rights.
fn missing_rights() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
    });
    let mut service = server.with_token(Scope::Service, None);
    let mut stranger = server.with_token(Scope::User, Some("stranger"));
    let mut nobody = server.client();
    let mut viewer = server.with_token(Scope::User, Some("viewer"));
    service.call("PUT", "/api/v1/workspaces/w", None).expect(200);
    service
        .call("PUT", "/api/v1/workspaces/w/members/viewer", Some(&json!({ "role": "viewer" })))
        .expect(200);
    let admins = json!({ "role": "admin" });
    service.call("PUT", "/api/v1/workspaces/w/members/boss", Some(&admins)).expect(200);
    let mut boss = server.with_token(Scope::User, Some("boss"));
    boss.acquire("w", &json!({})).expect(200);
    service.call("PUT", "/api/v1/workspaces/state", None).expect(200);
    service.call("PUT", "/api/v1/workspaces/state/members/boss", Some(&admins)).expect(200);
    service
        .call("PUT", "/api/v1/workspaces/state/members/viewer", Some(&json!({ "role": "viewer" })))
        .expect(200);
    lock_a_state(&mut boss);
    boss.post("/api/v1/workspaces/w/lock/handover", &json!({ "to_user_id": "viewer" }))
        .refused(403, "not_a_member");
    for route in ROUTES.iter().filter(|route| route.right != Right::Open) {
        let unknown = fine(&mut nobody, route);
        unknown.refused(401, "unauthenticated");
        let dialect = Dialect::of(route.path);
        let scheme = if dialect.takes_basic() { "Basic" } else { "Bearer" };
        let challenge = format!("{scheme} realm=\"lockhouse\"");
        let header = dialect.challenge_header().to_ascii_lowercase();
        assert_eq!(unknown.header(&header), Some(challenge.as_str()));
        let of_a_workspace = route.path.contains("{workspace_id}") && route.right != Right::Serve;
        if of_a_workspace && dialect == Dialect::Lockhouse {
            fine(&mut stranger, route).refused(404, "workspace_not_found");
        }
        if dialect != Dialect::Lockhouse && !route.is_gate() {
            fine(&mut stranger, route).refused(403, "not_a_member");
        }
        if route.name == "followEvents" {
            call(&mut stranger, route, "?workspace_id=w", &[], "").refused(404, "workspace_not_found");
        }
        if matches!(route.right, Right::Serve | Right::Administer | Right::Monitor) {
            fine(&mut stranger, route).refused(403, "forbidden");
        }
        if ["acquireLock", "knock"].contains(&route.name) {
            fine(&mut viewer, route).refused(403, "not_a_member");
        }
        if ["unlockState", "unlockStateByUnlock"].contains(&route.name) {
            fine(&mut viewer, route).refused(403, "takeover_forbidden");
        }
        if ["putMember", "removeMember"].contains(&route.name) {
            fine(&mut viewer, route).refused(403, "forbidden");
        }
    }
}

/// Refusals by rate limits.
fn limited() {
    let server = Server::with(|config| config.limits.requests_per_second = Some(1));
    let mut alice = server.user("alice");
    for _ in 0..10 {
        alice.lock("w");
    }
    for route in ROUTES {
        let mut client = if route.right == Right::Open { server.client() } else { server.user("alice") };
        let mut answer = fine(&mut client, route);
        while route.right == Right::Open && answer.status == 200 {
            answer = fine(&mut client, route);
        }
        answer.refused(429, "rate_limited");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    server.pass(1_000);
    alice.lock("w");
}

/// The refusals that are about locks.
fn conflicts() {
    let server = Server::with(|config| {
        config.locks.takeover = Takeover::Nobody;
        config.limits.waiters = 1;
    });
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.heartbeat("w", &json!({})).refused(404, "lock_not_found");
    alice.acquire("w", &json!({})).expect(200);
    bob.acquire("w", &json!({})).refused(409, "lock_held");
    bob.acquire("w", &json!({ "force": true })).refused(403, "takeover_forbidden");
    bob.heartbeat("w", &json!({})).refused(403, "not_holder");
    bob.release("w", &json!({})).refused(403, "not_holder");
    for answer in ["handover", "knock/decline"] {
        let path = |workspace| format!("/api/v1/workspaces/{workspace}/lock/{answer}");
        bob.post(&path("w"), &json!({})).refused(403, "not_holder");
        bob.post(&path("free"), &json!({})).refused(404, "lock_not_found");
    }
    let knock = |workspace| format!("/api/v1/workspaces/{workspace}/lock/knock");
    alice.post(&knock("w"), &json!({})).refused(409, "knock_on_own_lock");
    bob.post(&knock("free"), &json!({})).refused(404, "lock_not_found");
    bob.post(&knock("w"), &json!({})).expect(202);
    alice.post("/api/v1/workspaces/w/lock/knock/decline", &json!({})).expect(200);
    bob.post(&knock("w"), &json!({})).refused(429, "knock_too_soon");
    let mut waits = server.client();
    waits.send(b"POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nX-User-Id: eve\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"wait_ms\": 1000}");
    eventually(|| server.client().get("/metrics").text().contains("lockhouse_waiters 1\n"));
    bob.acquire("w", &json!({ "wait_ms": 1_000 })).refused(429, "rate_limited");
    bob.delete("/api/v1/workspaces/w/lock").refused(403, "not_holder");
    alice.post("/lfs/game/locks", &json!({ "path": "a" })).expect(201);
    bob.post("/lfs/game/locks", &json!({ "path": "a" })).expect(409);
    bob.post("/lfs/game/locks", &json!({ "path": ".." })).expect(422);
    bob.get("/lfs/a:b/locks").expect(422);
    bob.post("/lfs/a:b/locks/verify", &json!({})).expect(422);
    bob.post("/lfs/a:b/locks/7/unlock", &json!({})).expect(422);
    bob.post("/lfs/game/locks/7/unlock", &json!({})).expect(404);
    lock_a_state(&mut alice);
    let [one, two] = ["one", "two"].map(|id| json!({ "ID": id }));
    for (method, path) in [("POST", "state/lock"), ("PUT", "state/lock"), ("LOCK", "state")] {
        bob.call(method, &format!("/terraform/{path}"), Some(&one)).expect(423);
    }
    for (method, path) in [("DELETE", "state/lock"), ("UNLOCK", "state")] {
        bob.call(method, &format!("/terraform/{path}"), Some(&two)).expect(409);
    }
}

/// Gives each operation something to write.
fn something_to_write(alice: &mut Client, run: &dyn Fn(&str)) {
    eventually(|| alice.acquire("w", &json!({})).status == 200);
    lock_a_state(alice);
    // Changed in the database, because the timer would settle it first.
    run("UPDATE locks SET expires_at = 1");
    let hash = if postgres::is_asked_for() { "decode(repeat('00', 32), 'hex')" } else { "zeroblob(32)" };
    run(&format!(
        "INSERT INTO workspaces VALUES ('w', NULL, 0) ON CONFLICT DO NOTHING;
         INSERT INTO members VALUES ('w', 'alice', 'viewer') ON CONFLICT DO NOTHING;
         INSERT INTO tokens (token_id, hash, scope, created_at, agent) VALUES ('t', {hash}, 'read', 0, FALSE) ON CONFLICT DO NOTHING"
    ));
    lock_a_file(alice, run);
}

/// Another process holds the database.
fn busy() {
    let server = Server::with(|config| config.database.busy_timeout = Duration::from_millis(5));
    let mut alice = server.user("alice");
    let ready = ROUTES.iter().find(|route| route.name == "isReady").unwrap();
    // A node of PostgreSQL does not try a write to tell whether it is ready.
    for route in writes().filter(|route| !postgres::is_asked_for() || route.name != ready.name) {
        something_to_write(&mut alice, &|sql| drop(server.query(sql)));
        server.pass(2_000);
        let _held = Held::on(&server);
        let answer = fine(&mut alice, route);
        answer.refused(503, "busy");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    if postgres::is_asked_for() {
        held::cut_off(&server);
        eventually(|| fine(&mut alice, ready).status == 503);
    }
}

/// There is no room on the disk. SQLite: the system lets the server's files grow no further.
fn full() {
    if postgres::is_asked_for() {
        let server = Server::start();
        let fill = |is_full| if is_full { held::fill_disk(&server) } else { held::free_disk(&server) };
        return full_disk(&mut server.user("alice"), &|sql| drop(server.query(sql)), &fill);
    }
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("lockhouse.db");
    let server = Process::serve(&database);
    let fill = |is_full| {
        let bytes = if is_full { "1" } else { "unlimited" };
        let (pid, size) = (server.id().to_string(), format!("--fsize={bytes}:unlimited"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &size]).status().unwrap().success());
    };
    let run = |sql: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    full_disk(&mut server.user("alice"), &run, &fill);
}

fn full_disk(alice: &mut Client, run: &dyn Fn(&str), fill: &dyn Fn(bool)) {
    for route in writes() {
        something_to_write(alice, run);
        fill(true);
        fine(alice, route).refused(507, "storage_full");
        fill(false);
    }
}

/// Handlers fail with an internal error.
fn broken() {
    let routes: Vec<Route> = ROUTES
        .iter()
        .map(|route| Route { handler: |_, _| Err(Error::Internal("lost".to_owned()).into()), ..*route })
        .collect();
    let routes: &[Route] = Vec::leak(routes);
    let server = Server::with_routes(routes, |_| {});
    let mut alice = server.user("alice");
    for route in routes {
        let problem = fine(&mut alice, route).refused(500, "internal");
        assert!(
            !problem.to_string().contains("lost"),
            "the cause is in the log, not in the answer: {problem}"
        );
    }
}

trait Expect {
    fn expect_any(&self, status: u16);
}

impl Expect for Answer {
    #[track_caller]
    fn expect_any(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text());
    }
}

#[test]
fn every_declared_response_occurs() {
    responses_of_all_routes();
    missing_rights();
    limited();
    conflicts();
    busy();
    full();
    broken();
    let met = contract::MET.lock().unwrap();
    let unmet: BTreeSet<_> = contract::declared().difference(&met).cloned().collect();
    assert!(unmet.is_empty(), "declared and never met: {unmet:?}");
}

#[test]
fn the_server_serves_the_openapi_document() {
    let server = Server::start();
    let document = server.client().get("/api/v1/openapi.json").expect(200);
    assert_eq!(document, lockhouse::api::openapi::document(ROUTES, AuthMode::None));
    assert_eq!(document["openapi"], "3.1.0");
    let locked = Server::with(|config| config.auth.mode = AuthMode::Token);
    let shown = locked.client().get("/api/v1/openapi.json").expect(200);
    assert_eq!(shown["paths"]["/api/v1/locks"]["get"]["security"], json!([{ "token": [] }]));
    // Users of the proxy send no token.
    let behind = lockhouse::api::openapi::document(ROUTES, AuthMode::Proxy);
    assert_eq!(behind["paths"]["/api/v1/locks"]["get"]["security"], json!([{}, { "token": [] }]));
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(operations, ROUTES.iter().filter(|route| route.has_openapi_method()).count());
}

#[test]
fn every_schema_reference_resolves() {
    let document = lockhouse::api::openapi::document(ROUTES, AuthMode::None);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let mut used = BTreeSet::new();
    for rest in text.split("#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
        used.insert(name);
    }
    let unused: Vec<_> = schemas.keys().filter(|name| !used.contains(name.as_str())).collect();
    assert_eq!(unused, Vec::<&String>::new());
}
