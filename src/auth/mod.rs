//! Authentication: identifies the caller of a request.
//!
//! All bad credentials get the same response, so that the response reveals nothing about them. Bad
//! credentials are a token that is unknown, revoked, expired or malformed, and a JWT that fails any check.

mod jwt;
pub mod token;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use crate::app::{CacheLookup, Service};
use crate::config::{self, AuthMode};
use crate::domain::rights::Actor;
use crate::domain::token::Hash;
pub use crate::domain::token::{Scope, Validity};
use crate::domain::{DisplayName, UserId};
use crate::error::Error;
use crate::percent;
use crate::time::WallTime;

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
    /// The user id and the display name from the headers of a trusted proxy.
    pub asserted: Option<(&'a str, Option<&'a str>)>,
}

/// The authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user who acts. `None` if the credentials name no user and the operation needs none.
    pub user_id: Option<UserId>,
    /// The display name.
    pub name: Option<DisplayName>,
    /// Whether the credentials fix the display name, so that the request cannot give another.
    pub is_named: bool,
    /// The scope of the credentials.
    pub scope: Scope,
    /// How long the credentials are valid.
    pub validity: Validity,
    /// When the credentials expire, as they state it themselves.
    pub expires_at: Option<WallTime>,
}

impl Caller {
    /// The scope of the caller's token. `None` without a token.
    #[must_use]
    pub const fn token_scope(&self) -> Option<Scope> {
        match self.validity {
            Validity::WhileTokenValid(_) => Some(self.scope),
            Validity::Unlimited | Validity::Until(_) => None,
        }
    }

    /// The key that identifies the caller: the user for whom they act or, without a user, the token.
    ///
    /// `None` if there is neither.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match (&self.user_id, &self.validity) {
            (Some(user_id), _) => Some(format!("user {}", user_id.as_str())),
            (None, Validity::WhileTokenValid(hash)) => {
                Some(hash.iter().fold("token ".to_owned(), |key, byte| format!("{key}{byte:02x}")))
            }
            (None, Validity::Unlimited | Validity::Until(_)) => None,
        }
    }

    /// The caller as the actor in the access rules of workspaces.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { user_id: self.user_id.clone(), scope: self.scope }
    }
}

/// How much work identification may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Uses only what is in memory: no read from the store and no signature check.
    Recall,
    /// Reads from the store and checks signatures where needed.
    LookUp,
}

/// Why a caller could not be authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There are no credentials, or they are not valid.
    Unauthenticated,
    /// The token does not permit acting for the user that the request names.
    NotForThem,
    /// The credentials must be looked up first.
    NotRecalled(Earlier),
    /// A header is invalid, or the lookup failed.
    Failed(Error),
}

/// What is in memory about credentials that must be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// The credentials were valid a while ago.
    Good,
    /// The credentials are unknown.
    Nothing,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The settings and keys that identify callers. Tokens are in the store.
pub struct Means {
    mode: AuthMode,
    admins: HashSet<UserId>,
    jwt: Option<jwt::Verifier>,
    /// The name of the proxy's header with the user id.
    user_header: String,
}

impl Means {
    /// Loads the keys that the settings name.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator, when a key cannot be used.
    pub fn new(settings: &config::AuthConfig) -> Result<Self, Error> {
        let admins = settings.admins.iter().map(|id| UserId::parse(id)).collect::<Result<_, _>>()?;
        let jwt = match settings.mode {
            AuthMode::Jwt => Some(jwt::Verifier::new(settings)?),
            AuthMode::None | AuthMode::Token | AuthMode::Proxy => None,
        };
        Ok(Self { mode: settings.mode, admins, jwt, user_header: settings.proxy_user_header.clone() })
    }
}

/// Identifies callers.
pub struct Auth {
    means: Means,
    service: Arc<Service>,
    /// A cache of verified JWTs. When it is full, the least recently used entry is dropped.
    verified: Mutex<LruCache<Hash, CachedJwt>>,
}

/// A verified JWT in the cache.
struct CachedJwt {
    caller: Caller,
    /// When the JWT was verified. It is accepted from then until `until`.
    from: WallTime,
    until: WallTime,
}

