//! Where a request ends: the framer compared with a second parser, and attacks that try to make it
//! read the bytes wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod common;

use common::reading::{Rest, agree, parse_by_rfc, parse_with_framer};
use common::{Raw, Server};
use lockhouse::server::parser::Limits;
use proptest::prelude::*;

const LIMITS: Limits = Limits { head_bytes: 16 * 1024, headers: 64, body_bytes: 64 * 1024 };
const SMALL: Limits = Limits { head_bytes: 200, headers: 6, body_bytes: 40 };

/// Pieces from which requests are made, good ones and bad ones.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET ",
        "POST ",
        "HEAD ",
        "OPTIONS ",
        "G@T ",
        "/",
        "/a?b=c",
        "/terraform/w",
        "*",
        "http://h/x",
        "HTTPS://h",
        "http:///x",
        "http://h?x",
        "/#f",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/1.2",
        " HTTP/2.0",
        " http/1.1",
        "\r\n",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "\0",
        "\t",
        " ",
        "Host: h\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "host: h:80\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 03\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x3\r\n",
        "content-length: 41\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n",
        "0\r\n\r\n",
        "UNLOCK /terraform/w HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n",
        "PUT /terraform/w HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "UNLOCK /terraform/w HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        " folded\r\n",
        "Connection: close\r\n",
        "Connection: x, Keep-Alive\r\n",
        "Expect: 100-continue\r\n",
        "Expect: x\r\n",
        "A: \u{e9}\r\n",
        ": v\r\n",
        "A\r\n",
        "abc",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    ]);
    prop_oneof![
        20 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_framer_agrees_with_the_reference_parser_on_any_bytes(
        fragments in prop::collection::vec(fragment(), 0..14),
        cut in any::<prop::sample::Index>(),
        limits in prop::sample::select(vec![LIMITS, SMALL]),
    ) {
        let bytes = fragments.concat();
        let whole = parse_with_framer(&[&bytes], &limits);
        prop_assert_eq!(&whole, &parse_by_rfc(&bytes, &limits), "{:?}", String::from_utf8_lossy(&bytes));
        let (left, right) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(&whole, &parse_with_framer(&[left, right], &limits));
    }

    #[test]
    fn well_formed_requests_are_parsed(
        method in "[A-Z]{1,12}",
        target in "/[!-\"$-~]{0,40}",
        names in prop::collection::vec("[A-Za-z][-A-Za-z0-9]{0,10}x", 0..4),
        value in "[ -~]{0,20}",
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n", body.len()).into_bytes();
        for name in &names {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        let (requests, rest) = parse_with_framer(&[&bytes, &bytes], &LIMITS);
        prop_assert_eq!(rest, Rest::Nothing);
        prop_assert_eq!(requests.len(), 2);
        prop_assert_eq!(&requests[1].body, &body);
        prop_assert_eq!(&requests[1].target, &target);
        prop_assert_eq!(requests[1].headers.len(), names.len() + 2);
    }
}

#[test]
fn split_bytes_give_the_same_requests() {
    let bytes = b"\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nab\r\ncGET / HTTP/1.0\r\n\r\n\
                  OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET http://h/x HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n";
    let whole = parse_by_rfc(bytes, &LIMITS);
    assert_eq!((whole.0.len(), whole.1), (3, Rest::Refused));
    let singly: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(parse_with_framer(&singly, &LIMITS), whole);
    for one in 0..=bytes.len() {
        for other in one..=bytes.len() {
            let pieces = [&bytes[..one], &bytes[one..other], &bytes[other..]];
            assert_eq!(parse_with_framer(&pieces, &LIMITS), whole, "cut at {one} and {other}");
        }
    }
}

/// The corpus of the fuzzer: bytes that reach every branch of the framer.
#[test]
fn the_framer_agrees_with_the_reference_parser_on_the_fuzz_corpus() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/framing");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        agree(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 1_000, "{files}");
}

