//! An operation of the API: its row of the table, a call of it, and its answer.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exchange::{Request, Response};
use super::fields::Name;
use super::input;
pub use super::input::BodyKind;
use super::problem::{Code, Problem};
use super::responder::Responder;
use crate::app::Service;
use crate::auth::Caller;
use crate::domain::event::Author;
use crate::domain::member::Need;
use crate::domain::{DisplayName, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::LeaseClock;

/// The media type of most answers.
pub const JSON: &str = "application/json";

/// What an operation takes, and what it does with it. The fields of the type are those of the path, the query and the
/// body; its doc comment describes the operation in the OpenAPI document, the first line in short.
pub trait Operation: DeserializeOwned + JsonSchema {
    /// The body of the answer when it goes well.
    type Output: JsonSchema;

    /// Carries out a call.
    ///
    /// # Errors
    /// The refusal.
    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem>;
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Its name in the OpenAPI document, the log and the metrics.
    pub name: &'static str,
    /// What the caller must be allowed.
    pub right: Right,
    /// What it does to the store.
    pub store: Touches,
    /// What carries it out.
    pub handler: Handler,
    /// What its body may be.
    pub body: BodyKind,
    /// The fields that may stand in the query, too, where there is a body. Without one, all may that are not in the path.
    pub in_query: &'static [&'static str],
    /// The status of the answer when it goes well.
    pub status: u16,
    /// The media type of that answer; empty when it has no body.
    pub media_type: &'static str,
    /// The schemas of what it takes, and of that answer.
    pub schemas: [fn(&mut SchemaGenerator) -> Schema; 2],
    /// The refusals that are its own. Others follow from the rest of the row: see [`Route::refusals`].
    pub problems: &'static [Code],
}

/// Carries out a call.
pub type Handler = fn(&Arc<Service>, &Call) -> Result<Answer, Problem>;

impl Route {
    /// A row that anybody may call, which takes nothing and answers with JSON.
    #[must_use]
    pub const fn new(method: &'static str, path: &'static str, name: &'static str, handler: Handler) -> Self {
        Self {
            method,
            path,
            name,
            right: Right::Open,
            store: Touches::Nothing,
            handler,
            body: BodyKind::None,
            in_query: &[],
            status: 200,
            media_type: JSON,
            schemas: [<()>::json_schema, <()>::json_schema],
            problems: &[],
        }
    }

    /// The row of an operation.
    #[must_use]
    pub const fn of<T: Operation>(method: &'static str, path: &'static str, name: &'static str) -> Self {
        let handler: Handler = |service, call| call.read::<T>()?.run(service, call);
        Self {
            schemas: [T::json_schema, SchemaGenerator::subschema_for::<T::Output>],
            ..Self::new(method, path, name, handler)
        }
    }

    /// For callers who are allowed this, and what it does to the store.
    #[must_use]
    pub const fn allow(self, right: Right, store: Touches) -> Self {
        Self { right, store, ..self }
    }

    /// With a body; these fields may stand in the query, too.
    #[must_use]
    pub const fn body(self, body: BodyKind, in_query: &'static [&'static str]) -> Self {
        Self { body, in_query, ..self }
    }

    /// Answered with this status and media type when it goes well.
    #[must_use]
    pub const fn answer(self, status: u16, media_type: &'static str) -> Self {
        Self { status, media_type, ..self }
    }

    /// With refusals of its own.
    #[must_use]
    pub const fn refuse(self, problems: &'static [Code]) -> Self {
        Self { problems, ..self }
    }

    /// Every code that it can be refused with.
    #[must_use]
    pub fn refusals(&self) -> Vec<Code> {
        let mut codes = vec![Code::InvalidRequest, Code::RateLimited];
        if self.right != Right::Open {
            codes.extend([Code::Unauthenticated, Code::Forbidden]);
        }
        if self.body != BodyKind::None {
            codes.extend([Code::BodyTooLarge, Code::UnsupportedMediaType]);
        }
        match self.store {
            Touches::Nothing => {}
            Touches::Reads => codes.push(Code::Internal),
            Touches::Writes | Touches::ReadsAndWrites => {
                codes.extend([Code::Internal, Code::Busy, Code::StorageFull]);
            }
        }
        if self.path.contains("{workspace_id}") && self.right != Right::Serve {
            codes.push(Code::WorkspaceNotFound);
        }
        codes.extend(self.problems);
        // What is asked of the gate and cannot be understood closes it.
        codes.retain(|code| self.name != GATE || *code != Code::InvalidRequest);
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The name of the operation that a proxy asks: it understands nothing but 204, 401 and 403.
pub const GATE: &str = "passGate";

/// What the caller must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing: it says nothing about locks.
    Open,
    /// To see locks.
    Read,
    /// To have locks: the caller must be somebody.
    Lock,
    /// To watch over the server.
    Monitor,
    /// To manage workspaces, members and users for an app.
    Serve,
    /// To administer the server.
    Administer,
}

