//! The requests that the event loop has forwarded.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::ClientKey;
use crate::api::outbox::ClientStatus;

/// A request that was forwarded and not answered yet.
pub(super) struct Pending {
    pub(super) client: ClientKey,
    pub(super) status: Arc<ClientStatus>,
    /// Its size. Zero when it is parked: then it is not in flight any more.
    pub(super) bytes: usize,
}

/// The requests that were forwarded and not answered yet, by id.
#[derive(Default)]
pub(super) struct Requests {
    all: HashMap<u64, Pending>,
    parked: usize,
    /// Bytes of those in flight.
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

    /// The request waits for an event: it is not in flight any more.
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

    /// Removes those whose id passes the test.
    pub(super) fn take_if(&mut self, test: impl Fn(u64) -> bool) -> Vec<Pending> {
        let ids: Vec<_> = self.all.keys().copied().filter(|id| test(*id)).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// How many wait for an event.
    pub(super) const fn parked(&self) -> usize {
        self.parked
    }

    /// Bytes of those in flight.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are being carried out.
    pub(super) fn in_flight(&self) -> usize {
        self.all.len() - self.parked
    }
}
