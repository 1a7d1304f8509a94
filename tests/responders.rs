//! Requests that are answered later, with one response or with pieces.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unnecessary_wraps,
    reason = "a test may panic"
)]

mod common;

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Raw, Server};
use lockhouse::api::exchange::Response;
use lockhouse::api::operation::{Answer, Call, Handler, Right, Route, StoreAccess};
use lockhouse::api::outbox::MAX_BEHIND_BYTES;
use lockhouse::api::problem::Problem;
use lockhouse::api::responder::Responder;
use lockhouse::api::workers::READERS;
use lockhouse::app::Service;
use lockhouse::events::chunk::StreamChunk;

/// The responders of all tests, by the name in the path.
static RESPONDERS: Mutex<Option<HashMap<String, Responder>>> = Mutex::new(None);
static ADDED: Condvar = Condvar::new();

fn keep(name: &str, responder_of: Responder) {
    RESPONDERS.lock().unwrap().get_or_insert_default().insert(name.to_owned(), responder_of);
    ADDED.notify_all();
}

/// Waits for the request with this name, and returns its responder.
fn responder_of(name: &str) -> Responder {
    let mut responders = RESPONDERS.lock().unwrap();
    loop {
        if let Some(responder_of) = responders.get_or_insert_default().remove(name) {
            return responder_of;
        }
        let (again, waited) = ADDED.wait_timeout(responders, Duration::from_secs(20)).unwrap();
        assert!(!waited.timed_out(), "{name} was not held");
        responders = again;
    }
}

fn hold(_: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let name = call.path[0].1.clone();
    Ok(Answer::later(move |reply| keep(&name, reply.park())))
}

/// Answers so early that the event loop receives the response before it knows that the request is parked.
fn at_once(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::later(|reply| reply.park().send(text_response("at once"))))
}

fn forgets(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::later(|reply| drop(reply.park())))
}

fn reads(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::Now(text_response("read")))
}

const fn route(path: &'static str, store: StoreAccess, handler: Handler) -> Route {
    Route::new("GET", path, "test", handler).allow(Right::Open, store)
}

/// How many readers may go on. None while they are to be kept busy.
static GATE: Mutex<usize> = Mutex::new(0);
static OPENED: Condvar = Condvar::new();
/// What was read behind the gate, in this order.
static READ: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn behind_the_gate(_: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    READ.lock().unwrap().push(call.path[0].1.clone());
    *OPENED.wait_while(GATE.lock().unwrap(), |may_go_on| *may_go_on == 0).unwrap() -= 1;
    Ok(Answer::Now(text_response("read")))
}

fn open_the_gate(for_readers: usize) {
    *GATE.lock().unwrap() = for_readers;
    OPENED.notify_all();
}

#[track_caller]
fn wait_until_read(requests: usize) {
    common::eventually(|| READ.lock().unwrap().len() >= requests);
}

static ROUTES: [Route; 6] = [
    route("/gate/{workspace_id}", StoreAccess::Reads, behind_the_gate),
    // It reads from the store before it parked.
    route("/looks/{workspace_id}", StoreAccess::Reads, hold),
    route("/hold/{workspace_id}", StoreAccess::None, hold),
    route("/at-once", StoreAccess::None, at_once),
    route("/forgets", StoreAccess::None, forgets),
    route("/reads", StoreAccess::Reads, reads),
];

fn server() -> Server {
    Server::with_routes(&ROUTES, |_| {})
}

fn text_response(text: &str) -> Response {
    Response::of(200, "text/plain", text.as_bytes().to_vec())
}

fn ask(server: &Server, name: &str, version: &str) -> Raw {
    let mut connection = Raw::connect(server.address());
    connection.send(format!("GET /hold/{name} HTTP/{version}\r\nHost: h\r\nX-Request-Id: {name}\r\n\r\n"));
    connection
}

