//! The event loop: sockets that are ready, deadlines that are reached, connections that come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::accept::{raise_file_limit, room};
use super::access_log::{Cut, Journal};
use super::client::{Client, State};
use super::listen::Bound;
use super::socket::{Acceptor, Peer};
use super::timers::Timers;
use super::upstream::{CONNECTIONS, ClientKey, Lane, Upstream};
use super::{Behind, OPEN, Settings};
use crate::api::correlation_id;
use crate::api::outbox::ResponseMessage;
use crate::api::render::Renderer;
use crate::metrics::Metrics;
use crate::time::Clock;

/// The token of the waker; those of the listeners, the inner connections and the clients follow.
const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
const FIRST_INNER: usize = 1_000;
pub(super) const FIRST_CLIENT: usize = FIRST_INNER + CONNECTIONS;

/// Most sockets that are attended to before the others are looked at again.
const EVENTS: usize = 1024;
/// How often in turn deadlines are put off because there is more to hear.
const HURRIED: u32 = 8;
/// Entries of timers that are not worth tidying up.
const FEW_TIMERS: usize = 4096;
/// How long a stop waits for clients that were told to go to have read it.
const FAREWELL: Duration = Duration::from_millis(100);
/// Bytes read at a time.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;

/// What the loop is made of.
pub(super) struct Parts {
    pub(super) bound: Vec<Bound>,
    pub(super) behind: Behind,
    pub(super) settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) grace: Arc<AtomicU64>,
}

/// Clients that wait for room on the way to the server.
#[derive(Default)]
pub(super) struct Queues {
    reads: VecDeque<ClientKey>,
    writes: VecDeque<ClientKey>,
}

impl Queues {
    pub(super) const fn of(&mut self, lane: Lane) -> &mut VecDeque<ClientKey> {
        match lane {
            Lane::Reads => &mut self.reads,
            Lane::Writes => &mut self.writes,
        }
    }
}

pub(super) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) bound: Vec<Bound>,
    pub(super) acceptors: Vec<Acceptor>,
    /// Connections may be waiting to be accepted.
    pub(super) waits_outside: bool,
    pub(super) accept_again_at: Duration,
    /// Nobody can be let go of before this.
    pub(super) no_room_until: Duration,
    pub(super) clients: Slab<Client>,
    pub(super) serials: u64,
    pub(super) timers: Timers<ClientKey>,
    pub(super) upstream: Upstream,
    /// Clients with a request for which there was no room.
    pub(super) queues: Queues,
    /// Clients with something to write.
    pub(super) writers: Vec<ClientKey>,
    /// Clients with something to do.
    pub(super) busy: Vec<ClientKey>,
    /// The held requests, by their id.
    pub(super) held: HashMap<u64, ClientKey>,
    /// Those of them that wait for something else than that their answer is made.
    pub(super) waiting: HashSet<u64>,
    /// What was said about requests before the door heard that they are held.
    pub(super) early: HashMap<u64, Vec<ResponseMessage>>,
    /// What the clients' buffers take (bytes).
    pub(super) buffered: usize,
    pub(super) scratch: Vec<u8>,
    pub(super) settings: Settings,
    pub(super) behind: Behind,
    pub(super) renderer: Renderer,
    pub(super) journal: Journal,
    /// Begins the ids of this run's refusals.
    pub(super) run: i64,
    pub(super) refusals: u64,
    pub(super) clock: Clock,
    pub(super) now: Duration,
    pub(super) grace: Arc<AtomicU64>,
    /// When a stop has taken too long.
    pub(super) stop_by: Option<Duration>,
}

