//! The bytes of a response, with the headers that every response has.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use chrono::DateTime;

use super::deferred::Extent;
use super::exchange::Response;
use crate::time::Clock;

/// Makes responses into bytes.
#[derive(Debug)]
pub struct Renderer {
    clock: Clock,
    /// The second that was shown last, and how.
    date: Mutex<(i64, String)>,
}

/// What a response needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// Whether it was a `HEAD`, which is answered without the body.
    pub is_head: bool,
    /// Whether answers depend on the origin of the page that asks.
    pub varies_by_origin: bool,
    /// The origin, if its pages may read the answer.
    pub origin: Option<&'a str>,
}

impl Renderer {
    /// `clock` gives the `Date`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, date: Mutex::default() }
    }

    /// Appends the response to `bytes`: after the status line, `first` (whole header lines) comes first. What becomes
    /// of the connection is for the door to add.
    pub fn render(
        &self,
        bytes: &mut Vec<u8>,
        first: &str,
        response: &Response,
        asked: &Asked<'_>,
        extent: Extent,
    ) {
        let mut part = |text: std::fmt::Arguments<'_>| {
            // Writing into a Vec cannot fail.
            let _ = bytes.write_fmt(text);
        };
        let reason = reason(response.status);
        part(format_args!("HTTP/1.1 {} {reason}\r\n{first}Date: ", response.status));
        self.with_date(|date| part(format_args!("{date}")));
        part(format_args!(
            "\r\nX-Request-Id: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            asked.request_id
        ));
        if let Some(content_type) = response.content_type {
            part(format_args!("Content-Type: {content_type}\r\n"));
        }
        if extent == Extent::Whole && response.status != 204 {
            part(format_args!("Content-Length: {}\r\n", response.body.len()));
        }
        for (name, value) in &response.headers {
            part(format_args!("{name}: {value}\r\n"));
        }
        if asked.varies_by_origin {
            part(format_args!("Vary: Origin\r\n"));
        }
        if let Some(origin) = asked.origin {
            part(format_args!(
                "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: Retry-After, X-Request-Id\r\n"
            ));
        }
        part(format_args!("\r\n"));
        if extent == Extent::Whole && !asked.is_head {
            bytes.extend_from_slice(&response.body);
        }
    }

    /// The `Date` of an answer (RFC 9110 §5.6.7), made once a second.
    fn with_date(&self, show: impl FnOnce(&str)) {
        let second = self.clock.wall().0.div_euclid(1_000);
        let mut date = self.date.lock().unwrap_or_else(PoisonError::into_inner);
        if date.0 != second || date.1.is_empty() {
            let now = DateTime::from_timestamp_secs(second).unwrap_or_default();
            *date = (second, now.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        show(&date.1);
    }
}

/// What the status is called (RFC 9110 §15).
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
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        // The phrase may be empty (RFC 9112 §4); that of a code has a name, which the test below sees to.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Code;

    #[test]
    fn every_status_that_is_answered_has_a_name() {
        for code in Code::ALL {
            assert!(!reason(code.status()).is_empty(), "{}", code.status());
        }
    }
}
