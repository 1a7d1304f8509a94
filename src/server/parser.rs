//! Parses bytes into requests. Pure: no sockets, no clock.
//!
//! To prevent request smuggling, the server and a proxy in front of it must agree where each request ends. So parsing is
//! strict (RFC 9112), and ambiguous input is refused: lines that do not end in CR LF, a `Content-Length` that is not a
//! single number, any `Transfer-Encoding` but that of an empty body under `/terraform/`.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::refusal::HttpRefusal;

/// The limits of a single request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the request line, the headers and the empty line after them (bytes).
    pub head_bytes: usize,
    /// Maximum number of headers; at most [`MAX_HEADERS`].
    pub headers: usize,
    /// Maximum size of the body (bytes).
    pub body_bytes: usize,
}

/// Maximum value of [`Limits::headers`].
pub const MAX_HEADERS: usize = 256;

/// Maximum length of a method (bytes). The longest registered method has 17.
const METHOD_BYTES: usize = 32;

/// The paths where a chunked body is accepted if it is empty: `terraform force-unlock` sends one.
const TERRAFORM: &str = "/terraform/";

/// An empty chunked body (RFC 9112 §7.1).
const EMPTY_CHUNKED: &[u8] = b"0\r\n\r\n";

/// The HTTP version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What happens to the connection after the answer (RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The connection stays open for the next request.
    KeepAlive,
    /// The connection is closed.
    Close,
}

/// The request line and the headers of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and the query, or `*`; visible ASCII.
    pub target: &'a str,
    /// The HTTP version.
    pub version: Version,
    /// Names and values as received, without the white space around values.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// The size of the body as it is sent (bytes).
    pub body_length: usize,
    /// Whether the body is sent in chunks. Then it is empty.
    pub is_chunked: bool,
    /// What happens to the connection after the answer.
    pub after: After,
    /// Whether the client waits for a `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// A complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedRequest<'a> {
    /// The request line and the headers.
    pub head: Head<'a>,
    /// The body.
    pub body: &'a [u8],
}

/// How much of a request was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nothing.
    Nothing,
    /// A part of the head.
    Head,
    /// The head, but not all of the body.
    Body {
        /// Whether the client waits for a `100 Continue` before it sends the body.
        expects_continue: bool,
    },
    /// The whole request.
    Complete(ParsedRequest<'a>),
}

#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    /// Before a request. One empty line is allowed here (RFC 9112 §2.2).
    #[default]
    Start,
    /// The empty line was skipped.
    AfterEmptyLine,
    /// In the head. The bytes before this offset were checked.
    Head(usize),
    /// In the body. The offsets where the head and the body end.
    Body(usize, usize),
    Refused(HttpRefusal),
}

/// Splits the input of a connection into requests.
#[derive(Debug, Default)]
pub struct Framer {
    input: Vec<u8>,
    stage: Stage,
}

