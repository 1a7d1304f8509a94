//! The shapes of the answers, as JSON schemas for the OpenAPI document. A test holds every answer against them.

use serde_json::{Map, Value, json};

use super::fields::GREATEST;
use super::problem::Code;
use crate::app::MAX_PRESENT_USERS;
use crate::app::invariants;
use crate::auth::Scope;
use crate::config::AuthMode;
use crate::domain::event::EventType;
use crate::domain::member::Role;

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// The schema of a code: `lock_held` → `ProblemLockHeld`.
pub(super) fn problem_schema(code: Code) -> String {
    let words = code.name().split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    });
    format!("Problem{}", words.collect::<String>())
}

/// An object with just these members, all of them there.
pub(super) fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    at_most(members, None)
}

/// An object with these members, and perhaps those.
fn at_most(
    members: impl IntoIterator<Item = (&'static str, Value)>,
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Value {
    let named = |(name, schema): (&str, Value)| (name.to_owned(), schema);
    let mut properties: Map<_, _> = members.into_iter().map(named).collect();
    let required: Vec<_> = properties.keys().cloned().collect();
    properties.extend(more.into_iter().map(named));
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

fn nullable(schema: &str) -> Value {
    json!({ "oneOf": [reference(schema), { "type": "null" }] })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn maybe_text() -> Value {
    json!({ "type": ["string", "null"] })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn instant() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn milliseconds() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn maybe_milliseconds() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 0 })
}

fn fence() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": GREATEST })
}

fn maybe_fence() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 1, "maximum": GREATEST })
}

fn list(of: &str) -> Value {
    json!({ "type": "array", "items": reference(of) })
}
pub(super) fn schemas() -> Map<String, Value> {
    let page = |name: &'static str, of| object([(name, list(of)), ("next_cursor", maybe_text())]);
    let own = [
        ("Lock", lock()),
        ("Lost", lost()),
        ("Event", object(event())),
        ("WorkspaceEvent", object(event_of_a_workspace())),
        ("ToldEvent", object(event_of_a_workspace().chain([("lock", nullable("Lock"))]))),
        (
            "Acquired",
            at_most(
                [
                    ("outcome", json!({ "enum": ["acquired", "renewed", "reclaimed", "taken_over"] })),
                    ("lock", reference("Lock")),
                ],
                [("previous", reference("Lock"))],
            ),
        ),
        ("LockState", object([("locked", boolean()), ("lock", nullable("Lock"))])),
        ("Renewed", at_most(renewed(), [("session_id", text())])),
        ("RenewedMany", object([("results", json!({ "type": "array", "items": { "oneOf": in_batch() } }))])),
        ("Released", object([("released", boolean())])),
        ("ReleasedMany", object([("released", count())])),
        ("LockPage", page("locks", "Lock")),
        ("History", page("events", "Event")),
        ("WholeHistory", page("events", "WorkspaceEvent")),
        ("Caller", caller()),
        ("Heard", object([("knock", reference("Knock")), ("lock", reference("Lock"))])),
        ("HandedOver", object([("handed_over", json!({ "const": true })), ("lock", reference("Lock"))])),
        ("Declined", object([("declined", boolean())])),
        ("Knock", knock()),
        ("Presence", presence()),
        ("Workspace", workspace()),
        ("WorkspacePage", page("workspaces", "Workspace")),
        ("Deleted", object([("deleted", boolean())])),
        ("Member", member()),
        ("MemberPage", page("members", "Member")),
        ("Removed", object([("removed", boolean())])),
        ("Checked", object([("violations", list("Violation")), ("repaired", count())])),
        ("Violation", violation()),
        ("Token", object(token())),
        ("NewToken", object(token().into_iter().chain([("token", text())]))),
        ("TokenPage", page("tokens", "Token")),
        ("Revoked", object([("revoked", boolean())])),
        ("Status", object([("status", json!({ "enum": ["up", "ready"] })), ("version", text())])),
        ("Metrics", text()),
        ("EventStream", event_stream()),
        ("OpenApi", json!({ "type": "object", "required": ["openapi", "info", "paths"] })),
    ];
    let own = own.into_iter().map(|(name, schema)| (name.to_owned(), schema));
    // Of a path that is not there, or a method, there is no operation to say it.
    let nowhere = [Code::NotFound, Code::MethodNotAllowed];
    let problems = Code::ALL
        .iter()
        .filter(|code| !nowhere.contains(code))
        .map(|code| (problem_schema(*code), problem_of(*code)));
    own.chain(problems).collect()
}

