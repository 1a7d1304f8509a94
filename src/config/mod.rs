//! The settings: file + environment + flags → one checked [`Config`].
//!
//! A flag goes before the environment, the environment before the file, the file before the default. Each setting
//! stands once, in the table [`settings()`]: it feeds the file, the environment, `lockhouse check` and
//! `config.example.toml`.

mod auth;
mod locks;
mod server;
mod settings;
mod types;
mod values;

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use settings::{Setting, effective, example, sections, settings};
pub use types::*;
pub use values::Given;

/// A setting that cannot be used: where it was given, what it was, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What was typed, before it is understood.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    /// The environment, as pairs.
    pub environment: Vec<(String, String)>,
    /// Flags, as (`section.name`, value, how the flag is written).
    pub flags: Vec<(&'static str, String, &'static str)>,
}

/// A [`Config`], and what deserves a warning about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Reads the file, then the environment, then the flags, and checks what comes out.
///
/// # Errors
/// A [`ConfigError`] that names the source, the key, the value and what is allowed.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let loaded = read(sources)?;
    check(&loaded.config)?;
    Ok(loaded)
}

/// As [`load`], for what needs one setting or another and serves nobody: whether they go together is not looked at.
///
/// # Errors
/// A setting that cannot be used.
pub fn read(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut config = Config::default();
    let mut warnings = Vec::new();
    if let Some(path) = &sources.file {
        read_file(path, &mut config)?;
    }
    for (name, value) in &sources.environment {
        read_variable(name, value, &mut config, &mut warnings)?;
    }
    for (key, value, flag) in &sources.flags {
        let setting = settings()
            .find(|setting| setting.key() == *key && !setting.secret)
            .ok_or_else(|| ConfigError::new(format!("{flag} sets nothing: there is no setting {key}")))?;
        apply(setting, Given::Text(value.clone()), flag, &mut config)?;
    }
    Ok(Loaded { config, warnings })
}

fn apply(setting: &Setting, given: Given, source: &str, config: &mut Config) -> Result<(), ConfigError> {
    let shown = if setting.secret { "(not shown)".to_owned() } else { given.to_string() };
    (setting.read)(config, given).map_err(|()| {
        ConfigError::new(format!(
            "{source}: {key} = {shown} cannot be used; {allowed}",
            key = setting.key(),
            allowed = setting.allowed
        ))
    })
}

fn read_file(path: &Path, config: &mut Config) -> Result<(), ConfigError> {
    let file = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(format!("cannot read the settings in {file}: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // Without the line itself, which the error would show: it may be that of a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let (line, column) = match before.rsplit_once('\n') {
            Some((lines, rest)) => (lines.split('\n').count() + 1, rest.chars().count() + 1),
            None => (1, before.chars().count() + 1),
        };
        ConfigError::new(format!("{file} is not TOML: line {line}, column {column}: {}", error.message()))
    })?;
    for (section, entries) in table {
        if !sections().any(|known| known == section) {
            let known: Vec<_> = sections().map(|known| format!("[{known}]")).collect();
            return Err(ConfigError::new(format!(
                "{file}: there is no section [{section}]; there are {}",
                known.join(", ")
            )));
        }
        let toml::Value::Table(entries) = entries else {
            return Err(ConfigError::new(format!("{file}: {section} is a section: write [{section}]")));
        };
        for (name, value) in entries {
            let setting = settings::find(&section, &name)
                .ok_or_else(|| unknown(&file.to_string(), &section, &format!("{section}.{name}")))?;
            let given = Given::from_toml(&value).ok_or_else(|| {
                ConfigError::new(format!(
                    "{file}: {section}.{name} = {} cannot be used; {}",
                    if setting.secret { "(not shown)".to_owned() } else { values::shown(&value) },
                    setting.allowed
                ))
            })?;
            if setting.secret && given != Given::List(Vec::new()) {
                is_private(path).map_err(|mode| {
                    ConfigError::new(format!(
                        "{file}: {section}.{name} is a secret, and others can read this file (mode {mode:o}): chmod 600 it, or use {} instead",
                        setting.variable()
                    ))
                })?;
            }
            apply(setting, given, &file.to_string(), config)?;
        }
    }
    Ok(())
}

