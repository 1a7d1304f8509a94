//! Listening sockets: TCP, Unix sockets with a path, or sockets from systemd socket activation.

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

/// Maximum number of pending connections. Clients beyond that retry after about a second (TCP).
const BACKLOG: i32 = 4096;

/// Idle time before TCP keepalive probes begin. A client that does not answer them for the same time is disconnected.
/// A parked request has no other deadline, so this is how a lost machine is detected.
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
    /// Listens on the configured address. `socket_mode`: the permissions of a Unix socket.
    ///
    /// # Errors
    /// [`Error::Internal`] with a message for the operator.
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

    /// The sockets from systemd socket activation (`sd_listen_fds(3)`). Empty without socket activation.
    ///
    /// # Errors
    /// [`Error::Internal`] if one of them is no listening socket.
    pub fn handed_over() -> Result<Vec<Self>, Error> {
        let mut sockets = listenfd::ListenFd::from_env();
        (0..sockets.len())
            .map(|index| {
                if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
                    return Self::tcp(socket);
                }
                match sockets.take_unix_listener(index)? {
                    Some(socket) => Self::unix(socket, None),
                    None => Err(io::Error::other("the socket does not exist")),
                }
            })
            .collect::<io::Result<_>>()
            .map_err(|error| {
                Error::Internal(format!(
                    "cannot use the sockets in LISTEN_FDS: {error}; use ListenStream= in the socket unit"
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
        // Accepted connections inherit these options.
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

    /// Registers the socket for events with this token.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE)
    }

    /// Deregisters the socket. Closing is not enough, because another process may share it.
    pub(super) fn deregister(&self, registry: &Registry) {
        // Fails only if the socket is not registered.
        let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
    }
}
