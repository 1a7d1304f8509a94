//! What can be set, as the program has it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::domain::access::{Rules, SameUser, Takeover};
use crate::domain::member::Membership;
use crate::time::Ttl;

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[locks]`
    pub locks: Locks,
    /// `[limits]`
    pub limits: Limits,
    /// `[sweeper]`
    pub sweeper: Sweeper,
    /// `[history]`
    pub history: History,
    /// `[auth]`
    pub auth: Auth,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub listen: Listen,
    /// Who may connect to the Unix socket it listens on: its permissions.
    pub socket_mode: u32,
    /// Proxies that are believed when they say where a request comes from.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Web origins whose pages may call the API.
    pub cors_origins: Vec<String>,
    /// Whether there is the console.
    pub console: bool,
    /// Whether there is the playground.
    pub demo: Demo,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a connection is kept on which nothing is asked.
    pub idle_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Most bytes of a head.
    pub max_head: usize,
    /// Most headers.
    pub max_headers: usize,
    /// Most bytes of a body.
    pub max_body: usize,
    /// Most connections.
    pub max_connections: usize,
    /// Most bytes that are kept for all clients together.
    pub max_buffered: usize,
    /// How long a stop waits for what runs.
    pub shutdown_grace: Duration,
}

/// `server.demo`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demo {
    /// Where everybody is believed.
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

impl Config {
    /// Whether there is the playground.
    #[must_use]
    pub fn has_demo(&self) -> bool {
        match self.server.demo {
            Demo::Auto => self.auth.mode == AuthMode::None,
            Demo::On => true,
            Demo::Off => false,
        }
    }
}

/// `server.listen`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket with this path.
    Unix(PathBuf),
}

impl Listen {
    /// The same with this port, if it has one.
    pub const fn set_port(&mut self, port: u16) {
        if let Self::Tcp(address) = self {
            address.set_port(port);
        }
    }
}

/// As it is typed.
impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.contains('\0') {
                Err(())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        local.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(drop)
    }
}

/// One of `server.trusted_proxies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whoever connects to the Unix socket.
    Local,
    /// These addresses.
    Network(IpNet),
}

impl TrustedProxy {
    /// Whether it is this address.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address))
    }
}

impl TrustedProxy {
    /// Whether they leave nobody out, one of them or all together.
    #[must_use]
    pub fn cover_everybody(proxies: &[Self]) -> bool {
        let networks: Vec<_> = proxies
            .iter()
            .filter_map(|proxy| match proxy {
                Self::Local => None,
                Self::Network(network) => Some(*network),
            })
            .collect();
        IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0)
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => formatter.write_str("unix"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(formatter, "{}", network.addr())
            }
            Self::Network(network) => write!(formatter, "{network}"),
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "unix" {
            return Ok(Self::Local);
        }
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(|network| Self::Network(canonical(network))).map_err(drop)
    }
}

/// An address of IPv4 that is written as one of IPv6 is that of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network };
    let four = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
    four.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

/// `[database]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long a write waits for another process that holds the database.
    pub busy_timeout: Duration,
    /// Most bytes that the file may grow to; nothing means as far as the disk goes.
    pub max_size: Option<u64>,
}

/// `[locks]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks {
    /// What [`crate::domain::rules`] goes by.
    pub rules: Rules,
    /// What a lease that was alive when the server stopped has left at least when it starts again.
    pub restart_grace: Duration,
    /// The longest that one request waits for a lock; a longer wish becomes this.
    pub max_wait: Ttl,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most clients that wait for one lock.
    pub waiters_per_workspace: usize,
    /// Most of them that are of one user.
    pub waiters_per_user: usize,
    /// Most clients that wait for locks.
    pub waiters: usize,
    /// Most streams of events that one user can have at a time; nothing means as many as they like.
    pub streams_per_user: Option<u32>,
    /// Most requests that one caller may make each second, in the long run; nothing means as many as they like.
    pub requests_per_second: Option<u32>,
}

/// `[sweeper]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweeper {
    /// How often it comes by; nothing means never.
    pub interval: Option<Duration>,
}

/// `[history]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// How long events are kept; nothing means for ever.
    pub keep: Option<Duration>,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// How callers say who they are.
    pub mode: AuthMode,
    /// Who administers the server, of those whom a JWT or a proxy names.
    pub admins: Vec<String>,
    /// What a JWT must be.
    pub jwt: Jwt,
    /// What a proxy says.
    pub proxy: Proxy,
}

