//! The rules between settings.

use super::kinds::show_ttl;
use super::settings::Config;
use super::types::{AuthMode, JwtAlgorithm, Listen, TrustedProxy};

/// Checks the rules between settings. The error is a sentence for the operator.
pub(super) fn check(config: &Config) -> Result<(), String> {
    let (locks, server) = (&config.locks, &config.server);
    let kinds = config.kinds();
    for (section, kind) in [
        ("locks", kinds.edit),
        ("kinds.agent", kinds.agent),
        ("kinds.run", kinds.run),
        ("kinds.terraform", kinds.terraform),
        ("kinds.lfs", kinds.lfs),
    ] {
        if locks.min_ttl > kind.default_ttl || kind.default_ttl > kind.max_ttl {
            let [min, default, max] = [locks.min_ttl, kind.default_ttl, kind.max_ttl].map(show_ttl);
            return Err(format!(
                "locks.min_ttl (\"{min}\"), {section}.default_ttl (\"{default}\") and {section}.max_ttl (\"{max}\") must be in ascending order: change one of them",
            ));
        }
    }
    if let (Some(after), Some(latest)) = (locks.knock_grant_after, locks.knock_grant_at_latest)
        && latest < after
    {
        let [after, latest] = [after, latest].map(show_ttl);
        return Err(format!(
            "locks.knock_grant_at_latest (\"{latest}\") must be at least locks.knock_grant_after (\"{after}\"): change one of them",
        ));
    }
    if server.max_buffered < 4 * (server.max_body + server.max_head) {
        let problem = "server.max_buffered must be at least four times as large as server.max_body and server.max_head together";
        return Err(problem.to_owned());
    }
    check_auth(config)
}

/// Refuses settings with which the server would trust unauthenticated callers.
fn check_auth(config: &Config) -> Result<(), String> {
    let auth = &config.auth;
    let algorithm = auth.jwt_algorithm.as_str();
    let is_symmetric = auth.jwt_algorithm == JwtAlgorithm::Hs256;
    let problem = match auth.mode {
        AuthMode::None => match config.server.listen {
            Listen::Tcp(address) if !address.ip().is_loopback() => &format!(
                "server.listen = \"{address}\" cannot be used: auth.mode = \"none\" trusts every client, so it needs a loopback address or a Unix socket: use 127.0.0.1, [::1] or unix:PATH, or another auth.mode"
            ),
            Listen::Tcp(_) | Listen::Unix(_) => return Ok(()),
        },
        AuthMode::Jwt if is_symmetric && auth.jwt_secret.is_empty() => {
            "auth.mode = \"jwt\" with HS256 needs auth.jwt_secret, of at least 32 bytes: set LOCKHOUSE_AUTH_JWT_SECRET"
        }
        AuthMode::Jwt if is_symmetric && !auth.jwt_public_key_file.is_empty() => {
            "auth.jwt_public_key_file is for RS256, ES256 and EdDSA only: a public key must never be used as a secret"
        }
        AuthMode::Jwt if !is_symmetric && auth.jwt_public_key_file.is_empty() => &format!(
            "auth.mode = \"jwt\" with {algorithm} needs auth.jwt_public_key_file, the key that verifies JWTs"
        ),
        AuthMode::Jwt if !is_symmetric && !auth.jwt_secret.is_empty() => "auth.jwt_secret is for HS256 only",
        AuthMode::Proxy if auth.proxy_addresses.is_empty() => {
            "auth.mode = \"proxy\" needs auth.proxy_addresses: without them every client could choose its user id"
        }
        AuthMode::Proxy if TrustedProxy::cover_all(&auth.proxy_addresses) => {
            "auth.proxy_addresses must not cover all addresses: every client could choose its user id"
        }
        AuthMode::Proxy if auth.proxy_user_header.eq_ignore_ascii_case(&auth.proxy_name_header) => {
            "auth.proxy_user_header and auth.proxy_name_header must be two headers"
        }
        AuthMode::Token | AuthMode::Jwt | AuthMode::Proxy => return Ok(()),
    };
    Err(problem.to_owned())
}
