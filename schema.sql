-- The data of Lockhouse. All data is in one SQLite file with this schema.
--
-- PRAGMA application_id is 0x4C4F434B ("LOCK"). PRAGMA user_version is the version of this schema, 7.
-- A server refuses a file with another application_id or with a newer version than it knows. It migrates an
-- older file to its own version, step by step: see src/store/sqlite/migrations.rs.
--
-- Time. There are two kinds of times, both INTEGER milliseconds:
--   lease time  never jumps, decides whether a lease has ended. Columns of `locks`, meta.last_seen_at,
--               events.lease_at.
--   wall time   milliseconds since 1970 UTC, as shown to people: events.at.
-- wall time = lease time + meta.wall_offset_ms. The offset is 0 until the machine's clock is set. Then only
-- the offset changes, and the remaining time of every lease stays the same. The cost does not depend on the
-- number of leases.

-- Conditions. SQLite makes a temporary table for each IN of more than two values in a CHECK or a partial index, for each
-- row that is written. So the tables that are written often have none.

-- One row: the data that outlives every lock.
CREATE TABLE meta (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    -- The highest fence ever given out. The next is max(last_fence + 1, microseconds since 1970). A file
    -- beside this one, `.<name>.fence`, has a floor. At start last_fence is raised to the floor, so that
    -- fences grow even if this file is lost.
    last_fence     INTEGER NOT NULL CHECK (last_fence >= 0),
    -- The highest revision ever given to an event. Revisions are not reused after the history was trimmed.
    last_revision  INTEGER NOT NULL CHECK (last_revision >= 0),
    -- Lease time when a server last wrote it down: about once a second while it writes or while leases end,
    -- with each sweep, and at the stop. A lease with a later end was live when the server stopped.
    last_seen_at   INTEGER NOT NULL,
    -- Difference between wall time and lease time: wall time = lease time + this.
    wall_offset_ms INTEGER NOT NULL,
    -- How often a server has opened this file.
    run            INTEGER NOT NULL DEFAULT 0,
    -- The number of rows of `locks`, so that they need not be counted.
    lock_count     INTEGER NOT NULL DEFAULT 0,
    -- Lease time when a server last opened this file.
    opened_at      INTEGER NOT NULL DEFAULT 0,
    -- Random, 16 bytes. Must be the last column. Renewed each time after the write-ahead log was folded in:
    -- see src/store/sqlite/files.rs.
    mark           BLOB    NOT NULL DEFAULT x'00'
) STRICT;

-- The starts whose grace still matters. It applies to a lease that was written in an earlier run and was live
-- when that run was last seen (expires_at > last_seen_at): the lease ends no sooner than grace_ends_at. The
-- same holds for grant_at. The rows of `locks` are not changed for this: see src/domain/grace.rs.
CREATE TABLE restarts (
    -- meta.run of the run that began with this start.
    run            INTEGER PRIMARY KEY,
    -- Lease time: meta.last_seen_at as the start found it, and the end of the grace.
    last_seen_at   INTEGER NOT NULL,
    grace_ends_at  INTEGER NOT NULL
) STRICT;

