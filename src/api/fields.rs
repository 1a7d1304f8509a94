//! The field types of requests and responses: their JSON and their schemas.
//!
//! Types of the domain get their JSON here, so that the domain does not depend on it.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Timelike};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json::COMPACT;
use crate::app::invariants;
use crate::auth::Scope;
use crate::config::AuthMode;
use crate::domain::event::EventType;
use crate::domain::member::Role;
use crate::domain::{
    DisplayName, Fence, ID_BYTES, LFS_BYTES, LockKind, METADATA_BYTES, NAME_BYTES, SESSION_BYTES, SessionId,
    UserId, WorkspaceId,
};
use crate::error::Error;
use crate::time::{Ttl, WallTime};
use crate::webhooks::WebhookState;

/// The greatest integer that every JSON reader keeps exact: 2^53 - 1 (RFC 8259 §6).
const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// A whole number between two others.
#[derive(Debug, Clone, Copy)]
pub struct Integer<const MIN: i64, const MAX: i64>(pub i64);

/// Milliseconds that are left, or a number of things.
pub type Count = Integer<0, MAX_SAFE_INTEGER>;

/// Most entries of a page.
pub type PageLimit = Integer<1, 500>;

/// The number of entries of a page: `limit`, or 100 by default.
#[must_use]
pub fn page_length(limit: Option<PageLimit>) -> usize {
    limit.and_then(|limit| usize::try_from(limit.0).ok()).unwrap_or(100)
}

/// A text of limited length, in bytes.
#[derive(Debug)]
pub struct Text<const MAX: usize>(pub String);

impl<const MAX: usize> Text<MAX> {
    /// The text, or `None` if it is empty.
    #[must_use]
    pub fn not_empty(self) -> Option<String> {
        Some(self.0).filter(|text| !text.is_empty())
    }
}

/// The id of a token.
#[derive(Debug)]
pub struct TokenId(pub String);

/// The kind of a lock that a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestKind(pub LockKind);

/// How somebody or something is shown. A name without a visible letter is given, and says nothing.
#[derive(Debug)]
pub struct Name(pub Option<DisplayName>);

/// A JSON object, encoded without white space.
#[derive(Debug)]
pub struct Metadata(pub String);

/// A list of up to `MAX` entries. In a query, the parameter is repeated.
#[derive(Debug)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

/// A visitor that parses a text. The first field names what it expects.
struct Parse<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Result<T, Error>> Visitor<'_> for Parse<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(|error| {
            if let Error::Invalid { reason, .. } = error { E::custom(reason) } else { E::custom(error) }
        })
    }
}

/// Checks the length of a text (bytes).
fn bounded(text: &str, least: usize, most: usize) -> Result<String, Error> {
    if text.len() < least || text.len() > most {
        return Err(invalid(format!("must have {least} to {most} bytes; this has {}", text.len())));
    }
    Ok(text.to_owned())
}

/// An error without a field name. The name is added from the position of the field.
fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("", reason)
}

/// Parses a text that is one of the names of `all`.
fn choice<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, Error> {
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        invalid(format!("must be one of {}", names.join(", ")))
    })
}

/// A visitor that reads a whole number in a range. Both ends are included.
struct IntegerRange(i64, i64);

impl Visitor<'_> for IntegerRange {
    type Value = i64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a whole number from {} to {}", self.0, self.1)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<i64, E> {
        if (self.0..=self.1).contains(&number) {
            return Ok(number);
        }
        Err(E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// Parses an instant as in RFC 3339 §5.6, with a `T` between date and time.
///
/// Instants are whole milliseconds, so a fraction of a millisecond is rounded up. This is exact for both
/// limits of a range: "not before" and "before".
///
/// # Errors
/// When the text is no instant.
pub fn instant(text: &str) -> Result<WallTime, Error> {
    let has_shape = text.is_ascii() && matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    let instant = has_shape.then(|| DateTime::parse_from_rfc3339(text).ok()).flatten();
    let instant = instant.ok_or_else(|| {
        invalid("must be an instant as in RFC 3339, such as 2026-11-23T10:42:13.125Z or 2026-11-23T11:42:13%2B01:00 (a + in a query stands for a space: write %2B)")
    })?;
    let part = i64::from(instant.nanosecond() % 1_000_000 != 0);
    Ok(WallTime(instant.timestamp_millis().saturating_add(part)))
}

/// The schema of a text of 1 to `most` bytes without control characters.
fn identifier(most: usize) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": most, "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]+$",
    })
}

/// The same schema without `.` and `..`.
fn path_segment(most: usize) -> Schema {
    let mut schema = identifier(most);
    schema.insert("not".to_owned(), serde_json::json!({ "enum": [".", ".."] }));
    schema
}

fn workspace_id() -> Schema {
    let lfs = [identifier(LFS_BYTES), json_schema!({ "pattern": "^lfs/" })];
    json_schema!({ "type": "string", "anyOf": [path_segment(ID_BYTES), { "allOf": lfs }] })
}

/// Implements the JSON of a type: its schema and, as needed, how it is read and written.
macro_rules! field {
    ($generics:tt $type:ty: $schema:expr
        $(, read $from:ident => $read:expr)? $(, write $value:ident => $shown:expr)?) => {
        describe!($generics $type: $schema);
        $(read!($generics $type: $from => $read);)?
        $(written!($generics $type: $value => $shown);)?
    };
}

