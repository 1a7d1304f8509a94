//! Takes a request through the table of routes: which operation it is, who sent it, what it says, and what becomes of it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::authorize::{Identity, from};
use super::exchange::{Request, Response};
use super::fields::Values;
use super::handlers::tokens::not_understood;
use super::json;
use super::pages;
use super::parameters::PATH_PARAMETERS;
use super::problem::{Code, Problem};
use super::rate::RateLimit;
use super::responder::Responder;
use super::router::{Matched, find};
use super::routes::{Answer, BodyKind, GATE, Route};
use crate::app::Service;
use crate::auth::{Auth, Caller};
use crate::domain::member::Need;
use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::error::Error;
use crate::percent;
use crate::web::{Page, Pages};

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
    /// The caller, who is somebody where the route asks for [`Right::Lock`](super::routes::Right::Lock).
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
        service.may(&self.caller.actor(), workspace_id, need).map_err(|error| self.failed(&error))
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
    /// How many credentials that are good for nothing may come from one address.
    pub strangers: RateLimit,
    /// Web origins whose pages may call.
    pub cors_origins: Vec<String>,
}

impl App {
    /// What a request matches.
    #[must_use]
    pub fn find(&self, request: &Request) -> Matched {
        match find(self.routes, &request.method, &request.path) {
            Matched::Nothing => self.find_page(request),
            named @ (Matched::Route(..) | Matched::Page(_) | Matched::OtherMethods(_)) => named,
        }
    }

    fn find_page(&self, request: &Request) -> Matched {
        let is_asked_by_browser =
            || request.headers.accept.as_deref().is_some_and(|accept| accept.contains("text/html"));
        let page = self.pages.find(&request.path);
        match page.or_else(|| self.pages.find_missing(&request.path).filter(|_| is_asked_by_browser())) {
            Some(page) if matches!(request.method.as_str(), "GET" | "HEAD") => Matched::Page(page),
            Some(_) => Matched::OtherMethods(vec!["GET", "HEAD", "OPTIONS"]),
            None => Matched::Nothing,
        }
    }

    /// Lets go of the body where there is none to be. `{}` is as good as none.
    ///
    /// # Errors
    /// The refusal of any other, before anybody looks who sent it: it need not be kept until then.
    pub(super) fn drop_body(&self, request: &mut Request, named: &Matched) -> Result<(), Problem> {
        let refused = match named {
            Matched::Route(route, _) if matches!(route.body, BodyKind::None) => body(route, request)
                .err()
                .map(|problem| if route.name == GATE { not_understood(&problem) } else { problem }),
            Matched::Route(..) => return Ok(()),
            Matched::Page(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        };
        request.body = Vec::new();
        refused.map_or(Ok(()), |problem| Err(self.limited(request, problem)))
    }

    /// Answers a request that matches this and comes from them, now or later.
    pub fn handle(&self, request: &Request, matched: Matched, identity: Identity, mut responder: Responder) {
        let (route, path) = match matched {
            Matched::Route(route, path) => (route, path),
            Matched::Page(page) => return self.show(page, request, responder),
            Matched::OtherMethods(allowed) => return self.without_operation(request, responder, &allowed),
            Matched::Nothing => {
                let problem = Problem::new(Code::NotFound)
                    .detail("There is nothing at this path. The API is described at /api/v1/openapi.json.");
                return responder.refuse(&self.limited(request, problem));
            }
        };
        responder.is_for(route.name);
        let call = match self.check(route, path, request, identity) {
            Ok(call) => call,
            Err(problem) if route.name == GATE && problem.status() == Code::InvalidRequest.status() => {
                return responder.refuse(&not_understood(&problem));
            }
            Err(problem) => return responder.refuse(&problem),
        };
        if let Some(user_id) = &call.caller.user_id {
            responder.is_by(user_id.as_str());
        }
        match (route.handler)(&self.service, &call) {
            Ok(Answer::Now(response)) => responder.send(response),
            Ok(Answer::Later(promise)) => promise(responder),
            Err(problem) => responder.refuse(&problem),
        }
    }

    /// Pages are for everybody: they say nothing that is not in the source, and hold no secrets.
    fn show(&self, page: &Page, request: &Request, mut responder: Responder) {
        responder.is_for(pages::NAME);
        match self.limit(|| from("address", request)) {
            Ok(()) => responder.send(pages::response(page)),
            Err(problem) => responder.refuse(&problem),
        }
    }

    /// The path is known, the method is not.
    fn without_operation(&self, request: &Request, responder: Responder, allowed: &[&str]) {
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
            return responder.send(response);
        }
        let problem = Problem::new(Code::MethodNotAllowed)
            .detail(format!("This path takes {allow}."))
            .header("Allow", allow);
        responder.refuse(&self.limited(request, problem));
    }

    /// The headers that an answer needs because pages of some origins may call.
    #[must_use]
    pub fn cors_headers(&self, request: &Request) -> Vec<(&'static str, String)> {
        if self.cors_origins.is_empty() {
            return Vec::new();
        }
        let mut headers = vec![("Vary", "Origin".to_owned())];
        if let Some(origin) = self.allowed_origin(request) {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Access-Control-Expose-Headers", "Retry-After, X-Request-Id".to_owned()));
        }
        headers
    }

    /// The request's origin, if its pages may call.
    #[must_use]
    pub fn allowed_origin<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let origin = request.headers.origin.as_deref()?;
        self.cors_origins.iter().any(|allowed| allowed == origin).then_some(origin)
    }

    fn check(
        &self,
        route: &Route,
        path: Vec<(&'static str, String)>,
        request: &Request,
        identity: Identity,
    ) -> Result<Call, Problem> {
        // A beacon's credentials stand in the body, which is read first.
        let (body, caller) = match route.body {
            BodyKind::Beacon(_) => {
                let body = body(route, request).map_err(|problem| self.limited(request, problem))?;
                (body, self.authenticate(route, request, identity)?)
            }
            BodyKind::None | BodyKind::Json(_) => {
                let caller = self.authenticate(route, request, identity)?;
                (body(route, request)?, caller)
            }
        };
        let mut values = body.and(Values::from_query(&request.query, route.query)?)?;
        for (name, text) in path {
            if let Some(field) = PATH_PARAMETERS.iter().find(|field| field.name == name) {
                let text = percent::decode(&text).ok_or_else(|| Problem::invalid(name, percent::RULE))?;
                values = values.with_path(field.name, &text, &field.kind)?;
            }
        }
        let last_event_id = request.headers.last_event_id.clone();
        let lock = (request.headers.lock_workspace.clone(), request.headers.lock_fence.clone());
        Ok(Call { request_id: request.id.clone(), caller, values, last_event_id, lock })
    }
}

/// What the body says.
pub(super) fn body(route: &Route, request: &Request) -> Result<Values, Problem> {
    let bytes = &request.body;
    let fields = route.body.fields();
    if bytes.is_empty() {
        return Values::from_object(Vec::new(), fields, "");
    }
    let takes_none = matches!(route.body, BodyKind::None);
    if !takes_none {
        media_type(route, request)?;
    }
    let empty = || Problem::invalid("body", "must be empty, or {}: this call takes none");
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|error| {
        if takes_none { empty() } else { Problem::invalid("body", &format!("cannot be read: {error}")) }
    })?;
    match json::object(raw, "")? {
        Some(object) => Values::from_object(object, fields, ""),
        None if takes_none => Err(empty()),
        None => Err(Problem::invalid("body", "must be a JSON object")),
    }
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
