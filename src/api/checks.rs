//! How one value is checked: what it may be, and what is said when it is not.

use chrono::{DateTime, Timelike};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::{Field, Kind, Values};
use super::json;
use super::problem::Problem;
use crate::domain::{DisplayName, UserId, WorkspaceId};

/// A value that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Object(String),
    List(Vec<Values>),
    Several(Vec<String>),
}

impl Checked {
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Object(text) => Some(text),
            Self::Integer(_) | Self::Boolean(_) | Self::List(_) | Self::Several(_) => None,
        }
    }
}

pub(super) fn from_json(raw: &RawValue, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    let wrong = |what: &str| Problem::invalid(name, what);
    match kind {
        Kind::Object(most) => object_of(raw, *most, name),
        Kind::List(most, fields) => list_of(raw, *most, fields, name),
        Kind::Workspaces(_) | Kind::Choices(_) => Err(wrong("must stand in the query")),
        Kind::Identifier(_) | Kind::Text(_) | Kind::Workspace | Kind::User | Kind::Name => {
            let value = scalar(raw, name)?;
            let text = value.as_str().ok_or_else(|| wrong("must be a text"))?;
            text_of(text.to_owned(), kind, name)
        }
        Kind::Choice(choices) => choice_of(scalar(raw, name)?.as_str().unwrap_or_default(), choices, name),
        Kind::Time => instant_of(scalar(raw, name)?.as_str().unwrap_or_default(), name),
        Kind::Integer(least, most) => {
            let number = scalar(raw, name)?.as_number().and_then(whole);
            integer_of(number, *least, *most, name)
        }
        Kind::Boolean => {
            scalar(raw, name)?.as_bool().map(Checked::Boolean).ok_or_else(|| wrong("must be true or false"))
        }
    }
}

/// A value that is no object and no list; `null` in place of those.
fn scalar(raw: &RawValue, name: &str) -> Result<Value, Problem> {
    if raw.get().starts_with(['{', '[']) {
        return Ok(Value::Null);
    }
    serde_json::from_str(raw.get())
        .map_err(|error| Problem::invalid(name, &format!("cannot be read: {error}")))
}

fn object_of(raw: &RawValue, most: usize, name: &str) -> Result<Checked, Problem> {
    if !raw.get().starts_with('{') {
        return Err(Problem::invalid(name, "must be a JSON object"));
    }
    let encoded = json::compact(raw, name)?;
    if encoded.len() > most {
        let reason = format!("must have at most {most} bytes as JSON; this has {}", encoded.len());
        return Err(Problem::invalid(name, &reason));
    }
    Ok(Checked::Object(encoded))
}

fn list_of(raw: &RawValue, most: usize, fields: &'static [Field], name: &str) -> Result<Checked, Problem> {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        return Err(Problem::invalid(name, "must be a list"));
    };
    if entries.len() > most {
        let reason = format!("must have at most {most} entries; this has {}", entries.len());
        return Err(Problem::invalid(name, &reason));
    }
    let entry_of = |(index, entry)| {
        let name = format!("{name}[{index}]");
        let path = format!("{name}.");
        let object = json::object(entry, &path)?;
        let object = object.ok_or_else(|| Problem::invalid(&name, "must be a JSON object"))?;
        Values::from_object(object, fields, &path)
    };
    entries.into_iter().enumerate().map(entry_of).collect::<Result<_, _>>().map(Checked::List)
}

pub(super) fn from_text(text: &str, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    match kind {
        Kind::Identifier(_)
        | Kind::Text(_)
        | Kind::Workspace
        | Kind::Workspaces(_)
        | Kind::User
        | Kind::Name => text_of(text.to_owned(), kind, name),
        Kind::Choice(choices) | Kind::Choices(choices) => choice_of(text, choices, name),
        Kind::Time => instant_of(text, name),
        Kind::Integer(least, most) => {
            // Digits only: no sign, no white space.
            let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            integer_of(number, *least, *most, name)
        }
        Kind::Boolean => match text {
            "true" => Ok(Checked::Boolean(true)),
            "false" => Ok(Checked::Boolean(false)),
            _ => Err(Problem::invalid(name, "must be true or false")),
        },
        Kind::Object(_) | Kind::List(..) => Err(Problem::invalid(name, "must stand in the body")),
    }
}