impl EventLoop {
    pub(super) fn new(parts: Parts) -> io::Result<(Self, Arc<Waker>)> {
        let Parts { mut bound, behind, mut settings, metrics, clock, grace } = parts;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let wake = Arc::clone(&waker);
        // A door that cannot be woken has been closed.
        behind.holds.wake_with(move || drop(wake.wake()));
        let mut acceptors = bound.iter_mut().map(Bound::acceptor).collect::<io::Result<Vec<_>>>()?;
        for (number, acceptor) in acceptors.iter_mut().enumerate() {
            poll.registry().register(
                acceptor.source(),
                Token(FIRST_LISTENER + number),
                Interest::READABLE,
            )?;
        }
        let room = room(raise_file_limit())?;
        if room < settings.connections {
            log::warn!(
                "the limit of open files leaves room for {room} connections, not {}: see ulimit -n, or LimitNOFILE=",
                settings.connections
            );
            settings.connections = room;
        }
        let turnstile = Self {
            poll,
            bound,
            acceptors,
            waits_outside: true,
            accept_again_at: Duration::ZERO,
            no_room_until: Duration::ZERO,
            clients: Slab::new(),
            serials: 0,
            timers: Timers::default(),
            upstream: Upstream::new(behind.socket.clone(), FIRST_INNER),
            queues: Queues::default(),
            writers: Vec::new(),
            busy: Vec::new(),
            held: HashMap::new(),
            waiting: HashSet::new(),
            early: HashMap::new(),
            buffered: 0,
            scratch: vec![0; SCRATCH_BYTES],
            settings,
            behind,
            renderer: Renderer::new(clock.clone()),
            journal: Journal::new(metrics),
            run: clock.wall_micros(),
            refusals: 0,
            now: clock.monotonic(),
            clock,
            grace,
            stop_by: None,
        };
        Ok((turnstile, waker))
    }

    /// Runs until it is closed; should it break down, whoever has opened it is told.
    pub(super) fn run_to_the_end(mut self) {
        let broken = std::mem::replace(&mut self.behind.broken, Box::new(|| {}));
        // The cause is logged by the panic hook.
        let closed = catch_unwind(AssertUnwindSafe(|| self.run()));
        if !matches!(closed, Ok(true)) {
            broken();
        }
    }

