//! Operations of the API: a row of the table of routes, a call, and its response.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dialect::Dialect;
pub use super::exchange::JSON;
use super::exchange::{Request, Response};
use super::fields::Name;
use super::input;
pub use super::input::BodyKind;
use super::problem::{Code, Problem};
use super::responder::Responder;
use crate::app::Service;
use crate::auth::Caller;
use crate::domain::event::Author;
use crate::domain::rights::Need;
pub use crate::domain::rights::Right;
use crate::domain::{DisplayName, LockKind, UserId, WorkspaceId};
use crate::error::Error;
use crate::time::LeaseClock;

/// The refusal of an agent that asks for a lock of another kind.
pub const AGENTS_ONLY: &str = "This token is an agent's: it takes locks of the kind agent only.";

/// An operation of the API: its input and its implementation.
///
/// The fields of the type are the fields of the path, the query and the body. Its doc comment becomes the
/// description in the OpenAPI document; the first line becomes the summary.
pub trait Operation: DeserializeOwned + JsonSchema {
    /// The response body of a success.
    type Output: JsonSchema;

    /// Runs a call.
    ///
    /// # Errors
    /// The refusal.
    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem>;
}

/// A row of the table of routes.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// The name of the operation in the OpenAPI document, the log and the metrics.
    pub name: &'static str,
    /// The right that the caller must have.
    pub right: Right,
    /// How the operation uses the store.
    pub store: StoreAccess,
    /// The function that runs a call.
    pub handler: Handler,
    /// The kind of body that it takes.
    pub body: BodyKind,
    /// The fields that may also be in the query, if the operation takes a body.
    ///
    /// Without a body, all fields that are not in the path may be in the query.
    pub in_query: &'static [&'static str],
    /// The level of the log line of a success.
    pub log_level: log::Level,
    /// The status of a success.
    pub status: u16,
    /// The media type of a success; empty if it has no body.
    pub media_type: &'static str,
    /// The schemas of the input and of the response body of a success.
    pub schemas: [fn(&mut SchemaGenerator) -> Schema; 2],
    /// The operation's own refusals. Others follow from the rest of the row: see [`Route::refusals`].
    pub problems: &'static [Code],
}

/// The function that runs a call.
pub type Handler = fn(&Arc<Service>, &Call) -> Result<Answer, Problem>;

impl Route {
    /// A row for all callers, with no input and a JSON response.
    #[must_use]
    pub const fn new(method: &'static str, path: &'static str, name: &'static str, handler: Handler) -> Self {
        Self {
            method,
            path,
            name,
            right: Right::Open,
            store: StoreAccess::None,
            handler,
            body: BodyKind::None,
            in_query: &[],
            log_level: log::Level::Debug,
            status: 200,
            media_type: JSON,
            schemas: [<()>::json_schema, <()>::json_schema],
            problems: &[],
        }
    }

    /// The row of the operation `T`.
    #[must_use]
    pub const fn of<T: Operation>(method: &'static str, path: &'static str, name: &'static str) -> Self {
        let handler: Handler = |service, call| call.read::<T>()?.run(service, call);
        Self {
            schemas: [T::json_schema, SchemaGenerator::subschema_for::<T::Output>],
            ..Self::new(method, path, name, handler)
        }
    }

    /// Sets the required right, and the use of the store.
    #[must_use]
    pub const fn allow(self, right: Right, store: StoreAccess) -> Self {
        Self { right, store, ..self }
    }

