//! One client's connection: what it is doing, what has come from it, what is on its way to it.

use std::cmp::Reverse;
use std::io::{self, Read};
use std::time::Duration;

use super::Settings;
use super::parser::{After, Framer, Version};
use super::socket::{Output, Peer, Shared, Socket, Written};
use super::timers::Deadline;
use crate::api::exchange::PutOff;
use crate::events::piece::StreamChunk;

/// How long a connection that was finished waits for the other end to finish too, so that the last answer is not lost
/// with what the client was still sending (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes that are read and thrown away meanwhile.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// A good client takes no longer than this to finish what it began, or to read some of what it asked for.
const PROMPT: Duration = Duration::from_secs(1);
/// How long a request waits for room on the way to the server.
const QUEUE: Duration = Duration::from_secs(5);
/// Most bytes that are read ahead while a request is being answered.
const AHEAD_BYTES: usize = 4 * 1024;

/// What the client is doing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Saying nothing, or sending a request.
    Reading(Part),
    /// Waiting for room on the way to the server; the request is kept by the framer.
    Queued,
    /// Waiting for the answer.
    Asked(Asked),
    /// Waiting for the holder of a ticket.
    Held(Asked, Hold),
    /// Reading the last answer, after which the connection is finished.
    Leaving,
    /// The connection is finished on this side; this many bytes have been thrown away.
    Lingering(usize),
}

/// Which part of a request is coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Nothing,
    Head,
    Body,
}

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) after: After,
    pub(super) is_head: bool,
}

/// A held request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) id: u64,
    pub(super) put_off: PutOff,
    /// Whether the head of the answer is out, and pieces follow.
    pub(super) streams: bool,
    /// What is in the output of the pieces.
    pub(super) pieces: Pieces,
}

/// Pieces in the output: what was sent, and what it takes with its framing.
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
        // Its share; what is left of it is counted when all is out.
        let bytes = self.bytes * framed / self.framed;
        self.bytes -= bytes;
        self.framed -= framed;
        bytes
    }
}

/// Who is let go of first when there are too many: the lower the sooner; among equals the one that has been so longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// It was told all, or has hung up.
    Finished,
    /// It does not finish what it began, or does not read what it asked for.
    Slow,
    /// It has never asked for anything, or is only about to.
    Silent,
    /// It has asked for something, and does so no more.
    Idle,
    /// It is about to ask for more.
    Asking,
    /// It has not read all that it asked for yet.
    Unread,
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Something,
    Nothing,
    /// The connection is broken.
    Broken,
}

/// A connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the socket or its lists")]
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) serial: u64,
    pub(super) peer: Peer,
    pub(super) framer: Framer,
    pub(super) state: State,
    pub(super) output: Output,
    pub(super) deadline: Deadline,
    /// Since when it is in its state.
    pub(super) since: Duration,
    /// When it last took some of its output.
    pub(super) moved: Duration,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The client has finished, or is gone: the end is to be read.
    pub(super) hung_up: bool,
    /// The end was read.
    pub(super) ended: bool,
    /// Whether it was told to send the body that it announced.
    pub(super) continued: bool,
    /// It is in the list of those with something to write.
    pub(super) writes: bool,
    /// It takes nothing more until it says so.
    pub(super) blocked: bool,
    /// It was answered at least once.
    pub(super) has_asked: bool,
    /// What its buffers were last counted as.
    pub(super) counted: usize,
}

impl Client {
    pub(super) fn new(socket: Socket, peer: Peer, serial: u64, now: Duration) -> Self {
        Self {
            socket,
            serial,
            peer,
            framer: Framer::default(),
            state: State::Reading(Part::Nothing),
            output: Output::default(),
            deadline: Deadline::NEVER,
            since: now,
            moved: now,
            // Many have said something by the time they are let in.
            readable: true,
            hung_up: false,
            ended: false,
            continued: false,
            writes: false,
            blocked: false,
            has_asked: false,
            counted: 0,
        }
    }

