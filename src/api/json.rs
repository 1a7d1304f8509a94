//! JSON from clients. Duplicate names in an object are refused at any depth, and numbers stay as written.

use std::fmt::{self, Display};

use serde::de::{self, Deserialize, Deserializer, Expected, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

/// The name of the newtype that is read as JSON without white space.
pub const COMPACT: &str = "Compact";

/// The nesting limit of metadata. Programs that read it may have a limit of their own.
const DEPTH: usize = 32;
/// The limit of characters of a client's field name that a refusal repeats.
const SHOWN: usize = 64;

/// A part of a request that cannot be accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invalid {
    /// The path to the part, such as `locks[3].fence`.
    pub field: String,
    /// The reason: the end of a sentence that begins with the field.
    pub reason: String,
    /// The allowed fields, if this one is unknown.
    pub allowed: Option<&'static [&'static str]>,
}

impl Invalid {
    /// Puts the name of the object or list before the path.
    #[must_use]
    pub fn under(mut self, name: &str) -> Self {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field.insert_str(0, &format!("{name}{dot}"));
        self
    }
}

impl Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.field, self.reason)
    }
}

impl std::error::Error for Invalid {}

impl de::Error for Invalid {
    fn custom<T: Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), ..Self::default() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("must be {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("must be {expected}"))
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        Self { field: shown(field), reason: "is unknown".to_owned(), allowed: Some(allowed) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom("is missing").under(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom("is given twice").under(field)
    }
}

/// The members of an object, in their order.
pub type Object<'a> = Vec<(String, &'a RawValue)>;

/// The members of `raw`, or `None` if it is no object.
///
/// # Errors
/// [`Invalid`] names a duplicate member: it is unclear which value the client meant.
pub fn object(raw: &RawValue) -> Result<Option<Object<'_>>, Invalid> {
    let Ok(Ordered(members)) = serde_json::from_str(raw.get()) else { return Ok(None) };
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| matches!(pair, [one, next] if one == next)) {
        Some([twice, ..]) => {
            Err(de::Error::custom("is given twice")).map_err(|it: Invalid| it.under(&shown(twice)))
        }
        Some(_) | None => Ok(Some(members)),
    }
}

/// Rewrites `raw` without white space.
///
/// # Errors
/// [`Invalid`] names the part that cannot be stored.
pub fn compact(raw: &RawValue) -> Result<String, Invalid> {
    let mut text = String::with_capacity(raw.get().len());
    write_compact(raw, 1, &mut text)?;
    Ok(text)
}

fn write_compact(raw: &RawValue, depth: usize, out: &mut String) -> Result<(), Invalid> {
    let is_container = raw.get().starts_with(['{', '[']);
    if is_container && depth > DEPTH {
        return Err(de::Error::custom(format_args!("must not be nested more than {DEPTH} deep")));
    }
    if let Some(members) = object(raw)? {
        out.push('{');
        for (place, (name, value)) in members.iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            out.push_str(&quoted(name));
            out.push(':');
            write_compact(value, depth + 1, out).map_err(|invalid| invalid.under(&shown(name)))?;
        }
        out.push('}');
    } else if raw.get().starts_with('[') {
        out.push('[');
        for (place, entry) in read::<Vec<&RawValue>>(raw)?.into_iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            write_compact(entry, depth + 1, out).map_err(|invalid| invalid.under(&format!("[{place}]")))?;
        }
        out.push(']');
    } else if raw.get().starts_with('"') {
        out.push_str(&quoted(&read::<String>(raw)?));
    } else {
        // A number stays as written: parsing would round it.
        out.push_str(raw.get());
    }
    Ok(())
}

/// Deserializes `raw`.
///
/// # Errors
/// [`Invalid`] when `raw` cannot be read, such as a text with half a surrogate pair.
pub fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, Invalid> {
    serde_json::from_str(raw.get())
        .map_err(|error| de::Error::custom(format_args!("cannot be read: {error}")))
}

/// A name from a client, without control characters and with limited length.
#[must_use]
pub fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

/// `text` as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Ordered<'a>(Object<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Ordered<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Ordered<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Ordered<'de>, A::Error> {
                let mut object = Object::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Ordered(object))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(text: &str) -> Result<String, String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        compact(raw).map_err(|invalid| format!("{}.", invalid.under("metadata")))
    }

    #[test]
    fn numbers_are_kept_verbatim_and_whitespace_is_dropped() {
        for (text, expected) in [
            (r#" { "b" : 1 , "a" : [ 1e2, -0, 1.50 ] } "#, r#"{"b":1,"a":[1e2,-0,1.50]}"#),
            (r#"{"n":123456789012345678901234567890}"#, r#"{"n":123456789012345678901234567890}"#),
            (
                r#"{"n":0.1000000000000000055511151231257827}"#,
                r#"{"n":0.1000000000000000055511151231257827}"#,
            ),
            (r#"{"n":1E+400}"#, r#"{"n":1E+400}"#),
            (r#"{"t":"\u0061\/\n"}"#, r#"{"t":"a/\n"}"#),
            (r#"{"x":[true,null,{},[]]}"#, r#"{"x":[true,null,{},[]]}"#),
        ] {
            assert_eq!(compacted(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn invalid_metadata_is_named_by_its_path() {
        for (text, says) in [
            (r#"{"a":1,"a":2}"#, "metadata.a is given twice."),
            (r#"{"a":1,"\u0061":1}"#, "metadata.a is given twice."),
            (r#"{"a":[{},{"b":{"c":1,"d":2,"c":3}}]}"#, "metadata.a[1].b.c is given twice."),
            (
                r#"{"a":"\ud800"}"#,
                "metadata.a cannot be read: unexpected end of hex escape at line 1 column 8.",
            ),
        ] {
            assert_eq!(compacted(text), Err(says.to_owned()));
        }
        let nested = |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth - 1) + "{", "}".repeat(depth));
        assert!(compacted(&nested(DEPTH)).is_ok());
        assert!(
            compacted(&nested(DEPTH + 1)).unwrap_err().ends_with("must not be nested more than 32 deep.")
        );
        assert!(compacted(&nested(10_000)).is_err());
    }
}