    /// Sets the kind of body, and the fields that may also be in the query.
    #[must_use]
    pub const fn body(self, body: BodyKind, in_query: &'static [&'static str]) -> Self {
        Self { body, in_query, ..self }
    }

    /// Logs successes at `info`: nothing else logs this change.
    #[must_use]
    pub const fn log_at_info(self) -> Self {
        Self { log_level: log::Level::Info, ..self }
    }

    /// Sets the status and the media type of a success.
    #[must_use]
    pub const fn answer(self, status: u16, media_type: &'static str) -> Self {
        Self { status, media_type, ..self }
    }

    /// Sets the operation's own refusals.
    #[must_use]
    pub const fn refuse(self, problems: &'static [Code]) -> Self {
        Self { problems, ..self }
    }

    /// Whether a proxy calls the operation for its decision.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        [GATE, STATE_GATE].contains(&self.name)
    }

    /// Whether the OpenAPI document can contain the operation. It cannot name `LOCK` and `UNLOCK`, so other methods stand for
    /// them.
    #[must_use]
    pub fn has_openapi_method(&self) -> bool {
        !["LOCK", "UNLOCK"].contains(&self.method)
    }

    /// All codes of refusals that the operation may have.
    #[must_use]
    pub fn refusals(&self) -> Vec<Code> {
        let mut codes = vec![Code::InvalidRequest, Code::RateLimited, Code::Internal];
        if self.right != Right::Open {
            codes.extend([Code::Unauthenticated, Code::Forbidden]);
        }
        if self.body != BodyKind::None {
            codes.push(Code::UnsupportedMediaType);
            // The HTTP layer refuses a large body. It writes problem documents only.
            codes.extend(Some(Code::BodyTooLarge).filter(|_| Dialect::of(self.path) != Dialect::Lfs));
        }
        match self.store {
            StoreAccess::None | StoreAccess::Reads => {}
            StoreAccess::Writes | StoreAccess::ReadsThenWrites => {
                codes.extend([Code::Busy, Code::StorageFull]);
            }
        }
        if self.path.contains("{workspace_id}") && self.right != Right::Serve {
            codes.push(Dialect::of(self.path).no_workspace());
        }
        codes.extend(self.problems);
        // A gate answers an invalid request with a 403.
        codes.retain(|code| !self.is_gate() || *code != Code::InvalidRequest);
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

/// The name of the gate operation. A proxy calls it and understands only 204, 401 and 403.
pub const GATE: &str = "passGate";
/// See [`GATE`].
pub const STATE_GATE: &str = "passStateGate";

/// How an operation uses the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAccess {
    /// Not at all.
    None,
    /// It only reads.
    Reads,
    /// It only writes.
    Writes,
    /// It reads, and then writes based on what it read.
    ReadsThenWrites,
}

/// A call of an operation.
pub struct Call<'a> {
    /// The request.
    pub request: &'a Request,
    /// The row of its operation.
    pub route: &'a Route,
    /// The table of routes.
    pub routes: &'static [Route],
    /// The path parameters, still percent-encoded.
    pub path: Vec<(&'static str, String)>,
    /// The caller.
    pub caller: Caller,
}

impl Call<'_> {
    /// Deserializes the input from the path, the query and the body.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        input::read(&self.path, self.request, self.route.body, self.route.in_query)
    }

    /// The user who calls. Routes that require [`Right::Lock`] always have one.
    ///
    /// # Errors
    /// A 401 if the credentials name no user.
    pub fn user(&self) -> Result<&UserId, Problem> {
        self.caller.user_id.as_ref().ok_or_else(|| Problem::new(Code::Unauthenticated))
    }

    /// Checks that the caller has the role that `need` requires on a workspace.
    ///
    /// # Errors
    /// The reason why not.
    pub fn may(&self, service: &Service, workspace_id: &WorkspaceId, need: Need) -> Result<(), Problem> {
        Ok(service.may(&self.caller.actor(), workspace_id, need)?)
    }

    /// The caller's display name: from the credentials or, if they have none, from the request.
    #[must_use]
    pub fn display_name(&self, said: Option<Name>) -> Option<DisplayName> {
        let vouched_for = self.caller.name.clone();
        if self.caller.is_named { vouched_for } else { said.and_then(|name| name.0).or(vouched_for) }
    }

    /// Who holds a lock of this kind if the caller takes it. `said` is the name in the request.
    ///
    /// # Errors
    /// A 401 if the credentials name no user; a 403 if an agent asks for a lock of another kind.
    pub fn holder(&self, kind: LockKind, said: Option<Name>) -> Result<Holder, Problem> {
        let user_id = self.user()?.clone();
        let caller = &self.caller;
        if caller.is_agent && !kind.is_agent() {
            return Err(Problem::new(Code::Forbidden).detail(AGENTS_ONLY));
        }
        let (name, for_name) = match (kind.is_agent(), caller.is_agent) {
            (true, true) => (self.display_name(said), caller.for_name.clone()),
            // The name of the credentials is that of the user.
            (true, false) => (said.and_then(|name| name.0), caller.name.clone()),
            (false, _) => (self.display_name(said), None),
        };
        Ok(Holder { user_id, name, for_name })
    }

    /// The caller as the author of an event. `None` if the credentials name no user.
    #[must_use]
    pub fn author(&self) -> Option<Author> {
        self.caller.user_id.clone().map(|user_id| Author::new(user_id, self.caller.name.clone()))
    }
}

