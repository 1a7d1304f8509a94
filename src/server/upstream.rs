//! The way to `tiny_http` and back: a few kept connections to its Unix socket, with many requests on their way on each.
//!
//! Connections are opened one at a time, and each is proved by a ping before a request goes over it: `tiny_http` leaves
//! some of those that come together unanswered. The answers on a connection come in the order of its requests, and
//! each must bring back the id of the one that it answers; where it does not, the connection is closed, and those who
//! were waiting for an answer are told that it is lost.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::forward::{self, Wanted};
use super::parser::Request;
use super::refusal::Refusal;
use super::socket::Output;
use crate::api::correlation_id::{self, Tag};
use crate::api::exchange::PutOff;

/// Connections to `tiny_http`; each takes one of its threads.
pub(super) const CONNECTIONS: usize = 4;
/// Most requests on their way on each.
const DEPTH: usize = 128;
/// A connection with more bytes than this that it has not taken gets no more.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// While the first answer due on a connection has taken longer than this, others are preferred.
const SLOW: Duration = Duration::from_millis(5);
/// A ping that is not answered within this has found a connection that is lost.
const PROOF: Duration = Duration::from_secs(1);
/// How long to wait before the next try to open a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of an answer; more can only be a mistake.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Most headers of an answer.
const ANSWER_HEADERS: usize = 48;

/// Which client: its place, and what tells it from another who had that place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// Which connections a request goes over. What writes waits for the disk: on connections of its own it holds up
/// nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It only reads, by its method.
    Reads,
    /// It may write.
    Writes,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Reads, Self::Writes];

    /// Every other connection is of the same lane.
    const fn of_connection(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::Reads } else { Self::Writes }
    }

    pub(super) fn of(method: &str) -> Self {
        if matches!(method, "GET" | "HEAD" | "OPTIONS") { Self::Reads } else { Self::Writes }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    /// Who waits for the answer; nobody for that to a ping.
    pub(super) client: Option<ClientKey>,
    /// A `HEAD` is answered without the body.
    pub(super) is_head: bool,
    since: Duration,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The status line, with its end.
    pub(super) status_line: &'a [u8],
    /// What follows the tag: headers, the empty line, the body.
    pub(super) rest: &'a [u8],
    /// Whether the request is put off, and this is no answer yet.
    pub(super) put_off: Option<PutOff>,
}

/// The connection has broken its word: what comes over it can be nobody's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    /// Until its ping is answered, or this time has come.
    Proving(Duration),
    Proved,
}

#[derive(Debug)]
struct Connection {
    /// Each that is opened has its own.
    number: u64,
    stream: Option<UnixStream>,
    state: State,
    input: Vec<u8>,
    output: Output,
    flights: VecDeque<Flight>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Upstream {
    path: PathBuf,
    connections: Vec<Connection>,
    opened: u64,
    requests: u64,
    try_again_at: Duration,
    /// The last try to open one failed.
    unreachable: bool,
    /// The token of the first.
    first_token: usize,
}

impl Upstream {
    pub(super) fn new(path: PathBuf, first_token: usize) -> Self {
        let absent = |_| Connection {
            number: 0,
            stream: None,
            state: State::Absent,
            input: Vec::new(),
            output: Output::default(),
            flights: VecDeque::new(),
        };
        Self {
            path,
            connections: (0..CONNECTIONS).map(absent).collect(),
            opened: 0,
            requests: 0,
            try_again_at: Duration::ZERO,
            unreachable: false,
            first_token,
        }
    }

    /// The connection that a request of this lane should go over: one whose answers come, with the fewest before it.
    /// None when all have as many as they may.
    pub(super) fn pick(&self, lane: Lane, now: Duration) -> Option<usize> {
        let load = |connection: &Connection| {
            let slow = connection.flights.front().is_some_and(|first| now.saturating_sub(first.since) > SLOW);
            (slow, connection.flights.len())
        };
        (0..)
            .zip(&self.connections)
            .filter(|(index, connection)| {
                Lane::of_connection(*index) == lane
                    && connection.state == State::Proved
                    && connection.flights.len() < DEPTH
                    && connection.output.len() < OUTPUT_BYTES
            })
            .min_by_key(|(_, connection)| load(connection))
            .map(|(index, _)| index)
    }

    /// Sends a request over the connection that [`Upstream::pick`] named.
    pub(super) fn send(
        &mut self,
        index: usize,
        client: ClientKey,
        address: Option<std::net::IpAddr>,
        request: &Request<'_>,
        headers: &Wanted<'_>,
        now: Duration,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(index) else { return Err(Refusal::Upstream) };
        let id = self.requests + 1;
        let tag = Tag { connection: connection.number, id, client: address };
        forward::write(&mut connection.output.bytes, &tag, request, headers)?;
        self.requests = id;
        let is_head = request.head.method == "HEAD";
        connection.flights.push_back(Flight { id, client: Some(client), is_head, since: now });
        Ok(())
    }

