//! TCP and Unix connections, and their output buffers.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{self, SendFlags, Shutdown, SocketFlags};

use crate::events::chunk::StreamChunk;

/// The size of the kernel's send buffer of each client (bytes). It fits nearly every answer. By default the kernel grows
/// the buffer of a client that does not read to megabytes, which can exhaust its memory.
pub(super) const SEND_BYTES: usize = 64 * 1024;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Ip(IpAddr),
    /// A client of a Unix socket.
    Local,
}

/// A non-blocking connection.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Accepts a connection.
    pub(super) fn accept(listener: impl AsFd) -> io::Result<(Self, Peer)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, address) = net::acceptfrom_with(listener, flags)?;
        let peer = if let Some(Ok(address)) = address.map(SocketAddr::try_from) {
            // An answer is one write, so Nagle's algorithm only delays it. Failing is harmless.
            let _ = net::sockopt::set_tcp_nodelay(&socket, true);
            Peer::Ip(address.ip().to_canonical())
        } else {
            // Unix sockets do not inherit this option from the listener.
            let _ = net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
            Peer::Local
        };
        Ok((Self(socket), peer))
    }

    /// Shuts down the sending side.
    pub(super) fn finish(&self) {
        // Fails if the client has already disconnected.
        let _ = net::shutdown(&self.0, Shutdown::Write);
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.0.as_raw_fd()), token, interest)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(&self.0, parts)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything was written.
    All,
    /// This number of bytes was written; the send buffer is full.
    Blocked(usize),
}

/// Maximum number of buffers per vectored write.
const PARTS: usize = 64;

/// A piece of a streamed answer in the output.
#[derive(Debug)]
pub(super) enum Shared {
    /// With chunked framing.
    Chunk(StreamChunk),
    /// Without framing.
    Bytes(StreamChunk),
}

impl Shared {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Chunk(piece) => piece.chunk(),
            Self::Bytes(piece) => piece.bytes(),
        }
    }
}

/// Bytes to be sent, in this order: own bytes, pieces shared with other clients, own bytes.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    shared: VecDeque<Shared>,
    after: Vec<u8>,
    /// The number of bytes of the first part that were sent.
    sent: usize,
    shared_bytes: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty() && self.after.is_empty()
    }

    /// The number of own bytes before the pieces.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The size of the own buffers (bytes).
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.after.capacity() + self.shared.capacity() * size_of::<Shared>()
    }

    /// The size of the shared pieces (bytes).
    pub(super) const fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// The buffer to append own bytes to.
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        if self.shared.is_empty() { &mut self.bytes } else { &mut self.after }
    }

    /// Appends a piece, and returns its size with framing (bytes).
    pub(super) fn share(&mut self, piece: Shared) -> usize {
        let length = piece.bytes().len();
        if self.after.is_empty() {
            self.shared_bytes += length;
            self.shared.push_back(piece);
        } else {
            self.after.extend_from_slice(piece.bytes());
        }
        length
    }

    /// Writes until the output is empty or the socket's send buffer is full.
    pub(super) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        let mut all = 0;
        while !self.is_empty() {
            match self.write_some(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    all += written;
                    self.was_sent(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Free the sent bytes once they are more than half of the buffer.
                    if !self.bytes.is_empty() && self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.bytes.shrink_to(self.bytes.len() * 2);
                        self.sent = 0;
                    }
                    return Ok(Written::Blocked(all));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(Written::All)
    }

    fn write_some(&self, socket: &mut impl Write) -> io::Result<usize> {
        let own = Some(self.bytes.as_slice()).filter(|bytes| !bytes.is_empty());
        let shared = self.shared.iter().map(Shared::bytes);
        let mut parts = own.into_iter().chain(shared).chain([self.after.as_slice()]);
        let first = parts.next().and_then(|first| first.get(self.sent..)).unwrap_or_default();
        if self.shared.is_empty() {
            return socket.write(first);
        }
        let parts: Vec<_> = [first].into_iter().chain(parts).take(PARTS).map(IoSlice::new).collect();
        socket.write_vectored(&parts)
    }

    fn was_sent(&mut self, written: usize) {
        self.sent += written;
        if !self.bytes.is_empty() {
            if self.sent < self.bytes.len() {
                return;
            }
            self.sent -= self.bytes.len();
            self.bytes = Vec::new();
        }
        while let Some(first) = self.shared.front().map(|first| first.bytes().len()) {
            if self.sent < first {
                return;
            }
            self.sent -= first;
            self.shared_bytes -= first;
            self.shared.pop_front();
        }
        self.bytes = std::mem::take(&mut self.after);
        if self.sent >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Accepts a few bytes per write, and blocks every other write.
    struct ShortWriter(Vec<u8>, usize, bool);

    impl Write for ShortWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<_> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn buffers_and_chunks_are_written_in_order_despite_short_writes() {
        for taken in 1..40 {
            let meter = Arc::default();
            let mut output = Output::default();
            output.end().extend_from_slice(b"head ");
            output.share(Shared::Bytes(StreamChunk::new(b"one ", &meter)));
            output.share(Shared::Chunk(StreamChunk::new(b"two", &meter)));
            output.end().extend_from_slice(b"end ");
            output.share(Shared::Bytes(StreamChunk::new(b"more", &meter)));
            let mut socket = ShortWriter(Vec::new(), taken, false);
            let mut sent = 0;
            let rest = loop {
                match output.write_to(&mut socket).unwrap() {
                    Written::Blocked(written) => sent += written,
                    Written::All => break socket.0.len() - sent,
                }
            };
            assert_eq!(socket.0, b"head one 3\r\ntwo\r\nend more", "{taken} at a time");
            assert!(output.is_empty() && output.shared_bytes() == 0 && rest <= taken);
            assert_eq!(meter.bytes(), 0, "sent pieces are freed");
        }
    }
}
