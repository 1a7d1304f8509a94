//! One client's connection: its state, the bytes that have come, the bytes to be sent.

use std::cmp::Reverse;
use std::io::{self, Read};
use std::time::Duration;

use slab::Slab;

use super::parser::{After, Framer, Head, Version};
use super::socket::{Output, Peer, Shared, Socket, Written};
use crate::config;
use crate::events::chunk::StreamChunk;

/// How long a finished connection waits for the client to finish too, so that the last answer is not lost with what the
/// client is still sending (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes that are read and discarded meanwhile.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// A good client finishes a request, or reads a part of the answer, within this time.
const RESPONSIVE_WITHIN: Duration = Duration::from_secs(1);
/// How long a request waits until it can be forwarded.
const QUEUE: Duration = Duration::from_secs(5);
/// Most bytes that are read ahead while a request is being answered.
const READ_AHEAD_BYTES: usize = 4 * 1024;

/// Names a client: its slot, and a serial number, because slots are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    pub(super) slot: usize,
    serial: u64,
}

/// What the client is doing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Silent, or sending a request.
    Reading(RequestPart),
    /// Its request cannot be forwarded yet; the framer keeps it.
    Queued,
    /// Its request was forwarded.
    Forwarded(Exchange),
    /// Reading the last answer, after which the connection is finished.
    Closing,
    /// The connection is finished on this side; this many bytes were discarded.
    Lingering(usize),
}

/// Which part of a request is coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPart {
    Nothing,
    Head,
    Body,
}

/// A request that was forwarded, and what its answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) id: u64,
    pub(super) version: Version,
    pub(super) after: After,
    pub(super) is_head: bool,
    pub(super) phase: Phase,
}

impl Exchange {
    pub(super) fn new(id: u64, head: &Head<'_>) -> Self {
        let is_head = head.method == "HEAD";
        Self { id, version: head.version, after: head.after, is_head, phase: Phase::InFlight }
    }

    /// For a refusal, after which the connection is closed.
    pub(super) const fn last(is_head: bool) -> Self {
        Self { id: 0, version: Version::Http11, after: After::Close, is_head, phase: Phase::InFlight }
    }
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being carried out.
    InFlight,
    /// It waits for an event, maybe for minutes.
    Parked,
    /// The head of its answer was sent; these pieces are in the output.
    Streaming(Pieces),
}

/// Pieces in the output: their bytes, and their bytes with the framing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    bytes: usize,
    framed: usize,
}

impl Pieces {
    /// How many bytes of the pieces the client has taken with this.
    pub(super) const fn taken(&mut self, written: Written) -> usize {
        let framed = match written {
            Written::Blocked(framed) if framed < self.framed => framed,
            Written::Blocked(_) | Written::All => self.framed,
        };
        if framed == self.framed {
            let bytes = self.bytes;
            *self = Self { bytes: 0, framed: 0 };
            return bytes;
        }
        // Its share; the rest is counted when all is sent.
        let bytes = self.bytes * framed / self.framed;
        self.bytes -= bytes;
        self.framed -= framed;
        bytes
    }
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

    /// The client in this slot. The caller knows that it is still the same one.
    pub(super) fn in_slot(&mut self, slot: usize) -> Option<&mut ClientConnection> {
        self.slab.get_mut(slot)
    }

    pub(super) fn contains(&self, key: ClientKey) -> bool {
        self.slab.get(key.slot).is_some_and(|client| client.key.serial == key.serial)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ClientConnection> {
        self.slab.iter().map(|(_, client)| client)
    }

    /// Adds a client that `register` can register for its slot.
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
            // After ten thousand connections their memory is given back.
            self.slab = Slab::new();
        }
        Some(client)
    }
}

/// Which clients are disconnected first when there are too many: the lowest; among equals the one that has been so longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionRank {
    /// It got its last answer, or has hung up.
    Finished,
    /// It does not finish its request, or does not read its answer.
    Slow,
    /// It has never sent a complete request.
    Silent,
    /// It was answered, and is silent now.
    Idle,
    /// It is sending its next request.
    Sending,
    /// It is still reading its answer.
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

/// A connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the socket or its lists")]
pub(super) struct ClientConnection {
    pub(super) socket: Socket,
    pub(super) key: ClientKey,
    pub(super) peer: Peer,
    pub(super) framer: Framer,
    pub(super) state: ConnectionState,
    pub(super) output: Output,
    /// Since when it is in its state.
    pub(super) since: Duration,
    /// When it last took some of its output.
    pub(super) moved: Duration,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The client has finished sending, or is gone.
    pub(super) hung_up: bool,
    /// The end of its stream was read.
    pub(super) ended: bool,
    /// It was sent `100 Continue`.
    pub(super) continued: bool,
    /// It is in the list of clients with something to write.
    pub(super) writes: bool,
    /// Its socket is full, until an event says otherwise.
    pub(super) blocked: bool,
    /// It was answered at least once.
    pub(super) was_answered: bool,
    /// The size of its buffers when they were last counted.
    pub(super) counted: usize,
}

