//! Who comes in, and who has to go for it: connections that are accepted, and room that is made for them.

use std::io;
use std::time::Duration;

use mio::Token;

use super::access_log::Cut;
use super::client::Client;
use super::event_loop::{EventLoop, FIRST_CLIENT, shown};
use super::refusal::Refusal;
use super::socket::{Peer, Socket};
use super::upstream::ClientKey;

/// Most connections that are accepted before those that are there get their turn.
const ACCEPTS: usize = 256;
/// How long to wait after the system had no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Open files that are not clients' connections: the database's, the inner connections, the log.
const OTHER_FILES: usize = 48;
/// Connections beyond the most there may be: those that are told that there is no room.
const SPARE: usize = 16;
/// How long nobody is looked for who could go, after nobody was found.
const SOON: Duration = Duration::from_millis(10);
/// The fewest connections that are worth listening for.
const FEWEST: usize = 8;
/// Which part of the connections is let go of at once, when there are too many.
const LET_GO: usize = 64;

impl EventLoop {
    /// Accepts those that wait outside.
    pub(super) fn accept(&mut self) {
        if !self.waits_outside || self.stop_by.is_some() || self.now < self.accept_again_at {
            return;
        }
        self.accept_again_at = self.now;
        for _ in 0..ACCEPTS {
            let mut nobody = true;
            for index in 0..self.acceptors.len() {
                let Some(acceptor) = self.acceptors.get(index) else { continue };
                match acceptor.accept() {
                    Ok((socket, peer)) => {
                        nobody = false;
                        self.admit(socket, peer);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // It is gone already, or was never let through: that is its own affair.
                    Err(error) if is_of_the_client(&error) => nobody = false,
                    Err(error) => {
                        // No file, or no memory, for another one. It is tried again, soon and not at once.
                        self.journal.cannot_accept(&error, self.now);
                        self.accept_again_at = self.now + PAUSE;
                        return self.make_room();
                    }
                }
            }
            if nobody {
                // The next one announces itself.
                self.waits_outside = false;
                return;
            }
        }
    }

    fn admit(&mut self, mut socket: Socket, peer: Peer) {
        let most = self.settings.connections;
        if self.clients.len() >= most && self.now >= self.no_room_until {
            // What they have said already decides who can go.
            self.attend();
            self.make_room();
        }
        let is_full = self.clients.len() >= most;
        if self.clients.len() >= most + SPARE {
            return self.journal.cut(Cut::Room, shown(peer), self.now);
        }
        self.serials += 1;
        let entry = self.clients.vacant_entry();
        let key = ClientKey { slot: entry.key(), serial: self.serials };
        if let Err(error) = socket.register(self.poll.registry(), Token(FIRST_CLIENT + key.slot)) {
            log::warn!("a connection cannot be watched: {error}");
            return;
        }
        entry.insert(Client::new(socket, peer, key.serial, self.now));
        self.journal.connected(self.clients.len());
        if is_full {
            self.refuse(key, Refusal::Connections);
        } else {
            self.busy.push(key);
        }
    }

    /// Lets go of the connections that are worth least: some at once, so that it is not done for each.
    fn make_room(&mut self) {
        let mut worth: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(slot, client)| {
                let (worth, since) = client.worth(self.now)?;
                Some((worth, since, ClientKey { slot, serial: client.serial }))
            })
            .collect();
        if worth.is_empty() {
            // All of them wait for an answer: that will not have changed at once.
            self.no_room_until = self.now + SOON;
        }
        let too_many = (self.clients.len() + 1).saturating_sub(self.settings.connections);
        let count = (self.clients.len() / LET_GO).max(too_many).max(1);
        if count < worth.len() {
            worth.select_nth_unstable(count);
            worth.truncate(count);
        }
        for (_, _, key) in worth {
            self.cut(key, Cut::Room);
        }
    }

    /// What is kept for the clients: their buffers, and what is on its way to them (bytes).
    pub(super) fn kept_bytes(&self) -> usize {
        self.buffered + self.behind.holds.bytes()
    }

    /// Cuts off those that take most of the memory, until there is enough. It begins before all is used up: what comes in
    /// one turn is less than the rest.
    pub(super) fn save_memory(&mut self) {
        let mut burdens: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(slot, client)| {
                Some((client.burden(self.now)?, ClientKey { slot, serial: client.serial }))
            })
            .collect();
        burdens.sort_unstable();
        for (_, key) in burdens {
            if self.kept_bytes() <= self.settings.buffered_bytes / 4 * 3 {
                return;
            }
            self.cut(key, Cut::Memory);
        }
    }
}

/// Errors of `accept` that are about the one that was to be accepted (accept(2)).
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// Raises the limit of open files as far as the system allows without asking, and returns it.
pub(super) fn raise_file_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, wanted).is_ok() {
        limit = wanted;
    }
    limit.current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// How many connections that leaves room for.
pub(super) fn room(files: usize) -> io::Result<usize> {
    let room = files.saturating_sub(OTHER_FILES);
    if room < FEWEST {
        return Err(io::Error::other(format!(
            "the limit of open files is {files}, which leaves room for no connections; raise it to {} at least, with ulimit -n or LimitNOFILE=",
            OTHER_FILES + FEWEST
        )));
    }
    Ok(room)
}
