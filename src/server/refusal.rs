//! Why the server refuses a request before the API has seen it, and what it answers.

use crate::api::problem::{Code, Problem};

macro_rules! refusals {
    ($($(#[$about:meta])* $variant:ident = ($name:literal, $code:ident, $detail:literal),)+) => {
        /// Why a request is refused before the API has seen it. The connection is closed after the answer: it is no longer
        /// clear, or no longer matters, where the next request begins.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum HttpRefusal {
            $($(#[$about])* $variant,)+
        }

        impl HttpRefusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in the metrics and in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Its code in the problem document.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// What is said about it.
            #[must_use]
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }
        }
    };
}

refusals! {
    /// It begins like TLS.
    Tls = ("tls", InvalidRequest, "This port speaks plain HTTP, not TLS: use http://, or put a TLS proxy in front."),
    /// The request line is not METHOD TARGET VERSION (RFC 9112 §3).
    RequestLine = ("request_line", InvalidRequest, "The request line must be a method, a path and HTTP/1.1, with one space between them."),
    /// The target is neither a path nor an absolute URL (RFC 9112 §3.2).
    Target = ("target", InvalidRequest, "The request target must be a path that begins with a slash, percent-encoded to visible ASCII."),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version = ("version", VersionNotSupported, "This server speaks HTTP/1.1 and HTTP/1.0. For HTTP/2, put a proxy in front."),
    /// A line that does not end in CR LF, or a CR on its own (RFC 9112 §2.2).
    LineEnd = ("line_end", InvalidRequest, "Every line of the head must end in CR LF."),
    /// A control character in the head (RFC 9110 §5.5).
    ControlCharacter = ("control_character", InvalidRequest, "The head must not hold control characters."),
    /// A header that is not NAME: VALUE (RFC 9112 §5), or one that is folded over lines.
    Header = ("header", InvalidRequest, "A header must be a name, a colon and a value, on one line."),
    /// The value of a header that is used here is not ASCII.
    HeaderValue = ("header_value", InvalidRequest, "A header must be ASCII: percent-encode what is not."),
    /// `Host` is missing, stands twice or is no host (RFC 9112 §3.2).
    Host = ("host", InvalidRequest, "An HTTP/1.1 request must have one Host header, with a host name."),
    /// `Content-Length` is not one number (RFC 9112 §6.3).
    ContentLength = ("content_length", InvalidRequest, "Content-Length must be one number, given once."),
    /// A body of a length that is not said beforehand.
    TransferEncoding = ("transfer_encoding", LengthRequired, "Send the body with a Content-Length; Transfer-Encoding is not taken."),
    /// `Expect` asks for something else than `100-continue`.
    Expectation = ("expectation", ExpectationFailed, "The only expectation that is met here is 100-continue."),
    /// The request line is longer than the whole head may be.
    UriTooLong = ("uri_too_long", UriTooLong, "The request target is too long."),
    /// The head is larger than allowed, or has too many headers.
    HeadersTooLarge = ("headers_too_large", HeadersTooLarge, "The headers are too large, or too many."),
    /// The body is larger than allowed.
    BodyTooLarge = ("body_too_large", BodyTooLarge, "The body is larger than this server takes."),
    /// The head did not come in time.
    HeadTimeout = ("head_timeout", RequestTimeout, "The headers did not arrive in time."),
    /// The body did not come in time.
    BodyTimeout = ("body_timeout", RequestTimeout, "The body did not arrive in time."),
    /// All connections are in use.
    Connections = ("connections", Busy, "This server has as many connections as it can hold. Try again in a moment."),
    /// The request could not be forwarded in time.
    Queue = ("queue", Busy, "The server could not take this in time. Try again in a moment."),
    /// The server stops.
    Stopping = ("stopping", Busy, "The server is stopping. Try again in a moment."),
    /// The request was lost on the internal connection.
    Lost = ("upstream", Busy, "The request was lost inside the server and was not carried out. Try again in a moment."),
}

impl HttpRefusal {
    /// The document to answer with.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "only two codes have something of their own")]
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
