//! The OpenAPI 3.1 document, generated from the table of routes and its types.
//!
//! A test checks every response against it.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::code::HTTP_REFUSALS;
use super::dialect::{Dialect, LFS_ERROR};
use super::events::EVENT_STREAM;
use super::file_lock::{LFS_JSON, LfsError};
use super::input::{ACCESS_TOKEN, TOKEN_BYTES};
use super::operation::{BodyKind, GATE, JSON, Right, Route};
use super::problem::{self, Code};
use super::terraform::{LOCK_INFO, LockInfo};
use crate::config::AuthMode;

/// The document for a server with the authentication mode `mode`.
#[must_use]
pub fn document(routes: &[Route], mode: AuthMode) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut requests = settings.clone().for_deserialize().into_generator();
    let mut answers = settings.for_serialize().into_generator();
    let mut paths = Map::new();
    for route in routes.iter().filter(|route| route.has_openapi_method()) {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            let operation = operation(route, mode, &mut requests, &mut answers);
            item.insert(route.method.to_ascii_lowercase(), operation);
        }
    }
    let mut schemas = Map::new();
    for code in Code::ALL {
        // No problem document of an operation has these codes: they are for unknown paths and methods, and for Git LFS and
        // Terraform.
        let has_none = matches!(code, Code::NotFound | Code::MethodNotAllowed | Code::Unprocessable);
        if !has_none && !code.is_lock_info() {
            schemas.insert(code.schema_name(), code.schema(false, &mut answers).to_value());
        }
    }
    answers.subschema_for::<LfsError>();
    answers.subschema_for::<LockInfo>();
    schemas.extend(answers.take_definitions(false));
    schemas.values_mut().for_each(close_objects);
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
            "responses": { "HttpRefusal": http_refusal() },
            "headers": headers(),
            "schemas": schemas,
        },
    })
}

/// Makes a response schema exact: no other members are allowed. Descriptions become one line.
fn close_objects(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(false.into());
            }
            // schemars writes formats such as `int64`, which JSON Schema does not define.
            if members.get("type").is_some_and(|kind| kind.to_string().contains("integer")) {
                members.remove("format");
            }
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = one_line(description);
            }
            members.values_mut().for_each(close_objects);
        }
        Value::Array(entries) => entries.iter_mut().for_each(close_objects),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Joins the lines of a doc comment.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn security(mode: AuthMode) -> Value {
    let mut schemes = bearer_or_user(mode);
    if let Value::Object(schemes) = &mut schemes {
        let basic = json!({
            "type": "http", "scheme": "basic",
            "description": "For clients that send no other credentials. The password is the token; the name is the user for whom a token of a service or an administrator acts. With auth.mode = \"none\" the name is the user, and the password is ignored.",
        });
        schemes.insert("basic".to_owned(), basic);
    }
    schemes
}

fn bearer_or_user(mode: AuthMode) -> Value {
    let bearer = |what: &str| {
        json!({ "token": {
            "type": "http", "scheme": "bearer",
            "description": format!("{what} Tokens of services and administrators act for the user in the header X-User-Id, with the display name in X-User-Name. Both are percent-encoded where they are not ASCII."),
        } })
    };
    match mode {
        AuthMode::None => json!({ "user": {
            "type": "apiKey", "in": "header", "name": "X-User-Id",
            "description": "The user id, percent-encoded where it is not ASCII. It is trusted. `X-User-Name` is the display name.",
        } }),
        AuthMode::Token => bearer("A token of Lockhouse (`lh_…`)."),
        AuthMode::Jwt => bearer("A JWT, or a token of Lockhouse (`lh_…`)."),
        AuthMode::Proxy => {
            bearer("A token of Lockhouse (`lh_…`); or nothing, behind the proxy that signs users in.")
        }
    }
}

/// The response headers that programs can use.
fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of the request in the log of the server. A valid id from the caller is kept.",
            "required": true, "schema": { "type": "string" },
        },
        "RetryAfter": {
            "description": "Seconds to wait before retrying.",
            "required": true, "schema": { "type": "integer", "minimum": 0 },
        },
        "SometimesRetryAfter": {
            "description": "With `lock_held`: seconds until the lease ends.",
            "schema": { "type": "integer", "minimum": 0 },
        },
        "WwwAuthenticate": {
            "description": "The accepted authentication scheme.",
            "required": true, "schema": { "type": "string" },
        },
    })
}