/// Who holds a lock, or asks for it.
pub struct Holder {
    /// Id of the user. An agent has that of the user for whom it acts.
    pub user_id: UserId,
    /// Display name of the user or of the agent.
    pub name: Option<DisplayName>,
    /// For an agent: display name of the user for whom it acts.
    pub for_name: Option<DisplayName>,
}

/// The answer to a call.
pub enum Answer {
    /// The response is ready.
    Now(Response),
    /// The closure gets the responder and answers later.
    Later(Box<dyn FnOnce(Responder)>),
}

impl Answer {
    /// An answer by `promise`, which gets the responder.
    pub fn later(promise: impl FnOnce(Responder) + 'static) -> Self {
        Self::Later(Box::new(promise))
    }

    /// A response with 200 and `value` as JSON.
    ///
    /// # Errors
    /// None. The type fits the end of a handler.
    pub fn now(value: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self::Now(ok(value)))
    }

    /// An answer by a use case: `start` starts it, and `show` converts its outcome.
    ///
    /// # Errors
    /// None. The type fits the end of a handler.
    pub fn of<T: 'static>(
        service: &Arc<Service>,
        start: impl FnOnce(&Arc<Service>, Completion<T>) + 'static,
        show: impl FnOnce(&T, &LeaseClock) -> Result<Response, Problem> + Send + 'static,
    ) -> Result<Self, Problem> {
        let service = Arc::clone(service);
        Ok(Self::later(move |responder| {
            let shown = Arc::clone(&service);
            let done = move |outcome: Result<T, Error>| {
                responder.send_with(|| {
                    outcome.map_err(Problem::from).and_then(|value| show(&value, shown.clock()))
                });
            };
            start(&service, Box::new(done));
        }))
    }
}

/// The callback for the outcome of a use case.
pub type Completion<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// A response with 200 and `value` as JSON.
#[must_use]
pub fn ok(value: &impl Serialize) -> Response {
    with_status(200, value)
}

/// A response with `status` and `value` as JSON.
#[must_use]
pub fn with_status(status: u16, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            // A line end, so that the prompt of a shell starts on its own line.
            body.push(b'\n');
            Response::of(status, JSON, body)
        }
        Err(error) => {
            log::error!("an answer cannot be written as JSON: {error}");
            Response::empty(500)
        }
    }
}

/// The page of `found`, and the cursor of the next page if there is one.
///
/// `found` has one entry more than `limit` if there are more pages.
pub fn page<'a, T, C>(found: &'a [T], limit: usize, cursor: impl Fn(&'a T) -> C) -> (&'a [T], Option<C>) {
    let shown = found.get(..limit).unwrap_or(found);
    (shown, shown.last().filter(|_| found.len() > shown.len()).map(cursor))
}
