//! The server: the only user of `tiny_http`.
//!
//! It listens on a Unix socket that only the door knows (see `door`), so what it reads is complete, well-formed and
//! small. One thread receives the requests. It does nothing that takes long: it neither reads from the store nor checks a
//! signature. It hands those that write to the writer. What reads goes to a few other threads, and credentials that are
//! not in memory go to one more; both are put aside, so that they hold up nothing behind them, and both are bounded. An
//! answer is one buffer, written when its turn comes, by whoever completed it.

use std::borrow::Cow;
use std::io;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::authorize::Identity;
use super::correlation_id::{self, Tag};
use super::deferred::{Extent, Ticket};
use super::dispatch::App;
use super::exchange::{
    ASSERTED_NAME, ASSERTED_USER, Headers, Outlet, PutOff, Reply, Request, Response, Seen,
};
use super::outbox::Holds;
use super::pages;
use super::problem::Problem;
use super::render::{Asked, Renderer};
use super::router::Matched;
use super::routes::{RENEW, RENEW_MANY};
use super::turns::{self, Turn, Turns};
use crate::auth::{Before, Effort, Refusal};
use crate::error::Error;
use crate::time::Clock;

/// Threads that carry out what only reads.
pub const READERS: u32 = 4;
/// Threads here that read from the store: those, and the one that looks up credentials.
pub const READING_THREADS: u32 = READERS + 1;
/// Most requests that wait for one of the readers, or to be looked up; more are told to try again.
const WAITING: usize = 1024;
/// Most bytes of a request id that is taken over from the caller.
const REQUEST_ID_BYTES: usize = 128;

/// Operations that are logged at `debug` when they go well: there are many, and none says anything new.
const ROUTINE: [&str; 3] = [pages::NAME, RENEW, RENEW_MANY];

/// A request that was received.
struct Received {
    request: Request,
    named: Matched,
    /// Who sent it, as far as that is known.
    identity: Identity,
    reply: Reply,
}

/// Where requests wait for a thread.
type Lane = (Sender<Received>, Receiver<Received>);

/// The ways on from the thread that receives.
struct Lanes {
    /// To the one that looks up who is calling.
    look_ups: Sender<Received>,
    /// To those that carry out what takes time.
    readers: Sender<Received>,
}

/// A server that runs.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Says so when the last thread has ended.
    ended: mpsc::Receiver<()>,
}

struct Shared {
    http: tiny_http::Server,
    app: App,
    clock: Clock,
    renderer: Renderer,
    holds: Arc<Holds>,
    turns: Turns<u64>,
    stopping: AtomicBool,
    /// Begins the ids of this run.
    run: i64,
}

