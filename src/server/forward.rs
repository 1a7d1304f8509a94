//! Forwards complete requests to `tiny_http`, in canonical form, over one connection.
//!
//! Requests are pipelined. Answers take another path, so any byte received on this connection is an error. One connection
//! is enough, because no request waits for the answer to another. It also avoids a race in `tiny_http`, which may never
//! serve some of several connections that are opened at the same time.

use std::io::{self, Read, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::parser::{Head, ParsedRequest};
use super::refusal::HttpRefusal;
use super::socket::{Output, Peer, Written};
use crate::api::exchange::FOR_THE_LOG;
use crate::config::TrustedProxy;

/// The header with the request id. It is written first. Headers of this name from clients are not forwarded.
pub(super) const ID_HEADER: &str = "X-Lockhouse";
/// Maximum number of unsent bytes before forwarding pauses.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// Pause before the next attempt to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of consecutive failed attempts to connect after which the event loop ends.
const ATTEMPTS: u32 = 3;

/// Percent-encoded in identity headers. Non-ASCII bytes are encoded too, because `tiny_http` refuses them.
const ENCODED: &percent_encoding::AsciiSet = percent_encoding::CONTROLS;

/// The headers to forward.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForwardedHeaders<'a> {
    /// The names of the headers that the API reads.
    pub(super) wanted: &'a [&'a str],
    /// The identity headers that this peer may set, with their internal names.
    pub(super) identity: &'a [(String, &'static str)],
}

/// The connection to `tiny_http`.
#[derive(Debug)]
pub(super) struct Forwarder {
    path: PathBuf,
    token: Token,
    stream: Option<UnixStream>,
    output: Output,
    /// The socket's send buffer is full, until a writable event.
    is_blocked: bool,
    try_again_at: Duration,
    failures: u32,
}

impl Forwarder {
    pub(super) fn new(path: PathBuf, token: Token) -> Self {
        Self {
            path,
            token,
            stream: None,
            output: Output::default(),
            is_blocked: false,
            try_again_at: Duration::ZERO,
            failures: 0,
        }
    }

    /// Whether a request can be forwarded now.
    pub(super) fn has_room(&self) -> bool {
        self.stream.is_some() && self.output.len() < OUTPUT_BYTES
    }

    /// Queues a request for the next [`Forwarder::flush`]. Returns its size in bytes.
    pub(super) fn send(
        &mut self,
        id: u64,
        request: &ParsedRequest<'_>,
        headers: &ForwardedHeaders<'_>,
    ) -> Result<usize, HttpRefusal> {
        let bytes = self.output.end();
        let before = bytes.len();
        write(bytes, id, request, headers)?;
        Ok(bytes.len() - before)
    }

    /// Writes queued requests.
    pub(super) fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.output.is_empty()) else { return Ok(()) };
        let is_blocked = self.output.write_to(stream)? != Written::All;
        if is_blocked != self.is_blocked {
            // Watch for writability only while needed: a Unix socket reports it after every read of the peer.
            self.is_blocked = is_blocked;
            registry.reregister(stream, self.token, interest(is_blocked))?;
        }
        Ok(())
    }

    /// Checks that nothing was received.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.read(&mut [0; 64]) {
            Ok(0) => Err(io::Error::other("the connection was closed")),
            Ok(_) => Err(io::Error::other("unexpected data was received")),
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the connection if it is closed and the pause is over.
    pub(super) fn maintain(&mut self, registry: &Registry, now: Duration) {
        if self.stream.is_some() || now < self.try_again_at {
            return;
        }
        match self.open(registry) {
            Ok(stream) => (self.stream, self.failures) = (Some(stream), 0),
            Err(error) => {
                log::error!("cannot connect to the internal socket: {error}");
                self.failures += 1;
                self.try_again_at = now + PAUSE;
            }
        }
    }

    fn open(&self, registry: &Registry) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.path)?;
        registry.register(&mut stream, self.token, interest(false))?;
        Ok(stream)
    }

    /// Closes the connection. Queued requests are lost.
    pub(super) fn close(&mut self, now: Duration) {
        self.stream = None;
        self.output = Output::default();
        self.is_blocked = false;
        self.try_again_at = now + PAUSE;
    }

    /// When [`Forwarder::maintain`] should be called to reconnect.
    pub(super) fn next_attempt(&self) -> Option<Duration> {
        self.stream.is_none().then_some(self.try_again_at)
    }

    /// Whether too many attempts to connect have failed in a row.
    pub(super) const fn has_failed(&self) -> bool {
        self.failures >= ATTEMPTS
    }
}