/// The headers of a response with one of `codes`. No codes: the headers of a success.
fn headers_of(dialect: Dialect, codes: &[Code]) -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let mut headers = Map::from_iter([("X-Request-Id".to_owned(), header("RequestId"))]);
    let retry = |code: &Code| {
        matches!(code, Code::RateLimited | Code::KnockTooSoon | Code::Busy)
            || (*code == Code::LockHeld && dialect == Dialect::Lockhouse)
    };
    if codes.iter().any(retry) {
        let name = if codes.iter().all(retry) { "RetryAfter" } else { "SometimesRetryAfter" };
        headers.insert("Retry-After".to_owned(), header(name));
    }
    if codes.contains(&Code::Unauthenticated) {
        headers.insert(dialect.challenge_header().to_owned(), header("WwwAuthenticate"));
    }
    Value::Object(headers)
}

/// The headers that may replace a query parameter.
fn header_parameters(route: &Route) -> Vec<Value> {
    let header = |name: &str, about: &str| {
        json!({
            "name": name, "in": "header", "required": false, "description": about,
            "schema": { "type": "string" },
        })
    };
    if route.name == GATE {
        vec![
            header("X-Lock-Workspace", "`workspace_id`, percent-encoded where it is not ASCII."),
            header("X-Lock-Fence", "`fence`."),
        ]
    } else if route.media_type == EVENT_STREAM {
        vec![header(
            "Last-Event-ID",
            "`since`: the id of the last received event. It takes precedence over the query.",
        )]
    } else {
        Vec::new()
    }
}

fn operation(
    route: &Route,
    mode: AuthMode,
    requests: &mut SchemaGenerator,
    answers: &mut SchemaGenerator,
) -> Value {
    let [takes, answer] = route.schemas;
    let mut takes = takes(requests).to_value();
    let about = takes.get("description").and_then(Value::as_str).unwrap_or_default();
    let (summary, description) = about.split_once("\n\n").unwrap_or((about, ""));
    let (summary, description) = (one_line(summary), one_line(description));
    close_objects(&mut takes);
    let mut operation = json!({
        "operationId": route.name,
        "summary": summary,
        "description": description,
        "security": security_of(route, mode),
        "parameters": parameters(route, &takes),
        "responses": responses(route, answer(answers).as_value()),
    });
    if let (Some(operation), Some(body)) = (operation.as_object_mut(), request_body(route, &takes)) {
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}

fn security_of(route: &Route, mode: AuthMode) -> Value {
    if Dialect::of(route.path).takes_basic() {
        return if mode == AuthMode::Proxy { json!([{}, { "basic": [] }]) } else { json!([{ "basic": [] }]) };
    }
    match (route.right, mode) {
        (Right::Open, _) => json!([]),
        // In this mode every client has these rights, also without a user id.
        (Right::Read | Right::Monitor | Right::Serve | Right::Administer, AuthMode::None) => {
            json!([{}, { "user": [] }])
        }
        (Right::Lock, AuthMode::None) => json!([{ "user": [] }]),
        (_, AuthMode::Token | AuthMode::Jwt) => json!([{ "token": [] }]),
        // Users of the proxy send no credentials here: the proxy names the user in its own header.
        (_, AuthMode::Proxy) => json!([{}, { "token": [] }]),
    }
}

/// The parameters of the path and the query.
fn parameters(route: &Route, takes: &Value) -> Vec<Value> {
    let (in_path, elsewhere): (Vec<_>, Vec<_>) =
        properties(takes).partition(|(name, _)| in_path(route, name));
    let is_in_path = in_path.len();
    let mut parameters = Vec::new();
    for (place, (name, schema)) in in_path.into_iter().chain(elsewhere).enumerate() {
        let place = if place < is_in_path {
            "path"
        } else if route.body == BodyKind::None || route.in_query.contains(&name.as_str()) {
            "query"
        } else {
            continue;
        };
        let mut schema = not_null(schema.clone());
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let about = match name.as_str() {
            "workspace_id" if place == "path" => {
                "The workspace id, percent-encoded: `team%2Fdesign` is one id.".into()
            }
            "user_id" if place == "path" => "The user id, percent-encoded.".into(),
            "token_id" if place == "path" => "The token id. It is not the token itself.".into(),
            _ => about.unwrap_or_default(),
        };
        parameters.push(json!({
            "name": name, "in": place, "required": is_required(takes, name), "description": about, "schema": schema,
        }));
    }
    parameters.extend(header_parameters(route));
    parameters
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|known| known == name))
}

