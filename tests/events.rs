//! Event streams: no gaps, no repeats, and no delay by followers that do not read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Client, Server, contract};
use serde_json::{Value, json};

/// A follower.
struct Follower {
    reader: BufReader<TcpStream>,
}

/// An event that a follower receives.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    id: i64,
    event: String,
    data: Value,
}

impl Follower {
    /// Follows. The server has accepted the stream when this returns.
    fn new(server: &Server, query: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // HTTP/1.0 has no chunks: the stream is as it is.
        let head = format!("GET /api/v1/events{query} HTTP/1.0\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut follower = Self { reader: BufReader::new(stream) };
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.is_empty()) {
            lines.push(follower.line().unwrap());
        }
        assert_eq!(lines[0], "HTTP/1.1 200 OK");
        assert!(lines.contains(&"Content-Type: text/event-stream".to_owned()), "{lines:?}");
        assert_eq!(follower.line().as_deref(), Some(": still here"));
        follower.line();
        follower
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length =
            self.reader.read_line(&mut line).unwrap_or_else(|error| panic!("nothing is told: {error}"));
        (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event; `None` when the stream has ended.
    fn next(&mut self) -> Option<Told> {
        let mut lines = Vec::new();
        loop {
            match self.line()?.as_str() {
                "" if lines.is_empty() => {}
                "" => break,
                comment if comment.starts_with(':') => {}
                line => lines.push(line.to_owned()),
            }
        }
        let [id, event, data] = &lines[..] else { panic!("{lines:?}") };
        Some(Told {
            id: id.strip_prefix("id: ").unwrap().parse().unwrap(),
            event: event.strip_prefix("event: ").unwrap().to_owned(),
            data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        })
    }

    fn told(&mut self, event: &str) -> Value {
        let told = self.next().unwrap();
        assert_eq!(told.event, event, "{told:?}");
        contract::check_told(&told.data);
        assert_eq!(told.data["type"], event);
        assert_eq!(told.data["revision"], told.id);
        told.data
    }
}

#[test]
fn events_match_the_history_and_carry_the_lock() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("before", &json!({})).expect(200);
    let mut follower = Follower::new(&server, "", "");
    let lock = alice.acquire("w", &json!({ "note": "here" })).expect(200)["lock"].clone();
    let acquired = follower.told("lock.acquired");
    assert_eq!((&acquired["workspace_id"], &acquired["lock"]), (&json!("w"), &lock));
    alice.heartbeat("w", &json!({})).expect(200);
    bob.acquire("w", &json!({ "force": true })).expect(200);
    let taken = follower.told("lock.taken_over");
    assert_eq!((&taken["user_id"], &taken["by_user_id"]), (&json!("alice"), &json!("bob")));
    assert_eq!(taken["lock"]["locked_by_user_id"], "bob");
    assert_eq!(taken["lock"]["fence"], taken["detail"]["new_fence"]);
    bob.delete("/api/v1/workspaces/w/lock").expect(200);
    let released = follower.told("lock.released");
    assert_eq!(released["lock"], Value::Null);
    let history = alice.get("/api/v1/workspaces/w/history").expect(200);
    for (told, kept) in [released, taken, acquired].iter().zip(history["events"].as_array().unwrap()) {
        for (name, value) in kept.as_object().unwrap() {
            assert_eq!(&told[name], value, "{name}");
        }
    }
}

#[test]
fn expiry_events_are_sent_on_time_without_the_sweeper() {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("long", &json!({ "ttl_ms": 60_000 })).expect(200);
    let mut follower = Follower::new(&server, "", "");
    alice.acquire("short", &json!({ "ttl_ms": 5_000 })).expect(200);
    follower.told("lock.acquired");
    server.pass(4_999);
    alice.acquire("other", &json!({ "ttl_ms": 300_000 })).expect(200);
    follower.told("lock.acquired");
    server.pass(1);
    assert_eq!(follower.told("lock.expired")["workspace_id"], "short");
    alice.heartbeat("long", &json!({ "ttl_ms": 100_000 })).expect(200);
    server.pass(99_999);
    alice.acquire("short", &json!({ "ttl_ms": 1_000 })).expect(200);
    follower.told("lock.acquired");
    server.pass(1);
    assert_eq!(follower.told("lock.expired")["workspace_id"], "long");
}

#[test]
fn a_resumed_stream_has_no_gaps_or_repeats() {
    let server = Server::start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (address, done) = (server.address(), &done);
            scope.spawn(move || {
                let mut user = Client::connect(address).by(&format!("user-{number}"));
                while !done.load(Ordering::SeqCst) {
                    user.acquire(&format!("w{number}"), &json!({})).expect(200);
                    user.delete(&format!("/api/v1/workspaces/w{number}/lock")).expect(200);
                }
            });
        }
        let (mut place, mut heard) = (0, Vec::new());
        for round in 0..20 {
            // Both ways to give the position; the header is used if both are given.
            let mut follower = if round % 2 == 0 {
                Follower::new(&server, &format!("?since={place}"), "")
            } else {
                Follower::new(&server, "?since=0", &format!("Last-Event-ID: {place}\r\n"))
            };
            for _ in 0..150 {
                let told = follower.next().unwrap();
                place = told.id;
                heard.push(told.id);
            }
        }
        done.store(true, Ordering::SeqCst);
        assert_eq!(heard, (1..=3_000).collect::<Vec<i64>>());
    });
}

