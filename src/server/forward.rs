//! A complete request as it goes on: the same for everybody, whatever way it was written in.

use std::io::Write as _;
use std::net::IpAddr;

use super::parser::{Head, Request};
use super::refusal::Refusal;
use super::socket::Peer;
use crate::api::correlation_id::{self, Tag};
use crate::config::TrustedProxy;

/// What is encoded of a header that a proxy sets: what is not ASCII, since `tiny_http` refuses that.
const ENCODED: &percent_encoding::AsciiSet = percent_encoding::CONTROLS;

/// The headers that go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Those that anybody behind the door reads.
    pub(super) wanted: &'a [&'a str],
    /// Those in which this client may say who the user is, and what they are called inside.
    pub(super) asserted: &'a [(String, &'static str)],
}

/// Appends the request, with its tag and those of its headers that are `wanted`, to `bytes`; nothing if it is refused.
/// Headers that are `asserted` go on under another name, which no client can set.
pub(super) fn write(
    bytes: &mut Vec<u8>,
    tag: &Tag,
    request: &Request<'_>,
    headers: &Wanted<'_>,
) -> Result<(), Refusal> {
    let Wanted { wanted, asserted } = headers;
    let Request { head, body } = request;
    let before = bytes.len();
    // Writing into a Vec cannot fail.
    let _ =
        write!(bytes, "{} {} HTTP/1.1\r\n{}: {tag}\r\n", head.method, head.target, correlation_id::HEADER);
    for (name, value) in &head.headers {
        let wanted = wanted.iter().find(|wanted| wanted.eq_ignore_ascii_case(name)).copied();
        let asserted = asserted.iter().find(|(outside, _)| outside.eq_ignore_ascii_case(name));
        let Some(name) = asserted.map(|(_, inside)| *inside).or(wanted) else { continue };
        if asserted.is_some() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(percent_encoding::percent_encode(value, ENCODED).flat_map(str::bytes));
            bytes.extend_from_slice(b"\r\n");
            continue;
        }
        if !value.is_ascii() {
            bytes.truncate(before);
            return Err(Refusal::HeaderValue);
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        let _ = write!(bytes, "Content-Length: {}\r\n", body.len());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Ok(())
}

/// Appends a request that only proves that the connection is answered.
pub(super) fn write_ping(bytes: &mut Vec<u8>, tag: &Tag) {
    let _ = write!(bytes, "{} * HTTP/1.1\r\n{}: {tag}\r\n\r\n", correlation_id::PING, correlation_id::HEADER);
}

/// Where a request comes from: the other end of the connection, or, where that is a trusted proxy, the last address
/// of `X-Forwarded-For` that is not one. Addresses further to the left are what the client made up.
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

/// An address as proxies write it: with or without a port, an IPv6 address with brackets or without.
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

    fn with_request<T>(bytes: &str, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let mut framer = Framer::default();
        framer.push(bytes.as_bytes());
        match framer.progress(&LIMITS).unwrap() {
            Progress::Complete(request) => use_it(&request),
            other @ (Progress::Nothing | Progress::Head | Progress::Body { .. }) => panic!("{other:?}"),
        }
    }

    const USER: Wanted<'_> = Wanted { wanted: &["X-User-Id"], asserted: &[] };
    const TAG: Tag = Tag { connection: 1, id: 10, client: None };

    #[test]
    fn what_goes_on_has_the_tag_the_wanted_headers_and_nothing_else() {
        let sent = "POST http://h/a?b HTTP/1.1\r\nHost: h\r\nx-lockhouse: 1 2 3\r\nx-user-id:  alice \r\n\
                    Cookie: \u{e9}\r\nExpect: 100-continue\r\nConnection: close\r\ncontent-length: 0002\r\n\r\n{}";
        let mut bytes = b"before".to_vec();
        with_request(sent, |request| write(&mut bytes, &TAG, request, &USER)).unwrap();
        let expected = "beforePOST /a?b HTTP/1.1\r\nX-Lockhouse: 1 a -\r\nX-User-Id: alice\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn what_is_asserted_goes_on_under_a_name_of_its_own() {
        let sent =
            "GET / HTTP/1.1\r\nHost: h\r\nx-lockhouse-user: eve\r\nremote-user: al%69ce \u{eb}\r\n\r\n";
        let asserted = [("Remote-User".to_owned(), "X-Lockhouse-User")];
        for (believed, expected) in [(&asserted[..], "X-Lockhouse-User: al%69ce %C3%AB\r\n"), (&[], "")] {
            let mut bytes = Vec::new();
            with_request(sent, |request| {
                write(&mut bytes, &TAG, request, &Wanted { wanted: &[], asserted: believed })
            })
            .unwrap();
            let written = String::from_utf8(bytes).unwrap();
            assert_eq!(written, format!("GET / HTTP/1.1\r\nX-Lockhouse: 1 a -\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn a_wanted_header_that_is_not_ascii_is_refused_and_leaves_nothing() {
        let mut bytes = b"before".to_vec();
        let sent = "GET / HTTP/1.1\r\nHost: h\r\nX-User-Id: zo\u{eb}\r\n\r\n";
        let refused = with_request(sent, |request| write(&mut bytes, &TAG, request, &USER));
        assert_eq!((refused, bytes), (Err(Refusal::HeaderValue), b"before".to_vec()));
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
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
