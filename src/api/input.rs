//! Deserializes the path, query and body of a request into the struct of its operation.

use serde::de::{Deserialize, DeserializeOwned, Error as _};
use serde_json::value::RawValue;

use super::deserialize::{Members, Source};
use super::exchange::{JSON, Request};
use super::fields::Text;
use super::file_lock::LFS_JSON;
use super::json::{self, Invalid, Object};
use super::problem::{Code, Problem};
use crate::percent;

/// The kind of body that an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// No body.
    None,
    /// A JSON object. It may be missing if all its fields are optional.
    Json,
    /// A JSON object, also as `text/plain`, which `navigator.sendBeacon` sends. It may contain credentials.
    Beacon,
    /// A JSON object of Git LFS, with its media type or that of JSON. Unknown fields and query parameters are ignored.
    Lfs,
    /// A JSON object of Terraform, with the media type of JSON. Unknown fields are ignored. A field in the body goes before
    /// one in the query.
    Terraform,
}

impl BodyKind {
    /// The media types of the body.
    #[must_use]
    pub const fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Json | Self::Terraform => &[JSON],
            Self::Beacon => &[JSON, "text/plain"],
            Self::Lfs => &[LFS_JSON, JSON],
        }
    }
}

/// The body field with the credentials of a request that cannot have headers.
pub const ACCESS_TOKEN: &str = "access_token";

/// The length limit of the credentials in a body (bytes).
pub const TOKEN_BYTES: usize = 8_192;

/// The body of a request, as the members of a JSON object.
///
/// # Errors
/// A 400 when the body is not such an object, or a 415 for an unsupported media type.
pub fn body(kind: BodyKind, request: &Request) -> Result<Object<'_>, Problem> {
    if request.body.is_empty() {
        return Ok(Vec::new());
    }
    let empty = || Problem::invalid("body", "must be empty or {}: this operation takes no body");
    if kind == BodyKind::None {
        let raw: &RawValue = serde_json::from_slice(&request.body).map_err(|_| empty())?;
        let members = members(raw)?.ok_or_else(empty)?;
        return match members.first() {
            None => Ok(members),
            Some((name, _)) => Err(refusal(&Invalid::unknown_field(name, &[]), "field", |_| false)),
        };
    }
    check_media_type(kind, request.headers.content_type.as_deref())?;
    let raw: &RawValue = serde_json::from_slice(&request.body)
        .map_err(|error| Problem::invalid("body", &format!("cannot be read: {error}")))?;
    members(raw)?.ok_or_else(|| Problem::invalid("body", "must be a JSON object"))
}

fn members(raw: &RawValue) -> Result<Option<Object<'_>>, Problem> {
    json::object(raw).map_err(|invalid| refusal(&invalid, "field", |_| false))
}

/// The refusal of a part of a request.
///
/// `what` is "field" or "query parameter". `elsewhere` tells which fields are not listed as allowed, because the
/// client cannot give them there.
fn refusal(invalid: &Invalid, what: &str, elsewhere: impl Fn(&str) -> bool) -> Problem {
    let problem = Problem::invalid(&invalid.field, &invalid.reason);
    let Some(allowed) = invalid.allowed else { return problem };
    let allowed: Vec<_> = allowed.iter().copied().filter(|name| !elsewhere(name)).collect();
    let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    problem.detail(format!("Unknown {what} `{}`. Allowed: {allowed}.", invalid.field))
}

/// Checks the media type of a body. Without one, the body is read as JSON.
fn check_media_type(kind: BodyKind, given: Option<&str>) -> Result<(), Problem> {
    // A page of any origin can send a body without a media type, with the credentials that its browser remembers.
    let without = if kind == BodyKind::Terraform { "" } else { JSON };
    let essence = given.unwrap_or(without).split(';').next().unwrap_or_default().trim();
    if kind.media_types().iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let takes = kind.media_types().join(" or ");
    Err(Problem::new(Code::UnsupportedMediaType)
        .detail(format!("Send the body as JSON, with the header Content-Type: {takes}.")))
}