fn in_path(route: &Route, name: &str) -> bool {
    route.path.contains(&format!("{{{name}}}"))
}

/// The schema without `null`, which a query cannot express.
fn not_null(mut schema: Value) -> Value {
    if let Some(Value::Array(choices)) = schema.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if let Some(kind) = schema.get_mut("type")
        && let Some(first) = kind.get(0).cloned()
    {
        *kind = first;
    }
    let Some(Value::Array(either)) = schema.get("anyOf") else { return schema };
    let [value, null] = either.as_slice() else { return schema };
    if *null != json!({ "type": "null" }) {
        return schema;
    }
    let mut value = value.clone();
    if let (Some(about), Some(value)) = (schema.get("description"), value.as_object_mut()) {
        value.insert("description".to_owned(), about.clone());
    }
    value
}

/// The request body, with the fields that are not in the path.
fn request_body(route: &Route, takes: &Value) -> Option<Value> {
    if route.body == BodyKind::None {
        return None;
    }
    let fields = || properties(takes).filter(|(name, _)| !in_path(route, name));
    let required: Vec<_> = fields().map(|(name, _)| name).filter(|name| is_required(takes, name)).collect();
    let mut fields: Map<_, _> = fields().map(|(name, schema)| (name.clone(), schema.clone())).collect();
    if route.body == BodyKind::Beacon {
        let about =
            "Credentials of a caller that cannot send headers. With auth.mode = \"none\" the user's id.";
        let token = json!({ "type": ["string", "null"], "maxLength": TOKEN_BYTES, "description": about });
        fields.insert(ACCESS_TOKEN.to_owned(), token);
    }
    let schema = json!({
        "type": "object", "properties": fields, "required": required, "additionalProperties": matches!(route.body, BodyKind::Lfs | BodyKind::Terraform),
    });
    let content: Map<_, _> = route
        .body
        .media_types()
        .iter()
        .map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })))
        .collect();
    Some(json!({ "required": !required.is_empty(), "content": content }))
}

/// The response for refusals before the operation is known.
fn http_refusal() -> Value {
    let mut refused = refused(Dialect::Lockhouse, HTTP_REFUSALS);
    if let Value::Object(refused) = &mut refused {
        let about = "The server refused the request before the operation was known: it is malformed, too large or too slow, or the server is busy or stopping. The connection is closed afterwards.";
        refused.insert("description".to_owned(), about.into());
    }
    refused
}

/// The response for refusals with one of `codes`.
fn refused(dialect: Dialect, codes: &[Code]) -> Value {
    let describe = |code: &Code| format!("`{}`: {}.", code.name(), code.title());
    let descriptions: Vec<_> = codes.iter().map(describe).collect();
    let named = |name: String| json!({ "$ref": format!("#/components/schemas/{name}") });
    let content = match dialect {
        Dialect::Lfs => json!({ LFS_JSON: { "schema": named(LFS_ERROR.to_owned()) } }),
        Dialect::Terraform if codes.iter().all(|code| code.is_lock_info()) => {
            json!({ JSON: { "schema": named(LOCK_INFO.to_owned()) } })
        }
        Dialect::Lockhouse | Dialect::Terraform => {
            let shapes: Vec<_> = codes.iter().map(|code| named(code.schema_name())).collect();
            json!({ problem::CONTENT_TYPE: { "schema": { "oneOf": shapes } } })
        }
    };
    json!({
        "description": descriptions.join(" "),
        "headers": headers_of(dialect, codes),
        "content": content,
    })
}

fn responses(route: &Route, answer: &Value) -> Map<String, Value> {
    let mut fine = json!({ "description": "Success.", "headers": headers_of(Dialect::of(route.path), &[]) });
    if !route.media_type.is_empty() {
        let content = json!({ route.media_type: { "schema": answer } });
        fine.as_object_mut().map(|fine| fine.insert("content".to_owned(), content));
    }
    let mut responses = Map::from_iter([(route.status.to_string(), fine)]);
    for same_status in route.refusals().chunk_by(|one, other| one.status() == other.status()) {
        if let Some(code) = same_status.first() {
            responses.insert(code.status().to_string(), refused(Dialect::of(route.path), same_status));
        }
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/HttpRefusal" }));
    responses
}
