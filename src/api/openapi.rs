//! The OpenAPI 3.1 document, made from the table of routes. What it does not get from there are the shapes of the
//! answers (`schemas.rs`); a test holds every answer against them.

use serde_json::{Map, Value, json};

use super::fields::{Field, Kind, Need};
use super::parameters::PATH_PARAMETERS;
use super::problem::{self, Code, DOOR};
use super::routes::{BodyKind, FOLLOW, GATE, JSON, ROUTES, Right, Route};
use super::schemas::{problem_schema, reference, schemas};
use crate::config::AuthMode;
use crate::domain::{ID_BYTES, LFS_BYTES, NAME_BYTES};

/// The document of a server whose callers say in this way who they are.
#[must_use]
pub fn document(mode: AuthMode) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(route.method.to_ascii_lowercase(), operation(route, mode));
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
            "securitySchemes": security(mode),
            "responses": { "RefusedAtTheDoor": refused_at_the_door() },
            "headers": headers(),
            "schemas": schemas(),
        },
    })
}

fn security(mode: AuthMode) -> Value {
    let bearer = |what: &str| {
        json!({ "token": {
            "type": "http", "scheme": "bearer",
            "description": format!("{what} Tokens of services and administrators act for whom they name in the header X-User-Id (percent-encoded where it is not ASCII; `X-User-Name` says how they are shown)."),
        } })
    };
    match mode {
        AuthMode::None => json!({ "user": {
            "type": "apiKey", "in": "header", "name": "X-User-Id",
            "description": "The user's id, percent-encoded where it is not ASCII, is believed. `X-User-Name` says how they are shown.",
        } }),
        AuthMode::Token => bearer("A token of Lockhouse (`lh_…`)."),
        AuthMode::Jwt => bearer("A JWT, or a token of Lockhouse (`lh_…`)."),
        AuthMode::Proxy => {
            bearer("A token of Lockhouse (`lh_…`); or nothing, behind the proxy that signs users in.")
        }
    }
}

/// The headers of answers that say something for programs.
fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The caller's, if it sent a plausible one. It stands in the server's log.",
            "required": true, "schema": { "type": "string" },
        },
        "RetryAfter": {
            "description": "In so many seconds it may go well.",
            "required": true, "schema": { "type": "integer", "minimum": 0 },
        },
        "SometimesRetryAfter": {
            "description": "With `lock_held`: so many seconds the lease has left.",
            "schema": { "type": "integer", "minimum": 0 },
        },
        "WwwAuthenticate": {
            "description": "Which credentials it takes.",
            "required": true, "schema": { "type": "string" },
        },
    })
}

/// Those of an answer with one of these codes, or with none.
fn headers_of(codes: &[Code]) -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let mut headers = Map::from_iter([("X-Request-Id".to_owned(), header("RequestId"))]);
    let retry =
        |code: &Code| matches!(code, Code::LockHeld | Code::RateLimited | Code::KnockTooSoon | Code::Busy);
    if codes.iter().any(retry) {
        let name = if codes.iter().all(retry) { "RetryAfter" } else { "SometimesRetryAfter" };
        headers.insert("Retry-After".to_owned(), header(name));
    }
    if codes.contains(&Code::Unauthenticated) {
        headers.insert("WWW-Authenticate".to_owned(), header("WwwAuthenticate"));
    }
    Value::Object(headers)
}

/// What may stand in a header in place of a parameter of the query.
fn header_parameters(route: &Route) -> Vec<Value> {
    let header = |name: &str, about: &str| {
        json!({
            "name": name, "in": "header", "required": false, "description": about,
            "schema": { "type": "string" },
        })
    };
    match route.name {
        GATE => vec![
            header("X-Lock-Workspace", "`workspace_id`, percent-encoded where it is not ASCII."),
            header("X-Lock-Fence", "`fence`."),
        ],
        FOLLOW => vec![header(
            "Last-Event-ID",
            "`since`: the id of the last event that was heard. It goes before the query.",
        )],
        _ => Vec::new(),
    }
}

