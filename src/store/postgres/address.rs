//! The address in `database.url`: the settings of each connection, and TLS.
//!
//! TLS always checks the certificate and the name in it. A server that does not prove who it is could answer
//! with locks of its own, and read the password.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;
use crate::tls;

/// A transaction of a server that hangs ends after this time, so that the others go on.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// How to connect.
pub(super) struct ServerAddress {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// The parameters of an address that are read here, because the driver does not know their values.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParameters {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl ServerAddress {
    /// Reads an address. A statement may take as long as `deadline`.
    pub(super) fn parse(url: &str, deadline: Duration) -> Result<Self, Error> {
        let invalid = |why: String| Error::Internal(format!("database.url cannot be used: {why}"));
        let (url, parameters) = split(url).map_err(invalid)?;
        // The error has the name of a parameter, never the password.
        let mut config = Config::from_str(&url).map_err(|error| invalid(causes(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(invalid("it has no host".to_owned()));
        }
        let mode = mode(parameters.sslmode.as_deref(), config.get_hosts()).map_err(invalid)?;
        let roots = if mode == SslMode::Disable {
            RootCertStore::empty()
        } else {
            roots(parameters.sslrootcert.as_deref()).map_err(invalid)?
        };
        let milliseconds = deadline.as_millis();
        let idle = deadline.min(IDLE_IN_TRANSACTION).as_millis();
        config
            .ssl_mode(mode)
            .application_name("lockhouse")
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(deadline)
            .keepalives_idle(Duration::from_secs(10))
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .options(format!(
                "-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={idle} -c timezone=UTC -c search_path=public"
            ));
        Ok(Self { config, tls: connector(roots)? })
    }

    /// The sentence about a database that cannot be reached. It has no password.
    pub(super) fn cannot_connect(&self, why: &str) -> Error {
        let hosts: Vec<_> = self.config.get_hosts().iter().map(shown).collect();
        let remedy = remedy(why).map_or_else(String::new, |remedy| format!(": {remedy}"));
        Error::Internal(format!("cannot connect to PostgreSQL at {}: {why}{remedy}", hosts.join(", ")))
    }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// What to do about some failures.
fn remedy(text: &str) -> Option<&'static str> {
    let remedies = [
        (
            "server does not support TLS",
            "set ssl = on there, or add sslmode=disable to database.url if nobody else can use this network",
        ),
        (
            "UnknownIssuer",
            "nobody whom this machine trusts has signed the certificate; name the file of your certification authority with sslrootcert=FILE in database.url",
        ),
        (
            "CaUsedAsEndEntity",
            "the server has the certificate of a certification authority; sign one for the server with it",
        ),
        ("not valid for name", "use the name in the certificate as the host of database.url"),
        ("database does not allow writes", READ_ONLY),
        ("unsupported startup parameter", POOLER),
    ];
    remedies.into_iter().find(|(symptom, _)| text.contains(symptom)).map(|(_, remedy)| remedy)
}

/// What to do about a standby.
pub(super) const READ_ONLY: &str = "the database is read-only, or a standby: give the address of the primary";

/// What to do about PgBouncer and its like.
pub(super) const POOLER: &str = "a pooler such as PgBouncer stands before PostgreSQL and does not pass on the settings of a connection; \
     give the address of PostgreSQL itself";

/// An error with its causes.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}

/// Takes the parameters of TLS out of an address.
fn split(url: &str) -> Result<(String, TlsParameters), String> {
    // The driver ends the password at the first @. A second one is a part of the password that would be taken
    // for the host, and be shown.
    let at = url.find('@').map_or(0, |at| at + 1);
    let (credentials, rest) = url.split_at(at);
    if rest.contains('@') {
        return Err("an @ in the user or the password is written as %40".to_owned());
    }
    let Some((rest, query)) = rest.split_once('?') else {
        return Ok((url.to_owned(), TlsParameters::default()));
    };
    let mut parameters = TlsParameters::default();
    let mut others = Vec::new();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let target = match name {
            "sslmode" => &mut parameters.sslmode,
            "sslrootcert" => &mut parameters.sslrootcert,
            _ => {
                others.push(parameter);
                continue;
            }
        };
        let value = percent_encoding::percent_decode_str(value).decode_utf8();
        *target = Some(value.map_err(|_| format!("{name} is not UTF-8"))?.into_owned());
    }
    let mark = if others.is_empty() { "" } else { "?" };
    Ok((format!("{credentials}{rest}{mark}{}", others.join("&")), parameters))
}

/// Whether TLS is used. Without `sslmode` it is, unless the connection stays on this machine.
fn mode(sslmode: Option<&str>, hosts: &[Host]) -> Result<SslMode, String> {
    match sslmode {
        Some("disable") => Ok(SslMode::Disable),
        Some("prefer") => Ok(SslMode::Prefer),
        None if hosts.iter().all(is_here) => Ok(SslMode::Disable),
        Some("require" | "verify-full") | None => Ok(SslMode::Require),
        Some(other) => Err(format!("sslmode is disable, prefer, require or verify-full, not {other}")),
    }
}

/// Whether a host is this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    }
}