/// `auth.jwt_…`
#[derive(Clone, PartialEq, Eq)]
pub struct Jwt {
    /// How it is signed.
    pub algorithm: JwtAlgorithm,
    /// The secrets of HS256: any of them is good.
    pub secrets: Vec<String>,
    /// Files with the public keys of the others, as PEM: any of them is good.
    pub public_key_files: Vec<PathBuf>,
    /// Who must have made it.
    pub issuer: Option<String>,
    /// For whom it must be made.
    pub audience: Option<String>,
    /// The claim with the user's id.
    pub user_claim: String,
    /// The claim with how they are shown.
    pub name_claim: String,
    /// The claim that says `admin` of administrators.
    pub role_claim: String,
    /// How far the clocks may be apart.
    pub leeway: Duration,
}

/// Secrets are not shown.
impl fmt::Debug for Jwt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// `auth.jwt_algorithm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: a secret that both sides know.
    Hs256,
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// `auth.proxy_…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// From where it is believed.
    pub addresses: Vec<TrustedProxy>,
    /// The header with the user's id.
    pub user_header: String,
    /// The header with how they are shown.
    pub name_header: String,
}

/// `auth.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// `X-User-Id` is believed; everybody is an administrator.
    None,
    /// Tokens.
    Token,
    /// JSON Web Tokens of an app that signs its users in; and tokens.
    Jwt,
    /// A proxy that signs its users in; and tokens.
    Proxy,
}

impl AuthMode {
    /// Every mode there is.
    pub const ALL: [Self; 4] = [Self::None, Self::Token, Self::Jwt, Self::Proxy];

    /// As it is typed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Proxy => "proxy",
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What is less important than this is not logged.
    pub level: log::LevelFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server {
                listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 7311))),
                socket_mode: 0o600,
                trusted_proxies: Vec::new(),
                cors_origins: Vec::new(),
                console: true,
                demo: Demo::Auto,
                head_timeout: Duration::from_secs(10),
                body_timeout: Duration::from_secs(30),
                idle_timeout: Duration::from_secs(75),
                write_timeout: Duration::from_secs(30),
                max_head: 16 * 1024,
                max_headers: 64,
                max_body: 64 * 1024,
                max_connections: 10_000,
                max_buffered: 128 * 1024 * 1024,
                shutdown_grace: Duration::from_secs(10),
            },
            database: Database {
                path: PathBuf::from("lockhouse.db"),
                busy_timeout: Duration::from_secs(5),
                max_size: None,
            },
            locks: Locks {
                rules: Rules {
                    default_ttl: Ttl::from_millis(10 * 60 * 1_000),
                    min_ttl: Ttl::from_millis(1_000),
                    max_ttl: Ttl::from_millis(24 * 60 * 60 * 1_000),
                    same_user: SameUser::Share,
                    takeover: Takeover::Anyone,
                    claim_within: Ttl::from_millis(15_000),
                    knock_grant_after: Some(Ttl::from_millis(30_000)),
                    knock_grant_at_latest: Some(Ttl::from_millis(5 * 60 * 1_000)),
                    knock_again_after: Ttl::from_millis(60_000),
                    membership: Membership::Open,
                    locks_per_user: 1_000,
                    idle_takeover_after: None,
                    reclaim_within: Ttl::from_millis(i64::MAX),
                },
                restart_grace: Duration::from_secs(30),
                max_wait: Ttl::from_millis(60_000),
            },
            limits: Limits {
                waiters_per_workspace: 100,
                waiters_per_user: 10,
                waiters: 10_000,
                streams_per_user: Some(100),
                requests_per_second: None,
            },
            sweeper: Sweeper { interval: Some(Duration::from_secs(30)) },
            history: History { keep: Some(Duration::from_secs(30 * 24 * 60 * 60)) },
            auth: Auth {
                mode: AuthMode::None,
                admins: Vec::new(),
                jwt: Jwt {
                    algorithm: JwtAlgorithm::Hs256,
                    secrets: Vec::new(),
                    public_key_files: Vec::new(),
                    issuer: None,
                    audience: None,
                    user_claim: "sub".to_owned(),
                    name_claim: "name".to_owned(),
                    role_claim: "lockhouse_role".to_owned(),
                    leeway: Duration::from_secs(30),
                },
                proxy: Proxy {
                    addresses: Vec::new(),
                    user_header: "Remote-User".to_owned(),
                    name_header: "Remote-Name".to_owned(),
                },
            },
            log: Log { level: log::LevelFilter::Info, format: LogFormat::Text },
        }
    }
}
