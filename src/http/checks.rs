//! How one value is checked: what it may be, and what is said when it is not.

use serde_json::Value;

use super::fields::{Kind, Values};
use super::problem::Problem;

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

pub(super) fn from_json(value: Value, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    let wrong = |what: &str| Problem::invalid(name, what);
    match (kind, value) {
        (Kind::Identifier(_) | Kind::Line(_) | Kind::Text(_), Value::String(text)) => {
            text_of(text, kind, name)
        }
        (Kind::Identifier(_) | Kind::Line(_) | Kind::Text(_), _) => Err(wrong("must be a text")),
        (Kind::Choice(choices), Value::String(text)) => choice_of(&text, choices, name),
        (Kind::Choice(choices), _) => choice_of("", choices, name),
        (Kind::Integer(least, most), Value::Number(number)) => {
            integer_of(whole(&number), *least, *most, name)
        }
        (Kind::Integer(least, most), _) => integer_of(None, *least, *most, name),
        (Kind::Boolean, Value::Bool(value)) => Ok(Checked::Boolean(value)),
        (Kind::Boolean, _) => Err(wrong("must be true or false")),
        (Kind::Object(most), Value::Object(object)) => {
            let encoded = Value::Object(object).to_string();
            if encoded.len() > *most {
                return Err(wrong(&format!(
                    "must have at most {most} bytes as JSON; this has {}",
                    encoded.len()
                )));
            }
            Ok(Checked::Object(encoded))
        }
        (Kind::Object(_), _) => Err(wrong("must be a JSON object")),
        (Kind::List(most, fields), Value::Array(entries)) => {
            if entries.len() > *most {
                return Err(wrong(&format!("must have at most {most} entries; this has {}", entries.len())));
            }
            entries
                .into_iter()
                .enumerate()
                .map(|(index, entry)| match entry {
                    Value::Object(object) => {
                        Values::from_object(object, fields, &format!("{name}[{index}]."))
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        Err(Problem::invalid(&format!("{name}[{index}]"), "must be a JSON object"))
                    }
                })
                .collect::<Result<_, _>>()
                .map(Checked::List)
        }
        (Kind::List(..), _) => Err(wrong("must be a list")),
        (Kind::Several(..), _) => Err(wrong("must stand in the query")),
    }
}

pub(super) fn from_text(text: &str, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    match kind {
        Kind::Identifier(_) | Kind::Several(..) | Kind::Line(_) | Kind::Text(_) => {
            text_of(text.to_owned(), kind, name)
        }
        Kind::Choice(choices) => choice_of(text, choices, name),
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

fn text_of(text: String, kind: &Kind, name: &str) -> Result<Checked, Problem> {
    let (least, most) = match kind {
        Kind::Identifier(most) | Kind::Several(_, most) => (1, *most),
        Kind::Line(most) | Kind::Text(most) => (0, *most),
        Kind::Choice(_) | Kind::Integer(..) | Kind::Boolean | Kind::Object(_) | Kind::List(..) => (0, 0),
    };
    if text.len() < least || text.len() > most {
        return Err(Problem::invalid(
            name,
            &format!("must have {least} to {most} bytes; this has {}", text.len()),
        ));
    }
    if matches!(kind, Kind::Identifier(_) | Kind::Several(..) | Kind::Line(_))
        && text.chars().any(char::is_control)
    {
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
    fn a_whole_number_may_be_written_with_a_point() {
        let read = |json| whole(&serde_json::from_str(json).unwrap());
        assert_eq!(
            (read("7"), read("7.0"), read("-7.0"), read("4e2")),
            (Some(7), Some(7), Some(-7), Some(400))
        );
        assert_eq!((read("7.5"), read("1e300"), read("0.1")), (None, None, None));
    }
}
