//! Hostile and slow clients affect only their own connections.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::held::Held;
use common::{Raw, Server, contract, eventually, is_well, metric};
use lockhouse::config::Config;
use serde_json::json;

const LOCK: &str = "/api/v1/workspaces/w/lock";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

/// Short limits for the time in which a request must arrive. The idle timeout stays long: it would apply first if this
/// thread were paused between connecting and sending.
fn short_timeouts(config: &mut Config) {
    config.server.head_timeout = Duration::from_millis(150);
    config.server.body_timeout = Duration::from_millis(150);
}

/// The database waits longer for its lock than any test holds it, however slow the machine is.
fn patient_writes(config: &mut Config) {
    config.database.busy_timeout = Duration::from_secs(60);
}

/// Sends one byte at a time until the server answers or closes the connection.
fn trickle(connection: &mut Raw, begin: &str, byte: &[u8]) -> Vec<common::Answer> {
    connection.send(begin);
    while !connection.has_something(Duration::from_millis(10)) {
        if connection.try_send(byte).is_err() {
            break;
        }
    }
    connection.answers()
}

fn refused(answers: &[common::Answer], status: u16, code: &str) {
    assert_eq!(answers.len(), 1);
    answers[0].refused(status, code);
    contract::check_refusal(&answers[0]);
}

#[test]
fn a_trickled_head_times_out() {
    let server = Server::with(short_timeouts);
    let mut slow = Raw::connect(server.address());
    refused(&trickle(&mut slow, "GET / HTTP/1.1\r\nX: ", b"x"), 408, "request_timeout");
    let mut silent = Raw::connect(server.address());
    silent.send("G");
    refused(&silent.answers(), 408, "request_timeout");
    assert!(metric(&server, "lockhouse_refusals_total{reason=\"head_timeout\"}") >= 2.0);
    is_well(&server);
}

