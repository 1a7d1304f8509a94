//! Verifies the JSON Web Tokens (RFC 7519) of an app that signs its users in, against the settings.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer, alg_id};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::caller::StatedName;
use super::token;
use crate::config::{AuthConfig, JwtAlgorithm, Secret};
use crate::domain::UserId;
use crate::error::Error;
use crate::time::WallTime;

/// The length limit of a JWT (bytes). A longer one is refused before it is parsed.
const MAX_JWT_BYTES: usize = 8 * 1024;
/// The minimum length of an encoded RSA public key (bytes). A key of 2048 bits is longer.
const MIN_RSA_KEY_BYTES: usize = 260;

/// The end of the year 9999, the last year that RFC 3339 can express.
const END_OF_YEAR_9999: WallTime = WallTime(253_402_300_799_999);

/// The result of a successful verification: the user whom the JWT names.
pub(super) struct Verified {
    pub(super) user_id: UserId,
    /// The user's display name, as the JWT states it.
    pub(super) name: StatedName,
    pub(super) is_admin: bool,
    /// When the JWT expires, without the leeway. `None` for a time after the year 9999.
    pub(super) expires_at: Option<WallTime>,
    /// When the JWT is no longer accepted: its expiry plus the leeway.
    pub(super) until: WallTime,
}

/// Verifies the signature and the claims of a JWT.
pub(super) struct Verifier {
    keys: Vec<Key>,
    settings: AuthConfig,
}

/// A key of the configured algorithm.
enum Key {
    Secret(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Key {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify(message, signature).is_ok(),
        }
    }
}

impl Verifier {
    pub(super) fn new(settings: &AuthConfig) -> Result<Self, Error> {
        let secret = |secret: &Secret| Key::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let public = |id, algorithm: &'static dyn VerificationAlgorithm| {
            let key = |file: &PathBuf| {
                public_key(file, id).map(|key| Key::Public(UnparsedPublicKey::new(algorithm, key)))
            };
            settings.jwt_public_key_file.iter().map(key).collect::<Result<Vec<_>, _>>()
        };
        let keys = match settings.jwt_algorithm {
            JwtAlgorithm::Hs256 => settings.jwt_secret.iter().map(secret).collect(),
            JwtAlgorithm::Rs256 => public(alg_id::RSA_ENCRYPTION, &signature::RSA_PKCS1_2048_8192_SHA256)?,
            JwtAlgorithm::Es256 => public(alg_id::ECDSA_P256, &signature::ECDSA_P256_SHA256_FIXED)?,
            JwtAlgorithm::EdDsa => public(alg_id::ED25519, &signature::ED25519)?,
        };
        Ok(Self { keys, settings: settings.clone() })
    }

    /// Verifies a JWT and returns its user.
    ///
    /// # Errors
    /// The reason for the refusal. It is for the operator and must not be sent to the client.
    pub(super) fn verify(&self, token: &str, now: WallTime) -> Result<Verified, String> {
        if token.len() > MAX_JWT_BYTES {
            return Err(format!("it has {} bytes; the limit is {MAX_JWT_BYTES}", token.len()));
        }
        let claims = self.signed_claims(token)?;
        self.check_issuer_and_audience(&claims)?;
        let (expires_at, until) = self.check_times(&claims, now)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let is_admin = match claims.get(&self.settings.jwt_role_claim) {
            Some(Value::String(role)) => role == "admin",
            Some(Value::Array(roles)) => roles.iter().any(|role| role == "admin"),
            Some(_) | None => false,
        };
        let user = text(&self.settings.jwt_user_claim).ok_or("the claim with the user id is not a string")?;
        let user_id = UserId::parse(user).map_err(|error| error.to_string())?;
        token::check_not_reserved(&user_id).map_err(|error| error.to_string())?;
        Ok(Verified {
            user_id,
            name: match claims.get(&self.settings.jwt_name_claim) {
                None | Some(Value::Null) => StatedName::Absent,
                Some(Value::String(name)) => StatedName::parse(name),
                Some(_) => StatedName::Given(None),
            },
            is_admin,
            expires_at: (expires_at <= END_OF_YEAR_9999).then_some(expires_at),
            until,
        })
    }

    /// The claims of a JWT that was signed with one of the keys (RFC 7515 §5.2).
    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, String> {
        let malformed = || "it is not a JWT".to_owned();
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let members = |part| {
            let members = serde_json::from_slice(&decode(part)?);
            members.map(|Members(members)| members).map_err(|error| error.to_string())
        };
        let header = members(header)?;
        let expected = self.settings.jwt_algorithm.as_str();
        // Only this algorithm is accepted: not `none`, and not HMAC with a public key.
        if header.get("alg").and_then(Value::as_str) != Some(expected) {
            return Err(format!("its alg is not {expected}, the auth.jwt_algorithm"));
        }
        // Extensions that a verifier must understand (RFC 7515 §4.1.11).
        if header.contains_key("crit") {
            return Err("its header has crit, but no extension is supported".to_owned());
        }
        let signature = decode(signature)?;
        if !self.keys.iter().any(|key| key.has_signed(message.as_bytes(), &signature)) {
            return Err("it was not signed with a configured key".to_owned());
        }
        members(claims)
    }

    /// Checks that the issuer and the audience match the settings (RFC 7519 §4.1.1 and §4.1.3).
    fn check_issuer_and_audience(&self, claims: &Map<String, Value>) -> Result<(), &'static str> {
        if let Some(issuer) = &self.settings.jwt_issuer {
            let iss = claims.get("iss").ok_or("it has no iss")?;
            // Only a string is an issuer. A list of issuers is refused.
            if iss.as_str() != Some(issuer) {
                return Err("its iss is not auth.jwt_issuer");
            }
        }
        let aud = match claims.get("aud") {
            None | Some(Value::Null) => &[],
            Some(Value::Array(several)) => several.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        if !aud.iter().all(Value::is_string) {
            return Err("its aud is neither a string nor a list of strings");
        }
        match &self.settings.jwt_audience {
            Some(_) if aud.is_empty() => Err("it has no aud"),
            Some(audience) if aud.iter().any(|aud| aud == audience.as_str()) => Ok(()),
            // Without auth.jwt_audience, a JWT that names an audience is meant for another service.
            None if aud.is_empty() => Ok(()),
            Some(_) | None => Err("its aud is not auth.jwt_audience"),
        }
    }

    /// Checks the time claims. Returns the expiry, and the expiry plus the leeway.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now: WallTime,
    ) -> Result<(WallTime, WallTime), &'static str> {
        let leeway = self.settings.jwt_leeway.as_secs_f64();
        let seconds = Duration::from_millis(now.0.max(0).unsigned_abs()).as_secs_f64();
        let starts = match claims.get("nbf") {
            Some(nbf) => nbf.as_f64().ok_or("its nbf is not a number")?,
            None => f64::MIN,
        };
        if claims.get("iat").is_some_and(|iat| !iat.is_number()) {
            return Err("its iat is not a number");
        }
        let ends = claims.get("exp").and_then(Value::as_f64).ok_or("it has no exp that is a number")?;
        if seconds + leeway < starts {
            return Err("it is not valid yet (nbf)");
        }
        if seconds - leeway >= ends {
            return Err("it has expired (exp)");
        }
        // A time beyond the range of i64 milliseconds becomes i64::MAX, which means no end.
        let at = |seconds| {
            let at = Duration::try_from_secs_f64(seconds).map_or(u128::MAX, |at| at.as_millis());
            WallTime(i64::try_from(at).unwrap_or(i64::MAX))
        };
        Ok((at(ends), at(ends + leeway)))
    }
}

