//! A client connection: its state, its input and its output.

use std::cmp::Reverse;
use std::io::{self, Read};
use std::time::Duration;

use slab::Slab;

use super::exchange::{Exchange, Phase};
use super::parser::{Framer, Version};
use super::socket::{Output, Peer, Shared, Socket};
use crate::config;
use crate::events::chunk::StreamChunk;

/// How long to keep reading after the last answer. Closing while the client still sends could discard the answer
/// (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Maximum number of bytes that are read and discarded in that time.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// A client that completes no request, or reads no part of its answer, for this long counts as stalled.
const RESPONSIVE_WITHIN: Duration = Duration::from_secs(1);
/// Maximum time that a request waits to be forwarded.
const QUEUE: Duration = Duration::from_secs(5);
/// Maximum number of bytes that are read ahead while a request is being answered.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// Identifies a client. Slots are reused, so a serial number is needed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    pub(super) slot: usize,
    serial: u64,
}

/// The state of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Idle, or receiving a request.
    Receiving(RequestPart),
    /// A complete request waits in the framer until it can be forwarded.
    Queued,
    /// The request was forwarded and is not fully answered.
    Forwarded(Exchange),
    /// The last answer is being sent.
    Closing,
    /// The last answer was sent. Input is discarded; this is the number of bytes so far.
    Lingering(usize),
}

/// The part of a request that is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPart {
    Nothing,
    Head,
    Body,
}

/// The connected clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slab: Slab<ClientConnection>,
    serials: u64,
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn get(&mut self, key: ClientKey) -> Option<&mut ClientConnection> {
        self.slab.get_mut(key.slot).filter(|client| client.key.serial == key.serial)
    }

    /// The client in this slot. The caller must know that the slot was not reused.
    pub(super) fn in_slot(&mut self, slot: usize) -> Option<&mut ClientConnection> {
        self.slab.get_mut(slot)
    }

    pub(super) fn contains(&self, key: ClientKey) -> bool {
        self.slab.get(key.slot).is_some_and(|client| client.key.serial == key.serial)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientConnection> {
        self.slab.iter().map(|(_, client)| client)
    }

    /// Adds a client. `register` registers its socket for events of its slot.
    pub(super) fn insert(
        &mut self,
        socket: Socket,
        peer: Peer,
        now: Duration,
        register: impl FnOnce(&Socket, usize) -> io::Result<()>,
    ) -> io::Result<ClientKey> {
        let entry = self.slab.vacant_entry();
        self.serials += 1;
        let key = ClientKey { slot: entry.key(), serial: self.serials };
        register(&socket, key.slot)?;
        entry.insert(ClientConnection::new(socket, peer, key, now));
        Ok(key)
    }

    pub(super) fn remove(&mut self, key: ClientKey) -> Option<ClientConnection> {
        self.get(key)?;
        let client = self.slab.remove(key.slot);
        if self.slab.is_empty() {
            // Frees the memory after a peak of connections.
            self.slab = Slab::new();
        }
        Some(client)
    }
}

/// The order in which clients are disconnected at the connection limit, lowest first. Equal ranks: longest unchanged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionRank {
    /// The client received its last answer, or has hung up.
    Finished,
    /// The client does not complete its request, or does not read its answer.
    Stalled,
    /// The client has never sent a complete request.
    Silent,
    /// The client was answered and has not begun another request.
    Idle,
    /// The client is sending its next request.
    Sending,
    /// The client is still reading its answer.
    Unread,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    Data,
    NoData,
    /// The connection failed.
    Failed,
}

