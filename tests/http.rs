//! HTTP around the API: refusals, headers, metrics.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::Server;
use serde_json::{Value, json};

const LOCK: &str = "/api/v1/workspaces/w/lock";

#[test]
fn unknown_and_invalid_fields_are_refused_by_name() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for (method, path, body, field) in [
        ("POST", LOCK, r#"{"tll_ms":1}"#, "tll_ms"),
        ("POST", "/api/v1/workspaces/w/lock?forec=true", "", "forec"),
        ("POST", "/api/v1/workspaces/w/lock?force=1", "", "force"),
        ("POST", "/api/v1/workspaces/w/lock?force=true", r#"{"force":false}"#, "force"),
        ("GET", "/api/v1/workspaces/w/lock?x=1", "", "x"),
        ("GET", "/api/v1/locks?limit=0", "", "limit"),
        ("GET", "/api/v1/locks?limit=501", "", "limit"),
        ("GET", "/api/v1/locks?limit=5&limit=6", "", "limit"),
        ("GET", "/api/v1/workspaces/w/history?cursor=abc", "", "cursor"),
        ("POST", LOCK, r#"{"session_id":""}"#, "session_id"),
        ("POST", LOCK, r#"{"session_id":7}"#, "session_id"),
        ("POST", LOCK, r#"{"ttl_ms":0}"#, "ttl_ms"),
        ("POST", LOCK, r#"{"ttl_ms":-1}"#, "ttl_ms"),
        ("POST", LOCK, r#"{"metadata":[]}"#, "metadata"),
        ("POST", LOCK, r#"{"name":"a\nb"}"#, "name"),
        ("POST", LOCK, r#"{"ttl_ms":1000,"ttl_ms":60000}"#, "ttl_ms"),
        ("DELETE", LOCK, r#"{"access_token":"alice"}"#, "access_token"),
        ("GET", "/api/v1/locks?user_id=%ff", "", "user_id"),
        ("POST", LOCK, "[]", "body"),
        ("POST", LOCK, "{", "body"),
        ("POST", LOCK, "\u{1}", "body"),
        ("POST", "/api/v1/workspaces/%00/lock", "", "workspace_id"),
        ("GET", LOCK, "[]", "body"),
        ("DELETE", "/api/v1/workspaces/w", r#"{"force":true}"#, "force"),
        ("GET", "/api/v1/workspaces/%zz/lock", "", "workspace_id"),
        ("POST", "/api/v1/workspaces/%ff/lock", "", "workspace_id"),
        ("DELETE", "/api/v1/users/%c3/locks", "", "user_id"),
        ("GET", "/healthz?x", "", "x"),
    ] {
        let problem = alice
            .request(method, path, &[("Content-Type", "application/json")], body.as_bytes())
            .refused(400, "invalid_request");
        assert_eq!(problem["field"], field, "{method} {path} {body}");
    }
    let long = format!("/api/v1/workspaces/{}/lock", "w".repeat(256));
    assert_eq!(alice.get(&long).refused(400, "invalid_request")["field"], "workspace_id");
    assert!(alice.get(&long).json()["detail"].as_str().unwrap().contains("1 to 255 bytes; this has 256"));
    assert_eq!(alice.lock("w"), Value::Null, "nothing of it was done");
    for (body, sentence) in [
        ("[1]", "body must be a JSON object."),
        ("{\"a\" 1}", "body cannot be read: expected `:` at line 1 column 6."),
        ("{\"note\":\"\",\"note\":\"\"}", "note is given twice."),
    ] {
        let refused = alice.request("POST", LOCK, &[], body.as_bytes()).refused(400, "invalid_request");
        assert_eq!(refused["detail"], sentence);
    }
    // An operation without fields accepts an empty body.
    alice
        .request("POST", "/api/v1/invariants/check", &[("Content-Type", "application/json")], b"{}")
        .expect(200);
}

#[test]
fn bodies_must_be_json_of_limited_size() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for media in ["application/x-www-form-urlencoded", "text/plain", "application/json-seq", ""] {
        alice.request("POST", LOCK, &[("Content-Type", media)], b"{}").refused(415, "unsupported_media_type");
    }
    for media in ["application/json", "Application/JSON; charset=utf-8"] {
        alice.request("POST", LOCK, &[("Content-Type", media)], b"{}").expect(200);
    }
    alice.request("POST", LOCK, &[], b"{}").expect(200);
    let large = format!(r#"{{"note":"{}"}}"#, "n".repeat(65_536));
    alice.request("POST", LOCK, &[], large.as_bytes()).refused(413, "body_too_large");
    assert!(alice.receive("POST").is_err(), "the connection is closed");
    let mut alice = server.user("alice");
    assert_eq!(alice.lock("w")["locked_by_user_id"], "alice");
    // More than tiny_http reads at once, and below the limit.
    let note = "n".repeat(500);
    let body = json!({ "note": note, "metadata": { "blob": "m".repeat(4_000) } });
    assert_eq!(alice.acquire("w", &body).expect(200)["lock"]["note"], note);
    alice.send(b"POST /api/v1/workspaces/w/lock HTTP/1.1\r\nHost: t\r\nX-User-Id: alice\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    alice.receive("POST").unwrap().refused(411, "length_required");
}

#[test]
fn anonymous_callers_can_read_but_not_lock() {
    let server = Server::start();
    let mut nobody = server.client();
    let answer = nobody.call("POST", LOCK, None);
    answer.refused(401, "unauthenticated");
    assert!(answer.header("www-authenticate").unwrap().starts_with("X-User-Id"));
    assert_eq!(nobody.lock("w"), Value::Null);
    let bad = nobody.request("POST", LOCK, &[("X-User-Id", "%ff")], b"").refused(400, "invalid_request");
    assert_eq!(bad["field"], "X-User-Id");
    let twice = [("X-User-Id", "alice"), ("X-User-Id", "bob")];
    let bad = nobody.request("POST", LOCK, &twice, b"").refused(400, "invalid_request");
    assert_eq!(bad["field"], "X-User-Id");
    let other = nobody.by("alice").request(
        "POST",
        "/api/v1/workspaces/w/lock/release",
        &[],
        br#"{"access_token":"bob"}"#,
    );
    assert_eq!(other.refused(400, "invalid_request")["field"], "access_token");
}

#[test]
fn unknown_paths_give_404_and_unknown_methods_405() {
    let server = Server::start();
    let mut client = server.client();
    for path in
        ["/index.html", "/api/v1", "/api/v2/locks", "/api/v1/locks/", "/api/v1/workspaces//lock", "//healthz"]
    {
        client.get(path).refused(404, "not_found");
    }
    let answer = client.call("PATCH", LOCK, None);
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST, GET, HEAD, DELETE, OPTIONS"));
    assert_eq!(client.call("OPTIONS", LOCK, None).header("allow"), Some("POST, GET, HEAD, DELETE, OPTIONS"));
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut client = server.client();
    for path in ["/healthz", "/metrics", "/api/v1/locks", "/api/v1/openapi.json", LOCK] {
        let head = client.call("HEAD", path, None);
        assert_eq!(head.status, 200, "{path}");
        assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 10);
        assert_eq!(client.get(path).status, 200);
    }
    assert_eq!(client.call("HEAD", "/nowhere", None).status, 404);
}

#[test]
fn valid_request_ids_are_kept_and_others_replaced() {
    let server = Server::start();
    let mut client = server.client();
    let mut id = |sent: &str| {
        client
            .request("GET", "/healthz", &[("X-Request-Id", sent)], b"")
            .header("x-request-id")
            .unwrap()
            .to_owned()
    };
    assert_eq!(id("7f3a-Trace_1.2:3"), "7f3a-Trace_1.2:3");
    for bad in ["", "a b", "<script>", &"x".repeat(129)] {
        assert_ne!(id(bad), bad);
    }
    assert_ne!(id(""), id(""), "each has its own");
}

#[test]
fn cors_allows_only_configured_origins() {
    let server = Server::with(|config| config.server.cors_origins = vec!["https://app.example".to_owned()]);
    let mut client = server.client();
    let mut ask = |method: &str, origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST"), ("X-User-Id", "alice")];
        client.request(method, LOCK, &headers, b"")
    };
    let preflight = ask("OPTIONS", "https://app.example");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, GET, HEAD, DELETE, OPTIONS"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("X-User-Id"));
    assert_eq!(preflight.header("vary"), Some("Origin"));
    assert_eq!(
        ask("POST", "https://app.example").header("access-control-allow-origin"),
        Some("https://app.example")
    );
    for origin in [
        "https://evil.example",
        "https://app.example.evil",
        "http://app.example",
        "null",
        "http://localhost.evil",
        "http://127.0.0.1:9@evil.example",
    ] {
        assert_eq!(ask("OPTIONS", origin).header("access-control-allow-origin"), None, "{origin}");
        let refused = ask("DELETE", origin);
        refused.refused(403, "forbidden");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
    }
    // Pages of the local machine may send requests, but only configured origins may read responses.
    for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"] {
        let answer = ask("GET", origin);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
    }
    let answer = Server::start().client().request("GET", LOCK, &[], b"");
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (None, None));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut alice = server.user("alice");
    // Reads are answered by another thread than writes, and earlier.
    for round in 0..50 {
        let requests = [
            "POST /api/v1/workspaces/w/lock",
            "GET /healthz",
            "GET /nowhere",
            "DELETE /api/v1/workspaces/w/lock",
            "GET /api/v1/workspaces/w/lock",
        ];
        for (number, request) in requests.iter().enumerate() {
            let head = format!(
                "{request} HTTP/1.1\r\nHost: t\r\nX-User-Id: alice\r\nX-Request-Id: {round}-{number}\r\n\r\n"
            );
            alice.send(head.as_bytes());
        }
        for number in 0..requests.len() {
            let answer = alice.receive("GET").unwrap();
            assert_eq!(answer.header("x-request-id"), Some(format!("{round}-{number}").as_str()));
        }
    }
}

#[test]
fn connection_headers_decide_whether_the_connection_is_kept() {
    let server = Server::start();
    for (head, connection) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", Some("close")),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive")),
        ("GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", Some("close")),
        ("GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", None),
        // Unsupported upgrades are ignored (RFC 9110 §7.8).
        ("GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", None),
    ] {
        let mut client = server.client();
        client.send(head.as_bytes());
        let answer = client.receive("GET").unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, connection), "{head}");
        if connection == Some("close") {
            assert!(client.receive("GET").is_err(), "the connection goes on: {head}");
        } else {
            assert_eq!(client.get("/healthz").status, 200);
        }
    }
}

#[test]
fn metrics_show_what_happened() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    for workspace in ["a", "b", "c"] {
        alice
            .acquire(workspace, &json!({ "ttl_ms": if workspace == "c" { 1_000 } else { 60_000 } }))
            .expect(200);
    }
    bob.acquire("a", &json!({})).refused(409, "lock_held");
    bob.acquire("a", &json!({ "force": true })).expect(200);
    server.pass(1_000);
    server.sweep();
    server.clock.set_wall_by(-60_000);
    server.sweep();
    let answer = bob.get("/metrics");
    let text = answer.text();
    for line in [
        "lockhouse_live_locks 2",
        "lockhouse_expiries_total 1",
        "lockhouse_takeovers_total 1",
        "lockhouse_clock_corrections_total 1",
        "lockhouse_acquisitions_total{outcome=\"acquired\"} 3",
        "lockhouse_acquisitions_total{outcome=\"held\"} 1",
        "lockhouse_acquisitions_total{outcome=\"taken_over\"} 1",
        "lockhouse_http_requests_total{route=\"acquireLock\",status=\"409\"} 1",
        "lockhouse_http_request_duration_seconds_count{route=\"acquireLock\"} 5",
        "lockhouse_writer_queue_depth 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is missing in\n{text}");
    }
    for name in [
        "lockhouse_writer_batch_size_count",
        "lockhouse_writer_commit_duration_seconds_count",
        "lockhouse_build_info",
        "lockhouse_wal_size_bytes ",
    ] {
        assert!(text.contains(name), "{name}");
    }
    let size = text.lines().find_map(|line| line.strip_prefix("lockhouse_database_size_bytes "));
    assert!(size.unwrap().parse::<u64>().unwrap() >= 4_096, "{size:?}");
}

