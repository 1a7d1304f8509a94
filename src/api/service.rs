//! Operations about the server itself, and about the caller.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::exchange::Response;
use super::lock::AgentOut;
use super::openapi;
use super::operation::{Answer, Call, JSON, Operation, ok};
use super::problem::Problem;
use crate::app::invariants;
use crate::app::{Ready, Service};
use crate::auth::Scope;
use crate::config::AuthMode;
use crate::domain::{DisplayName, Fence, UserId, WorkspaceId};
use crate::metrics::Metrics;
use crate::time::WallTime;

/// Check that the process is up
///
/// Does not use the store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IsUp {}

/// Check that the store takes a write
///
/// Writes to the disk.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IsReady {}

/// The state of the server.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub struct Health {
    #[schemars(extend("enum" = ["up", "ready"]))]
    status: &'static str,
    version: &'static str,
}

impl Health {
    const fn new(status: &'static str) -> Self {
        Self { status, version: env!("CARGO_PKG_VERSION") }
    }
}

impl Operation for IsUp {
    type Output = Health;

    fn run(self, _: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        Answer::now(&Health::new("up"))
    }
}

impl Operation for IsReady {
    type Output = Health;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        Answer::of(
            service,
            |service, done| service.ready(done),
            |ready, _| match ready {
                Ready::Yes => Ok(ok(&Health::new("ready"))),
                Ready::Unreadable => {
                    Err(Problem::busy("The store cannot be read. The log of the server has the cause."))
                }
            },
        )
    }
}

/// Read the metrics for Prometheus
///
/// In the Prometheus text format, version 0.0.4.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadMetrics {}

/// The text of the metrics.
#[derive(JsonSchema)]
#[schemars(rename = "Metrics")]
#[expect(dead_code, reason = "it is a schema")]
pub struct MetricsText(String);

impl Operation for ReadMetrics {
    type Output = MetricsText;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        let text = service.updated_metrics()?.to_text();
        Ok(Answer::Now(Response::of(200, Metrics::CONTENT_TYPE, text.into_bytes())))
    }
}

/// Read this document
///
/// OpenAPI 3.1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadOpenApi {}

/// An OpenAPI document.
pub struct OpenApi;

impl JsonSchema for OpenApi {
    fn schema_name() -> Cow<'static, str> {
        "OpenApi".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "required": ["openapi", "info", "paths"] })
    }
}

impl Operation for ReadOpenApi {
    type Output = OpenApi;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        static DOCUMENTS: [OnceLock<Vec<u8>>; 4] = [const { OnceLock::new() }; 4];
        let mode = service.auth_mode();
        let known = AuthMode::WORDS.iter().zip(&DOCUMENTS).find(|((_, known), _)| *known == mode);
        let make = || openapi::document(call.routes, mode).to_string().into_bytes();
        let document = known.map_or_else(make, |(_, document)| document.get_or_init(make).clone());
        Ok(Answer::Now(Response::of(200, JSON, document)))
    }
}

/// Read who the caller is
///
/// For finding out why a request is refused. `user_id` is null if the credentials name no user. `scope` is the
/// scope of the token; null without a token. `expires_at` is when the credentials expire; null if they do not, or
/// if the time is unknown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoAmI {}

/// The caller.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Caller")]
pub struct CallerOut<'a> {
    user_id: Option<&'a UserId>,
    name: Option<&'a DisplayName>,
    mode: AuthMode,
    scope: Option<Scope>,
    /// For the token of an AI agent.
    agent: Option<AgentOut<'a>>,
    is_admin: bool,
    expires_at: Option<WallTime>,
}

impl Operation for WhoAmI {
    type Output = CallerOut<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let caller = &call.caller;
        Answer::now(&CallerOut {
            user_id: caller.user_id.as_ref(),
            name: caller.name.as_ref(),
            mode: service.auth_mode(),
            scope: caller.token_scope(),
            agent: caller.user_id.as_ref().filter(|_| caller.is_agent).map(|user_id| AgentOut {
                name: caller.name.as_ref(),
                for_user_id: user_id,
                for_name: caller.for_name.as_ref(),
            }),
            is_admin: caller.scope == Scope::Admin,
            expires_at: caller.expires_at,
        })
    }
}

/// Check the database for violations and repair them
///
/// Violations are: a lock whose holder may not hold it or whose workspace does not exist (if membership is
/// enforced), an expired row, and a fence above the fence counter. At most 500 of each kind are reported.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckInvariants {}

/// The violations that were found and repaired.
#[derive(Serialize, JsonSchema)]
pub struct Checked<'a> {
    violations: Vec<Violation<'a>>,
    repaired: usize,
}

#[derive(Serialize, JsonSchema)]
struct Violation<'a> {
    /// Only SQLite has `wrong_lock_count`: PostgreSQL counts the rows.
    kind: invariants::FindingKind,
    workspace_id: Option<&'a WorkspaceId>,
    fence: Option<Fence>,
}

impl Operation for CheckInvariants {
    type Output = Checked<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let found = service.repair(call.author().as_ref())?;
        let violations = found.iter().map(|violation| Violation {
            kind: violation.kind,
            workspace_id: violation.lock.as_ref().map(|(workspace_id, _)| workspace_id),
            fence: violation.lock.as_ref().map(|(_, fence)| *fence),
        });
        Answer::now(&Checked { violations: violations.collect(), repaired: found.len() })
    }
}