/// A client connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about the socket and the lists it is in"
)]
pub(super) struct ClientConnection {
    pub(super) socket: Socket,
    pub(super) key: ClientKey,
    pub(super) peer: Peer,
    pub(super) framer: Framer,
    pub(super) state: ConnectionState,
    pub(super) output: Output,
    /// When the current state was entered.
    pub(super) since: Duration,
    /// When output was last written to the socket.
    pub(super) moved: Duration,
    /// The socket may have input.
    pub(super) readable: bool,
    /// The client has closed its sending side or the whole connection.
    pub(super) hung_up: bool,
    /// The end of the input was read.
    pub(super) ended: bool,
    /// `100 Continue` was sent for this request.
    pub(super) continued: bool,
    /// The client is in the list of clients with pending output.
    pub(super) writes: bool,
    /// The socket's send buffer is full, until a writable event.
    pub(super) blocked: bool,
    /// At least one answer was given.
    pub(super) was_answered: bool,
    /// The size of the buffers when it was last counted (bytes).
    pub(super) counted: usize,
}

impl ClientConnection {
    pub(super) fn new(socket: Socket, peer: Peer, key: ClientKey, now: Duration) -> Self {
        Self {
            socket,
            key,
            peer,
            framer: Framer::default(),
            state: ConnectionState::Receiving(RequestPart::Nothing),
            output: Output::default(),
            since: now,
            moved: now,
            // Most clients have sent data before they are accepted.
            readable: true,
            hung_up: false,
            ended: false,
            continued: false,
            writes: false,
            blocked: false,
            was_answered: false,
            counted: 0,
        }
    }

    /// Enters a state.
    pub(super) fn enter(&mut self, state: ConnectionState, now: Duration) {
        self.state = state;
        self.since = now;
    }

    /// Records which part of a request is expected.
    pub(super) fn set_part(&mut self, part: RequestPart, now: Duration) {
        if self.state != ConnectionState::Receiving(part) {
            self.enter(ConnectionState::Receiving(part), now);
        }
    }

    /// The deadline of the current state.
    pub(super) fn due(&self, settings: &config::ServerConfig, is_stopping: bool) -> Option<Duration> {
        if !self.output.is_empty() {
            let timeout = settings.write_timeout;
            return Some(self.moved + if is_stopping { timeout.min(RESPONSIVE_WITHIN) } else { timeout });
        }
        match self.state {
            ConnectionState::Receiving(RequestPart::Nothing) => Some(self.since + settings.idle_timeout),
            ConnectionState::Receiving(RequestPart::Head) => Some(self.since + settings.head_timeout),
            ConnectionState::Receiving(RequestPart::Body) => Some(self.since + settings.body_timeout),
            ConnectionState::Queued => Some(self.since + QUEUE),
            ConnectionState::Forwarded(_) => None,
            ConnectionState::Closing | ConnectionState::Lingering(_) => Some(self.since + LINGER),
        }
    }

    /// The client's place in the eviction order. `None` if it must not be disconnected.
    pub(super) fn eviction_rank(&self, now: Duration) -> Option<(EvictionRank, Duration)> {
        let eviction_rank = match self.state {
            ConnectionState::Lingering(_) => EvictionRank::Finished,
            ConnectionState::Receiving(_) | ConnectionState::Closing if self.blocked => {
                let eviction_rank = if now > self.moved + RESPONSIVE_WITHIN {
                    EvictionRank::Stalled
                } else {
                    EvictionRank::Unread
                };
                return Some((eviction_rank, self.moved));
            }
            // Input or output is about to be processed.
            ConnectionState::Receiving(_) | ConnectionState::Closing
                if self.readable || !self.output.is_empty() =>
            {
                return None;
            }
            ConnectionState::Receiving(RequestPart::Nothing) if self.was_answered => EvictionRank::Idle,
            ConnectionState::Receiving(RequestPart::Nothing) => EvictionRank::Silent,
            ConnectionState::Receiving(RequestPart::Head | RequestPart::Body)
                if now > self.since + RESPONSIVE_WITHIN =>
            {
                EvictionRank::Stalled
            }
            // An incomplete first request does not improve the rank.
            ConnectionState::Receiving(RequestPart::Head | RequestPart::Body) if !self.was_answered => {
                EvictionRank::Silent
            }
            ConnectionState::Receiving(RequestPart::Head | RequestPart::Body) | ConnectionState::Closing => {
                EvictionRank::Sending
            }
            // The client may only have closed its sending side, but nothing distinguishes that.
            ConnectionState::Queued | ConnectionState::Forwarded(_) if self.hung_up => EvictionRank::Finished,
            ConnectionState::Queued | ConnectionState::Forwarded(_) => return None,
        };
        Some((eviction_rank, self.since))
    }