/// The certificates that are trusted: those of a file, else those of this machine.
fn roots(file: Option<&str>) -> Result<RootCertStore, String> {
    if let Some(file) = file.filter(|file| *file != "system") {
        let mut roots = RootCertStore::empty();
        let cannot = |why: &dyn std::fmt::Display| format!("sslrootcert {file}: {why}");
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| cannot(&error))? {
            let certificate = certificate.map_err(|error| cannot(&error))?;
            roots.add(certificate).map_err(|error| cannot(&error))?;
        }
        return if roots.is_empty() { Err(cannot(&"it has no certificate in PEM")) } else { Ok(roots) };
    }
    tls::machine_roots()
        .map_err(|why| format!("the certificate of PostgreSQL {why}, or add sslrootcert=FILE"))
}

fn connector(roots: RootCertStore) -> Result<MakeRustlsConnect, Error> {
    let config = tls::client_config(roots).map_err(Error::Internal)?;
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(url: &str) -> Result<SslMode, String> {
        let (url, parameters) = split(url)?;
        mode(parameters.sslmode.as_deref(), Config::from_str(&url).unwrap().get_hosts())
    }

    #[test]
    fn tls_is_used_unless_the_connection_stays_on_this_machine_or_the_address_says_otherwise() {
        for (url, expected) in [
            ("postgres://u:p@db.example/x", SslMode::Require),
            ("postgres://u:p@10.0.0.1,127.0.0.1/x", SslMode::Require),
            ("postgres://u:p@127.0.0.1:5433/x", SslMode::Disable),
            ("postgres://u:p@[::1],localhost/x", SslMode::Disable),
            ("postgres://u:p@%2Frun%2Fpostgresql/x", SslMode::Disable),
            ("postgres://u:p@localhost/x?sslmode=verify-full", SslMode::Require),
            ("postgres://u:p@db.example/x?sslmode=disable", SslMode::Disable),
            ("postgres://u:p@db.example/x?connect_timeout=3&sslmode=prefer", SslMode::Prefer),
        ] {
            assert_eq!(mode_of(url), Ok(expected), "{url}");
        }
        let refused = mode_of("postgres://u:p@db.example/x?sslmode=allow").unwrap_err();
        assert!(refused.contains("verify-full, not allow"), "{refused}");
    }

    #[test]
    fn the_driver_gets_an_address_without_the_parameters_of_tls() {
        let url = "postgres://u:p?s@h/d?sslmode=require&keepalives=0&sslrootcert=%2Fa%20b.pem";
        let (url, parameters) = split(url).unwrap();
        assert_eq!(url, "postgres://u:p?s@h/d?keepalives=0");
        assert_eq!(parameters.sslrootcert.as_deref(), Some("/a b.pem"));
        assert_eq!(split("postgres://h/d?sslmode=disable").unwrap().0, "postgres://h/d");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_without_the_password() {
        for (url, says) in [
            ("postgres://u:sesame@sesame@h/d", "%40"),
            ("postgres://u:sesame@h/d?sslcert=x", "unknown option `sslcert`"),
            ("postgres://u:sesame@h:port/d", "invalid value for option `port`"),
            ("postgres://u:sesame@h/d?channel_binding=sesame", "channel_binding"),
            ("postgres://u:sesame@/d", "no host"),
            ("postgres://u:sesame@h/d?sslrootcert=/none.pem", "/none.pem"),
            ("postgres://u:sesame@h/d?sslrootcert=/dev/null", "no certificate"),
        ] {
            let Err(error) = ServerAddress::parse(url, Duration::from_secs(1)) else { panic!("{says}") };
            let error = error.to_string();
            assert!(error.contains(says) && !error.contains("sesame"), "{error}");
        }
    }
}
