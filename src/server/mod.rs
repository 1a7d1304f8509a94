//! The front door: strangers' bytes stop here.
//!
//! `tiny_http` is fine on well-behaved input, and only there: it has no deadlines and no limits, some of what it is
//! sent ends the process, and it gives each connection a thread. So it never meets a stranger. It listens on a Unix
//! socket in a private directory, and in front of it stands the door: one thread with one event loop, which owns the
//! clients' connections.
//!
//! - A request is read within deadlines and limits, by the letter of RFC 9112 ([`parser`], pure), and goes on only
//!   when all of it has come: in canonical form, with the headers that are used and a tag (`canonical`), over a few
//!   kept connections (`upstream`). What is not well-formed is refused ([`refusal`]).
//! - Each client has one request on its way at a time, so its answers come in its order whatever it pipelines. Many
//!   clients' requests share an inner connection; what may write, and waits for the disk, goes over others than what
//!   only reads. Every answer must bring its request's id back; no answer can reach another client.
//! - A slow reader, a slow sender, one that goes away: each costs itself, and no other. The number of connections, of
//!   requests on their way, and of the bytes kept for all of them are bounded. When there are too many connections,
//!   those go first that do not finish what they began, then those that never asked for anything, then those that are
//!   idle; when there is too little memory, those that hoard before those that read.
//! - Whoever waits, waits here ([`crate::api::deferred`]): a held request costs its socket and a few hundred bytes.
//!
//! The door knows nothing of locks, and handlers know nothing of sockets.

mod accept;
mod access_log;
mod client;
mod connection;
mod event_loop;
mod forward;
pub mod internal_socket;
pub mod listen;
pub mod parser;
pub mod refusal;
mod socket;
mod socket_path;
mod timers;
mod upstream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::Waker;

use self::event_loop::{EventLoop, Parts};
use self::listen::{Address, Bound};
use self::parser::Limits;
use crate::api::outbox::Holds;
use crate::config::{self, TrustedProxy};
use crate::metrics::Metrics;
use crate::time::Clock;

/// What the door allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What a request may measure.
    pub limits: Limits,
    /// How long a head may take, from its first byte.
    pub head_timeout: Duration,
    /// How long a body may take, from the end of the head.
    pub body_timeout: Duration,
    /// How long a connection is kept on which nothing is asked.
    pub idle_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Most connections.
    pub connections: usize,
    /// Most bytes kept for all clients together.
    pub buffered_bytes: usize,
    /// Proxies that are believed when they say where a request comes from.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl Settings {
    /// Those that `[server]` gives.
    #[must_use]
    pub fn of(server: &config::Server) -> Self {
        Self {
            limits: Limits {
                head_bytes: server.max_head,
                headers: server.max_headers,
                body_bytes: server.max_body,
            },
            head_timeout: server.head_timeout,
            body_timeout: server.body_timeout,
            idle_timeout: server.idle_timeout,
            write_timeout: server.write_timeout,
            connections: server.max_connections,
            buffered_bytes: server.max_buffered,
            trusted_proxies: server.trusted_proxies.clone(),
        }
    }
}

/// What stands behind the door.
pub struct Behind {
    /// The Unix socket of the server.
    pub socket: PathBuf,
    /// The names of the headers that it uses.
    pub wanted: &'static [&'static str],
    /// Headers in which these proxies say who the user is, and what they are called inside.
    pub asserted: Vec<(String, &'static str)>,
    /// The proxies that are believed when they do.
    pub asserted_by: Vec<TrustedProxy>,
    /// What it holds.
    pub holds: Arc<Holds>,
    /// Whether pages of some origin may call: then pages may read refusals.
    pub pages_may_call: bool,
    /// Called when the door breaks down, which it never should.
    pub broken: Box<dyn FnOnce() + Send>,
}

impl Behind {
    /// Whether the other end of a connection may say who the user is.
    fn believes(&self, peer: socket::Peer) -> bool {
        self.asserted_by.iter().any(|proxy| match peer {
            socket::Peer::Ip(address) => proxy.covers(address),
            socket::Peer::Local => *proxy == TrustedProxy::Local,
        })
    }
}

/// A door that is open.
pub struct Door {
    thread: JoinHandle<()>,
    waker: Arc<Waker>,
    /// How long a stop may take (ms); [`OPEN`] before there is one.
    grace: Arc<AtomicU64>,
    addresses: Vec<Address>,
}

/// The door is open.
const OPEN: u64 = u64::MAX;

impl Door {
    /// Opens the door: listens on `bound`, and lets well-formed requests through to what is `behind` it. `clock`
    /// counts its deadlines.
    ///
    /// # Errors
    /// When the system gives no thread, or no way to wait for sockets.
    pub fn open(
        bound: Vec<Bound>,
        behind: Behind,
        settings: Settings,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> io::Result<Self> {
        let addresses = bound.iter().map(|bound| bound.address().clone()).collect();
        let grace = Arc::new(AtomicU64::new(OPEN));
        let parts = Parts { bound, behind, settings, metrics, clock, grace: Arc::clone(&grace) };
        let (turnstile, waker) = EventLoop::new(parts)?;
        let thread = Builder::new().name("door".to_owned()).spawn(move || turnstile.run_to_the_end())?;
        Ok(Self { thread, waker, grace, addresses })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Closes the door: no new connections; what is being answered is finished, for `grace` at most; what waits is
    /// told.
    pub fn close(self, grace: Duration) {
        let milliseconds = u64::try_from(grace.as_millis()).unwrap_or(OPEN).min(OPEN - 1);
        self.grace.store(milliseconds, Ordering::SeqCst);
        if self.waker.wake().is_err() || self.thread.join().is_err() {
            log::error!("the door had broken down");
        }
    }
}