impl Server {
    /// Listens on `listener` for the door, and answers with `app`. What is put off goes through `holds`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(listener: UnixListener, app: App, holds: Arc<Holds>, clock: Clock) -> io::Result<Self> {
        let http = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            http,
            app,
            run: clock.wall_micros(),
            renderer: Renderer::new(clock.clone()),
            clock,
            holds,
            turns: Turns::default(),
            stopping: AtomicBool::new(false),
        });
        let (readers, waiting) = bounded(WAITING);
        let (look_ups, unknown) = bounded(WAITING);
        let doubtful: Lane = bounded(WAITING);
        let (running, ended) = mpsc::channel::<()>();
        let lanes = Lanes { look_ups, readers: readers.clone() };
        let receiver = (Arc::clone(&shared), running.clone());
        let mut threads = vec![Builder::new().name("requests".to_owned()).spawn(move || {
            let (shared, _until_the_end) = receiver;
            shared.receive(&lanes);
        })?];
        let looks_up = (Arc::clone(&shared), running.clone());
        threads.push(Builder::new().name("credentials".to_owned()).spawn(move || {
            let (shared, _until_the_end) = looks_up;
            shared.look_up(&unknown, &readers);
        })?);
        for number in 0..READERS {
            let (shared, waiting, running) = (Arc::clone(&shared), waiting.clone(), running.clone());
            let doubtful = doubtful.clone();
            let reader = Builder::new().name(format!("reads {number}"));
            threads.push(reader.spawn(move || {
                let _until_the_end = running;
                shared.read_on(&waiting, &doubtful);
            })?);
        }
        Ok(Self { shared, threads, ended })
    }

    /// Takes no more requests, and waits for `patience` until those that were taken are with whoever answers them.
    /// The door, which stands before it, is to be stopped first.
    pub fn stop(self, patience: Duration) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.http.unblock();
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            log::error!("a request that takes very long is left behind");
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
    /// Receives until it is over, and hands on what takes time. When it returns, the others finish what waits.
    fn receive(self: Arc<Self>, lanes: &Lanes) {
        while let Some(request) = self.next() {
            if let Some((request, reply)) = self.take(request) {
                at_its_own_cost(|| self.begin(request, reply, lanes));
            }
        }
    }

    /// Finds out what a request is, and where it goes on. Nothing here reads from the store or checks a signature.
    fn begin(&self, mut request: Request, mut reply: Reply, lanes: &Lanes) {
        let named = self.app.find(&request);
        if let Matched::Route(route, _) = &named {
            reply.is_for(route.name);
        }
        let reply = if named.writes_though_it_is_read(&request.method) { reply.aside() } else { reply };
        if let Err(problem) = self.app.drop_body(&mut request, &named) {
            return reply.refuse(&problem);
        }
        let identity = self.app.identify(&request, &named, Effort::Recall);
        let Some(Err(Refusal::NotRecalled(before))) = identity else {
            return self.go_on(Received { request, named, identity, reply }, &lanes.readers);
        };
        if before == Before::Nothing
            && let Err(problem) = self.app.may_look_up(&request)
        {
            return reply.refuse(&problem);
        }
        hand_on(Received { request, named, identity, reply }, &lanes.look_ups);
    }

    /// Carries out a request whose sender is known, or hands it on if that takes time.
    fn go_on(&self, received: Received, readers: &Sender<Received>) {
        if received.named.takes_time() { hand_on(received, readers) } else { self.serve(received) }
    }

    /// Looks up who is calling, for those of whom that is not known. They wait for each other and for nobody else.
    fn look_up(self: Arc<Self>, unknown: &Receiver<Received>, readers: &Sender<Received>) {
        for Received { request, named, reply, .. } in unknown {
            if reply.is_gone() {
                reply.give_up();
                continue;
            }
            at_its_own_cost(|| {
                let identity = self.app.look_up(&request, &named);
                self.go_on(Received { request, named, identity, reply }, readers);
            });
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
                Err(error) => log::error!("the door can open no more connections: {error}"),
            }
        }
    }

    /// Carries out what waits. What is for one who may be gone comes after the rest.
    fn read_on(self: Arc<Self>, waiting: &Receiver<Received>, doubtful: &Lane) {
        while let Some(received) = next_read(waiting, &doubtful.1) {
            self.holds.wait_for_room();
            if received.reply.is_gone() {
                received.reply.give_up();
            } else if received.reply.is_doubtful() && !waiting.is_empty() {
                hand_on(received, &doubtful.0);
            } else {
                self.serve(received);
            }
        }
    }

    /// Answers a request, now or later.
    fn serve(&self, Received { request, named, identity, reply }: Received) {
        at_its_own_cost(|| self.app.handle(&request, named, identity, reply));
    }

    /// A request, and the way back to whoever sent it; nothing if that is all there was to it.
    fn take(self: &Arc<Self>, mut incoming: tiny_http::Request) -> Option<(Request, Reply)> {
        let started = self.clock.monotonic();
        let Some(tag) = tag_of(&incoming) else {
            log::error!("something that is not the door has sent a request; it is not answered");
            return None;
        };
        let turn = self.turns.take(tag.connection);
        let request = self.read(&mut incoming, &tag);
        let writer = incoming.into_writer();
        // No client can ask for this target with this method.
        if request.method == correlation_id::PING && request.path == "*" {
            self.turns.complete(turn, writer, correlation_id::pong(tag.id));
            return None;
        }
        let line = Line {
            tag,
            id: request.id.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            origin: self.app.allowed_origin(&request).map(str::to_owned),
            started,
        };
        let path = Path { shared: Arc::clone(self), turn, writer, line };
        Some((request, Reply::new(path.line.id.clone(), Box::new(path))))
    }

    /// The request, read whole: a body that stays behind would hold up what comes after it.
    fn read(&self, incoming: &mut tiny_http::Request, tag: &Tag) -> Request {
        let mut headers = Headers::default();
        let (mut id, mut twice) = (None, None);
        for header in incoming.headers() {
            let value = || Some(header.value.as_str().to_owned());
            let mut once = |name: &'static str, place: &mut Option<String>| {
                if place.replace(header.value.as_str().to_owned()).is_some() {
                    twice = Some(name);
                }
            };
            match header.field.as_str().as_str() {
                "Accept" => headers.accept = value(),
                "Authorization" => once("Authorization", &mut headers.authorization),
                "Content-Type" => headers.content_type = value(),
                "Host" => headers.host = value(),
                "Last-Event-ID" => once("Last-Event-ID", &mut headers.last_event_id),
                "Origin" => once("Origin", &mut headers.origin),
                "X-Lock-Fence" => once("X-Lock-Fence", &mut headers.lock_fence),
                "X-Lock-Workspace" => once("X-Lock-Workspace", &mut headers.lock_workspace),
                ASSERTED_USER => once("the header with the user", &mut headers.asserted_user),
                ASSERTED_NAME => once("the header with the name", &mut headers.asserted_name),
                "X-User-Id" => once("X-User-Id", &mut headers.user_id),
                "X-User-Name" => once("X-User-Name", &mut headers.user_name),
                "X-Request-Id" => id = plausible(header.value.as_str()),
                _ => {}
            }
        }
        headers.twice = twice;
        let url = incoming.url();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let request = Request {
            id: id.unwrap_or_else(|| format!("{:x}-{:x}", self.run, tag.id)),
            method: incoming.method().as_str().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
            client: tag.client,
        };
        Request { body: body(incoming), ..request }
    }
}

