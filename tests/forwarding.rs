//! Forwarding between the event loop and `tiny_http`: no fault gives a client the response of another one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{Raw, contract};
use lockhouse::api::exchange::{Response, WANTED};
use lockhouse::api::outbox::{Outbox, ResponseMessage};
use lockhouse::config::{Config, Listen};
use lockhouse::metrics::Metrics;
use lockhouse::server::listen::{Address, Bound};
use lockhouse::server::{Backend, Server};
use lockhouse::time::Clock;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(socket: PathBuf, outbox: Arc<Outbox>, on_failure: Box<dyn FnOnce() + Send>) -> (Server, SocketAddr) {
    let bound = Bound::at(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), 0o600).unwrap();
    let Address::Tcp(address) = *bound.address() else { panic!("it has a port") };
    (start_on(bound, socket, outbox, on_failure), address)
}

fn start_on(
    bound: Bound,
    socket: PathBuf,
    outbox: Arc<Outbox>,
    on_failure: Box<dyn FnOnce() + Send>,
) -> Server {
    let mut config = Config::default();
    config.server.max_buffered = 1 << 20;
    let backend = Backend {
        socket,
        wanted: WANTED,
        identity_headers: Vec::new(),
        identity_proxies: Vec::new(),
        outbox,
        allows_cors: true,
        on_failure,
    };
    let metrics = Arc::new(Metrics::default());
    Server::start(vec![bound], backend, &config.server, metrics, Clock::system()).unwrap()
}

/// A request as it arrives on the internal connection.
struct Forwarded {
    id: u64,
    path: String,
    stream: UnixStream,
}

/// A server whose requests arrive at the test, in place of `tiny_http`.
struct Fake {
    server: Option<Server>,
    address: SocketAddr,
    outbox: Arc<Outbox>,
    requests: Receiver<Forwarded>,
    _directory: TempDir,
}

impl Fake {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("http");
        let listener = UnixListener::bind(&socket).unwrap();
        let outbox = Arc::new(Outbox::default());
        let (send, requests) = channel();
        // It ends with the process.
        std::thread::spawn(move || accept(&listener, &send));
        let broken = Box::new(|| panic!("the event loop broke down"));
        let (server, address) = start(socket, Arc::clone(&outbox), broken);
        Self { server: Some(server), address, outbox, requests, _directory: directory }
    }

    /// Sends a request, and waits until it was forwarded.
    fn ask(&self, path: &str) -> (Raw, Forwarded) {
        let client = ask(self.address, path);
        let forwarded = self.requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(forwarded.path, path);
        (client, forwarded)
    }

    fn answer(&self, forwarded: &Forwarded) {
        let text = forwarded.path.clone().into_bytes();
        let message = ResponseMessage::Complete(Response::of(200, "text/plain", text));
        self.outbox.claim(forwarded.id).unwrap().post(message);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.take().unwrap().stop(Duration::from_secs(1));
    }
}

fn ask(address: SocketAddr, path: &str) -> Raw {
    let mut client = Raw::connect(address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
    client
}

fn accept(listener: &UnixListener, requests: &Sender<Forwarded>) {
    for stream in listener.incoming().flatten() {
        let requests = requests.clone();
        std::thread::spawn(move || read(&stream, &requests));
    }
}

fn read(stream: &UnixStream, requests: &Sender<Forwarded>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut id, mut length) = (String::new(), 0, 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [] => break,
                [_, target, "HTTP/1.1"] => target.clone_into(&mut path),
                ["X-Lockhouse:", value] => id = u64::from_str_radix(value, 16).unwrap(),
                ["Content-Length:", value] => length = value.parse().unwrap(),
                _ => {}
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        requests.send(Forwarded { id, path, stream: stream.try_clone().unwrap() }).ok()?;
    }
}

#[test]
fn responses_in_any_order_reach_their_clients() {
    let fake = Fake::start();
    let mut asked: Vec<_> = (0..100).map(|number| fake.ask(&format!("/{number}"))).collect();
    asked.iter().rev().for_each(|(_, forwarded)| fake.answer(forwarded));
    for (client, forwarded) in &mut asked {
        assert_eq!(client.answers()[0].text(), forwarded.path);
    }
}