/// The credentials in the body of a beacon, if there are any.
///
/// # Errors
/// The errors of [`body`]; a 400 when the credentials are no text.
pub fn access_token(kind: BodyKind, request: &Request) -> Result<Option<String>, Problem> {
    if kind != BodyKind::Beacon {
        return Ok(None);
    }
    let token = body(kind, request)?.into_iter().find(|(name, _)| name == ACCESS_TOKEN);
    let token = token.map(|(_, raw)| Option::<Text<TOKEN_BYTES>>::deserialize(Source::Json(raw))).transpose();
    let token = token.map_err(|invalid| refusal(&invalid.under(ACCESS_TOKEN), "field", |_| false))?;
    Ok(token.flatten().map(|token| token.0))
}

/// Deserializes the struct of an operation.
///
/// `in_query` lists the fields that the query may contain if the operation takes a body. Without a body, the
/// query may contain all fields that are not in the path.
///
/// # Errors
/// A 400 that names the field.
pub fn read<T: DeserializeOwned>(
    path: &[(&'static str, String)],
    request: &Request,
    kind: BodyKind,
    in_query: &'static [&'static str],
) -> Result<T, Problem> {
    let in_path = |name: &str| path.iter().any(|(known, _)| *known == name);
    let mut fields = Vec::with_capacity(8);
    for (name, text) in path {
        let text = percent::decode(text).ok_or_else(|| Problem::invalid(name, percent::RULE))?;
        fields.push(((*name).to_owned(), Source::Texts(vec![text])));
    }
    for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name, "query")?;
        let text = decoded(text, &name)?;
        if kind == BodyKind::Lfs {
            continue;
        }
        if kind != BodyKind::None && !in_query.contains(&name.as_str()) {
            return Err(refusal(&Invalid::unknown_field(&name, in_query), "query parameter", in_path));
        }
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Source::Texts(texts))) => texts.push(text),
            Some(_) | None => fields.push((name, Source::Texts(vec![text]))),
        }
    }
    for (name, raw) in body(kind, request)? {
        let said = fields.iter_mut().skip(path.len()).find(|(known, _)| *known == name);
        match said.map(|(_, source)| source) {
            _ if kind == BodyKind::Beacon && name == ACCESS_TOKEN => {}
            Some(Source::Texts(_)) if raw.get() == "null" => {}
            // The value in the body is kept, because its JSON type is checked.
            Some(said @ Source::Texts(_)) if said.is(raw) || kind == BodyKind::Terraform => {
                *said = Source::Json(raw);
            }
            Some(Source::Texts(_)) => {
                return Err(Problem::invalid(&name, "is given twice with different values"));
            }
            Some(Source::Json(_)) | None => fields.push((name, Source::Json(raw))),
        }
    }
    let what = if kind == BodyKind::None { "query parameter" } else { "field" };
    T::deserialize(Members::of(fields)).map_err(|invalid| refusal(&invalid, what, in_path))
}

