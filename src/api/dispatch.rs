//! Dispatches a request by the table of routes: finds its operation, authorises it and runs its handler.

use super::authorize::{Authorizer, Identity};
use super::exchange::{Request, Response};
use super::operation::{Answer, BodyKind, Call, Route};
use super::problem::{Code, Problem};
use super::responder::Responder;
use super::router::{Matched, find};
use super::{gate, input, pages};
use crate::web::Pages;

/// Everything that requests are answered from.
pub struct App {
    /// The table of routes: [`super::routes::ROUTES`].
    pub routes: &'static [Route],
    /// The pages that are enabled.
    pub pages: Pages,
    /// Identifies callers and decides what they may call.
    pub authorizer: Authorizer,
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
    pub(super) fn drop_body(&self, request: &mut Request, matched: &Matched) -> Result<(), Problem> {
        let refused = match matched {
            Matched::Route(route, _) if route.body == BodyKind::None => {
                input::body(route.body, request).err().map(|problem| gate_refusal(route, problem))
            }
            Matched::Route(..) => return Ok(()),
            Matched::EmbeddedFile(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        };
        request.body = Vec::new();
        refused.map_or(Ok(()), |problem| Err(self.authorizer.limited(request, problem)))
    }

    /// Handles a request with its match and its caller. The response is sent now or later.
    pub fn handle(&self, request: &Request, matched: Matched, identity: Identity, mut responder: Responder) {
        let (route, path) = match matched {
            Matched::Route(route, path) => (route, path),
            // Pages need no credentials and have no rate limit: they contain no data and no secrets, they are in
            // memory, and one page consists of more than thirty files.
            Matched::EmbeddedFile(page) => {
                responder.set_operation(pages::NAME, log::Level::Debug);
                return responder.send(pages::response(page));
            }
            Matched::OtherMethods(allowed) => return self.answer_other_method(request, responder, &allowed),
            Matched::Nothing => {
                let problem = Problem::new(Code::NotFound)
                    .detail("Nothing is served at this path. The API is described at /api/v1/openapi.json.");
                return responder.refuse(&self.authorizer.limited(request, problem));
            }
        };
        responder.set_operation(route.name, route.log_level);
        let answer = self.check(route, path, request, identity).and_then(|call| {
            if let Some(user_id) = &call.caller.user_id {
                responder.set_user(user_id.as_str());
            }
            (route.handler)(&self.authorizer.service, &call)
        });
        match answer {
            Ok(Answer::Now(response)) => responder.send(response),
            Ok(Answer::Later(promise)) => promise(responder),
            Err(problem) => responder.refuse(&gate_refusal(route, problem)),
        }
    }

    /// Answers a known path with another method than it has. `OPTIONS` lists the allowed methods.
    fn answer_other_method(&self, request: &Request, responder: Responder, allowed: &[&str]) {
        let allow = allowed.join(", ");
        if request.method == "OPTIONS" {
            let mut response = Response::empty(204).with("Allow", allow.clone());
            if self.authorizer.allowed_origin(request).is_some() {
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
        responder.refuse(&self.authorizer.limited(request, problem));
    }

    /// The CORS headers of a response, if pages of other origins may call.
    #[must_use]
    pub fn cors_headers(&self, request: &Request) -> Vec<(&'static str, String)> {
        if self.authorizer.cors_origins.is_empty() {
            return Vec::new();
        }
        let mut headers = vec![("Vary", "Origin".to_owned())];
        if let Some(origin) = self.authorizer.allowed_origin(request) {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Access-Control-Expose-Headers", "Retry-After, X-Request-Id".to_owned()));
        }
        headers
    }

    fn check<'a>(
        &self,
        route: &'a Route,
        path: Vec<(&'static str, String)>,
        request: &'a Request,
        identity: Identity,
    ) -> Result<Call<'a>, Problem> {
        // A beacon's credentials are in the body, so errors in the body come first.
        input::access_token(route.body, request)
            .map_err(|problem| self.authorizer.limited(request, problem))?;
        let caller = self.authorizer.authenticate(route, request, identity)?;
        Ok(Call { request, route, routes: self.routes, path, caller })
    }
}

/// Turns a 400 of a gate into a 403: a proxy would make an error of its own from a 400.
fn gate_refusal(route: &Route, problem: Problem) -> Problem {
    let closes = route.is_gate() && problem.status() == Code::InvalidRequest.status();
    if closes { gate::closed(problem.sentence()) } else { problem }
}
