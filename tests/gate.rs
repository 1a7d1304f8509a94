//! The gate, which a proxy asks before it lets a write pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::Server;
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use serde_json::json;

#[test]
fn the_gate_passes_only_the_current_holder() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let (mut alice, mut bob) =
        (server.with_token(Scope::User, Some("alice")), server.with_token(Scope::User, Some("bob")));
    let lock = alice.acquire("team%2Fdesign", &json!({ "ttl_ms": 60_000 })).expect(200)["lock"].clone();
    let fence = lock["fence"].to_string();
    let path = format!("/api/v1/gate?workspace_id=team%2Fdesign&fence={fence}");
    assert_eq!(alice.get(&path).status, 204);
    let headers = [("X-Lock-Workspace", "team/design"), ("X-Lock-Fence", fence.as_str())];
    assert_eq!(alice.request("GET", "/api/v1/gate", &headers, b"").status, 204);
    let encoded = [("X-Lock-Workspace", "team%2Fdesign"), ("X-Lock-Fence", fence.as_str())];
    assert_eq!(alice.request("GET", "/api/v1/gate", &encoded, b"").status, 204, "as in a path");
    bob.get(&path).refused(403, "not_holder");
    for bad in [
        "/api/v1/gate",
        "/api/v1/gate?workspace_id=team%2Fdesign",
        "/api/v1/gate?workspace_id=other&fence=1",
        &format!("/api/v1/gate?fence={fence}"),
        &format!("/api/v1/gate?workspace_id=team%2Fdesign&fence={}", lock["fence"].as_i64().unwrap() - 1),
    ] {
        alice.get(bad).refused(403, "not_holder");
    }
    // The query of the client does not override the headers of the proxy.
    let other = [("X-Lock-Workspace", "other")];
    alice.request("GET", &path, &other, b"").refused(403, "not_holder");
    alice.request("GET", &path, &[("X-Lock-Fence", "1")], b"").refused(403, "not_holder");
    assert_eq!(alice.request("GET", &path, &[("X-Lock-Fence", &fence)], b"").status, 204);
    alice.get(&format!("{path}x")).refused(403, "not_holder");
    for unreadable in ["other%ff", "%zz", "team/design%", "team/design%2", "", "%C3"] {
        alice.request("GET", &path, &[("X-Lock-Workspace", unreadable)], b"").refused(403, "not_holder");
    }
    let garbage = [("X-Lock-Workspace", "team/design"), ("X-Lock-Fence", "garbage")];
    alice.request("GET", "/api/v1/gate", &garbage, b"").refused(403, "not_holder");
    server.client().get(&path).refused(401, "unauthenticated");
    bob.acquire("team%2Fdesign", &json!({ "force": true })).expect(200);
    let closed = alice.get(&path).refused(403, "not_holder");
    assert_eq!(closed["lock"]["locked_by_user_id"], "bob");
    let lock = bob.lock("team%2Fdesign");
    let path = format!("/api/v1/gate?workspace_id=team%2Fdesign&fence={}", lock["fence"]);
    assert_eq!(bob.get(&path).status, 204);
    server.pass(600_000);
    bob.get(&path).refused(403, "not_holder");
}

#[test]
fn the_gate_refuses_malformed_requests() {
    let server = Server::with(|config| config.auth.mode = AuthMode::Token);
    let (service, alice) = (server.token(Scope::Service, None), server.token(Scope::User, Some("alice")));
    let lock = server.client().with_token(&alice).acquire("w", &json!({})).expect(200)["lock"].clone();
    let (fence, long) = (lock["fence"].to_string(), "9".repeat(40));
    let gate = |token: &str, query: &str, headers: &[(&str, &str)]| {
        let path = format!("/api/v1/gate{query}");
        server.client().with_token(token).request("GET", &path, headers, b"")
    };
    let good = format!("?workspace_id=w&fence={fence}");
    assert_eq!(gate(&alice, &good, &[]).status, 204);
    let doubled = [("X-Lock-Fence", fence.as_str()), ("X-Lock-Fence", "1")];
    gate(&alice, "?workspace_id=w", &doubled).refused(403, "not_holder");
    gate(&alice, &format!("?workspace_id=w&fence={long}"), &[]).refused(403, "not_holder");
    gate(&alice, &format!("?workspace_id={}&fence=1", "w".repeat(256)), &[]).refused(403, "not_holder");
    gate(&alice, &format!("{good}&more=1"), &[]).refused(403, "not_holder");
    let closed = gate(&service, &good, &[]).refused(403, "not_holder");
    assert!(closed["detail"].as_str().unwrap().contains("X-User-Id"), "{closed}");
    gate(&service, &good, &[("X-User-Id", "%ff")]).refused(403, "not_holder");
    assert_eq!(gate(&service, &good, &[("X-User-Id", "alice")]).status, 204);
    // What is said twice elsewhere is a mistake of the client.
    let origins = [("Origin", "http://localhost"), ("Origin", "https://evil.example")];
    server
        .client()
        .with_token(&alice)
        .request("GET", "/api/v1/locks", &origins, b"")
        .refused(400, "invalid_request");
}