/// Decodes a part of a query: percent-encoded UTF-8, with `+` for a space.
fn decoded(part: &str, name: &str) -> Result<String, Problem> {
    percent::decode(&part.replace('+', " ")).ok_or_else(|| Problem::invalid(name, percent::RULE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::{Integer, List, Metadata};
    use crate::domain::SessionId;
    use serde::Deserialize;

    #[expect(dead_code, reason = "some of it is only read")]
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Knocked {
        id: SessionId,
        ttl_ms: Option<Integer<1, 100>>,
        force: Option<bool>,
        metadata: Option<Metadata>,
        list: Option<List<Entry, 2>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a JSON object")]
    #[expect(dead_code, reason = "it is only read")]
    struct Entry {
        n: Integer<0, 9>,
    }

    const IN_QUERY: &[&str] = &["id", "ttl_ms", "force"];

    fn asked(query: &str, body: &str) -> Result<Knocked, String> {
        let request = Request { query: query.to_owned(), body: body.into(), ..Request::default() };
        read(&[], &request, BodyKind::Json, IN_QUERY).map_err(|problem| problem.sentence().to_owned())
    }

    #[test]
    fn invalid_and_unknown_fields_are_refused_by_name() {
        for (body, says) in [
            (
                r#"{"id":"a","tll_ms":5}"#,
                "Unknown field `tll_ms`. Allowed: id, ttl_ms, force, metadata, list.",
            ),
            (
                r#"{"id":"a","tll_ms":null}"#,
                "Unknown field `tll_ms`. Allowed: id, ttl_ms, force, metadata, list.",
            ),
            (r#"{"ttl_ms":5}"#, "id is missing."),
            (r#"{"id":null}"#, "id is missing."),
            (r#"{"id":7}"#, "id must be a text."),
            (r#"{"id":["a"]}"#, "id must be a text."),
            (r#"{"id":""}"#, "id must have 1 to 128 bytes; this has 0."),
            (r#"{"id":"a\u0000"}"#, "id must not contain control characters."),
            (r#"{"id":"\ud800"}"#, "id cannot be read: unexpected end of hex escape at line 1 column 8."),
            (r#"{"id":"a","id":"a"}"#, "id is given twice."),
            (r#"{"id":"a","ttl_ms":101}"#, "ttl_ms must be a whole number from 1 to 100."),
            (r#"{"id":"a","ttl_ms":1.5}"#, "ttl_ms must be a whole number from 1 to 100."),
            (r#"{"id":"a","ttl_ms":1e300}"#, "ttl_ms must be a whole number from 1 to 100."),
            (r#"{"id":"a","ttl_ms":"5"}"#, "ttl_ms must be a whole number from 1 to 100."),
            (r#"{"id":"a","force":"yes"}"#, "force must be true or false."),
            (r#"{"id":"a","metadata":[]}"#, "metadata must be a JSON object."),
            (r#"{"id":"a","metadata":{"b":[{"c":1,"c":2}]}}"#, "metadata.b[0].c is given twice."),
            (r#"{"id":"a","list":{}}"#, "list must be a list."),
            (r#"{"id":"a","list":[7]}"#, "list[0] must be a JSON object."),
            (r#"{"id":"a","list":[{"n":1},{"n":10}]}"#, "list[1].n must be a whole number from 0 to 9."),
            (r#"{"id":"a","list":[{"n":1},{}]}"#, "list[1].n is missing."),
            (r#"{"id":"a","list":[{"x":1}]}"#, "Unknown field `list[0].x`. Allowed: n."),
            (r#"{"id":"a","list":[{"n":1},{"n":1},{"n":1}]}"#, "list must have at most 2 entries."),
        ] {
            assert_eq!(asked("", body).unwrap_err(), says, "{body}");
        }
        let long = format!(r#"{{"id":"a","metadata":{{"k":"{}"}}}}"#, "0".repeat(4_089));
        assert_eq!(
            asked("", &long).unwrap_err(),
            "metadata must have at most 4096 bytes as JSON; this has 4097."
        );
    }

    #[test]
    fn query_parameters_are_validated_like_the_body() {
        let read = asked("id=a%2Fb+c&force=true&ttl_ms=7", "").unwrap();
        assert_eq!((read.id.as_str(), read.force), ("a/b c", Some(true)));
        assert_eq!(read.ttl_ms.map(|ttl| ttl.0), Some(7));
        for (query, says) in [
            ("id=a&id=a", "id must be given once."),
            ("id=a&x=1", "Unknown query parameter `x`. Allowed: id, ttl_ms, force."),
            ("id=a&ttl_ms=%2B7", "ttl_ms must be a whole number from 1 to 100."),
            ("id=a&force=1", "force must be true or false."),
            ("id=a&metadata={}", "Unknown query parameter `metadata`. Allowed: id, ttl_ms, force."),
        ] {
            assert_eq!(asked(query, "").unwrap_err(), says, "{query}");
        }
    }

    #[test]
    fn query_and_body_must_not_contradict_each_other() {
        for (query, body) in [
            ("id=a&ttl_ms=7", r#"{"id":"a","ttl_ms":7.0}"#),
            ("id=a", r#"{"id":"\u0061","force":null}"#),
            ("id=a&force=true", r#"{"force":true}"#),
            ("id=a", r#"{"id":null}"#),
        ] {
            assert!(asked(query, body).is_ok(), "{query} {body}");
        }
        assert_eq!(asked("id=a", r#"{"id":"b"}"#).unwrap_err(), "id is given twice with different values.");
        assert_eq!(asked("id=7", r#"{"id":7}"#).unwrap_err(), "id must be a text.");
        assert!(asked("id=a&force=true", r#"{"force":"true"}"#).is_err(), "the body keeps its types");
        assert_eq!(
            asked("force=false&id=a", r#"{"force":true}"#).unwrap_err(),
            "force is given twice with different values."
        );
    }
}
