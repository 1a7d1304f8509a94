//! A receiver of webhooks.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::eventually;

/// The secret of all webhooks in the tests: 24 bytes.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// What a receiver writes into its answers. It must not be seen anywhere.
pub const TELLTALE: &str = "telltale";

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// With `Location`, to another path of the same receiver.
    Redirect(u16),
    /// Never.
    Silent,
    /// Closes the connection.
    Close,
    /// 200, and a body that does not end.
    EndlessBody,
    /// 200, and headers that do not end.
    EndlessHead,
    NoHttp,
}

#[derive(Debug, Clone)]
pub struct Delivered {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Delivered {
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<_> = self.headers.iter().filter(|(known, _)| known == name).collect();
        let [(_, value)] = found[..] else { panic!("{name} in {:?}", self.headers) };
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The signature, computed from the definition of HMAC (RFC 2104) and not as the server does.
    pub fn is_signed(&self) -> bool {
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let pad = |byte: u8| (0..64).map(|at| key.get(at).unwrap_or(&0) ^ byte).collect::<Vec<u8>>();
        let signed =
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let inner = digest(&SHA256, &[pad(0x36), signed.into_bytes()].concat());
        let outer = digest(&SHA256, &[pad(0x5c), inner.as_ref().to_vec()].concat());
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(outer))
    }
}

/// A receiver on a port of its own. It answers with the replies that were planned, then with `usual`.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    usual: Reply,
    planned: VecDeque<Reply>,
    received: Vec<Delivered>,
}

impl Receiver {
    pub fn start(usual: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { usual, planned: VecDeque::new(), received: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // The threads end with the process, or when the server closes its connections.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream.unwrap(), &state));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.address)
    }

    /// From now on.
    pub fn usually(&self, usual: Reply) {
        self.state.lock().unwrap().usual = usual;
    }

    /// The next replies.
    pub fn plan(&self, replies: &[Reply]) {
        self.state.lock().unwrap().planned.extend(replies);
    }

    pub fn received(&self) -> Vec<Delivered> {
        self.state.lock().unwrap().received.clone()
    }

    /// Waits until at least this many have been received. Returns all.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Delivered> {
        eventually(|| self.received().len() >= count);
        self.received()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(delivered) = read(&mut reader) {
        let reply = {
            let mut state = state.lock().unwrap();
            state.received.push(delivered);
            state.planned.pop_front().unwrap_or(state.usual)
        };
        if answer(stream, reply).is_none() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Delivered> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let (method, rest) = first.split_once(' ').unwrap();
    assert_eq!(method, "POST");
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut delivered =
        Delivered { path: rest.split(' ').next().unwrap().to_owned(), headers, body: String::new() };
    let mut body = vec![0; delivered.header("content-length").parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    delivered.body = String::from_utf8(body).unwrap();
    Some(delivered)
}

/// `None` if the connection is to be closed.
fn answer(mut stream: &TcpStream, reply: Reply) -> Option<()> {
    let body = TELLTALE;
    let length = body.len();
    match reply {
        Reply::Status(204) => write!(stream, "HTTP/1.1 204 {TELLTALE}\r\n\r\n").ok(),
        Reply::Status(status) => {
            write!(stream, "HTTP/1.1 {status} {TELLTALE}\r\nContent-Length: {length}\r\n\r\n{body}").ok()
        }
        Reply::Redirect(status) => write!(
            stream,
            "HTTP/1.1 {status} Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok(),
        Reply::Silent => {
            // Until the other side hangs up.
            let _ = stream.read(&mut [0]);
            None
        }
        Reply::Close => None,
        Reply::EndlessBody => {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            endless(stream, "8\r\ntelltale\r\n")
        }
        Reply::EndlessHead => {
            write!(stream, "HTTP/1.1 200 OK\r\n").ok()?;
            endless(stream, "X-More: telltale\r\n")
        }
        Reply::NoHttp => {
            write!(stream, "{TELLTALE}\r\n\r\n").ok()?;
            None
        }
    }
}

/// Writes until the other side hangs up.
fn endless(mut stream: &TcpStream, text: &str) -> Option<()> {
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let text = text.repeat(100);
    while stream.write_all(text.as_bytes()).is_ok() {}
    None
}
