//! Authentication: identifies the caller of a request.
//!
//! All bad credentials get the same response, so that the response reveals nothing about them. Bad
//! credentials are a token that is unknown, revoked, expired or malformed, and a JWT that fails any check.

mod caller;
mod headers;
mod jwt;
pub mod token;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

pub use self::caller::Caller;
use self::caller::StatedName;
pub use self::headers::{Basic, Credentials, id_in_header};
use self::headers::{StatedUser, decode, only_needed_escapes, stated_user};
use crate::app::{CacheLookup, Service};
use crate::config::{self, AuthMode};
use crate::domain::UserId;
use crate::domain::token::Hash;
pub use crate::domain::token::{Scope, Validity};
use crate::error::Error;
use crate::time::WallTime;

/// How much work identification may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Uses only what is in memory: no read from the store and no signature check.
    CacheOnly,
    /// Reads from the store and checks signatures where needed.
    Full,
}

/// Why a caller could not be authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// There are no credentials, or they are not valid.
    Unauthenticated,
    /// The token does not permit acting for the user that the request names.
    WrongUser,
    /// The credentials must be looked up first.
    NotCached(CacheMiss),
    /// A header is invalid, or the lookup failed.
    Failed(Error),
}

/// What is in memory about credentials that must be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMiss {
    /// The credentials were valid a while ago.
    Stale,
    /// The credentials are unknown.
    Unknown,
}

impl From<Error> for AuthError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The settings and keys that identify callers. Tokens are in the store.
pub struct AuthKeys {
    mode: AuthMode,
    admins: HashSet<UserId>,
    jwt: Option<jwt::Verifier>,
    /// The name of the proxy's header with the user id.
    user_header: String,
}

impl AuthKeys {
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
    keys: AuthKeys,
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
const CACHED_JWTS: usize = 10_000;

impl Auth {
    /// Uses `keys` and the tokens of `service`.
    #[must_use]
    pub fn new(keys: AuthKeys, service: &Arc<Service>) -> Self {
        Self { keys, service: Arc::clone(service), verified: Mutex::new(LruCache::new(CACHED_JWTS)) }
    }

    /// The authentication mode in force.
    #[must_use]
    pub const fn mode(&self) -> AuthMode {
        self.keys.mode
    }

    /// Identifies the caller, with at most the work that `lookup` permits.
    ///
    /// # Errors
    /// Why the caller is refused; [`AuthError::NotCached`] if identification needs more work.
    pub fn identify(&self, credentials: &Credentials<'_>, lookup: Lookup) -> Result<Caller, AuthError> {
        if self.keys.mode == AuthMode::None {
            return Ok(trust_headers(credentials)?);
        }
        // An empty user header means that the proxy has signed no user in.
        let asserted = credentials.asserted.filter(|(user_id, _)| !user_id.is_empty());
        // Basic credentials behind a proxy are those for the proxy.
        let without_basic = Credentials { basic: None, ..credentials.clone() };
        let for_proxy = self.keys.mode == AuthMode::Proxy && asserted.is_some();
        let credentials = if for_proxy { &without_basic } else { credentials };
        let bearer = match (self.keys.mode, bearer(credentials)) {
            // The browser's Authorization header is meant for the proxy, unless it has one of our tokens.
            (AuthMode::Proxy, bearer) if asserted.is_some() => {
                bearer.unwrap_or_default().filter(|token| token::has_prefix(token))
            }
            (_, bearer) => bearer?,
        };
        match (bearer, asserted) {
            (Some(token), _) if token::has_prefix(token) => self.token_caller(token, credentials, lookup),
            (Some(token), _) => self.jwt_caller(token, lookup),
            (None, Some((user_id, name))) if self.keys.mode == AuthMode::Proxy => {
                let header = &self.keys.user_header;
                let decoded = id_in_header(header, user_id)?;
                only_needed_escapes(header, user_id)?;
                let user_id = UserId::parse_as(header, &decoded)?;
                token::check_not_reserved(&user_id).map_err(|error| with_field(header, error))?;
                let name = match name {
                    None => StatedName::Absent,
                    Some(name) => {
                        decode("", name).map_or(StatedName::Given(None), |name| StatedName::parse(&name))
                    }
                };
                Ok(self.signed_in_elsewhere(user_id, name, false, Validity::Unlimited))
            }
            (None, _) => Err(AuthError::Unauthenticated),
        }
    }