    /// The order in which clients are disconnected when memory is short, lowest first. `None` without buffers. First
    /// come clients that do not read, then clients with a stalled request, then clients with a recent request; the
    /// largest first. Clients that read their answer come last.
    pub(super) fn memory_rank(&self, now: Duration) -> Option<(u8, Duration, Reverse<usize>)> {
        // Shared pieces stay in memory while any client holds them, so they count.
        let size = self.size() + self.output.shared_bytes();
        if size == 0 {
            return None;
        }
        let size = Reverse(size);
        let is_sending = matches!(self.state, ConnectionState::Receiving(_) | ConnectionState::Lingering(_))
            && self.output.is_empty();
        Some(if self.blocked && now > self.moved + RESPONSIVE_WITHIN {
            (0, Duration::ZERO, size)
        } else if is_sending && now > self.since + RESPONSIVE_WITHIN {
            (1, Duration::ZERO, size)
        } else if is_sending {
            (2, Duration::ZERO, size)
        } else {
            (3, self.moved, size)
        })
    }

    /// The size of the client's own buffers, without shared pieces (bytes).
    pub(super) fn size(&self) -> usize {
        self.framer.capacity() + self.output.capacity()
    }

    /// Whether input should be read now.
    fn wants_input(&self) -> bool {
        match self.state {
            ConnectionState::Receiving(_) | ConnectionState::Lingering(_) => true,
            // Read only to detect a disconnect.
            ConnectionState::Queued | ConnectionState::Forwarded(_) => self.framer.len() < READ_AHEAD_BYTES,
            ConnectionState::Closing => false,
        }
    }

    /// Reads once from the socket, if input should be read now.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> ReadOutcome {
        if !self.readable || self.ended || !self.wants_input() {
            return ReadOutcome::NoData;
        }
        let scratch = match self.state {
            ConnectionState::Receiving(_) | ConnectionState::Lingering(_) | ConnectionState::Closing => {
                scratch
            }
            ConnectionState::Queued | ConnectionState::Forwarded(_) => {
                scratch.get_mut(..READ_AHEAD_BYTES).unwrap_or_default()
            }
        };
        match self.socket.read(scratch) {
            Ok(0) => {
                self.readable = false;
                self.hung_up = true;
                self.ended = true;
                ReadOutcome::Data
            }
            Ok(length) => {
                // A short read has emptied the socket. New bytes cause an event; the end of the input has caused one.
                self.readable = length == scratch.len() || self.hung_up;
                if let ConnectionState::Lingering(discarded) = &mut self.state {
                    *discarded += length;
                    return if *discarded > LINGER_BYTES { ReadOutcome::Failed } else { ReadOutcome::Data };
                }
                self.framer.push(scratch.get(..length).unwrap_or_default());
                ReadOutcome::Data
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                ReadOutcome::NoData
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadOutcome::Data,
            Err(_) => ReadOutcome::Failed,
        }
    }

    /// Appends a piece of a streamed answer to the output.
    pub(super) fn push_piece(&mut self, piece: StreamChunk) {
        if let ConnectionState::Forwarded(Exchange { version, phase: Phase::Streaming(pieces), .. }) =
            &mut self.state
        {
            let bytes = piece.bytes().len();
            let framed = self.output.share(match version {
                Version::Http11 => Shared::Chunk(piece),
                Version::Http10 => Shared::Bytes(piece),
            });
            pieces.add(bytes, framed);
        }
    }
}
