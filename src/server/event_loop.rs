//! The event loop: owns the client connections; handles socket events, deadlines and messages.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use super::access_log::{AccessLog, CloseReason};
use super::backend::{Backend, NOT_STOPPING};
use super::client::{ClientConnection, ClientKey, Clients, ConnectionState};
use super::file_limit::room_for_connections;
use super::forward::Forwarder;

use super::listen::Bound;
use super::parser::Limits;
use super::requests::Requests;
use super::response::Renderer;

use crate::config;
use crate::metrics::Metrics;
use crate::time::Clock;

/// Event tokens. Tokens of the listeners and the clients follow those of the waker and the internal connection.
const WAKER: Token = Token(0);
const FORWARDER: Token = Token(1);
const FIRST_LISTENER: usize = 2;
pub(super) const FIRST_CLIENT: usize = 1_000;

/// Maximum number of events per round.
const EVENTS: usize = 1024;
/// Maximum number of consecutive full rounds before deadlines are checked.
const MAX_FULL_ROUNDS: u32 = 8;
/// Minimum time between two checks of the deadlines.
const CHECK_PAUSE: Duration = Duration::from_millis(20);
/// How long a shutdown waits for clients to read their last answer.
const CLOSE_GRACE: Duration = Duration::from_millis(100);
/// Maximum number of bytes per read.
const SCRATCH_BYTES: usize = 64 * 1024;

pub(super) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) bound: Vec<Bound>,
    /// A listener may have pending connections.
    pub(super) accept_pending: bool,
    pub(super) accept_again_at: Duration,
    /// Eviction is not attempted before this time, because no client was eligible.
    pub(super) no_eviction_until: Duration,
    pub(super) clients: Clients,
    /// When to check the deadlines: at the earliest one, or before.
    check_at: Duration,
    pub(super) forwarder: Forwarder,
    /// The id of the next request.
    pub(super) next_id: u64,
    pub(super) requests: Requests,
    /// Clients whose complete request waits to be forwarded.
    pub(super) queue: VecDeque<ClientKey>,
    /// Clients with pending output.
    pub(super) writers: Vec<ClientKey>,
    /// Clients with pending work.
    pub(super) busy: Vec<ClientKey>,
    /// The total size of the clients' buffers (bytes).
    pub(super) buffered: usize,
    pub(super) scratch: Vec<u8>,
    pub(super) settings: config::ServerConfig,
    /// The limits of a single request.
    pub(super) limits: Limits,
    pub(super) backend: Backend,
    pub(super) renderer: Renderer,
    pub(super) access_log: AccessLog,
    /// Prefix of the request ids of refusals, unique for this process.
    pub(super) run: i64,
    pub(super) refusals: u64,
    clock: Clock,
    pub(super) now: Duration,
    grace: Arc<AtomicU64>,
    /// The deadline of the shutdown; `None` if the server is not stopping.
    pub(super) stop_by: Option<Duration>,
}

impl EventLoop {
    pub(super) fn new(
        bound: Vec<Bound>,
        backend: Backend,
        settings: &config::ServerConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
        grace: Arc<AtomicU64>,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let mut settings = settings.clone();
        let limits = Limits {
            head_bytes: settings.max_head,
            headers: settings.max_headers,
            body_bytes: settings.max_body,
        };
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let wake = Arc::clone(&waker);
        // Waking fails only when the event loop has ended.
        backend.outbox.wake_with(move || drop(wake.wake()));
        for (number, bound) in bound.iter().enumerate() {
            bound.register(poll.registry(), Token(FIRST_LISTENER + number))?;
        }
        let room = room_for_connections()?;
        if room < settings.max_connections {
            log::warn!(
                "the limit of open files leaves room for {room} connections, not {}: see ulimit -n, or LimitNOFILE=",
                settings.max_connections
            );
            settings.max_connections = room;
        }
        let event_loop = Self {
            poll,
            bound,
            accept_pending: true,
            accept_again_at: Duration::ZERO,
            no_eviction_until: Duration::ZERO,
            clients: Clients::default(),
            check_at: Duration::MAX,
            forwarder: Forwarder::new(backend.socket.clone(), FORWARDER),
            next_id: 1,
            requests: Requests::default(),
            queue: VecDeque::new(),
            writers: Vec::new(),
            busy: Vec::new(),
            buffered: 0,
            scratch: vec![0; SCRATCH_BYTES],
            settings,
            limits,
            backend,
            renderer: Renderer::new(clock.clone()),
            access_log: AccessLog::new(metrics),
            run: clock.wall_micros(),
            refusals: 0,
            now: clock.monotonic(),
            clock,
            grace,
            stop_by: None,
        };
        Ok((event_loop, waker))
    }