    fn jwt_caller(&self, token: &str, lookup: Lookup) -> Result<Caller, AuthError> {
        let jwt = self.keys.jwt.as_ref().ok_or(AuthError::Unauthenticated)?;
        let (hash, now) = (token::hash(token), self.service.wall());
        let cached = self.verified().get(&hash).map(|verified| {
            let is_valid = verified.from <= now && now < verified.until;
            is_valid.then(|| verified.caller.clone())
        });
        match (cached, lookup) {
            (Some(Some(caller)), _) => return Ok(caller),
            (Some(None), Lookup::CacheOnly) => return Err(AuthError::NotCached(CacheMiss::Stale)),
            (None, Lookup::CacheOnly) => return Err(AuthError::NotCached(CacheMiss::Unknown)),
            (Some(None) | None, Lookup::Full) => {}
        }
        let verified = jwt.verify(token, now).map_err(|wrong| {
            log::debug!("a JWT was refused: {wrong}");
            self.verified().remove(&hash);
            AuthError::Unauthenticated
        })?;
        let until = verified.until;
        let caller = self.signed_in_elsewhere(
            verified.user_id,
            verified.name,
            verified.is_admin,
            Validity::Until(until),
        );
        let caller = Caller { expires_at: verified.expires_at, ..caller };
        self.verified().insert(hash, CachedJwt { caller: caller.clone(), from: now, until });
        Ok(caller)
    }

    fn verified(&self) -> MutexGuard<'_, LruCache<Hash, CachedJwt>> {
        // No code panics while it holds this lock, so the contents of a poisoned lock are sound.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller whom a third party, a proxy or the issuer of a JWT, has signed in.
    fn signed_in_elsewhere(
        &self,
        user_id: UserId,
        name: StatedName,
        is_admin: bool,
        validity: Validity,
    ) -> Caller {
        let is_admin = is_admin || self.keys.admins.contains(&user_id);
        let scope = if is_admin { Scope::Admin } else { Scope::User };
        let (is_named, name) = match name {
            StatedName::Absent => (false, None),
            StatedName::Given(name) => (true, name),
        };
        Caller { is_named, user_id: Some(user_id), name, scope, ..Caller::anonymous(validity) }
    }

    fn token_caller(
        &self,
        token: &str,
        credentials: &Credentials<'_>,
        lookup: Lookup,
    ) -> Result<Caller, AuthError> {
        let hash = token::hash(token);
        let token = match lookup {
            Lookup::Full => self.service.token(&hash)?,
            Lookup::CacheOnly => match self.service.cached_token(&hash) {
                CacheLookup::Hit(token) => token,
                CacheLookup::Stale => return Err(AuthError::NotCached(CacheMiss::Stale)),
                CacheLookup::Miss => return Err(AuthError::NotCached(CacheMiss::Unknown)),
            },
        };
        let token = token.ok_or(AuthError::Unauthenticated)?;
        let validity = Validity::WhileTokenValid(hash);
        let stated = match token.scope {
            // The token names its owner. A client of HTTP Basic must send some user name, so that is ignored.
            Scope::User | Scope::Read => stated_user(&Credentials { basic: None, ..credentials.clone() })?,
            Scope::Service | Scope::Admin => stated_user(credentials)?,
        };
        if let Some(user_id) = &stated.user_id {
            token::check_not_reserved(user_id).map_err(|error| with_field("X-User-Id", error))?;
        }
        match token.scope {
            Scope::User | Scope::Read => {
                if stated.user_id.is_some() && stated.user_id != token.user_id {
                    return Err(AuthError::WrongUser);
                }
                let is_named = token.name.is_some();
                let (name, for_name) = if token.is_agent {
                    (token.name, stated.name)
                } else {
                    (token.name.or(stated.name), None)
                };
                Ok(Caller {
                    user_id: token.user_id,
                    name,
                    is_named,
                    is_agent: token.is_agent,
                    for_name,
                    scope: token.scope,
                    validity,
                    expires_at: token.expires_at,
                })
            }
            Scope::Service | Scope::Admin => {
                let name = stated.name.or_else(|| token.name.filter(|_| stated.user_id.is_none()));
                // An administrator's token without a user acts under its own id, so the history shows which.
                let unnamed = (token.scope == Scope::Admin)
                    .then(|| format!("{}{}", token::TOKEN_USER_PREFIX, token.token_id));
                let unnamed = unnamed.map(|id| UserId::parse(&id)).transpose()?;
                let user_id = stated.user_id.or(token.user_id).or(unnamed);
                let (scope, expires_at) = (token.scope, token.expires_at);
                Ok(Caller { user_id, name, scope, expires_at, ..Caller::anonymous(validity) })
            }
        }
    }
}

/// The bearer credentials: from the header or, without the header, from the body (a beacon has no headers).
fn bearer<'a>(credentials: &Credentials<'a>) -> Result<Option<&'a str>, AuthError> {
    if let Some(basic) = credentials.basic {
        return Ok(Some(&basic.password));
    }
    let Some(header) = credentials.authorization else { return Ok(credentials.access_token) };
    let (scheme, token) = header.split_once(' ').ok_or(AuthError::Unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(AuthError::Unauthenticated);
    }
    Ok(Some(token.trim()))
}

