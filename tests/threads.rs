//! The thread that receives requests does no slow work: a heartbeat of a known caller waits for no read, and for
//! no look-up of credentials.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Raw, Server};
use lockhouse::api::exchange::Response;
use lockhouse::api::operation::{Answer, Call, Right, Route, StoreAccess};
use lockhouse::api::problem::Problem;
use lockhouse::api::routes::ROUTES;
use lockhouse::api::workers::READERS;
use lockhouse::app::Service;
use lockhouse::auth::Scope;
use lockhouse::config::AuthMode;
use lockhouse::domain::access::Membership;
use serde_json::json;

/// Closed while the readers are to be kept busy.
static GATE: Mutex<()> = Mutex::new(());
/// How many of them are.
static BUSY: Mutex<u32> = Mutex::new(0);

fn slow(service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    service.count_locks()?;
    *BUSY.lock().unwrap() += 1;
    drop(GATE.lock());
    Ok(Answer::Now(Response::of(200, "text/plain", b"slow".to_vec())))
}

const SLOW: Route = Route::new("GET", "/slow", "slow", slow).allow(Right::Open, StoreAccess::Reads);

#[test]
fn heartbeats_do_not_wait_for_busy_readers() {
    let routes: &'static [Route] = Vec::leak([ROUTES, &[SLOW]].concat());
    let server = Server::with_routes(routes, |config| {
        config.auth.mode = AuthMode::Token;
        config.workspaces.membership = Membership::Enforced;
    });
    let mut app = server.with_token(Scope::Service, Some("app"));
    app.call("PUT", "/api/v1/workspaces/w", None).expect(200);
    app.call("PUT", "/api/v1/workspaces/w/members/alice", Some(&json!({ "role": "editor" }))).expect(200);
    let token = server.token(Scope::User, Some("alice"));
    let mut alice = server.client().with_token(&token);
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    let closed = GATE.lock().unwrap();
    let ask = |target: &str, body: &str| {
        let mut raw = Raw::connect(server.address());
        let length = body.len();
        raw.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        raw
    };
    let slow: Vec<_> = (0..READERS).map(|_| ask("/slow", "")).collect();
    common::eventually(|| *BUSY.lock().unwrap() == READERS);
    let ids: String = (0..100).map(|_| "workspace_id=w&").collect();
    let mut reads: Vec<_> = [
        (format!("/api/v1/events?{ids}"), ""),
        ("/api/v1/locks".to_owned(), "{}"),
        (format!("/api/v1/gate?workspace_id=w&fence={fence}"), ""),
        ("/api/v1/workspaces/w/lock".to_owned(), ""),
        ("/api/v1/workspaces/w/presence".to_owned(), ""),
        ("/api/v1/workspaces/w/history".to_owned(), ""),
        ("/api/v1/history".to_owned(), ""),
        ("/api/v1/openapi.json".to_owned(), ""),
        ("/".to_owned(), ""),
    ]
    .into_iter()
    .map(|(target, body)| (target.clone(), ask(&target, body)))
    .collect();
    for _ in 0..20 {
        alice
            .call("POST", "/api/v1/workspaces/w/lock/heartbeat", Some(&json!({ "fence": fence })))
            .expect(200);
    }
    // A caller who is not in memory, and one whose token was looked up too long ago.
    let mut other = server.with_token(Scope::User, Some("alice"));
    server.pass(1_000);
    for client in [&mut other, &mut alice] {
        client
            .call("POST", "/api/v1/workspaces/w/lock/heartbeat", Some(&json!({ "fence": fence })))
            .expect(200);
    }
    assert_eq!(server.client().get("/healthz").status, 200);
    for (target, raw) in &mut reads {
        assert!(!raw.has_something(Duration::from_millis(1)), "{target} is answered by another thread");
    }
    drop(closed);
    for (target, raw) in &mut reads {
        let head = raw.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 20"), "{target}: {head}");
    }
    drop(reads);
    // An event of a stream, and the writes of the sweeper.
    let mut raw = ask("/api/v1/events", "");
    raw.read_until("still here");
    alice.release("w", &json!({})).expect(200);
    raw.read_until("lock.released");
    let service = Arc::clone(server.running().service());
    std::thread::spawn(move || lockhouse::ops::sweeper::sweep_once(&service).unwrap()).join().unwrap();
    let (threads, connections) = server.running().service().readers();
    assert_eq!(threads, connections, "each thread that reads has a connection, and no other thread reads");
    drop(slow);
}
