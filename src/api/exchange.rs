//! A request and its response, without sockets.

use std::fmt;
use std::net::IpAddr;

/// The media type of most requests and responses.
pub const JSON: &str = "application/json";

/// A complete request.
#[derive(Clone, Default)]
pub struct Request {
    /// The request id: the client's if it sent a plausible one, else one of ours.
    pub id: String,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, still percent-encoded.
    pub path: String,
    /// What follows the question mark, if there is one.
    pub query: String,
    /// The headers that the API reads.
    pub headers: Headers,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
    /// The address of the client, if it has one.
    pub client: Option<IpAddr>,
    /// The trace that the request belongs to, for the log.
    pub trace: Option<Trace>,
}

/// The trace that a request belongs to, and the span of its caller: what the log uses of a W3C `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub parent_id: String,
}

impl Trace {
    /// Reads the value of a `traceparent` header. `None` for an invalid one, which must be ignored
    /// (W3C Trace Context §3.2). More fields may follow in later versions than 00.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let is_id = |field: &str, digits: usize| {
            field.len() == digits && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_set = |id: &str| id.bytes().any(|byte| byte != b'0');
        let mut fields = value.split('-');
        let (version, trace_id, parent_id, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_valid = is_id(version, 2)
            && version != "ff"
            && is_id(trace_id, 32)
            && is_set(trace_id)
            && is_id(parent_id, 16)
            && is_set(parent_id)
            && is_id(flags, 2)
            && (version != "00" || fields.next().is_none());
        is_valid.then(|| Self { trace_id: trace_id.to_owned(), parent_id: parent_id.to_owned() })
    }
}

/// A client's address for the log; `-` for a client of a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub Option<IpAddr>);

impl fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(formatter, "{address}"),
            None => formatter.write_str("-"),
        }
    }
}

/// The names of the headers that the API reads. The server forwards no others. See [`Headers`].
pub const WANTED: &[&str] = &[
    "Accept",
    "Authorization",
    "Content-Type",
    "Host",
    "Last-Event-ID",
    "Origin",
    "Traceparent",
    "X-Lock-Fence",
    "X-Lock-Workspace",
    "X-Request-Id",
    "X-User-Id",
    "X-User-Name",
];

/// Those of them that are only for the log. An invalid value is ignored, not refused.
pub const FOR_THE_LOG: [&str; 2] = ["Traceparent", "X-Request-Id"];

/// The header in which the server forwards the user that a trusted proxy has named. No client can set it.
pub const ASSERTED_USER: &str = "X-Lockhouse-User";
/// The same for the user's display name.
pub const ASSERTED_NAME: &str = "X-Lockhouse-Name";

/// The headers that the API reads. No `Debug`: some of them are secrets.
#[derive(Clone, Default)]
pub struct Headers {
    /// [`ASSERTED_USER`]
    pub asserted_user: Option<String>,
    /// [`ASSERTED_NAME`]
    pub asserted_name: Option<String>,
    /// `Accept`
    pub accept: Option<String>,
    /// `Authorization`
    pub authorization: Option<String>,
    /// `X-Lock-Fence`
    pub lock_fence: Option<String>,
    /// `X-Lock-Workspace`
    pub lock_workspace: Option<String>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Host`
    pub host: Option<String>,
    /// `Last-Event-ID`
    pub last_event_id: Option<String>,
    /// `Origin`
    pub origin: Option<String>,
    /// `X-User-Id`
    pub user_id: Option<String>,
    /// `X-User-Name`
    pub user_name: Option<String>,
    /// One of them that was sent twice, so that it is unclear which value counts.
    pub twice: Option<&'static str>,
}

/// A complete response. The server adds the headers that all responses have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The media type of the body, if there is one.
    pub content_type: Option<&'static str>,
    /// Further headers. Text from a request must be checked before it is added here.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The problem code of a refusal, for the log.
    pub code: Option<&'static str>,
}

impl Response {
    /// A response with a body of type `content_type`.
    #[must_use]
    pub const fn of(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type: Some(content_type), headers: Vec::new(), body, code: None }
    }

    /// A response without a body.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Vec::new(), code: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_w3c_says() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let expected = Some(Trace { trace_id: trace.to_owned(), parent_id: parent.to_owned() });
        for valid in ["00-T-P-01", "00-T-P-00", "cc-T-P-01", "cc-T-P-01-what-comes-later"] {
            let value = valid.replace('T', trace).replace('P', parent);
            assert_eq!(Trace::parse(&value), expected, "{value}");
        }
        for invalid in [
            "",
            "00",
            "00-T-P",
            "00-T-P-",
            "00-T-P-1",
            "00-T-P-01-",
            "00-T-P-01-x",
            "ff-T-P-01",
            "0-T-P-01",
            "cc-T-P-01x",
            "00-0T-P-01",
            "00-P-P-01",
            "00-T-T-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-P-01",
            "00-00000000000000000000000000000000-P-01",
            "00-T-0000000000000000-01",
            "00_T_P_01",
        ] {
            let value = invalid.replace('T', trace).replace('P', parent);
            assert_eq!(Trace::parse(&value), None, "{value}");
        }
    }
}
