//! Enforces the limits on requests in flight, connections and buffer memory.

use std::time::Duration;

use super::access_log::CloseReason;
use super::event_loop::EventLoop;

/// Maximum number of requests in flight. It exceeds the total capacity of all work queues. So a full queue is answered at
/// once, and requests for the other queues still get through.
const IN_FLIGHT: usize = 8192;
/// Requests in flight may use this fraction of the buffer memory: one in this number.
const IN_FLIGHT_SHARE: usize = 4;
/// The fraction of connections that one eviction disconnects: one in this number.
const PARTS: usize = 64;
/// Pause after an eviction found no eligible client.
const EVICTION_PAUSE: Duration = Duration::from_millis(10);

impl EventLoop {
    /// Whether a request can be forwarded now.
    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.requests.in_flight();
        let byte_limit = self.settings.max_buffered / IN_FLIGHT_SHARE;
        let is_within = in_flight < IN_FLIGHT && self.requests.bytes() < byte_limit;
        (in_flight == 0 || is_within) && self.forwarder.has_room()
    }

    /// Disconnects the clients with the lowest eviction rank. Several at once, to avoid an eviction per new connection.
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
            // All clients wait for an answer, so a retry at once would fail too.
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

    /// Disconnects clients in the order of their memory rank if memory is short. Begins at 7/8 of the limit, because the
    /// next round may use more memory before this runs again.
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

    /// The size of the clients' buffers and of the messages for them (bytes).
    fn buffered_bytes(&self) -> usize {
        self.buffered + self.backend.outbox.bytes()
    }
}
