//! Takes a request through the table of routes: which operation it is, what it says, who sent it, what they may.

use std::net::IpAddr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::exchange::{Reply, Request, Response};
use super::fields::Values;
use super::handlers::tokens::not_understood;
use super::pages;
use super::parameters::PATH_PARAMETERS;
use super::problem::{Code, Problem};
use super::rate::RateLimit;
use super::routes::{Answer, BodyKind, GATE, Right, Route, Touches};
use super::wire::Once;
use crate::auth::{Auth, Caller, Credentials, Lasts, Refusal, Scope};
use crate::config::AuthMode;
use crate::console::{Page, Pages};
use crate::error::{Error, Limit};
use crate::lock::member::Need;
use crate::lock::{DisplayName, UserId, WorkspaceId};
use crate::service::Service;

/// What a monitor asks.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// A call that was checked.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request's id.
    pub request_id: String,
    /// Who is calling.
    pub caller: Caller,
    /// What the path, the query and the body say.
    pub values: Values,
    /// `Last-Event-ID`: the last event that a follower has heard of.
    pub last_event_id: Option<String>,
    /// `X-Lock-Workspace` and `X-Lock-Fence`: what a proxy's sub-request is about.
    pub lock: (Option<String>, Option<String>),
}

impl Call {
    /// The caller, who is somebody where the route asks for [`Right::Lock`].
    ///
    /// # Errors
    /// A 401 where it does not.
    pub fn user(&self) -> Result<&UserId, Problem> {
        self.caller.user_id.as_ref().ok_or_else(|| Problem::new(Code::Unauthenticated))
    }

    /// Whether the caller may do what they need on a workspace.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, service: &Service, workspace_id: &WorkspaceId, need: Need) -> Result<(), Problem> {
        service.may(&self.caller.actor(), workspace_id, need).map(drop).map_err(|error| self.failed(&error))
    }

    /// What the caller is told of an error.
    #[must_use]
    pub fn failed(&self, error: &Error) -> Problem {
        Problem::of(error, &self.request_id)
    }

    /// How the caller is shown: as their credentials say or, if those say nothing, as they say themselves.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn display_name(&self) -> Result<Option<DisplayName>, Problem> {
        let said = self.values.display_name()?;
        let vouched_for = self.caller.name.clone();
        Ok(if self.caller.is_named { vouched_for } else { said.or(vouched_for) })
    }
}

/// What a request is answered with.
pub struct App {
    /// What there is: [`super::routes::ROUTES`].
    pub routes: &'static [Route],
    /// Which pages there are beside.
    pub pages: Pages,
    /// The use cases.
    pub service: Arc<Service>,
    /// Finds out who is calling.
    pub auth: Auth,
    /// How often each of them may.
    pub rate: Option<RateLimit>,
    /// Web origins whose pages may call.
    pub cors_origins: Vec<String>,
}

