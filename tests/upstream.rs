//! Between the door and the server: whatever goes wrong there, nobody gets what is somebody else's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Raw, contract};
use lockhouse::api::exchange::WANTED;
use lockhouse::api::outbox::Holds;
use lockhouse::config::Config;
use lockhouse::metrics::Metrics;
use lockhouse::server::listen::{Address, Bound};
use lockhouse::server::{Behind, Door, Settings};
use lockhouse::time::Clock;
use tempfile::TempDir;

/// A server with this socket.
fn behind(socket: PathBuf) -> Behind {
    Behind {
        socket,
        wanted: WANTED,
        asserted: Vec::new(),
        asserted_by: Vec::new(),
        holds: Arc::new(Holds::default()),
        pages_may_call: true,
        broken: Box::new(|| panic!("the door broke down")),
    }
}

fn open(before: Behind) -> (Door, SocketAddr) {
    let mut config = Config::default();
    config.server.listen.set_port(0);
    let bound = Bound::at(&config.server.listen, 0o600).unwrap();
    let Address::Tcp(address) = *bound.address() else { panic!("it has a port") };
    let settings = Settings::of(&config.server);
    let metrics = Arc::new(Metrics::default());
    (Door::open(vec![bound], before, settings, metrics, Clock::system()).unwrap(), address)
}

/// A door before a server that does as the path tells it.
struct House {
    door: Option<Door>,
    address: SocketAddr,
    opened: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl House {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("http");
        let listener = UnixListener::bind(&socket).unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        // It ends when the directory and its socket are gone, with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(&stream));
            }
        });
        let (door, address) = open(behind(socket));
        Self { door: Some(door), address, opened, _directory: directory }
    }

    fn ask(&self, path: &str) -> Raw {
        let mut connection = Raw::connect(self.address);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        connection
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.door.take().unwrap().close(Duration::from_secs(1));
    }
}

fn serve(stream: &UnixStream) {
    let mut reader = BufReader::new(stream);
    let mut before: Option<String> = None;
    loop {
        let (mut path, mut id) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                [] => break,
                [method, target, "HTTP/1.1"] => {
                    (if method == "PING" { method } else { target }).clone_into(&mut path);
                }
                ["X-Lockhouse:", _, tag, _] => tag.clone_into(&mut id),
                _ => {}
            }
        }
        let fine = |id: &str, body: &str| {
            format!("HTTP/1.1 200 OK\r\nX-Lockhouse: {id}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let next = u64::from_str_radix(&id, 16).unwrap() + 1;
        let answer = match path.as_str() {
            "PING" => format!("HTTP/1.1 204 No Content\r\nX-Lockhouse: {id}\r\n\r\n"),
            "/wrong-id" => fine(&format!("{next:x}"), "wrong"),
            "/no-id" => "HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nwrong".to_owned(),
            "/id-too-late" => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Lockhouse: {id}\r\n\r\nwrong")
            }
            "/no-length" => format!("HTTP/1.1 200 OK\r\nX-Lockhouse: {id}\r\n\r\nwrong"),
            "/chunked" => format!(
                "HTTP/1.1 200 OK\r\nX-Lockhouse: {id}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwrong\r\n0\r\n\r\n"
            ),
            "/garbage" => "wrong wrong wrong\r\n\r\n".to_owned(),
            "/half" => fine(&id, "wrong").replace("Content-Length: 5", "Content-Length: 50"),
            "/nothing" => String::new(),
            "/twice" => fine(&id, "/twice").repeat(2),
            "/more" => fine(&id, "/more") + "wrong",
            "/swapped" => {
                before = Some(id);
                continue;
            }
            // The answer to this request before that to the one before.
            other if before.is_some() => fine(&id, other) + &fine(&before.take().unwrap(), "wrong"),
            other => fine(&id, other),
        };
        if (&*stream).write_all(answer.as_bytes()).is_err() || ["/half", "/nothing"].contains(&path.as_str())
        {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

#[test]
fn an_answer_that_is_not_surely_ones_own_is_nobodys() {
    let house = House::open();
    for path in
        ["/wrong-id", "/no-id", "/id-too-late", "/no-length", "/chunked", "/garbage", "/half", "/nothing"]
    {
        // Others are under way on the same connections: they get their own, or are told that it is lost.
        let others: Vec<_> = (0..20).map(|number| (number, house.ask(&format!("/fine/{number}")))).collect();
        let mut bad = house.ask(path);
        let more: Vec<_> = (20..40).map(|number| (number, house.ask(&format!("/fine/{number}")))).collect();
        let answers = bad.answers();
        assert_eq!(answers.len(), 1, "{path}");
        answers[0].refused(502, "bad_gateway");
        contract::check_refusal(&answers[0]);
        assert_eq!(answers[0].header("access-control-allow-origin"), Some("*"), "a page may read it");
        for (number, mut other) in others.into_iter().chain(more) {
            let answers = other.answers();
            match answers[0].status {
                200 => assert_eq!(answers[0].text(), format!("/fine/{number}"), "{path}"),
                _ => drop(answers[0].refused(502, "bad_gateway")),
            }
        }
    }
    // The connections that were closed were opened again.
    for number in 0..100 {
        let path = format!("/again/{number}");
        assert_eq!(house.ask(&path).answers()[0].text(), path);
    }
    assert!(house.opened.load(Ordering::SeqCst) > 8);
}

#[test]
fn more_than_was_asked_for_reaches_nobody() {
    let house = House::open();
    for path in ["/twice", "/more"] {
        for number in 0..20 {
            assert_eq!(house.ask(path).answers()[0].text(), path);
            let next = format!("/next/{number}");
            let answers = house.ask(&next).answers();
            match answers[0].status {
                200 => assert_eq!(answers[0].text(), next),
                _ => drop(answers[0].refused(502, "bad_gateway")),
            }
        }
    }
}

#[test]
fn answers_in_the_wrong_order_reach_nobody() {
    let house = House::open();
    let mut swaps = 0;
    for _ in 0..100 {
        let mut swapped = house.ask("/swapped");
        // As many as there are connections, at once: one of them goes over the same.
        let others: Vec<_> = (0..8).map(|_| house.ask("/fine")).collect();
        for mut other in others {
            let answers = other.answers();
            match answers[0].status {
                200 => assert_eq!(answers[0].text(), "/fine"),
                _ => drop(answers[0].refused(502, "bad_gateway")),
            }
        }
        // Unless this machine was too slow just then, and the door has seen that that one is slow.
        if swapped.has_something(Duration::from_millis(20)) {
            swapped.answers()[0].refused(502, "bad_gateway");
            swaps += 1;
        }
        if swaps == 3 {
            return;
        }
    }
    panic!("no two requests went over one connection");
}

#[test]
fn a_server_that_does_not_answer_yet_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("http");
    let listener = UnixListener::bind(&socket).unwrap();
    let (door, address) = open(behind(socket));
    let mut early = Raw::connect(address);
    early.send("GET /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(!early.has_something(Duration::from_millis(100)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    assert_eq!(early.answers()[0].text(), "/early");
    door.close(Duration::from_secs(1));
}

#[test]
fn a_door_that_cannot_reach_the_server_says_so_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let lost = Behind {
        broken: Box::new(move || tell.send(()).unwrap()),
        ..behind(directory.path().join("nobody"))
    };
    let (door, address) = open(lost);
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    door.close(Duration::from_secs(1));
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}
