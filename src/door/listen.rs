//! Where the server can be reached: a TCP address, a Unix socket with a path, or sockets handed over by systemd.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::socket::Acceptor;
use crate::config::Listen;
use crate::error::Error;

/// How many connections may wait to be accepted; more are told to try again, which they do, a second later.
const BACKLOG: i32 = 4096;

/// What the system keeps for each client that does not read (bytes): enough for nearly every answer, and not the
/// megabytes that it would give to each of thousands, until it has none left for the others. Accepted connections
/// inherit it.
const SEND_BYTES: usize = 64 * 1024;

/// Where it listens.
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

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    socket: Listener,
    address: Address,
    /// What we made and have to remove.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Listens where the settings say; a Unix socket gets these permissions.
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
            Listen::Unix(path) => Self::unix_at(path, socket_mode)
                .map_err(|error| format!("cannot listen on {}: {error}", path.display())),
        };
        bound.map_err(Error::Internal)
    }

    /// Takes over the sockets that systemd hands over (`sd_listen_fds(3)`); none when there are none.
    ///
    /// # Errors
    /// [`Error::Internal`] when one is no socket that listens.
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

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    fn tcp(socket: TcpListener) -> io::Result<Self> {
        let address = Address::Tcp(socket.local_addr()?);
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket: Listener::Tcp(socket), address, path: None })
    }

    fn unix(socket: UnixListener, path: Option<PathBuf>) -> io::Result<Self> {
        let shown = socket.local_addr()?.as_pathname().map(Path::to_owned);
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let address = Address::Unix(path.clone().or(shown).unwrap_or_default());
        Ok(Self { socket: Listener::Unix(socket), address, path })
    }

    /// A socket that nobody serves any more is replaced; one that is served, or is no socket, is not.
    fn unix_at(path: &Path, mode: u32) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::other("something that is no socket is there; give another path"));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(io::Error::other("another server listens there; stop it, or give another path"));
            }
            Ok(_) | Err(_) => {}
        }
        // It gets its name when it has its permissions: nobody comes in before.
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let _ = fs::remove_file(&unnamed);
        let socket = UnixListener::bind(&unnamed)?;
        let named = fs::set_permissions(&unnamed, Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&unnamed, path));
        if let Err(error) = named {
            let _ = fs::remove_file(&unnamed);
            return Err(error);
        }
        Self::unix(socket, Some(path.to_owned()))
    }

    /// What the door accepts connections with.
    pub(super) fn acceptor(&mut self) -> io::Result<Acceptor> {
        match &self.socket {
            Listener::Tcp(socket) => {
                let socket = socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok(Acceptor::Tcp(mio::net::TcpListener::from_std(socket)))
            }
            Listener::Unix(socket) => {
                let socket = socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Ok(Acceptor::Unix(mio::net::UnixListener::from_std(socket)))
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
