//! The OpenAPI 3.1 document, made from the table of routes. What it does not get from there are the shapes of the
//! answers, below; a test holds every answer against them.

use serde_json::{Map, Value, json};

use super::fields::{Field, GREATEST, Kind, Need};
use super::parameters::PATH_PARAMETERS;
use super::problem::{self, Code, DOOR};
use super::routes::{BodyKind, JSON, ROUTES, Right, Route};
use crate::lock::event::EventType;
use crate::service::FACES;

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(route.method.to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Lockhouse",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Workspace locks: leases, fencing tokens and takeover.",
            "description": "Durations are whole milliseconds and end in `_ms`; instants are RFC 3339 in UTC and end in `_at`. Count down from `expires_in_ms`, from the moment the request was sent, never from `expires_at`. Unknown fields and query parameters are refused. Lengths are in bytes of UTF-8. `HEAD` works wherever `GET` does.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "user": {
                    "type": "apiKey", "in": "header", "name": "X-User-Id",
                    "description": "auth.mode = \"none\": the user's id, percent-encoded where it is not ASCII, is believed. `X-User-Name` says how they are shown.",
                },
            },
            "responses": { "RefusedAtTheDoor": refused_at_the_door() },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".to_owned(), route.name.into());
    operation.insert("summary".to_owned(), route.summary.into());
    operation.insert("description".to_owned(), route.about.into());
    operation.insert(
        "security".to_owned(),
        match route.right {
            Right::Open => json!([]),
            Right::Read => json!([{}, { "user": [] }]),
            Right::Lock => json!([{ "user": [] }]),
        },
    );
    let path = PATH_PARAMETERS
        .iter()
        .filter(|field| route.path.contains(&format!("{{{}}}", field.name)))
        .map(|field| parameter("path", field));
    let query = route.query.iter().map(|field| parameter("query", field));
    operation.insert("parameters".to_owned(), path.chain(query).collect());
    if let Some(body) = request_body(route.body) {
        operation.insert("requestBody".to_owned(), body);
    }
    operation.insert("responses".to_owned(), Value::Object(responses(route)));
    Value::Object(operation)
}

fn parameter(place: &str, field: &Field) -> Value {
    json!({
        "name": field.name,
        "in": place,
        "required": field.need == Need::Required,
        "description": field.about,
        "schema": schema_of(&field.kind),
    })
}

fn request_body(body: BodyKind) -> Option<Value> {
    let (fields, types): (_, &[&str]) = match body {
        BodyKind::None => return None,
        BodyKind::Json(fields) => (fields, &[JSON]),
        BodyKind::Beacon(fields) => (fields, &[JSON, "text/plain"]),
    };
    let content: Map<_, _> = types
        .iter()
        .map(|media_type| ((*media_type).to_owned(), json!({ "schema": object_of(fields) })))
        .collect();
    let required = fields.iter().any(|field| field.need == Need::Required);
    Some(json!({ "required": required, "content": content }))
}

