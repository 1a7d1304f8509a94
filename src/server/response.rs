//! Serialises responses: common headers, framing, body.

use std::io::Write;

use chrono::DateTime;

use super::exchange::Exchange;
use super::parser::{After, Version};
use crate::api::exchange::Response;
use crate::time::Clock;

/// How the end of the body is indicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By `Content-Length`.
    Length,
    /// Streamed in pieces: by chunked encoding or, for HTTP/1.0, by closing the connection.
    Pieces,
}

/// Serialises responses.
#[derive(Debug)]
pub(super) struct Renderer {
    clock: Clock,
    /// The cached `Date`, and its second since 1970.
    date: (i64, String),
}

impl Renderer {
    pub(super) const fn new(clock: Clock) -> Self {
        Self { clock, date: (i64::MIN, String::new()) }
    }

    /// Appends a response to `bytes`.
    pub(super) fn write(
        &mut self,
        bytes: &mut Vec<u8>,
        response: &Response,
        exchange: &Exchange,
        framing: Framing,
    ) {
        bytes.reserve(512 + response.body.len());
        let has_length = framing == Framing::Length && response.status != 204;
        // Writing into a Vec cannot fail.
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\nDate: ", response.status, reason(response.status));
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        put(&[self.date(), "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"]);
        if let Some(content_type) = response.content_type {
            put(&["Content-Type: ", content_type, "\r\n"]);
        }
        for (name, value) in &response.headers {
            put(&[name, ": ", value, "\r\n"]);
        }
        match (framing, exchange.version) {
            (Framing::Pieces, Version::Http11) => put(&["Transfer-Encoding: chunked\r\n"]),
            (Framing::Pieces, Version::Http10) | (Framing::Length, _) => {}
        }
        match (exchange.after, exchange.version) {
            (After::Close, _) => put(&["Connection: close\r\n"]),
            (After::KeepAlive, Version::Http10) => put(&["Connection: keep-alive\r\n"]),
            (After::KeepAlive, Version::Http11) => {}
        }
        if has_length {
            let _ = write!(bytes, "Content-Length: {}\r\n", response.body.len());
        }
        bytes.extend_from_slice(b"\r\n");
        if has_length && !exchange.is_head {
            bytes.extend_from_slice(&response.body);
        }
    }

    /// The value of `Date` (RFC 9110 §5.6.7), formatted once per second.
    fn date(&mut self) -> &str {
        let second = self.clock.wall().0.div_euclid(1_000);
        if self.date.0 != second {
            let now = DateTime::from_timestamp_secs(second).unwrap_or_default();
            self.date = (second, now.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        &self.date.1
    }
}

/// The reason phrase of a status (RFC 9110 §15).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        423 => "Locked",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        // The phrase may be empty (RFC 9112 §4). A test checks that every status of the API has one.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Code;

    #[test]
    fn every_status_has_a_reason_phrase() {
        for code in Code::ALL {
            assert!(!reason(code.status()).is_empty(), "{}", code.status());
        }
    }
}
