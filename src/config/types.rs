//! The types of single settings.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// `server.demo`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demo {
    /// On with `auth.mode = "none"`, else off.
    Auto,
    /// Always on.
    On,
    /// Always off.
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
    /// Sets the port of a TCP address. A Unix socket has none.
    pub const fn set_port(&mut self, port: u16) {
        if let Self::Tcp(address) = self {
            address.set_port(port);
        }
    }
}

/// In the format of the setting.
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

/// An entry of `server.trusted_proxies` or `auth.proxy_addresses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Every client of the Unix socket.
    Local,
    /// The addresses of a network.
    Network(IpNet),
}

impl TrustedProxy {
    /// Whether `address` belongs to this entry.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address))
    }

    /// Whether the entries together contain all addresses of IPv4 or IPv6.
    #[must_use]
    pub fn cover_all(proxies: &[Self]) -> bool {
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

/// Converts a network of IPv4-mapped IPv6 addresses to IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else { return network };
    let four = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
    four.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

/// `auth.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// `X-User-Id` is trusted. Every caller is an administrator.
    None,
    /// Tokens.
    Token,
    /// JSON Web Tokens of an app that authenticates its users. Tokens work, too.
    Jwt,
    /// Headers of a proxy that authenticates its users. Tokens work, too.
    Proxy,
}

impl AuthMode {
    /// All modes and their names in the settings.
    pub const WORDS: [(&str, Self); 4] =
        [("none", Self::None), ("token", Self::Token), ("jwt", Self::Jwt), ("proxy", Self::Proxy)];

    /// The name in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// `auth.jwt_algorithm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256, with a shared secret.
    Hs256,
    /// RSA with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// All algorithms and their names in the `alg` header of a JWT.
    pub const WORDS: [(&str, Self); 4] =
        [("HS256", Self::Hs256), ("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    /// The name in the `alg` header of a JWT.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// The word for `value` in a list of words.
pub(super) fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

/// A secret. It is never shown, also not by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text of the secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of the secret.
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

/// Headers that have another meaning to this server or to intermediaries.
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
    /// Lines of text, for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}
