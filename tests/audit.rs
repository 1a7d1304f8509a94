//! The history of all workspaces, and whoami.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Client, Server};
use lockhouse::auth::Scope;
use lockhouse::config::{AuthMode, Config};
use lockhouse::domain::access::Membership;
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn with_tokens(membership: Membership) -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = membership;
    })
}

fn page(client: &mut Client, query: &str) -> Value {
    client.get(&format!("/api/v1/history{query}")).expect(200)
}

/// Type and workspace of each event.
fn told(page: &Value) -> Vec<(String, String)> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| (text(event, "type"), text(event, "workspace_id"))).collect()
}

fn workspaces(page: &Value) -> Vec<String> {
    told(page).into_iter().map(|(_, workspace)| workspace).collect()
}

fn put(app: &mut Client, workspace: &str, members: &[(&str, &str)]) {
    app.call("PUT", &format!("/api/v1/workspaces/{workspace}"), None).expect(200);
    for (user, role) in members {
        let path = format!("/api/v1/workspaces/{workspace}/members/{user}");
        app.call("PUT", &path, Some(&json!({ "role": role }))).expect(200);
    }
}

#[test]
fn the_audit_log_is_filtered_by_user_type_and_time() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("w", &json!({})).expect(200);
    server.pass(1_000);
    bob.acquire("w", &json!({ "force": true, "reason": "urgent" })).expect(200);
    server.pass(1_000);
    alice.acquire("v", &json!({})).expect(200);
    server.pass(1_000);
    bob.release("w", &json!({})).expect(200);
    let pair = |kind: &str, workspace: &str| (kind.to_owned(), workspace.to_owned());
    let (first, taken) = (pair("lock.acquired", "w"), pair("lock.taken_over", "w"));
    let (other, released) = (pair("lock.acquired", "v"), pair("lock.released", "w"));
    let all = page(&mut alice, "");
    assert_eq!(told(&all), [released.clone(), other.clone(), taken.clone(), first.clone()]);
    assert_eq!(all["next_cursor"], Value::Null);
    assert_eq!(all["events"][2]["detail"]["reason"], "urgent");
    for (query, expected) in [
        ("?user_id=alice", vec![&other, &taken, &first]),
        ("?by_user_id=bob", vec![&released, &taken]),
        ("?user_id=alice&by_user_id=bob", vec![&taken]),
        ("?type=lock.released&type=lock.taken_over", vec![&released, &taken]),
        ("?type=lock.knocked", vec![]),
        ("?user_id=nobody", vec![]),
        // `from` is in, `until` is out.
        ("?from=2026-11-23T12:00:01Z&until=2026-11-23T12:00:03Z", vec![&other, &taken]),
        ("?from=2026-11-23T13:00:02.0000001%2B01:00", vec![&released]),
        ("?until=2026-11-23T12:00:00.0000001Z", vec![&first]),
        ("?until=2026-11-23T12:00:00Z&from=2026-11-23T12:00:00Z", vec![]),
        ("?until=2026-11-23T12:00:00Z&from=2026-11-23T12:00:03Z", vec![]),
    ] {
        let found = page(&mut alice, query);
        assert_eq!(told(&found).iter().collect::<Vec<_>>(), expected, "{query}");
        assert_eq!(found["next_cursor"], Value::Null, "{query}");
    }
}

#[test]
fn audit_log_queries_are_validated_strictly() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for (query, field) in [
        ("from=yesterday", "from"),
        ("from=2026-11-23", "from"),
        ("until=2026-11-23T12:00:00", "until"),
        // An offset whose plus sign has become a space.
        ("until=2026-11-23T12:00:00+01:00", "until"),
        ("from=2026-11-23T12:00:01Z&from=2026-11-23T12:00:01Z", "from"),
        ("type=lock.eaten", "type"),
        ("type=lock.acquired,lock.released", "type"),
        ("type=", "type"),
        ("user_id=", "user_id"),
        ("by_user_id=a%00", "by_user_id"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=-1", "cursor"),
        ("workspace_id=w", "workspace_id"),
    ] {
        let refused = alice.get(&format!("/api/v1/history?{query}")).refused(400, "invalid_request");
        assert_eq!(refused["field"], field, "{query}: {refused}");
    }
}

#[test]
fn audit_log_pages_have_no_gaps_or_repeats() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for number in 0..5 {
        alice.acquire(&format!("w{number}"), &json!({})).expect(200);
    }
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let next = page(&mut alice, &format!("?limit=2{cursor}"));
        found.extend(workspaces(&next));
        let Some(next) = next["next_cursor"].as_str() else { break };
        // New events are newer than all following pages.
        alice.acquire("later", &json!({})).expect(200);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, ["w4", "w3", "w2", "w1", "w0"]);
    let last = page(&mut alice, "?limit=2&user_id=alice&cursor=3");
    assert_eq!((workspaces(&last).len(), &last["next_cursor"]), (2, &Value::Null), "nothing follows");
}