fn interest(is_blocked: bool) -> Interest {
    if is_blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

/// Appends the request to `bytes`, with its id and the forwarded headers. Appends nothing on an error. Identity headers
/// get their internal names, which clients cannot set.
fn write(
    bytes: &mut Vec<u8>,
    id: u64,
    request: &ParsedRequest<'_>,
    headers: &ForwardedHeaders<'_>,
) -> Result<(), HttpRefusal> {
    let ParsedRequest { head, body } = request;
    let before = bytes.len();
    // Writing into a Vec cannot fail.
    let _ = write!(bytes, "{} {} HTTP/1.1\r\n{ID_HEADER}: {id:x}\r\n", head.method, head.target);
    for (name, value) in &head.headers {
        let identity = headers.identity.iter().find(|(outside, _)| outside.eq_ignore_ascii_case(name));
        let wanted = || headers.wanted.iter().find(|wanted| wanted.eq_ignore_ascii_case(name));
        if let Some((_, name)) = identity {
            let encoded = percent_encoding::percent_encode(value, ENCODED);
            let _ = write!(bytes, "{name}: {encoded}\r\n");
        } else if let Some(name) = wanted() {
            if !value.is_ascii() {
                if FOR_THE_LOG.contains(name) {
                    continue;
                }
                bytes.truncate(before);
                return Err(HttpRefusal::HeaderValue);
            }
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
    }
    if !body.is_empty() {
        let _ = write!(bytes, "Content-Length: {}\r\n", body.len());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Ok(())
}

/// The address of the client: the peer or, behind a trusted proxy, the last address in `X-Forwarded-For` that is not a
/// trusted proxy. The client can forge addresses to the left of that one.
pub(super) fn client_address(peer: Peer, head: &Head<'_>, trusted: &[TrustedProxy]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|proxy| proxy.covers(address));
    let mut client = match peer {
        Peer::Ip(address) if is_trusted(address) => Some(address),
        Peer::Ip(address) => return Some(address),
        Peer::Local if trusted.contains(&TrustedProxy::Local) => None,
        Peer::Local => return None,
    };
    let forwarded = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("X-Forwarded-For"));
    for value in forwarded.map(|(_, value)| *value).rev() {
        for word in value.rsplit(|byte| *byte == b',') {
            let Some(address) = address(word) else { return client };
            client = Some(address);
            if !is_trusted(address) {
                return client;
            }
        }
    }
    client
}

/// Parses an address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?.trim();
    let bare =
        word.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(word, |(inside, _)| inside);
    bare.parse::<IpAddr>()
        .or_else(|_| bare.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::parser::{Framer, Limits, Progress};

    const LIMITS: Limits = Limits { head_bytes: 4096, headers: 32, body_bytes: 4096 };

    fn with_request<T>(bytes: &str, use_it: impl FnOnce(&ParsedRequest<'_>) -> T) -> T {
        let mut framer = Framer::default();
        framer.push(bytes.as_bytes());
        match framer.progress(&LIMITS).unwrap() {
            Progress::Complete(request) => use_it(&request),
            other @ (Progress::Nothing | Progress::Head | Progress::Body { .. }) => panic!("{other:?}"),
        }
    }

    const USER: ForwardedHeaders<'_> = ForwardedHeaders { wanted: &["X-User-Id"], identity: &[] };

    #[test]
    fn forwarded_requests_have_the_id_and_the_wanted_headers_only() {
        let sent = "POST http://h/a?b HTTP/1.1\r\nHost: h\r\nx-lockhouse: 1 2 3\r\nx-user-id:  alice \r\n\
                    Cookie: \u{e9}\r\nExpect: 100-continue\r\nConnection: close\r\ncontent-length: 0002\r\n\r\n{}";
        let mut bytes = b"before".to_vec();
        with_request(sent, |request| write(&mut bytes, 10, request, &USER)).unwrap();
        let expected =
            "beforePOST /a?b HTTP/1.1\r\nX-Lockhouse: a\r\nX-User-Id: alice\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn identity_headers_are_forwarded_under_internal_names() {
        let sent =
            "GET / HTTP/1.1\r\nHost: h\r\nx-lockhouse-user: eve\r\nremote-user: al%69ce \u{eb}\r\n\r\n";
        let trusted = [("Remote-User".to_owned(), "X-Lockhouse-User")];
        for (identity, expected) in [(&trusted[..], "X-Lockhouse-User: al%69ce %C3%AB\r\n"), (&[], "")] {
            let mut bytes = Vec::new();
            with_request(sent, |request| {
                write(&mut bytes, 10, request, &ForwardedHeaders { wanted: &[], identity })
            })
            .unwrap();
            let written = String::from_utf8(bytes).unwrap();
            assert_eq!(written, format!("GET / HTTP/1.1\r\nX-Lockhouse: a\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn non_ascii_wanted_headers_are_refused_and_nothing_is_forwarded() {
        let mut bytes = b"before".to_vec();
        let sent = "GET / HTTP/1.1\r\nHost: h\r\nX-User-Id: zo\u{eb}\r\n\r\n";
        let refused = with_request(sent, |request| write(&mut bytes, 10, request, &USER));
        assert_eq!((refused, bytes), (Err(HttpRefusal::HeaderValue), b"before".to_vec()));
    }

    #[test]
    fn the_client_address_is_taken_from_trusted_proxies_only() {
        let proxies: Vec<TrustedProxy> =
            ["10.0.0.0/8", "unix", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
        let ip = |text: &str| Peer::Ip(text.parse().unwrap());
        for (peer, forwarded, expected) in [
            (ip("192.0.2.1"), "203.0.113.9", Some("192.0.2.1")),
            (ip("10.0.0.1"), "203.0.113.9", Some("203.0.113.9")),
            (ip("10.0.0.1"), "198.51.100.1, 203.0.113.9, 10.9.9.9", Some("203.0.113.9")),
            (ip("10.0.0.1"), "198.51.100.1, nonsense, 10.9.9.9", Some("10.9.9.9")),
            (ip("10.0.0.1"), "", Some("10.0.0.1")),
            (ip("2001:db8::1"), "[2001:db8::77]:4711", Some("2001:db8::77")),
            (ip("10.0.0.1"), "203.0.113.9:4711", Some("203.0.113.9")),
            (ip("10.0.0.1"), "::ffff:203.0.113.9", Some("203.0.113.9")),
            (Peer::Local, "203.0.113.9", Some("203.0.113.9")),
        ] {
            let sent = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
            let found = with_request(&sent, |request| client_address(peer, &request.head, &proxies));
            assert_eq!(found.map(|address| address.to_string()).as_deref(), expected, "{peer:?} {forwarded}");
        }
        let sent =
            "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n";
        let ask = |peer, proxies: &[TrustedProxy]| {
            with_request(sent, |request| client_address(peer, &request.head, proxies))
        };
        assert_eq!(ask(ip("10.0.0.1"), &proxies).unwrap().to_string(), "203.0.113.9");
        assert_eq!(ask(Peer::Local, &[]), None);
    }
}