/// Whether only its owner can read a file. Its mode, if others can.
fn is_private(path: &Path) -> Result<(), u32> {
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o777);
    // The last six bits are those of the group and of others.
    if mode.trailing_zeros() >= 6 { Ok(()) } else { Err(mode) }
}

fn unknown(source: &str, section: &str, asked: &str) -> ConfigError {
    let known: Vec<_> =
        settings().filter(|setting| setting.section == section).map(|setting| setting.name).collect();
    ConfigError::new(format!("{source}: there is no setting {asked}; [{section}] has {}", known.join(", ")))
}

/// Begins the name of every environment variable that sets something.
const PREFIX: &str = "LOCKHOUSE_";

fn read_variable(
    name: &str,
    value: &str,
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(()) };
    if let Some(setting) = settings().find(|setting| setting.variable() == name) {
        return apply(setting, Given::Text(value.to_owned()), name, config);
    }
    // Kubernetes sets LOCKHOUSE_PORT and LOCKHOUSE_SERVICE_HOST beside a service of that name: not ours to refuse.
    let rest = rest.to_ascii_lowercase();
    let meant =
        sections().find(|section| rest.strip_prefix(section).is_some_and(|rest| rest.starts_with('_')));
    if let Some(section) = meant {
        return Err(unknown("environment", section, name));
    }
    warnings.push(format!("the environment variable {name} sets nothing; it is ignored"));
    Ok(())
}

/// What one setting cannot say alone.
fn check(config: &Config) -> Result<(), ConfigError> {
    let rules = &config.locks.rules;
    if rules.min_ttl > rules.default_ttl || rules.default_ttl > rules.max_ttl {
        let [min, default, max] = [rules.min_ttl, rules.default_ttl, rules.max_ttl].map(locks::show_ttl);
        return Err(ConfigError::new(format!(
            "locks.min_ttl ({min}), locks.default_ttl ({default}) and locks.max_ttl ({max}) must come in this order, each at least as long as the one before: change one of them",
        )));
    }
    if let (Some(after), Some(latest)) = (rules.knock_grant_after, rules.knock_grant_at_latest)
        && latest < after
    {
        let [after, latest] = [after, latest].map(locks::show_ttl);
        return Err(ConfigError::new(format!(
            "locks.knock_grant_at_latest ({latest}) must be at least locks.knock_grant_after ({after}): change one of them",
        )));
    }
    let server = &config.server;
    if server.max_buffered < 4 * (server.max_body + server.max_head) {
        return Err(ConfigError::new(
            "server.max_buffered must be at least four times as large as server.max_body and server.max_head together",
        ));
    }
    check_auth(config)
}

