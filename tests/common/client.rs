//! A small HTTP client on one persistent connection. It can also send invalid requests.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lockhouse::api::file_lock::LFS_JSON;
use serde_json::Value;

use super::contract;

/// A longer wait for a response is a defect.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    user: Option<String>,
    token: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON; `null` when there is none.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The JSON, of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The JSON, of a refusal with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        let json = self.expect(status);
        // Git LFS knows no codes.
        if self.header("content-type") != Some(LFS_JSON) {
            assert_eq!(json["code"], code, "{json}");
        }
        json
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// The same, where the server may be gone.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { address, stream: BufReader::new(stream), user: None, token: None })
    }

    /// The same connection, for `user`.
    pub fn by(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// The same connection, with this token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.call("DELETE", path, None)
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(body))
    }

    pub fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers: &[(&str, &str)] =
            if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        self.request(method, path, headers, body.as_bytes())
    }

    /// Acquires, without a body when there is nothing to say.
    pub fn acquire(&mut self, workspace: &str, body: &Value) -> Answer {
        self.post(&format!("/api/v1/workspaces/{workspace}/lock"), body)
    }

    pub fn heartbeat(&mut self, workspace: &str, body: &Value) -> Answer {
        self.post(&format!("/api/v1/workspaces/{workspace}/lock/heartbeat"), body)
    }

    pub fn release(&mut self, workspace: &str, body: &Value) -> Answer {
        self.post(&format!("/api/v1/workspaces/{workspace}/lock/release"), body)
    }

    pub fn lock(&mut self, workspace: &str) -> Value {
        self.get(&format!("/api/v1/workspaces/{workspace}/lock")).expect(200)["lock"].clone()
    }

    /// The history, newest first: type and fence.
    pub fn history(&mut self, workspace: &str) -> Vec<(String, i64)> {
        let page = self.get(&format!("/api/v1/workspaces/{workspace}/history?limit=500")).expect(200);
        assert_eq!(page["next_cursor"], Value::Null);
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| (event["type"].as_str().unwrap().to_owned(), event["fence"].as_i64().unwrap()))
            .collect()
    }

    /// Sends exactly this, and checks the response against the OpenAPI document.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self
            .try_request(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path} at {} was not answered: {error}", self.address));
        contract::check(method, path, &answer);
        answer
    }

    /// The same, where the server may be gone.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        if let Some(user) = &self.user {
            let _ = write!(head, "X-User-Id: {user}\r\n");
        }
        if let Some(token) = &self.token {
            let _ = write!(head, "Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        self.receive(method)
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next answer on the connection, to a request with `method`.
    pub fn receive(&mut self, method: &str) -> std::io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method != "HEAD" {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }
}
