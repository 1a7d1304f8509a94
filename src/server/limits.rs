//! Limits: requests in flight, connections, memory for clients.

use std::time::Duration;

use super::access_log::CloseReason;
use super::event_loop::EventLoop;

/// Most requests in flight: more than all queues behind the event loop take together, so that a full queue is answered at
/// once and the other queues still get their requests.
const IN_FLIGHT: usize = 8192;
/// Requests in flight take at most this part of the memory for clients.
const IN_FLIGHT_SHARE: usize = 4;
/// Part of the connections that is disconnected at once when there are too many: one in this number.
const PARTS: usize = 64;
/// How long no client is looked for that could be disconnected, after none was found.
const EVICTION_PAUSE: Duration = Duration::from_millis(10);

impl EventLoop {
    /// Whether a request can be forwarded now.
    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.requests.in_flight();
        let most_bytes = self.settings.max_buffered / IN_FLIGHT_SHARE;
        let is_within = in_flight < IN_FLIGHT && self.requests.bytes() < most_bytes;
        (in_flight == 0 || is_within) && self.forwarder.has_room()
    }

    /// Disconnects the clients that are worth least: some at once, so that it is not done for each new one.
    pub(super) fn evict_clients(&mut self) {
        let now = self.now;
        let mut eviction_rank: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| {
                client.eviction_rank(now).map(|(eviction_rank, since)| (eviction_rank, since, client.key))
            })
            .collect();
        if eviction_rank.is_empty() {
            // All of them wait for an answer, which does not change at once.
            self.no_eviction_until = now + EVICTION_PAUSE;
        }
        let too_many = (self.clients.len() + 1).saturating_sub(self.settings.max_connections);
        let count = (self.clients.len() / PARTS).max(too_many).max(1);
        if count < eviction_rank.len() {
            eviction_rank.select_nth_unstable(count);
            eviction_rank.truncate(count);
        }
        for (_, _, key) in eviction_rank {
            self.close_early(key, CloseReason::Room);
        }
    }

    /// Disconnects the clients that take most memory, if it is short. It begins before all is used up: one round takes
    /// less than the rest.
    pub(super) fn reduce_memory(&mut self) {
        if self.buffered_bytes() <= self.settings.max_buffered / 8 * 7 {
            return;
        }
        let now = self.now;
        let mut ranked: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| client.memory_rank(now).map(|memory_rank| (memory_rank, client.key)))
            .collect();
        ranked.sort_unstable();
        for (_, key) in ranked {
            if self.buffered_bytes() <= self.settings.max_buffered / 4 * 3 {
                return;
            }
            self.close_early(key, CloseReason::Memory);
        }
    }

    /// Bytes that are kept for the clients: their buffers, and what is on its way to them.
    fn buffered_bytes(&self) -> usize {
        self.buffered + self.backend.outbox.bytes()
    }
}
