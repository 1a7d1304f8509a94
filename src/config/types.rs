//! The types of settings that have one of their own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

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

/// `auth.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// `X-User-Id` is believed; every caller is an administrator.
    None,
    /// Tokens.
    Token,
    /// JSON Web Tokens of an app that authenticates its users; and tokens.
    Jwt,
    /// A proxy that authenticates its users; and tokens.
    Proxy,
}

impl AuthMode {
    /// Every mode, as it is written.
    pub const WORDS: [(&str, Self); 4] =
        [("none", Self::None), ("token", Self::Token), ("jwt", Self::Jwt), ("proxy", Self::Proxy)];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
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

impl JwtAlgorithm {
    /// Every algorithm, as a token names it.
    pub const WORDS: [(&str, Self); 4] =
        [("HS256", Self::Hs256), ("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    /// As a token names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// The word of a value in a list of words.
pub(super) fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

/// Headers with another meaning, to this server or to those between.
const RESERVED_HEADERS: &str = "accept authorization connection content-length content-type cookie date expect forwarded host \
     keep-alive last-event-id origin proxy-authorization referer te trailer transfer-encoding upgrade user-agent via \
     x-forwarded-for x-forwarded-host x-forwarded-proto x-lock-fence x-lock-workspace x-request-id";

/// Whether a proxy may be configured to name the user in this header.
pub(super) fn is_allowed_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with("x-lockhouse")
        && RESERVED_HEADERS.split_whitespace().all(|taken| taken != name)
}

/// A web origin as a browser writes it: in lower case, and without the default port.
pub(super) fn origin(text: &str) -> Option<String> {
    let origin = text.to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://")?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let is_host =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\"*@".contains(&byte));
    is_host.then(|| origin.strip_suffix(default_port).unwrap_or(&origin).to_owned())
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}
