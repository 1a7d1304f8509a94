//! The server: the only user of `tiny_http`.
//!
//! It listens on loopback. One thread receives the requests and hands those that write to the writer, which takes it
//! no time; what reads, or comes with a body that has not arrived yet, goes to a few others. An answer is one buffer,
//! written when its turn comes, by whoever completed it.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use chrono::DateTime;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::dispatch::App;
use super::exchange::{Body, Headers, Reply, Request, Response, Seen};
use super::turns::{Turn, Turns};
use crate::time::Clock;

/// Most bytes of a body.
pub const BODY_BYTES: usize = 64 * 1024;
/// Threads that carry out what only reads.
pub const READERS: u32 = 4;
/// How long the end waits for clients that are in the middle of something.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most requests that wait for one of them; then the others wait too.
const WAITING: usize = 1024;
/// `tiny_http` has read a body up to here before it hands the request over (bytes).
const ARRIVED_BYTES: usize = 1024;
/// Most bytes of a request id that is taken over from the caller.
const REQUEST_ID_BYTES: usize = 128;

/// The address that stands for every client of one `tiny_http` connection.
type Client = Option<SocketAddr>;

/// A request that was received, and its place among those of its connection.
type Received = (tiny_http::Request, Turn<Client>);

/// A server that runs.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Says so when the last thread has ended.
    ended: mpsc::Receiver<()>,
    address: SocketAddr,
}

struct Shared {
    http: tiny_http::Server,
    app: App,
    clock: Clock,
    turns: Turns<Client>,
    stopping: AtomicBool,
    /// Begins the ids of this run.
    run: i64,
    next_id: AtomicU64,
    /// The second that was shown last, and how.
    date: Mutex<(i64, String)>,
}

impl Server {
    /// Listens on `listener` and answers with `app`.
    ///
    /// # Errors
    /// When the system gives no socket or no thread.
    pub fn start(listener: TcpListener, app: App, clock: Clock) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let http = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            http,
            app,
            run: clock.wall_micros(),
            clock,
            turns: Turns::default(),
            stopping: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            date: Mutex::default(),
        });
        let (sender, waiting) = bounded(WAITING);
        let (running, ended) = mpsc::channel::<()>();
        let receiver = (Arc::clone(&shared), running.clone());
        let mut threads = vec![Builder::new().name("requests".to_owned()).spawn(move || {
            let (shared, _until_the_end) = receiver;
            shared.receive(&sender);
        })?];
        for number in 0..READERS {
            let (shared, waiting, running) = (Arc::clone(&shared), waiting.clone(), running.clone());
            let reader = Builder::new().name(format!("reads {number}"));
            threads.push(reader.spawn(move || {
                let _until_the_end = running;
                shared.read_on(&waiting);
            })?);
        }
        Ok(Self { shared, threads, ended, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and waits until those that were taken are with whoever answers them.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.http.unblock();
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("a client that does not send what it announced, or does not read, is left behind");
            return;
        }
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread of the server had panicked");
            }
        }
    }
}

impl Shared {
    /// Receives until it is over, and hands on what takes time. When it returns, the readers finish what waits.
    fn receive(self: Arc<Self>, readers: &Sender<Received>) {
        while let Some(request) = self.next() {
            let turn = self.turns.take(request.remote_addr().copied());
            let arrived = request.body_length().unwrap_or(0) <= ARRIVED_BYTES
                && !request.headers().iter().any(|header| {
                    ["Transfer-Encoding", "Expect", "Upgrade"].iter().any(|name| header.field.equiv(name))
                        || (header.field.equiv("Connection") && header.value != "close")
                });
            if arrived && !matches!(request.method(), tiny_http::Method::Get | tiny_http::Method::Head) {
                self.serve((request, turn));
            } else if let Err(unsent) = readers.send((request, turn)) {
                // They end after this thread.
                self.serve(unsent.into_inner());
            }
        }
    }

