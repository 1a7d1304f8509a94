//! The settings of the section `[auth]`.

use super::settings::Setting;
use super::types::{AuthMode, JwtAlgorithm};
use super::values::{choice, duration_or, show_choice, show_duration, show_list};

const MODE: &[(&str, AuthMode)] = &[
    ("none", AuthMode::None),
    ("token", AuthMode::Token),
    ("jwt", AuthMode::Jwt),
    ("proxy", AuthMode::Proxy),
];
const ALGORITHM: &[(&str, JwtAlgorithm)] = &[
    ("HS256", JwtAlgorithm::Hs256),
    ("RS256", JwtAlgorithm::Rs256),
    ("ES256", JwtAlgorithm::Es256),
    ("EdDSA", JwtAlgorithm::EdDsa),
];

/// As a token names it.
pub(super) fn algorithm_name(algorithm: JwtAlgorithm) -> &'static str {
    ALGORITHM.iter().find(|(_, known)| *known == algorithm).map_or("", |(name, _)| name)
}

const A_CLAIM: &str = "it takes the name of a claim, such as \"sub\"";
const A_HEADER: &str = "it takes the name of a header that has no other meaning, such as \"Remote-User\"";

/// Headers that say something else already, to us or to those between.
const MEANT: &[&str] = &[
    "Accept",
    "Authorization",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Date",
    "Expect",
    "Forwarded",
    "Host",
    "Keep-Alive",
    "Last-Event-ID",
    "Origin",
    "Proxy-Authorization",
    "Referer",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "User-Agent",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Lock-Fence",
    "X-Lock-Workspace",
    "X-Request-Id",
];

fn is_header(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&name.len())
        && name.bytes().all(letters)
        && !name.to_ascii_lowercase().starts_with("x-lockhouse")
        && !MEANT.iter().any(|meant| name.eq_ignore_ascii_case(meant))
}

fn show_text(text: Option<&str>) -> String {
    format!("{:?}", text.unwrap_or_default())
}

