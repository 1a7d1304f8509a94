//! Tokens: `lh_` and 256 random bits. Only the SHA-256 of a token is stored and compared.
//!
//! A slow password hash is not needed: 256 random bits cannot be guessed from a fast hash.

use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::domain::token::{Hash, Scope, Token};
use crate::domain::{DisplayName, UserId};
use crate::error::Error;
use crate::time::WallTime;

/// The prefix of every token. It tells a token from a JWT, and lets scanners find leaked tokens.
const PREFIX: &str = "lh_";
/// The prefix of the user id under which an administrator's token without a user acts. The token id follows.
pub const TOKEN_USER_PREFIX: &str = "token:";
/// The length of the random part of a token (bytes).
const SECRET_BYTES: usize = 32;
/// The length of the random part of a token id (bytes).
const ID_BYTES: usize = 9;

/// Whether `token` has the format of a Lockhouse token.
#[must_use]
pub fn has_prefix(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// Checks that a user id does not have the prefix of tokens.
///
/// So no user can be mistaken for a token, in the history or as the holder of a lock.
///
/// # Errors
/// [`Error::Invalid`] of `user_id`.
pub fn check_not_reserved(user_id: &UserId) -> Result<(), Error> {
    if user_id.as_str().starts_with(TOKEN_USER_PREFIX) {
        return Err(Error::invalid(
            "user_id",
            "must not begin with \"token:\", which is reserved for tokens without a user",
        ));
    }
    Ok(())
}

/// The hash of a token, which is what the store keeps.
#[must_use]
pub fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    for (target, byte) in hash.iter_mut().zip(digest.as_ref()) {
        *target = *byte;
    }
    hash
}

/// Makes a token. Returns the secret, which is shown once, and the record and the hash, which are stored.
///
/// # Errors
/// [`Error::Internal`] when the system gives no random bytes; the errors of [`check_not_reserved`];
/// [`Error::Invalid`] of `agent` if the token does not act as a user.
pub fn mint(
    scope: Scope,
    user_id: Option<UserId>,
    name: Option<DisplayName>,
    is_agent: bool,
    created_at: WallTime,
    expires_at: Option<WallTime>,
) -> Result<(String, Token, Hash), Error> {
    user_id.as_ref().map(check_not_reserved).transpose()?;
    if is_agent && (scope != Scope::User || user_id.is_none()) {
        return Err(Error::invalid("agent", "needs the scope user and the user for whom the agent acts"));
    }
    let secret = format!("{PREFIX}{}", base64url(&random::<SECRET_BYTES>()?));
    let token_id = random_id()?;
    let hash = hash(&secret);
    let token =
        Token { token_id, scope, user_id, name, is_agent, created_at, expires_at, last_used_at: None };
    Ok((secret, token, hash))
}

/// A random id in hexadecimal digits, for a token or a session.
///
/// # Errors
/// [`Error::Internal`] if the system gives no random bytes.
pub fn random_id() -> Result<String, Error> {
    Ok(random::<ID_BYTES>()?.iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}")))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Internal("the system gives no random bytes".to_owned()))?;
    Ok(bytes)
}

/// Base64url without padding (RFC 4648 §5).
fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_256_random_bits_and_only_its_hash_is_kept() {
        let made: Vec<_> =
            (0..2).map(|_| mint(Scope::Admin, None, None, false, WallTime(0), None).unwrap()).collect();
        let (secret, token, kept) = &made[0];
        assert!(has_prefix(secret) && secret.len() == 3 + 43);
        assert_eq!(hash(secret), *kept);
        assert!(!format!("{token:?}").contains(&secret[3..]));
        assert!(secret != &made[1].0 && token.token_id != made[1].1.token_id);
    }

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let expected = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223_u128.to_be_bytes();
        assert_eq!(hash("abc")[..16], expected);
    }
}
