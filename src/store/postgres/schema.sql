-- The data of Lockhouse in PostgreSQL, version 1: `migrations.rs` has what came later. See schema.sql at the root for
-- what each column means; what differs is said here.
--
-- Ids are compared byte by byte (COLLATE "C"), as SQLite does. Times are milliseconds.

-- One row.
CREATE TABLE meta (
    id              integer PRIMARY KEY CHECK (id = 1),
    -- The version of the tables, and the oldest version whose programs can use them.
    version         integer NOT NULL,
    usable_from     integer NOT NULL,
    last_revision   bigint  NOT NULL,
    -- wall time of the database = lease time + this.
    wall_offset_ms  bigint  NOT NULL,
    -- Lease time and the database's wall time when a node last wrote them down, about once a second.
    seen_lease      bigint  NOT NULL,
    seen_wall       bigint  NOT NULL,
    -- How often the nodes came back after none was seen for a while: see `restarts`.
    run             bigint  NOT NULL,
    -- Lease time of the last time.
    opened_at       bigint  NOT NULL,
    -- No fence up to this is given.
    fence_floor     bigint  NOT NULL,
    -- The timeline of PostgreSQL, and whether commits were synchronous on it.
    timeline        text    NOT NULL,
    is_synchronous  boolean NOT NULL,
    -- Who has followed the events up to a revision below this must read again: see `timeline.rs`.
    first_revision  bigint  NOT NULL
);

-- The nodes. Each has a slot, and gives fences that are equal to it modulo 16, so two nodes never give the same.
CREATE TABLE nodes (
    slot            integer PRIMARY KEY CHECK (slot BETWEEN 0 AND 15),
    node_id         text    NOT NULL,
    version         text    NOT NULL,
    -- The version of the tables that its program knows.
    knows           integer NOT NULL,
    address         text    NOT NULL,
    -- The highest fence that was given out in this slot.
    highest_fence   bigint  NOT NULL,
    -- The database's wall time when the node was last seen.
    seen_at         bigint  NOT NULL
);
INSERT INTO nodes SELECT slot, '', '', 0, '', 0, 0 FROM generate_series(0, 15) slot;

CREATE TABLE restarts (
    run             bigint  PRIMARY KEY,
    last_seen_at    bigint  NOT NULL,
    grace_ends_at   bigint  NOT NULL
);

-- There is no index on expires_at: a heartbeat then changes no indexed column, and is a heap-only update.
CREATE TABLE locks (
    workspace_id    text COLLATE "C" PRIMARY KEY,
    user_id         text COLLATE "C" NOT NULL,
    user_name       text,
    session_id      text COLLATE "C",
    fence           bigint  NOT NULL,
    acquired_at     bigint  NOT NULL,
    renewed_at      bigint  NOT NULL,
    last_active_at  bigint  NOT NULL,
    expires_at      bigint  NOT NULL,
    ttl_ms          bigint  NOT NULL CHECK (ttl_ms >= 0),
    note            text,
    metadata        text    NOT NULL,
    -- 3: a failover may have lost what came after this lease, so its holder must acquire it again.
    given           bigint  NOT NULL CHECK (given IN (0, 1, 2, 3)),
    knocks          bigint  NOT NULL,
    grant_at        bigint,
    run             bigint  NOT NULL,
    check_at        bigint  NOT NULL,
    shown_at        bigint,
    grant_at_latest bigint,
    kind            text    NOT NULL CHECK (kind IN ('edit', 'agent', 'run', 'terraform', 'lfs')),
    drain_until     bigint,
    for_name        text
) WITH (fillfactor = 80);
CREATE INDEX locks_by_check ON locks (check_at);
CREATE INDEX locks_by_user ON locks (user_id, workspace_id);
CREATE INDEX locks_by_fence ON locks (fence) WHERE workspace_id >= 'lfs/' AND workspace_id < 'lfs0';
CREATE INDEX locks_by_user_and_kind ON locks (user_id, kind);