pub(super) const AUTH: &[Setting] = &[
    Setting {
        section: "auth",
        name: "mode",
        about: "How callers say who they are. \"none\": the header X-User-Id is believed and everybody is an\n\
                administrator; only for a loopback address or a Unix socket. \"token\": tokens of Lockhouse's own\n\
                (`lockhouse token create`). \"jwt\": JSON Web Tokens of an app that signs its users in. \"proxy\": a\n\
                header of a proxy that does. Tokens work beside \"jwt\" and \"proxy\", too.",
        allowed: "it takes \"none\", \"token\", \"jwt\" or \"proxy\"",
        secret: false,
        read: |config, given| {
            config.auth.mode = choice(given, MODE)?;
            Ok(())
        },
        show: |config| show_choice(&config.auth.mode, MODE),
    },
    Setting {
        section: "auth",
        name: "admins",
        about: "Ids of users who administer the server, of those whom a JWT or a proxy names.",
        allowed: "it takes a list of user ids, such as [\"alice\"]",
        secret: false,
        read: |config, given| {
            let admins = given.list()?;
            if admins.iter().any(|id| crate::domain::UserId::parse(id).is_err()) {
                return Err(());
            }
            config.auth.admins = admins;
            Ok(())
        },
        show: |config| show_list(&config.auth.admins),
    },
    Setting {
        section: "auth",
        name: "jwt_algorithm",
        about: "How the JWTs are signed; others are refused.",
        allowed: "it takes \"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"",
        secret: false,
        read: |config, given| {
            config.auth.jwt.algorithm = choice(given, ALGORITHM)?;
            Ok(())
        },
        show: |config| show_choice(&config.auth.jwt.algorithm, ALGORITHM),
    },
    Setting {
        section: "auth",
        name: "jwt_secret",
        about: "The secret of HS256, at least 32 bytes; several while it is changed, any of which is good. From the\n\
                environment, with commas between them, or from a settings file that only its owner can read.",
        allowed: "it takes up to 8 texts of at least 32 bytes without commas",
        secret: true,
        read: |config, given| {
            let secrets = given.list()?;
            if secrets.len() > 8 || secrets.iter().any(|secret| secret.len() < 32) {
                return Err(());
            }
            config.auth.jwt.secrets = secrets;
            Ok(())
        },
        show: |config| show_list(&config.auth.jwt.secrets),
    },
    Setting {
        section: "auth",
        name: "jwt_public_key_file",
        about: "The file with the public key of RS256 (at least 2048 bits), ES256 or EdDSA, as PEM (\"BEGIN PUBLIC KEY\");\n\
                several while it is changed, any of which is good.",
        allowed: "it takes up to 8 paths of files",
        secret: false,
        read: |config, given| {
            let files = given.list()?;
            if files.len() > 8 || files.iter().any(String::is_empty) {
                return Err(());
            }
            config.auth.jwt.public_key_files = files.into_iter().map(Into::into).collect();
            Ok(())
        },
        show: |config| {
            let files = config.auth.jwt.public_key_files.iter();
            show_list(&files.map(|file| file.to_string_lossy().into_owned()).collect::<Vec<_>>())
        },
    },
    Setting {
        section: "auth",
        name: "jwt_issuer",
        about: "Who must have made the JWT (`iss`); empty for anybody who has the key.",
        allowed: "it takes a text",
        secret: false,
        read: |config, given| {
            config.auth.jwt.issuer = Some(given.text()?).filter(|issuer| !issuer.is_empty());
            Ok(())
        },
        show: |config| show_text(config.auth.jwt.issuer.as_deref()),
    },
    Setting {
        section: "auth",
        name: "jwt_audience",
        about: "For whom the JWT must be made (`aud`). If it is empty, one that names an audience is refused.",
        allowed: "it takes a text",
        secret: false,
        read: |config, given| {
            config.auth.jwt.audience = Some(given.text()?).filter(|audience| !audience.is_empty());
            Ok(())
        },
        show: |config| show_text(config.auth.jwt.audience.as_deref()),
    },
    Setting {
        section: "auth",
        name: "jwt_user_claim",
        about: "The claim with the user's id.",
        allowed: A_CLAIM,
        secret: false,
        read: |config, given| {
            config.auth.jwt.user_claim = Some(given.text()?).filter(|claim| !claim.is_empty()).ok_or(())?;
            Ok(())
        },
        show: |config| show_text(Some(&config.auth.jwt.user_claim)),
    },
    Setting {
        section: "auth",
        name: "jwt_name_claim",
        about: "The claim with how the user is shown.",
        allowed: A_CLAIM,
        secret: false,
        read: |config, given| {
            config.auth.jwt.name_claim = Some(given.text()?).filter(|claim| !claim.is_empty()).ok_or(())?;
            Ok(())
        },
        show: |config| show_text(Some(&config.auth.jwt.name_claim)),
    },
    Setting {
        section: "auth",
        name: "jwt_role_claim",
        about: "The claim that is \"admin\", or a list with \"admin\" in it, for those who administer the server.",
        allowed: A_CLAIM,
        secret: false,
        read: |config, given| {
            config.auth.jwt.role_claim = Some(given.text()?).filter(|claim| !claim.is_empty()).ok_or(())?;
            Ok(())
        },
        show: |config| show_text(Some(&config.auth.jwt.role_claim)),
    },
    Setting {
        section: "auth",
        name: "jwt_leeway",
        about: "How far the clock of whoever made a JWT may be from ours, when it is compared with `exp` and `nbf`.",
        allowed: "it takes a duration of up to ten minutes, or \"0s\"",
        secret: false,
        read: |config, given| {
            let leeway = duration_or("0s", given)?.unwrap_or_default();
            if leeway.as_secs() > 600 {
                return Err(());
            }
            config.auth.jwt.leeway = leeway;
            Ok(())
        },
        show: |config| show_duration(config.auth.jwt.leeway),
    },
    Setting {
        section: "auth",
        name: "proxy_addresses",
        about: "Addresses and networks of the proxies that are believed when they say who the user is, and \"unix\" for\n\
                whoever connects to the Unix socket. From elsewhere their headers are ignored.",
        allowed: "it takes a list such as [\"127.0.0.1\", \"10.0.0.0/8\", \"unix\"]",
        secret: false,
        read: |config, given| {
            let entries = given.list()?;
            config.auth.proxy.addresses =
                entries.iter().map(|entry| entry.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            show_list(&config.auth.proxy.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
        },
    },
    Setting {
        section: "auth",
        name: "proxy_user_header",
        about: "The header with the user's id, as it is, in UTF-8.",
        allowed: A_HEADER,
        secret: false,
        read: |config, given| {
            config.auth.proxy.user_header = Some(given.text()?).filter(|name| is_header(name)).ok_or(())?;
            Ok(())
        },
        show: |config| show_text(Some(&config.auth.proxy.user_header)),
    },
    Setting {
        section: "auth",
        name: "proxy_name_header",
        about: "The header with how the user is shown, as it is, in UTF-8.",
        allowed: A_HEADER,
        secret: false,
        read: |config, given| {
            config.auth.proxy.name_header = Some(given.text()?).filter(|name| is_header(name)).ok_or(())?;
            Ok(())
        },
        show: |config| show_text(Some(&config.auth.proxy.name_header)),
    },
];
