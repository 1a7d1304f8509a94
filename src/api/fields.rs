//! What may come in: fields of a body, a query and a path, declared once, checked here, shown in the OpenAPI document.
//!
//! Nothing unknown gets through: a mistyped `tll_ms` is refused by its name, never silently ignored.

use std::fmt::Write as _;

use super::checks::{Checked, from_json, from_text};
use super::json::{Object, shown};
use super::problem::Problem;
use crate::domain::{DisplayName, Fence, SessionId, UserId, WorkspaceId};
use crate::error::Error;
use crate::percent;
use crate::time::{Ttl, WallTime};

/// Greatest integer that every JSON reader keeps whole: 2^53 - 1 (RFC 8259 §6).
pub const GREATEST: i64 = 9_007_199_254_740_991;

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it may be missing.
    pub need: Need,
    /// What it is for.
    pub about: &'static str,
}

/// Whether a field may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// It may be missing, or `null`.
    Optional,
}

/// What a field may be.
#[derive(Debug)]
pub enum Kind {
    /// A text of 1 to so many bytes without control characters.
    Identifier(usize),
    /// A text of up to so many bytes.
    Text(usize),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number, between these two.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// A JSON object of up to so many bytes, encoded without white space.
    Object(usize),
    /// Up to so many objects with these fields.
    List(usize, &'static [Field]),
    /// The id of a workspace.
    Workspace,
    /// Up to so many ids of workspaces, in a query whose parameter is given as often.
    Workspaces(usize),
    /// The id of a user.
    User,
    /// How somebody or something is shown. An empty one says nothing.
    Name,
    /// Some of these texts, in a query whose parameter is given as often.
    Choices(&'static [&'static str]),
    /// An instant of the wall clock (RFC 3339); milliseconds since 1970, rounded up.
    Time,
}

/// Fields that were checked, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<(&'static str, Checked)>);

