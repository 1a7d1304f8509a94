//! The locks of Terraform and `OpenTofu` states: the `http` backend.
//!
//! The client is <https://github.com/hashicorp/terraform/tree/main/internal/backend/remote-state/http>. It reads the
//! status and, where a state is locked, a [`LockInfo`]. See [`super::dialect`] for credentials and refusals. Lockhouse
//! stores no state.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::exchange::{Request, Response};
use super::fields::{Text, instant};
use super::gate::closed;
use super::input::{self, BodyKind};
use super::json;
use super::locks::{AcquiredOut, ReleasedOut, acquired};
use super::operation::{Answer, Call, Operation, ok};
use super::problem::{Code, Problem};
use super::refusals::{held, holder};
use crate::app::Service;
use crate::app::locks::StoredLock;
use crate::app::terraform::{Unlock, Unlocked};
use crate::domain::rights::Need;
use crate::domain::{
    Acquire, Acquired, Lock, LockKind, METADATA_BYTES, SESSION_BYTES, SessionId, WorkspaceId,
};
use crate::error::Error;
use crate::store::AsOf;
use crate::time::{LeaseClock, Ttl};

/// The name of the schema of [`LockInfo`].
pub(super) const LOCK_INFO: &str = "TerraformLockInfo";

/// The fields of [`LockInfo`]. They are kept first.
const FIELDS: [&str; 7] = ["ID", "Operation", "Info", "Who", "Version", "Created", "Path"];

/// A lock as Terraform reads it. It reads no answer in which one of the fields has another type.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[schemars(rename = "TerraformLockInfo")]
pub struct LockInfo<'a> {
    /// The id of Terraform's lock. Of a lock of another kind: the user id and the fence.
    #[serde(rename = "ID")]
    id: String,
    /// What the lock was taken for. Of a lock of another kind: `edit`.
    operation: String,
    /// Of a lock of another kind: the note and the end of the lease.
    info: String,
    who: String,
    version: String,
    #[schemars(extend("format" = "date-time"))]
    created: String,
    /// The workspace.
    path: &'a WorkspaceId,
    /// The other fields of the request that locked the state.
    #[serde(flatten)]
    #[schemars(with = "BTreeMap<String, Value>")]
    others: BTreeMap<String, Box<RawValue>>,
}

/// Lock a Terraform state
///
/// For `lock_address` of the `http` backend, whose default method is `LOCK` at `/terraform/{workspace_id}`. The same `ID`
/// again is answered with 200 and the same fence. A lock of anybody else, or of another kind, is 423 with a lock info. The
/// body is the lock info of Terraform. It is kept as `metadata.terraform`, up to 4 KiB.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct AcquireStateLock {
    workspace_id: WorkspaceId,
    /// The id of the lock. It is the lock's `session_id`.
    #[serde(rename = "ID")]
    id: SessionId,
    /// Length of the lease, in milliseconds. It is clamped to `locks.min_ttl` and `kinds.terraform.max_ttl`.
    ttl_ms: Option<Ttl>,
}

/// Unlock a Terraform state
///
/// For `unlock_address` of the `http` backend, whose default method is `UNLOCK` at `/terraform/{workspace_id}`. If nothing
/// is locked, the answer is 200 too. The lock of another user needs the right to take locks over. Another `ID`, or a lock
/// of another kind, is 409 with a lock info. Without an `ID`, as `terraform force-unlock` sends it, the lock of Terraform
/// is ended, with any id.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ReleaseStateLock {
    workspace_id: WorkspaceId,
    /// The id of the lock. The one in the body goes before the one in the query.
    #[serde(rename = "ID")]
    id: Option<Text<SESSION_BYTES>>,
}

/// Check whether a Terraform state may be written
///
/// For the sub-request of a proxy in front of the store of the states: Terraform sends the `ID` of its lock with each
/// write. 204 if the caller holds the lock with this `ID` now. Anything else is 403, also a missing `ID`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PassStateGate {
    workspace_id: WorkspaceId,
    /// The id of the lock.
    #[serde(rename = "ID")]
    id: Option<Text<SESSION_BYTES>>,
}

impl Operation for AcquireStateLock {
    type Output = AcquiredOut<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let request = Acquire {
            kind: LockKind::Terraform,
            user_name: call.display_name(None),
            session_id: Some(self.id),
            ttl: self.ttl_ms,
            metadata: Some(metadata(call.request)?),
            ..Acquire::new(self.workspace_id, call.user()?.clone())
        };
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.acquire(actor, request, done),
            |at: &AsOf<Acquired>, clock| match &at.value {
                Acquired::Held { lock, .. } => Err(locked(Code::StateLocked, lock, clock)),
                Acquired::Acquired(_)
                | Acquired::Renewed(_)
                | Acquired::Reclaimed(_)
                | Acquired::TakenOver { .. }
                | Acquired::FenceMismatch(_)
                | Acquired::TakeoverForbidden(_)
                | Acquired::TooMany => acquired(&at.value, at.now, clock),
            },
        )
    }
}