impl Framer {
    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The number of bytes that were not consumed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.input.len()
    }

    /// Whether there are no unconsumed bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The size of the buffer (bytes).
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.input.capacity()
    }

    /// Whether the buffered request begins like a `HEAD` request.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.input.starts_with(b"HEAD ")
    }

    /// How much of the next request was received.
    ///
    /// # Errors
    /// Why the request is malformed. Later calls return the same error.
    pub fn progress(&mut self, limits: &Limits) -> Result<Progress<'_>, HttpRefusal> {
        let head_end = match self.find_head(limits) {
            Ok(Some(head_end)) => head_end,
            Ok(None) if matches!(self.stage, Stage::Head(_)) => return Ok(Progress::Head),
            Ok(None) => return Ok(Progress::Nothing),
            Err(refusal) => return self.refuse(refusal),
        };
        let head = match parse(part(&self.input, 0..head_end), limits) {
            Ok(head) => head,
            Err(refusal) => {
                self.stage = Stage::Refused(refusal);
                return Err(refusal);
            }
        };
        let end = head_end + head.body_length;
        let mut body = part(&self.input, head_end..end.min(self.input.len()));
        if head.is_chunked && !EMPTY_CHUNKED.starts_with(body) {
            self.stage = Stage::Refused(HttpRefusal::TransferEncoding);
            return Err(HttpRefusal::TransferEncoding);
        }
        self.stage = Stage::Body(head_end, end);
        if self.input.len() < end {
            return Ok(Progress::Body { expects_continue: head.expects_continue });
        }
        if head.is_chunked {
            body = &[];
        }
        Ok(Progress::Complete(ParsedRequest { head, body }))
    }

    fn refuse(&mut self, refusal: HttpRefusal) -> Result<Progress<'_>, HttpRefusal> {
        self.stage = Stage::Refused(refusal);
        Err(refusal)
    }

    /// Whether the head is complete and the body is not. Until the body is complete, [`Framer::progress`] returns the same.
    #[must_use]
    pub const fn waits_for_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_, end) if self.input.len() < end)
    }

    /// Removes the complete request. Bytes after it stay.
    pub fn consume(&mut self) {
        if let Stage::Body(_, end) = self.stage
            && end <= self.input.len()
        {
            if end == self.input.len() {
                // Free the buffer, so that an idle client uses no memory.
                self.input = Vec::new();
            } else {
                self.input.drain(..end);
            }
            self.stage = Stage::Start;
        }
    }

    /// Removes all bytes, before the connection is closed.
    pub fn discard(&mut self) {
        self.input = Vec::new();
    }

    /// The offset where the head ends; `None` if it is incomplete.
    fn find_head(&mut self, limits: &Limits) -> Result<Option<usize>, HttpRefusal> {
        if matches!(self.stage, Stage::Start) && self.input.starts_with(b"\r\n") {
            self.input.drain(..2);
            self.stage = Stage::AfterEmptyLine;
        }
        let seen = match self.stage {
            Stage::Start if self.input == b"\r" => return Ok(None),
            Stage::Start | Stage::AfterEmptyLine if self.input.is_empty() => return Ok(None),
            Stage::Start | Stage::AfterEmptyLine => 0,
            Stage::Head(seen) => seen,
            Stage::Body(head_end, _) => return Ok(Some(head_end)),
            Stage::Refused(refusal) => return Err(refusal),
        };
        let found = head_end(&self.input, seen, limits)?;
        self.stage = Stage::Head(self.input.len());
        Ok(found)
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

/// The offset where the head ends. The search begins at `seen`, so that each byte is checked only once.
fn head_end(input: &[u8], seen: usize, limits: &Limits) -> Result<Option<usize>, HttpRefusal> {
    if input.first() == Some(&0x16) {
        return Err(HttpRefusal::Tls);
    }
    let mut before = seen.checked_sub(1).and_then(|index| input.get(index)).copied();
    for (index, &byte) in input.iter().enumerate().skip(seen) {
        let size = index + 1;
        match (before, byte) {
            (Some(b'\r'), b'\n') if size == 2 => return Err(HttpRefusal::RequestLine),
            (Some(b'\r'), b'\n') if part(input, 0..size).ends_with(b"\r\n\r\n") => return Ok(Some(size)),
            (Some(b'\r'), b'\n') => {}
            (Some(b'\r'), _) | (_, b'\n') => return Err(HttpRefusal::LineEnd),
            (_, b'\r' | b'\t') => {}
            _ if byte.is_ascii_control() => return Err(HttpRefusal::ControlCharacter),
            _ => {}
        }
        if size >= limits.head_bytes {
            return Err(too_large(part(input, 0..size)));
        }
        before = Some(byte);
    }
    Ok(None)
}

/// Tells whether the request line or the headers are too large.
fn too_large(input: &[u8]) -> HttpRefusal {
    if input.contains(&b'\n') { HttpRefusal::HeadersTooLarge } else { HttpRefusal::UriTooLong }
}

/// Parses a complete head, including its empty line.
fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, HttpRefusal> {
    // Uninitialised, because initialising would take longer than parsing.
    let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let space = space.get_mut(..limits.headers).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, space) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(HttpRefusal::Header),
        Err(error) => return Err(refusal_of(error, bytes)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HttpRefusal::RequestLine);
    };
    if method.is_empty() || method.len() > METHOD_BYTES {
        return Err(HttpRefusal::RequestLine);
    }
    let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let headers: Vec<_> = parsed.headers.iter().map(|header| (header.name, header.value)).collect();
    let fields = Fields(&headers);
    host(&fields, version)?;
    let target = origin_form(method, target)?;
    let is_chunked = is_chunked(&fields, target, version)?;
    let body_length = if is_chunked { EMPTY_CHUNKED.len() } else { body_length(&fields, limits)? };
    Ok(Head {
        method,
        target,
        version,
        body_length,
        is_chunked,
        after: after(&fields, version)?,
        expects_continue: expects_continue(&fields, version)? && body_length > 0,
        headers,
    })
}