fn lock() -> Value {
    object([
        ("workspace_id", text()),
        ("locked_by_user_id", text()),
        ("locked_by_name", maybe_text()),
        ("session_id", maybe_text()),
        ("fence", fence()),
        ("acquired_at", instant()),
        ("renewed_at", instant()),
        ("last_active_at", instant()),
        ("expires_at", instant()),
        ("expires_in_ms", milliseconds()),
        ("ttl_ms", milliseconds()),
        ("note", maybe_text()),
        ("metadata", json!({ "type": "object" })),
        ("knock", nullable("Knock")),
    ])
}

fn knock() -> Value {
    object([
        ("user_id", text()),
        ("name", maybe_text()),
        ("message", maybe_text()),
        ("knocked_at", instant()),
        ("auto_grant_at", maybe_instant()),
        ("auto_grant_in_ms", maybe_milliseconds()),
        ("auto_grant_at_latest_in_ms", maybe_milliseconds()),
    ])
}

fn workspace() -> Value {
    object([("workspace_id", text()), ("name", maybe_text()), ("created_at", instant())])
}

fn member() -> Value {
    object([("user_id", text()), ("role", json!({ "enum": Role::ALL.map(Role::as_str) }))])
}

fn violation() -> Value {
    let kinds = invariants::Kind::ALL.map(invariants::Kind::as_str);
    object([("kind", json!({ "enum": kinds })), ("workspace_id", maybe_text()), ("fence", maybe_fence())])
}