impl Operation for ReleaseStateLock {
    type Output = ReleasedOut;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let request = Unlock {
            workspace_id: self.workspace_id,
            user_id: call.user()?.clone(),
            user_name: call.display_name(None),
            id: self.id.and_then(Text::not_empty),
        };
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.unlock_state(actor, request, done),
            |at: &AsOf<Unlocked>, clock| match &at.value {
                Unlocked::Unlocked => Ok(ok(&ReleasedOut { released: true })),
                Unlocked::Nothing => Ok(ok(&ReleasedOut { released: false })),
                Unlocked::OtherLock(lock) => Err(locked(Code::OtherStateLock, lock, clock)),
                Unlocked::Forbidden(lock) => {
                    let detail =
                        format!("You may not end the lock of {}. Ask an administrator.", holder(lock));
                    Err(held(Code::TakeoverForbidden, detail, lock, at.now, clock))
                }
            },
        )
    }
}

impl Operation for PassStateGate {
    type Output = ();

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let nothing = || closed("This is not the live lock of this state.");
        // A holder who has lost the right to edit is refused, even while the lock row still exists.
        match service.may(&call.caller.actor(), &self.workspace_id, Need::Edit) {
            Err(Error::Denied(_)) => return Err(nothing()),
            other => other?,
        }
        let id = self.id.and_then(Text::not_empty);
        let user_id = call.user()?;
        match service.stored_lock(&self.workspace_id)?.value {
            StoredLock::Live(lock)
                if lock.user_id == *user_id && id.is_some_and(|id| lock.is_state_lock(&id)) =>
            {
                Ok(Answer::Now(Response::empty(204)))
            }
            StoredLock::Live(_) | StoredLock::Due(_) | StoredLock::Free => Err(nothing()),
        }
    }
}

/// The refusal that shows the lock.
fn locked(code: Code, lock: &Lock, clock: &LeaseClock) -> Problem {
    Problem::new(code).with(&LockInfo::of(lock, clock))
}

/// The body of a request as metadata of the lock. Fields that have no room are left out, those of [`FIELDS`] last: a
/// newer Terraform with a longer body can still lock.
fn metadata(request: &Request) -> Result<String, Problem> {
    let mut members = input::body(BodyKind::Terraform, request)?;
    members.sort_by_key(|(name, _)| !FIELDS.contains(&name.as_str()));
    let mut text = "{\"terraform\":{".to_owned();
    for (name, raw) in members {
        let value = json::compact(raw)
            .map_err(|invalid| invalid.under(&name))
            .map_err(|invalid| Problem::invalid(&invalid.field, &invalid.reason))?;
        let comma = if text.ends_with('{') { "" } else { "," };
        let member = format!("{comma}{}:{value}", json::quoted(&name));
        if text.len() + member.len() + "}}".len() <= METADATA_BYTES {
            text.push_str(&member);
        }
    }
    text.push_str("}}");
    Ok(text)
}

/// The metadata of a lock of Terraform.
#[derive(Default, Deserialize)]
struct Kept {
    #[serde(default)]
    terraform: BTreeMap<String, Box<RawValue>>,
}

impl<'a> LockInfo<'a> {
    fn of(lock: &'a Lock, clock: &LeaseClock) -> Self {
        let acquired_at = || clock.wall_at(lock.acquired_at).to_rfc3339();
        if lock.kind != LockKind::Terraform {
            let note = lock.note.as_deref().map(|note| format!("{note} — ")).unwrap_or_default();
            let end = clock.wall_at(lock.expires_at).to_rfc3339();
            return Self {
                id: format!("{}-{}", lock.user_id.as_str(), lock.fence.0),
                operation: LockKind::Edit.as_str().to_owned(),
                info: format!("{note}until {end}, or longer if it is renewed"),
                who: who(lock),
                version: String::new(),
                created: acquired_at(),
                path: &lock.workspace_id,
                others: BTreeMap::new(),
            };
        }
        let mut kept = serde_json::from_str::<Kept>(&lock.metadata).unwrap_or_default().terraform;
        let [id, operation, info, who, version, created, _] =
            FIELDS.map(|name| kept.remove(name).map(|raw| text(&raw)).unwrap_or_default());
        let created = if is_instant_in_go(&created) { created } else { acquired_at() };
        Self { id, operation, info, who, version, created, path: &lock.workspace_id, others: kept }
    }
}

/// `Carol Martin (carol)`
fn who(lock: &Lock) -> String {
    let user_id = lock.user_id.as_str();
    match &lock.user_name {
        Some(name) => format!("{} ({user_id})", name.as_str()),
        None => user_id.to_owned(),
    }
}

/// A field as text.
fn text(raw: &RawValue) -> String {
    serde_json::from_str::<Option<String>>(raw.get())
        .map_or_else(|_| raw.get().to_owned(), Option::unwrap_or_default)
}

/// Whether Go's `time.Time` reads this text from JSON. It takes capital letters only.
fn is_instant_in_go(text: &str) -> bool {
    !text.contains(['t', 'z']) && instant(text).is_ok()
}
