//! A connection from a command to a server: TCP, TLS or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::tls;

/// A connection to a server.
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `HOST[:PORT]`. Each read and write is limited by `timeout`.
    pub(super) fn tcp(authority: &str, is_tls: bool, timeout: Duration) -> io::Result<Self> {
        let (host, has_port) = host_of(authority);
        let port = if is_tls { 443 } else { 80 };
        let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        let connected = address.to_socket_addrs()?.find_map(|address| {
            TcpStream::connect_timeout(&address, timeout).map_err(|failed| error = failed).ok()
        });
        let tcp = connected.ok_or(error)?;
        let socket = if is_tls {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let config = tls::machine_roots().and_then(tls::client_config).map_err(io::Error::other)?;
            let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
            Self::Tls(Box::new(StreamOwned::new(client, tcp)))
        } else {
            Self::Tcp(tcp)
        };
        socket.limit(timeout)?;
        Ok(socket)
    }

    /// Connects to a Unix socket. Each read and write is limited by `timeout`.
    pub(super) fn unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        let socket = Self::Unix(UnixStream::connect(path)?);
        socket.limit(timeout)?;
        Ok(socket)
    }

    /// Limits each read and write.
    pub(super) fn limit(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout);
        match self {
            Self::Unix(socket) => socket.set_read_timeout(timeout).and(socket.set_write_timeout(timeout)),
            Self::Tcp(socket) => socket.set_read_timeout(timeout).and(socket.set_write_timeout(timeout)),
            Self::Tls(tls) => tls.sock.set_read_timeout(timeout).and(tls.sock.set_write_timeout(timeout)),
        }
    }
}

/// The host of `HOST[:PORT]`, without the brackets of an IPv6 address, and whether there is a port.
fn host_of(authority: &str) -> (&str, bool) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.starts_with(':'));
    }
    authority.rsplit_once(':').map_or((authority, false), |(host, _)| (host, true))
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
            // Some servers close the connection without the end of TLS. Whether the response is whole, its length says.
            Self::Tls(tls) => match tls.read(into) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                outcome => outcome,
            },
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_told_from_the_port() {
        for (authority, expected) in [
            ("locks.example", ("locks.example", false)),
            ("locks.example:8443", ("locks.example", true)),
            ("[::1]", ("::1", false)),
            ("[::1]:8443", ("::1", true)),
        ] {
            assert_eq!(host_of(authority), expected, "{authority}");
        }
    }
}
