//! Disconnected clients: those that do not read, and those that make room at the limits of connections and memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{Raw, Server, eventually, is_well, metric};
use serde_json::json;

const LOCK: &str = "/api/v1/workspaces/w/lock";
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

/// A page of them has more bytes than the socket buffers hold.
fn with_many_locks(server: &Server) {
    let mut owner = server.user("owner");
    let metadata = json!({ "blob": "m".repeat(4_000) });
    for number in 0..500 {
        owner.acquire(&format!("w{number}"), &json!({ "metadata": metadata })).expect(200);
    }
}

#[test]
fn clients_that_do_not_read_are_disconnected_and_delay_nobody() {
    let server = Server::with(|config| config.server.write_timeout = Duration::from_secs(1));
    with_many_locks(&server);
    let mut not_reading: Vec<_> = (0..8).map(|_| Raw::connect(server.address())).collect();
    for connection in &mut not_reading {
        // Two megabytes each: more than the socket buffers hold.
        connection.send("GET /api/v1/locks?limit=500 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5));
    }
    while metric(&server, "lockhouse_cuts_total{reason=\"unread\"}") < 8.0 {
        is_well(&server);
    }
    // A client that reads gets the whole page. Tries again if this thread was paused for longer than the timeout.
    eventually(|| {
        let page = server.client().try_request("GET", "/api/v1/locks?limit=500", &[], b"");
        page.is_ok_and(|page| page.expect(200)["locks"].as_array().unwrap().len() == 500)
    });
}

#[test]
fn at_the_connection_limit_silent_connections_are_evicted_first() {
    let server = Server::with(|config| config.server.max_connections = 16);
    let mut unfinished: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = Raw::connect(server.address());
            connection.send("GET / HT");
            connection
        })
        .collect();
    let mut idle: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = Raw::connect(server.address());
            connection.send(HEALTH);
            connection.read_until("}\n");
            connection
        })
        .collect();
    // All connections are in use, and a new one still gets in.
    for _ in 0..8 {
        is_well(&server);
    }
    assert!(unfinished[0].is_closed());
    for connection in &mut idle {
        connection.send(HEALTH);
        connection.read_until("}\n");
    }
    drop((unfinished, idle));
    let mut floods = Vec::new();
    for _ in 0..200 {
        let mut flood = Raw::connect(server.address());
        flood.send("GET / HT");
        is_well(&server);
        floods.push(flood);
    }
    assert!(metric(&server, "lockhouse_cuts_total{reason=\"room\"}") >= 200.0 - 16.0);
    assert!(metric(&server, "lockhouse_connections ") <= 16.0);
}

#[test]
fn slow_and_non_reading_connections_are_evicted_before_idle_ones() {
    let server = Server::with(|config| config.server.max_connections = 16);
    with_many_locks(&server);
    let page = "GET /api/v1/locks?limit=500 HTTP/1.1\r\nHost: h\r\n\r\n";
    for attack in ["GET / HT", page] {
        let mut kept = Raw::connect(server.address());
        kept.send(HEALTH);
        kept.read_until("}\n");
        let mut bad: Vec<_> = (0..12).map(|_| Raw::connect(server.address())).collect();
        for connection in &mut bad {
            connection.send(attack);
        }
        let pages = "lockhouse_http_requests_total{route=\"listLocks\",status=\"200\"}";
        eventually(|| attack != page || metric(&server, pages) >= 12.0);
        let mut last = Raw::connect(server.address());
        // After one second the bad ones count as slow.
        assert!(!last.has_something(Duration::from_millis(1_200)));
        let mut good: Vec<_> = (0..12).map(|_| Raw::connect(server.address())).collect();
        for connection in good.iter_mut().chain([&mut kept]) {
            connection.send(HEALTH);
            connection.read_until("}\n");
        }
        assert!(bad[0].is_closed());
    }
}

#[test]
fn a_reading_client_is_not_evicted_for_clients_that_fill_buffers() {
    let server = Server::with(|config| config.server.max_buffered = 4 << 20);
    with_many_locks(&server);
    let reads_all = || {
        let mut reader = Raw::connect(server.address());
        reader.send("GET /api/v1/locks?limit=500 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        reader.read_until("HTTP/1.1 200");
        let mut filling = Vec::new();
        for _ in 0..80 {
            let mut connection = Raw::connect(server.address());
            let head = format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n");
            let _ = connection.try_send((head + &"x".repeat(60_000)).as_bytes());
            filling.push(connection);
            // It reads on, slowly.
            for _ in 0..4 {
                reader.read_some();
            }
        }
        eventually(|| metric(&server, "lockhouse_cuts_total{reason=\"memory\"}") >= 4.0);
        reader.read_all().ends_with(b"\"next_cursor\":null}\n")
    };
    // A client that takes nothing for a second counts as one that does not read. On a busy machine that happens to this
    // thread, but not each time.
    assert!((0..10).any(|_| reads_all()), "a client that reads is disconnected");
}

#[test]
fn at_the_memory_limit_the_largest_buffers_are_evicted() {
    let server = Server::with(|config| {
        config.server.max_buffered = 1 << 20;
        config.server.body_timeout = Duration::from_secs(3_600);
    });
    let mut filling = Vec::new();
    for _ in 0..64 {
        let mut connection = Raw::connect(server.address());
        let head = format!("POST {LOCK} HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n");
        connection.send(head + &"x".repeat(60_000));
        filling.push(connection);
        is_well(&server);
    }
    assert!(metric(&server, "lockhouse_cuts_total{reason=\"memory\"}") >= 32.0);
    assert!(metric(&server, "lockhouse_connections ") >= 8.0, "the others stay connected");
}