    /// Whether an answer to this request is still to come.
    pub(super) fn is_on_its_way(&self, id: u64) -> bool {
        self.connections.iter().any(|connection| connection.flights.iter().any(|flight| flight.id == id))
    }

    /// Whether anybody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.connections
            .iter()
            .all(|connection| connection.flights.iter().all(|flight| flight.client.is_none()))
    }

    /// Writes what is to be written. Those of which it says so have failed.
    pub(super) fn flush(&mut self) -> Vec<(usize, Broken)> {
        let mut failed = Vec::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if connection.output.is_empty() {
                continue;
            }
            let Some(stream) = &mut connection.stream else { continue };
            if connection.output.write_to(stream).is_err() {
                failed.push((index, Broken("it was closed")));
            }
        }
        failed
    }

    /// The bytes that have come on a connection since the last time, after those that were left over.
    pub(super) fn read(&mut self, index: usize, scratch: &mut [u8]) -> (Vec<u8>, Result<(), Broken>) {
        let Some(connection) = self.connections.get_mut(index) else { return (Vec::new(), Ok(())) };
        let mut input = std::mem::take(&mut connection.input);
        let Some(stream) = &mut connection.stream else { return (input, Ok(())) };
        loop {
            match stream.read(scratch) {
                Ok(0) => return (input, Err(Broken("it was closed"))),
                Ok(length) => {
                    input.extend_from_slice(scratch.get(..length).unwrap_or_default());
                    if input.len() > ANSWER_BYTES {
                        return (input, Err(Broken("an answer is too large")));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (input, Ok(())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return (input, Err(Broken("it was closed"))),
            }
        }
    }

    /// Puts back what was read and is not a whole answer yet.
    pub(super) fn keep(&mut self, index: usize, rest: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.input = rest;
        }
    }

    /// The first answer in `bytes`, if it is whole, how long it is, and the request that it belongs to.
    pub(super) fn next_answer<'a>(
        &mut self,
        index: usize,
        bytes: &'a [u8],
        now: Duration,
    ) -> Result<Option<(Answer<'a>, usize, Flight)>, Broken> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(None) };
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(flight) = connection.flights.front() else {
            return Err(Broken("it answers what nobody asked"));
        };
        let Some((answer, length)) = answer(bytes, flight)? else { return Ok(None) };
        let Some(flight) = connection.flights.pop_front() else { return Ok(None) };
        if let Some(next) = connection.flights.front_mut() {
            // It could not be answered before this one was.
            next.since = now;
        }
        if flight.client.is_none() {
            connection.state = State::Proved;
        }
        Ok(Some((answer, length, flight)))
    }

    /// Whether the server cannot be reached, and nothing is left of what there was of one lane or the other.
    pub(super) fn is_cut_off(&self) -> bool {
        let has_none = |lane| {
            let all = (0..).zip(&self.connections);
            let mut of_lane = all.filter(|(index, _)| Lane::of_connection(*index) == lane);
            of_lane.all(|(_, connection)| connection.state == State::Absent)
        };
        self.unreachable && Lane::ALL.into_iter().any(has_none)
    }

    /// Closes a connection. Whoever waits for an answer on it will not get it.
    pub(super) fn close(&mut self, index: usize, now: Duration) -> VecDeque<Flight> {
        let Some(connection) = self.connections.get_mut(index) else { return VecDeque::new() };
        connection.stream = None;
        connection.state = State::Absent;
        connection.input = Vec::new();
        connection.output = Output::default();
        self.try_again_at = now + PAUSE;
        std::mem::take(&mut connection.flights)
    }

    /// Opens what is missing, one at a time. Returns the one whose proof has not come in time, which is to be closed.
    pub(super) fn maintain(&mut self, registry: &Registry, now: Duration) -> Option<usize> {
        for (index, connection) in self.connections.iter().enumerate() {
            match connection.state {
                State::Proving(until) if until <= now => return Some(index),
                State::Proving(_) => return None,
                State::Absent | State::Proved => {}
            }
        }
        if now < self.try_again_at {
            return None;
        }
        let absent = self.connections.iter().position(|connection| connection.state == State::Absent)?;
        if let Err(error) = self.open(absent, registry, now) {
            log::error!("the door cannot reach the server behind it: {error}");
            self.unreachable = true;
            self.try_again_at = now + PROOF;
        }
        None
    }

    /// When [`Upstream::maintain`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let proof = self.connections.iter().find_map(|connection| match connection.state {
            State::Proving(until) => Some(until),
            State::Absent | State::Proved => None,
        });
        let absent = || self.connections.iter().any(|connection| connection.state == State::Absent);
        proof.or_else(|| absent().then_some(self.try_again_at))
    }

    fn open(&mut self, index: usize, registry: &Registry, now: Duration) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        let mut stream = UnixStream::connect(&self.path)?;
        self.unreachable = false;
        registry.register(
            &mut stream,
            Token(self.first_token + index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.opened += 1;
        self.requests += 1;
        connection.number = self.opened;
        connection.stream = Some(stream);
        connection.state = State::Proving(now + PROOF);
        let tag = Tag { connection: connection.number, id: self.requests, client: None };
        forward::write_ping(&mut connection.output.bytes, &tag);
        connection.flights.push_back(Flight { id: tag.id, client: None, is_head: false, since: now });
        Ok(())
    }
}

