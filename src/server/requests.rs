//! The table of forwarded requests.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::ClientKey;
use crate::api::outbox::ClientStatus;

/// A forwarded request without a complete answer.
pub(super) struct Pending {
    pub(super) client: ClientKey,
    pub(super) status: Arc<ClientStatus>,
    /// The size of the request (bytes). Zero if it is parked, because then it is no longer in flight.
    pub(super) bytes: usize,
}

/// Forwarded requests without a complete answer, by id.
#[derive(Default)]
pub(super) struct Requests {
    all: HashMap<u64, Pending>,
    parked: usize,
    /// The total size of the requests in flight (bytes).
    bytes: usize,
}

impl Requests {
    pub(super) fn insert(&mut self, id: u64, pending: Pending) {
        self.bytes += pending.bytes;
        self.all.insert(id, pending);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Pending> {
        self.all.get(&id)
    }

    pub(super) fn is_parked(&self, id: u64) -> bool {
        self.all.get(&id).is_some_and(|pending| pending.bytes == 0)
    }

    /// Marks a request as parked. It is no longer in flight.
    pub(super) fn park(&mut self, id: u64) {
        if let Some(pending) = self.all.get_mut(&id)
            && pending.bytes > 0
        {
            self.bytes -= std::mem::take(&mut pending.bytes);
            self.parked += 1;
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Pending> {
        let pending = self.all.remove(&id)?;
        self.bytes -= pending.bytes;
        self.parked -= usize::from(pending.bytes == 0);
        Some(pending)
    }

    /// Removes and returns the requests whose id passes the test.
    pub(super) fn take_if(&mut self, test: impl Fn(u64) -> bool) -> Vec<Pending> {
        let ids: Vec<_> = self.all.keys().copied().filter(|id| test(*id)).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// The number of parked requests.
    pub(super) const fn parked(&self) -> usize {
        self.parked
    }

    /// The total size of the requests in flight (bytes).
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.all.len() - self.parked
    }
}