/// What a request names.
pub enum Matched {
    /// This operation, with these parameters of its path.
    Route(&'static Route, Vec<(&'static str, String)>),
    /// This page.
    Page(&'static Page),
    /// A path, with other methods than this.
    OtherMethods(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

impl Matched {
    /// Whether it may keep the thread that carries it out: it reads from the store.
    #[must_use]
    pub const fn takes_time(&self) -> bool {
        matches!(self, Self::Route(route, _) if matches!(route.store, Touches::Reads))
    }

    /// Whether it waits for the writer among those that need not (see `door::upstream`).
    #[must_use]
    pub fn writes_though_it_is_read(&self, method: &str) -> bool {
        matches!(self, Self::Route(route, _) if matches!(route.store, Touches::Writes))
            && matches!(method, "GET" | "HEAD")
    }
}

impl App {
    /// What a request names.
    #[must_use]
    pub fn find(&self, request: &Request) -> Matched {
        match find(self.routes, &request.method, &request.path) {
            Matched::Nothing => self.find_page(request),
            named @ (Matched::Route(..) | Matched::Page(_) | Matched::OtherMethods(_)) => named,
        }
    }

    fn find_page(&self, request: &Request) -> Matched {
        match self.pages.find(&request.path) {
            Some(page) if matches!(request.method.as_str(), "GET" | "HEAD") => Matched::Page(page),
            Some(_) => Matched::OtherMethods(vec!["GET", "HEAD", "OPTIONS"]),
            None => Matched::Nothing,
        }
    }

    /// Answers a request that names this, now or later.
    pub fn handle(&self, request: &Request, named: Matched, mut reply: Reply) {
        let (route, path) = match named {
            Matched::Route(route, path) => (route, path),
            Matched::Page(page) => return self.show(page, request, reply),
            Matched::OtherMethods(allowed) => return self.without_operation(request, reply, &allowed),
            Matched::Nothing => {
                let problem = Problem::new(Code::NotFound)
                    .detail("There is nothing at this path. The API is described at /api/v1/openapi.json.");
                return reply.refuse(&self.limited(request, problem));
            }
        };
        reply.is_for(route.name);
        let call = match self.check(route, path, request) {
            Ok(call) => call,
            Err(problem) if route.name == GATE && problem.status() == Code::InvalidRequest.status() => {
                return reply.refuse(&not_understood(&problem));
            }
            Err(problem) => return reply.refuse(&problem),
        };
        if let Some(user_id) = &call.caller.user_id {
            reply.is_by(user_id.as_str());
        }
        match (route.handler)(&self.service, &call) {
            Ok(Answer::Now(response)) => reply.send(&response),
            Ok(Answer::Later(promise)) => promise(reply),
            Err(problem) => reply.refuse(&problem),
        }
    }

    /// Pages are for everybody: they say nothing that is not in the source, and hold no secrets.
    fn show(&self, page: &Page, request: &Request, mut reply: Reply) {
        reply.is_for(pages::NAME);
        match self.limit(|| from("address", request)) {
            Ok(()) => reply.send(&pages::response(page)),
            Err(problem) => reply.refuse(&problem),
        }
    }

    /// The path is known, the method is not.
    fn without_operation(&self, request: &Request, reply: Reply, allowed: &[&str]) {
        let allow = allowed.join(", ");
        if request.method == "OPTIONS" {
            let mut response = Response::empty(204).with("Allow", allow.clone());
            if self.allowed_origin(request).is_some() {
                response = response
                    .with("Access-Control-Allow-Methods", allow)
                    .with(
                        "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, Last-Event-ID, X-Lock-Fence, X-Lock-Workspace, X-Request-Id, X-User-Id, X-User-Name",
                    )
                    .with("Access-Control-Max-Age", "600");
            }
            return reply.send(&response);
        }
        let problem = Problem::new(Code::MethodNotAllowed)
            .detail(format!("This path takes {allow}."))
            .header("Allow", allow);
        reply.refuse(&self.limited(request, problem));
    }

    /// The request's origin, if its pages may call.
    #[must_use]
    pub fn allowed_origin<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let origin = request.headers.origin.as_deref()?;
        self.cors_origins.iter().any(|allowed| allowed == origin).then_some(origin)
    }

    /// Whether a browser sends it for a page that has no business here, where nothing but the browser is believed: such
    /// a page could release locks without anybody's knowing.
    fn is_from_a_strange_page(&self, request: &Request) -> bool {
        let headers = &request.headers;
        let Some(origin) = headers.origin.as_deref().filter(|_| self.allowed_origin(request).is_none())
        else {
            return false;
        };
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        match self.auth.mode() {
            // What a name stands for is not for it to say: only pages of this machine.
            AuthMode::None => !is_loopback(host),
            // The proxy knows the browser by a cookie or a password, whatever page it is that asks: only its own.
            AuthMode::Proxy if headers.asserted_user.is_some() => {
                host.is_empty() || !headers.host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host))
            }
            AuthMode::Proxy | AuthMode::Token | AuthMode::Jwt => false,
        }
    }

    fn check(
        &self,
        route: &Route,
        path: Vec<(&'static str, String)>,
        request: &Request,
    ) -> Result<Call, Problem> {
        // A beacon cannot have headers: its credentials stand in the body, which is read first.
        let (body, caller) = match route.body {
            BodyKind::Beacon(_) => {
                let body = body(route, request).map_err(|problem| self.limited(request, problem))?;
                let caller = self.authenticate(route, request, body.text("access_token"))?;
                (body, caller)
            }
            BodyKind::None | BodyKind::Json(_) => {
                let caller = self.authenticate(route, request, None)?;
                (body(route, request)?, caller)
            }
        };
        let mut values = body.and(Values::from_query(&request.query, route.query)?)?;
        for (name, text) in path {
            if let Some(field) = PATH_PARAMETERS.iter().find(|field| field.name == name) {
                values = values.with_path(field.name, &text, &field.kind)?;
            }
        }
        let last_event_id = request.headers.last_event_id.clone();
        let lock = (request.headers.lock_workspace.clone(), request.headers.lock_fence.clone());
        Ok(Call { request_id: request.id.clone(), caller, values, last_event_id, lock })
    }

    fn authenticate(
        &self,
        route: &Route,
        request: &Request,
        access_token: Option<&str>,
    ) -> Result<Caller, Problem> {
        if let Some(name) = request.headers.twice {
            return Err(self.limited(request, Problem::invalid(name, "must be given once")));
        }
        if route.right != Right::Open && self.is_from_a_strange_page(request) {
            let problem = Problem::new(Code::Forbidden)
                .detail("Pages of this origin may not call. If they should, add it to server.cors_origins.");
            return Err(self.limited(request, problem));
        }
        let headers = &request.headers;
        let credentials = Credentials {
            user_id: headers.user_id.as_deref(),
            user_name: headers.user_name.as_deref(),
            authorization: headers.authorization.as_deref(),
            access_token,
            asserted: headers.asserted_user.as_deref().map(|user| (user, headers.asserted_name.as_deref())),
        };
        if route.right == Right::Open {
            // A monitor that shares an address with others is not kept from asking.
            let what = if PROBES.contains(&route.path) { "probe" } else { "address" };
            self.limit(|| from(what, request))?;
            return Ok(Caller {
                user_id: None,
                name: None,
                is_named: false,
                scope: Scope::Read,
                lasts: Lasts::Always,
            });
        }
        let caller = self.auth.identify(&credentials);
        self.limit(|| {
            let key = caller.as_ref().ok().and_then(Caller::key);
            key.unwrap_or_else(|| from("address", request))
        })?;
        let caller = caller.map_err(|refusal| match refusal {
            Refusal::Unauthenticated => self.unauthenticated(),
            Refusal::NotForThem => Problem::new(Code::Forbidden)
                .detail("This token acts for its owner only: leave X-User-Id out."),
            Refusal::Failed(error) => Problem::of(&error, &request.id),
        })?;
        let somebody = caller.user_id.is_some();
        match (route.right, caller.scope) {
            (Right::Open | Right::Read, _)
            | (Right::Monitor, Scope::Read | Scope::Service | Scope::Admin)
            | (Right::Serve, Scope::Service | Scope::Admin)
            | (Right::Administer, Scope::Admin) => Ok(caller),
            (Right::Lock, Scope::User | Scope::Service | Scope::Admin) if somebody => Ok(caller),
            (Right::Lock, Scope::Service | Scope::Admin) if self.auth.mode() != AuthMode::None => {
                Err(Problem::invalid("X-User-Id", "is missing: say for whom this is done"))
            }
            (Right::Lock, Scope::User | Scope::Service | Scope::Admin) => Err(self.unauthenticated()),
            (Right::Lock, Scope::Read)
            | (Right::Monitor, Scope::User)
            | (Right::Serve, Scope::Read | Scope::User)
            | (Right::Administer, Scope::Read | Scope::User | Scope::Service) => {
                Err(Problem::new(Code::Forbidden).detail("Your credentials are not for this."))
            }
        }
    }

    fn unauthenticated(&self) -> Problem {
        Problem::new(Code::Unauthenticated)
            .detail(self.auth.how_to())
            .header("WWW-Authenticate", self.auth.challenge())
    }

    /// The refusal of a request that is refused before it is known whose it is; or that there are too many of them.
    fn limited(&self, request: &Request, problem: Problem) -> Problem {
        self.limit(|| from("address", request)).err().unwrap_or(problem)
    }

    /// Whether a caller has made too many requests just now: each for themselves, those who are nobody by address.
    fn limit(&self, key: impl FnOnce() -> String) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.take(key(), self.service.monotonic()).map_err(|wait| {
            self.service.metrics().limited(Limit::Requests);
            Problem::limited(Limit::Requests, wait)
        })
    }
}

