//! Verifies the JSON Web Tokens (RFC 7519) of an app that signs its users in, against the settings.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{SaidName, token};
use crate::config::{AuthConfig, JwtAlgorithm};
use crate::domain::UserId;
use crate::error::Error;
use crate::time::WallTime;

/// The length limit of a JWT (bytes). A longer one is refused before it is parsed.
const LONGEST: usize = 8 * 1024;
/// The length floor of an encoded RSA public key (bytes). A key of 2048 bits is longer.
const RSA_BYTES: usize = 260;

/// The end of the year 9999, the last year that RFC 3339 can express.
const LAST: WallTime = WallTime(253_402_300_799_999);

/// The result of a successful verification: the user whom the JWT names.
pub(super) struct Verified {
    pub(super) user_id: UserId,
    /// The user's display name, as the JWT states it.
    pub(super) name: SaidName,
    pub(super) is_admin: bool,
    /// When the JWT expires, without the leeway. `None` for a time after the year 9999.
    pub(super) expires_at: Option<WallTime>,
    /// When the JWT is no longer accepted: its expiry plus the leeway.
    pub(super) until: WallTime,
}

/// Verifies the signature and the claims of a JWT.
pub(super) struct Verifier {
    algorithm: Algorithm,
    keys: Vec<DecodingKey>,
    validation: Validation,
    settings: AuthConfig,
}

impl Verifier {
    pub(super) fn new(settings: &AuthConfig) -> Result<Self, Error> {
        let algorithm = match settings.jwt_algorithm {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
            JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        };
        let mut keys: Vec<_> =
            settings.jwt_secret.iter().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect();
        for file in &settings.jwt_public_key_file {
            keys.push(public_key(file, settings.jwt_algorithm)?);
        }
        // Only this algorithm is accepted: not `none`, and not HMAC with a public key. The library's claim
        // checks are off. The code below checks the times against our own clock, and the other claims more
        // strictly than the library does.
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims::<&str>(&[]);
        Ok(Self { algorithm, keys, validation, settings: settings.clone() })
    }

    /// Verifies a JWT and returns its user.
    ///
    /// # Errors
    /// The reason for the refusal. It is for the operator and must not be sent to the client.
    pub(super) fn verify(&self, token: &str, now: WallTime) -> Result<Verified, String> {
        if token.len() > LONGEST {
            return Err(format!("it has {} bytes, and at most {LONGEST} are looked at", token.len()));
        }
        let header = decode_header(token).map_err(|error| why(&error))?;
        if header.alg != self.algorithm {
            return Err(format!("its alg is {:?}, and auth.jwt_algorithm {:?}", header.alg, self.algorithm));
        }
        if is_critical(token) {
            return Err("its header has crit, and no extension is known here".to_owned());
        }
        let mut wrong = String::new();
        let mut with = |key| {
            let decoded = decode::<Claims>(token, key, &self.validation);
            decoded.map_err(|error| wrong = why(&error)).ok()
        };
        let Some(decoded) = self.keys.iter().find_map(&mut with) else { return Err(wrong) };
        let Claims(claims) = decoded.claims;
        self.is_for_us(&claims)?;
        let (expires_at, until) = self.in_time(&claims, now)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let is_admin = match claims.get(&self.settings.jwt_role_claim) {
            Some(Value::String(role)) => role == "admin",
            Some(Value::Array(roles)) => roles.iter().any(|role| role == "admin"),
            Some(_) | None => false,
        };
        let user = text(&self.settings.jwt_user_claim).ok_or("the claim with the user is no text")?;
        let user_id = UserId::parse(user).map_err(|error| error.to_string())?;
        token::is_no_token(&user_id).map_err(|error| error.to_string())?;
        Ok(Verified {
            user_id,
            name: match claims.get(&self.settings.jwt_name_claim) {
                None | Some(Value::Null) => SaidName::Unsaid,
                Some(Value::String(name)) => SaidName::said(name),
                Some(_) => SaidName::Said(None),
            },
            is_admin,
            expires_at: (expires_at <= LAST).then_some(expires_at),
            until,
        })
    }

    /// Checks that the issuer and the audience match the settings (RFC 7519 §4.1.1 and §4.1.3).
    fn is_for_us(&self, claims: &Map<String, Value>) -> Result<(), &'static str> {
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
            return Err("its aud is neither a text nor a list of texts");
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
    fn in_time(
        &self,
        claims: &Map<String, Value>,
        now: WallTime,
    ) -> Result<(WallTime, WallTime), &'static str> {
        let leeway = self.settings.jwt_leeway.as_secs_f64();
        let seconds = Duration::from_millis(now.0.max(0).unsigned_abs()).as_secs_f64();
        let starts = match claims.get("nbf") {
            Some(nbf) => nbf.as_f64().ok_or("its nbf is no number")?,
            None => f64::MIN,
        };
        if claims.get("iat").is_some_and(|iat| !iat.is_number()) {
            return Err("its iat is no number");
        }
        let ends = claims.get("exp").and_then(Value::as_f64).ok_or("it has no exp that is a number")?;
        if seconds + leeway < starts {
            return Err("it is not good yet (nbf)");
        }
        if seconds - leeway >= ends {
            return Err("it is over (exp)");
        }
        // A time beyond the range of i64 milliseconds becomes i64::MAX, which means no end.
        let at = |seconds| {
            let at = Duration::try_from_secs_f64(seconds).map_or(u128::MAX, |at| at.as_millis());
            WallTime(i64::try_from(at).unwrap_or(i64::MAX))
        };
        Ok((at(ends), at(ends + leeway)))
    }
}

/// The reason why a JWT was refused, as text for the operator.
#[expect(clippy::wildcard_enum_match_arm, reason = "for all others the library has words")]
fn why(error: &jsonwebtoken::errors::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature => "it was not signed with the key that is set".to_owned(),
        ErrorKind::InvalidToken => "it is no JWT".to_owned(),
        _ => error.to_string(),
    }
}

/// The claims of a JWT. A duplicate claim is refused: it is unclear which value the app meant (RFC 7519 §4).
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Claims;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if claims.contains_key(&name) {
                        return Err(A::Error::custom(format!("the claim {name:?} is given twice")));
                    }
                    claims.insert(name, value);
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Whether the header contains `crit`: extensions that a verifier must understand (RFC 7515 §4.1.11).
fn is_critical(token: &str) -> bool {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Map<String, Value>>(&header).is_ok_and(|header| header.contains_key("crit"))
}

fn public_key(file: &std::path::Path, algorithm: JwtAlgorithm) -> Result<DecodingKey, Error> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .map_err(|error| Error::Internal(format!("cannot read auth.jwt_public_key_file {shown}: {error}")))?;
    let wrong =
        |what: &str| Error::Internal(format!("auth.jwt_public_key_file {shown} cannot be used: {what}"));
    if pem.windows(11).any(|part| part == b"PRIVATE KEY") {
        return Err(wrong("it has a private key, which stays with whoever signs; give the public one"));
    }
    let key = match algorithm {
        JwtAlgorithm::Hs256 => return Err(wrong("HS256 has no public key")),
        JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(&pem),
        JwtAlgorithm::Es256 => DecodingKey::from_ec_pem(&pem),
        JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(&pem),
    };
    let key = key.map_err(|_| wrong("it is no public key of this auth.jwt_algorithm, as PEM"))?;
    let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if algorithm == JwtAlgorithm::Rs256 && bytes < RSA_BYTES {
        return Err(wrong("it is too short: RS256 needs at least 2048 bits"));
    }
    Ok(key)
}