#[test]
fn an_audit_log_page_reads_at_most_10_000_rows() {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    server.query(
        "WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < 25000)
         INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, reclaimed, kind, yielded)
         SELECT number, 'v', 'lock.knocked', 0, 0, 'bob', FALSE, 'edit', FALSE FROM numbers;
         UPDATE meta SET last_revision = 25000;",
    );
    let next = |page: &Value| page["next_cursor"].as_str().map(str::to_owned);
    let first = page(&mut alice, "?user_id=alice");
    assert_eq!((workspaces(&first).len(), next(&first).as_deref()), (0, Some("15001")));
    let second = page(&mut alice, "?user_id=alice&cursor=15001");
    assert_eq!((workspaces(&second).len(), next(&second).as_deref()), (0, Some("5001")));
    let third = page(&mut alice, "?user_id=alice&cursor=5001");
    assert_eq!((workspaces(&third), next(&third)), (vec!["w".to_owned()], None));
    // A page that ends exactly at the limit is the last one.
    assert_eq!(next(&page(&mut alice, "?user_id=nobody&cursor=10001")), None);
    assert_eq!(next(&page(&mut alice, "?user_id=nobody&cursor=10002")).as_deref(), Some("2"));
}

#[test]
fn the_audit_log_shows_only_workspaces_visible_now() {
    let server = with_tokens(Membership::Enforced);
    let mut app = server.with_token(Scope::Service, None);
    let mut admin = server.with_token(Scope::Admin, None);
    let mut monitor = server.with_token(Scope::Read, None);
    let user = |name: &str| server.with_token(Scope::User, Some(name));
    let (mut alice, mut bob, mut carol) = (user("alice"), user("bob"), user("carol"));
    put(&mut app, "hers", &[("alice", "editor"), ("carol", "viewer")]);
    put(&mut app, "theirs", &[("alice", "editor"), ("bob", "editor")]);
    put(&mut app, "gone", &[("alice", "editor"), ("bob", "editor")]);
    for workspace in ["hers", "theirs", "gone"] {
        alice.acquire(workspace, &json!({})).expect(200);
    }
    let sees = |client: &mut Client| {
        let mut seen = workspaces(&page(client, ""));
        seen.dedup();
        seen
    };
    assert_eq!(sees(&mut alice), ["gone", "theirs", "hers"]);
    assert_eq!(sees(&mut bob), ["gone", "theirs"]);
    assert_eq!(sees(&mut carol), ["hers"]);
    app.delete("/api/v1/workspaces/gone").expect(200);
    app.delete("/api/v1/workspaces/hers/members/alice").expect(200);
    // A former member sees no event of the workspace, not even their own.
    assert_eq!(sees(&mut alice), ["theirs"]);
    assert_eq!(workspaces(&page(&mut alice, "?user_id=alice")), ["theirs"]);
    assert_eq!(sees(&mut bob), ["theirs"]);
    assert_eq!(sees(&mut carol), ["hers"]);
    for looks_on in [&mut app, &mut monitor] {
        assert_eq!(sees(looks_on), ["hers", "theirs", "hers"], "a deleted workspace is for administrators");
    }
    assert_eq!(sees(&mut admin), ["hers", "gone", "theirs", "hers"].map(str::to_owned)[..].to_vec());
    let deleted = page(&mut admin, "?type=workspace.deleted");
    assert_eq!(workspaces(&deleted), ["gone"]);
    // A new workspace with the same id is another one: events of the former are for administrators.
    put(&mut app, "gone", &[("bob", "editor")]);
    assert_eq!(sees(&mut bob), ["theirs"]);
    bob.acquire("gone", &json!({})).expect(200);
    let pair = |kind: &str, workspace: &str| (kind.to_owned(), workspace.to_owned());
    let mine = [pair("lock.acquired", "gone"), pair("lock.acquired", "theirs")];
    assert_eq!(told(&page(&mut bob, "")), mine);
    let all = ["lock.acquired", "workspace.deleted", "lock.acquired"];
    for (client, types) in [(&mut bob, &all[..1]), (&mut app, &all[..1]), (&mut admin, &all)] {
        let history = client.history("gone");
        assert_eq!(history.iter().map(|(kind, _)| kind).collect::<Vec<_>>(), types);
    }
    server.client().get("/api/v1/history").refused(401, "unauthenticated");
    server.client().with_token("lh_unknown").get("/api/v1/history").refused(401, "unauthenticated");
}

#[test]
fn with_open_membership_only_deleted_workspaces_are_hidden() {
    let server = with_tokens(Membership::Open);
    let mut app = server.with_token(Scope::Service, None);
    let (mut alice, mut admin) =
        (server.with_token(Scope::User, Some("alice")), server.with_token(Scope::Admin, None));
    alice.acquire("unnamed", &json!({})).expect(200);
    alice.acquire("gone", &json!({})).expect(200);
    app.delete("/api/v1/workspaces/gone").expect(200);
    assert_eq!(workspaces(&page(&mut alice, "")), ["unnamed"]);
    assert_eq!(workspaces(&page(&mut admin, "")), ["gone", "gone", "unnamed"]);
    alice.acquire("gone", &json!({})).expect(200);
    assert_eq!(workspaces(&page(&mut alice, "")), ["gone", "unnamed"], "one of the same id is another one");
    assert_eq!(workspaces(&page(&mut admin, "")), ["gone", "gone", "gone", "unnamed"]);
    for (client, events) in [(&mut alice, 1), (&mut admin, 3)] {
        assert_eq!(client.history("gone").len(), events);
    }
}

