//! The versions of the schema, and the migration of older files.
//!
//! `schema.sql` is the newest version. Each step migrates a file by one version. The file is written only if
//! all steps have succeeded. `tests/schemas` has the older versions, from which the tests begin.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::shape;

/// `PRAGMA application_id` of a Lockhouse database: "LOCK".
pub const APPLICATION_ID: i32 = 0x4C4F_434B;
/// `PRAGMA user_version`: the version of `schema.sql`.
pub const SCHEMA_VERSION: i32 = 7;

const SCHEMA: &str = include_str!("../../../schema.sql");

/// The migration steps: from version 1 to 2, from 2 to 3, and so on.
const STEPS: &[&str] = &[
    // Knocks get the times of the default settings: knock_grant_after 30 s, knock_grant_at_latest 5 min.
    // Rows begin with check_at 0: the timer and the sweeper check each row once, in steps.
    "ALTER TABLE meta ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE meta ADD COLUMN lock_count INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE meta ADD COLUMN mark BLOB NOT NULL DEFAULT x'00';
     UPDATE meta SET lock_count = (SELECT count(*) FROM locks);
     CREATE TABLE restarts (
         run            INTEGER PRIMARY KEY,
         last_seen_at   INTEGER NOT NULL,
         grace_ends_at  INTEGER NOT NULL
     ) STRICT;
     DROP INDEX locks_by_expiry;
     DROP INDEX locks_by_grant;
     ALTER TABLE locks ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE locks ADD COLUMN check_at INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX locks_by_check ON locks (check_at);
     ALTER TABLE locks ADD COLUMN shown_at INTEGER;
     ALTER TABLE locks ADD COLUMN grant_at_latest INTEGER;
     CREATE INDEX knocks_by_user ON knocks (user_id);
     UPDATE locks SET shown_at = grant_at - 30000, grant_at_latest = grant_at + 270000 WHERE grant_at IS NOT NULL;",
    // `mark` must stay the last column.
    "CREATE INDEX deletions ON events (workspace_id, revision) WHERE type = 'workspace.deleted';
     ALTER TABLE knocks ADD COLUMN token_hash BLOB;
     ALTER TABLE knocks ADD COLUMN good_until INTEGER;
     ALTER TABLE meta DROP COLUMN mark;
     ALTER TABLE meta ADD COLUMN opened_at INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE meta ADD COLUMN mark BLOB NOT NULL DEFAULT x'00';",
    // Locks have a kind.
    "ALTER TABLE locks ADD COLUMN kind TEXT NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs');
     ALTER TABLE locks ADD COLUMN drain_until INTEGER;
     CREATE INDEX locks_by_user_and_kind ON locks (user_id, kind);
     ALTER TABLE knocks ADD COLUMN kind TEXT NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs');
     ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs');
     ALTER TABLE events ADD COLUMN drain_until INTEGER;",
    // Git LFS names a lock by its fence.
    "CREATE INDEX locks_by_fence ON locks (fence) WHERE workspace_id >= 'lfs/' AND workspace_id < 'lfs0';",
    "CREATE TABLE webhooks (
         name           TEXT    NOT NULL PRIMARY KEY,
         position       INTEGER NOT NULL,
         owner          TEXT    NOT NULL,
         until          INTEGER NOT NULL,
         removed_at     INTEGER
     ) STRICT, WITHOUT ROWID;",
    // Agents. The index gets a condition that is faster to check: see `schema.sql`.
    "DROP INDEX endings_by_user;
     CREATE INDEX endings_by_user ON events (workspace_id, user_id, revision)
         WHERE type <> 'lock.acquired' AND type <> 'lock.knocked' AND type <> 'lock.knock_declined';
     ALTER TABLE locks ADD COLUMN for_name TEXT;
     ALTER TABLE knocks ADD COLUMN for_name TEXT;
     ALTER TABLE tokens ADD COLUMN agent INTEGER NOT NULL DEFAULT 0 CHECK (agent IN (0, 1));
     ALTER TABLE events ADD COLUMN yielded INTEGER NOT NULL DEFAULT 0 CHECK (yielded IN (0, 1));",
];

/// Creates the tables of the newest version in an empty file.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(
        "INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 0, 0, 0, 0);",
    )?;
    mark(&transaction)?;
    transaction.commit()
}

/// What a file of this version lacks, as the end of a sentence; `None` if it is complete.
pub(super) fn difference(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut model = Connection::open_in_memory()?;
    create(&mut model)?;
    shape::difference(connection, &model)
}

/// Migrates an older file to [`SCHEMA_VERSION`], completely or not at all. If the result would be incomplete,
/// the file stays unchanged, and this returns what it lacks.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<Option<String>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for step in STEPS.iter().skip(usize::try_from(version.saturating_sub(1)).unwrap_or_default()) {
        transaction.execute_batch(step)?;
    }
    if let Some(difference) = difference(&transaction)? {
        return Ok(Some(difference));
    }
    mark(&transaction)?;
    transaction.commit()?;
    Ok(None)
}

/// Whether files of this version can be migrated.
pub(super) fn is_older(version: i32) -> bool {
    (1..SCHEMA_VERSION).contains(&version)
}

fn mark(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    ))
}