#[test]
fn a_stream_can_be_limited_to_workspaces() {
    let server = Server::start();
    let mut alice = server.user("alice");
    let mut follower = Follower::new(&server, "?workspace_id=a&workspace_id=team%2Fb", "");
    for workspace in ["x", "a", "y", "team%2Fb", "team", "a"] {
        alice.acquire(workspace, &json!({})).expect(200);
        alice.delete(&format!("/api/v1/workspaces/{workspace}/lock")).expect(200);
    }
    let heard: Vec<_> =
        (0..6).map(|_| follower.next().unwrap().data["workspace_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(heard, ["a", "a", "team/b", "team/b", "a", "a"]);
}

#[test]
fn a_position_that_is_no_longer_kept_gives_a_reset() {
    for (since, reset) in [("0", true), ("9", true), ("10", false), ("11", false), ("12", true)] {
        let server = Server::with(|config| config.history.keep = Some(Duration::from_secs(60)));
        let mut alice = server.user("alice");
        for number in 0..10 {
            alice.acquire(&format!("w{number}"), &json!({})).expect(200);
        }
        server.pass(120_000);
        alice.acquire("last", &json!({})).expect(200);
        server.sweep();
        let mut follower = Follower::new(&server, &format!("?since={since}"), "");
        if reset {
            let told = follower.next().unwrap();
            assert_eq!((told.event.as_str(), told.id), ("reset", 11), "{since}");
        } else if since == "10" {
            assert_eq!(follower.told("lock.acquired")["workspace_id"], "last");
        }
        alice.acquire("new", &json!({})).expect(200);
        assert_eq!(follower.told("lock.acquired")["workspace_id"], "new", "{since}");
    }
}

#[test]
fn invalid_stream_positions_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    for (path, headers, field) in [
        ("/api/v1/events?since=-1", vec![], "since"),
        ("/api/v1/events?since=x", vec![], "since"),
        ("/api/v1/events?workspace_id=", vec![], "workspace_id"),
        ("/api/v1/events", vec![("Last-Event-ID", "x")], "Last-Event-ID"),
        ("/api/v1/events", vec![("Last-Event-ID", "1"), ("Last-Event-ID", "2")], "Last-Event-ID"),
    ] {
        let problem = client.request("GET", path, &headers, b"").refused(400, "invalid_request");
        assert_eq!(problem["field"], field, "{path}");
    }
    let many = "workspace_id=w&".repeat(101);
    let problem = client.get(&format!("/api/v1/events?{many}")).refused(400, "invalid_request");
    assert!(problem["detail"].as_str().unwrap().contains("at most 100"), "{problem}");
}

#[test]
fn keep_alive_comments_are_sent_every_15_seconds() {
    let server = Server::start();
    let mut follower = Follower::new(&server, "", "");
    for _ in 0..3 {
        server.pass(15_000);
        assert_eq!(follower.line().as_deref(), Some(": still here"));
        follower.line();
    }
}

#[test]
fn a_follower_that_does_not_read_is_reset_and_delays_nobody() {
    // On a slow machine the requests below take longer than the default timeout, which would end the stream.
    let server = Server::with(|config| config.server.write_timeout = Duration::from_secs(3_600));
    let mut alice = server.user("alice");
    let mut not_reading = Follower::new(&server, "", "");
    let mut good = Follower::new(&server, "", "");
    let metadata = json!({ "blob": "m".repeat(4_000) });
    // Far more than the socket buffers and the server hold for one client.
    for _ in 0..1_500 {
        alice.acquire("w", &json!({ "metadata": metadata })).expect(200);
        good.told("lock.acquired");
        alice.delete("/api/v1/workspaces/w/lock").expect(200);
        good.told("lock.released");
    }
    let mut last = None;
    while let Some(told) = not_reading.next() {
        last = Some(told);
    }
    let last = last.unwrap();
    assert_eq!(last.event, "reset", "{last:?}");
}

#[test]
fn shutdown_ends_event_streams() {
    let mut server = Server::start();
    let mut follower = Follower::new(&server, "", "");
    server.user("alice").acquire("w", &json!({})).expect(200);
    follower.told("lock.acquired");
    server.stop();
    assert_eq!(follower.next(), None);
}
