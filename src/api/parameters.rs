//! What the operations take: the fields of their paths, queries and bodies.

use super::fields::{Field, GREATEST, Kind, Need};
use crate::auth::Scope;
use crate::domain::event::EventType;
use crate::domain::member::Role;
use crate::domain::{ID_BYTES, MESSAGE_BYTES, METADATA_BYTES, NOTE_BYTES, SESSION_BYTES};

/// The parameters that stand in paths.
pub const PATH_PARAMETERS: &[Field] = &[
    Field {
        name: "workspace_id",
        kind: Kind::Workspace,
        need: Need::Required,
        about: "Names the workspace; percent-encoded, so that `team%2Fdesign` is one id.",
    },
    Field {
        name: "user_id",
        kind: Kind::User,
        need: Need::Required,
        about: "Names the user; percent-encoded.",
    },
    Field {
        name: "token_id",
        kind: Kind::Identifier(ID_BYTES),
        need: Need::Required,
        about: "Names the token; it is not the token itself.",
    },
];

pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, need: Need::Optional, about }
}

pub(super) const SESSION: Field =
    optional("session_id", Kind::Identifier(SESSION_BYTES), "Tells the tabs or devices of one person apart.");
pub(super) const FENCE: Field = optional("fence", Kind::Integer(1, GREATEST), "Means that lease only.");
pub(super) const TTL: Field = optional(
    "ttl_ms",
    Kind::Integer(1, GREATEST),
    "How long the lease shall run from now, in milliseconds; brought between locks.min_ttl and locks.max_ttl. With locks.same_user = \"share\" it never makes a lease shorter.",
);
pub(super) const FORCE: Field = optional("force", Kind::Boolean, "Take the lock over from whoever has it.");
pub(super) const REVOKE: Field =
    optional("force", Kind::Boolean, "End the lease whoever has it, as an administrator.");
pub(super) const ACTIVE: Field = optional(
    "active",
    Kind::Boolean,
    "The person did something since the last heartbeat: `last_active_at` moves, and a knock's end is postponed.",
);
pub(super) const CURSOR: &str = "The `next_cursor` of the page before.";
pub(super) const LIMIT: Field =
    optional("limit", Kind::Integer(1, 500), "Most entries of a page; 100 if not given.");

pub(super) const AUDIT: &[Field] = &[
    optional("user_id", Kind::User, "Only what happened to leases of this user."),
    optional("by_user_id", Kind::User, "Only what this user did."),
    optional(
        "type",
        Kind::Choices(&EventType::names()),
        "Only events of this type; may be given several times.",
    ),
    optional("from", Kind::Time, "Only what happened then or later, by the wall clock."),
    optional("until", Kind::Time, "Only what happened before then, by the wall clock."),
    LIMIT,
    optional("cursor", Kind::Integer(1, i64::MAX), CURSOR),
];

pub(super) const ACQUIRE: &[Field] = &[
    SESSION,
    TTL,
    FORCE,
    optional(
        "expected_fence",
        Kind::Integer(1, GREATEST),
        "With `force`: take over only the lease with this fence, the one that the person saw.",
    ),
    REASON,
    optional(
        "wait_ms",
        Kind::Integer(0, 60_000),
        "How long to wait for the lock, in milliseconds, if somebody else has it.",
    ),
    NAME,
    optional("note", Kind::Text(NOTE_BYTES), "What the holder says about it."),
    optional("metadata", Kind::Object(METADATA_BYTES), "Whatever the app wants to keep with the lock."),
];

pub(super) const NAME: Field = optional("name", Kind::Name, "How the caller is shown; else `X-User-Name`.");

pub(super) const KNOCK: &[Field] =
    &[NAME, optional("message", Kind::Text(MESSAGE_BYTES), "What the holder is told."), SESSION];

pub(super) const HANDOVER: &[Field] = &[
    optional("to_user_id", Kind::User, "Who gets the lock; without it whoever knocked first."),
    FENCE,
    SESSION,
];

pub(super) const DECLINE: &[Field] = &[
    optional("user_id", Kind::User, "Whose knock it is about; without it that of whoever knocked first."),
    FENCE,
    SESSION,
];

pub(super) const HEARTBEAT: &[Field] = &[FENCE, SESSION, TTL, ACTIVE];

pub(super) const RELEASE: &[Field] = &[FENCE, SESSION, REVOKE, REASON];

pub(super) const REASON: Field =
    optional("reason", Kind::Text(MESSAGE_BYTES), "Why somebody's lease is ended, for the history.");

pub(super) const WORKSPACE: &[Field] =
    &[optional("name", Kind::Name, "How it is shown; as before if not given.")];

const ROLES: &[&str] = &[Role::Viewer.as_str(), Role::Editor.as_str(), Role::Admin.as_str()];
const SCOPES: &[&str] =
    &[Scope::User.as_str(), Scope::Read.as_str(), Scope::Service.as_str(), Scope::Admin.as_str()];

pub(super) const MEMBER: &[Field] = &[Field {
    name: "role",
    kind: Kind::Choice(ROLES),
    need: Need::Required,
    about: "`viewer` (sees it), `editor` (locks it, too) or `admin` (takes over and ends locks, and sees to the members, too).",
}];

pub(super) const TOKEN: &[Field] = &[
    optional(
        "scope",
        Kind::Choice(SCOPES),
        "`user` (acts as its owner; if not given), `read` (looks on), `service` (acts for anybody) or `admin`.",
    ),
    optional("user_id", Kind::User, "Whose it is."),
    optional("name", Kind::Name, "How its owner is shown, or what it is for."),
    optional(
        "ttl_ms",
        Kind::Integer(1, 100 * 365 * 24 * 60 * 60 * 1_000),
        "How long it is good, in milliseconds; if not given, until it is revoked.",
    ),
];

pub(super) const BEACON: &[Field] = &[
    FENCE,
    SESSION,
    REVOKE,
    REASON,
    optional(
        "access_token",
        Kind::Text(8192),
        "Credentials of a caller that cannot send headers. With auth.mode = \"none\" the user's id.",
    ),
];

pub(super) const HEARTBEATS: &[Field] = &[
    Field {
        name: "locks",
        kind: Kind::List(
            100,
            &[
                Field {
                    name: "workspace_id",
                    kind: Kind::Workspace,
                    need: Need::Required,
                    about: "Names the workspace.",
                },
                FENCE,
                SESSION,
                ACTIVE,
            ],
        ),
        need: Need::Required,
        about: "The leases to renew.",
    },
    TTL,
];