    /// Runs until shutdown. Calls `on_failure` if the event loop ends for another reason.
    pub(super) fn run_to_end(mut self) {
        let on_failure = std::mem::replace(&mut self.backend.on_failure, Box::new(|| {}));
        // The panic hook logs the cause.
        let stopped = catch_unwind(AssertUnwindSafe(|| self.run()));
        if !matches!(stopped, Ok(true)) {
            on_failure();
        }
    }

    /// Runs until shutdown. Returns `false` if it ended for another reason.
    fn run(mut self) -> bool {
        let mut events = Events::with_capacity(EVENTS);
        let mut full_rounds = 0;
        while !self.is_over() {
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Ok(()) => {}
                // After SIGSTOP and SIGCONT: read pending input before checking deadlines.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("the event loop cannot wait for its sockets: {error}");
                    break;
                }
            }
            self.now = self.clock.monotonic();
            for event in &events {
                self.handle_event(event);
            }
            self.process();
            // Pending events are processed before deadlines are checked, for a limited number of rounds.
            let is_last = events.iter().count() < EVENTS;
            full_rounds = if is_last { 0 } else { full_rounds + 1 };
            if is_last || full_rounds > MAX_FULL_ROUNDS {
                self.check_deadlines();
                full_rounds = 0;
            }
            if self.forwarder.has_failed() && self.stop_by.is_none() {
                log::error!(
                    "cannot reach the internal socket: a thread has ended, or the socket's directory in TMPDIR was removed"
                );
                break;
            }
        }
        self.end();
        self.stop_by.is_some()
    }

    /// The maximum time to wait for events.
    fn poll_timeout(&self) -> Option<Duration> {
        if !self.busy.is_empty() || !self.backend.outbox.sleep() {
            return Some(Duration::ZERO);
        }
        let accept = self.accept_pending.then_some(self.accept_again_at);
        let shutdown = self.stop_by.map(|stop_by| stop_by.min(self.now + CLOSE_GRACE));
        let check = Some(self.check_at).filter(|at| *at < Duration::MAX);
        let next = [check, self.forwarder.next_attempt(), accept, shutdown];
        // Rounded up, because waking just before the deadline would need a second wake-up.
        let wait = next.into_iter().flatten().min()?.saturating_sub(self.now);
        Some(if wait.is_zero() { wait } else { wait + Duration::from_millis(1) })
    }

    fn handle_event(&mut self, event: &mio::event::Event) {
        let token = event.token();
        if let Some(slot) = token.0.checked_sub(FIRST_CLIENT) {
            // Slots are not reused while the events of a round are handled, so this is the right client.
            let Some(client) = self.clients.in_slot(slot) else { return };
            client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            client.hung_up |= event.is_read_closed() || event.is_error();
            if event.is_writable() {
                client.blocked = false;
                if !client.output.is_empty() && !client.writes {
                    client.writes = true;
                    self.writers.push(client.key);
                }
            }
            if client.readable {
                self.busy.push(client.key);
            }
        } else if token == FORWARDER {
            self.check_forwarder();
        } else if token != WAKER {
            self.accept_pending = true;
        }
    }

    /// Processes messages, new connections and client input.
    fn process(&mut self) {
        if self.stop_by.is_none() && self.grace.load(Ordering::SeqCst) != NOT_STOPPING {
            self.begin_to_stop();
        }
        self.read_messages();
        self.accept();
        self.forwarder.maintain(self.poll.registry(), self.now);
        self.serve_clients();
        self.reduce_memory();
    }

    /// Handles expired deadlines. Pending events were processed before.
    ///
    /// Each request moves its client's deadline, usually to a later time. So only the earliest deadline is stored. When
    /// it expires, all clients are scanned, which takes microseconds.
    fn check_deadlines(&mut self) {
        if self.now < self.check_at {
            return;
        }
        let (now, is_stopping) = (self.now, self.stop_by.is_some());
        let due = |client: &ClientConnection| client.due(&self.settings, is_stopping);
        let late = self.clients.iter().filter(|client| due(client).is_some_and(|at| at <= now));
        let late: Vec<_> = late.map(|client| client.key).collect();
        let next = self.clients.iter().filter_map(due).filter(|at| *at > now).min();
        self.check_at = next.map_or(Duration::MAX, |at| at.max(now + CHECK_PAUSE));
        for key in late {
            self.time_out(key);
        }
        self.serve_clients();
    }

    /// Processes clients with pending work, then writes once per connection.
    pub(super) fn serve_clients(&mut self) {
        // Clients that still have work after this continue in the next round.
        for _ in 0..3 {
            for key in std::mem::take(&mut self.busy) {
                self.serve_client(key);
            }
            self.serve_queue();
            if let Err(fault) = self.forwarder.flush(self.poll.registry()) {
                self.lose_forwarder(&fault);
            }
            for key in std::mem::take(&mut self.writers) {
                self.write(key);
            }
            if self.busy.is_empty() && self.writers.is_empty() {
                break;
            }
        }
    }

    /// Updates the stored deadline and buffer size after a client has changed.
    pub(super) fn update_deadline(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        if let Some(at) = client.due(&self.settings, self.stop_by.is_some()) {
            self.check_at = self.check_at.min(at);
        }
        let size = client.size();
        self.buffered = self.buffered.saturating_sub(client.counted) + size;
        client.counted = size;
    }

    /// Closes a connection.
    pub(super) fn drop_client(&mut self, key: ClientKey) {
        let Some(client) = self.clients.remove(key) else { return };
        self.buffered = self.buffered.saturating_sub(client.counted);
        if let ConnectionState::Forwarded(exchange) = client.state {
            self.forget(exchange.id);
        }
        self.access_log.count(self.clients.len());
    }

    /// Closes a connection without an answer, and logs why.
    pub(super) fn close_early(&mut self, key: ClientKey, reason: CloseReason) {
        if let Some(client) = self.clients.get(key) {
            self.access_log.close_early(reason, client.peer, self.now);
            self.drop_client(key);
        }
    }

    fn begin_to_stop(&mut self) {
        let grace = Duration::from_millis(self.grace.load(Ordering::SeqCst));
        // Connections that are already pending are still served.
        self.accept_pending = true;
        self.accept();
        self.serve_clients();
        self.stop_by = Some(self.now.saturating_add(grace));
        for bound in self.bound.drain(..) {
            bound.deregister(self.poll.registry());
        }
        self.accept_pending = false;
        for key in self.keys() {
            self.stop_client(key);
        }
    }

    /// Whether the shutdown is complete or its deadline has passed.
    fn is_over(&self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let is_finished = |client: &ClientConnection| {
            matches!(client.state, ConnectionState::Lingering(_)) && self.now >= client.since + CLOSE_GRACE
        };
        self.now >= stop_by || (self.requests.in_flight() == 0 && self.clients.iter().all(is_finished))
    }

    /// Disconnects the remaining clients.
    fn end(&mut self) {
        for key in self.keys() {
            match self.clients.get(key).map(|client| &client.state) {
                Some(ConnectionState::Lingering(_)) | None => self.drop_client(key),
                Some(_) => self.close_early(key, CloseReason::Stopping),
            }
        }
    }

    fn keys(&self) -> Vec<ClientKey> {
        self.clients.iter().map(|client| client.key).collect()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Notify the owners of responders, even after a panic.
        self.backend.outbox.close();
        for pending in self.requests.take_if(|_| true) {
            pending.status.hang_up();
        }
    }
}