fn token() -> [(&'static str, Value); 7] {
    [
        ("token_id", text()),
        ("scope", json!({ "enum": Scope::ALL.map(Scope::as_str) })),
        ("user_id", maybe_text()),
        ("name", maybe_text()),
        ("created_at", instant()),
        ("expires_at", maybe_instant()),
        ("last_used_at", maybe_instant()),
    ]
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn maybe_instant() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

fn presence() -> Value {
    let person = || [("user_id", text()), ("name", maybe_text()), ("since_at", instant())];
    let waiter = object(person().into_iter().chain([("session_id", maybe_text())]));
    object([
        ("lock", nullable("Lock")),
        ("knocks", list("Knock")),
        ("waiting", json!({ "type": "array", "items": waiter })),
        ("followers", json!({ "type": "array", "maxItems": MAX_PRESENT_USERS, "items": object(person()) })),
    ])
}

fn lost() -> Value {
    let reasons: Vec<_> = EventType::ALL
        .into_iter()
        .filter_map(|event| match event {
            EventType::Ended(ending) => Some(ending.reason()),
            EventType::Acquired | EventType::Knocked | EventType::KnockDeclined => None,
        })
        .collect();
    object([
        ("reason", json!({ "enum": reasons })),
        ("fence", fence()),
        ("at", instant()),
        ("by_user_id", maybe_text()),
        ("by_name", maybe_text()),
    ])
}

/// An event with its workspace, where that does not follow from the request.
fn event_of_a_workspace() -> impl Iterator<Item = (&'static str, Value)> {
    event().into_iter().chain([("workspace_id", text())])
}

fn caller() -> Value {
    let scopes = Scope::ALL.map(Scope::as_str).map(Some).into_iter().chain([None]);
    object([
        ("user_id", maybe_text()),
        ("name", maybe_text()),
        ("mode", json!({ "enum": AuthMode::WORDS.map(|(word, _)| word) })),
        ("scope", json!({ "enum": scopes.collect::<Vec<_>>() })),
        ("agent", json!({ "type": "null", "description": "Always null in this version." })),
        ("is_admin", boolean()),
        ("expires_at", maybe_instant()),
    ])
}

fn event() -> [(&'static str, Value); 9] {
    let types: Vec<_> = EventType::ALL.into_iter().map(EventType::as_str).collect();
    [
        ("revision", json!({ "type": "integer", "minimum": 1 })),
        ("type", json!({ "enum": types })),
        ("at", instant()),
        ("user_id", maybe_text()),
        ("session_id", maybe_text()),
        ("by_user_id", maybe_text()),
        ("by_name", maybe_text()),
        ("fence", json!({ "oneOf": [fence(), { "type": "null" }] })),
        (
            "detail",
            at_most(
                None,
                [
                    ("new_fence", fence()),
                    ("to_user_id", text()),
                    ("message", text()),
                    ("reason", text()),
                    ("outcome", json!({ "enum": ["acquired", "reclaimed", "postponed"] })),
                    ("again_in_ms", again_in()),
                ],
            ),
        ),
    ]
}

fn again_in() -> Value {
    json!({
        "type": "integer",
        "minimum": 0,
        "description": "In the event stream only, of `lock.knock_declined`: until the one who was declined may knock again.",
    })
}

fn event_stream() -> Value {
    json!({
        "type": "string",
        "description": "The `data:` of each event is as `x-data` says; of `reset` it is `{}`.",
        "x-data": reference("ToldEvent"),
    })
}

fn renewed() -> [(&'static str, Value); 6] {
    [
        ("success", json!({ "const": true })),
        ("expires_at", instant()),
        ("expires_in_ms", milliseconds()),
        ("fence", fence()),
        ("knock", nullable("Knock")),
        ("waiting", count()),
    ]
}

/// What an entry of a batch may be.
fn in_batch() -> [Value; 4] {
    let entry = |status: u16| [("workspace_id", text()), ("status", json!({ "const": status }))];
    let refusal = |code: Code| {
        let same = [("code", json!({ "const": code.name() })), ("detail", text())];
        object(entry(code.status()).into_iter().chain(same).chain(members_of(code)))
    };
    let renewal = object(entry(200).into_iter().chain(renewed()));
    [renewal, refusal(Code::NotHolder), refusal(Code::LockNotFound), refusal(Code::WorkspaceNotFound)]
}

/// The problem document of a code.
fn problem_of(code: Code) -> Value {
    let same = [
        ("type", json!({ "const": format!("urn:lockhouse:problem:{}", code.name()) })),
        ("title", json!({ "const": code.title() })),
        ("status", json!({ "const": code.status() })),
        ("code", json!({ "const": code.name() })),
        ("detail", json!({ "type": "string", "description": "A sentence fit to show a person." })),
        ("request_id", text()),
    ];
    object(same.into_iter().chain(members_of(code)))
}

/// The members that are a code's own.
pub(super) fn members_of(code: Code) -> Vec<(&'static str, Value)> {
    match code {
        Code::InvalidRequest => vec![("field", text())],
        Code::NotHolder => {
            vec![("lock", nullable("Lock")), ("same_user", boolean()), ("lost", nullable("Lost"))]
        }
        Code::TakeoverForbidden | Code::FenceMismatch | Code::KnockOnOwnLock => {
            vec![("lock", reference("Lock"))]
        }
        Code::KnockTooSoon => vec![("lock", reference("Lock")), ("again_in_ms", milliseconds())],
        Code::LockNotFound => vec![("lost", nullable("Lost"))],
        Code::LockHeld => {
            vec![
                ("lock", reference("Lock")),
                ("same_user", boolean()),
                ("takeover_allowed", boolean()),
                ("idle_for_ms", milliseconds()),
            ]
        }
        Code::Unauthenticated
        | Code::NotAMember
        | Code::WorkspaceNotFound
        | Code::Forbidden
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::RequestTimeout
        | Code::LengthRequired
        | Code::BodyTooLarge
        | Code::UriTooLong
        | Code::UnsupportedMediaType
        | Code::ExpectationFailed
        | Code::RateLimited
        | Code::HeadersTooLarge
        | Code::Internal
        | Code::Busy
        | Code::VersionNotSupported
        | Code::StorageFull => vec![],
    }
}
