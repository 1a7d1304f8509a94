-- The data of Lockhouse: one SQLite file, this schema, nothing else.
--
-- PRAGMA application_id is 0x4C4F434B ("LOCK") and PRAGMA user_version is the version of this schema, 3.
-- A server refuses a file with another application_id, and one with a newer version than it knows. It brings an older one
-- up to its own version, step by step: see src/store/sqlite/migrations.rs.
--
-- Time. There are two kinds of instants, both INTEGER milliseconds:
--   lease time  never jumps, decides whether a lease has ended. Columns of `locks`, meta.last_seen_at, events.lease_at.
--   wall time   milliseconds since 1970 UTC, as shown to people: events.at.
-- wall time = lease time + meta.wall_offset_ms. The offset is 0 until somebody sets the machine's clock, and then only
-- the offset changes: what is left of each lease stays what it was, whether there is one or a million.

-- One row: what must outlive every lock.
CREATE TABLE meta (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    -- The highest fence ever given out. The next is max(last_fence + 1, microseconds since 1970). A file beside this one,
    -- `.<name>.fence`, has a floor: at start last_fence is raised to it, so that fences grow over the loss of this file.
    last_fence     INTEGER NOT NULL CHECK (last_fence >= 0),
    -- The highest revision ever given to an event; revisions are not used again after the history was trimmed.
    last_revision  INTEGER NOT NULL CHECK (last_revision >= 0),
    -- Lease time when a server last wrote it down: about once a second while it writes or while leases end, with each
    -- sweep, and at the end. A lease that ends later was alive when the server stopped.
    last_seen_at   INTEGER NOT NULL,
    -- What is added to lease time to get wall time.
    wall_offset_ms INTEGER NOT NULL,
    -- How often a server has opened this file.
    run            INTEGER NOT NULL DEFAULT 0,
    -- How many rows `locks` has, so that nobody has to count them.
    lock_count     INTEGER NOT NULL DEFAULT 0,
    -- Lease time when a server last opened this file.
    opened_at      INTEGER NOT NULL DEFAULT 0,
    -- Random, 16 bytes, and the last column. Renewed each time after the write-ahead log was folded in: see src/store/sqlite/files.rs.
    mark           BLOB    NOT NULL DEFAULT x'00'
) STRICT;

-- The starts whose grace still matters. A lease that was written in an earlier run and was alive when that run was last
-- seen (expires_at > last_seen_at) ends no sooner than grace_ends_at. The same holds for grant_at. The rows of `locks` are
-- not touched for it: see src/domain/grace.rs.
CREATE TABLE restarts (
    -- meta.run of the run that began with this start.
    run            INTEGER PRIMARY KEY,
    -- Lease time: meta.last_seen_at as the start found it, and the end of the grace.
    last_seen_at   INTEGER NOT NULL,
    grace_ends_at  INTEGER NOT NULL
) STRICT;

-- The live locks, one a workspace, and those whose lease has ended but that nobody has come across yet. A row is a
-- lock only while expires_at > now (lease time). Whoever reads a row inside a transaction deletes it first if its
-- lease has ended, and writes `lock.expired` into `events`: each deletion leaves an event.
CREATE TABLE locks (
    workspace_id   TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL,
    user_name      TEXT,
    session_id     TEXT,
    -- The fencing token of the lease. Never above meta.last_fence; no two leases have the same.
    fence          INTEGER NOT NULL,
    acquired_at    INTEGER NOT NULL,
    renewed_at     INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    ttl_ms         INTEGER NOT NULL CHECK (ttl_ms >= 0),
    note           TEXT,
    -- A JSON object, encoded without white space.
    metadata       TEXT    NOT NULL DEFAULT '{}',
    -- 0 once the holder asked for it or renewed it; until then 1 if it was given to one of their sessions (they waited or
    -- knocked), 2 if it was given to the person (they were handed it).
    given          INTEGER NOT NULL DEFAULT 0 CHECK (given IN (0, 1, 2)),
    -- How many rows of `knocks` are about this lease.
    knocks         INTEGER NOT NULL DEFAULT 0,
    -- When the lock passes to the one who knocked first, unless the holder answers or is at work.
    grant_at       INTEGER,
    -- meta.run when expires_at and grant_at were written: see `restarts`.
    run            INTEGER NOT NULL DEFAULT 0,
    -- Not after min(expires_at, grant_at): when the row is to be looked at again. A renewal leaves it as it is, and with it
    -- the index; whoever looks and finds the lease renewed moves it.
    check_at       INTEGER NOT NULL DEFAULT 0,
    -- When the holder was first shown the knock that stands first.
    shown_at       INTEGER,
    -- The latest that grant_at can become because the holder is at work. NULL with a grant_at: there is no latest.
    grant_at_latest INTEGER
) STRICT, WITHOUT ROWID;

