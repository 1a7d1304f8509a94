//! All settings: the struct [`Config`] and the table [`SETTINGS`], generated from the same definitions.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use log::LevelFilter;

use super::database::{ADDRESS, is_address, read_address};
use super::kinds::{
    CENTURY, DAY, HOUR, Kind, MILLISECOND, MINUTE, SECOND, choice, duration, list, name, number, path,
    permissions, secret, secrets, size, switch, text, ttl,
};
use super::setting::Setting;
use super::types::{
    AuthMode, Demo, JwtAlgorithm, Listen, LogFormat, Secret, TrustedProxy, is_allowed_header, origin,
};
use super::webhooks::Webhook;
use crate::domain::UserId;
use crate::domain::access::{KindRules, Membership, PerKind, Rules, SameUser, Takeover};
use crate::time::Ttl;

/// Defines the structs, their defaults and the table. A setting is defined by
/// `/// Description.` `name: Type = default, kind;` in its section. A section has its name in TOML beside it. Users see the description, too.
macro_rules! settings {
    ($($section:ident $key:literal: $Section:ident {
        $($(#[doc = $about:literal])+ $name:ident: $type:ty = $default:expr, $kind:expr;)+
    })+) => {
        /// All settings.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(#[doc = concat!("`[", $key, "]`")] pub $section: $Section,)+
            /// `[[webhooks]]`
            pub webhooks: Vec<Webhook>,
        }

        $(#[doc = concat!("`[", $key, "]`")]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Section {
            $($(#[doc = $about])+ pub $name: $type,)+
        })+

        impl Default for Config {
            fn default() -> Self {
                Self { $($section: $Section { $($name: $default,)+ },)+ webhooks: Vec::new() }
            }
        }

        /// All settings, in the order in which they are shown.
        pub static SETTINGS: LazyLock<Vec<Setting<Config>>> = LazyLock::new(|| vec![$($(Setting::new::<$type>(
            [$key, stringify!($name), concat!($($about, "\n"),+)],
            $kind,
            |config| &config.$section.$name,
            |config| &mut config.$section.$name,
        ),)+)+]);
    };
}

/// The sections with their settings, in the order in which they are shown.
pub(super) fn sections() -> impl Iterator<Item = (&'static str, &'static [Setting<Config>])> {
    let chunks = SETTINGS.chunk_by(|one, next| one.section == next.section);
    chunks.filter_map(|settings| Some((settings.first()?.section, settings)))
}

impl DatabaseConfig {
    /// Reads the address from `url_file`, if that is set.
    ///
    /// # Errors
    /// A sentence for the operator, without the address.
    pub fn read_url(&mut self) -> Result<(), String> {
        let Some(path) = &self.url_file else { return Ok(()) };
        if self.url.is_some() {
            return Err("database.url and database.url_file are both set: remove one".to_owned());
        }
        self.url = Some(read_address(path)?);
        Ok(())
    }
}

impl Config {
    /// Whether the playground is served.
    #[must_use]
    pub fn has_demo(&self) -> bool {
        match self.server.demo {
            Demo::Auto => self.auth.mode == AuthMode::None,
            Demo::On => true,
            Demo::Off => false,
        }
    }

    /// The settings of each kind of lock.
    #[must_use]
    pub const fn kinds(&self) -> PerKind {
        macro_rules! of {
            ($($kind:ident: $section:ident, $limits:ident;)*) => {
                PerKind { $($kind: KindRules {
                    default_ttl: self.$section.default_ttl,
                    max_ttl: self.$section.max_ttl,
                    locks_per_user: self.$limits.locks_per_user,
                },)* }
            };
        }
        of! {
            edit: locks, limits;
            agent: kinds_agent, kinds_agent;
            run: kinds_run, kinds_run;
            terraform: kinds_terraform, kinds_terraform;
            lfs: kinds_lfs, kinds_lfs;
        }
    }

    /// The rules of the domain. The time in which a lease can be reclaimed is unlimited.
    #[must_use]
    pub const fn rules(&self) -> Rules {
        let locks = &self.locks;
        Rules {
            kinds: self.kinds(),
            min_ttl: locks.min_ttl,
            same_user: locks.same_user,
            takeover: locks.takeover,
            agents_yield: locks.agents_yield,
            claim_within: locks.claim_within,
            knock_grant_after: locks.knock_grant_after,
            knock_grant_at_latest: locks.knock_grant_at_latest,
            knock_again_after: locks.knock_again_after,
            membership: self.workspaces.membership,
            idle_takeover_after: locks.idle_takeover_after,
            reclaim_within: Ttl::from_millis(i64::MAX),
        }
    }
}

/// Timeouts of connections.
fn timeout() -> Kind<Duration> {
    duration(MILLISECOND, DAY)
}

/// Durations in lease time.
fn any_ttl() -> Kind<Ttl> {
    ttl(MILLISECOND, CENTURY)
}

/// Names of claims in a JWT.
fn claim() -> Kind<String> {
    name("the name of a claim, such as \"sub\"")
}

/// Names of headers that a proxy sets.
fn header() -> Kind<String> {
    name("the name of a header that has no other meaning, such as \"Remote-User\"")
        .only_if(|name| is_allowed_header(name))
}

/// Web origins.
fn origins() -> Kind<String> {
    let allowed = "origins (scheme, host and port; no path, no slash at the end, no *), such as [\"https://app.example\"]";
    Kind::new(allowed, |value| origin(value.as_str()?), |origin| origin.as_str().into())
}

/// A lease time of `minutes`.
fn minutes(minutes: u32) -> Ttl {
    Ttl::from_duration(minutes * MINUTE)
}

/// Excludes the texts that SQLite takes for a database in memory or a URI.
fn is_path_to_sqlite(path: &Path) -> bool {
    path != Path::new(":memory:") && !path.as_os_str().as_encoded_bytes().starts_with(b"file:")
}

/// Addresses of proxies.
fn proxies() -> Kind<Vec<TrustedProxy>> {
    list(usize::MAX, text("addresses, networks and \"unix\", such as [\"127.0.0.1\", \"10.0.0.0/8\"]"))
}

settings! {
    server "server": ServerConfig {
        /// Where to listen: an address and a port, or unix:PATH for a Unix socket. Port 0 picks a free one. A
        /// socket handed over by systemd (`LISTEN_FDS`) takes precedence. With auth.mode = "none" only a
        /// loopback address or a Unix socket.
        listen: Listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 7311))),
            text("ADDRESS:PORT, such as \"127.0.0.1:7311\" or \"[::1]:7311\", or unix:PATH, such as \"unix:/run/lockhouse/lockhouse.sock\"").with_flag("--listen");
        /// The permissions of the Unix socket, in octal: "0600" lets its owner connect, "0660" also its group.
        socket_mode: u32 = 0o600, permissions();
        /// The proxies in front of this server: addresses, networks such as "10.0.0.0/8", and "unix" for
        /// connections by the Unix socket. Only their X-Forwarded-For header is trusted.
        trusted_proxies: Vec<TrustedProxy> = Vec::new(), proxies();
        /// The web origins whose pages may call the API from a browser, such as `https://app.example`.
        cors_origins: Vec<String> = Vec::new(), list(usize::MAX, origins());
        /// Whether the web console is served at /. It shows only what its user's credentials give access to.
        console: bool = true, switch();
        /// Whether the playground is served at /demo: "on", "off", or "auto", which is on with auth.mode = "none".
        demo: Demo = Demo::Auto, choice(&[("auto", Demo::Auto), ("on", Demo::On), ("off", Demo::Off)]);
        /// Whether the documentation is served at /docs.
        docs: bool = true, switch();
        /// How long the request line and the headers may take to arrive, from their first byte on.
        head_timeout: Duration = 10 * SECOND, timeout();
        /// How long the body of a request may take to arrive.
        body_timeout: Duration = 30 * SECOND, timeout();
        /// How long an idle connection is kept open.
        idle_timeout: Duration = 75 * SECOND, timeout();
        /// How long a client may leave a response unread before its connection is closed.
        write_timeout: Duration = 30 * SECOND, timeout();
        /// Maximum size of the request line and the headers of a request together.
        max_head: usize = 16 << 10, size(1 << 10, 1 << 20);
        /// Maximum number of headers of a request.
        max_headers: usize = 64, number(8, 256);
        /// Maximum size of the body of a request.
        max_body: usize = 64 << 10, size(8 << 10, 16 << 20);
        /// Maximum number of connections. The limit of open files, which is raised as far as the system allows,
        /// can reduce it. At the limit, a new connection replaces one that does not finish a request, then one
        /// that never sent a request, then an idle one.
        max_connections: usize = 10_000, number(1, 1_000_000);
        /// Maximum memory for requests and responses in transit. Beyond it, clients that do not read, or do not
        /// finish a request, are disconnected.
        max_buffered: usize = 128 << 20, size(1 << 20, 64 << 30);
        /// How long a stop waits for requests that are being answered.
        shutdown_grace: Duration = 10 * SECOND, timeout();
    }
    database "database": DatabaseConfig {
        /// The SQLite file. It is created if it does not exist, readable by its owner only.
        path: PathBuf = "lockhouse.db".into(),
            path("the path of a file, such as \"lockhouse.db\"").only_if(|path| is_path_to_sqlite(path)).with_flag("--database");
        /// The address of a PostgreSQL database in place of the file, such as `postgres://user:password@host/database`.
        /// Up to 16 servers can use one database. Empty: the file. It is a secret: give it in the environment or in
        /// `url_file`. Connections to other machines use TLS and check the certificate, by `sslrootcert=FILE` or by what
        /// this machine trusts, unless the address ends with `?sslmode=disable`.
        url: Option<Secret> = None, secret(ADDRESS, is_address).or("");
        /// A file with the address, in place of `url`, such as a secret of Docker or Kubernetes.
        url_file: Option<PathBuf> = None, path("the path of a file").or("");
        /// How long a write waits while another process holds the database, such as a backup, before it is
        /// answered with 503. With PostgreSQL it is at least 1s. A PostgreSQL that has not answered for three fifths of it, and
        /// for 3s, counts as away: reads are answered with 503, too.
        busy_timeout: Duration = 5 * SECOND, duration(MILLISECOND, HOUR);
        /// The size that the database file may grow to, so that it leaves room on the disk. At the limit,
        /// writes that need more room are answered with 507; reads go on.
        max_size: Option<u64> = None, size(64 << 10, 1 << 48).or("unlimited");
    }
    locks "locks": LocksConfig {
        /// The length of a lease if the request does not give one.
        default_ttl: Ttl = minutes(10), any_ttl();
        /// The shortest lease; a request for a shorter one gets this.
        min_ttl: Ttl = Ttl::from_duration(SECOND), any_ttl();
        /// The longest lease; a request for a longer one gets this.
        max_ttl: Ttl = minutes(24 * 60), any_ttl();
        /// How several sessions (tabs, devices) of one user share a lock: with "share" they hold it together, with
        /// "separate" they compete like different users.
        same_user: SameUser = SameUser::Share,
            choice(&[("share", SameUser::Share), ("separate", SameUser::Separate)]);
        /// Who may take over a live lock with force: "anyone" with the right to lock, "admins" (of the workspace or the
        /// server) or "nobody". Admins can always end a lock with a forced release.
        takeover: Takeover = Takeover::Anyone,
            choice(&[("anyone", Takeover::Anyone), ("admins", Takeover::Admins), ("nobody", Takeover::Nobody)]);
        /// Whether a person (a lock of the kind "edit") takes the lock of an AI agent over without force. With false,
        /// agents hold their locks as people do.
        agents_yield: bool = true, switch();
        /// The maximum time that a request waits for a lock (`wait_ms`). It must be less than the timeout of a proxy.
        max_wait: Ttl = minutes(1), ttl(MILLISECOND, MINUTE);
        /// The length of a lease that was granted after a wait, a knock or a handover, until its holder first renews
        /// it. So a holder who is gone does not block others.
        claim_within: Ttl = Ttl::from_duration(15 * SECOND), any_ttl();
        /// A lock passes to the user who knocked if its holder neither answers nor sends a heartbeat with "active" for
        /// this long. It does not depend on locks.takeover. "never" disables it.
        knock_grant_after: Option<Ttl> = Some(Ttl::from_duration(30 * SECOND)), any_ttl().or("never");
        /// The maximum time after a knock until the lock passes, even if its holder is active. At least
        /// `knock_grant_after`. "never": the lock does not pass while the holder is active.
        knock_grant_at_latest: Option<Ttl> = Some(minutes(5)), any_ttl().or("never");
        /// How long a user whose knock was declined must wait before they knock on the same lease again.
        knock_again_after: Ttl = minutes(1), ttl(Duration::ZERO, CENTURY);
        /// A live lock whose holder has not been active for this long (heartbeats with `active`) may be taken over
        /// by any user who may lock. It does not depend on locks.takeover. "never" disables it.
        idle_takeover_after: Option<Ttl> = None, any_ttl().or("never");
        /// A lease that was alive when the server stopped has at least this much left when it starts again,
        /// because its holder could send no heartbeat in between.
        restart_grace: Duration = 30 * SECOND, duration(Duration::ZERO, CENTURY);
    }
    kinds_agent "kinds.agent": AgentLocksConfig {
        /// The length of a lease if the request does not give one, for locks of AI agents.
        default_ttl: Ttl = minutes(2), any_ttl();
        /// The longest lease; a request for a longer one gets this.
        max_ttl: Ttl = minutes(24 * 60), any_ttl();
        /// Maximum number of these locks of one user. Further ones are answered with 429.
        locks_per_user: u32 = 1_000, number(1, 1_000_000);
    }
    kinds_run "kinds.run": RunLocksConfig {
        /// The length of a lease if the request does not give one, for locks of processes, such as `lockhouse run`.
        default_ttl: Ttl = Ttl::from_duration(30 * SECOND), any_ttl();
        /// The longest lease; a request for a longer one gets this.
        max_ttl: Ttl = minutes(24 * 60), any_ttl();
        /// Maximum number of these locks of one user. Further ones are answered with 429.
        locks_per_user: u32 = 1_000, number(1, 1_000_000);
    }
    kinds_terraform "kinds.terraform": TerraformLocksConfig {
        /// The length of a lease if the request does not give one, for locks of Terraform states.
        default_ttl: Ttl = minutes(24 * 60), any_ttl();
        /// The longest lease; a request for a longer one gets this.
        max_ttl: Ttl = minutes(7 * 24 * 60), any_ttl();
        /// Maximum number of these locks of one user. Further ones are answered with 429.
        locks_per_user: u32 = 1_000, number(1, 1_000_000);
    }
    kinds_lfs "kinds.lfs": LfsLocksConfig {
        /// The length of a lease if the request does not give one, for locks of Git LFS files.
        default_ttl: Ttl = minutes(90 * 24 * 60), any_ttl();
        /// The longest lease; a request for a longer one gets this.
        max_ttl: Ttl = minutes(365 * 24 * 60), any_ttl();
        /// Maximum number of these locks of one user. Further ones are answered with 429.
        locks_per_user: u32 = 100_000, number(1, 1_000_000);
    }
    workspaces "workspaces": WorkspacesConfig {
        /// Whether workspaces have members. "open": every caller may lock, and a workspace need not
        /// exist. "enforced": only its members see a workspace, and only its editors and admins lock it.
        membership: Membership = Membership::Open,
            choice(&[("open", Membership::Open), ("enforced", Membership::Enforced)]);
    }
    limits "limits": LimitsConfig {
        /// Maximum number of locks of one user, of the kind "edit". Further ones are answered with 429.
        locks_per_user: u32 = 1_000, number(1, 1_000_000);
        /// Maximum number of requests of one caller per second, on average; ten times as many at once. Further ones
        /// are answered with 429. The files of the console and the playground are not counted. "unlimited"
        /// disables it.
        requests_per_second: Option<u32> = None, number(1, 100_000).or("unlimited");
        /// Maximum number of event streams of one user at a time. Further ones are answered with 429. Each takes a
        /// connection. "unlimited" disables it.
        streams_per_user: Option<u32> = Some(100), number(1, 1_000_000).or("unlimited");
        /// Maximum number of requests that wait for one lock (`wait_ms`). Further ones are answered with 429.
        waiters_per_workspace: usize = 100, number(1, 1_000);
        /// Maximum number of sessions of one user that wait for one lock. Further ones are answered with 429.
        waiters_per_user: usize = 10, number(1, 1_000);
        /// Maximum number of requests that wait for any lock at one server. Further ones are answered with 429.
        waiters: usize = 10_000, number(1, 1_000_000);
    }
    sweeper "sweeper": SweeperConfig {
        /// How often expired locks are deleted from the file and old history is trimmed. Only the size of the
        /// file depends on it: an expired lock is free at once. "never" disables it.
        interval: Option<Duration> = Some(30 * SECOND), duration(MILLISECOND, CENTURY).or("never");
    }
    history "history": HistoryConfig {
        /// How long the history of the locks is kept, or "forever".
        keep: Option<Duration> = Some(30 * DAY), duration(MILLISECOND, CENTURY).or("forever");
    }
    auth "auth": AuthConfig {
        /// How callers are authenticated. "none": the header X-User-Id is trusted and every caller is an
        /// administrator; only for a loopback address or a Unix socket. "token": Lockhouse's own tokens
        /// (`lockhouse token create`). "jwt": JSON Web Tokens of an app that authenticates its users. "proxy": a
        /// header of a proxy that does. Tokens work beside "jwt" and "proxy", too.
        mode: AuthMode = AuthMode::None, choice(&AuthMode::WORDS);
        /// Ids of users who administer the server, among those whom a JWT or a proxy names.
        admins: Vec<String> = Vec::new(),
            list(usize::MAX, name("user ids, such as [\"alice\"]").only_if(|id| UserId::parse(id).is_ok()));
        /// The algorithm that signs the JWTs; others are refused.
        jwt_algorithm: JwtAlgorithm = JwtAlgorithm::Hs256, choice(&JwtAlgorithm::WORDS);
        /// The secret of HS256, at least 32 bytes; several while it is changed, any of which is accepted. Use the
        /// environment, with commas between them, or a settings file that only its owner can read.
        jwt_secret: Vec<Secret> = Vec::new(), secrets(8, 32);
        /// The file with the public key of RS256 (at least 2048 bits), ES256 or `EdDSA`, as PEM ("BEGIN PUBLIC KEY");
        /// several while it is changed, any of which is accepted.
        jwt_public_key_file: Vec<PathBuf> = Vec::new(), list(8, path("paths of files"));
        /// The issuer that a JWT must have (`iss`); empty for any.
        jwt_issuer: Option<String> = None, name("a text").or("");
        /// The audience that a JWT must have (`aud`). If it is empty, a JWT that names an audience is refused.
        jwt_audience: Option<String> = None, name("a text").or("");
        /// The claim with the user id.
        jwt_user_claim: String = "sub".to_owned(), claim();
        /// The claim with the display name.
        jwt_name_claim: String = "name".to_owned(), claim();
        /// The claim that makes a user an administrator of the server: "admin", or a list with "admin".
        jwt_role_claim: String = "lockhouse_role".to_owned(), claim();
        /// How far the clock of the issuer may differ from the server's, when it is compared with `exp` and `nbf`.
        jwt_leeway: Duration = 30 * SECOND, duration(Duration::ZERO, 10 * MINUTE);
        /// Addresses and networks of the proxies that are trusted to name the user, and "unix" for
        /// connections by the Unix socket. From other addresses these headers are ignored.
        proxy_addresses: Vec<TrustedProxy> = Vec::new(), proxies();
        /// The header with the user id, in UTF-8.
        proxy_user_header: String = "Remote-User".to_owned(), header();
        /// The header with the display name, in UTF-8.
        proxy_name_header: String = "Remote-Name".to_owned(), header();
    }
    log "log": LogConfig {
        /// What is logged to standard error: "error", "warn", "info" (each change of a lock, refusals, tokens),
        /// "debug" (all requests, too), "trace" or "off".
        level: LevelFilter = LevelFilter::Info,
            choice(&[("off", LevelFilter::Off), ("error", LevelFilter::Error), ("warn", LevelFilter::Warn),
                ("info", LevelFilter::Info), ("debug", LevelFilter::Debug), ("trace", LevelFilter::Trace)]);
        /// The format of the log: "text" for people, "json" for programs.
        format: LogFormat = LogFormat::Text, choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    }
}