#[test]
fn incomplete_bodies_block_neither_writes_nor_shutdown() {
    let mut server = Server::start();
    let mut good = server.user("alice");
    let mut waiting = Vec::new();
    for head in [
        "Expect: 100-continue\r\nContent-Length: 10",
        "Content-Length: 2000",
        "Connection: upgrade\r\nContent-Length: 10",
    ] {
        let mut bad = server.user("bob");
        bad.send(format!("POST {LOCK} HTTP/1.1\r\nHost: t\r\nX-User-Id: bob\r\n{head}\r\n\r\n").as_bytes());
        waiting.push(bad);
    }
    for _ in 0..10 {
        good.acquire("w", &json!({})).expect(200);
        assert_eq!(good.get("/healthz").status, 200);
    }
    server.stop();
    drop(waiting);
}

#[test]
fn clients_that_do_not_read_do_not_block_shutdown() {
    let mut server = Server::start();
    let mut alice = server.user("alice");
    let metadata = json!({ "blob": "m".repeat(4_000) });
    let fence = alice.acquire("w", &json!({ "metadata": metadata })).expect(200)["lock"]["fence"].clone();
    let mut not_reading = server.user("bob");
    for _ in 0..2_000 {
        not_reading.send(format!("POST {LOCK} HTTP/1.1\r\nHost: t\r\nX-User-Id: bob\r\n\r\n").as_bytes());
    }
    server.stop();
    assert_eq!(server.query("SELECT fence FROM locks"), fence.to_string());
}