    /// It is in this state from now on.
    pub(super) fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.since = now;
    }

    /// This part of a request is coming, and has been, or begins to.
    pub(super) fn is_sending(&mut self, part: Part, now: Duration) {
        if self.state != State::Reading(part) {
            self.enter(State::Reading(part), now);
        }
    }

    /// When it has taken too long over what it is doing.
    pub(super) fn due(&self, settings: &Settings, server_stops: bool) -> Option<Duration> {
        if !self.output.is_empty() {
            let timeout = settings.write_timeout;
            return Some(self.moved + if server_stops { timeout.min(PROMPT) } else { timeout });
        }
        match self.state {
            State::Reading(Part::Nothing) => Some(self.since + settings.idle_timeout),
            State::Reading(Part::Head) => Some(self.since + settings.head_timeout),
            State::Reading(Part::Body) => Some(self.since + settings.body_timeout),
            State::Queued => Some(self.since + QUEUE),
            State::Asked(_) | State::Held(..) => None,
            State::Leaving | State::Lingering(_) => Some(self.since + LINGER),
        }
    }

    /// Whether it can be let go of when there are too many, and how soon.
    pub(super) fn worth(&self, now: Duration) -> Option<(Worth, Duration)> {
        let worth = match self.state {
            State::Lingering(_) => Worth::Finished,
            State::Reading(_) | State::Leaving if self.blocked => {
                let worth = if now > self.moved + PROMPT { Worth::Slow } else { Worth::Unread };
                return Some((worth, self.moved));
            }
            // It is about to be heard, or to be told something.
            State::Reading(_) | State::Leaving if self.readable || !self.output.is_empty() => return None,
            State::Reading(Part::Nothing) if self.has_asked => Worth::Idle,
            State::Reading(Part::Nothing) => Worth::Silent,
            State::Reading(Part::Head | Part::Body) if now > self.since + PROMPT => Worth::Slow,
            // A byte is soon said.
            State::Reading(Part::Head | Part::Body) if !self.has_asked => Worth::Silent,
            State::Reading(Part::Head | Part::Body) | State::Leaving => Worth::Asking,
            // It has hung up on us, or only finished sending: whoever has not comes first.
            State::Queued | State::Asked(_) | State::Held(..) if self.hung_up => Worth::Finished,
            State::Queued | State::Asked(_) | State::Held(..) => return None,
        };
        Some((worth, self.since))
    }

    /// Who is cut off first when there is too little memory: the lower the sooner. Nobody who takes none; those that
    /// do not read, and those that do not finish what they began, the largest first; then those that have just begun;
    /// and those that read what they asked for last.
    pub(super) fn burden(&self, now: Duration) -> Option<(u8, Duration, Reverse<usize>)> {
        // What it keeps of pieces is there for it, whoever else keeps them.
        let size = self.size() + self.output.shared_bytes();
        if size == 0 {
            return None;
        }
        let size = Reverse(size);
        let sends = matches!(self.state, State::Reading(_) | State::Lingering(_)) && self.output.is_empty();
        Some(if self.blocked && now > self.moved + PROMPT {
            (0, Duration::ZERO, size)
        } else if sends && now > self.since + PROMPT {
            (1, Duration::ZERO, size)
        } else if sends {
            (2, Duration::ZERO, size)
        } else {
            (3, self.moved, size)
        })
    }

    /// What its buffers take, without what it shares (bytes).
    pub(super) fn size(&self) -> usize {
        self.framer.capacity() + self.output.capacity()
    }

    /// Whether more of what it sends is wanted just now.
    fn wants_input(&self) -> bool {
        match self.state {
            State::Reading(_) | State::Lingering(_) => true,
            // To notice that it is gone, and no more.
            State::Queued | State::Asked(_) | State::Held(..) => self.framer.len() < AHEAD_BYTES,
            State::Leaving => false,
        }
    }

    /// Reads once, if there is anything that is wanted.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Came {
        if !self.readable || self.ended || !self.wants_input() {
            return Came::Nothing;
        }
        let scratch = match self.state {
            State::Reading(_) | State::Lingering(_) | State::Leaving => scratch,
            State::Queued | State::Asked(_) | State::Held(..) => {
                scratch.get_mut(..AHEAD_BYTES).unwrap_or_default()
            }
        };
        match self.socket.read(scratch) {
            Ok(0) => {
                self.readable = false;
                self.hung_up = true;
                self.ended = true;
                Came::Something
            }
            Ok(length) => {
                // A short read has emptied the socket: the next bytes announce themselves, unless they are the end,
                // which has.
                self.readable = length == scratch.len() || self.hung_up;
                if let State::Lingering(thrown_away) = &mut self.state {
                    *thrown_away += length;
                    return if *thrown_away > LINGER_BYTES { Came::Broken } else { Came::Something };
                }
                self.framer.push(scratch.get(..length).unwrap_or_default());
                Came::Something
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Came::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Came::Something,
            Err(_) => Came::Broken,
        }
    }

    /// Puts an answer into the output, with what it says of the connection.
    pub(super) fn answer(&mut self, status_line: &[u8], rest: &[u8], asked: Asked, framing: &str) {
        let connection = match (asked.after, asked.version) {
            (After::Close, _) => "Connection: close\r\n",
            (After::KeepAlive, Version::Http10) => "Connection: keep-alive\r\n",
            (After::KeepAlive, Version::Http11) => "",
        };
        for part in [status_line, framing.as_bytes(), connection.as_bytes(), rest] {
            self.output.end().extend_from_slice(part);
        }
    }

    /// Puts a piece of a streamed answer into the output.
    pub(super) fn piece(&mut self, piece: StreamChunk, asked: Asked) {
        let length = piece.bytes().len();
        let framed = self.output.share(match asked.version {
            Version::Http11 => Shared::Chunk(piece),
            Version::Http10 => Shared::Bytes(piece),
        });
        if let State::Held(_, hold) = &mut self.state {
            hold.pieces.bytes += length;
            hold.pieces.framed += framed;
        }
    }
}
