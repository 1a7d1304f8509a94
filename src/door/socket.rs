//! Sockets of either kind: TCP, and Unix with a path.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

/// What the system keeps for each client that does not read (bytes): enough for nearly every answer, and not the
/// megabytes that it would give to each of thousands, until it has none left for the others.
pub(super) const SEND_BYTES: usize = 64 * 1024;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// One with an address.
    Ip(IpAddr),
    /// A process on this machine, by a Unix socket.
    Local,
}

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    pub(super) fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, address)| {
                // An answer is one write. Where it cannot be set, it is only slower.
                let _ = stream.set_nodelay(true);
                (Socket::Tcp(stream), Peer::Ip(address.ip().to_canonical()))
            }),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| {
                // It does not inherit this, as a TCP connection does.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BYTES);
                (Socket::Unix(stream), Peer::Local)
            }),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// No more is sent.
    pub(super) fn finish(&self) {
        // Whoever is gone already needs not be told.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        };
        registry.register(source, token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came of trying to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it.
    All,
    /// This many bytes; the other end takes no more just now.
    Blocked(usize),
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are kept.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What it takes of the memory (bytes).
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Sends what the other end takes.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        let before = self.sent;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let written = self.sent - before;
                    // What was sent does not stay, once it is the greater part.
                    if self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.bytes.shrink_to(self.bytes.len() * 2);
                        self.sent = 0;
                    }
                    return Ok(Written::Blocked(written));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(Written::All)
    }
}