impl ClientConnection {
    pub(super) fn new(socket: Socket, peer: Peer, key: ClientKey, now: Duration) -> Self {
        Self {
            socket,
            key,
            peer,
            framer: Framer::default(),
            state: ConnectionState::Reading(RequestPart::Nothing),
            output: Output::default(),
            since: now,
            moved: now,
            // Many have sent something before they are accepted.
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

    /// This part of a request is coming.
    pub(super) fn set_part(&mut self, part: RequestPart, now: Duration) {
        if self.state != ConnectionState::Reading(part) {
            self.enter(ConnectionState::Reading(part), now);
        }
    }

    /// When it will have taken too long for what it is doing.
    pub(super) fn due(&self, settings: &config::ServerConfig, server_stops: bool) -> Option<Duration> {
        if !self.output.is_empty() {
            let timeout = settings.write_timeout;
            return Some(self.moved + if server_stops { timeout.min(RESPONSIVE_WITHIN) } else { timeout });
        }
        match self.state {
            ConnectionState::Reading(RequestPart::Nothing) => Some(self.since + settings.idle_timeout),
            ConnectionState::Reading(RequestPart::Head) => Some(self.since + settings.head_timeout),
            ConnectionState::Reading(RequestPart::Body) => Some(self.since + settings.body_timeout),
            ConnectionState::Queued => Some(self.since + QUEUE),
            ConnectionState::Forwarded(_) => None,
            ConnectionState::Closing | ConnectionState::Lingering(_) => Some(self.since + LINGER),
        }
    }

    /// Whether it can be disconnected when there are too many, and how soon.
    pub(super) fn eviction_rank(&self, now: Duration) -> Option<(EvictionRank, Duration)> {
        let eviction_rank = match self.state {
            ConnectionState::Lingering(_) => EvictionRank::Finished,
            ConnectionState::Reading(_) | ConnectionState::Closing if self.blocked => {
                let eviction_rank = if now > self.moved + RESPONSIVE_WITHIN {
                    EvictionRank::Slow
                } else {
                    EvictionRank::Unread
                };
                return Some((eviction_rank, self.moved));
            }
            // Something is about to be read or written.
            ConnectionState::Reading(_) | ConnectionState::Closing
                if self.readable || !self.output.is_empty() =>
            {
                return None;
            }
            ConnectionState::Reading(RequestPart::Nothing) if self.was_answered => EvictionRank::Idle,
            ConnectionState::Reading(RequestPart::Nothing) => EvictionRank::Silent,
            ConnectionState::Reading(RequestPart::Head | RequestPart::Body)
                if now > self.since + RESPONSIVE_WITHIN =>
            {
                EvictionRank::Slow
            }
            // One byte of a head is not yet a request.
            ConnectionState::Reading(RequestPart::Head | RequestPart::Body) if !self.was_answered => {
                EvictionRank::Silent
            }
            ConnectionState::Reading(RequestPart::Head | RequestPart::Body) | ConnectionState::Closing => {
                EvictionRank::Sending
            }
            // It has hung up, or only finished sending.
            ConnectionState::Queued | ConnectionState::Forwarded(_) if self.hung_up => EvictionRank::Finished,
            ConnectionState::Queued | ConnectionState::Forwarded(_) => return None,
        };
        Some((eviction_rank, self.since))
    }

    /// Which clients are disconnected first when memory is short: the lowest. Clients without buffers are not. Clients
    /// that do not read, or do not finish their request, go first, the largest of them before the others; then those
    /// that have just begun a request; those that read their answer go last.
    pub(super) fn memory_rank(&self, now: Duration) -> Option<(u8, Duration, Reverse<usize>)> {
        // It keeps its pieces in memory, even if others keep them too.
        let size = self.size() + self.output.shared_bytes();
        if size == 0 {
            return None;
        }
        let size = Reverse(size);
        let sends = matches!(self.state, ConnectionState::Reading(_) | ConnectionState::Lingering(_))
            && self.output.is_empty();
        Some(if self.blocked && now > self.moved + RESPONSIVE_WITHIN {
            (0, Duration::ZERO, size)
        } else if sends && now > self.since + RESPONSIVE_WITHIN {
            (1, Duration::ZERO, size)
        } else if sends {
            (2, Duration::ZERO, size)
        } else {
            (3, self.moved, size)
        })
    }

    /// The size of its own buffers, without shared pieces (bytes).
    pub(super) fn size(&self) -> usize {
        self.framer.capacity() + self.output.capacity()
    }

    /// Whether more of what it sends is wanted now.
    fn wants_input(&self) -> bool {
        match self.state {
            ConnectionState::Reading(_) | ConnectionState::Lingering(_) => true,
            // Only to notice that it is gone.
            ConnectionState::Queued | ConnectionState::Forwarded(_) => self.framer.len() < READ_AHEAD_BYTES,
            ConnectionState::Closing => false,
        }
    }

    /// Reads once, if there is anything that is wanted.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> ReadOutcome {
        if !self.readable || self.ended || !self.wants_input() {
            return ReadOutcome::NoData;
        }
        let scratch = match self.state {
            ConnectionState::Reading(_) | ConnectionState::Lingering(_) | ConnectionState::Closing => scratch,
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
                // A short read has emptied the socket. More bytes cause an event; the end of the stream has caused one.
                self.readable = length == scratch.len() || self.hung_up;
                if let ConnectionState::Lingering(thrown_away) = &mut self.state {
                    *thrown_away += length;
                    return if *thrown_away > LINGER_BYTES { ReadOutcome::Failed } else { ReadOutcome::Data };
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

    /// Puts a piece of a streamed answer into the output.
    pub(super) fn piece(&mut self, piece: StreamChunk) {
        if let ConnectionState::Forwarded(Exchange { version, phase: Phase::Streaming(pieces), .. }) =
            &mut self.state
        {
            pieces.bytes += piece.bytes().len();
            pieces.framed += self.output.share(match version {
                Version::Http11 => Shared::Chunk(piece),
                Version::Http10 => Shared::Bytes(piece),
            });
        }
    }
}