/// The answer at the beginning of `bytes` and its length, if it is whole.
fn answer<'a>(bytes: &'a [u8], flight: &Flight) -> Result<Option<(Answer<'a>, usize)>, Broken> {
    let mut space = [httparse::EMPTY_HEADER; ANSWER_HEADERS];
    let mut parsed = httparse::Response::new(&mut space);
    let head_end = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken("an answer is no HTTP")),
    };
    let Some(first) = parsed.headers.first().filter(|header| header.name == correlation_id::HEADER) else {
        return Err(Broken("an answer says not whose it is"));
    };
    let mut words = first.value.split(|byte| *byte == b' ');
    if words.next() != Some(format!("{:x}", flight.id).as_bytes()) {
        return Err(Broken("an answer is somebody else's"));
    }
    let put_off = words.next().and_then(correlation_id::put_off);
    let bodiless = flight.is_head || matches!(parsed.code, Some(204 | 304));
    let length = parsed.headers.iter().find(|header| header.name == "Content-Length");
    let body_length = match length {
        _ if bodiless => 0,
        Some(header) => std::str::from_utf8(header.value)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .filter(|length| *length <= ANSWER_BYTES)
            .ok_or(Broken("the length of an answer is no number"))?,
        None => return Err(Broken("an answer has no length")),
    };
    let end = head_end + body_length;
    let line_end = |from: usize| {
        let rest = bytes.get(from..)?;
        rest.iter().position(|byte| *byte == b'\n').map(|position| from + position + 1)
    };
    let Some((status_end, tag_end)) = line_end(0).and_then(|status| Some((status, line_end(status)?))) else {
        return Err(Broken("an answer is no HTTP"));
    };
    match (bytes.get(..status_end), bytes.get(tag_end..end)) {
        (Some(status_line), Some(rest)) => Ok(Some((Answer { status_line, rest, put_off }, end))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(is_head: bool) -> Flight {
        Flight { id: 0x1f, client: None, is_head, since: Duration::ZERO }
    }

    #[test]
    fn an_answer_is_told_from_the_next_by_its_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nX-Lockhouse: 1f\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 2";
        for cut in 0..57 {
            assert_eq!(answer(&bytes[..cut], &flight(false)), Ok(None), "{cut}");
        }
        let (found, length) = answer(bytes, &flight(false)).unwrap().unwrap();
        assert_eq!(length, 57);
        assert_eq!(found.status_line, b"HTTP/1.1 200 OK\r\n");
        assert_eq!(found.rest, b"Content-Length: 2\r\n\r\nok");
        let (found, _) = answer(bytes, &flight(true)).unwrap().unwrap();
        assert_eq!(found.rest, b"Content-Length: 2\r\n\r\n", "that to a HEAD has no body");
    }

    #[test]
    fn an_answer_that_is_not_surely_the_one_that_is_due_breaks_the_connection() {
        for bad in [
            "HTTP/1.1 200 OK\r\nX-Lockhouse: 1e\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-Lockhouse: 01f\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Lockhouse: 1f\r\n\r\n",
            "HTTP/1.1 500 Oh\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-Lockhouse: 1f\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-Lockhouse: 1f\r\nContent-Length: x\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(answer(bad.as_bytes(), &flight(false)).is_err(), "{bad}");
        }
        let held = b"HTTP/1.1 204 No Content\r\nX-Lockhouse: 1f held\r\n\r\n";
        let (found, _) = answer(held, &flight(false)).unwrap().unwrap();
        assert_eq!(found.put_off, Some(PutOff::UntilItComes));
    }
}