-- For what is due next.
CREATE INDEX locks_by_check ON locks (check_at);
-- For "the locks of this user".
CREATE INDEX locks_by_user ON locks (user_id);

-- Who asked the holder of a live lease for it. They go with the lease.
CREATE TABLE knocks (
    workspace_id   TEXT    NOT NULL,
    -- The order in which they came; 0 for those that were declined.
    place          INTEGER NOT NULL,
    user_id        TEXT    NOT NULL,
    user_name      TEXT,
    session_id     TEXT,
    message        TEXT,
    -- When they knocked or, for those that were declined, when that was: they cannot knock again just now.
    at             INTEGER NOT NULL,
    -- How long the credentials of the one who knocked are good: as long as the token with this hash, or until this wall
    -- time. Both are NULL where nothing is known.
    token_hash     BLOB,
    good_until     INTEGER,
    PRIMARY KEY (workspace_id, place, user_id)
) STRICT, WITHOUT ROWID;

-- For the locks that may pass to a user.
CREATE INDEX knocks_by_user ON knocks (user_id);

-- Things that people edit, as far as somebody named them. With workspaces.membership = "open" a workspace need not be here
-- to be locked.
CREATE TABLE workspaces (
    workspace_id   TEXT    NOT NULL PRIMARY KEY,
    name           TEXT,
    -- Wall time.
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may do what on a workspace: a viewer sees it, an editor locks it, an admin also takes over, ends locks and sees to
-- the members. With workspaces.membership = "enforced" nobody else sees it, and only editors and admins hold its lock.
CREATE TABLE members (
    workspace_id   TEXT    NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    user_id        TEXT    NOT NULL,
    role           TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    PRIMARY KEY (workspace_id, user_id)
) STRICT, WITHOUT ROWID;

-- For what a user sees.
CREATE INDEX members_by_user ON members (user_id, workspace_id);

-- Credentials. The token itself is nowhere: only its hash.
CREATE TABLE tokens (
    -- Names the token, and tells nothing of it.
    token_id       TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the token.
    hash           BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    scope          TEXT    NOT NULL CHECK (scope IN ('admin', 'service', 'user', 'read')),
    -- Whose it is: who acts with it, unless it acts for others.
    user_id        TEXT,
    name           TEXT,
    -- Wall time: how long a token is good is agreed on with people and other machines.
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    last_used_at   INTEGER
) STRICT, WITHOUT ROWID;

-- For those that are over.
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;

-- What happened to the leases: the history, and the source of `lost`. Each lease begins with one event
-- (lock.acquired, or the taken_over or handed_over of the one before) and ends with one (all others but lock.knocked and
-- lock.knock_declined, which come between). Heartbeats are no events.
CREATE TABLE events (
    revision       INTEGER PRIMARY KEY,
    workspace_id   TEXT    NOT NULL,
    -- lock.acquired, lock.knocked, lock.knock_declined, lock.released, lock.expired, lock.taken_over, lock.handed_over,
    -- lock.revoked, member.removed, workspace.deleted
    type           TEXT    NOT NULL,
    -- When, in wall time as it was then shown, and in lease time. Of an expiry: the end of the lease, whenever it was
    -- noticed. Of one workspace, later revisions never have an earlier lease_at.
    at             INTEGER NOT NULL,
    lease_at       INTEGER NOT NULL,
    -- Whose lease it was, from which session, and which. Of a takeover or a handover: the lease that ended.
    -- Of a member who was removed: who; the lease if they had one. Of a workspace that was deleted: whose lease ended.
    user_id        TEXT,
    session_id     TEXT,
    fence          INTEGER,
    -- Of a takeover or a handover: the lease that followed at once.
    next_fence     INTEGER,
    -- Who did it, and how they are shown. NULL when it was time. Of a handover because the holder did not answer: who had
    -- knocked.
    by_user_id     TEXT,
    by_name        TEXT,
    -- Of a handover: who has it next. Of a knock that was declined, or whose end was
    -- postponed: who had knocked.
    to_user_id     TEXT,
    -- What was said with it: by whoever knocked, took over or ended it.
    message        TEXT,
    -- 1 when the holder came back to an expired lease that nobody else had come after: lock.acquired with the same
    -- fence again.
    reclaimed      INTEGER NOT NULL DEFAULT 0 CHECK (reclaimed IN (0, 1))
) STRICT;

-- For the history of a workspace, and for the lease that ended last on it.
CREATE INDEX events_by_workspace ON events (workspace_id, revision);
-- For `lost`: how somebody's last lease on a workspace ended.
CREATE INDEX endings_by_user ON events (workspace_id, user_id, revision)
    WHERE type NOT IN ('lock.acquired', 'lock.knocked', 'lock.knock_declined');
-- For the last deletion of a workspace: its events up to that are for administrators only.
CREATE INDEX deletions ON events (workspace_id, revision) WHERE type = 'workspace.deleted';