#[test]
fn size_limits_are_exact() {
    let filled = |size: usize| {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nA: ".to_owned();
        let fill = "x".repeat(size - head.len() - 4);
        format!("{head}{fill}\r\n\r\n").into_bytes()
    };
    assert_eq!(parse_with_framer(&[&filled(200)], &SMALL).1, Rest::Nothing);
    assert_eq!(parse_with_framer(&[&filled(201)], &SMALL).1, Rest::Refused);
    let with_body = |size: usize| {
        format!("POST / HTTP/1.0\r\nContent-Length: {size}\r\n\r\n{}", "b".repeat(size)).into_bytes()
    };
    assert_eq!(parse_with_framer(&[&with_body(40)], &SMALL).0.len(), 1);
    assert_eq!(parse_with_framer(&[&with_body(41)], &SMALL).1, Rest::Refused);
    let with_headers =
        |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count)).into_bytes();
    assert_eq!(parse_with_framer(&[&with_headers(6)], &SMALL).0.len(), 1);
    assert_eq!(parse_with_framer(&[&with_headers(7)], &SMALL).1, Rest::Refused);
}

/// A smuggled request: it is in a body, or where another parser would see a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\nX-Request-Id: smuggled\r\n\r\n";
/// The client's own next request.
const NEXT: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\nX-Request-Id: own\r\n\r\n";

/// The bytes to send, and the status of the answer. After a refusal nothing more is answered. After any other answer
/// comes that to the client's own next request, and none to the smuggled one.
fn attacks() -> Vec<(String, u16)> {
    [lengths(), encodings(), empty_chunks(), heads()].concat()
}

