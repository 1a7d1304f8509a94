//! The HTTP server: accepts client connections, parses and limits untrusted HTTP.
//!
//! `tiny_http` is fine on well-behaved input, and only there: it has no deadlines and no limits, one request can abort
//! the process, and it gives each connection a thread. So one thread with one event loop owns the client connections, and
//! `tiny_http` listens on a Unix socket in a private directory.
//!
//! - A request is read within deadlines and limits, by the letter of RFC 9112 ([`parser`], pure). When it is complete, the
//!   event loop registers its id and forwards it in canonical form (`forward`). Malformed requests are refused
//!   ([`refusal`]).
//! - [`tiny`] receives it and answers nothing. The answer is a message to the event loop, with the id
//!   ([`crate::api::outbox`]). A request that waits costs its socket and a few hundred bytes.
//! - Each client has one request in flight at a time, so pipelined requests are answered in their order.
//! - Slow and vanished clients affect only their own connection. The number of connections, of requests in flight, and the
//!   memory for all of them are bounded (`limits`). When there are too many connections, those go first that do not finish
//!   their request, then those that never sent one, then idle ones. When memory is short, clients that do not read go
//!   before those that do.
//!
//! The server knows nothing of locks, and handlers know nothing of sockets.

mod accept;
mod access_log;
mod answers;
mod backend;
mod client;
mod connection;
mod event_loop;
mod file_limit;
mod forward;
pub mod internal_socket;
mod limits;
pub mod listen;
pub mod parser;
pub mod refusal;
mod requests;
mod response;
mod socket;
mod socket_path;
pub mod tiny;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::Waker;

pub use self::backend::Backend;
use self::backend::NOT_STOPPING;
use self::event_loop::EventLoop;
use self::listen::{Address, Bound};
use crate::config;
use crate::metrics::Metrics;
use crate::time::Clock;

/// A running server.
pub struct Server {
    thread: JoinHandle<()>,
    waker: Arc<Waker>,
    /// How long a stop may take (ms); [`NOT_STOPPING`] before there is one.
    grace: Arc<AtomicU64>,
    addresses: Vec<Address>,
}

impl Server {
    /// Serves the clients of `bound`, within the limits and deadlines of `settings`. `clock` counts the deadlines.
    ///
    /// # Errors
    /// When the system gives no thread, or no way to wait for sockets.
    pub fn start(
        bound: Vec<Bound>,
        backend: Backend,
        settings: &config::ServerConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> io::Result<Self> {
        let addresses = bound.iter().map(|bound| bound.address().clone()).collect();
        let grace = Arc::new(AtomicU64::new(NOT_STOPPING));
        let (event_loop, waker) =
            EventLoop::new(bound, backend, settings, metrics, clock, Arc::clone(&grace))?;
        let run = move || event_loop.run_to_end();
        let thread = Builder::new().name("event loop".to_owned()).spawn(run)?;
        Ok(Self { thread, waker, grace, addresses })
    }

    /// The addresses it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Stops: accepts no more connections, finishes requests in flight, for `grace` at most, and refuses those that wait.
    pub fn stop(self, grace: Duration) {
        let milliseconds = u64::try_from(grace.as_millis()).unwrap_or(NOT_STOPPING).min(NOT_STOPPING - 1);
        self.grace.store(milliseconds, Ordering::SeqCst);
        if self.waker.wake().is_err() || self.thread.join().is_err() {
            log::error!("the event loop panicked");
        }
    }
}
