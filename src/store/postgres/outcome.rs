//! The outcome of a wait, as text for the node of the waiter.

use serde_json::{Value, json};

use crate::domain::knocks::{Knock, Knocks};
use crate::domain::token::Validity;
use crate::domain::{
    Acquired, DisplayName, Fence, GrantState, Lock, LockKind, SessionId, UserId, WorkspaceId,
};
use crate::error::{Denied, Error};
use crate::time::{Timestamp, Ttl};

/// An outcome as text.
pub(super) fn to_json(outcome: &Result<Acquired, Error>) -> String {
    let value = match outcome {
        Ok(Acquired::Acquired(lock)) => json!({ "is": "acquired", "lock": lock_value(lock) }),
        Ok(Acquired::Renewed(lock)) => json!({ "is": "renewed", "lock": lock_value(lock) }),
        Ok(Acquired::Held { lock, same_user, takeover_allowed, idle }) => json!({
            "is": "held", "lock": lock_value(lock), "same_user": same_user,
            "takeover_allowed": takeover_allowed, "idle": idle.as_millis(),
        }),
        Ok(Acquired::TooMany) => json!({ "is": "too_many" }),
        Err(Error::CredentialsEnded) => json!({ "is": "credentials_ended" }),
        Err(Error::Denied(Denied::NoSuchWorkspace)) => json!({ "is": "no_such_workspace" }),
        Err(Error::Denied(Denied::NotAMember)) => json!({ "is": "not_a_member" }),
        Err(Error::Denied(Denied::NotAnAdmin)) => json!({ "is": "not_an_admin" }),
        // Waits have no other outcomes. The client asks again.
        Ok(_) | Err(_) => json!({ "is": "busy" }),
    };
    value.to_string()
}

/// The outcome from its text. What cannot be read is an outcome of a newer version: the client asks again.
pub(super) fn from_json(text: &str) -> Result<Acquired, Error> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let lock = || lock_of(value.get("lock")?);
    let is = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or_default();
    let outcome = match value.get("is").and_then(Value::as_str) {
        Some("acquired") => lock().map(Acquired::Acquired),
        Some("renewed") => lock().map(Acquired::Renewed),
        Some("held") => lock().map(|lock| Acquired::Held {
            lock,
            same_user: is("same_user"),
            takeover_allowed: is("takeover_allowed"),
            idle: Ttl::from_millis(value.get("idle").and_then(Value::as_i64).unwrap_or_default()),
        }),
        Some("too_many") => Some(Acquired::TooMany),
        Some("credentials_ended") => return Err(Error::CredentialsEnded),
        Some("no_such_workspace") => return Err(Error::Denied(Denied::NoSuchWorkspace)),
        Some("not_a_member") => return Err(Error::Denied(Denied::NotAMember)),
        Some("not_an_admin") => return Err(Error::Denied(Denied::NotAnAdmin)),
        _ => None,
    };
    outcome.ok_or(Error::Busy)
}

fn lock_value(lock: &Lock) -> Value {
    let knock = |knock: &Knock| {
        json!({
            "user_id": knock.user_id.as_str(), "name": knock.name.as_ref().map(DisplayName::as_str),
            "session_id": knock.session_id.as_ref().map(SessionId::as_str), "message": knock.message,
            "for_name": knock.for_name.as_ref().map(DisplayName::as_str), "at": knock.knocked_at.0, "kind": knock.kind.as_str(),
        })
    };
    json!({
        "workspace_id": lock.workspace_id.as_str(), "kind": lock.kind.as_str(), "user_id": lock.user_id.as_str(),
        "for_name": lock.for_name.as_ref().map(DisplayName::as_str),
        "user_name": lock.user_name.as_ref().map(DisplayName::as_str),
        "session_id": lock.session_id.as_ref().map(SessionId::as_str), "fence": lock.fence.0,
        "acquired_at": lock.acquired_at.0, "renewed_at": lock.renewed_at.0,
        "last_active_at": lock.last_active_at.0, "expires_at": lock.expires_at.0, "ttl": lock.ttl.as_millis(),
        "note": lock.note, "metadata": lock.metadata,
        "granted": match lock.grant_state {
            GrantState::Claimed => 0,
            GrantState::ToSession => 1,
            GrantState::ToUser => 2,
            GrantState::InDoubt => 3,
        },
        "check_at": lock.check_at.0, "drain_until": lock.drain_until.map(|until| until.0),
        "knocks": lock.knocks.pending.iter().map(knock).collect::<Vec<_>>(),
        "shown_at": lock.knocks.shown_at.map(|at| at.0), "grant_at": lock.knocks.grant_at.map(|at| at.0),
        "grant_at_latest": lock.knocks.grant_at_latest.map(|at| at.0),
    })
}

/// The fields of an object.
struct OutcomeFields<'v>(&'v Value);

impl OutcomeFields<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    fn at(&self, name: &str) -> Option<Timestamp> {
        self.number(name).map(Timestamp)
    }
}

fn lock_of(value: &Value) -> Option<Lock> {
    let fields = OutcomeFields(value);
    let pending = value.get("knocks")?.as_array()?.iter().map(knock_of).collect::<Option<_>>()?;
    Some(Lock {
        workspace_id: WorkspaceId::trusted(fields.text("workspace_id")?),
        kind: LockKind::parse(&fields.text("kind")?)?,
        user_id: UserId::trusted(fields.text("user_id")?),
        user_name: fields.text("user_name").map(DisplayName::trusted),
        session_id: fields.text("session_id").map(SessionId::trusted),
        for_name: fields.text("for_name").map(DisplayName::trusted),
        fence: Fence(fields.number("fence")?),
        acquired_at: fields.at("acquired_at")?,
        renewed_at: fields.at("renewed_at")?,
        last_active_at: fields.at("last_active_at")?,
        expires_at: fields.at("expires_at")?,
        ttl: Ttl::from_millis(fields.number("ttl")?),
        note: fields.text("note"),
        metadata: fields.text("metadata")?,
        grant_state: match fields.number("granted")? {
            0 => GrantState::Claimed,
            1 => GrantState::ToSession,
            3 => GrantState::InDoubt,
            _ => GrantState::ToUser,
        },
        knocks: Knocks {
            pending,
            declined: Vec::new(),
            shown_at: fields.at("shown_at"),
            grant_at: fields.at("grant_at"),
            grant_at_latest: fields.at("grant_at_latest"),
        },
        check_at: fields.at("check_at")?,
        drain_until: fields.at("drain_until"),
    })
}

fn knock_of(value: &Value) -> Option<Knock> {
    let fields = OutcomeFields(value);
    Some(Knock {
        kind: LockKind::parse(&fields.text("kind")?)?,
        user_id: UserId::trusted(fields.text("user_id")?),
        name: fields.text("name").map(DisplayName::trusted),
        session_id: fields.text("session_id").map(SessionId::trusted),
        message: fields.text("message"),
        for_name: fields.text("for_name").map(DisplayName::trusted),
        knocked_at: fields.at("at")?,
        // For the answer only.
        validity: Validity::Unlimited,
    })
}
