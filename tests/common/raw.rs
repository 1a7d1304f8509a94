//! A connection that sends and receives arbitrary bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::Answer;

/// A longer wait is a defect.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// How long sending may take.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// Closes the sending direction (FIN). Reading goes on.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the server closes the connection.
    pub fn is_closed(&mut self) -> bool {
        let _ = self.read_all();
        true
    }

    /// Whether something comes within this time, or the end.
    pub fn has_something(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let mut byte = [0];
        let found = self.stream.peek(&mut byte);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        found.is_ok() || found.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Reads some of the received bytes, unless the connection has ended.
    pub fn read_some(&mut self) {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).unwrap_or_default();
        self.read.extend_from_slice(&buffer[..length]);
    }

    /// Closes the connection with a reset (RST).
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Reads until the server closes or resets the connection.
    pub fn read_all(&mut self) -> &[u8] {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.read.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("nothing comes, and no end: {error}, after {}", self.text()),
            }
        }
        &self.read
    }

    /// Reads until this has come.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        while !self.text().contains(text) {
            let length = self
                .stream
                .read(&mut buffer)
                .unwrap_or_else(|error| panic!("{error}, after {}", self.text()));
            assert!(length > 0, "the end, after {:?}, without {text:?}", self.text());
            self.read.extend_from_slice(&buffer[..length]);
        }
        std::mem::take(&mut self.read).into_iter().map(char::from).collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// The answers, unless the connection was reset before they could be read.
    pub fn answers_or_reset(&mut self) -> Vec<Answer> {
        if self.read_all().is_empty() { Vec::new() } else { self.answers() }
    }

    /// The responses until the server closes the connection, without 100 Continue.
    pub fn answers(&mut self) -> Vec<Answer> {
        let bytes = self.read_all().to_vec();
        let mut answers = Vec::new();
        let mut rest = &bytes[..];
        while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&rest[..end]).unwrap();
            let mut lines = head.split("\r\n");
            let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
            let headers: Vec<_> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let mut answer = Answer { status, headers, body: Vec::new() };
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            rest = &rest[end + 4..];
            answer.body = rest[..length].to_vec();
            rest = &rest[length..];
            if status != 100 {
                answers.push(answer);
            }
        }
        assert!(rest.is_empty(), "{:?} is left over", String::from_utf8_lossy(rest));
        answers
    }
}
