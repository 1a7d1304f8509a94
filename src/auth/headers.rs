//! Reads the credentials and ids in the headers of a request.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::{DisplayName, UserId};
use crate::error::Error;
use crate::percent;

/// The credentials of a request.
#[derive(Debug, Default, Clone)]
pub struct Credentials<'a> {
    /// `X-User-Id`
    pub user_id: Option<&'a str>,
    /// `X-User-Name`
    pub user_name: Option<&'a str>,
    /// `Authorization`
    pub authorization: Option<&'a str>,
    /// `access_token` in the body of a request that cannot have headers (`navigator.sendBeacon`).
    pub access_token: Option<&'a str>,
    /// HTTP Basic credentials, on paths whose clients cannot send others. Then `authorization` is `None`.
    pub basic: Option<&'a Basic>,
    /// The user id and the display name from the headers of a trusted proxy.
    pub asserted: Option<(&'a str, Option<&'a str>)>,
}

/// HTTP Basic credentials (RFC 7617), in UTF-8. No `Debug` of the password: it is a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user name: the user for whom a token of a service or an administrator acts. May be empty.
    pub user: String,
    /// The password: a token or a JWT.
    pub password: String,
}

impl Basic {
    /// Reads an `Authorization` header. `None` for another scheme and for invalid credentials.
    #[must_use]
    pub fn parse(authorization: &str) -> Option<Self> {
        let (scheme, encoded) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Basic").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The user and the display name in the request's headers.
pub(super) struct StatedUser {
    pub(super) user_id: Option<UserId>,
    pub(super) name: Option<DisplayName>,
}

pub(super) fn stated_user(credentials: &Credentials<'_>) -> Result<StatedUser, Error> {
    let user_id = match (credentials.basic, credentials.user_id) {
        (Some(basic), _) if !basic.user.is_empty() => {
            Some(UserId::parse_as("The user name of HTTP Basic authentication", &basic.user)?)
        }
        (_, Some(header)) => Some(UserId::parse_as("X-User-Id", &id_in_header("X-User-Id", header)?)?),
        (_, None) => None,
    };
    let name = credentials
        .user_name
        .map(|header| DisplayName::parse_as("X-User-Name", &decode("X-User-Name", header)?))
        .transpose()?
        .flatten();
    Ok(StatedUser { user_id, name })
}

/// Decodes a header value. Characters outside ASCII are percent-encoded in it.
pub(super) fn decode(field: &str, value: &str) -> Result<String, Error> {
    percent::decode(value).ok_or_else(|| Error::invalid(field, percent::RULE))
}

/// Decodes the id in a header value. A bare comma is refused.
///
/// A proxy that joins two headers puts a comma between the values (RFC 9110 §5.3). The result is not one id.
///
/// # Errors
/// [`Error::Invalid`] of `field`, for a comma or an invalid percent-encoding.
pub fn id_in_header(field: &str, value: &str) -> Result<String, Error> {
    if value.contains(',') {
        return Err(Error::invalid(
            field,
            "must have one value without a comma, because a comma joins repeated headers (send a comma in an id as %2C)",
        ));
    }
    decode(field, value)
}

/// Refuses an escape that stands for a visible ASCII character other than `%`.
///
/// A proxy sends such a character as it is. So the escape is part of a user id that is registered as
/// `%61lice`, for example. Decoded, that id would be taken for `alice`.
pub(super) fn only_needed_escapes(header: &str, value: &str) -> Result<(), Error> {
    let is_needed = |escape: &str| {
        let byte = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_none_or(|byte| byte == b'%' || !byte.is_ascii_graphic())
    };
    if value.split('%').skip(1).all(is_needed) {
        return Ok(());
    }
    Err(Error::invalid(header, "must not percent-encode a visible ASCII character other than %"))
}
