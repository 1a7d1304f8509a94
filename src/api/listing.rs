//! The locks of many workspaces: list them, release those of one user.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{List, PageLimit, Text, page_length};
use super::lock::LockOut;
use super::operation::{Answer, Call, Operation, ok};
use super::problem::{Code, Problem};
use crate::app::Service;
use crate::domain::event::Author;
use crate::domain::{LFS_BYTES, LockKind, MESSAGE_BYTES, UserId, WorkspaceId};
use crate::store::listing::LockQuery;

/// Kinds of locks, in a query.
type Kinds = List<LockKind, { LockKind::ALL.len() }>;

/// List the live locks
///
/// Ordered by workspace id.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListLocks {
    /// Only locks of this user.
    user_id: Option<UserId>,
    /// Only locks of this kind. Repeatable.
    kind: Option<Kinds>,
    /// Only workspaces whose id begins with this.
    prefix: Option<Text<LFS_BYTES>>,
    /// Maximum number of entries in a page. Default: 100.
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page.
    cursor: Option<WorkspaceId>,
}

/// A page of locks.
#[derive(Serialize, JsonSchema)]
pub struct LockPage<'a> {
    locks: Vec<LockOut<'a>>,
    next_cursor: Option<&'a str>,
}

impl Operation for ListLocks {
    type Output = LockPage<'static>;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let listing = LockQuery {
            user_id: self.user_id,
            kinds: self.kind.map(|kinds| kinds.0).unwrap_or_default(),
            fence: None,
            prefix: self.prefix.map(|prefix| prefix.0).unwrap_or_default(),
            after: self.cursor.map(|cursor| cursor.as_str().to_owned()).unwrap_or_default(),
            limit: page_length(self.limit),
            member: service.visible_only_to(&call.caller.actor()).cloned(),
        };
        let found = service.locks(&listing)?;
        let locks = found.value.locks.iter().map(|lock| LockOut::of(lock, found.now, service.clock()));
        Answer::now(&LockPage { locks: locks.collect(), next_cursor: found.value.next.as_deref() })
    }
}

/// Release all locks of a user
///
/// Users may release their own locks, administrators those of any user. For a logout or an absence. Locks that are
/// due to the user by a knock or by the waiting line are ended too. Without `kind`, only `edit` locks are released.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseLocksOfUser {
    user_id: UserId,
    /// Release locks of this kind. Repeatable. Default: `edit`.
    kind: Option<Kinds>,
    /// The reason for ending another user's leases. It is stored in the history.
    reason: Option<Text<MESSAGE_BYTES>>,
}

/// How many locks were released.
#[derive(Serialize, JsonSchema)]
pub struct ReleasedMany {
    released: u32,
}

impl Operation for ReleaseLocksOfUser {
    type Output = ReleasedMany;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        if !call.caller.actor().may_release_all_of(&self.user_id) {
            return Err(Problem::new(Code::Forbidden));
        }
        let author = call.author().unwrap_or_else(|| Author::new(self.user_id.clone(), None));
        let by = Author { reason: self.reason.and_then(Text::not_empty), ..author };
        let kinds = self.kind.map_or_else(|| vec![LockKind::Edit], |kinds| kinds.0);
        Answer::of(
            service,
            |service, done| service.release_user(self.user_id, kinds, by, done),
            |released, _| Ok(ok(&ReleasedMany { released: *released })),
        )
    }
}