/// Nothing that would believe strangers is served.
fn check_auth(config: &Config) -> Result<(), ConfigError> {
    let auth = &config.auth;
    let jwt = &auth.jwt;
    let symmetric = jwt.algorithm == JwtAlgorithm::Hs256;
    let wrong = |what: String| Err(ConfigError::new(what));
    match auth.mode {
        AuthMode::None => match config.server.listen {
            Listen::Tcp(address) if !address.ip().is_loopback() => wrong(format!(
                "server.listen = \"{address}\" cannot be used: auth.mode = \"none\" believes everybody, so it goes with loopback or a Unix socket only: use 127.0.0.1, [::1] or unix:PATH, or another auth.mode"
            )),
            Listen::Tcp(_) | Listen::Unix(_) => Ok(()),
        },
        AuthMode::Jwt if symmetric && jwt.secrets.is_empty() => wrong(
            "auth.mode = \"jwt\" with HS256 needs auth.jwt_secret, of at least 32 bytes: set LOCKHOUSE_AUTH_JWT_SECRET".to_owned(),
        ),
        AuthMode::Jwt if symmetric && !jwt.public_key_files.is_empty() => wrong(
            "auth.jwt_public_key_file goes with RS256, ES256 and EdDSA: a public key must never be taken for a secret".to_owned(),
        ),
        AuthMode::Jwt if !symmetric && jwt.public_key_files.is_empty() => wrong(format!(
            "auth.mode = \"jwt\" with {} needs auth.jwt_public_key_file: the key by which tokens are checked",
            auth::algorithm_name(jwt.algorithm)
        )),
        AuthMode::Jwt if !symmetric && !jwt.secrets.is_empty() => {
            wrong("auth.jwt_secret goes with HS256 only".to_owned())
        }
        AuthMode::Proxy if auth.proxy.addresses.is_empty() => wrong(
            "auth.mode = \"proxy\" needs auth.proxy_addresses: without them anybody could say who they are".to_owned(),
        ),
        AuthMode::Proxy if TrustedProxy::cover_everybody(&auth.proxy.addresses) => wrong(
            "auth.proxy_addresses must not have a network of everybody: anybody could say who they are".to_owned(),
        ),
        AuthMode::Proxy if auth.proxy.user_header.eq_ignore_ascii_case(&auth.proxy.name_header) => {
            wrong("auth.proxy_user_header and auth.proxy_name_header must be two headers".to_owned())
        }
        AuthMode::Token | AuthMode::Jwt | AuthMode::Proxy => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Ttl;

    fn environment(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&Sources { environment, ..Sources::default() })
    }

    fn file(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockhouse.toml");
        std::fs::write(&path, text).unwrap();
        load(&Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lockhouse.toml");
        std::fs::write(
            &path,
            "[locks]\ndefault_ttl = \"1m\"\nmin_ttl = \"5s\"\n[database]\npath = \"a.db\"\n",
        )
        .unwrap();
        let loaded = load(&Sources {
            file: Some(path),
            environment: vec![
                ("LOCKHOUSE_LOCKS_DEFAULT_TTL".into(), "2m".into()),
                ("LOCKHOUSE_DATABASE_PATH".into(), "b.db".into()),
                ("HOME".into(), "/".into()),
            ],
            flags: vec![("database.path", "c.db".into(), "--database")],
        })
        .unwrap();
        assert_eq!(loaded.config.locks.rules.min_ttl, Ttl::from_millis(5_000));
        assert_eq!(loaded.config.locks.rules.default_ttl, Ttl::from_millis(120_000));
        assert_eq!(loaded.config.database.path, PathBuf::from("c.db"));
    }

    #[test]
    fn a_bad_value_is_refused_with_source_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("[locks]\ndefault_ttl = \"soon\"\n", vec!["lockhouse.toml", "locks.default_ttl", "soon", "10m"]),
            ("[locks]\ndefault_ttl = 600\n", vec!["locks.default_ttl", "600", "10m"]),
            ("[locks]\ntakeover = \"dogs\"\n", vec!["locks.takeover", "dogs", "anyone", "admins", "nobody"]),
            ("[locks]\ntll = \"1m\"\n", vec!["lockhouse.toml", "locks.tll", "default_ttl", "restart_grace"]),
            ("[lock]\nttl = \"1m\"\n", vec!["[lock]", "[locks]"]),
            ("locks = 3\n", vec!["[locks]"]),
            ("[database]\nbusy_timeout = \"30d\"\n", vec!["database.busy_timeout", "30d", "up to an hour"]),
            ("[locks\n", vec!["lockhouse.toml", "TOML"]),
            ("[server]\nlisten = \"7311\"\n", vec!["server.listen", "7311", "127.0.0.1:7311"]),
            ("[server]\nlisten = \"0.0.0.0:7311\"\n", vec!["server.listen", "0.0.0.0:7311", "loopback"]),
            ("[server]\ncors_origins = [1]\n", vec!["server.cors_origins", "1"]),
            ("[server]\ncors_origins = [\"https://*.example\"]\n", vec!["server.cors_origins", "no *"]),
            (
                "[server]\ncors_origins = [\"https://a.example/\"]\n",
                vec!["server.cors_origins", "no slash at the end"],
            ),
            (
                "[locks]\ndefault_ttl = \"48h\"\n",
                vec!["locks.default_ttl", "2d", "locks.max_ttl", "24h", "change"],
            ),
            (
                "[locks]\nknock_grant_after = \"6m\"\n",
                vec!["locks.knock_grant_at_latest", "5m", "locks.knock_grant_after", "6m", "change"],
            ),
            (
                "[server]\nmax_body = \"16MiB\"\nmax_buffered = \"32MiB\"\n",
                vec!["server.max_buffered", "server.max_body"],
            ),
            ("[server]\nmax_headers = 4\n", vec!["server.max_headers", "4", "8 to 256"]),
            ("[server]\nmax_headers = \"many\"\n", vec!["server.max_headers", "many"]),
            ("[server]\nmax_head = \"2MiB\"\n", vec!["server.max_head", "2MiB", "1MiB"]),
            ("[server]\nsocket_mode = \"9\"\n", vec!["server.socket_mode", "0660"]),
            ("[server]\ntrusted_proxies = [\"10.0.0.0/40\"]\n", vec!["server.trusted_proxies", "10.0.0.0/8"]),
            ("[server]\nidle_timeout = \"2d\"\n", vec!["server.idle_timeout", "2d", "a day"]),
            ("[server]\nconsole = \"maybe\"\n", vec!["server.console", "maybe", "true or false"]),
            ("[server]\nlisten = true\n", vec!["server.listen", "true"]),
            ("[server]\nlisten = \"unix:\"\n", vec!["server.listen", "unix:PATH"]),
            ("[locks]\nmin_ttl = \"2h\"\n", vec!["locks.min_ttl", "locks.default_ttl"]),
        ] {
            let message = file(text).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part:?} is missing in: {message}");
            }
        }
    }

    #[test]
    fn what_is_not_toml_is_not_shown_for_it_may_be_a_secret() {
        for (text, place) in [
            ("[auth]\njwt_secret = [\"do not tell anybody\n", "line 2, column "),
            ("[auth]\njwt_secret = do not tell\n", "line 2, column 14"),
            ("do not tell", "line 1, column "),
        ] {
            let message = file(text).unwrap_err().to_string();
            assert!(message.contains(place) && !message.contains("tell"), "{message}");
        }
    }

    #[test]
    fn a_mistyped_variable_is_refused_and_those_of_kubernetes_are_not() {
        let message = environment(&[("LOCKHOUSE_LOCKS_TTL", "1m")]).unwrap_err().to_string();
        assert!(message.contains("LOCKHOUSE_LOCKS_TTL") && message.contains("default_ttl"), "{message}");
        let loaded =
            environment(&[("LOCKHOUSE_SERVICE_HOST", "10.0.0.1"), ("LOCKHOUSE_PORT", "tcp://x")]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.warnings.len(), 2);
    }

    #[test]
    fn lists_and_never_can_be_given_in_the_environment() {
        let loaded = environment(&[
            (
                "LOCKHOUSE_SERVER_CORS_ORIGINS",
                "https://a.example, HTTPS://B.Example:443,http://c.example:8080",
            ),
            ("LOCKHOUSE_SWEEPER_INTERVAL", "never"),
            ("LOCKHOUSE_SERVER_CONSOLE", "false"),
            ("LOCKHOUSE_DATABASE_MAX_SIZE", "64MiB"),
        ])
        .unwrap();
        assert_eq!(
            loaded.config.server.cors_origins,
            ["https://a.example", "https://b.example", "http://c.example:8080"],
            "as browsers write them"
        );
        assert_eq!(loaded.config.sweeper.interval, None);
        assert!(!loaded.config.server.console);
        assert_eq!(loaded.config.database.max_size, Some(64 * 1024 * 1024));
    }

    #[test]
    fn what_is_shown_of_each_setting_reads_back_as_itself() {
        let config = Config::default();
        for setting in settings() {
            let shown = format!("[{}]\n{} = {}\n", setting.section, setting.name, (setting.show)(&config));
            assert_eq!(file(&shown).unwrap().config, config, "{shown}");
        }
    }
}
