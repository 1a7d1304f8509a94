//! The connection between the event loop and the request handlers.

use std::path::PathBuf;
use std::sync::Arc;

use super::forward::ForwardedHeaders;
use super::socket::Peer;
use crate::api::outbox::Outbox;
use crate::config::TrustedProxy;

/// The shutdown time limit of a server that is not stopping.
pub(super) const NOT_STOPPING: u64 = u64::MAX;

/// The receiver of forwarded requests, and the source of their answers.
pub struct Backend {
    /// The path of the internal Unix socket.
    pub socket: PathBuf,
    /// The names of the headers that the API reads.
    pub wanted: &'static [&'static str],
    /// The headers that identify the user, set by trusted proxies, with their internal names.
    pub identity_headers: Vec<(String, &'static str)>,
    /// The proxies whose identity headers are trusted.
    pub identity_proxies: Vec<TrustedProxy>,
    /// Delivers the answers to the event loop.
    pub outbox: Arc<Outbox>,
    /// Whether CORS is enabled. If so, refusals carry CORS headers too.
    pub allows_cors: bool,
    /// Called when the event loop ends without a shutdown, which is a bug.
    pub on_failure: Box<dyn FnOnce() + Send>,
}

impl Backend {
    /// The headers to forward from this peer. Identity headers are forwarded only from trusted proxies.
    pub(super) fn headers_of(&self, peer: Peer) -> ForwardedHeaders<'_> {
        let is_trusted = self.identity_proxies.iter().any(|proxy| match peer {
            Peer::Ip(address) => proxy.covers(address),
            Peer::Local => *proxy == TrustedProxy::Local,
        });
        ForwardedHeaders {
            wanted: self.wanted,
            identity: if is_trusted { &self.identity_headers } else { &[] },
        }
    }
}
