//! Listening sockets: a TCP address, a Unix socket with a path, or sockets handed over by systemd.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;

use super::socket::{Peer, SEND_BYTES, Socket};
use super::socket_path::SocketPath;
use crate::config::Listen;
use crate::error::Error;

/// How many connections may wait to be accepted. The system makes clients beyond that try again after a second.
const BACKLOG: i32 = 4096;

/// After this time without traffic the system probes the client; a client that does not answer for as long again is
/// disconnected. A client that waits for an answer has no other deadline, and its machine may be gone.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// An address that the server listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket with this path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "http://{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Bound {
    socket: OwnedFd,
    address: Address,
    /// The path of a Unix socket that this server has created. Dropping it removes the socket.
    _path: Option<SocketPath>,
}

impl Bound {
    /// Listens on the address of the settings. A Unix socket gets these permissions.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator.
    pub fn at(listen: &Listen, socket_mode: u32) -> Result<Self, Error> {
        let bound = match listen {
            Listen::Tcp(address) => TcpListener::bind(address).and_then(Self::tcp).map_err(|error| {
                format!(
                    "cannot listen on {address}: {error}; give another address with --listen, or --listen 127.0.0.1:0 for any free port"
                )
            }),
            Listen::Unix(path) => SocketPath::listen(path, socket_mode)
                .and_then(|(path, socket)| Self::unix(socket, Some(path)))
                .map_err(|error| format!("cannot listen on {}: {error}", path.display())),
        };
        bound.map_err(Error::Internal)
    }

    /// Takes over the sockets that systemd hands over (`sd_listen_fds(3)`); none when there are none.
    ///
    /// # Errors
    /// [`Error::Internal`] if one of them is not a listening socket.
    pub fn handed_over() -> Result<Vec<Self>, Error> {
        let mut sockets = listenfd::ListenFd::from_env();
        (0..sockets.len())
            .map(|index| {
                if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
                    return Self::tcp(socket);
                }
                match sockets.take_unix_listener(index)? {
                    Some(socket) => Self::unix(socket, None),
                    None => Err(io::Error::other("there is no such socket")),
                }
            })
            .collect::<io::Result<_>>()
            .map_err(|error| {
                Error::Internal(format!(
                    "what LISTEN_FDS hands over cannot be used: {error}; use ListenStream= in the socket unit"
                ))
            })
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    fn tcp(socket: TcpListener) -> io::Result<Self> {
        let address = Address::Tcp(socket.local_addr()?);
        // Accepted connections inherit both.
        sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE / 4)?;
        sockopt::set_tcp_keepcnt(&socket, 4)?;
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: socket.into(), address, _path: None })
    }

    fn unix(socket: UnixListener, path: Option<SocketPath>) -> io::Result<Self> {
        let shown = socket.local_addr()?.as_pathname().map(Path::to_owned);
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        let ours = path.as_ref().map(|path| path.as_path().to_owned());
        let address = Address::Unix(ours.or(shown).unwrap_or_default());
        Ok(Self { socket: socket.into(), address, _path: path })
    }

    /// Accepts a connection.
    pub(super) fn accept(&self) -> io::Result<(Socket, Peer)> {
        Socket::accept(&self.socket)
    }

    /// Announces new connections to the event loop, with this token.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE)
    }

    /// Ends that. Another process may have the same socket, so closing it is not enough.
    pub(super) fn deregister(&self, registry: &Registry) {
        // Nothing is registered if that had failed.
        let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
    }
}