CREATE TABLE knocks (
    workspace_id    text COLLATE "C" NOT NULL,
    place           bigint  NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    user_name       text,
    session_id      text COLLATE "C",
    message         text,
    at              bigint  NOT NULL,
    token_hash      bytea,
    good_until      bigint,
    kind            text    NOT NULL CHECK (kind IN ('edit', 'agent', 'run', 'terraform', 'lfs')),
    for_name        text,
    PRIMARY KEY (workspace_id, place, user_id)
);
CREATE INDEX knocks_by_user ON knocks (user_id, workspace_id);

CREATE TABLE workspaces (
    workspace_id    text COLLATE "C" PRIMARY KEY,
    name            text,
    created_at      bigint  NOT NULL
);

CREATE TABLE members (
    workspace_id    text COLLATE "C" NOT NULL REFERENCES workspaces ON DELETE CASCADE,
    user_id         text COLLATE "C" NOT NULL,
    role            text    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id, workspace_id);

CREATE TABLE tokens (
    token_id        text COLLATE "C" PRIMARY KEY,
    hash            bytea   NOT NULL UNIQUE CHECK (length(hash) = 32),
    scope           text    NOT NULL CHECK (scope IN ('admin', 'service', 'user', 'read')),
    user_id         text COLLATE "C",
    name            text,
    created_at      bigint  NOT NULL,
    expires_at      bigint,
    last_used_at    bigint,
    agent           boolean NOT NULL
);
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE events (
    revision        bigint  PRIMARY KEY,
    workspace_id    text COLLATE "C" NOT NULL,
    type            text    NOT NULL,
    at              bigint  NOT NULL,
    lease_at        bigint  NOT NULL,
    user_id         text COLLATE "C",
    session_id      text COLLATE "C",
    fence           bigint,
    next_fence      bigint,
    by_user_id      text COLLATE "C",
    by_name         text,
    to_user_id      text COLLATE "C",
    message         text,
    reclaimed       boolean NOT NULL,
    kind            text    NOT NULL CHECK (kind IN ('edit', 'agent', 'run', 'terraform', 'lfs')),
    drain_until     bigint,
    yielded         boolean NOT NULL,
    -- For a deleted workspace: who were its members. They are told.
    parted          text[]
);
CREATE INDEX events_by_workspace ON events (workspace_id, revision);
CREATE INDEX endings_by_user ON events (workspace_id, user_id, revision)
    WHERE type NOT IN ('lock.acquired', 'lock.knocked', 'lock.knock_declined');
CREATE INDEX deletions ON events (workspace_id, revision) WHERE type = 'workspace.deleted';

-- The requests that wait for a lock, on all nodes. People get it before agents, and otherwise in the order of place.
CREATE TABLE waiters (
    place           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id    text COLLATE "C" NOT NULL,
    -- The node with the connection, and the number of the waiter there.
    node_id         text COLLATE "C" NOT NULL,
    waiter_id       bigint  NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    user_name       text,
    session_id      text COLLATE "C",
    for_name        text,
    -- 0: none, 1: administrator of the workspace, 2: administrator of the server.
    privilege       bigint  NOT NULL,
    ttl_ms          bigint,
    note            text,
    metadata        text,
    kind            text    NOT NULL,
    -- How long the credentials are valid, as in `knocks`.
    token_hash      bytea,
    good_until      bigint,
    -- Lease time.
    since           bigint  NOT NULL,
    until           bigint  NOT NULL,
    -- JSON. The node that ended the wait writes it for the node that has the connection.
    outcome         text,
    UNIQUE (node_id, waiter_id)
);
CREATE INDEX waiters_by_workspace ON waiters (workspace_id, place);
CREATE INDEX waiters_by_user ON waiters (user_id, workspace_id);

CREATE TABLE webhooks (
    name            text COLLATE "C" PRIMARY KEY,
    position        bigint  NOT NULL,
    owner           text    NOT NULL,
    until           bigint  NOT NULL,
    removed_at      bigint
);
