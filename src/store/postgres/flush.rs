//! The commands that write what the use cases have changed.

use std::collections::BTreeMap;

use super::row;
use super::session::{Command, Parameter, parameters};
use crate::domain::event::Event;
use crate::domain::grace::Run;
use crate::domain::{DisplayName, GrantState, Lock, SessionId, UserId, WorkspaceId};
use crate::time::Timestamp;

/// The columns of `locks` as arrays: the parameters of the statements below, in the order of `locks!`.
fn columns(locks: &[(bool, &Lock)], run: Run) -> Vec<Parameter> {
    let texts = |read: &dyn Fn(&Lock) -> Option<&str>| -> Vec<Option<String>> {
        locks.iter().map(|(_, lock)| read(lock).map(str::to_owned)).collect()
    };
    let numbers =
        |read: &dyn Fn(&Lock) -> i64| -> Vec<i64> { locks.iter().map(|(_, lock)| read(lock)).collect() };
    let times = |read: &dyn Fn(&Lock) -> Option<Timestamp>| -> Vec<Option<i64>> {
        locks.iter().map(|(_, lock)| read(lock).map(|at| at.0)).collect()
    };
    parameters![
        texts(&|lock| Some(lock.workspace_id.as_str())),
        texts(&|lock| Some(lock.user_id.as_str())),
        texts(&|lock| lock.user_name.as_ref().map(DisplayName::as_str)),
        texts(&|lock| lock.session_id.as_ref().map(SessionId::as_str)),
        numbers(&|lock| lock.fence.0),
        numbers(&|lock| lock.acquired_at.0),
        numbers(&|lock| lock.renewed_at.0),
        numbers(&|lock| lock.last_active_at.0),
        numbers(&|lock| lock.expires_at.0),
        numbers(&|lock| lock.ttl.as_millis()),
        texts(&|lock| lock.note.as_deref()),
        texts(&|lock| Some(lock.metadata.as_str())),
        numbers(&|lock| match lock.grant_state {
            GrantState::Claimed => 0,
            GrantState::ToSession => 1,
            GrantState::ToUser => 2,
            GrantState::InDoubt => 3,
        }),
        numbers(&|lock| {
            i64::try_from(lock.knocks.pending.len() + lock.knocks.declined.len()).unwrap_or(i64::MAX)
        }),
        times(&|lock| lock.knocks.grant_at),
        numbers(&|_| run.0),
        times(&|lock| lock.knocks.shown_at),
        times(&|lock| lock.knocks.grant_at_latest),
        numbers(&|lock| lock.check_at.0),
        texts(&|lock| Some(lock.kind.as_str())),
        times(&|lock| lock.drain_until),
        texts(&|lock| lock.for_name.as_ref().map(DisplayName::as_str)),
    ]
}

/// The arrays of [`columns`] as a table.
macro_rules! as_table {
    () => {
        "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::text[], $21::bigint[], $22::text[])"
    };
}

/// The lock of a workspace.
#[derive(Debug, Clone, Default)]
pub(super) struct LoadedLock {
    /// Whether the table has a row.
    pub(super) is_stored: bool,
    /// The lock now.
    pub(super) lock: Option<Lock>,
    pub(super) is_changed: bool,
    pub(super) has_new_knocks: bool,
}

/// An event that was not written yet.
#[derive(Debug, Clone)]
pub(super) struct PendingEvent {
    pub(super) event: Event,
    pub(super) lease_at: Timestamp,
    pub(super) drain_until: Option<Timestamp>,
}

/// The commands that write what has changed. If there are events, the command that writes them is the last, and
/// its row has the revision before the first of them.
pub(super) fn commands(
    locks: &BTreeMap<WorkspaceId, LoadedLock>,
    events: &[PendingEvent],
    run: Run,
) -> Vec<Command> {
    let changed: Vec<_> = locks.iter().filter(|(_, entry)| entry.is_changed).collect();
    let mut commands = deletions(&changed);
    let (stored, new): (Vec<_>, Vec<_>) = changed
        .iter()
        .filter_map(|(_, entry)| Some((entry.is_stored, entry.lock.as_ref()?)))
        .partition(|(is_stored, _)| *is_stored);
    if !stored.is_empty() {
        commands.push(Command::new(
            concat!(
                "UPDATE locks SET (",
                row::locks!(),
                ") = ROW(n.*) FROM ",
                as_table!(),
                " n (",
                row::locks!(),
                ") WHERE locks.workspace_id = n.workspace_id"
            ),
            columns(&stored, run),
        ));
    }
    if !new.is_empty() {
        commands.push(Command::new(
            concat!("INSERT INTO locks (", row::locks!(), ") SELECT * FROM ", as_table!()),
            columns(&new, run),
        ));
    }
    let with_new_knocks = changed.iter().filter(|(_, entry)| entry.has_new_knocks);
    commands.extend(knocks(with_new_knocks.filter_map(|(_, entry)| entry.lock.as_ref())));
    if !events.is_empty() {
        commands.push(event_command(events));
    }
    commands
}

fn deletions(changed: &[(&WorkspaceId, &LoadedLock)]) -> Vec<Command> {
    let ids = |wanted: fn(&LoadedLock) -> bool| -> Vec<String> {
        let found = changed.iter().filter(|(_, entry)| entry.is_stored && wanted(entry));
        found.map(|(id, _)| id.as_str().to_owned()).collect()
    };
    let of_knocks = "DELETE FROM knocks WHERE workspace_id = ANY($1::text[])";
    let of_locks = "DELETE FROM locks WHERE workspace_id = ANY($1::text[])";
    [(of_knocks, ids(|entry| entry.has_new_knocks)), (of_locks, ids(|entry| entry.lock.is_none()))]
        .into_iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(sql, ids)| Command::new(sql, parameters![ids]))
        .collect()
}