    /// The next request, or nothing when it is over.
    fn next(&self) -> Option<tiny_http::Request> {
        loop {
            if self.stopping.load(Ordering::SeqCst) {
                // What had arrived by then is still answered.
                return self.http.try_recv().ok().flatten();
            }
            match self.http.recv() {
                Ok(request) => return Some(request),
                Err(_) if self.stopping.load(Ordering::SeqCst) => {}
                Err(error) => log::error!("no more connections are accepted, restart the server: {error}"),
            }
        }
    }

    fn read_on(self: Arc<Self>, waiting: &Receiver<Received>) {
        while let Ok(received) = waiting.recv() {
            self.serve(received);
        }
    }

    /// Answers a request, now or later. A handler that panics costs this request and not the thread.
    fn serve(self: &Arc<Self>, (request, turn): Received) {
        // The cause is logged by the panic hook, and the request by its reply.
        let _ = catch_unwind(AssertUnwindSafe(|| self.take(request, turn)));
    }

    fn take(self: &Arc<Self>, mut incoming: tiny_http::Request, turn: Turn<Client>) {
        let started = self.clock.monotonic();
        let (request, connection) = self.read(&mut incoming);
        let outlet = incoming.into_writer();
        let shared = Arc::clone(self);
        let (method, path) = (request.method.clone(), request.path.clone());
        let id = request.id.clone();
        let origin = self.app.allowed_origin(&request).map(str::to_owned);
        let reply = Reply::new(id.clone(), move |response, seen| {
            let answer = shared.render(&response, &method, &id, origin.as_deref(), connection);
            shared.turns.complete(turn, outlet, answer);
            let took = shared.clock.monotonic().saturating_sub(started);
            shared.note(&id, &method, &path, response.status, took, seen);
        });
        self.app.handle(&request, reply);
    }

