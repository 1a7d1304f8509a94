//! The HTTP server: accepts client connections, parses and limits untrusted HTTP.
//!
//! `tiny_http` is safe only for well-formed input from few clients. It has no deadlines and no limits, uses one thread per
//! connection, and one malformed request can abort the process. So a single event loop thread owns the client connections,
//! and `tiny_http` listens only on a Unix socket in a private directory.
//!
//! - Requests are parsed strictly by RFC 9112, within deadlines and limits ([`parser`], pure). The event loop registers the
//!   id of a complete request and forwards the request in canonical form (`forward`). Malformed requests are refused
//!   ([`refusal`]).
//! - [`tiny`] receives the forwarded request and never answers on that connection. The answer is a message to the event
//!   loop, addressed by the request id ([`crate::api::outbox`]). A parked request uses a socket and a few hundred bytes.
//! - Each client has at most one request in flight. So pipelined requests are answered in order.
//! - A slow or disconnected client affects only its own connection. Connections, requests in flight and buffer memory are
//!   bounded (`limits`). At the connection limit, clients with stalled requests are disconnected first, then clients that
//!   never sent a request, then idle clients. When memory is short, clients that do not read their answer are disconnected
//!   first.
//!
//! The server does not depend on the lock logic, and handlers do not depend on sockets.

mod accept;
mod access_log;
mod answers;
mod backend;
mod client;
mod connection;
mod event_loop;
mod exchange;
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
    /// The time limit of the shutdown (ms); [`NOT_STOPPING`] until a shutdown is requested.
    grace: Arc<AtomicU64>,
    addresses: Vec<Address>,
}

impl Server {
    /// Serves clients on the sockets in `bound`, within the limits and timeouts of `settings`. Deadlines use `clock`.
    ///
    /// # Errors
    /// When the thread or the event poller cannot be created.
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

    /// The addresses that the server listens on.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Shuts down. Accepts no more connections, refuses parked requests, and finishes requests in flight within `grace`.
    pub fn stop(self, grace: Duration) {
        let milliseconds = u64::try_from(grace.as_millis()).unwrap_or(NOT_STOPPING).min(NOT_STOPPING - 1);
        self.grace.store(milliseconds, Ordering::SeqCst);
        if self.waker.wake().is_err() || self.thread.join().is_err() {
            log::error!("the event loop panicked");
        }
    }
}