#[test]
fn a_parked_request_is_answered_only_by_its_responder() {
    let server = server();
    let mut parked = ask(&server, "one", "1.1");
    let one = responder_of("one");
    assert!(!one.client().is_gone() && !parked.has_something(Duration::from_millis(30)));
    for _ in 0..20 {
        assert_eq!(server.client().try_request("GET", "/at-once", &[], b"").unwrap().text(), "at once");
    }
    one.send(text_response("now"));
    let answer = parked.read_until("now");
    for part in ["HTTP/1.1 200 OK\r\n", "X-Request-Id: one\r\n", "Content-Length: 3\r\n", "Date: "] {
        assert!(answer.contains(part), "{part} is missing in {answer}");
    }
    // The connection goes on.
    parked.send("GET /reads HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(parked.answers()[0].text(), "read");
}

#[test]
fn a_dropped_responder_answers_500() {
    let server = server();
    let answer = server.client().try_request("GET", "/forgets", &[], b"").unwrap();
    answer.refused(500, "internal");
}

#[test]
fn many_parked_requests_get_their_own_responses() {
    let server = server();
    let mut waiting: Vec<_> = (0..300).map(|number| ask(&server, &format!("many-{number}"), "1.1")).collect();
    // In another order than they came.
    for number in (0..300).rev() {
        responder_of(&format!("many-{number}")).send(text_response(&format!("for {number};")));
    }
    for (number, connection) in waiting.iter_mut().enumerate() {
        let answer = connection.read_until(";");
        assert!(answer.ends_with(&format!("for {number};")), "{answer}");
    }
}

#[test]
fn pipelined_requests_wait_for_a_parked_one() {
    let server = server();
    let mut connection = ask(&server, "first", "1.1");
    connection.send("GET /reads HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let first = responder_of("first");
    assert!(!connection.has_something(Duration::from_millis(30)));
    first.send(text_response("first"));
    let texts: Vec<_> = connection.answers().iter().map(|answer| answer.text().to_owned()).collect();
    assert_eq!(texts, ["first", "read"]);
}

#[test]
fn chunks_arrive_as_sent_and_the_connection_is_reusable() {
    let server = server();
    let mut connection = ask(&server, "stream", "1.1");
    let stream = responder_of("stream").stream(Response::of(200, "text/event-stream", Vec::new()));
    let head = connection.read_until("\r\n\r\n");
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && !head.contains("Content-Length"), "{head}");
    for (piece, chunk) in [("one", "3\r\none\r\n"), ("and another", "b\r\nand another\r\n")] {
        assert!(stream.push(piece.as_bytes()));
        assert_eq!(connection.read_until(chunk), chunk);
    }
    drop(stream);
    assert_eq!(connection.read_until("0\r\n\r\n"), "0\r\n\r\n");
    connection.send("GET /reads HTTP/1.1\r\nHost: h\r\n\r\n");
    connection.read_until("read");
}

#[test]
fn http_1_0_streams_are_unchunked_and_end_with_the_connection() {
    let server = server();
    let mut connection = ask(&server, "old", "1.0");
    let stream = responder_of("old").stream(Response::of(200, "text/plain", b"a".to_vec()));
    stream.push(b"b");
    drop(stream);
    let all = String::from_utf8(connection.read_all().to_vec()).unwrap();
    assert!(all.contains("Connection: close\r\n") && !all.contains("chunked"), "{all}");
    assert!(all.ends_with("\r\n\r\nab"), "{all}");
}

#[test]
fn head_requests_get_only_the_head_of_a_stream() {
    let server = server();
    let mut connection = Raw::connect(server.address());
    connection.send("HEAD /hold/head HTTP/1.1\r\nHost: h\r\n\r\n");
    let stream = responder_of("head").stream(Response::of(200, "text/plain", b"a".to_vec()));
    connection.read_until("\r\n\r\n");
    connection.send("GET /reads HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(connection.answers()[0].text(), "read");
    assert!(stream.client().is_gone());
}

#[test]
fn the_responder_learns_of_a_disconnect_at_once() {
    let server = server();
    for (name, begun) in [("gone", false), ("gone-reading", true)] {
        let mut connection = ask(&server, name, "1.1");
        let waiting = responder_of(name);
        let (tell, told) = channel();
        if begun {
            let stream = waiting.stream(text_response("begun"));
            connection.read_until("begun");
            stream.client().when_gone(Box::new(move || tell.send(()).unwrap()));
            drop(connection);
            told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(stream.client().is_gone() && !stream.push(b"x"));
        } else {
            waiting.client().when_gone(Box::new(move || tell.send(()).unwrap()));
            // It sends more bytes, which are not read.
            connection.send("x".repeat(30_000));
            drop(connection);
            told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(waiting.client().is_gone());
        }
    }
    while !server.client().try_request("GET", "/reads", &[], b"").is_ok_and(|answer| answer.status == 200) {}
}

#[test]
fn early_disconnects_are_reported() {
    let server = server();
    for round in 0..50 {
        let name = format!("early-{round}");
        drop(ask(&server, &name, "1.1"));
        // It may be gone before its request was read. Then there is no responder.
        let (tell, told) = channel();
        let waiting = ask(&server, &format!("late-{round}"), "1.1");
        let late = responder_of(&format!("late-{round}"));
        late.client().when_gone(Box::new(move || tell.send(()).unwrap()));
        drop(waiting);
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        let early = RESPONDERS.lock().unwrap().get_or_insert_default().remove(&name);
        if let Some(early) = early {
            let (tell, told) = channel();
            early.client().when_gone(Box::new(move || tell.send(()).unwrap()));
            told.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    }
}

#[test]
fn clients_that_do_not_read_a_stream_are_disconnected() {
    let server = server();
    let connection = ask(&server, "not_reading", "1.1");
    let stream = responder_of("not_reading").stream(Response::empty(200));
    let (tell, told) = channel();
    stream.client().when_gone(Box::new(move || tell.send(()).unwrap()));
    let mut pieces = 0;
    while stream.push(&[b'x'; 16 * 1024]) {
        pieces += 1;
        assert!(pieces < 10_000, "so much cannot fit into the sockets and {MAX_BEHIND_BYTES} bytes");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    drop(connection);
    // A client that reads receives everything.
    let mut reads = ask(&server, "reads", "1.1");
    let stream = responder_of("reads").stream(Response::empty(200));
    for piece in 0..200 {
        assert!(stream.push(format!("{piece:>16384}").as_bytes()));
        reads.read_until(&format!("{piece}\r\n"));
    }
}

#[test]
fn stream_buffers_stay_below_the_memory_limit() {
    const MOST: usize = 8 << 20;
    let server = Server::with_routes(&ROUTES, |config| config.server.max_buffered = MOST);
    let kept = || server.running().service().broadcaster().stream_memory().bytes();
    let follow = |name: &str| {
        let client = ask(&server, name, "1.1");
        (client, responder_of(name).stream(Response::empty(200)))
    };
    let not_reading: Vec<_> = (0..60).map(|number| follow(&format!("not_reading-{number}"))).collect();
    let (mut reads, stream) = follow("good");
    let mut round = 0;
    while not_reading.iter().all(|(_, stream)| !stream.client().is_gone()) {
        round += 1;
        assert!(round < 1_000, "so much cannot fit into the sockets");
        for (_, stream) in &not_reading {
            stream.push(&[b'x'; 8 * 1024]);
        }
        assert!(stream.push(format!("round {round}.").as_bytes()), "a client that reads stays");
        reads.read_until(&format!("round {round}."));
        // The event loop sends first, and then frees memory.
        common::eventually(|| kept() <= MOST);
    }
    // Shared chunks are kept once.
    drop(not_reading);
    common::eventually(|| kept() == 0);
    let all: Vec<_> = (0..60).map(|number| follow(&format!("all-{number}"))).collect();
    let shared =
        StreamChunk::new(&vec![b'x'; 64 * 1024], server.running().service().broadcaster().stream_memory());
    for (_, stream) in &all {
        assert!(stream.share(&shared) && stream.share(&shared));
    }
    assert!(kept() < 65 * 1024, "{} bytes are kept", kept());
}

#[test]
fn requests_parked_by_a_reader_thread_behave_the_same() {
    let mut server = server();
    let look = |name: &str| {
        let mut connection = Raw::connect(server.address());
        connection.send(format!("GET /looks/{name} HTTP/1.1\r\nHost: h\r\n\r\n"));
        connection
    };
    let gone = look("looks-gone");
    let waiting = responder_of("looks-gone");
    let (tell, told) = channel();
    waiting.client().when_gone(Box::new(move || tell.send(()).unwrap()));
    drop(gone);
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    let mut answered = look("looks-answered");
    responder_of("looks-answered").send(text_response("answered"));
    answered.read_until("answered");
    let mut stopped = look("looks-stopped");
    let waiting = responder_of("looks-stopped");
    server.stop();
    stopped.answers()[0].refused(503, "busy");
    assert!(waiting.client().is_gone());
}

#[test]
fn chunks_count_by_payload_and_a_large_one_is_sent_whole() {
    let server = server();
    let mut reads = ask(&server, "small", "1.1");
    let stream = responder_of("small").stream(Response::empty(200));
    assert!(stream.push(&vec![b'x'; MAX_BEHIND_BYTES + 1]), "who has read all there was gets more at once");
    reads.read_until(&"x".repeat(MAX_BEHIND_BYTES));
    // The client may have read the bytes before the event loop has counted them.
    common::eventually(|| stream.client().behind() == 0);
    assert!(stream.push(b"the end"));
    reads.read_until("the end");
    // One byte at a time, with six bytes of framing each: only the payload counts, on both sides.
    let not_reading = ask(&server, "small-not_reading", "1.1");
    let stream = responder_of("small-not_reading").stream(Response::empty(200));
    let mut pieces = 0;
    while stream.push(b"x") {
        pieces += 1;
        assert!(pieces < 10_000_000, "it is never cut off");
        if pieces % 10_000 == 0 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    drop(not_reading);
}

#[test]
fn requests_of_closed_connections_are_not_read() {
    let server = server();
    let ask = |name: &str| {
        let mut connection = Raw::connect(server.address());
        connection.send(format!("GET /gate/{name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        connection
    };
    let all = usize::try_from(READERS).unwrap();
    let busy: Vec<_> = (0..READERS).map(|_| ask("busy")).collect();
    wait_until_read(all);
    let gone: Vec<_> = (0..50).map(|_| ask("gone")).collect();
    // They have closed the sending direction. They may be gone, and are not.
    let mut half_closed: Vec<_> = (0..20).map(|_| ask("half-closed")).collect();
    half_closed.iter_mut().for_each(Raw::finish);
    let good = ask("good");
    // All of them have been received when a later request is answered.
    while server.client().try_request("GET", "/at-once", &[], b"").unwrap().status != 200 {}
    gone.into_iter().for_each(Raw::reset);
    common::eventually(|| server.running().service().metrics().connections.get() <= 4 + 20 + 1 + 2);
    // One reader goes on: what it reads next is what comes first.
    open_the_gate(1);
    wait_until_read(all + 1);
    assert_eq!(READ.lock().unwrap()[all], "good");
    open_the_gate(usize::MAX);
    for mut connection in busy.into_iter().chain(half_closed).chain([good]) {
        assert_eq!(connection.answers()[0].text(), "read");
    }
    let read = READ.lock().unwrap().clone();
    assert_eq!(read.len(), all + 20 + 1, "nothing for those who are gone: {read:?}");
}

#[test]
fn new_chunks_do_not_extend_the_write_timeout() {
    let server =
        Server::with_routes(&ROUTES, |config| config.server.write_timeout = Duration::from_millis(300));
    let not_reading = ask(&server, "stalled", "1.1");
    let stream = responder_of("stalled").stream(Response::empty(200));
    // As much as the socket buffers hold: until something stays behind. On a slow machine that takes longer than the
    // timeout.
    let stays_behind = |_| {
        std::thread::park_timeout(Duration::from_millis(10));
        stream.client().behind() > 0
    };
    while !stream.client().is_gone() && !(0..10).all(stays_behind) {
        stream.push(&vec![b'x'; 32 * 1024]);
    }
    let mut added = 0;
    while !stream.client().is_gone() {
        stream.push(b"more");
        added += 1;
        assert!(added < 4_000, "it is never cut off");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    drop(not_reading);
}

#[test]
fn bytes_sent_while_parked_are_not_buffered() {
    let server = Server::with_routes(&ROUTES, |config| config.server.max_buffered = 1 << 20);
    let mut talks = ask(&server, "talks", "1.1");
    let waiting = responder_of("talks");
    talks.set_patience(Duration::from_millis(50));
    // Until the socket buffers are full: the server reads no more.
    while talks.try_send(&[b'x'; 8 * 1024]).is_ok() {}
    assert!(!waiting.client().is_gone(), "it has cost the door no memory to speak of");
    waiting.send(text_response("answered"));
    talks.read_until("answered");
}

#[test]
fn shutdown_answers_parked_requests() {
    let mut server = server();
    let mut parked = ask(&server, "stopped", "1.1");
    let waiting = responder_of("stopped");
    let mut reads = ask(&server, "stopped-stream", "1.1");
    let stream = responder_of("stopped-stream").stream(text_response("begun"));
    reads.read_until("begun\r\n");
    server.stop();
    let answers = parked.answers();
    answers[0].refused(503, "busy");
    assert_eq!(answers[0].header("retry-after"), Some("1"));
    assert_eq!(reads.read_all(), b"0\r\n\r\n", "the stream ends as it should");
    assert!(waiting.client().is_gone() && stream.client().is_gone());
}

#[test]
fn parked_connections_are_not_evicted_at_the_connection_limit() {
    let server = Server::with_routes(&ROUTES, |config| config.server.max_connections = 10);
    let mut waiting: Vec<_> = (0..10).map(|number| ask(&server, &format!("full-{number}"), "1.1")).collect();
    let responders: Vec<_> = (0..10).map(|number| responder_of(&format!("full-{number}"))).collect();
    for _ in 0..5 {
        let mut late = Raw::connect(server.address());
        let answers = late.answers();
        answers[0].refused(503, "busy");
        assert_eq!(answers[0].header("retry-after"), Some("1"));
    }
    // Far more connections than are answered. They do not evict the parked ones.
    drop((0..100).map(|_| Raw::connect(server.address())).collect::<Vec<_>>());
    for responder_of in responders {
        assert!(!responder_of.client().is_gone());
        responder_of.send(text_response("at last"));
    }
    for connection in &mut waiting {
        connection.read_until("at last");
    }
    common::eventually(|| server.running().service().metrics().connections.get() <= 10);
    let mut comes = Raw::connect(server.address());
    comes.send("GET /reads HTTP/1.1\r\nHost: h\r\n\r\n");
    comes.read_until("read");
}