/// The caller with `auth.mode = "none"`: the named user, as an administrator.
///
/// The token of a beacon is the user id.
fn trust_headers(credentials: &Credentials<'_>) -> Result<Caller, Error> {
    let StatedUser { user_id, name } = stated_user(credentials)?;
    let user_id = match (user_id, credentials.access_token) {
        (Some(header), Some(token)) if header.as_str() != token => {
            return Err(Error::invalid("access_token", "names another user than X-User-Id"));
        }
        (None, Some(token)) => Some(UserId::parse_as("access_token", token)?),
        (header, _) => header,
    };
    Ok(Caller { user_id, name, scope: Scope::Admin, ..Caller::anonymous(Validity::Unlimited) })
}

/// The same error, with `field` as the name of the field that the caller knows.
fn with_field(field: &str, error: Error) -> Error {
    if let Error::Invalid { reason, .. } = error { Error::invalid(field, reason) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(user_id: Option<&str>, user_name: Option<&str>) -> Result<Caller, Error> {
        trust_headers(&Credentials { user_id, user_name, ..Credentials::default() })
    }

    #[test]
    fn identity_headers_are_percent_encoded_utf_8() {
        let caller = trusted(Some("zo%C3%AB"), Some("Zo%C3%AB Vandenberg")).unwrap();
        assert_eq!(caller.user_id.unwrap().as_str(), "zoë");
        assert_eq!(caller.name.unwrap().as_str(), "Zoë Vandenberg");
    }

    #[test]
    fn invalid_identity_headers_are_refused_by_name() {
        for bad in ["", "a%00b", "%ff", "a%zz", "a%2", "100%", "alice, bob", "alice,", ".", "%2e%2E"] {
            match trusted(Some(bad), None) {
                Err(Error::Invalid { field: named, .. }) => assert_eq!(named, "X-User-Id"),
                other => panic!("{bad:?} gave {other:?}"),
            }
        }
        assert_eq!(trusted(None, None).unwrap().user_id, None);
        for (fine, user_id) in [("a%2525zz", "a%25zz"), ("alice%2C%20bob", "alice, bob"), ("...", "...")] {
            assert_eq!(trusted(Some(fine), None).unwrap().user_id.unwrap().as_str(), user_id);
        }
        let named = |name| trusted(Some("alice"), Some(name)).map(|caller| caller.name.unwrap());
        assert_eq!(named("Martin, Alice").unwrap().as_str(), "Martin, Alice", "a name may have a comma");
        assert!(named("100%").is_err());
    }

    #[test]
    fn a_beacon_carries_its_token_in_the_body() {
        let credentials = Credentials { access_token: Some("alice"), ..Credentials::default() };
        assert_eq!(trust_headers(&credentials).unwrap().user_id.unwrap().as_str(), "alice");
    }

    #[test]
    fn basic_credentials_name_the_user_and_have_the_token_as_their_password() {
        let basic = Basic::parse("basic em/DqzpsaF94OnkK").unwrap();
        assert_eq!((basic.user.as_str(), basic.password.as_str()), ("zoë", "lh_x:y\n"));
        assert!(!format!("{basic:?}").contains("lh_x"));
        let credentials = Credentials { basic: Some(&basic), user_id: Some("bob"), ..Credentials::default() };
        assert_eq!(bearer(&credentials), Ok(Some("lh_x:y\n")));
        assert_eq!(trust_headers(&credentials).unwrap().user_id.unwrap().as_str(), "zoë");
        for bad in ["Basic", "Basic !", "Basic eDp5 x", "Bearer eDp5", "Basic /////w==", "Basic eA=="] {
            assert_eq!(Basic::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_bearer_scheme_is_accepted() {
        let bears = |authorization| bearer(&Credentials { authorization, ..Credentials::default() });
        assert_eq!(bears(Some("bearer  x ")), Ok(Some("x")));
        assert_eq!(bears(None), Ok(None));
        for bad in ["Basic eDp5", "Bearer", "lh_x"] {
            assert_eq!(bears(Some(bad)), Err(AuthError::Unauthenticated), "{bad}");
        }
    }
}