/// The size limit of the cache of verified JWTs (entries).
const VERIFIED: usize = 10_000;

impl Auth {
    /// Uses `means` and the tokens of `service`.
    #[must_use]
    pub fn new(means: Means, service: &Arc<Service>) -> Self {
        Self { means, service: Arc::clone(service), verified: Mutex::new(LruCache::new(VERIFIED)) }
    }

    /// The authentication mode in force.
    #[must_use]
    pub const fn mode(&self) -> AuthMode {
        self.means.mode
    }

    /// Identifies the caller, with at most the work that `effort` permits.
    ///
    /// # Errors
    /// The reason why the caller is refused; [`Refusal::NotRecalled`] if identification needs more work.
    pub fn identify(&self, credentials: &Credentials<'_>, effort: Effort) -> Result<Caller, Refusal> {
        if self.means.mode == AuthMode::None {
            return Ok(believe(credentials)?);
        }
        // An empty user header means that the proxy has signed no user in.
        let asserted = credentials.asserted.filter(|(user_id, _)| !user_id.is_empty());
        let bearer = match (self.means.mode, bearer(credentials)) {
            // The browser's Authorization header is meant for the proxy, unless it has one of our tokens.
            (AuthMode::Proxy, bearer) if asserted.is_some() => {
                bearer.unwrap_or_default().filter(|token| token::is_ours(token))
            }
            (_, bearer) => bearer?,
        };
        match (bearer, asserted) {
            (Some(token), _) if token::is_ours(token) => self.by_token(token, credentials, effort),
            (Some(token), _) => self.by_jwt(token, effort),
            (None, Some((user_id, name))) if self.means.mode == AuthMode::Proxy => {
                let header = &self.means.user_header;
                let decoded = id_in_header(header, user_id)?;
                only_needed_escapes(header, user_id)?;
                let user_id = UserId::parse_as(header, &decoded)?;
                token::is_no_token(&user_id).map_err(|error| renamed(header, error))?;
                let name = match name {
                    None => SaidName::Unsaid,
                    Some(name) => decode("", name).map_or(SaidName::Said(None), |name| SaidName::said(&name)),
                };
                Ok(self.vouched_for(user_id, name, false, Validity::Unlimited))
            }
            (None, _) => Err(Refusal::Unauthenticated),
        }
    }

    fn by_jwt(&self, token: &str, effort: Effort) -> Result<Caller, Refusal> {
        let jwt = self.means.jwt.as_ref().ok_or(Refusal::Unauthenticated)?;
        let (hash, now) = (token::hash(token), self.service.wall());
        let recalled = self.verified().get(&hash).map(|verified| {
            let is_good = verified.from <= now && now < verified.until;
            is_good.then(|| verified.caller.clone())
        });
        match (recalled, effort) {
            (Some(Some(caller)), _) => return Ok(caller),
            (Some(None), Effort::Recall) => return Err(Refusal::NotRecalled(Earlier::Good)),
            (None, Effort::Recall) => return Err(Refusal::NotRecalled(Earlier::Nothing)),
            (Some(None) | None, Effort::LookUp) => {}
        }
        let verified = jwt.verify(token, now).map_err(|wrong| {
            log::debug!("a JWT was refused: {wrong}");
            self.verified().remove(&hash);
            Refusal::Unauthenticated
        })?;
        let until = verified.until;
        let caller =
            self.vouched_for(verified.user_id, verified.name, verified.is_admin, Validity::Until(until));
        let caller = Caller { expires_at: verified.expires_at, ..caller };
        self.verified().insert(hash, CachedJwt { caller: caller.clone(), from: now, until });
        Ok(caller)
    }