/// The command that inserts the knocks of locks.
fn knocks<'l>(locks: impl Iterator<Item = &'l Lock>) -> Option<Command> {
    #[derive(Default)]
    struct Columns {
        workspace_id: Vec<String>,
        place: Vec<i64>,
        user_id: Vec<String>,
        user_name: Vec<Option<String>>,
        session_id: Vec<Option<String>>,
        message: Vec<Option<String>>,
        at: Vec<i64>,
        token_hash: Vec<Option<Vec<u8>>>,
        good_until: Vec<Option<i64>>,
        kind: Vec<&'static str>,
        for_name: Vec<Option<String>>,
    }
    let mut columns = Columns::default();
    for lock in locks {
        for declined in &lock.knocks.declined {
            columns.workspace_id.push(lock.workspace_id.as_str().to_owned());
            columns.place.push(if declined.kind.is_agent() { -1 } else { 0 });
            columns.user_id.push(declined.user_id.as_str().to_owned());
            columns.user_name.push(None);
            columns.session_id.push(None);
            columns.message.push(None);
            columns.at.push(declined.at.0);
            columns.token_hash.push(None);
            columns.good_until.push(None);
            columns.kind.push(declined.kind.as_str());
            columns.for_name.push(None);
        }
        for (place, knock) in (1..).zip(&lock.knocks.pending) {
            columns.workspace_id.push(lock.workspace_id.as_str().to_owned());
            columns.place.push(place);
            columns.user_id.push(knock.user_id.as_str().to_owned());
            columns.user_name.push(knock.name.as_ref().map(|name| name.as_str().to_owned()));
            columns
                .session_id
                .push(knock.session_id.as_ref().map(|session_id| session_id.as_str().to_owned()));
            columns.message.push(knock.message.clone());
            columns.at.push(knock.knocked_at.0);
            let (token_hash, good_until) = row::validity_columns(&knock.validity);
            columns.token_hash.push(token_hash);
            columns.good_until.push(good_until);
            columns.kind.push(knock.kind.as_str());
            columns.for_name.push(knock.for_name.as_ref().map(|name| name.as_str().to_owned()));
        }
    }
    (!columns.place.is_empty()).then(|| {
        Command::new(
            concat!(
                "INSERT INTO knocks (", row::knocks!(), ") SELECT * FROM
                 unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bigint[], $10::text[], $11::text[])"
            ),
            parameters![
                columns.workspace_id,
                columns.place,
                columns.user_id,
                columns.user_name,
                columns.session_id,
                columns.message,
                columns.at,
                columns.token_hash,
                columns.good_until,
                columns.kind,
                columns.for_name,
            ],
        )
    })
}

/// The command that gives events their revisions and inserts them. The row of `meta` stays locked until the commit, so
/// revisions become visible in their order.
fn event_command(events: &[PendingEvent]) -> Command {
    let user = |id: &Option<UserId>| id.as_ref().map(|id| id.as_str().to_owned());
    let of = |read: &dyn Fn(&PendingEvent) -> Option<String>| -> Vec<Option<String>> {
        events.iter().map(read).collect()
    };
    let number = |read: &dyn Fn(&PendingEvent) -> Option<i64>| -> Vec<Option<i64>> {
        events.iter().map(read).collect()
    };
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    Command::new(
        "WITH given AS (UPDATE meta SET last_revision = last_revision + $1 RETURNING last_revision - $1 AS base),
         written AS (INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, drain_until, yielded)
         SELECT base + place, workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, drain_until, yielded
         FROM given, unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::text[], $16::bigint[], $17::boolean[])
         WITH ORDINALITY AS n (workspace_id, type, at, lease_at, user_id, session_id, fence, next_fence, by_user_id, by_name, to_user_id, message, reclaimed, kind, drain_until, yielded, place))
         SELECT base FROM given",
        parameters![
            count,
            of(&|pending| Some(pending.event.workspace_id.as_str().to_owned())),
            of(&|pending| Some(pending.event.event_type.as_str().to_owned())),
            number(&|pending| Some(pending.event.at.0)),
            number(&|pending| Some(pending.lease_at.0)),
            of(&|pending| user(&pending.event.user_id)),
            of(&|pending| pending.event.session_id.as_ref().map(|id| id.as_str().to_owned())),
            number(&|pending| pending.event.fence.map(|fence| fence.0)),
            number(&|pending| pending.event.next_fence.map(|fence| fence.0)),
            of(&|pending| user(&pending.event.by_user_id)),
            of(&|pending| pending.event.by_name.as_ref().map(|name| name.as_str().to_owned())),
            of(&|pending| user(&pending.event.to_user_id)),
            of(&|pending| pending.event.message.clone()),
            events.iter().map(|pending| pending.event.reclaimed).collect::<Vec<bool>>(),
            events.iter().map(|pending| pending.event.kind.as_str()).collect::<Vec<_>>(),
            number(&|pending| pending.drain_until.map(|until| until.0)),
            events.iter().map(|pending| pending.event.yielded).collect::<Vec<bool>>(),
        ],
    )
}