    /// Runs until it is closed. Returns whether it was.
    fn run(mut self) -> bool {
        let mut events = Events::with_capacity(EVENTS);
        let mut hurried = 0;
        while !self.is_over() {
            match self.poll.poll(&mut events, self.patience()) {
                Ok(()) => {}
                // After a pause (SIGSTOP) what came meanwhile is heard before any deadline is looked at.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("the door cannot wait for its sockets: {error}");
                    break;
                }
            }
            self.now = self.clock.monotonic();
            for event in &events {
                self.notice(event);
            }
            self.turn();
            // With more to hear, that comes first; but not for ever.
            let heard_all = events.iter().count() < EVENTS;
            hurried = if heard_all { 0 } else { hurried + 1 };
            if heard_all || hurried > HURRIED {
                self.look_at_the_time();
                hurried = 0;
            }
            if self.is_cut_off() {
                log::error!(
                    "the door cannot reach the server behind it any more: a thread of it has ended, or its directory in TMPDIR was removed"
                );
                break;
            }
        }
        self.leave();
        self.stop_by.is_some()
    }

    /// How long nothing happens unless a socket is ready.
    fn patience(&self) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let accept = self.waits_outside.then_some(self.accept_again_at);
        let farewell = self.stop_by.map(|stop_by| stop_by.min(self.now + FAREWELL));
        let next = [self.timers.next(), self.upstream.next_deadline(), accept, farewell];
        // Rounded up: to wake just before is to wake twice.
        let wait = next.into_iter().flatten().min()?.saturating_sub(self.now);
        Some(if wait.is_zero() { wait } else { wait + Duration::from_millis(1) })
    }

    fn notice(&mut self, event: &mio::event::Event) {
        let token = event.token().0;
        if let Some(slot) = token.checked_sub(FIRST_CLIENT) {
            let Some(client) = self.clients.get_mut(slot) else { return };
            // It is still the same client: places are given again only after all events were noticed.
            client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            client.hung_up |= event.is_read_closed() || event.is_error();
            let key = ClientKey { slot, serial: client.serial };
            if event.is_writable() {
                client.blocked = false;
                if !client.output.is_empty() && !client.writes {
                    client.writes = true;
                    self.writers.push(key);
                }
            }
            if client.readable {
                self.busy.push(key);
            }
        } else if let Some(index) = token.checked_sub(FIRST_INNER) {
            self.hear(index);
        } else if token >= FIRST_LISTENER {
            self.waits_outside = true;
        }
    }

    /// Does what there is to do.
    fn turn(&mut self) {
        if self.stop_by.is_none() && self.grace.load(Ordering::SeqCst) != OPEN {
            self.begin_to_stop();
        }
        self.read_letters();
        self.accept();
        self.attend();
        if self.kept_bytes() > self.settings.buffered_bytes / 8 * 7 {
            self.save_memory();
        }
        if let Some(index) = self.upstream.maintain(self.poll.registry(), self.now) {
            self.lose(index, "a new connection was not answered");
        }
        self.attend();
    }

    /// Whether the way to the server is lost, and there is nothing left to finish.
    fn is_cut_off(&self) -> bool {
        self.upstream.is_cut_off() && self.stop_by.is_none()
    }

    /// Ends what has taken too long. Everything that has come was heard before.
    fn look_at_the_time(&mut self) {
        while let Some((at, key)) = self.timers.pop(self.now) {
            self.check_deadline(at, key);
        }
        if self.timers.len() > 4 * self.clients.len() + FEW_TIMERS {
            let clients = &self.clients;
            self.timers.forget(|at, key| {
                clients
                    .get(key.slot)
                    .is_none_or(|client| client.serial != key.serial || !client.deadline.is_entered(at))
            });
        }
        self.attend();
    }

    /// Attends to the clients that have something to do, and writes what came of it.
    pub(super) fn attend(&mut self) {
        // Those that are not done after this come after the others have had their turn.
        for _ in 0..3 {
            for key in std::mem::take(&mut self.busy) {
                self.work(key);
            }
            for (index, broken) in self.upstream.flush() {
                self.lose(index, broken.0);
            }
            for key in std::mem::take(&mut self.writers) {
                self.write(key);
            }
            if self.busy.is_empty() && self.writers.is_empty() {
                break;
            }
        }
    }

    fn check_deadline(&mut self, at: Duration, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial) else {
            return;
        };
        if self.timers.is_due(at, key, &mut client.deadline, self.now) {
            self.out_of_time(key);
        }
    }

    /// Sets the deadline of a client by what it is doing now, and counts what it takes.
    pub(super) fn arm(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial) else {
            return;
        };
        let due = client.due(&self.settings, self.stop_by.is_some());
        if client.deadline.at() != due {
            self.timers.set(key, &mut client.deadline, due);
        }
        let size = client.size();
        self.buffered = self.buffered.saturating_sub(client.counted) + size;
        client.counted = size;
    }

    /// Ends a connection, now.
    pub(super) fn drop_client(&mut self, key: ClientKey) {
        if self.clients.get(key.slot).is_none_or(|client| client.serial != key.serial) {
            return;
        }
        let client = self.clients.remove(key.slot);
        self.buffered = self.buffered.saturating_sub(client.counted);
        if let State::Held(_, hold) = client.state {
            self.forget_hold(hold.id);
        }
        self.journal.count(self.clients.len());
        if self.clients.is_empty() {
            // After ten thousand connections, their places need not be kept.
            self.clients = Slab::new();
        }
    }

    pub(super) fn cut(&mut self, key: ClientKey, cut: Cut) {
        let Some(client) = self.clients.get(key.slot).filter(|client| client.serial == key.serial) else {
            return;
        };
        self.journal.cut(cut, shown(client.peer), self.now);
        self.drop_client(key);
    }

    fn begin_to_stop(&mut self) {
        let grace = Duration::from_millis(self.grace.load(Ordering::SeqCst));
        // Those that have come by now are still heard.
        self.waits_outside = true;
        self.accept();
        self.attend();
        self.stop_by = Some(self.now.saturating_add(grace));
        self.acceptors.clear();
        self.waits_outside = false;
        self.bound.clear();
        let keys: Vec<_> =
            self.clients.iter().map(|(slot, client)| ClientKey { slot, serial: client.serial }).collect();
        for key in keys {
            self.stop_client(key);
        }
    }

    /// Whether there is nothing left to finish, or no time left to finish it.
    fn is_over(&self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        let finished = |client: &Client| {
            matches!(client.state, State::Lingering(_)) && self.now >= client.since + FAREWELL
        };
        self.now >= stop_by
            || (self.upstream.is_idle() && self.clients.iter().all(|(_, client)| finished(client)))
    }

    /// Whoever is still here has had time enough.
    fn leave(&mut self) {
        let left: Vec<_> = self
            .clients
            .iter()
            .map(|(slot, client)| (ClientKey { slot, serial: client.serial }, &client.state))
            .map(|(key, state)| (key, matches!(state, State::Lingering(_))))
            .collect();
        for (key, finished) in left {
            if finished {
                self.drop_client(key);
            } else {
                self.cut(key, Cut::Stopping);
            }
        }
    }
}

/// How a client is named in the log before it has said anything.
pub(super) const fn shown(peer: Peer) -> correlation_id::Client {
    match peer {
        Peer::Ip(address) => correlation_id::Client(Some(address)),
        Peer::Local => correlation_id::Client(None),
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // However it ends: whoever has a ticket is told.
        self.behind.holds.close();
    }
}

/// For what is not there any more.
impl EventLoop {
    pub(super) fn client(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial)
    }
}