/// The header or the claims of a JWT. A duplicate name is refused: it is unclear which value the app meant
/// (RFC 7515 §4, RFC 7519 §4).
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = object.next_entry::<String, Value>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name:?} is given twice")));
                    }
                    members.insert(name, value);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The public key in a file, which must be of the algorithm `id`.
fn public_key(file: &Path, id: AlgorithmIdentifier) -> Result<Vec<u8>, Error> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .map_err(|error| Error::Internal(format!("cannot read auth.jwt_public_key_file {shown}: {error}")))?;
    let wrong =
        |what: &str| Error::Internal(format!("auth.jwt_public_key_file {shown} cannot be used: {what}"));
    if pem.windows(11).any(|part| part == b"PRIVATE KEY") {
        return Err(wrong("it has a private key, which only the issuer may have: give the public key"));
    }
    let info = SubjectPublicKeyInfoDer::from_pem_slice(&pem).ok();
    let key = info.as_deref().and_then(|info| key_in(info, &id));
    let key = key.ok_or_else(|| wrong("it has no public key of this auth.jwt_algorithm in PEM format"))?;
    if id == alg_id::RSA_ENCRYPTION && key.len() < MIN_RSA_KEY_BYTES {
        return Err(wrong("it is too short: RS256 needs at least 2048 bits"));
    }
    Ok(key.to_vec())
}

/// The key in a `SubjectPublicKeyInfo` (RFC 5280 §4.1) of the algorithm `id`: a SEQUENCE of `id`, which is a
/// SEQUENCE, and a BIT STRING. In DER the length of each is one byte, or 0x81 and one byte, or 0x82 and two.
fn key_in<'a>(info: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    let ([0x30, 0x82, _, _, 0x30, _, info @ ..]
    | [0x30, 0x81, _, 0x30, _, info @ ..]
    | [0x30, _, 0x30, _, info @ ..]) = info
    else {
        return None;
    };
    match info.strip_prefix(id)? {
        [0x03, 0x82, _, _, 0, key @ ..] | [0x03, 0x81, _, 0, key @ ..] | [0x03, _, 0, key @ ..] => Some(key),
        _ => None,
    }
}
