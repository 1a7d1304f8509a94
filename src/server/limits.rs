//! Limits: requests in flight, memory for clients, connections, open files.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::access_log::Cut;
use super::client::ClientKey;
use super::event_loop::EventLoop;
use crate::api::outbox::ClientStatus;

/// Most requests in flight: more than all queues behind the event loop take together, so that a full queue is answered at
/// once and the other queues still get their requests.
const IN_FLIGHT: usize = 8192;
/// Requests in flight take at most this part of the memory for clients.
const IN_FLIGHT_SHARE: usize = 4;
/// Open files that are not clients' connections: the database, the internal connection, the log.
const OTHER_FILES: usize = 48;
/// The fewest connections that are worth serving.
const FEWEST: usize = 8;
/// When there are too many connections, one part of so many is disconnected at once.
const PARTS: usize = 64;
/// How long no client is looked for that could be disconnected, after none was found.
const SOON: Duration = Duration::from_millis(10);

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

    pub(super) fn in_flight(&self) -> usize {
        self.all.len() - self.parked
    }
}

impl EventLoop {
    /// Whether a request can be forwarded now.
    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.requests.in_flight();
        let most_bytes = self.settings.buffered_bytes / IN_FLIGHT_SHARE;
        let is_within = in_flight < IN_FLIGHT && self.requests.bytes < most_bytes;
        (in_flight == 0 || is_within) && self.forwarder.has_room()
    }

    /// Disconnects the clients that are worth least: some at once, so that it is not done for each new one.
    pub(super) fn make_room(&mut self) {
        let now = self.now;
        let mut worth: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| client.worth(now).map(|(worth, since)| (worth, since, client.key)))
            .collect();
        if worth.is_empty() {
            // All of them wait for an answer, which does not change at once.
            self.no_room_until = now + SOON;
        }
        let too_many = (self.clients.len() + 1).saturating_sub(self.settings.connections);
        let count = (self.clients.len() / PARTS).max(too_many).max(1);
        if count < worth.len() {
            worth.select_nth_unstable(count);
            worth.truncate(count);
        }
        for (_, _, key) in worth {
            self.cut(key, Cut::Room);
        }
    }

    /// Disconnects the clients that take most memory, if it is short. It begins before all is used up: one round takes
    /// less than the rest.
    pub(super) fn save_memory(&mut self) {
        if self.kept_bytes() <= self.settings.buffered_bytes / 8 * 7 {
            return;
        }
        let now = self.now;
        let mut burdens: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| client.burden(now).map(|burden| (burden, client.key)))
            .collect();
        burdens.sort_unstable();
        for (_, key) in burdens {
            if self.kept_bytes() <= self.settings.buffered_bytes / 4 * 3 {
                return;
            }
            self.cut(key, Cut::Memory);
        }
    }

    /// Bytes that are kept for the clients: their buffers, and what is on its way to them.
    fn kept_bytes(&self) -> usize {
        self.buffered + self.backend.outbox.bytes()
    }
}

/// Raises the limit of open files as far as the system allows, and returns how many connections it leaves room for.
pub(super) fn room_for_connections() -> io::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, wanted).is_ok() {
        limit = wanted;
    }
    let files = limit.current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let room = files.saturating_sub(OTHER_FILES);
    if room < FEWEST {
        return Err(io::Error::other(format!(
            "the limit of open files is {files}, which leaves room for no connections; raise it to {} at least, with ulimit -n or LimitNOFILE=",
            OTHER_FILES + FEWEST
        )));
    }
    Ok(room)
}
