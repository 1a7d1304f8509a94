//! Who is calling.

use crate::config::AuthMode;
use crate::error::Error;
use crate::lock::policy::Standing;
use crate::lock::{DisplayName, UserId};
use percent_encoding::percent_decode_str;

/// What a request says about who sent it.
#[derive(Debug, Default, Clone)]
pub struct Credentials<'a> {
    /// `X-User-Id`
    pub user_id: Option<&'a str>,
    /// `X-User-Name`
    pub user_name: Option<&'a str>,
    /// `access_token` in the body of a request that cannot have headers (`navigator.sendBeacon`).
    pub access_token: Option<&'a str>,
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Nobody in particular, where that is enough.
    pub user_id: Option<UserId>,
    /// How they are shown.
    pub name: Option<DisplayName>,
    /// What they may do besides.
    pub standing: Standing,
}

/// The challenge of a 401 (RFC 9110 §11.6.1): which scheme is asked for.
#[must_use]
pub const fn challenge(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::None => "X-User-Id realm=\"lockhouse\"",
    }
}

/// What is missing, as a sentence for whoever called without credentials.
#[must_use]
pub const fn how_to(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::None => "Say who you are in the header X-User-Id.",
    }
}

/// Finds out who is calling.
///
/// # Errors
/// [`Error::Invalid`] names the header whose value cannot be.
pub fn identify(mode: AuthMode, credentials: &Credentials<'_>) -> Result<Caller, Error> {
    match mode {
        AuthMode::None => believe(credentials),
    }
}

/// `auth.mode = "none"`: whoever says so is, and is an administrator. A beacon's token is the user id.
fn believe(credentials: &Credentials<'_>) -> Result<Caller, Error> {
    let user_id = match (credentials.user_id, credentials.access_token) {
        (Some(header), Some(token)) if decode("X-User-Id", header)? != token => {
            return Err(Error::invalid("access_token", "names another user than X-User-Id"));
        }
        (Some(header), _) => Some(parse("X-User-Id", &decode("X-User-Id", header)?, UserId::parse)?),
        (None, Some(token)) => Some(parse("access_token", token, UserId::parse)?),
        (None, None) => None,
    };
    let name = match credentials.user_name {
        Some(header) if !header.is_empty() => {
            Some(parse("X-User-Name", &decode("X-User-Name", header)?, DisplayName::parse)?)
        }
        Some(_) | None => None,
    };
    Ok(Caller { user_id, name, standing: Standing::Administrator })
}

fn parse<T>(field: &str, text: &str, parse: impl Fn(&str) -> Result<T, Error>) -> Result<T, Error> {
    parse(text).map_err(|error| match error {
        Error::Invalid { reason, .. } => Error::invalid(field, reason),
        other @ (Error::Busy
        | Error::StorageFull
        | Error::TooMany(_)
        | Error::Stopping
        | Error::Internal(_)) => other,
    })
}

/// A header value, percent-encoded where it is not ASCII.
fn decode(field: &str, value: &str) -> Result<String, Error> {
    percent_decode_str(value)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::invalid(field, "must be UTF-8, percent-encoded where it is not ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believed(user_id: Option<&str>, user_name: Option<&str>) -> Result<Caller, Error> {
        identify(AuthMode::None, &Credentials { user_id, user_name, access_token: None })
    }

    #[test]
    fn headers_are_percent_encoded_where_they_are_not_ascii() {
        let caller = believed(Some("zo%C3%AB"), Some("Zo%C3%AB Vandenberg")).unwrap();
        assert_eq!(caller.user_id.unwrap().as_str(), "zoë");
        assert_eq!(caller.name.unwrap().as_str(), "Zoë Vandenberg");
    }

    #[test]
    fn a_header_that_cannot_be_a_user_is_refused_by_its_name() {
        for (bad, field) in [("", "X-User-Id"), ("a%00b", "X-User-Id"), ("%ff", "X-User-Id")] {
            match believed(Some(bad), None) {
                Err(Error::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{bad:?} gave {other:?}"),
            }
        }
        assert_eq!(believed(None, None).unwrap().user_id, None);
    }

    #[test]
    fn a_beacon_says_who_it_is_in_its_body() {
        let credentials = Credentials { access_token: Some("alice"), ..Credentials::default() };
        assert_eq!(identify(AuthMode::None, &credentials).unwrap().user_id.unwrap().as_str(), "alice");
    }
}
