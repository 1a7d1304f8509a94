//! Log lines about locks and tokens. They are gathered in a working set and logged after the commit.

use std::fmt;

use log::kv::{ToValue, Value};
use log::{Level, Record};

use super::origin::Origin;
use crate::domain::event::{EventType, NewEvent};
use crate::domain::token::Token;
use crate::domain::{LockKind, UserId};

/// The log target for events of locks.
const LOCK: &str = "lockhouse::lock";
/// The name of the field with the revision of an event.
const REVISION: &str = "revision";
/// The log target for events of tokens.
const TOKEN: &str = "lockhouse::token";

/// A line of the log that waits for the commit.
#[derive(Debug)]
pub(super) struct LogEntry {
    target: &'static str,
    level: Level,
    /// The name of the event. It is the whole message where fields are logged separately.
    name: &'static str,
    fields: Vec<(&'static str, LogField)>,
}

#[derive(Debug)]
enum LogField {
    Text(String),
    Number(i64),
    True,
}

impl LogEntry {
    /// The log line for an event. `None` if its level is not logged.
    pub(super) fn of_event(event: &NewEvent<'_>, revision: i64) -> Option<Self> {
        let user = |user_id: &UserId| LogField::Text(user_id.as_str().to_owned());
        let by = event.by.map(|by| &by.user_id);
        // If the holder did not answer a knock, the event names the new holder as the one who acted.
        let automatic = event.to.is_some() && event.to == by;
        Self::new(LOCK, level(event), event.event_type.as_str(), || {
            [
                Some(("workspace_id", LogField::Text(event.workspace_id.as_str().to_owned()))),
                event.user_id.map(|user_id| ("user_id", user(user_id))),
                event.fence.map(|fence| ("fence", LogField::Number(fence.0))),
                (event.kind != LockKind::Edit)
                    .then(|| ("kind", LogField::Text(event.kind.as_str().to_owned()))),
                by.filter(|by| !automatic && Some(*by) != event.user_id)
                    .map(|user_id| ("by_user_id", user(user_id))),
                event.to.map(|user_id| ("to_user_id", user(user_id))),
                event.next_fence.map(|fence| ("next_fence", LogField::Number(fence.0))),
                automatic.then_some(("automatic", LogField::True)),
                event.reclaimed.then_some(("reclaimed", LogField::True)),
                Some((REVISION, LogField::Number(revision))),
            ]
        })
    }

    /// The log line for a new token.
    pub(super) fn of_new_token(token: &Token) -> Option<Self> {
        Self::of_token("token.created", token)
    }

    /// The log line for a revoked token.
    pub(super) fn of_revoked_token(token: &Token) -> Option<Self> {
        Self::of_token("token.revoked", token)
    }

    fn of_token(name: &'static str, token: &Token) -> Option<Self> {
        Self::new(TOKEN, Level::Info, name, || {
            [
                Some(("token_id", LogField::Text(token.token_id.clone()))),
                Some(("scope", LogField::Text(token.scope.as_str().to_owned()))),
                token
                    .user_id
                    .as_ref()
                    .map(|user_id| ("user_id", LogField::Text(user_id.as_str().to_owned()))),
            ]
        })
    }

    /// Adds `by` to the revision of the event.
    pub(super) fn shift_revision(&mut self, by: i64) {
        for (_, field) in self.fields.iter_mut().filter(|(name, _)| *name == REVISION) {
            if let LogField::Number(revision) = field {
                *revision = revision.saturating_add(by);
            }
        }
    }

    /// Calls `fields` only if the level is logged.
    fn new<const COUNT: usize>(
        target: &'static str,
        level: Level,
        name: &'static str,
        fields: impl FnOnce() -> [Option<(&'static str, LogField)>; COUNT],
    ) -> Option<Self> {
        log::log_enabled!(target: target, level).then(|| {
            let mut fields: Vec<_> = fields().into_iter().flatten().collect();
            if let Some(ids) = Origin::current().ids() {
                fields.push(("request_id", LogField::Text(ids.request_id.clone())));
                fields.extend(ids.trace_id.clone().map(|id| ("trace_id", LogField::Text(id))));
            }
            Self { target, level, name, fields }
        })
    }

    /// Writes the log line. Call it only after the commit of its transaction.
    pub(super) fn log(&self) {
        let mut fields = vec![("message", Value::from(self.name))];
        fields.extend(self.fields.iter().map(|(name, field)| (*name, field.to_value())));
        log::logger().log(
            &Record::builder()
                .target(self.target)
                .level(self.level)
                .key_values(&fields)
                .args(format_args!("{self}"))
                .build(),
        );
    }
}

/// The text form: the name, and each field.
impl fmt::Display for LogEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        for (name, field) in &self.fields {
            match field {
                LogField::Text(text) => write!(formatter, " {name}={text:?}")?,
                LogField::Number(number) => write!(formatter, " {name}={number}")?,
                LogField::True => write!(formatter, " {name}=true")?,
            }
        }
        Ok(())
    }
}

impl ToValue for LogField {
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Number(number) => Value::from(*number),
            Self::True => Value::from(true),
        }
    }
}

/// The log level of an event. A postponed grant is no change of the lock, and comes with each heartbeat.
const fn level(event: &NewEvent<'_>) -> Level {
    match event.event_type {
        EventType::Knocked if event.to.is_some() => Level::Debug,
        EventType::Acquired | EventType::Knocked | EventType::KnockDeclined | EventType::Ended(_) => {
            Level::Info
        }
    }
}