fn object_of(fields: &[Field]) -> Value {
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| {
            let mut schema = schema_of(&field.kind);
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".to_owned(), field.about.into());
                if field.need == Need::Optional
                    && let Some(Value::String(kind)) = schema.get("type").cloned()
                {
                    schema.insert("type".to_owned(), json!([kind, "null"]));
                }
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> =
        fields.iter().filter(|field| field.need == Need::Required).map(|field| field.name).collect();
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

fn schema_of(kind: &Kind) -> Value {
    match kind {
        Kind::Identifier(most) => json!({
            "type": "string", "minLength": 1, "maxLength": most,
            "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]+$",
        }),
        Kind::Line(most) => json!({
            "type": "string", "maxLength": most, "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]*$",
        }),
        Kind::Text(most) => json!({ "type": "string", "maxLength": most }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Object(most) => {
            json!({ "type": "object", "description": format!("At most {most} bytes as JSON.") })
        }
        Kind::Several(most, bytes) => {
            json!({ "type": "array", "maxItems": most, "items": { "type": "string", "minLength": 1, "maxLength": bytes } })
        }
        Kind::List(most, fields) => {
            json!({ "type": "array", "maxItems": most, "items": object_of(fields) })
        }
    }
}

/// What any operation can be refused with before it is known which one is meant.
fn refused_at_the_door() -> Value {
    let mut refused = refused(DOOR);
    if let Value::Object(refused) = &mut refused {
        let about = "The request is not well-formed, too large, or did not arrive in time; or the server is too busy, or stopping. The connection is closed afterwards.";
        refused.insert("description".to_owned(), about.into());
    }
    refused
}

/// A refusal with one of these codes.
fn refused(codes: &[Code]) -> Value {
    let descriptions: Vec<_> =
        codes.iter().map(|code| format!("`{}`: {}.", code.name(), code.title())).collect();
    let shapes: Vec<_> = codes.iter().map(|code| reference(&problem_schema(*code))).collect();
    json!({
        "description": descriptions.join(" "),
        "content": { problem::CONTENT_TYPE: { "schema": { "oneOf": shapes } } },
    })
}

fn responses(route: &Route) -> Map<String, Value> {
    let (status, media_type, schema) = route.answer;
    let mut responses = Map::new();
    let fine = json!({
        "description": "It went well.",
        "content": { media_type: { "schema": reference(schema) } },
    });
    responses.insert(status.to_string(), fine);
    let refusals = route.refusals();
    for same_status in refusals.chunk_by(|one, other| one.status() == other.status()) {
        if let Some(code) = same_status.first() {
            responses.insert(code.status().to_string(), refused(same_status));
        }
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/RefusedAtTheDoor" }));
    responses
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// The schema of a code: `lock_held` → `ProblemLockHeld`.
fn problem_schema(code: Code) -> String {
    let words = code.name().split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    });
    format!("Problem{}", words.collect::<String>())
}

/// An object with just these members, all of them there.
fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
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

fn fence() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": GREATEST })
}

fn list(of: &str) -> Value {
    json!({ "type": "array", "items": reference(of) })
}

fn schemas() -> Map<String, Value> {
    let page = |name: &'static str, of| object([(name, list(of)), ("next_cursor", maybe_text())]);
    let own = [
        ("Lock", lock()),
        ("Lost", lost()),
        ("Event", event()),
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
        ("Renewed", object(renewed())),
        ("RenewedMany", object([("results", json!({ "type": "array", "items": { "oneOf": in_batch() } }))])),
        ("Released", object([("released", boolean())])),
        ("ReleasedMany", object([("released", json!({ "type": "integer", "minimum": 0 }))])),
        ("LockPage", page("locks", "Lock")),
        ("History", page("events", "Event")),
        ("Heard", object([("knock", reference("Knock")), ("lock", reference("Lock"))])),
        ("HandedOver", object([("handed_over", json!({ "const": true })), ("lock", reference("Lock"))])),
        ("Declined", object([("declined", boolean())])),
        ("Knock", knock()),
        ("Presence", presence()),
        ("Status", object([("status", json!({ "enum": ["up", "ready"] })), ("version", text())])),
        ("Metrics", text()),
        ("EventStream", text()),
        ("OpenApi", json!({ "type": "object", "required": ["openapi", "info", "paths"] })),
    ];
    let own = own.into_iter().map(|(name, schema)| (name.to_owned(), schema));
    let problems = Code::ALL.iter().map(|code| (problem_schema(*code), problem_of(*code)));
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
        ("auto_grant_at", json!({ "type": ["string", "null"], "format": "date-time" })),
        ("auto_grant_in_ms", json!({ "type": ["integer", "null"], "minimum": 0 })),
    ])
}

fn presence() -> Value {
    let person = || [("user_id", text()), ("name", maybe_text()), ("since_at", instant())];
    let waiter = object(person().into_iter().chain([("session_id", maybe_text())]));
    object([
        ("lock", nullable("Lock")),
        ("knocks", list("Knock")),
        ("waiting", json!({ "type": "array", "items": waiter })),
        ("followers", json!({ "type": "array", "maxItems": FACES, "items": object(person()) })),
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

fn event() -> Value {
    let types: Vec<_> = EventType::ALL.into_iter().map(EventType::as_str).collect();
    object([
        ("revision", json!({ "type": "integer", "minimum": 1 })),
        ("type", json!({ "enum": types })),
        ("at", instant()),
        ("user_id", text()),
        ("session_id", maybe_text()),
        ("by_user_id", maybe_text()),
        ("by_name", maybe_text()),
        ("fence", fence()),
        (
            "detail",
            at_most(
                None,
                [
                    ("new_fence", fence()),
                    ("to_user_id", text()),
                    ("message", text()),
                    ("outcome", json!({ "enum": ["acquired", "reclaimed"] })),
                ],
            ),
        ),
    ])
}

fn renewed() -> [(&'static str, Value); 5] {
    [
        ("success", json!({ "const": true })),
        ("expires_at", instant()),
        ("expires_in_ms", milliseconds()),
        ("fence", fence()),
        ("knock", nullable("Knock")),
    ]
}

/// What an entry of a batch may be.
fn in_batch() -> [Value; 3] {
    let entry = |status: u16| [("workspace_id", text()), ("status", json!({ "const": status }))];
    let refusal = |code: Code| {
        let same = [("code", json!({ "const": code.name() })), ("detail", text())];
        object(entry(code.status()).into_iter().chain(same).chain(members_of(code)))
    };
    let renewal = object(entry(200).into_iter().chain(renewed()));
    [renewal, refusal(Code::NotHolder), refusal(Code::LockNotFound)]
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
fn members_of(code: Code) -> Vec<(&'static str, Value)> {
    match code {
        Code::InvalidRequest => vec![("field", text())],
        Code::NotHolder => {
            vec![("lock", reference("Lock")), ("same_user", boolean()), ("lost", nullable("Lost"))]
        }
        Code::TakeoverForbidden | Code::FenceMismatch | Code::KnockOnOwnLock => {
            vec![("lock", reference("Lock"))]
        }
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
        | Code::BadGateway
        | Code::Busy
        | Code::VersionNotSupported
        | Code::StorageFull => vec![],
    }
}