    /// The request, read whole: a body that stays behind would hold up what comes after it.
    fn read(&self, incoming: &mut tiny_http::Request) -> (Request, Connection) {
        let mut headers = Headers::default();
        let (mut id, mut twice) = (None, None);
        let mut connection = Connection::of(incoming.http_version());
        let mut chunked = false;
        for header in incoming.headers() {
            let value = || Some(header.value.as_str().to_owned());
            let mut once = |name: &'static str, place: &mut Option<String>| {
                if place.replace(header.value.as_str().to_owned()).is_some() {
                    twice = Some(name);
                }
            };
            match header.field.as_str().as_str().to_ascii_lowercase().as_str() {
                "content-type" => headers.content_type = value(),
                "origin" => headers.origin = value(),
                "x-user-id" => once("X-User-Id", &mut headers.user_id),
                "x-user-name" => once("X-User-Name", &mut headers.user_name),
                "x-request-id" => id = plausible(header.value.as_str()),
                "connection" => connection = connection.asked(header.value.as_str()),
                "transfer-encoding" => chunked = true,
                _ => {}
            }
        }
        headers.twice = twice;
        let url = incoming.url();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let request = Request {
            id: id.unwrap_or_else(|| self.fresh_id()),
            method: incoming.method().as_str().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Body::default(),
        };
        let body = body(incoming, chunked, connection);
        (Request { body, ..request }, connection)
    }

    fn fresh_id(&self) -> String {
        format!("{:x}-{:x}", self.run, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes of a response, with the headers that every response has.
    fn render(
        &self,
        response: &Response,
        method: &str,
        id: &str,
        origin: Option<&str>,
        connection: Connection,
    ) -> Vec<u8> {
        let status = tiny_http::StatusCode(response.status);
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nX-Request-Id: {id}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            response.status,
            status.default_reason_phrase(),
            self.http_date(),
        );
        let mut header = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if let Some(content_type) = response.content_type {
            header("Content-Type", content_type);
        }
        if response.status != 204 {
            header("Content-Length", &response.body.len().to_string());
        }
        for (name, value) in &response.headers {
            header(name, value);
        }
        if !self.app.cors_origins.is_empty() {
            header("Vary", "Origin");
        }
        if let Some(origin) = origin {
            header("Access-Control-Allow-Origin", origin);
            header("Access-Control-Expose-Headers", "Retry-After, X-Request-Id");
        }
        match connection {
            Connection::KeepAlive => {}
            Connection::KeepAliveAsked => header("Connection", "keep-alive"),
            Connection::Close | Connection::Upgrade => header("Connection", "close"),
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if method != "HEAD" {
            bytes.extend_from_slice(&response.body);
        }
        bytes
    }

    /// The `Date` of an answer (RFC 9110 §5.6.7), made once a second.
    fn http_date(&self) -> String {
        let second = self.clock.wall().0.div_euclid(1_000);
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.0 != second || date.1.is_empty() {
            let now = DateTime::from_timestamp_secs(second).unwrap_or_default();
            *date = (second, now.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        date.1.clone()
    }

    /// Counts a request that was answered, and writes its line into the log. Not the query, which may hold more than
    /// a log should.
    fn note(&self, id: &str, method: &str, path: &str, status: u16, took: Duration, seen: &Seen) {
        let seconds = took.as_secs_f64();
        self.app.service.metrics().request(seen.route.unwrap_or("none"), status, seconds);
        let user = seen.user_id.as_deref().unwrap_or_default();
        let (method, path) = (&printable(method), &printable(path));
        log::info!(
            target: "lockhouse::request",
            id = id, method = method, path = path, status = status, duration_ms = seconds * 1e3, user = user;
            "{method} {path} {status} {:.2} ms user={user:?} id={id}", seconds * 1e3
        );
    }
}

/// What becomes of a connection after an answer (RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// It stays: the rule in HTTP/1.1.
    KeepAlive,
    /// It stays because an HTTP/1.0 client asked for it.
    KeepAliveAsked,
    /// It ends: the rule in HTTP/1.0, or the client asked for it.
    Close,
    /// The client wants to talk something else, which we do not: it ends.
    Upgrade,
}

impl Connection {
    fn of(version: &tiny_http::HTTPVersion) -> Self {
        if *version < tiny_http::HTTPVersion(1, 1) { Self::Close } else { Self::KeepAlive }
    }

    /// The same reading as `tiny_http`'s, which decides.
    fn asked(self, header: &str) -> Self {
        let asked = header.to_ascii_lowercase();
        match self {
            _ if asked.contains("close") => Self::Close,
            _ if asked.contains("upgrade") => Self::Upgrade,
            Self::Close if asked.contains("keep-alive") => Self::KeepAliveAsked,
            same @ (Self::KeepAlive | Self::KeepAliveAsked | Self::Close | Self::Upgrade) => same,
        }
    }
}

fn body(incoming: &mut tiny_http::Request, chunked: bool, connection: Connection) -> Body {
    let most = u64::try_from(BODY_BYTES).unwrap_or(u64::MAX);
    let length = match (chunked, incoming.body_length()) {
        (false, None | Some(0)) => return Body::default(),
        (false, Some(length)) if length > BODY_BYTES => return Body::TooLarge,
        (false, Some(length)) => u64::try_from(length).unwrap_or(most),
        // Before an upgrade `tiny_http` hands the bare connection over, which has no end.
        (true, _) if connection == Connection::Upgrade => return Body::Broken,
        (true, _) => most + 1,
    };
    let mut bytes = Vec::new();
    match incoming.as_reader().take(length).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > BODY_BYTES => Body::TooLarge,
        Ok(read) if !chunked && u64::try_from(read) != Ok(length) => Body::Broken,
        Ok(_) => Body::Whole(bytes),
        Err(_) => Body::Broken,
    }
}

/// What may stand in a line of the log.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// A request id that may be repeated in a header and in the log.
fn plausible(id: &str) -> Option<String> {
    let fine = (1..=REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
    fine.then(|| id.to_owned())
}