/// Callers of whom no more is known than where they are. Whoever has one address of IPv6 has a network of them.
fn from(what: &str, request: &Request) -> String {
    match request.client.map(|client| client.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{what} {a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(IpAddr::V4(address)) => format!("{what} {address}"),
        None => format!("{what} of the socket"),
    }
}

/// What the body says.
fn body(route: &Route, request: &Request) -> Result<Values, Problem> {
    let bytes = &request.body;
    if matches!(route.body, BodyKind::None) && !bytes.is_empty() {
        return Err(Problem::invalid("body", "must be empty: this call takes none"));
    }
    let fields = route.body.fields();
    if bytes.is_empty() {
        return Values::from_object(serde_json::Map::new(), fields, "");
    }
    media_type(route, request)?;
    match serde_json::from_slice(bytes) {
        Ok(Once(object)) => Values::from_object(object, fields, ""),
        Err(error) => Err(Problem::invalid("body", &format!("must be a JSON object: {error}"))),
    }
}

/// Whether it is this machine, with a port or without.
fn is_loopback(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A body without a type is taken for JSON.
fn media_type(route: &Route, request: &Request) -> Result<(), Problem> {
    let Some(given) = &request.headers.content_type else { return Ok(()) };
    let essence = given.split(';').next().unwrap_or_default().trim();
    let beacon = matches!(route.body, BodyKind::Beacon(_));
    if essence.eq_ignore_ascii_case("application/json")
        || (beacon && essence.eq_ignore_ascii_case("text/plain"))
    {
        return Ok(());
    }
    let takes = if beacon { "application/json or text/plain" } else { "application/json" };
    Err(Problem::new(Code::UnsupportedMediaType)
        .detail(format!("Send the body as JSON, with the header Content-Type: {takes}.")))
}

/// Finds the operation. `HEAD` is a `GET`.
fn find(routes: &'static [Route], method: &str, path: &str) -> Matched {
    if path == "*" {
        // The server as a whole (RFC 9110 §9.3.7).
        return Matched::OtherMethods(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);
    }
    let method = if method == "HEAD" { "GET" } else { method };
    let mut others = Vec::new();
    for route in routes {
        let Some(parameters) = parameters(route.path, path) else { continue };
        if route.method == method {
            return Matched::Route(route, parameters);
        }
        others.push(route.method);
        if route.method == "GET" {
            others.push("HEAD");
        }
    }
    if others.is_empty() {
        Matched::Nothing
    } else {
        others.push("OPTIONS");
        Matched::OtherMethods(others)
    }
}

/// The parameters of `path`, if it is one of `template`. What is not percent-encoded UTF-8 matches nothing.
fn parameters(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for expected in template.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => parameters.push((name, decode(segment)?)),
            None if segment == expected => {}
            Some(_) | None => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

fn decode(segment: &str) -> Option<String> {
    let mut escapes = segment.split('%');
    escapes.next();
    let whole = escapes.all(|escape| {
        escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    whole.then(|| percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(ROUTES, method, path) {
            Matched::Route(route, parameters) => {
                Some((route.name, parameters.into_iter().map(|(_, text)| text).collect()))
            }
            Matched::Page(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_an_id() {
        let path = "/api/v1/workspaces/team%2Fdesign%2042/lock";
        assert_eq!(found("HEAD", path), Some(("readLock", vec!["team/design 42".to_owned()])));
        assert_eq!(found("GET", "/api/v1/workspaces/team/design/lock"), None);
    }

    #[test]
    fn a_path_that_is_not_percent_encoded_utf_8_names_nothing() {
        for bad in ["%", "%2", "%zz", "a%", "%ff", "%c3", ""] {
            assert_eq!(found("GET", &format!("/api/v1/workspaces/{bad}/lock")), None, "{bad}");
        }
    }

    #[test]
    fn a_method_that_a_path_does_not_have_is_told_those_it_has() {
        match find(ROUTES, "PUT", "/api/v1/workspaces/w/lock") {
            Matched::OtherMethods(allowed) => {
                assert_eq!(allowed, ["POST", "GET", "HEAD", "DELETE", "OPTIONS"]);
            }
            Matched::Route(..) | Matched::Page(_) | Matched::Nothing => panic!("PUT is no method of it"),
        }
    }

    #[test]
    fn every_operation_has_a_name_and_a_path_of_its_own() {
        for (index, route) in ROUTES.iter().enumerate() {
            for other in &ROUTES[index + 1..] {
                assert_ne!(route.name, other.name);
                assert_ne!((route.method, route.path), (other.method, other.path));
            }
            for name in route.path.split('/').filter_map(|segment| segment.strip_prefix('{')) {
                assert!(PATH_PARAMETERS.iter().any(|field| name.strip_suffix('}') == Some(field.name)));
            }
        }
    }
}
