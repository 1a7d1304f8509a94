//! The check of the invariants finds and repairs violations.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Client, Server};
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::Membership;
use serde_json::json;

fn enforced() -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
    })
}

fn user(server: &Server, name: &str) -> Client {
    server.with_token(Scope::User, Some(name))
}

/// A workspace where Alice may lock.
fn workspace(app: &mut Client, id: &str) {
    app.call("PUT", &format!("/api/v1/workspaces/{id}"), Some(&json!({ "name": "Plans" }))).expect(200);
    let member = format!("/api/v1/workspaces/{id}/members/alice");
    app.call("PUT", &member, Some(&json!({ "role": "editor" }))).expect(200);
}

#[test]
fn violated_invariants_are_found_and_repaired() {
    let server = enforced();
    let mut app = server.with_token(Scope::Service, None);
    let mut admin = server.with_token(Scope::Admin, Some("root"));
    let check = |admin: &mut Client| admin.call("POST", "/api/v1/invariants/check", None).expect(200);
    for id in ["gone", "no-member", "viewer", "expired", "fence", "fine"] {
        workspace(&mut app, id);
        user(&server, "alice").acquire(id, &json!({ "ttl_ms": 600_000 })).expect(200);
    }
    assert_eq!(check(&mut admin), json!({ "violations": [], "repaired": 0 }));
    let fence: i64 = server.query("SELECT fence FROM locks WHERE workspace_id = 'fence'").parse().unwrap();
    server.query(&format!(
        "DELETE FROM workspaces WHERE workspace_id = 'gone'; DELETE FROM members WHERE workspace_id IN ('gone', 'no-member');
         UPDATE members SET role = 'viewer' WHERE workspace_id = 'viewer';
         UPDATE locks SET fence = {} WHERE workspace_id = 'fence';
         UPDATE locks SET expires_at = 1 WHERE workspace_id = 'expired';",
        fence + 1_000_000_000
    ));
    let mut expected = vec![
        "expired_lock expired",
        "fence_above_counter fence",
        "holder_is_no_member no-member",
        "holder_is_no_member viewer",
        "no_such_workspace gone",
    ];
    // PostgreSQL has no such counter: it would make all writes wait for each other.
    if !server.is_on_postgres() {
        server.query("UPDATE meta SET lock_count = 77");
        expected.push("wrong_lock_count ");
    }
    let found = check(&mut admin);
    let mut kinds: Vec<_> = found["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| {
            let workspace_id = violation["workspace_id"].as_str().unwrap_or_default();
            format!("{} {workspace_id}", violation["kind"].as_str().unwrap())
        })
        .collect();
    kinds.sort();
    assert_eq!(kinds, expected);
    assert_eq!(found["repaired"], expected.len());
    assert!(admin.get("/metrics").text().contains("lockhouse_live_locks 2\n"));
    assert_eq!(check(&mut admin), json!({ "violations": [], "repaired": 0 }));
    let locks = admin.get("/api/v1/locks").expect(200)["locks"].clone();
    let ids: Vec<_> =
        locks.as_array().unwrap().iter().map(|lock| lock["workspace_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["fence", "fine"]);
    workspace(&mut app, "new");
    let next =
        user(&server, "alice").acquire("new", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert!(next > fence + 1_000_000_000, "no fence is given out twice");
    // The greatest possible fence was never given out: that lease ends, and the counter stays.
    server.query("UPDATE locks SET fence = 9007199254740991 WHERE workspace_id = 'fence'");
    assert_eq!(check(&mut admin)["violations"][0]["kind"], "fence_above_counter");
    assert_eq!(check(&mut admin), json!({ "violations": [], "repaired": 0 }));
    let mut alice = user(&server, "alice");
    workspace(&mut app, "newer");
    let [first, second] = ["fence", "newer"]
        .map(|id| alice.acquire(id, &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap());
    // Servers on one PostgreSQL give every sixteenth fence each.
    assert!(next < first && first < second && second <= next + 32, "{next} {first} {second}");
    // A counter that cannot go on gives no fence twice.
    server.query(if server.is_on_postgres() {
        "UPDATE nodes SET highest_fence = 8999999999999999"
    } else {
        "UPDATE meta SET last_fence = 8999999999999999"
    });
    alice.heartbeat("fence", &json!({})).expect(200);
    alice.release("newer", &json!({})).expect(200);
    assert_eq!(alice.acquire("newer", &json!({})).expect(200)["lock"]["fence"], 9_000_000_000_000_000_i64);
    alice.release("newer", &json!({})).expect(200);
    alice.acquire("newer", &json!({})).refused(500, "internal");
    // Where membership is open, only what is wrong for everybody is.
    let open = Server::start();
    open.user("alice").acquire("w", &json!({})).expect(200);
    assert_eq!(check(&mut open.user("root")), json!({ "violations": [], "repaired": 0 }));
}