impl Values {
    /// Checks a JSON object. `path` stands before the names in refusals.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn from_object(object: Object<'_>, fields: &'static [Field], path: &str) -> Result<Self, Problem> {
        let mut values = Self::default();
        for (name, value) in object {
            let field = known(&name, fields, path, "field")?;
            if value.get() == "null" {
                continue;
            }
            let checked = from_json(value, &field.kind, &format!("{path}{name}"))?;
            values.0.push((field.name, checked));
        }
        values.complete(fields, path)
    }

    /// Checks the pairs of a query.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn from_query(query: &str, fields: &'static [Field]) -> Result<Self, Problem> {
        let mut values = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name, "query")?;
            let value = decoded(value, &name)?;
            let field = known(&name, fields, "", "query parameter")?;
            let checked = from_text(&value, &field.kind, &name)?;
            if let Kind::Workspaces(most) = field.kind {
                values.one_more(field.name, checked, most)?;
                continue;
            }
            if let Kind::Choices(choices) = field.kind {
                values.one_more(field.name, checked, choices.len())?;
                continue;
            }
            if values.find(field.name).is_some() {
                return Err(Problem::invalid(&name, "must be given once"));
            }
            values.0.push((field.name, checked));
        }
        values.complete(fields, "")
    }

    fn one_more(&mut self, name: &'static str, checked: Checked, most: usize) -> Result<(), Problem> {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Checked::Several(several))) if several.len() == most => {
                Err(Problem::invalid(name, &format!("may be given at most {most} times")))
            }
            Some((_, Checked::Several(several))) => {
                several.extend(checked.into_text());
                Ok(())
            }
            Some(_) | None => {
                self.0.push((name, Checked::Several(checked.into_text().into_iter().collect())));
                Ok(())
            }
        }
    }

    /// Adds what else the request says. What is said twice must be the same.
    ///
    /// # Errors
    /// A 400 that names what is said differently.
    pub fn and(mut self, others: Self) -> Result<Self, Problem> {
        for (name, value) in others.0 {
            match self.find(name) {
                None => self.0.push((name, value)),
                Some(before) if *before == value => {}
                Some(_) => {
                    return Err(Problem::invalid(name, "is given twice, and not the same"));
                }
            }
        }
        Ok(self)
    }

    /// Adds a path parameter.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn with_path(mut self, name: &'static str, text: &str, kind: &Kind) -> Result<Self, Problem> {
        self.0.push((name, from_text(text, kind, name)?));
        Ok(self)
    }

    fn complete(self, fields: &'static [Field], path: &str) -> Result<Self, Problem> {
        for field in fields {
            if field.need == Need::Required && self.find(field.name).is_none() {
                return Err(Problem::invalid(&format!("{path}{}", field.name), "is missing"));
            }
        }
        Ok(self)
    }

    fn find(&self, name: &str) -> Option<&Checked> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.find(name) {
            Some(Checked::Text(text) | Checked::Object(text)) => Some(text),
            Some(Checked::Integer(_) | Checked::Boolean(_) | Checked::List(_) | Checked::Several(_))
            | None => None,
        }
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.find(name) {
            Some(Checked::Integer(number)) => Some(*number),
            Some(
                Checked::Text(_)
                | Checked::Object(_)
                | Checked::Boolean(_)
                | Checked::List(_)
                | Checked::Several(_),
            )
            | None => None,
        }
    }

    /// The values of a parameter that may be given several times.
    #[must_use]
    pub fn several(&self, name: &str) -> &[String] {
        match self.find(name) {
            Some(Checked::Several(several)) => several,
            Some(
                Checked::Text(_)
                | Checked::Object(_)
                | Checked::Integer(_)
                | Checked::Boolean(_)
                | Checked::List(_),
            )
            | None => &[],
        }
    }

    /// Whether it is `true`; missing is not.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.find(name) == Some(&Checked::Boolean(true))
    }

    /// The entries of a list; none when it is missing.
    #[must_use]
    pub fn list(&self, name: &str) -> &[Self] {
        match self.find(name) {
            Some(Checked::List(entries)) => entries,
            Some(
                Checked::Text(_)
                | Checked::Object(_)
                | Checked::Boolean(_)
                | Checked::Integer(_)
                | Checked::Several(_),
            )
            | None => &[],
        }
    }

    /// `workspace_id`, which the route requires.
    ///
    /// # Errors
    /// A 400 that names it when it is missing all the same.
    pub fn workspace_id(&self) -> Result<WorkspaceId, Problem> {
        WorkspaceId::parse(self.text("workspace_id").unwrap_or_default()).map_err(|error| refused(&error))
    }

    /// `user_id`.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn user_id(&self) -> Result<Option<UserId>, Problem> {
        self.text("user_id").map(UserId::parse).transpose().map_err(|error| refused(&error))
    }

    /// Another field that names a user.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn user_in(&self, name: &str) -> Result<Option<UserId>, Problem> {
        self.text(name).map(|text| UserId::parse_as(name, text)).transpose().map_err(|error| refused(&error))
    }

    /// An instant.
    #[must_use]
    pub fn instant(&self, name: &str) -> Option<WallTime> {
        self.integer(name).map(WallTime)
    }

    /// `session_id`.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn session_id(&self) -> Result<Option<SessionId>, Problem> {
        self.text("session_id").map(SessionId::parse).transpose().map_err(|error| refused(&error))
    }

    /// `name`.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn display_name(&self) -> Result<Option<DisplayName>, Problem> {
        let name = self.text("name").map(DisplayName::parse).transpose();
        name.map(Option::flatten).map_err(|error| refused(&error))
    }

    /// A fence.
    #[must_use]
    pub fn fence(&self, name: &str) -> Option<Fence> {
        self.integer(name).map(Fence)
    }

    /// `ttl_ms`.
    #[must_use]
    pub fn ttl(&self) -> Option<Ttl> {
        self.integer("ttl_ms").map(Ttl::from_millis)
    }
}

/// Part of a query: percent-encoded UTF-8, with `+` for a space.
fn decoded(part: &str, name: &str) -> Result<String, Problem> {
    percent::decode(&part.replace('+', " ")).ok_or_else(|| Problem::invalid(name, percent::RULE))
}

