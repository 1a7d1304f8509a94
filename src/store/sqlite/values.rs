//! Conversion of domain types to and from the values of SQLite.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::domain::event::EventType;
use crate::domain::grace::Run;
use crate::domain::member::Role;
use crate::domain::token::Scope;
use crate::domain::{DisplayName, Fence, GrantState, LockKind, SessionId, UserId, WorkspaceId};
use crate::time::{Timestamp, Ttl, WallTime};

/// Types that are stored as another type: `$name` as `$stored`.
macro_rules! stored {
    ($($name:ident as $stored:ty: $to:expr, $from:expr;)*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let to: fn(&Self) -> $stored = $to;
                Ok(to(self).into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$stored>::column_result(value).map($from)
            }
        }
    )*};
}

stored! {
    Fence as i64: |fence| fence.0, Self;
    Run as i64: |run| run.0, Self;
    Timestamp as i64: |at| at.0, Self;
    WallTime as i64: |at| at.0, Self;
    Ttl as i64: |ttl| ttl.as_millis(), Self::from_millis;
    GrantState as i64: |state| grant_state_number(*state), grant_state;
}

const fn grant_state_number(state: GrantState) -> i64 {
    match state {
        GrantState::Claimed => 0,
        GrantState::ToSession => 1,
        GrantState::ToUser => 2,
        // On PostgreSQL only.
        GrantState::InDoubt => 3,
    }
}

const fn grant_state(number: i64) -> GrantState {
    match number {
        0 => GrantState::Claimed,
        1 => GrantState::ToSession,
        _ => GrantState::ToUser,
    }
}

/// Types that are stored as text. `$parse` converts the stored text.
macro_rules! stored_text {
    ($($name:ident: $parse:expr;)*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                let text = value.as_str()?;
                parse(text).ok_or_else(|| {
                    FromSqlError::Other(format!("{text:?} is not a known {}", stringify!($name)).into())
                })
            }
        }
    )*};
}

stored_text! {
    WorkspaceId: |text| Some(Self::trusted(text.to_owned()));
    UserId: |text| Some(Self::trusted(text.to_owned()));
    SessionId: |text| Some(Self::trusted(text.to_owned()));
    DisplayName: |text| Some(Self::trusted(text.to_owned()));
    EventType: Self::parse;
    // A CHECK of the table allows only known kinds, roles and scopes.
    LockKind: Self::parse;
    Role: Self::parse;
    Scope: Self::parse;
}
