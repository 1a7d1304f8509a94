//! JSON that comes in: no name stands twice in an object at any depth, and numbers stay as they were written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::Problem;

/// How deep metadata may be nested: what is stored is read by programs that may have such a bound themselves.
const DEPTH: usize = 32;
/// Most characters of a name that are repeated in a refusal.
const SHOWN: usize = 64;

/// The members of an object, in the order in which they stand.
pub type Object<'a> = Vec<(String, &'a RawValue)>;

/// The members of `raw`; nothing if it is no object. `path` stands before their names in refusals.
///
/// # Errors
/// A 400 that names a member that stands twice.
pub fn object<'a>(raw: &'a RawValue, path: &str) -> Result<Option<Object<'a>>, Problem> {
    let Ok(Ordered(members)) = serde_json::from_str(raw.get()) else { return Ok(None) };
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    // Which of the two was meant cannot be told.
    if let Some([twice, ..]) = names.windows(2).find(|pair| matches!(pair, [one, next] if one == next)) {
        return Err(Problem::invalid(&format!("{path}{}", shown(twice)), "is given twice"));
    }
    Ok(Some(members))
}

/// `raw` without white space, named `name`.
///
/// # Errors
/// A 400 that names the part that cannot be stored.
pub fn compact(raw: &RawValue, name: &str) -> Result<String, Problem> {
    let mut text = String::with_capacity(raw.get().len());
    write_compact(raw, name, 1, &mut text)?;
    Ok(text)
}

fn write_compact(raw: &RawValue, path: &str, depth: usize, out: &mut String) -> Result<(), Problem> {
    let is_container = raw.get().starts_with(['{', '[']);
    if is_container && depth > DEPTH {
        return Err(Problem::invalid(path, &format!("must not be nested more than {DEPTH} deep")));
    }
    let unreadable = |error: serde_json::Error| Problem::invalid(path, &format!("cannot be read: {error}"));
    if let Some(members) = object(raw, &format!("{path}."))? {
        out.push('{');
        for (place, (name, value)) in members.iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            out.push_str(&quoted(name));
            out.push(':');
            write_compact(value, &format!("{path}.{}", shown(name)), depth + 1, out)?;
        }
        out.push('}');
    } else if raw.get().starts_with('[') {
        let entries: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(unreadable)?;
        out.push('[');
        for (place, entry) in entries.iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            write_compact(entry, &format!("{path}[{place}]"), depth + 1, out)?;
        }
        out.push(']');
    } else if raw.get().starts_with('"') {
        let text: String = serde_json::from_str(raw.get()).map_err(unreadable)?;
        out.push_str(&quoted(&text));
    } else {
        // A number as it was written: to read it would round it.
        out.push_str(raw.get());
    }
    Ok(())
}

/// What a stranger wrote is repeated, but not at any length.
#[must_use]
pub fn shown(name: &str) -> String {
    name.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}

fn quoted(text: &str) -> String {
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
        compact(raw, "metadata").map_err(|problem| problem.sentence().to_owned())
    }

    #[test]
    fn numbers_stay_as_they_were_written_and_white_space_does_not() {
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
    fn what_cannot_be_stored_is_named_by_its_path() {
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