#[test]
fn bytes_on_the_internal_connection_are_a_fault_and_reach_no_client() {
    let fake = Fake::start();
    for bad in [
        "x".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong".to_owned(),
        "HTTP/1.1 500 Internal Server Error\r\n\r\n".repeat(1_000),
    ] {
        let (mut received, early) = fake.ask("/received");
        let claimed = fake.outbox.claim(early.id).unwrap();
        let (mut lost, forwarded) = fake.ask("/lost");
        // The event loop may close the connection before all of it is sent.
        let _ = (&forwarded.stream).write_all(bad.as_bytes());
        // The request that was not received is withdrawn: it can be repeated without being carried out twice.
        let answers = lost.answers();
        answers[0].refused(503, "busy");
        assert_eq!((answers.len(), answers[0].header("retry-after")), (1, Some("1")));
        assert_eq!(answers[0].header("access-control-allow-origin"), Some("*"), "a page may read it");
        contract::check_refusal(&answers[0]);
        assert!(fake.outbox.claim(forwarded.id).is_none());
        // The one that was received is answered.
        assert!(!received.has_something(Duration::from_millis(1)));
        claimed.post(ResponseMessage::Complete(Response::of(200, "text/plain", b"/received".to_vec())));
        assert_eq!(received.answers()[0].text(), "/received");
        // The connection is opened again.
        let (mut next, forwarded) = fake.ask("/next");
        fake.answer(&forwarded);
        assert_eq!(next.answers()[0].text(), "/next");
    }
}

#[test]
fn lost_requests_are_refused_when_the_internal_connection_ends() {
    let fake = Fake::start();
    for _ in 0..5 {
        let mut lost: Vec<_> = (0..20).map(|number| fake.ask(&format!("/{number}"))).collect();
        lost[0].1.stream.shutdown(Shutdown::Both).unwrap();
        for (client, forwarded) in &mut lost {
            client.answers()[0].refused(503, "busy");
            assert!(fake.outbox.claim(forwarded.id).is_none());
        }
    }
}

#[test]
fn a_response_for_a_gone_client_is_dropped() {
    let fake = Fake::start();
    let (client, forwarded) = fake.ask("/gone");
    let claimed = fake.outbox.claim(forwarded.id).unwrap();
    drop(client);
    let say =
        |text: &str| ResponseMessage::Complete(Response::of(200, "text/plain", text.as_bytes().to_vec()));
    for round in 0..20 {
        // The slot of the disconnected client is reused.
        let path = format!("/{round}");
        let (mut next, forwarded) = fake.ask(&path);
        claimed.post(say("wrong"));
        fake.answer(&forwarded);
        let answers = next.answers();
        assert_eq!((answers.len(), answers[0].text()), (1, path.as_str()));
    }
}

#[test]
fn requests_in_flight_are_limited_by_bytes() {
    let fake = Fake::start();
    let body = "x".repeat(60_000);
    let mut clients: Vec<_> = (0..9)
        .map(|_| {
            let mut client = Raw::connect(fake.address);
            let head = "POST /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
            client.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
            client
        })
        .collect();
    // A quarter of a megabyte, and the request that exceeds it.
    let first: Vec<_> = (0..5).map(|_| fake.requests.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(fake.requests.recv_timeout(Duration::from_millis(50)).is_err());
    for forwarded in &first {
        fake.answer(forwarded);
    }
    for _ in 0..4 {
        fake.answer(&fake.requests.recv_timeout(PATIENCE).unwrap());
    }
    for client in &mut clients {
        assert_eq!(client.answers()[0].text(), "/large");
    }
}

#[test]
fn requests_wait_until_the_internal_server_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("http");
    let listener = UnixListener::bind(&socket).unwrap();
    let outbox = Arc::new(Outbox::default());
    let (server, address) = start(socket, Arc::clone(&outbox), Box::new(|| panic!("it broke down")));
    let mut early = ask(address, "/early");
    assert!(!early.has_something(Duration::from_millis(100)));
    let (send, requests) = channel();
    std::thread::spawn(move || accept(&listener, &send));
    let forwarded = requests.recv_timeout(PATIENCE).unwrap();
    outbox.claim(forwarded.id).unwrap().post(ResponseMessage::Complete(Response::empty(204)));
    assert_eq!(early.answers()[0].status, 204);
    server.stop(Duration::from_secs(1));
}

#[test]
fn an_event_loop_without_internal_server_reports_it_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let (tell, told) = channel();
    let broken = Box::new(move || tell.send(()).unwrap());
    // On a path and not on a port: a port that becomes free may be used by another test at once.
    let path = directory.path().join("listen");
    let bound = Bound::at(&Listen::Unix(path.clone()), 0o600).unwrap();
    let server = start_on(bound, directory.path().join("missing"), Arc::new(Outbox::default()), broken);
    told.recv_timeout(PATIENCE).unwrap();
    server.stop(Duration::from_secs(1));
    assert!(UnixStream::connect(path).is_err(), "nobody listens any more");
}