-- The live locks, at most one per workspace, and locks whose lease has ended but whose row is not deleted
-- yet. A row is a lock only while expires_at > now (lease time). A transaction that reads a row whose lease
-- has ended deletes it first and writes `lock.expired` into `events`: each deletion leaves an event.
CREATE TABLE locks (
    workspace_id   TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL,
    user_name      TEXT,
    session_id     TEXT,
    -- The fencing token of the lease. Never above meta.last_fence. No two leases have the same fence.
    fence          INTEGER NOT NULL,
    acquired_at    INTEGER NOT NULL,
    renewed_at     INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    ttl_ms         INTEGER NOT NULL CHECK (ttl_ms >= 0),
    note           TEXT,
    -- A JSON object, encoded without white space.
    metadata       TEXT    NOT NULL DEFAULT '{}',
    -- 0 after the holder has asked for the lock or renewed it. Until then: 1 if it was given to one of the
    -- holder's sessions (which waited or knocked), 2 if it was given to the person (by a handover).
    given          INTEGER NOT NULL DEFAULT 0 CHECK (given BETWEEN 0 AND 2),
    -- The number of rows of `knocks` for this lease.
    knocks         INTEGER NOT NULL DEFAULT 0,
    -- When the lock passes to the user who knocked first, unless the holder answers or is active.
    grant_at       INTEGER,
    -- meta.run when expires_at and grant_at were written: see `restarts`.
    run            INTEGER NOT NULL DEFAULT 0,
    -- When the row is checked next. Not after min(expires_at, grant_at). A renewal does not change it, so the
    -- index need not be updated. If a check finds that the lease was renewed, it sets the next check.
    check_at       INTEGER NOT NULL DEFAULT 0,
    -- When the holder was first shown the first knock.
    shown_at       INTEGER,
    -- The latest time to which activity of the holder can postpone grant_at. NULL with a grant_at: no limit.
    grant_at_latest INTEGER,
    -- Who has the lock: a person, an AI agent, a process, Terraform, or Git LFS.
    kind           TEXT    NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs'),
    -- Until when the process of an earlier lease may still be running, because that lease was ended by force or
    -- handed over before it would have expired. NULL when there is none.
    drain_until    INTEGER,
    -- For an agent's lock, whose user_name is the agent's: the name of the user for whom it acts.
    for_name       TEXT
) STRICT, WITHOUT ROWID;

-- For the locks that are due next.
CREATE INDEX locks_by_check ON locks (check_at);
-- For the locks of a user.
CREATE INDEX locks_by_user ON locks (user_id);
-- For the lock on a file that Git LFS names: its id there is the fence. The bounds are those of ids that begin with lfs/.
CREATE INDEX locks_by_fence ON locks (fence) WHERE workspace_id >= 'lfs/' AND workspace_id < 'lfs0';
-- For the number of locks of a user, which is limited for each kind.
CREATE INDEX locks_by_user_and_kind ON locks (user_id, kind);

-- The knocks: requests to the holder of a live lease to pass the lock on. They are deleted with the lease.
CREATE TABLE knocks (
    workspace_id   TEXT    NOT NULL,
    -- The order of the knocks, from 1; 0 for declined knocks, -1 for those of agents.
    place          INTEGER NOT NULL,
    user_id        TEXT    NOT NULL,
    user_name      TEXT,
    session_id     TEXT,
    message        TEXT,
    -- When the user knocked. For a declined knock: when it was declined; the user cannot knock again for a
    -- while.
    at             INTEGER NOT NULL,
    -- How long the credentials of the user who knocked are valid: as long as the token with this hash, or
    -- until this wall time. Both are NULL if no end is known.
    token_hash     BLOB,
    good_until     INTEGER,
    -- The kind of the lock that the user asks for.
    kind           TEXT    NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs'),
    -- For an agent: the name of the user for whom it acts.
    for_name       TEXT,
    PRIMARY KEY (workspace_id, place, user_id)
) STRICT, WITHOUT ROWID;

-- For the locks that may pass to a user.
CREATE INDEX knocks_by_user ON knocks (user_id);

