//! What the event loop forwards requests to.

use std::path::PathBuf;
use std::sync::Arc;

use super::forward::ForwardedHeaders;
use super::socket::Peer;
use crate::api::outbox::Outbox;
use crate::config::TrustedProxy;

/// Grace of a server that is not stopping.
pub(super) const NOT_STOPPING: u64 = u64::MAX;

/// What the event loop forwards requests to.
pub struct Backend {
    /// The internal socket.
    pub socket: PathBuf,
    /// The names of the headers that the API reads.
    pub wanted: &'static [&'static str],
    /// Headers in which trusted proxies say who the user is, and their internal names.
    pub asserted: Vec<(String, &'static str)>,
    /// The proxies that are trusted with it.
    pub asserted_by: Vec<TrustedProxy>,
    /// Where the answers come from.
    pub outbox: Arc<Outbox>,
    /// Whether pages of other origins may call: then they may read refusals.
    pub allows_cors: bool,
    /// Called when the event loop breaks down, which is a defect.
    pub on_failure: Box<dyn FnOnce() + Send>,
}

impl Backend {
    /// The headers that are forwarded for this peer. Trusted proxies may say who the user is.
    pub(super) fn headers_of(&self, peer: Peer) -> ForwardedHeaders<'_> {
        let is_trusted = self.asserted_by.iter().any(|proxy| match peer {
            Peer::Ip(address) => proxy.covers(address),
            Peer::Local => *proxy == TrustedProxy::Local,
        });
        ForwardedHeaders { wanted: self.wanted, asserted: if is_trusted { &self.asserted } else { &[] } }
    }
}
