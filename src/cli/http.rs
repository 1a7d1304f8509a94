//! An HTTP client for the commands that call a running server.
//!
//! One connection per request, over TCP, TLS or a Unix socket. The request is HTTP/1.0, so the response has no chunks
//! and ends with the connection.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::socket::Socket;
use crate::config::Listen;
use crate::time::since_boot;

/// Size limit of a response, in bytes.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of headers of a response.
const HEADERS: usize = 64;
/// Size limit of the head of a stream, and of each of its lines, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_LINE_BYTES: u64 = 16 * 1024;
const NO_HTTP: &str = "does not answer with HTTP";

/// A request.
#[derive(Debug, Clone)]
pub(super) struct ApiRequest {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

/// A server that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemoteServer {
    /// `http://AUTHORITY` or `https://AUTHORITY`, and a path, which is empty or begins with a slash.
    Tcp { is_tls: bool, authority: String, path: String },
    /// A Unix socket.
    Unix(PathBuf),
}

/// A response.
#[derive(Debug)]
pub(super) struct ServerAnswer {
    pub(super) status: u16,
    body: Vec<u8>,
}

/// The members of a problem (RFC 9457) that are shown.
#[derive(Deserialize)]
struct ProblemAnswer {
    detail: String,
    code: String,
}

/// The member `lost` of a refusal: how the last lease of the caller ended.
#[derive(Deserialize)]
struct LostAnswer {
    lost: LostLease,
}

#[derive(Deserialize)]
struct LostLease {
    reason: String,
    by_user_id: Option<String>,
    by_name: Option<String>,
    #[serde(default)]
    yielded: bool,
}

impl fmt::Display for RemoteServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { is_tls, authority, path } => {
                write!(formatter, "{}://{authority}{path}", if *is_tls { "https" } else { "http" })
            }
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl RemoteServer {
    /// Parses `http://HOST[:PORT][/PATH]`, the same with `https`, or `unix:PATH`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("the URL {url:?} cannot be used: {why}"));
        if let Some(path) = url.strip_prefix("unix:") {
            return if path.is_empty() { wrong("the path is missing") } else { Ok(Self::Unix(path.into())) };
        }
        let (is_tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return wrong("it takes http://HOST:PORT, https://HOST:PORT or unix:PATH"),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("the host is missing, or has characters that are not allowed");
        }
        if rest.contains(['?', '#', '@']) {
            return wrong("it has a query, a fragment or a user; credentials go into LOCKHOUSE_TOKEN");
        }
        Ok(Self::Tcp { is_tls, authority: authority.to_owned(), path: path.trim_end_matches('/').to_owned() })
    }

    /// The server that listens on `server.listen`.
    pub(super) fn listening(listen: &Listen) -> Result<Self, String> {
        let address = match listen {
            Listen::Unix(path) => return Ok(Self::Unix(path.clone())),
            Listen::Tcp(address) if address.port() == 0 => {
                return Err("server.listen has port 0, so the port is not known: give --url".to_owned());
            }
            Listen::Tcp(address) => address,
        };
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        let authority = SocketAddr::new(ip, address.port()).to_string();
        Ok(Self::Tcp { is_tls: false, authority, path: String::new() })
    }

    /// Sends a request and waits for the response. The error is the end of a sentence that begins with the server.
    pub(super) fn call(&self, request: &ApiRequest, timeout: Duration) -> Result<ServerAnswer, String> {
        let (sender, receiver) = sync_channel(1);
        // The receiver is gone after a timeout.
        self.start(request, timeout, move |answer| drop(sender.send(answer)));
        receiver.recv_timeout(timeout).unwrap_or_else(|_| Err(silent(timeout)))
    }

    /// Sends a request. `done` is called with the outcome, soon after the timeout at the latest, unless the look-up of
    /// a name takes longer.
    ///
    /// It is done on a thread, because a name lookup and a connection to a Unix socket have no time limit of their own.
    pub(super) fn start(
        &self,
        request: &ApiRequest,
        timeout: Duration,
        done: impl FnOnce(Result<ServerAnswer, String>) + Send + 'static,
    ) {
        let (server, text) = (self.clone(), self.text(request));
        let exchange = move || {
            done(
                server
                    .exchange(&text, timeout)
                    .map_err(|error| failure(&error, timeout))
                    .and_then(|all| parse(&all)),
            );
        };
        // Without a thread nothing is called, which the caller notices by the timeout.
        let _ = Builder::new().name("request".to_owned()).spawn(exchange);
    }

    /// Opens a stream and returns it after its head. The read of a line fails after `silence` without a byte.
    pub(super) fn open(
        &self,
        request: &ApiRequest,
        silence: Duration,
    ) -> Result<impl BufRead + use<>, String> {
        let failed = |error: io::Error| failure(&error, silence);
        let mut socket = self.connect(silence).map_err(failed)?;
        socket.write_all(self.text(request).as_bytes()).map_err(failed)?;
        let mut reader = BufReader::new(socket);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let line = (&mut reader).take(HEAD_LINE_BYTES).read_until(b'\n', &mut head).map_err(failed)?;
            if line == 0 || head.len() > HEAD_BYTES {
                return Err(NO_HTTP.to_owned());
            }
        }
        match parse(&head)?.status {
            200 => Ok(reader),
            status => Err(format!("answers with the status {status}")),
        }
    }

    /// The request as it is sent.
    fn text(&self, request: &ApiRequest) -> String {
        let (authority, base) = match self {
            Self::Tcp { authority, path, .. } => (authority.as_str(), path.as_str()),
            Self::Unix(_) => ("localhost", ""),
        };
        let ApiRequest { method, path, headers, body } = request;
        let mut text = format!("{method} {base}{path} HTTP/1.0\r\nHost: {authority}\r\n");
        for (name, value) in headers {
            text.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        let body = body.as_ref().map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            let length = body.len();
            let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        let _ = write!(text, "\r\n{body}");
        text
    }

    fn exchange(&self, request: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        let end = since_boot() + timeout;
        let mut socket = self.connect(timeout)?;
        socket.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        let mut piece = [0; 8 * 1024];
        while response.len() < RESPONSE_BYTES {
            let left = end.saturating_sub(since_boot());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.limit(left)?;
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => response.extend_from_slice(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(response)
    }

    /// Connects. Each read and write on the socket is limited by `timeout`.
    fn connect(&self, timeout: Duration) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => Socket::unix(path, timeout),
            Self::Tcp { is_tls, authority, .. } => Socket::tcp(authority, *is_tls, timeout),
        }
    }
}