fn operation(route: &Route, mode: AuthMode) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".to_owned(), route.name.into());
    operation.insert("summary".to_owned(), route.summary.into());
    operation.insert("description".to_owned(), route.about.into());
    operation.insert(
        "security".to_owned(),
        match (route.right, mode) {
            (Right::Open, _) => json!([]),
            // Nobody need say who they are to look on, nor to administer, where everybody may.
            (Right::Read | Right::Monitor | Right::Serve | Right::Administer, AuthMode::None) => {
                json!([{}, { "user": [] }])
            }
            (Right::Lock, AuthMode::None) => json!([{ "user": [] }]),
            (_, AuthMode::Token | AuthMode::Jwt) => json!([{ "token": [] }]),
            // The proxy's users bear nothing: the proxy says in its own header who they are.
            (_, AuthMode::Proxy) => json!([{}, { "token": [] }]),
        },
    );
    let path = PATH_PARAMETERS
        .iter()
        .filter(|field| route.path.contains(&format!("{{{}}}", field.name)))
        .map(|field| parameter("path", field));
    let query = route.query.iter().map(|field| parameter("query", field));
    operation.insert("parameters".to_owned(), path.chain(query).chain(header_parameters(route)).collect());
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
                if field.need == Need::Optional
                    && let Some(Value::Array(choices)) = schema.get_mut("enum")
                {
                    choices.push(Value::Null);
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
        Kind::Identifier(most) => identifier(*most),
        Kind::Workspace => json!({
            "type": "string",
            "anyOf": [part_of_paths(ID_BYTES), { "allOf": [identifier(LFS_BYTES), { "pattern": "^lfs/" }] }],
        }),
        Kind::Workspaces(most) => {
            json!({ "type": "array", "maxItems": most, "items": schema_of(&Kind::Workspace) })
        }
        Kind::User => part_of_paths(ID_BYTES),
        Kind::Name => json!({
            "type": "string", "maxLength": NAME_BYTES, "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]*$",
        }),
        Kind::Text(most) => json!({ "type": "string", "maxLength": most }),
        Kind::Choice(choices) => json!({ "enum": choices }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Object(most) => {
            json!({ "type": "object", "description": format!("At most {most} bytes as JSON.") })
        }
        Kind::Choices(choices) => {
            json!({ "type": "array", "maxItems": choices.len(), "items": { "enum": choices } })
        }
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::List(most, fields) => {
            json!({ "type": "array", "maxItems": most, "items": object_of(fields) })
        }
    }
}

/// A text of 1 to so many bytes without control characters.
fn identifier(most: usize) -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": most,
        "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]+$",
    })
}

/// The same, which is not `.` or `..`.
fn part_of_paths(most: usize) -> Value {
    let mut schema = identifier(most);
    if let Value::Object(schema) = &mut schema {
        schema.insert("not".to_owned(), json!({ "enum": [".", ".."] }));
    }
    schema
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
    let describe = |code: &Code| {
        let end = if code.title().ends_with('?') { "" } else { "." };
        format!("`{}`: {}{end}", code.name(), code.title())
    };
    let descriptions: Vec<_> = codes.iter().map(describe).collect();
    let shapes: Vec<_> = codes.iter().map(|code| reference(&problem_schema(*code))).collect();
    json!({
        "description": descriptions.join(" "),
        "headers": headers_of(codes),
        "content": { problem::CONTENT_TYPE: { "schema": { "oneOf": shapes } } },
    })
}

fn responses(route: &Route) -> Map<String, Value> {
    let (status, media_type, schema) = route.answer;
    let mut responses = Map::new();
    let fine = if media_type.is_empty() {
        json!({ "description": "It went well.", "headers": headers_of(&[]) })
    } else {
        json!({
            "description": "It went well.",
            "headers": headers_of(&[]),
            "content": { media_type: { "schema": reference(schema) } },
        })
    };
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