    fn verified(&self) -> MutexGuard<'_, LruCache<Hash, CachedJwt>> {
        // No code panics while it holds this lock, so the contents of a poisoned lock are sound.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller whom a third party, a proxy or the issuer of a JWT, has signed in.
    fn vouched_for(&self, user_id: UserId, name: SaidName, is_admin: bool, validity: Validity) -> Caller {
        let is_admin = is_admin || self.means.admins.contains(&user_id);
        let scope = if is_admin { Scope::Admin } else { Scope::User };
        let (is_named, name) = match name {
            SaidName::Unsaid => (false, None),
            SaidName::Said(name) => (true, name),
        };
        Caller { is_named, user_id: Some(user_id), name, scope, validity, expires_at: None }
    }

    fn by_token(
        &self,
        token: &str,
        credentials: &Credentials<'_>,
        effort: Effort,
    ) -> Result<Caller, Refusal> {
        let hash = token::hash(token);
        let token = match effort {
            Effort::LookUp => self.service.token(&hash)?,
            Effort::Recall => match self.service.cached_token(&hash) {
                CacheLookup::Hit(token) => token,
                CacheLookup::Stale => return Err(Refusal::NotRecalled(Earlier::Good)),
                CacheLookup::Miss => return Err(Refusal::NotRecalled(Earlier::Nothing)),
            },
        };
        let token = token.ok_or(Refusal::Unauthenticated)?;
        let validity = Validity::WhileTokenValid(hash);
        let said = said(credentials)?;
        if let Some(user_id) = &said.user_id {
            token::is_no_token(user_id).map_err(|error| renamed("X-User-Id", error))?;
        }
        match token.scope {
            Scope::User | Scope::Read => {
                if said.user_id.is_some() && said.user_id != token.user_id {
                    return Err(Refusal::NotForThem);
                }
                let is_named = token.name.is_some();
                Ok(Caller {
                    user_id: token.user_id,
                    name: token.name.or(said.name),
                    is_named,
                    scope: token.scope,
                    validity,
                    expires_at: token.expires_at,
                })
            }
            Scope::Service | Scope::Admin => {
                let name = said.name.or_else(|| token.name.filter(|_| said.user_id.is_none()));
                // An administrator's token without a user acts under its own id, so the history shows which.
                let unnamed =
                    (token.scope == Scope::Admin).then(|| format!("{}{}", token::AS, token.token_id));
                let unnamed = unnamed.map(|id| UserId::parse(&id)).transpose()?;
                let user_id = said.user_id.or(token.user_id).or(unnamed);
                let (scope, expires_at) = (token.scope, token.expires_at);
                Ok(Caller { user_id, name, is_named: false, scope, validity, expires_at })
            }
        }
    }
}

/// The bearer credentials: from the header or, without the header, from the body (a beacon has no headers).
fn bearer<'a>(credentials: &Credentials<'a>) -> Result<Option<&'a str>, Refusal> {
    let Some(header) = credentials.authorization else { return Ok(credentials.access_token) };
    let (scheme, token) = header.split_once(' ').ok_or(Refusal::Unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Refusal::Unauthenticated);
    }
    Ok(Some(token.trim()))
}

/// The display name that a third party, a proxy or the issuer of a JWT, states for a user.
enum SaidName {
    /// The third party states no name.
    Unsaid,
    /// The third party states this name. `None` is a name that cannot be shown; the user cannot replace it.
    Said(Option<DisplayName>),
}

impl SaidName {
    fn said(name: &str) -> Self {
        DisplayName::parse(name)
            .map_or(Self::Said(None), |name| name.map_or(Self::Unsaid, |name| Self::Said(Some(name))))
    }
}

/// The user and the display name in the request's headers.
struct Said {
    user_id: Option<UserId>,
    name: Option<DisplayName>,
}

fn said(credentials: &Credentials<'_>) -> Result<Said, Error> {
    let user_id = credentials
        .user_id
        .map(|header| UserId::parse_as("X-User-Id", &id_in_header("X-User-Id", header)?))
        .transpose()?;
    let name = credentials
        .user_name
        .map(|header| DisplayName::parse_as("X-User-Name", &decode("X-User-Name", header)?))
        .transpose()?
        .flatten();
    Ok(Said { user_id, name })
}

