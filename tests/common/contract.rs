//! Compares responses with the OpenAPI document: status, media type and schema must be declared.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use lockhouse::api::dialect::Dialect;
use lockhouse::api::file_lock::LFS_JSON;
use lockhouse::api::openapi;
use lockhouse::api::routes::ROUTES;
use lockhouse::config::AuthMode;
use serde_json::{Value, json};

use super::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::document(ROUTES, AuthMode::None));

/// The (operation, status) pairs that occurred in this process.
pub static MET: Mutex<BTreeSet<(String, u16)>> = Mutex::new(BTreeSet::new());

/// One validator for each answer that the document declares.
static VALIDATORS: LazyLock<HashMap<(String, u16), Validator>> = LazyLock::new(|| {
    declared()
        .into_iter()
        .filter_map(|(operation, status)| {
            let content = response(&operation, status)["content"].as_object()?.clone();
            let media = content.values().next()?;
            let mut schema = media["schema"].clone();
            // These are not JSON.
            if ["Metrics", "EventStream"]
                .iter()
                .any(|text| schema["$ref"] == format!("#/components/schemas/{text}"))
            {
                return None;
            }
            schema["components"] = DOCUMENT["components"].clone();
            Some(((operation, status), jsonschema::validator_for(&schema).unwrap()))
        })
        .collect()
});

fn operations() -> impl Iterator<Item = (&'static String, &'static String, &'static Value)> {
    DOCUMENT["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (method, path, operation))
    })
}

/// Every answer that the document declares: the operation and the status.
pub fn declared() -> BTreeSet<(String, u16)> {
    operations()
        .flat_map(|(_, _, operation)| {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .filter(|status| *status != "default")
                .map(move |status| (id.clone(), status.parse().unwrap()))
        })
        .collect()
}

fn response(operation_id: &str, status: u16) -> &'static Value {
    let (_, _, operation) =
        operations().find(|(_, _, operation)| operation["operationId"] == operation_id).unwrap();
    &operation["responses"][status.to_string()]
}

fn matches(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap();
    // A repository may have several segments.
    if let Some((before, after)) = template.split_once("{repository}") {
        let tail = path.rmatch_indices('/').nth(after.matches('/').count() - 1).map(|(cut, _)| &path[cut..]);
        return path.starts_with(before) && tail.is_some_and(|tail| matches(after, tail));
    }
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(segment)) if expected == segment => {}
            (Some(expected), Some(segment)) if expected.starts_with('{') && !segment.is_empty() => {}
            _ => return false,
        }
    }
}

/// Checks what all responses have in common, and the declared schema.
#[track_caller]
pub fn check(method: &str, path: &str, answer: &Answer) {
    assert!(
        answer.header("x-request-id").is_some_and(|id| !id.is_empty()),
        "{method} {path}: no X-Request-Id"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
    if answer.status >= 400 && method != "HEAD" {
        let problem = answer.json();
        match Dialect::of(path) {
            Dialect::Terraform if [409, 423].contains(&answer.status) => {
                let is_text = |name: &&str| problem[name].is_string();
                assert!(
                    ["ID", "Operation", "Info", "Who", "Version", "Created", "Path"].iter().all(is_text),
                    "{problem}"
                );
            }
            // The HTTP layer knows no dialects.
            Dialect::Lfs if answer.header("connection") != Some("close") => {
                assert_eq!(answer.header("content-type"), Some(LFS_JSON), "{problem}");
                assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
            }
            Dialect::Lockhouse | Dialect::Terraform | Dialect::Lfs => {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{problem}");
                assert_eq!(problem["status"], json!(answer.status), "{problem}");
            }
        }
        if answer.header("content-type") != Some("application/json") {
            assert_eq!(problem["request_id"], json!(answer.header("x-request-id")), "{problem}");
        }
    }
    // The document cannot name these methods. Others stand for them.
    let at_lock = path
        .split_once('?')
        .map_or_else(|| format!("{path}/lock"), |(path, query)| format!("{path}/lock?{query}"));
    let (method, path) = match method {
        "LOCK" => ("POST", at_lock.as_str()),
        "UNLOCK" => ("DELETE", at_lock.as_str()),
        _ => (method, path),
    };
    let asked = if method == "HEAD" { "get".to_owned() } else { method.to_ascii_lowercase() };
    let Some((_, _, operation)) =
        operations().find(|(known, template, _)| **known == asked && matches(template, path))
    else {
        let known = operations().any(|(_, template, _)| matches(template, path));
        // An empty id names nothing.
        let expected: &[u16] = match (known, method) {
            (true, "OPTIONS") => &[204],
            (true, _) => &[405],
            // There is no 404, and the methods of a workspace are not in the document.
            (false, _) if Dialect::of(path) == Dialect::Terraform => &[400, 405],
            (false, _) => &[404],
        };
        assert!(expected.contains(&answer.status), "{method} {path} is no operation: {}", answer.status);
        return;
    };
    let id = operation["operationId"].as_str().unwrap().to_owned();
    if operation["responses"][answer.status.to_string()].is_null() {
        return check_refusal(answer);
    }
    let declared = &operation["responses"][answer.status.to_string()];
    assert!(!declared.is_null(), "{id} answered {}, which is not declared: {}", answer.status, answer.text());
    let media = declared["content"].as_object().and_then(|content| content.keys().next());
    assert_eq!(answer.header("content-type"), media.map(String::as_str), "{id} {}", answer.status);
    check_headers(declared, answer);
    let met = (id, answer.status);
    if method != "HEAD"
        && let Some(validator) = VALIDATORS.get(&met)
    {
        let json = answer.json();
        let errors: Vec<_> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{} {}: {errors:?}\n{json:#}", met.0, met.1);
    }
    MET.lock().unwrap().insert(met);
}

/// Declared headers must be there, and headers with a meaning must be declared.
#[track_caller]
fn check_headers(declared: &Value, answer: &Answer) {
    let headers = declared["headers"].as_object().unwrap();
    for (name, header) in headers {
        let header = DOCUMENT.pointer(header["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
        let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
        assert!(is_there || header["required"] != true, "{name} is missing: {}", answer.text());
    }
    for name in ["Retry-After", "WWW-Authenticate", "LFS-Authenticate"] {
        let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
        assert!(!is_there || headers.contains_key(name), "{name} is not declared: {}", answer.text());
    }
}

/// Checks an event of a stream.
#[track_caller]
pub fn check_told(data: &Value) {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        let mut schema = DOCUMENT["components"]["schemas"]["EventStream"]["x-data"].clone();
        schema["components"] = DOCUMENT["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    });
    let errors: Vec<_> = VALIDATOR.iter_errors(data).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{data:#}");
}

/// Checks a refusal of the HTTP layer. It is declared once for all operations, and closes the connection.
pub fn check_refusal(answer: &Answer) {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        let refused = &DOCUMENT["components"]["responses"]["HttpRefusal"];
        let mut schema = refused["content"]["application/problem+json"]["schema"].clone();
        schema["components"] = DOCUMENT["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    });
    let json = answer.json();
    let errors: Vec<_> = VALIDATOR.iter_errors(&json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{}: {errors:?}\n{json:#}", answer.status);
    assert_eq!(answer.header("connection"), Some("close"), "{json:#}");
    assert_eq!(json["status"], answer.status);
    for name in ["date", "x-request-id", "cache-control", "x-content-type-options"] {
        assert!(answer.header(name).is_some(), "{name} is missing");
    }
}