fn choice_of(text: &str, choices: &[&str], name: &str) -> Result<Checked, Problem> {
    if choices.contains(&text) {
        return Ok(Checked::Text(text.to_owned()));
    }
    Err(Problem::invalid(name, &format!("must be one of {}", choices.join(", "))))
}

/// RFC 3339 §5.6, with a `T` between date and time. Instants are whole milliseconds: what lies between two of them is
/// as good as the later one, for "not before" and for "before".
fn instant_of(text: &str, name: &str) -> Result<Checked, Problem> {
    let has_shape = text.is_ascii() && matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    let instant = has_shape.then(|| DateTime::parse_from_rfc3339(text).ok()).flatten();
    let instant = instant.ok_or_else(|| {
        Problem::invalid(
            name,
            "must be an instant as in RFC 3339, such as 2026-11-23T10:42:13.125Z or 2026-11-23T11:42:13%2B01:00 (a + in a query stands for a space: write %2B)",
        )
    })?;
    let part = i64::from(instant.nanosecond() % 1_000_000 != 0);
    Ok(Checked::Integer(instant.timestamp_millis().saturating_add(part)))
}

fn text_of(text: String, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    let refused = |error| Problem::of(&error, "");
    let (least, most) = match kind {
        Kind::Workspace | Kind::Workspaces(_) => {
            return WorkspaceId::parse_as(name, &text).map(|_| Checked::Text(text)).map_err(refused);
        }
        Kind::User => return UserId::parse_as(name, &text).map(|_| Checked::Text(text)).map_err(refused),
        Kind::Name => {
            let shown = DisplayName::parse_as(name, &text).map_err(refused)?;
            return Ok(Checked::Text(shown.map_or_else(String::new, |shown| shown.as_str().to_owned())));
        }
        Kind::Identifier(most) => (1, *most),
        Kind::Text(most) => (0, *most),
        Kind::Choice(_)
        | Kind::Choices(_)
        | Kind::Time
        | Kind::Integer(..)
        | Kind::Boolean
        | Kind::Object(_)
        | Kind::List(..) => (0, 0),
    };
    if text.len() < least || text.len() > most {
        return Err(Problem::invalid(
            name,
            &format!("must have {least} to {most} bytes; this has {}", text.len()),
        ));
    }
    if matches!(kind, Kind::Identifier(_)) && text.chars().any(char::is_control) {
        return Err(Problem::invalid(name, "must not contain control characters"));
    }
    Ok(Checked::Text(text))
}

/// A whole number, also if it is written with a point: JSON knows one kind of numbers (RFC 8259 §6).
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        // As long as each whole number has a notation of its own.
        let text = number.to_string();
        let digits = text.strip_suffix(".0").filter(|digits| digits.len() <= 16)?;
        digits.parse().ok()
    })
}

fn integer_of(number: Option<i64>, least: i64, most: i64, name: &str) -> Result<Checked, Problem> {
    number
        .filter(|number| (least..=most).contains(number))
        .map(Checked::Integer)
        .ok_or_else(|| Problem::invalid(name, &format!("must be a whole number from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_rfc_3339_and_nothing_else() {
        let read = |text| match instant_of(text, "from") {
            Ok(Checked::Integer(milliseconds)) => Some(milliseconds),
            Ok(_) | Err(_) => None,
        };
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

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let read = |json| whole(&serde_json::from_str(json).unwrap());
        assert_eq!(
            (read("7"), read("7.0"), read("-7.0"), read("4e2")),
            (Some(7), Some(7), Some(-7), Some(400))
        );
        assert_eq!((read("7.5"), read("1e300"), read("0.1")), (None, None, None));
    }
}