#[test]
fn the_audit_log_shows_expiries_not_yet_swept() {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(5_000);
    let found = page(&mut alice, "?type=lock.expired");
    assert_eq!(told(&found), [("lock.expired".to_owned(), "w".to_owned())]);
    assert_eq!(found["events"][0]["at"], "2026-11-23T12:00:01.000Z");
}

fn whoami(client: &mut Client) -> Value {
    client.get("/api/v1/whoami").expect(200)
}

#[test]
fn in_mode_none_every_caller_is_an_administrator() {
    let server = Server::start();
    let is = |user_id: Value, name: Value| {
        json!({ "user_id": user_id, "name": name, "mode": "none", "scope": null, "agent": null,
                "is_admin": true, "expires_at": null })
    };
    assert_eq!(whoami(&mut server.client()), is(Value::Null, Value::Null));
    let named = [("X-User-Id", "zo%C3%AB"), ("X-User-Name", "Zo%C3%AB V")];
    let zoë = server.client().request("GET", "/api/v1/whoami", &named, b"").expect(200);
    assert_eq!(zoë, is(json!("zoë"), json!("Zoë V")));
    server.client().get("/api/v1/whoami?user_id=alice").refused(400, "invalid_request");
}

#[test]
fn whoami_shows_scope_and_expiry_of_a_token() {
    let server = with_tokens(Membership::Open);
    let mut admin = server.with_token(Scope::Admin, None);
    let asked = json!({ "user_id": "alice", "name": "Alice", "ttl_ms": 60_000 });
    let secret = admin.post("/api/v1/tokens", &asked).expect(201)["token"].as_str().unwrap().to_owned();
    assert_eq!(
        whoami(&mut server.client().with_token(&secret)),
        json!({ "user_id": "alice", "name": "Alice", "mode": "token", "scope": "user", "agent": null,
                "is_admin": false, "expires_at": "2026-11-23T12:01:00.000Z" })
    );
    let monitor = whoami(&mut server.with_token(Scope::Read, None));
    assert_eq!((&monitor["user_id"], &monitor["scope"]), (&Value::Null, &json!("read")));
    let secret = server.token(Scope::Service, None);
    let service = whoami(&mut server.user("bob").with_token(&secret));
    assert_eq!(
        (&service["user_id"], &service["scope"], &service["is_admin"]),
        (&json!("bob"), &json!("service"), &json!(false))
    );
    let root = whoami(&mut admin);
    assert!(root["user_id"].as_str().unwrap().starts_with("token:"), "{root}");
    assert_eq!((&root["is_admin"], &root["expires_at"]), (&json!(true), &Value::Null));
    server.pass(60_000);
    server.client().with_token(&secret[..40]).get("/api/v1/whoami").refused(401, "unauthenticated");
    server.client().get("/api/v1/whoami").refused(401, "unauthenticated");
}

fn with_jwt(config: &mut Config) {
    config.auth.mode = AuthMode::Jwt;
    config.auth.jwt_secret = vec![SECRET.into()];
    config.auth.jwt_leeway = std::time::Duration::from_secs(30);
    config.auth.admins = vec!["root".to_owned()];
}

#[test]
fn whoami_shows_expiry_and_admin_right_of_a_jwt() {
    let server = Server::with(with_jwt);
    let with = |claims: &Value| whoami(&mut server.client().with_token(&common::jwt::hs256(claims, SECRET)));
    let end = common::NOON.0 / 1_000 + 60;
    assert_eq!(
        with(&json!({ "sub": "alice", "name": "Alice", "exp": end })),
        json!({ "user_id": "alice", "name": "Alice", "mode": "jwt", "scope": null, "agent": null,
                "is_admin": false, "expires_at": "2026-11-23T12:01:00.000Z" }),
        "its own end, without the leeway"
    );
    let root = with(&json!({ "sub": "root", "exp": 1e300 }));
    assert_eq!((&root["is_admin"], &root["expires_at"]), (&json!(true), &Value::Null));
}

#[test]
fn whoami_shows_no_expiry_in_proxy_mode() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Proxy;
        config.auth.proxy_addresses = vec!["127.0.0.1".parse().unwrap()];
    });
    let named = [("Remote-User", "alice"), ("Remote-Name", "Alice")];
    assert_eq!(
        server.client().request("GET", "/api/v1/whoami", &named, b"").expect(200),
        json!({ "user_id": "alice", "name": "Alice", "mode": "proxy", "scope": null, "agent": null,
                "is_admin": false, "expires_at": null })
    );
}