-- The workspaces that have a name or members. With workspaces.membership = "open" a workspace can be locked
-- without a row here.
CREATE TABLE workspaces (
    workspace_id   TEXT    NOT NULL PRIMARY KEY,
    name           TEXT,
    -- Wall time.
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The roles of users on workspaces. A viewer sees the workspace. An editor locks it. An admin also takes over
-- locks, ends them and manages the members. With workspaces.membership = "enforced" other users do not see
-- the workspace, and only editors and admins hold its lock.
CREATE TABLE members (
    workspace_id   TEXT    NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    user_id        TEXT    NOT NULL,
    role           TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    PRIMARY KEY (workspace_id, user_id)
) STRICT, WITHOUT ROWID;

-- For the workspaces of a user.
CREATE INDEX members_by_user ON members (user_id, workspace_id);

-- Credentials. Only the hash of a token is stored, never the token itself.
CREATE TABLE tokens (
    -- The public id of the token. It reveals nothing about the token itself.
    token_id       TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the token.
    hash           BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    scope          TEXT    NOT NULL CHECK (scope IN ('admin', 'service', 'user', 'read')),
    -- The owner: the user who acts with the token, unless it acts for other users.
    user_id        TEXT,
    name           TEXT,
    -- Wall time, because the validity of a token is agreed on with people and other machines.
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    last_used_at   INTEGER,
    -- 1 for an AI agent of the owner: it can take locks of the kind 'agent' only.
    agent          INTEGER NOT NULL DEFAULT 0 CHECK (agent IN (0, 1))
) STRICT, WITHOUT ROWID;

-- For the expired tokens.
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;

-- The events of the leases: the history, and the source of `lost`. Each lease begins with one event
-- (lock.acquired, or the lock.taken_over or lock.handed_over of the lease before) and ends with one (all
-- other types except lock.knocked and lock.knock_declined, which come in between). Heartbeats are not events.
CREATE TABLE events (
    revision       INTEGER PRIMARY KEY,
    workspace_id   TEXT    NOT NULL,
    -- lock.acquired, lock.knocked, lock.knock_declined, lock.released, lock.expired, lock.taken_over,
    -- lock.handed_over, lock.revoked, member.removed, workspace.deleted
    type           TEXT    NOT NULL,
    -- When it happened: in wall time as shown at that time, and in lease time. For an expiry: the end of the
    -- lease, not the time when it was noticed. Within a workspace, lease_at never decreases from one revision
    -- to the next.
    at             INTEGER NOT NULL,
    lease_at       INTEGER NOT NULL,
    -- The user, session and fence of the lease. For a takeover or a handover: of the lease that ended. For a
    -- removed member: the member, and the lease if there was one. For a deleted workspace: of the lease that
    -- ended.
    user_id        TEXT,
    session_id     TEXT,
    fence          INTEGER,
    -- For a takeover or a handover: the fence of the next lease, which began at once.
    next_fence     INTEGER,
    -- The user who caused the event, and the display name. NULL for an expiry. For a handover because the
    -- holder did not answer: the user who had knocked.
    by_user_id     TEXT,
    by_name        TEXT,
    -- For a handover: the next holder. For a knock that was declined or postponed: the user who had knocked.
    to_user_id     TEXT,
    -- The message of the user who knocked, took over or ended the lease.
    message        TEXT,
    -- 1 if the holder resumed an expired lease before another user got the lock: lock.acquired with the same
    -- fence again.
    reclaimed      INTEGER NOT NULL DEFAULT 0 CHECK (reclaimed IN (0, 1)),
    -- The kind of the lease, and `drain_until` of the next lease (lease time) if this ended one.
    kind           TEXT    NOT NULL DEFAULT 'edit' CHECK (kind = 'edit' OR kind = 'agent' OR kind = 'run' OR kind = 'terraform' OR kind = 'lfs'),
    drain_until    INTEGER,
    -- 1 if the lease was an agent's and was taken over because agents yield to people.
    yielded        INTEGER NOT NULL DEFAULT 0 CHECK (yielded IN (0, 1))
) STRICT;

-- For the history of a workspace, and for the lease that ended last on it.
CREATE INDEX events_by_workspace ON events (workspace_id, revision);
-- For `lost`: how a user's last lease on a workspace ended.
CREATE INDEX endings_by_user ON events (workspace_id, user_id, revision)
    WHERE type <> 'lock.acquired' AND type <> 'lock.knocked' AND type <> 'lock.knock_declined';
-- For the last deletion of a workspace: events up to it are for administrators only.
CREATE INDEX deletions ON events (workspace_id, revision) WHERE type = 'workspace.deleted';

-- How far each webhook has been served. The webhooks themselves are in the settings.
CREATE TABLE webhooks (
    name           TEXT    NOT NULL PRIMARY KEY,
    -- The revision of the last event that the receiver has confirmed, or that it is not to get. -1: the events
    -- that it has not got are unknown, so a reset comes next.
    position       INTEGER NOT NULL,
    -- The server that sends, and until when only it may send (lease time). For servers that share a database.
    -- A server with a database of its own is '' and needs no time.
    owner          TEXT    NOT NULL,
    until          INTEGER NOT NULL,
    -- When a server first started without this webhook (lease time). The row is deleted a week later.
    removed_at     INTEGER
) STRICT, WITHOUT ROWID;