macro_rules! describe {
    ([$($generics:tt)*] $type:ty: $schema:expr) => {
        impl<$($generics)*> JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

macro_rules! read {
    ([$($generics:tt)*] $type:ty: $from:ident => $read:expr) => {
        impl<'de, $($generics)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>($from: D) -> Result<Self, D::Error> {
                $read
            }
        }
    };
}

macro_rules! written {
    ([$($generics:tt)*] $type:ty: $value:ident => $shown:expr) => {
        impl<$($generics)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                $shown.serialize(serializer)
            }
        }
    };
}

/// Implements the JSON of an enum whose values have names.
macro_rules! choice {
    ($type:ty $(, $read:ident)?) => {
        field!([] $type: json_schema!({ "enum": <$type>::ALL.map(<$type>::as_str) })
            $(, $read from => from.deserialize_str(Parse("a text", |text: &str| choice(&<$type>::ALL, <$type>::as_str, text))))?,
            write value => value.as_str());
    };
}

field!([] WorkspaceId: workspace_id(),
    read from => from.deserialize_str(Parse("a text", WorkspaceId::parse)),
    write id => id.as_str());
field!([] UserId: path_segment(ID_BYTES),
    read from => from.deserialize_str(Parse("a text", UserId::parse)),
    write id => id.as_str());
field!([] SessionId: identifier(SESSION_BYTES),
    read from => from.deserialize_str(Parse("a text", SessionId::parse)),
    write id => id.as_str());
field!([] TokenId: identifier(ID_BYTES),
read from => from.deserialize_str(Parse("a text", |text: &str| match bounded(text, 1, ID_BYTES)? {
    id if id.chars().any(char::is_control) => Err(invalid("must not contain control characters")),
    id => Ok(Self(id)),
})));
field!([] DisplayName: identifier(NAME_BYTES), write name => name.as_str());
field!([] Name: json_schema!({
        "type": "string", "maxLength": NAME_BYTES, "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]*$",
    }),
    read from => from.deserialize_str(Parse("a text", |text: &str| DisplayName::parse(text).map(Self))));
field!([const MAX: usize] Text<MAX>: json_schema!({ "type": "string", "maxLength": MAX }),
    read from => from.deserialize_str(Parse("a text", |text: &str| bounded(text, 0, MAX).map(Self))));
field!([const MIN: i64, const MAX: i64] Integer<MIN, MAX>:
    json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }),
    read from => from.deserialize_i64(IntegerRange(MIN, MAX)).map(Self),
    write number => number.0);
field!([] Fence: json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER }),
    read from => from.deserialize_i64(IntegerRange(1, MAX_SAFE_INTEGER)).map(Self),
    write fence => fence.0);
field!([] Ttl: json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_SAFE_INTEGER }),
    read from => from.deserialize_i64(IntegerRange(1, MAX_SAFE_INTEGER)).map(Self::from_millis),
    write ttl => ttl.as_millis());
field!([] WallTime: json_schema!({ "type": "string", "format": "date-time" }),
    read from => from.deserialize_str(Parse("an instant", instant)),
    write at => at.to_rfc3339());
field!([] Metadata: json_schema!({
    "type": "object", "description": format!("At most {METADATA_BYTES} bytes as JSON."),
}),
read from => from.deserialize_newtype_struct(COMPACT, Parse("a JSON object", |text: &str| {
    if text.len() > METADATA_BYTES {
        return Err(invalid(format!("must have at most {METADATA_BYTES} bytes as JSON; this has {}", text.len())));
    }
    Ok(Self(text.to_owned()))
})));
field!([] AuthMode: json_schema!({ "enum": AuthMode::WORDS.map(|(word, _)| word) }), write mode => mode.as_str());
field!([] RequestKind: json_schema!({ "enum": LockKind::BY_REQUEST.map(LockKind::as_str) }),
read from => from.deserialize_str(Parse("a text", |text: &str| {
    choice(&LockKind::BY_REQUEST, LockKind::as_str, text).map(Self)
})));
choice!(LockKind, read);
choice!(Role, read);
choice!(Scope, read);
choice!(EventType, read);
choice!(invariants::FindingKind);
choice!(WebhookState);

impl<T: JsonSchema, const MAX: usize> JsonSchema for List<T, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "maxItems": MAX, "items": generator.subschema_for::<T>() })
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List(Vec::new()))
    }
}

/// Reads the entries into itself.
impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        while let Some(entry) = entries.next_element()? {
            if self.0.len() == MAX {
                return Err(A::Error::custom(format_args!("must have at most {MAX} entries")));
            }
            self.0.push(entry);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rfc_3339_timestamps_are_accepted() {
        let read = |text| instant(text).ok().map(|at| at.0);
        for (text, milliseconds) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T01:00:01.5+01:00", 1_500),
            ("1970-01-01t00:00:00.0010001z", 2),
            ("1969-12-31T23:59:59.9991Z", 0),
            ("2026-11-23T10:42:13.125Z", 1_795_430_533_125),
        ] {
            assert_eq!(read(text), Some(milliseconds), "{text}");
        }
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23T10:42:13",
            "2026-11-23 10:42:13Z",
            "2026-11-23T10:42:13 01:00",
            "2026-11-23T10:42:13+0100",
            "2026-11-23T10:42:13\u{2212}01:00",
            "2026-11-23T10:42Z",
            "2026-11-23T24:00:00Z",
            "2026-02-30T10:42:13Z",
            "26-11-23T10:42:13Z",
            "+2026-11-23T10:42:13Z",
            " 2026-11-23T10:42:13Z",
            "2026-11-23T10:42:13.Z",
            "1795430533125",
            "now",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
