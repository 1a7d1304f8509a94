//! Dispatches a request by the table of routes: finds its operation, authorises it and runs its handler.

use std::sync::Arc;

use super::authorize::{Identity, from};
use super::exchange::{Request, Response};
use super::operation::{Answer, BodyKind, Call, GATE, Route};
use super::problem::{Code, Problem};
use super::rate::RateLimit;
use super::responder::Responder;
use super::router::{Matched, find};
use super::{gate, input, pages};
use crate::app::Service;
use crate::auth::Auth;
use crate::web::{EmbeddedFile, Pages};

/// Everything that requests are answered from.
pub struct App {
    /// The table of routes: [`super::routes::ROUTES`].
    pub routes: &'static [Route],
    /// The pages that are enabled.
    pub pages: Pages,
    /// The use cases.
    pub service: Arc<Service>,
    /// Identifies callers.
    pub auth: Auth,
    /// The rate limit for each caller.
    pub rate: Option<RateLimit>,
    /// The rate limit of bad credentials for each address.
    pub strangers: RateLimit,
    /// Web origins whose pages may call the API.
    pub cors_origins: Vec<String>,
}

impl App {
    /// Finds the route or page of a request.
    #[must_use]
    pub fn find(&self, request: &Request) -> Matched {
        match find(self.routes, &request.method, &request.path) {
            Matched::Nothing => self.find_page(request),
            named @ (Matched::Route(..) | Matched::EmbeddedFile(_) | Matched::OtherMethods(_)) => named,
        }
    }

    fn find_page(&self, request: &Request) -> Matched {
        let is_asked_by_browser =
            || request.headers.accept.as_deref().is_some_and(|accept| accept.contains("text/html"));
        let page = self.pages.find(&request.path);
        match page.or_else(|| self.pages.find_missing(&request.path).filter(|_| is_asked_by_browser())) {
            Some(page) if matches!(request.method.as_str(), "GET" | "HEAD") => Matched::EmbeddedFile(page),
            Some(_) => Matched::OtherMethods(vec!["GET", "HEAD", "OPTIONS"]),
            None => Matched::Nothing,
        }
    }

    /// Drops the body of a request that takes none. `{}` counts as no body.
    ///
    /// # Errors
    /// The refusal of any other body. It comes before authentication, so that the body need not be kept.
    pub(super) fn drop_body(&self, request: &mut Request, named: &Matched) -> Result<(), Problem> {
        let refused = match named {
            Matched::Route(route, _) if route.body == BodyKind::None => {
                input::body(route.body, request).err().map(|problem| not_understood(route, problem))
            }
            Matched::Route(..) => return Ok(()),
            Matched::EmbeddedFile(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        };
        request.body = Vec::new();
        refused.map_or(Ok(()), |problem| Err(self.limited(request, problem)))
    }

    /// Handles a request with its match and its caller. The response is sent now or later.
    pub fn handle(&self, request: &Request, matched: Matched, identity: Identity, mut responder: Responder) {
        let (route, path) = match matched {
            Matched::Route(route, path) => (route, path),
            Matched::EmbeddedFile(page) => return self.show(page, request, responder),
            Matched::OtherMethods(allowed) => return self.without_operation(request, responder, &allowed),
            Matched::Nothing => {
                let problem = Problem::new(Code::NotFound)
                    .detail("There is nothing at this path. The API is described at /api/v1/openapi.json.");
                return responder.refuse(&self.limited(request, problem));
            }
        };
        responder.is_for(route.name);
        let answer = self.check(route, path, request, identity).and_then(|call| {
            if let Some(user_id) = &call.caller.user_id {
                responder.is_by(user_id.as_str());
            }
            (route.handler)(&self.service, &call)
        });
        match answer {
            Ok(Answer::Now(response)) => responder.send(response),
            Ok(Answer::Later(promise)) => promise(responder),
            Err(problem) => responder.refuse(&not_understood(route, problem)),
        }
    }

    /// Sends a page. Pages need no credentials: they contain no data and no secrets.
    fn show(&self, page: &EmbeddedFile, request: &Request, mut responder: Responder) {
        responder.is_for(pages::NAME);
        match self.limit(|| from("address", request)) {
            Ok(()) => responder.send(pages::response(page)),
            Err(problem) => responder.refuse(&problem),
        }
    }

    /// Answers a known path with another method than it has. `OPTIONS` lists the allowed methods.
    fn without_operation(&self, request: &Request, responder: Responder, allowed: &[&str]) {
        let allow = allowed.join(", ");
        if request.method == "OPTIONS" {
            let mut response = Response::empty(204).with("Allow", allow.clone());
            if self.allowed_origin(request).is_some() {
                response = response
                    .with("Access-Control-Allow-Methods", allow)
                    .with(
                        "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, Last-Event-ID, Traceparent, X-Lock-Fence, X-Lock-Workspace, X-Request-Id, X-User-Id, X-User-Name",
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

    /// The CORS headers of a response, if pages of other origins may call.
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

    /// The request's origin, if its pages may call the API.
    #[must_use]
    pub fn allowed_origin<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let origin = request.headers.origin.as_deref()?;
        self.cors_origins.iter().any(|allowed| allowed == origin).then_some(origin)
    }

    fn check<'a>(
        &self,
        route: &'a Route,
        path: Vec<(&'static str, String)>,
        request: &'a Request,
        identity: Identity,
    ) -> Result<Call<'a>, Problem> {
        // A beacon's credentials are in the body, so errors in the body come first.
        input::access_token(route.body, request).map_err(|problem| self.limited(request, problem))?;
        let caller = self.authenticate(route, request, identity)?;
        Ok(Call { request, route, routes: self.routes, path, caller })
    }
}

/// Turns a 400 of the gate into a 403: a proxy would make an error of its own from a 400.
fn not_understood(route: &Route, problem: Problem) -> Problem {
    let closes = route.name == GATE && problem.status() == Code::InvalidRequest.status();
    if closes { gate::closed(problem.sentence()) } else { problem }
}