#[test]
fn a_trickled_body_times_out() {
    let server = Server::with(short_timeouts);
    let head = format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nX-User-Id: a\r\nContent-Length: 60000\r\n\r\n");
    refused(&trickle(&mut Raw::connect(server.address()), &head, b" "), 408, "request_timeout");
    let mut never = Raw::connect(server.address());
    never.send(&head);
    refused(&never.answers(), 408, "request_timeout");
    let mut waits = Raw::connect(server.address());
    waits.send(head.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    refused(&waits.answers(), 408, "request_timeout");
    is_well(&server);
}

#[test]
fn an_idle_connection_is_closed_without_a_response() {
    let server = Server::with(|config| config.server.idle_timeout = Duration::from_millis(300));
    let mut silent = Raw::connect(server.address());
    assert_eq!(silent.read_all(), b"");
    // Tries again if this thread was paused for longer than the timeout before it sent the request.
    eventually(|| {
        let mut was_busy = Raw::connect(server.address());
        was_busy.try_send(HEALTH.as_bytes()).is_ok() && was_busy.answers_or_reset().len() == 1
    });
    assert!(metric(&server, "lockhouse_cuts_total{reason=\"idle\"}") >= 2.0);
}

#[test]
fn an_endless_head_is_refused_at_the_size_limit() {
    let server = Server::start();
    for (begin, more, status, code) in [
        ("GET /", "x", 414, "uri_too_long"),
        ("GET / HTTP/1.1\r\nX: ", "x", 431, "headers_too_large"),
        ("GET / HTTP/1.1\r\n", "x: y\r\n", 431, "headers_too_large"),
    ] {
        let mut endless = Raw::connect(server.address());
        endless.send(begin);
        // Far more than the server accepts and the socket buffers hold.
        for _ in 0..200 {
            if endless.try_send(more.repeat(64 * 1024).as_bytes()).is_err() {
                break;
            }
        }
        endless.finish();
        if let Some(answer) = endless.answers_or_reset().first() {
            answer.refused(status, code);
        }
        // A client that stops sending receives the reason.
        let mut listens = Raw::connect(server.address());
        listens.send(format!("{begin}{}", more.repeat(17_000)));
        listens.finish();
        refused(&listens.answers(), status, code);
    }
    is_well(&server);
}

#[test]
fn a_too_large_body_is_refused_before_it_is_sent() {
    let server = Server::start();
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut large = Raw::connect(server.address());
        large.send(format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\n{expect}Content-Length: 65537\r\n\r\n"));
        refused(&large.answers(), 413, "body_too_large");
    }
    // A client that sends the body anyway receives the refusal too.
    let mut sent = Raw::connect(server.address());
    sent.send(format!(
        "POST {LOCK} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(1_000_000)
    ));
    refused(&sent.answers(), 413, "body_too_large");
    is_well(&server);
}

#[test]
fn a_tls_handshake_is_answered_with_a_hint() {
    let server = Server::start();
    let mut tls = Raw::connect(server.address());
    tls.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let answers = tls.answers();
    refused(&answers, 400, "invalid_request");
    assert!(answers[0].text().contains("TLS"), "{}", answers[0].text());
}

#[test]
fn expect_100_continue_is_answered_once() {
    let server = Server::start();
    let post = |version: &str| {
        format!(
            "POST {LOCK} HTTP/{version}\r\nHost: h\r\nX-User-Id: alice\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
    };
    let mut client = Raw::connect(server.address());
    for _ in 0..2 {
        client.send(post("1.1"));
        assert_eq!(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("{");
        assert!(!client.has_something(Duration::from_millis(20)), "only once");
        client.send("}");
        client.read_until("\"outcome\"");
    }
    // Not when the body has arrived already, nor for HTTP/1.0 (RFC 9110 §10.1.1).
    let mut ready = Raw::connect(server.address());
    ready.send(post("1.1") + "{}");
    assert!(ready.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    let mut old = Raw::connect(server.address());
    old.send(post("1.0"));
    assert!(!old.has_something(Duration::from_millis(50)));
    old.send("{}");
    assert!(old.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
}

#[test]
fn half_closed_connections_get_their_responses() {
    let server = Server::start();
    for request in [HEALTH, "GET /api/v1/locks HTTP/1.1\r\nHost: h\r\n\r\n", "GET /metrics HTTP/1.0\r\n\r\n"]
    {
        let mut half_closed = Raw::connect(server.address());
        half_closed.send(request.repeat(3));
        half_closed.finish();
        let answers = half_closed.answers();
        // HTTP/1.0 closes after the first.
        assert_eq!(answers.len(), if request.contains("1.0") { 1 } else { 3 }, "{request}");
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.header("date").is_some()));
    }
}

#[test]
fn a_request_sent_with_the_fin_is_answered_and_then_closed() {
    let server = Server::start();
    for _ in 0..50 {
        let mut kept = Raw::connect(server.address());
        kept.send(HEALTH);
        kept.read_until("}\n");
        // Both arrive together, more often than not.
        kept.send(HEALTH);
        kept.finish();
        assert_eq!(kept.answers().len(), 1);
    }
}

#[test]
fn six_connections_at_once_are_always_served() {
    let server = Server::start();
    for _ in 0..50 {
        let mut six: Vec<_> = (0..6).map(|_| Raw::connect(server.address())).collect();
        for connection in &mut six {
            connection.send(HEALTH);
        }
        for connection in &mut six {
            connection.read_until("\"up\"");
        }
    }
}

#[test]
fn a_burst_of_500_connections_is_served() {
    let server = Server::start();
    for _ in 0..3 {
        let mut burst: Vec<_> = (0..500).map(|_| Raw::connect(server.address())).collect();
        for connection in &mut burst {
            connection.send(HEALTH);
        }
        for connection in &mut burst {
            connection.read_until("\"up\"");
        }
    }
    assert!(metric(&server, "lockhouse_connections_accepted_total") >= 1_500.0);
}

#[test]
fn clients_may_disconnect_at_any_time() {
    let server = Server::start();
    let post = format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nX-User-Id: gone\r\nContent-Length: 2\r\n\r\n{{}}");
    for length in (0..=post.len()).chain([post.len(); 50]) {
        let mut goes = Raw::connect(server.address());
        goes.send(&post[..length]);
        drop(goes);
    }
    for _ in 0..50 {
        // Responses that nobody will read are on their way: the system resets the connection.
        let mut goes = Raw::connect(server.address());
        goes.send("GET /api/v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n".repeat(10));
        goes.read_until("openapi");
    }
    is_well(&server);
    eventually(|| metric(&server, "lockhouse_connections ") <= 1.0);
}

#[test]
fn reads_are_served_while_writes_wait() {
    let server = Server::with(patient_writes);
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let held = Held::on(&server);
    let mut waiting: Vec<_> = (0..300).map(|_| Raw::connect(server.address())).collect();
    for connection in &mut waiting {
        connection.send(format!(
            "POST {LOCK} HTTP/1.1\r\nHost: h\r\nX-User-Id: alice\r\nConnection: close\r\n\r\n"
        ));
    }
    let mut ready = Raw::connect(server.address());
    ready.send("GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(server.client().get("/healthz").status, 200);
        assert_eq!(server.client().lock("w")["locked_by_user_id"], "alice");
    }
    assert!(!waiting[0].has_something(Duration::from_millis(1)));
    // A node of PostgreSQL answers at once whether the database has answered lately.
    let tries_a_write = server.config.database.url.is_none();
    assert!(!tries_a_write || !ready.has_something(Duration::from_millis(1)));
    drop(held);
    for connection in waiting.iter_mut().chain([&mut ready]) {
        assert_eq!(connection.answers()[0].status, 200);
    }
}

#[test]
fn shutdown_finishes_requests_in_progress_and_refuses_others() {
    let mut server = Server::with(patient_writes);
    let mut idle = Raw::connect(server.address());
    idle.send(HEALTH);
    idle.read_until("}\n");
    let mut unfinished = Raw::connect(server.address());
    unfinished.send("GET / HT");
    let mut body = Raw::connect(server.address());
    body.send(format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{{"));
    is_well(&server);
    // They cannot be answered before the shutdown has begun: the database is locked.
    let held = Held::on(&server);
    let mut asked: Vec<_> = (0..20).map(|_| Raw::connect(server.address())).collect();
    for connection in &mut asked {
        connection.send(format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nX-User-Id: alice\r\n\r\n"));
    }
    requests_are_received(&server);
    std::thread::scope(|scope| {
        scope.spawn(|| server.stop());
        // The shutdown has begun when the idle connection is closed.
        assert_eq!(idle.read_all(), b"");
        assert!(!asked[0].has_something(Duration::from_millis(50)));
        drop(held);
    });
    for connection in [&mut unfinished, &mut body] {
        refused(&connection.answers(), 503, "busy");
    }
    for mut connection in asked {
        let answers = connection.answers();
        assert_eq!((answers[0].status, answers[0].header("connection")), (200, Some("close")));
    }
}

#[test]
fn shutdown_ends_after_the_grace_period() {
    let mut server = Server::with(|config| {
        patient_writes(config);
        config.server.shutdown_grace = Duration::from_millis(200);
    });
    let held = Held::on(&server);
    let mut asked = Raw::connect(server.address());
    asked.send(format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nX-User-Id: alice\r\n\r\n"));
    requests_are_received(&server);
    std::thread::scope(|scope| {
        let stops = scope.spawn(|| server.stop());
        // The connection is closed while the request still waits.
        assert_eq!(asked.read_all(), b"");
        assert!(!stops.is_finished());
        drop(held);
    });
    let kept = server.query("SELECT count(*) FROM locks");
    assert_eq!(kept, "1", "it was carried out all the same");
}

/// Returns after the server has read everything that was sent before.
fn requests_are_received(server: &Server) {
    assert_eq!(server.client().get("/healthz").status, 200);
}
