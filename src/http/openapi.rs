//! The OpenAPI 3.1 document, made from the table of routes. What it does not get from there are the shapes of the
//! answers, below; a test holds every answer against them.

use serde_json::{Map, Value, json};

use super::fields::{Field, Kind, Need};
use super::problem::{self, Code};
use super::routes::{BodyKind, JSON, PATH_PARAMETERS, ROUTES, Right, Route};
use crate::lock::event::EventType;

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
        Kind::Text(most) => json!({ "type": "string", "maxLength": most }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Object(most) => {
            json!({ "type": "object", "description": format!("At most {most} bytes as JSON.") })
        }
        Kind::List(most, fields) => {
            json!({ "type": "array", "maxItems": most, "items": object_of(fields) })
        }
    }
}

fn responses(route: &Route) -> Map<String, Value> {
    let (status, media_type, schema) = route.answer;
    let mut responses = Map::new();
    responses.insert(
        status.to_string(),
        json!({
            "description": "It went well.",
            "content": { media_type: { "schema": reference(schema) } },
        }),
    );
    for code in route.refusals() {
        let response = responses.entry(code.status().to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": { problem::CONTENT_TYPE: { "schema": { "oneOf": [] } } },
            })
        });
        let before = response["description"].as_str().unwrap_or_default();
        let description = if before.is_empty() {
            format!("`{}`: {}.", code.name(), code.title())
        } else {
            format!("{before} `{}`: {}.", code.name(), code.title())
        };
        response["description"] = description.into();
        let one_of = &mut response["content"][problem::CONTENT_TYPE]["schema"]["oneOf"];
        if let Value::Array(one_of) = one_of {
            one_of.push(reference(&problem_schema(code)));
        }
    }
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
fn exactly(members: Value) -> Value {
    let names: Vec<_> =
        members.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default();
    json!({ "type": "object", "properties": members, "required": names, "additionalProperties": false })
}

fn nullable(schema: &str) -> Value {
    json!({ "oneOf": [reference(schema), { "type": "null" }] })
}

fn schemas() -> Map<String, Value> {
    let instant = json!({ "type": "string", "format": "date-time" });
    let text = json!({ "type": "string" });
    let maybe_text = json!({ "type": ["string", "null"] });
    let boolean = json!({ "type": "boolean" });
    let fence = json!({ "type": "integer", "minimum": 1, "maximum": super::fields::GREATEST });
    let milliseconds = json!({ "type": "integer", "minimum": 0 });
    let list = |of: &str| json!({ "type": "array", "items": reference(of) });
    let event_types: Vec<_> = EventType::ALL.into_iter().map(EventType::as_str).collect();
    let endings: Vec<_> = EventType::ALL
        .into_iter()
        .filter_map(|event| match event {
            EventType::Ended(ending) => Some(ending.reason()),
            EventType::Acquired => None,
        })
        .collect();
    let renewed = exactly(json!({
        "success": { "const": true }, "expires_at": instant, "expires_in_ms": milliseconds, "fence": fence,
        "knock": { "type": "null" },
    }));
    let mut acquired = exactly(json!({
        "outcome": { "enum": ["acquired", "renewed", "reclaimed", "taken_over"] }, "lock": reference("Lock"),
    }));
    acquired["properties"]["previous"] = reference("Lock");
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);
    add(
        "Lock",
        exactly(json!({
            "workspace_id": text, "locked_by_user_id": text, "locked_by_name": maybe_text,
            "session_id": maybe_text, "fence": fence, "acquired_at": instant, "renewed_at": instant,
            "last_active_at": instant, "expires_at": instant, "expires_in_ms": milliseconds,
            "ttl_ms": milliseconds, "note": maybe_text, "metadata": { "type": "object" },
            "knock": { "type": "null" },
        })),
    );
    add(
        "Lost",
        exactly(json!({
            "reason": { "enum": endings }, "fence": fence, "at": instant, "by_user_id": maybe_text,
            "by_name": maybe_text,
        })),
    );
    add(
        "Event",
        exactly(json!({
            "revision": { "type": "integer", "minimum": 1 }, "type": { "enum": event_types }, "at": instant,
            "user_id": text, "session_id": maybe_text, "by_user_id": maybe_text, "by_name": maybe_text,
            "fence": fence,
            "detail": {
                "type": "object", "additionalProperties": false,
                "properties": { "new_fence": fence, "outcome": { "enum": ["acquired", "reclaimed"] } },
            },
        })),
    );
    add("Acquired", acquired);
    add("LockState", exactly(json!({ "locked": boolean, "lock": nullable("Lock") })));
    add(
        "RenewedMany",
        exactly(json!({ "results": { "type": "array", "items": { "oneOf": [
        in_batch(&renewed, json!({ "const": 200 })),
        in_batch(
            &exactly(json!({
                "code": { "const": "not_holder" }, "detail": text, "lock": reference("Lock"),
                "same_user": boolean, "lost": nullable("Lost"),
            })),
            json!({ "const": 403 }),
        ),
        in_batch(
            &exactly(json!({ "code": { "const": "lock_not_found" }, "detail": text, "lost": nullable("Lost") })),
            json!({ "const": 404 }),
        ),
    ] } } })),
    );
    add("Renewed", renewed);
    add("Released", exactly(json!({ "released": boolean })));
    add("ReleasedMany", exactly(json!({ "released": { "type": "integer", "minimum": 0 } })));
    add("LockPage", exactly(json!({ "locks": list("Lock"), "next_cursor": maybe_text })));
    add("History", exactly(json!({ "events": list("Event"), "next_cursor": maybe_text })));
    add("Status", exactly(json!({ "status": { "enum": ["up", "ready"] }, "version": text })));
    add("Metrics", json!({ "type": "string" }));
    add("OpenApi", json!({ "type": "object", "required": ["openapi", "info", "paths"] }));
    for code in Code::ALL {
        add(&problem_schema(*code), problem_of(*code));
    }
    schemas
}

/// An entry of a batch.
fn in_batch(schema: &Value, status: Value) -> Value {
    let mut members = schema["properties"].clone();
    members["workspace_id"] = json!({ "type": "string" });
    members["status"] = status;
    exactly(members)
}

/// The problem document of a code, with the members that are its own.
fn problem_of(code: Code) -> Value {
    let mut members = json!({
        "type": { "const": format!("urn:lockhouse:problem:{}", code.name()) },
        "title": { "const": code.title() },
        "status": { "const": code.status() },
        "code": { "const": code.name() },
        "detail": { "type": "string", "description": "A sentence fit to show a person." },
        "request_id": { "type": "string" },
    });
    let own: &[(&str, Value)] = &match code {
        Code::InvalidRequest => vec![("field", json!({ "type": "string" }))],
        Code::NotHolder => vec![
            ("lock", reference("Lock")),
            ("same_user", json!({ "type": "boolean" })),
            ("lost", nullable("Lost")),
        ],
        Code::TakeoverForbidden | Code::FenceMismatch => vec![("lock", reference("Lock"))],
        Code::LockNotFound => vec![("lost", nullable("Lost"))],
        Code::LockHeld => vec![
            ("lock", reference("Lock")),
            ("same_user", json!({ "type": "boolean" })),
            ("takeover_allowed", json!({ "type": "boolean" })),
        ],
        Code::Unauthenticated
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::BodyTooLarge
        | Code::UnsupportedMediaType
        | Code::Internal
        | Code::Busy
        | Code::StorageFull => vec![],
    };
    for (name, schema) in own {
        members[*name] = schema.clone();
    }
    exactly(members)
}