/// The way back to the client of one request.
struct Path {
    shared: Arc<Shared>,
    turn: Turn<u64>,
    writer: turns::Outlet,
    line: Line,
}

/// What an answer needs to know of its request, and the log's line about it.
struct Line {
    tag: Tag,
    id: String,
    method: String,
    path: String,
    origin: Option<String>,
    started: Duration,
}

impl Outlet for Path {
    fn respond(self: Box<Self>, response: &Response, seen: &Seen) {
        let Self { shared, turn, writer, line } = *self;
        let mut bytes = Vec::with_capacity(512 + response.body.len());
        line.render(&shared, &mut bytes, &correlation_id::answer(line.tag.id), response, Extent::Whole);
        shared.turns.complete(turn, writer, bytes);
        line.note(&shared, response, seen);
    }

    fn hold(self: Box<Self>, seen: Seen, put_off: PutOff) -> Ticket {
        let Self { shared, turn, writer, line } = *self;
        let (id, request_id) = (line.tag.id, line.id.clone());
        let holds = Arc::clone(&shared.holds);
        let later = Arc::clone(&shared);
        // Before the door hears of it, so that it can tell at once that the client is gone.
        let ticket = holds.ticket(
            id,
            request_id,
            seen,
            Box::new(move |response, extent, seen| {
                let mut bytes = Vec::with_capacity(512 + response.body.len());
                line.render(&later, &mut bytes, "", response, extent);
                line.note(&later, response, seen);
                bytes
            }),
        );
        shared.turns.complete(turn, writer, correlation_id::held(id, put_off));
        ticket
    }
}

impl Line {
    fn render(&self, shared: &Shared, bytes: &mut Vec<u8>, first: &str, response: &Response, extent: Extent) {
        let asked = Asked {
            request_id: &self.id,
            is_head: self.method == "HEAD",
            varies_by_origin: !shared.app.cors_origins.is_empty(),
            origin: self.origin.as_deref(),
        };
        shared.renderer.render(bytes, first, response, &asked, extent);
    }

    /// Counts a request that was answered, and writes its line into the log. Not the query, which may hold more than
    /// a log should.
    fn note(&self, shared: &Shared, response: &Response, seen: &Seen) {
        let status = response.status;
        let seconds = shared.clock.monotonic().saturating_sub(self.started).as_secs_f64();
        shared.app.service.metrics().request(seen.route.unwrap_or("none"), status, seconds);
        let is_routine = status < 400 && seen.route.is_some_and(|route| ROUTINE.contains(&route));
        let level = if is_routine { log::Level::Debug } else { log::Level::Info };
        if !log::log_enabled!(target: "lockhouse::request", level) {
            return;
        }
        let user = seen.user_id.as_deref().unwrap_or_default();
        let (method, path) = (shortened(&self.method), shortened(&self.path));
        let (id, method, path) = (self.id.as_str(), &*method, &*path);
        let client = correlation_id::Client(self.tag.client);
        let code = response.code.unwrap_or_default();
        let space = if code.is_empty() { "" } else { " " };
        let duration_ms = (seconds * 1e5).round() / 1e2;
        log::log!(
            target: "lockhouse::request",
            level,
            message = "request", id = id, client:% = client, method = method, path = path, status = status, code = code, duration_ms = duration_ms, user = user;
            "{client} {method} {path} {status}{space}{code} {duration_ms:.2} ms user={user:?} id={id}"
        );
    }
}

/// What panics costs this request and not the thread. The cause is logged by the panic hook, and the request by its reply.
fn at_its_own_cost(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

/// Puts a request off until another thread comes to it, if there is room.
fn hand_on(received: Received, lane: &Sender<Received>) {
    let received = Received { reply: received.reply.aside(), ..received };
    if let Err(unsent) = lane.try_send(received) {
        let Received { request, reply, .. } = unsent.into_inner();
        reply.refuse(&Problem::of(&Error::Busy, &request.id));
    }
}

/// What is to be read next; nothing when it is over.
fn next_read(waiting: &Receiver<Received>, doubtful: &Receiver<Received>) -> Option<Received> {
    select_biased! {
        recv(waiting) -> received => received.ok().or_else(|| doubtful.try_recv().ok()),
        recv(doubtful) -> received => received.ok(),
    }
}

fn tag_of(request: &tiny_http::Request) -> Option<Tag> {
    // The door writes it first.
    let header = request
        .headers()
        .first()
        .filter(|header| header.field.as_str().as_str() == correlation_id::HEADER)?;
    Tag::parse(header.value.as_str())
}

fn body(incoming: &mut tiny_http::Request) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(incoming.body_length().unwrap_or_default());
    if incoming.as_reader().read_to_end(&mut bytes).is_err() {
        // The door is gone, and with it whoever asked.
        bytes.clear();
    }
    bytes
}

/// What of a text stands in a line of the log.
fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        Some(_) => Cow::Owned(text.chars().take(SHOWN - 1).chain(['…']).collect()),
        None => Cow::Borrowed(text),
    }
}

/// A request id that may be repeated in a header and in the log.
fn plausible(id: &str) -> Option<String> {
    let fine = (1..=REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
    fine.then(|| id.to_owned())
}