impl Right {
    /// Whose credentials have it, for a sentence.
    #[must_use]
    pub const fn scopes(self) -> &'static str {
        match self {
            Self::Open | Self::Read => "read, user, service or admin",
            Self::Lock => "user, service or admin",
            Self::Monitor => "read, service or admin",
            Self::Serve => "service or admin",
            Self::Administer => "admin",
        }
    }
}

/// What an operation does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touches {
    /// Nothing.
    Nothing,
    /// It reads.
    Reads,
    /// It writes.
    Writes,
    /// It reads, and then writes what follows from it.
    ReadsAndWrites,
}

/// A call of an operation.
pub struct Call<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its row of the table.
    pub route: &'a Route,
    /// The table.
    pub routes: &'static [Route],
    /// The parameters of the path, still percent-encoded.
    pub path: Vec<(&'static str, String)>,
    /// Who is calling.
    pub caller: Caller,
}

impl Call<'_> {
    /// What the path, the query and the body say.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        input::read(&self.path, self.request, self.route.body, self.route.in_query)
    }

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
        Ok(service.may(&self.caller.actor(), workspace_id, need)?)
    }

    /// How the caller is shown: as their credentials say or, if those say nothing, as the request says.
    #[must_use]
    pub fn display_name(&self, said: Option<Name>) -> Option<DisplayName> {
        let vouched_for = self.caller.name.clone();
        if self.caller.is_named { vouched_for } else { said.and_then(|name| name.0).or(vouched_for) }
    }

    /// Who does it, for the history; nothing when the caller is nobody in particular.
    #[must_use]
    pub fn author(&self) -> Option<Author> {
        self.caller.user_id.clone().map(|user_id| Author::person(user_id, self.caller.name.clone()))
    }
}

/// How a call is answered.
pub enum Answer {
    /// At once.
    Now(Response),
    /// By the owner of the responder.
    Later(Box<dyn FnOnce(Responder)>),
}

impl Answer {
    /// `promise` gets the responder.
    pub fn later(promise: impl FnOnce(Responder) + 'static) -> Self {
        Self::Later(Box::new(promise))
    }

    /// At once, with 200 and `value` as JSON.
    ///
    /// # Errors
    /// None; it ends a handler.
    pub fn now(value: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self::Now(ok(value)))
    }

    /// With what `show` makes of the outcome of a use case, which `start` starts.
    ///
    /// # Errors
    /// None; it ends a handler.
    pub fn of<T: 'static>(
        service: &Arc<Service>,
        start: impl FnOnce(&Arc<Service>, Completion<T>) + 'static,
        show: impl FnOnce(&T, &LeaseClock) -> Result<Response, Problem> + Send + 'static,
    ) -> Result<Self, Problem> {
        let service = Arc::clone(service);
        Ok(Self::later(move |responder| {
            let shown = Arc::clone(&service);
            let done = move |outcome: Result<T, Error>| {
                let request_id = responder.request_id().to_owned();
                responder.send_with(|| {
                    let response =
                        outcome.map_err(Problem::from).and_then(|value| show(&value, shown.clock()));
                    response.unwrap_or_else(|problem| problem.to_response(&request_id))
                });
            };
            start(&service, Box::new(done));
        }))
    }
}

/// The end of a use case.
pub type Completion<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// 200 with `value` as JSON.
#[must_use]
pub fn ok(value: &impl Serialize) -> Response {
    with_status(200, value)
}

/// This status with `value` as JSON.
#[must_use]
pub fn with_status(status: u16, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            // So that the next prompt stands on a line of its own.
            body.push(b'\n');
            Response::of(status, JSON, body)
        }
        Err(error) => {
            log::error!("an answer cannot be written as JSON: {error}");
            Response::empty(500)
        }
    }
}

/// A page of `found`, which has one more than fits if there are more, and where the next begins.
pub fn page<'a, T, C>(found: &'a [T], limit: usize, cursor: impl Fn(&'a T) -> C) -> (&'a [T], Option<C>) {
    let shown = found.get(..limit).unwrap_or(found);
    (shown, shown.last().filter(|_| found.len() > shown.len()).map(cursor))
}