#[test]
fn invalid_bytes_affect_only_their_own_connection() {
    let server = Server::start();
    let mut good = server.user("alice");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"POST /api/v1/workspaces/w/lock HTTP/1.1\r\nX-User-Id: a\r\nContent-Length: 10\r\n\r\n{}",
        b"POST /api/v1/workspaces/w/lock HTTP/1.1\r\nX-User-Id: a\r\nContent-Length: -1\r\n\r\n{}",
        b"GET /api/v1/workspaces/\xff/lock HTTP/1.1\r\n\r\n",
    ] {
        let mut bad = server.client();
        bad.send(garbage);
        drop(bad);
        assert_eq!(good.acquire("w", &json!({})).status, 200);
    }
}

#[test]
fn metadata_is_returned_verbatim() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let json = [("Content-Type", "application/json")];
    let metadata = r#"{"z":123456789012345678901234567890,"a":[1e2,-0.0,0.10],"t":"ë"}"#;
    let body = format!(r#"{{ "session_id": "tab", "metadata": {} }}"#, metadata.replace(',', " ,\n"));
    let path = "/api/v1/workspaces/w/lock";
    let is_in = |answer: &common::Answer| {
        let expected = format!(r#""metadata":{metadata}"#);
        assert!(answer.text().contains(&expected), "{}", answer.text());
    };
    is_in(&alice.request("POST", path, &json, body.as_bytes()));
    let mut bob = server.user("bob");
    is_in(&alice.get(path));
    is_in(&alice.get("/api/v1/locks"));
    is_in(&alice.get("/api/v1/workspaces/w/presence"));
    is_in(&bob.request("POST", path, &[], b""));
    is_in(&bob.heartbeat("w", &json!({})));
    is_in(&bob.post("/api/v1/workspaces/w/lock/knock", &json!({})));
    is_in(&bob.post("/api/v1/locks/heartbeat", &json!({ "locks": [{ "workspace_id": "w" }] })));
    is_in(&alice.get("/api/v1/gate?workspace_id=w&fence=1"));
    is_in(&bob.request("POST", &format!("{path}?force=true"), &json, body.as_bytes()));
}

#[test]
fn duplicate_json_keys_are_refused_at_any_depth() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let mut ask = |path: &str, body: &str| {
        let json = [("Content-Type", "application/json")];
        alice.request("POST", path, &json, body.as_bytes()).refused(400, "invalid_request")["field"].clone()
    };
    let path = "/api/v1/workspaces/w/lock";
    assert_eq!(ask(path, r#"{"metadata":{"a":1,"a":2}}"#), "metadata.a");
    assert_eq!(ask(path, r#"{"metadata":{"x":[{"k":{"a":1,"b":2,"a":1}}]}}"#), "metadata.x[0].k.a");
    assert_eq!(ask(path, r#"{"ttl_ms":1000,"ttl_ms":1000}"#), "ttl_ms");
    assert_eq!(ask(path, r#"{"note":"\ud800"}"#), "note");
    let twice = r#"{"locks":[{"workspace_id":"w"},{"workspace_id":"w","fence":1,"fence":2}]}"#;
    assert_eq!(ask("/api/v1/locks/heartbeat", twice), "locks[1].fence");
    let deep = format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(33), "}".repeat(33));
    assert!(ask(path, &deep).as_str().unwrap().starts_with("metadata.a.a"));
    // What counts is the size without white space.
    let wide = format!(r#"{{"metadata":{{{}"a":1}}}}"#, " ".repeat(5_000));
    alice.request("POST", path, &[("Content-Type", "application/json")], wide.as_bytes()).expect(200);
}