/// Why an exchange failed.
fn failure(error: &io::Error, timeout: Duration) -> String {
    // A read that is over time fails with `WouldBlock`.
    if [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind()) {
        return silent(timeout);
    }
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!(
                "is not trusted: its certificate is refused ({why}); SSL_CERT_FILE can name the certificates to trust"
            )
        }
        _ => format!("does not answer: {error}"),
    }
}

fn silent(timeout: Duration) -> String {
    format!("has not answered within {}", humantime::format_duration(timeout))
}

fn parse(response: &[u8]) -> Result<ServerAnswer, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(length)), Some(status)) = (head.parse(response), head.code) else {
        return Err(NO_HTTP.to_owned());
    };
    let body = response.get(length..).unwrap_or_default();
    let named = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let announced = head.headers.iter().find(named).map(|header| String::from_utf8_lossy(header.value));
    if announced.is_some_and(|announced| announced.parse() != Ok(body.len())) {
        return Err("has sent an incomplete response".to_owned());
    }
    Ok(ServerAnswer { status, body: body.to_vec() })
}

impl ServerAnswer {
    /// The body, if it has the expected format.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The code of a refusal.
    pub(super) fn code(&self) -> Option<String> {
        self.body().map(|ProblemAnswer { code, .. }| code)
    }

    /// How the lease of the caller ended and by whom, as a part of a sentence.
    pub(super) fn reason(&self) -> String {
        let Some(LostAnswer { lost }) = self.body() else { return self.problem() };
        let by = lost.by_name.or(lost.by_user_id).map(|name| format!(" by {name}")).unwrap_or_default();
        let yielded = if lost.yielded { ", because people come before agents" } else { "" };
        format!("{}{by}{yielded}", lost.reason.replace('_', " "))
    }

    /// Why the server refused, as a sentence.
    pub(super) fn problem(&self) -> String {
        let status = self.status;
        match self.body() {
            Some(ProblemAnswer { detail, code }) => format!("{detail} ({status} {code})"),
            None => format!("it answers with the status {status}, which is not an answer of Lockhouse"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_strictly() {
        for (url, shown) in [
            ("http://127.0.0.1:7311", "http://127.0.0.1:7311"),
            ("http://[::1]:7311/", "http://[::1]:7311"),
            ("http://locks.example/base/", "http://locks.example/base"),
            ("https://locks.example/", "https://locks.example"),
            ("unix:/run/lockhouse/lockhouse.sock", "unix:/run/lockhouse/lockhouse.sock"),
        ] {
            assert_eq!(RemoteServer::parse(url).unwrap().to_string(), shown);
        }
        for (url, says) in [
            ("https://", "host is missing"),
            ("127.0.0.1:7311", "http://HOST:PORT"),
            ("ftp://x", "http://HOST:PORT"),
            ("unix:", "path is missing"),
            ("http://", "host is missing"),
            ("http:///x", "host is missing"),
            ("http://a b", "not allowed"),
            ("http://a\r\nX: y", "not allowed"),
            ("http://a:b@c", "LOCKHOUSE_TOKEN"),
            ("http://a/?x", "query"),
            ("", "http://HOST:PORT"),
        ] {
            let message = RemoteServer::parse(url).unwrap_err();
            assert!(message.contains(says), "{url}: {message}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_called_on_loopback() {
        for (listen, shown) in [
            ("0.0.0.0:7311", "http://127.0.0.1:7311"),
            ("[::]:7311", "http://[::1]:7311"),
            ("10.0.0.7:80", "http://10.0.0.7:80"),
            ("unix:/a b/c", "unix:/a b/c"),
        ] {
            assert_eq!(RemoteServer::listening(&listen.parse().unwrap()).unwrap().to_string(), shown);
        }
        assert!(RemoteServer::listening(&"127.0.0.1:0".parse().unwrap()).unwrap_err().contains("--url"));
    }

    #[test]
    fn an_answer_that_is_cut_off_or_no_http_is_an_error() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(whole).unwrap().status, 200);
        for at in 0..whole.len() {
            assert!(parse(&whole[..at]).is_err(), "{at}");
        }
        assert!(parse(b"SSH-2.0-OpenSSH\r\n").is_err());
    }
}
