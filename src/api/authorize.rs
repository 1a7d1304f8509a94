//! Authentication and authorisation of requests: credentials, the origin of the page, and rate limits.

use std::net::IpAddr;
use std::sync::Arc;

use super::dialect::Dialect;
use super::exchange::Request;
use super::input;
use super::operation::{AGENTS_ONLY, Right, Route};
use super::problem::{Code, Problem};
use super::rate::RateLimit;
use super::router::Matched;
use crate::app::Service;
use crate::auth::{Auth, AuthError, Basic, Caller, Credentials, Lookup, Validity, token};
use crate::config::AuthMode;
use crate::domain::rights::Missing;
use crate::error::{Error, Limit};

/// The paths that monitors probe.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The caller, or the refusal. `None` if no credentials are needed, or the request is refused anyway.
pub type Identity = Option<Result<Caller, AuthError>>;

/// Identifies callers and decides what they may call.
pub struct Authorizer {
    /// The use cases.
    pub service: Arc<Service>,
    /// Identifies callers.
    pub auth: Auth,
    /// The rate limit for each caller.
    pub rate: Option<RateLimit>,
    /// The rate limit of bad credentials for each address.
    pub bad_credentials: RateLimit,
    /// The rate limit of the same bad credentials from one address, where a client repeats them by itself.
    pub same_credentials: RateLimit,
    /// Web origins whose pages may call the API.
    pub cors_origins: Vec<String>,
}

impl Authorizer {
    /// Identifies the caller by the credentials of the request.
    pub fn identify(&self, request: &Request, matched: &Matched, lookup: Lookup) -> Identity {
        let Matched::Route(route, _) = matched else { return None };
        if route.right == Right::Open
            || request.headers.twice.is_some()
            || self.is_from_forbidden_origin(request)
        {
            return None;
        }
        let headers = &request.headers;
        // A beacon cannot have headers: its credentials are in the body.
        let access_token = input::access_token(route.body, request).ok().flatten();
        let basic = basic(request);
        let credentials = Credentials {
            user_id: headers.user_id.as_deref(),
            user_name: headers.user_name.as_deref(),
            authorization: headers.authorization.as_deref().filter(|_| basic.is_none()),
            access_token: access_token.as_deref(),
            basic: basic.as_ref(),
            asserted: headers.asserted_user.as_deref().map(|user| (user, headers.asserted_name.as_deref())),
        };
        Some(self.auth.identify(&credentials, lookup))
    }

    /// Whether unknown credentials may be looked up: not after too many bad ones from the same address.
    ///
    /// So a flood of bad credentials costs next to nothing.
    pub(super) fn may_look_up(&self, request: &Request) -> Result<(), Problem> {
        self.bad_credentials.look(&address_key("address", request), self.service.monotonic()).map_err(
            |wait| {
                self.service.metrics().limited(Limit::Credentials);
                Problem::limited(Limit::Credentials, wait)
            },
        )
    }

    /// Looks up the caller. Bad credentials count against the limit of the client's address.
    pub(super) fn look_up(&self, request: &Request, matched: &Matched) -> Identity {
        let identity = self.identify(request, matched, Lookup::Full);
        if identity == Some(Err(AuthError::Unauthenticated)) {
            // Requests that were queued when the limit was reached are looked up all the same.
            let _ = self.bad_credentials.take(&address_key("address", request), self.service.monotonic());
        }
        identity
    }

    /// The caller, if they may call this route at all.
    pub(super) fn authenticate(
        &self,
        route: &Route,
        request: &Request,
        identity: Identity,
    ) -> Result<Caller, Problem> {
        if let Some(name) = request.headers.twice {
            return Err(self.limited(request, Problem::invalid(name, "must be given once")));
        }
        if route.right != Right::Open && self.is_from_forbidden_origin(request) {
            let problem = Problem::new(Code::Forbidden)
                .detail("Pages of this origin may not call the API. To allow them, add the origin to server.cors_origins.");
            return Err(self.limited(request, problem));
        }
        if route.right == Right::Open {
            // Probes have a limit of their own, so other clients of the same address cannot block a monitor.
            let what = if PROBES.contains(&route.path) { "probe" } else { "address" };
            self.limit(|| address_key(what, request))?;
            return Ok(Caller::anonymous(Validity::Unlimited));
        }
        let caller = identity.unwrap_or(Err(AuthError::Unauthenticated));
        self.limit(|| {
            let key = caller.as_ref().ok().and_then(Caller::key);
            key.unwrap_or_else(|| address_key("address", request))
        })?;
        let caller = caller.map_err(|refusal| match refusal {
            AuthError::Unauthenticated => self.unauthenticated(request),
            AuthError::WrongUser => {
                Problem::new(Code::Forbidden).detail("This token acts for its owner only. Omit X-User-Id.")
            }
            AuthError::NotCached(_) => Error::Internal("a caller was not looked up".to_owned()).into(),
            AuthError::Failed(error) => error.into(),
        })?;
        let dialect = Dialect::of(&request.path);
        if dialect.takes_basic() && caller.is_agent {
            return Err(Problem::new(Code::Forbidden).detail(AGENTS_ONLY));
        }
        // These clients send credentials only when they are asked for them.
        if dialect.takes_basic() && caller.user_id.is_none() && self.auth.mode() == AuthMode::None {
            return Err(dialect.unauthenticated(AuthMode::None));
        }
        self.check_scope(route, request, &caller)?;
        Ok(caller)
    }