/// A value that the domain does not take, though the table does.
fn refused(error: &Error) -> Problem {
    Problem::of(error, "")
}

fn known(name: &str, fields: &'static [Field], path: &str, what: &str) -> Result<&'static Field, Problem> {
    fields.iter().find(|field| field.name == name).ok_or_else(|| {
        let mut reason = format!("is no {what} of this call");
        if fields.is_empty() {
            let _ = write!(reason, ", which has none");
        } else {
            let names: Vec<_> = fields.iter().map(|field| field.name).collect();
            let (verb, names) = (if names.len() == 1 { "is" } else { "are" }, names.join(", "));
            let _ = write!(reason, "; there {verb} {names}");
        }
        Problem::invalid(&format!("{path}{}", shown(name)), &reason)
    })
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;
    use serde_json::{Value, json};

    const FIELDS: &[Field] = &[
        Field { name: "id", kind: Kind::Identifier(8), need: Need::Required, about: "" },
        Field { name: "ttl_ms", kind: Kind::Integer(1, 100), need: Need::Optional, about: "" },
        Field { name: "force", kind: Kind::Boolean, need: Need::Optional, about: "" },
        Field { name: "metadata", kind: Kind::Object(16), need: Need::Optional, about: "" },
    ];

    fn refused(object: &Value) -> String {
        let raw = serde_json::value::to_raw_value(object).unwrap();
        let object = json::object(&raw, "").unwrap().unwrap();
        Values::from_object(object, FIELDS, "").unwrap_err().sentence().to_owned()
    }

    #[test]
    fn what_is_not_declared_is_refused_by_its_name() {
        for (object, says) in [
            (
                json!({"id": "a", "tll_ms": 5}),
                "tll_ms is no field of this call; there are id, ttl_ms, force, metadata.",
            ),
            (json!({"ttl_ms": 5}), "id is missing."),
            (json!({"id": null}), "id is missing."),
            (json!({"id": 7}), "id must be a text."),
            (json!({"id": "123456789"}), "id must have 1 to 8 bytes; this has 9."),
            (json!({"id": "a\u{0}"}), "id must not contain control characters."),
            (json!({"id": "a", "ttl_ms": 101}), "ttl_ms must be a whole number from 1 to 100."),
            (json!({"id": "a", "ttl_ms": 1.5}), "ttl_ms must be a whole number from 1 to 100."),
            (json!({"id": "a", "ttl_ms": 1e300}), "ttl_ms must be a whole number from 1 to 100."),
            (json!({"id": "a", "ttl_ms": "5"}), "ttl_ms must be a whole number from 1 to 100."),
            (json!({"id": "a", "force": "yes"}), "force must be true or false."),
            (json!({"id": "a", "metadata": []}), "metadata must be a JSON object."),
            (
                json!({"id": "a", "metadata": {"k": "0123456789"}}),
                "metadata must have at most 16 bytes as JSON; this has 18.",
            ),
        ] {
            assert_eq!(refused(&object), says);
        }
    }

    #[test]
    fn a_query_is_checked_like_a_body() {
        let values = Values::from_query("id=a%2Fb&force=true&ttl_ms=7", FIELDS).unwrap();
        assert_eq!(values.text("id"), Some("a/b"));
        assert_eq!(values.integer("ttl_ms"), Some(7));
        assert!(values.is_true("force"));
        for bad in ["id=a&id=a", "id=a&x=1", "id=a&ttl_ms=%2B7", "id=a&force=1", "id=a&metadata={}"] {
            assert!(Values::from_query(bad, FIELDS).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_said_twice_must_be_the_same() {
        let one = Values::from_query("id=a&ttl_ms=7", FIELDS).unwrap();
        let same = Values::from_query("id=a", FIELDS).unwrap();
        let other = Values::from_query("id=b", FIELDS).unwrap();
        assert!(one.clone().and(same).is_ok());
        assert!(one.and(other).is_err());
    }
}
