//! Accepts connections.

use std::io;
use std::time::Duration;

use mio::Token;

use super::access_log::CloseReason;
use super::event_loop::{EventLoop, FIRST_CLIENT};
use super::refusal::HttpRefusal;
use super::socket::{Peer, Socket};

/// Maximum number of accept attempts per event loop round, so that existing clients are served too.
const ACCEPTS: usize = 256;
/// Pause after `accept` failed for lack of resources.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of connections accepted beyond the limit. They are answered with 503.
const SPARE: usize = 16;

impl EventLoop {
    /// Accepts pending connections.
    pub(super) fn accept(&mut self) {
        if !self.accept_pending || self.stop_by.is_some() || self.now < self.accept_again_at {
            return;
        }
        self.accept_again_at = self.now;
        for _ in 0..ACCEPTS {
            let mut is_empty = true;
            for index in 0..self.bound.len() {
                let Some(bound) = self.bound.get(index) else { continue };
                match bound.accept() {
                    Ok((socket, peer)) => {
                        is_empty = false;
                        self.admit(socket, peer);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // Only this connection failed; the listener works.
                    Err(error) if is_connection_error(&error) => is_empty = false,
                    Err(error) => {
                        // No file descriptor or no memory is available.
                        self.access_log.cannot_accept(&error, self.now);
                        self.accept_again_at = self.now + PAUSE;
                        return self.evict_clients();
                    }
                }
            }
            if is_empty {
                // The next connection causes an event.
                self.accept_pending = false;
                return;
            }
        }
    }

    fn admit(&mut self, socket: Socket, peer: Peer) {
        let limit = self.settings.max_connections;
        if self.clients.len() >= limit && self.now >= self.no_eviction_until {
            // The eviction rank depends on what the clients have sent, so read it first.
            self.serve_clients();
            self.evict_clients();
        }
        let is_full = self.clients.len() >= limit;
        if self.clients.len() >= limit + SPARE {
            return self.access_log.close_early(CloseReason::Room, peer, self.now);
        }
        let registry = self.poll.registry();
        let register = |socket: &Socket, slot: usize| socket.register(registry, Token(FIRST_CLIENT + slot));
        let key = match self.clients.insert(socket, peer, self.now, register) {
            Ok(key) => key,
            Err(error) => return log::warn!("cannot register a connection for events: {error}"),
        };
        self.access_log.connected(self.clients.len());
        if is_full {
            self.refuse(key, HttpRefusal::Connections);
        } else {
            self.busy.push(key);
        }
    }
}

/// Whether an error of `accept` affects only the pending connection and not the listener (accept(2)).
fn is_connection_error(error: &io::Error) -> bool {
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