/// A request with these headers.
fn post(headers: &str, body: &str) -> String {
    format!("POST /healthz HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

fn lengths() -> Vec<(String, u16)> {
    let smuggled = |headers: &str| post(headers, SMUGGLED);
    let length = SMUGGLED.len();
    vec![
        // Two lengths, and invalid lengths.
        (smuggled(&format!("Content-Length: 0\r\nContent-Length: {length}\r\n")), 400),
        (smuggled(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n")), 400),
        (smuggled(&format!("Content-Length: {length}\r\ncontent-length: 0\r\n")), 400),
        (smuggled(&format!("Content-Length: {length}, {length}\r\n")), 400),
        (smuggled(&format!("Content-Length: 0,{length}\r\n")), 400),
        (smuggled(&format!("Content-Length: +{length}\r\n")), 400),
        (smuggled(&format!("Content-Length: -{length}\r\n")), 400),
        (smuggled(&format!("Content-Length: 0x{length:x}\r\n")), 400),
        (smuggled(&format!("Content-Length: {length}.0\r\n")), 400),
        (smuggled(&format!("Content-Length: {length} \u{b}\r\n")), 400),
        (smuggled(&format!("Content-Length: {length}_0\r\n")), 400),
        (smuggled("Content-Length: \r\n"), 400),
        (smuggled("Content-Length: 1e2\r\n"), 400),
        (smuggled("Content-Length: \u{664}\r\n"), 400),
        (smuggled("Content-Length: 40000000000\r\n"), 413),
        (smuggled("Content-Length: 18446744073709551616\r\n"), 413),
        (smuggled("Content-Length: 99999999999999999999999999999999999999999\r\n"), 413),
        (smuggled(&format!("Content-Length : {length}\r\n")), 400),
        (smuggled(&format!(" Content-Length: {length}\r\n")), 400),
        (smuggled(&format!("X: y\r\n Content-Length: {length}\r\n")), 400),
        (smuggled(&format!("X: y\r\n\tContent-Length: {length}\r\n")), 400),
        (smuggled(&format!("Content-Length:\r\n {length}\r\n")), 400),
        (smuggled(&format!("Content\u{0}-Length: {length}\r\n")), 400),
        // Valid lengths in unusual spellings.
        (smuggled(&format!("Content-Length: 000{length}\r\n")), 405),
        (smuggled(&format!("cOnTeNt-LeNgTh:\t{length}\t\r\n")), 405),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"), 400),
    ]
}

/// Spellings of Transfer-Encoding that other parsers may accept.
fn encodings() -> Vec<(String, u16)> {
    let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let mut attacks = Vec::new();
    for encoding in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: CHUNKED\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:chunked\r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \r\n",
    ] {
        attacks.push((post(encoding, &chunked), 411));
    }
    for encoding in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding: chun\u{0}ked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Foo\r\n",
        ": chunked\r\n",
    ] {
        attacks.push((post(encoding, &chunked), 400));
    }
    attacks
}

/// Chunked bodies where only an empty one is accepted, and other spellings of one.
fn empty_chunks() -> Vec<(String, u16)> {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    const EMPTY: &str = "0\r\n\r\n";
    let unlock = |target: &str, version: &str, headers: &str, body: &str| {
        format!("UNLOCK {target} {version}\r\nHost: h\r\n{headers}\r\n{body}")
    };
    let mut attacks = Vec::new();
    for target in ["/terraform/a/b/c", "http://h/terraform/a/b/c?ID=x"] {
        attacks.push((unlock(target, "HTTP/1.1", CHUNKED, EMPTY), 400));
    }
    attacks.push((unlock("/terraform/a/b/c", "HTTP/1.1", "TRANSFER-ENCODING:\tchunked \r\n", EMPTY), 400));
    for body in [
        &format!("{:x}\r\n{SMUGGLED}\r\n{EMPTY}", SMUGGLED.len()),
        &format!("0\r\nX: y\r\n\r\n{SMUGGLED}"),
        &format!("0\r\n{SMUGGLED}"),
        &format!("0;a=b\r\n\r\n{SMUGGLED}"),
        "00\r\n\r\n",
        "0x0\r\n\r\n",
        "-0\r\n\r\n",
        "0 \r\n\r\n",
        " 0\r\n\r\n",
        "0\n\n",
        "0\r\r\n",
        "0\r\n\n",
        "\r\n0\r\n\r\n",
        "\r\n\r\n",
    ] {
        attacks.push((unlock("/terraform/w", "HTTP/1.1", CHUNKED, body), 411));
    }
    for headers in [
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        attacks.push((unlock("/terraform/w", "HTTP/1.1", headers, EMPTY), 411));
    }
    attacks.push((unlock("/terraform/w", "HTTP/1.0", CHUNKED, EMPTY), 411));
    for target in [
        "/",
        "/terraform",
        "/terraformx/w",
        "/Terraform/w",
        "//terraform/w",
        "/%74erraform/w",
        "/x/terraform/w",
        "/api/v1/../../terraform/w",
        "http://h/api/v1/terraform/w",
    ] {
        attacks.push((unlock(target, "HTTP/1.1", CHUNKED, EMPTY), 411));
    }
    attacks
}

/// Heads whose end other parsers may not see, and invalid request lines.
fn heads() -> Vec<(String, u16)> {
    let length = SMUGGLED.len();
    vec![
        (format!("GET /healthz HTTP/1.1\nHost: h\n\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\r\n\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\r\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\rHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET  /healthz HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz  HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET\t/healthz\tHTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!(" GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1 \r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/2.0\r\nHost: h\r\n\r\n{SMUGGLED}"), 505),
        (format!("GET /healthz HTTP/1.2\r\nHost: h\r\n\r\n{SMUGGLED}"), 505),
        (format!("GET /healthz HTTP/0.9\r\nHost: h\r\n\r\n{SMUGGLED}"), 505),
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"), 505),
        (format!("GET /healthz hTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/01.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost: h/x\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /health\u{7f}z HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET /health\u{e9}z HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET healthz HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("GET ftp://h/healthz HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (format!("PING * HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        ("PING /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 405),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 204),
        (format!("GET * HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), 400),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
            ),
            417,
        ),
        (format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX-User-Id: \u{e9}\r\n\r\n{SMUGGLED}"), 400),
    ]
}

#[test]
fn smuggled_requests_are_never_answered() {
    let server = Server::start();
    let attacks = attacks();
    assert!(attacks.len() >= 40, "{}", attacks.len());
    for (sent, status) in attacks {
        for pieces in [1, 2, 7] {
            let mut connection = Raw::connect(server.address());
            let bytes = format!("{sent}{NEXT}").into_bytes();
            for piece in bytes.chunks(bytes.len() / pieces + 1) {
                // It may be refused before all of it is sent.
                let _ = connection.try_send(piece);
            }
            connection.finish();
            let answers = connection.answers();
            let shown = sent.escape_debug();
            assert_eq!(answers.first().map(|answer| answer.status), Some(status), "{shown}");
            let ids: Vec<_> = answers.iter().filter_map(|answer| answer.header("x-request-id")).collect();
            assert!(!ids.contains(&"smuggled"), "{shown}: {ids:?}");
            let closed = answers[0].header("connection") == Some("close");
            assert_eq!(ids[1..], if closed { vec![] } else { vec!["own"] }, "{shown}");
            if closed {
                common::contract::check_refusal(&answers[0]);
            }
        }
    }
    // The server still works.
    let text = server.client().get("/metrics").text().to_owned();
    for reason in ["content_length", "transfer_encoding", "line_end", "version", "host", "request_line"] {
        assert!(
            text.contains(&format!("lockhouse_refusals_total{{reason=\"{reason}\"}}")),
            "{reason}\n{text}"
        );
    }
}