/// The caller with `auth.mode = "none"`: the named user, as an administrator.
///
/// The token of a beacon is the user id.
fn believe(credentials: &Credentials<'_>) -> Result<Caller, Error> {
    let Said { user_id, name } = said(credentials)?;
    let user_id = match (user_id, credentials.access_token) {
        (Some(header), Some(token)) if header.as_str() != token => {
            return Err(Error::invalid("access_token", "names another user than X-User-Id"));
        }
        (None, Some(token)) => Some(UserId::parse_as("access_token", token)?),
        (header, _) => header,
    };
    Ok(Caller {
        user_id,
        name,
        is_named: false,
        scope: Scope::Admin,
        validity: Validity::Unlimited,
        expires_at: None,
    })
}

/// The same error, with `field` as the name of the field that the caller knows.
fn renamed(field: &str, error: Error) -> Error {
    if let Error::Invalid { reason, .. } = error { Error::invalid(field, reason) } else { error }
}

/// Decodes a header value. Characters outside ASCII are percent-encoded in it.
fn decode(field: &str, value: &str) -> Result<String, Error> {
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
            "must name one, and has a comma as two joined headers have (where a client sends it, a comma in an id is %2C)",
        ));
    }
    decode(field, value)
}

/// Refuses an escape that stands for a visible ASCII character other than `%`.
///
/// A proxy sends such a character as it is. So the escape is part of a user id that is registered as
/// `%61lice`, for example. Decoded, that id would be taken for `alice`.
fn only_needed_escapes(header: &str, value: &str) -> Result<(), Error> {
    let is_needed = |escape: &str| {
        let byte = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_none_or(|byte| byte == b'%' || !byte.is_ascii_graphic())
    };
    if value.split('%').skip(1).all(is_needed) {
        return Ok(());
    }
    Err(Error::invalid(header, "must not percent-encode a visible ASCII character other than %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believed(user_id: Option<&str>, user_name: Option<&str>) -> Result<Caller, Error> {
        believe(&Credentials { user_id, user_name, ..Credentials::default() })
    }

    #[test]
    fn identity_headers_are_percent_encoded_utf_8() {
        let caller = believed(Some("zo%C3%AB"), Some("Zo%C3%AB Vandenberg")).unwrap();
        assert_eq!(caller.user_id.unwrap().as_str(), "zoë");
        assert_eq!(caller.name.unwrap().as_str(), "Zoë Vandenberg");
    }

    #[test]
    fn invalid_identity_headers_are_refused_by_name() {
        for bad in ["", "a%00b", "%ff", "a%zz", "a%2", "100%", "alice, bob", "alice,", ".", "%2e%2E"] {
            match believed(Some(bad), None) {
                Err(Error::Invalid { field: named, .. }) => assert_eq!(named, "X-User-Id"),
                other => panic!("{bad:?} gave {other:?}"),
            }
        }
        assert_eq!(believed(None, None).unwrap().user_id, None);
        for (fine, user_id) in [("a%2525zz", "a%25zz"), ("alice%2C%20bob", "alice, bob"), ("...", "...")] {
            assert_eq!(believed(Some(fine), None).unwrap().user_id.unwrap().as_str(), user_id);
        }
        let named = |name| believed(Some("alice"), Some(name)).map(|caller| caller.name.unwrap());
        assert_eq!(named("Martin, Alice").unwrap().as_str(), "Martin, Alice", "a name may have a comma");
        assert!(named("100%").is_err());
    }

    #[test]
    fn a_beacon_carries_its_token_in_the_body() {
        let credentials = Credentials { access_token: Some("alice"), ..Credentials::default() };
        assert_eq!(believe(&credentials).unwrap().user_id.unwrap().as_str(), "alice");
    }

    #[test]
    fn only_the_bearer_scheme_is_accepted() {
        let bears = |authorization| bearer(&Credentials { authorization, ..Credentials::default() });
        assert_eq!(bears(Some("bearer  x ")), Ok(Some("x")));
        assert_eq!(bears(None), Ok(None));
        for bad in ["Basic eDp5", "Bearer", "lh_x"] {
            assert_eq!(bears(Some(bad)), Err(Refusal::Unauthenticated), "{bad}");
        }
    }
}