fn refusal_of(error: httparse::Error, bytes: &[u8]) -> HttpRefusal {
    match error {
        httparse::Error::TooManyHeaders => HttpRefusal::HeadersTooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpRefusal::Header,
        httparse::Error::Version if names_a_version(bytes) => HttpRefusal::Version,
        httparse::Error::Version
        | httparse::Error::Token
        | httparse::Error::NewLine
        | httparse::Error::Status => HttpRefusal::RequestLine,
    }
}

/// Whether the request line ends in a well-formed HTTP version that is not supported.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit() && ![b"HTTP/1.0", b"HTTP/1.1"].iter().any(|known| word == *known))
}

/// The headers, by name.
struct Fields<'h, 'a>(&'h [(&'a str, &'a [u8])]);

impl<'a> Fields<'_, 'a> {
    fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// The path and query of a target in origin-form or absolute-form (RFC 9112 §3.2.1, §3.2.2), or the `*` of `OPTIONS`.
fn origin_form<'a>(method: &str, target: &'a str) -> Result<&'a str, HttpRefusal> {
    // Fragments are never sent, and non-ASCII characters are percent-encoded (RFC 3986 §2.1).
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HttpRefusal::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    let rest = ["http://", "https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)))
        .and_then(|scheme| target.get(scheme.len()..))
        .ok_or(HttpRefusal::Target)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match path {
        _ if authority.is_empty() || !is_host(authority.as_bytes()) => Err(HttpRefusal::Target),
        "" => Ok("/"),
        _ if path.starts_with('/') => Ok(path),
        // `http://host?query` has no path.
        _ => Err(HttpRefusal::Target),
    }
}

fn host(fields: &Fields<'_, '_>, version: Version) -> Result<(), HttpRefusal> {
    let mut hosts = fields.named("Host");
    match (hosts.next(), hosts.next(), version) {
        (None, None, Version::Http10) => Ok(()),
        (Some(host), None, _) if is_host(host) => Ok(()),
        _ => Err(HttpRefusal::Host),
    }
}

/// Whether all characters are allowed in `uri-host [ ":" port ]` (RFC 9110 §7.2).
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%[]".contains(byte))
}

/// Whether the body is sent in chunks. Only a one spelling is accepted, so that no proxy can read it differently.
fn is_chunked(fields: &Fields<'_, '_>, target: &str, version: Version) -> Result<bool, HttpRefusal> {
    let mut encodings = fields.named("Transfer-Encoding");
    let Some(encoding) = encodings.next() else { return Ok(false) };
    let is_accepted = encoding == b"chunked"
        && encodings.next().is_none()
        && fields.named("Content-Length").next().is_none()
        && version == Version::Http11
        && target.starts_with(TERRAFORM);
    if is_accepted { Ok(true) } else { Err(HttpRefusal::TransferEncoding) }
}

/// The value of `Content-Length`: a single number, or zero if the header is absent (RFC 9112 §6.3).
fn body_length(fields: &Fields<'_, '_>, limits: &Limits) -> Result<usize, HttpRefusal> {
    let mut lengths = fields.named("Content-Length");
    let digits = match (lengths.next(), lengths.next()) {
        (None, _) => return Ok(0),
        (Some(digits), None) => digits,
        (Some(_), Some(_)) => return Err(HttpRefusal::ContentLength),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HttpRefusal::ContentLength);
    }
    let length = digits
        .iter()
        .fold(0_usize, |length, digit| length.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    if length > limits.body_bytes { Err(HttpRefusal::BodyTooLarge) } else { Ok(length) }
}

fn after(fields: &Fields<'_, '_>, version: Version) -> Result<After, HttpRefusal> {
    let (mut close, mut keep_alive) = (false, false);
    for value in fields.named("Connection") {
        let options = std::str::from_utf8(value).map_err(|_| HttpRefusal::HeaderValue)?;
        for option in options.split(',').map(|option| option.trim_matches([' ', '\t'])) {
            close |= option.eq_ignore_ascii_case("close");
            keep_alive |= option.eq_ignore_ascii_case("keep-alive");
        }
    }
    match version {
        _ if close => Ok(After::Close),
        Version::Http10 if !keep_alive => Ok(After::Close),
        Version::Http10 | Version::Http11 => Ok(After::KeepAlive),
    }
}

/// Whether to send `100 Continue`. HTTP/1.0 clients must not receive it (RFC 9110 §10.1.1).
fn expects_continue(fields: &Fields<'_, '_>, version: Version) -> Result<bool, HttpRefusal> {
    let mut expects = false;
    for value in fields.named("Expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HttpRefusal::Expectation);
        }
        expects = version == Version::Http11;
    }
    Ok(expects)
}