    /// Checks the scope of the caller against the right that the route requires.
    fn check_scope(&self, route: &Route, request: &Request, caller: &Caller) -> Result<(), Problem> {
        match route.right.check(caller.scope, caller.user_id.is_some()) {
            Ok(()) => Ok(()),
            Err(Missing::User) if caller.scope.acts_for_others() && self.auth.mode() != AuthMode::None => {
                Err(Problem::invalid(
                    "X-User-Id",
                    "is missing: this token must name the user for whom it acts",
                ))
            }
            Err(Missing::User) => Err(Dialect::of(&request.path).unauthenticated(self.auth.mode())),
            Err(Missing::Scope) => {
                let scopes: Vec<_> = route.right.scopes().iter().map(|scope| scope.as_str()).collect();
                let (last, others) = scopes.split_last().unwrap_or((&"", &[]));
                let scopes = if others.is_empty() {
                    (*last).to_owned()
                } else {
                    format!("{} or {last}", others.join(", "))
                };
                Err(Problem::new(Code::Forbidden).detail(format!(
                    "This operation needs credentials with the scope {scopes}. Yours have the scope {}.",
                    caller.scope.as_str()
                )))
            }
        }
    }

    /// The refusal of missing or bad credentials.
    fn unauthenticated(&self, request: &Request) -> Problem {
        let dialect = Dialect::of(&request.path);
        // Git LFS sends a stored password again and again. A 429 ends that.
        if dialect == Dialect::Lfs
            && let Some(authorization) = &request.headers.authorization
        {
            let key = format!("{} {:x?}", address_key("address", request), token::hash(authorization));
            if let Err(wait) = self.same_credentials.take(&key, self.service.monotonic()) {
                self.service.metrics().limited(Limit::Credentials);
                return Problem::limited(Limit::Credentials, wait);
            }
        }
        dialect.unauthenticated(self.auth.mode())
    }

    /// The refusal of a request before its caller is known: `problem`, or the refusal by the rate limit.
    pub(super) fn limited(&self, request: &Request, problem: Problem) -> Problem {
        self.limit(|| address_key("address", request)).err().unwrap_or(problem)
    }

    /// Counts a request against the rate limit of `key`: the caller or, for unknown callers, the address.
    pub(super) fn limit(&self, key: impl FnOnce() -> String) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.take(&key(), self.service.monotonic()).map_err(|wait| {
            self.service.metrics().limited(Limit::Requests);
            Problem::limited(Limit::Requests, wait)
        })
    }

    /// The request's origin, if its pages may call the API.
    #[must_use]
    pub fn allowed_origin<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let origin = request.headers.origin.as_deref()?;
        self.cors_origins.iter().any(|allowed| allowed == origin).then_some(origin)
    }

    /// Whether a browser sends the request for a page whose origin may not call.
    ///
    /// This matters in modes without credentials that a page must know. There, any page in the user's browser
    /// could otherwise release locks unnoticed.
    fn is_from_forbidden_origin(&self, request: &Request) -> bool {
        let headers = &request.headers;
        let Some(origin) = headers.origin.as_deref().filter(|_| self.allowed_origin(request).is_none())
        else {
            return false;
        };
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        let is_other_host =
            host.is_empty() || !headers.host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host));
        match self.auth.mode() {
            // A host name may resolve to any address (DNS rebinding), so only pages of this machine may call.
            AuthMode::None => !is_loopback(host),
            // The browser sends the proxy's credentials for any page, so only this host's pages may call.
            AuthMode::Proxy if headers.asserted_user.is_some() => is_other_host,
            // A browser remembers Basic credentials, and sends them for any page.
            AuthMode::Proxy | AuthMode::Token | AuthMode::Jwt => is_other_host && basic(request).is_some(),
        }
    }
}

/// The HTTP Basic credentials of the request, on a path that accepts them.
fn basic(request: &Request) -> Option<Basic> {
    let authorization = request.headers.authorization.as_deref()?;
    Dialect::of(&request.path).takes_basic().then(|| Basic::parse(authorization)).flatten()
}

/// The rate limit key of a client address. An IPv6 client has a whole /64 network, which shares one key.
pub(super) fn address_key(what: &str, request: &Request) -> String {
    match request.client.map(|client| client.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{what} {a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(IpAddr::V4(address)) => format!("{what} {address}"),
        None => format!("{what} of the socket"),
    }
}

/// Whether `host`, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
