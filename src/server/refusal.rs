//! Refusals of the HTTP layer: the reasons, and their answers.

use crate::api::problem::{Code, Problem};

macro_rules! refusals {
    ($($(#[$about:meta])* $variant:ident = ($name:literal, $code:ident, $detail:literal),)+) => {
        /// Why the HTTP layer refuses a request. The connection is closed after the answer, because the start of the next
        /// request may be unknown.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum HttpRefusal {
            $($(#[$about])* $variant,)+
        }

        impl HttpRefusal {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in the metrics and in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The code in the problem document.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// The explanation in the problem document.
            #[must_use]
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }
        }
    };
}

refusals! {
    /// The input begins like a TLS handshake.
    Tls = ("tls", InvalidRequest, "This port accepts plain HTTP, not TLS. Use http://, or a TLS proxy in front of the server."),
    /// The request line is malformed (RFC 9112 §3).
    RequestLine = ("request_line", InvalidRequest, "The request line must be a method, a path and HTTP/1.1, separated by single spaces."),
    /// The target is neither a path nor an absolute URL (RFC 9112 §3.2).
    Target = ("target", InvalidRequest, "The request target must be a path that begins with a slash, percent-encoded to visible ASCII."),
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    Version = ("version", VersionNotSupported, "This server supports HTTP/1.1 and HTTP/1.0. For HTTP/2, use a proxy in front of the server."),
    /// A line does not end in CR LF, or a CR has no LF after it (RFC 9112 §2.2).
    LineEnd = ("line_end", InvalidRequest, "The request line and each header must end in CR LF."),
    /// The head contains a control character (RFC 9110 §5.5).
    ControlCharacter = ("control_character", InvalidRequest, "The request line and the headers must not contain control characters."),
    /// A header is malformed, or folded over several lines (RFC 9112 §5).
    Header = ("header", InvalidRequest, "A header must be a name, a colon and a value, on one line."),
    /// The value of a header that the server uses is not ASCII.
    HeaderValue = ("header_value", InvalidRequest, "Header values must be ASCII. Percent-encode other characters."),
    /// `Host` is missing, repeated or invalid (RFC 9112 §3.2).
    Host = ("host", InvalidRequest, "An HTTP/1.1 request must have exactly one Host header, with a valid host."),
    /// `Content-Length` is not a single number (RFC 9112 §6.3).
    ContentLength = ("content_length", InvalidRequest, "Content-Length must be a single decimal number."),
    /// The request uses `Transfer-Encoding`, and is not one of Terraform with an empty body.
    TransferEncoding = ("transfer_encoding", LengthRequired, "Transfer-Encoding is not supported. Send the body with a Content-Length."),
    /// `Expect` is not `100-continue`.
    Expectation = ("expectation", ExpectationFailed, "The only supported value of Expect is 100-continue."),
    /// The request line exceeds the size limit of the head.
    UriTooLong = ("uri_too_long", UriTooLong, "The request target is too long."),
    /// The head exceeds its size limit, or there are too many headers.
    HeadersTooLarge = ("headers_too_large", HeadersTooLarge, "The headers are too large, or there are too many."),
    /// The body exceeds its size limit.
    BodyTooLarge = ("body_too_large", BodyTooLarge, "The body is larger than the limit of this server."),
    /// The head did not arrive in time.
    HeadTimeout = ("head_timeout", RequestTimeout, "The request line and the headers did not arrive in time."),
    /// The body did not arrive in time.
    BodyTimeout = ("body_timeout", RequestTimeout, "The body did not arrive in time."),
    /// The connection limit is reached.
    Connections = ("connections", Busy, "The server has reached its connection limit. Try again in a moment."),
    /// The request could not be forwarded in time.
    Queue = ("queue", Busy, "The server is overloaded and could not process the request in time. Try again in a moment."),
    /// The server is stopping.
    Stopping = ("stopping", Busy, "The server is stopping. Try again in a moment."),
    /// The request was lost on the internal connection.
    Lost = ("upstream", Busy, "An internal error occurred before the request was processed. It had no effect. Try again in a moment."),
}

impl HttpRefusal {
    /// The problem document of the answer.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "only two codes need special treatment")]
    pub fn problem(self) -> Problem {
        match self.code() {
            Code::Busy => Problem::busy(self.detail()),
            Code::InvalidRequest => Problem::invalid(self.name(), "").detail(self.detail()),
            code => Problem::new(code).detail(self.detail()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::code::HTTP_REFUSALS;

    #[test]
    fn every_refusal_code_is_in_the_openapi_document() {
        let mut codes: Vec<_> = HttpRefusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, HTTP_REFUSALS);
    }

    #[test]
    fn refusal_reasons_are_unique_and_have_advice() {
        for (index, refusal) in HttpRefusal::ALL.iter().enumerate() {
            assert!(HttpRefusal::ALL[index + 1..].iter().all(|other| other.name() != refusal.name()));
            assert!(refusal.detail().ends_with('.') && refusal.problem().status() >= 400);
        }
    }
}
