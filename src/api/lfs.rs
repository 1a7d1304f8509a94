//! The locking API of Git LFS.
//!
//! The shapes are those of <https://github.com/git-lfs/git-lfs/blob/main/docs/api/locking.md>. See
//! [`super::dialect`] for credentials and refusals.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::exchange::Response;
use super::file_lock::{FileLock, LFS_JSON};

use super::operation::{Answer, Call, Operation, with_status};
use super::problem::{Code, Problem};
use super::refusals::holder;
use crate::app::Service;
use crate::domain::lfs::Repository;
use crate::domain::rights::Need;
use crate::domain::{Acquire, Acquired, Authority, Claim, Fence, Lock, LockKind, Release, Released, UserId};
use crate::error::{Error, Limit};
use crate::store::AsOf;
use crate::store::listing::FoundLocks;
use crate::time::LeaseClock;

/// The maximum number of locks in a page, and the default.
const MAX_PAGE: i64 = 1_000;
const DEFAULT_PAGE: i64 = 100;

/// An answer with one lock.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LfsLocked")]
pub struct OneLock {
    lock: FileLock,
}

/// A page of locks.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LfsLocks")]
pub struct FileLocks {
    locks: Vec<FileLock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    next_cursor: Option<String>,
}

/// A page of locks, by whether the caller holds them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LfsVerified")]
pub struct VerifiedLocks {
    ours: Vec<FileLock>,
    theirs: Vec<FileLock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    next_cursor: Option<String>,
}

/// Lock a file of a Git LFS repository
///
/// A live lock is answered with 409 and the lock, also when the caller holds it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct LockFile {
    /// The path of the repository. It may have slashes. A trailing `/info/lfs`, and then `.git`, is dropped.
    repository: String,
    /// The path of the file from the root of the repository.
    path: Option<String>,
}

/// List the locks of a Git LFS repository
///
/// Ordered by path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListFileLocks {
    /// The path of the repository.
    repository: String,
    /// Only the lock of the file with exactly this path.
    path: Option<String>,
    /// Only the lock with this id.
    id: Option<String>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Maximum number of locks in a page. Default: 100, at most 1,000.
    limit: Option<i64>,
}

/// List the caller's locks and those of others
///
/// Git LFS calls this before a push, and refuses to push files that others have locked. Locks of the caller that end in
/// less than two thirds of their lease are renewed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct VerifyFileLocks {
    /// The path of the repository.
    repository: String,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Maximum number of locks in a page. Default: 100, at most 1,000.
    limit: Option<i64>,
}

/// Unlock a file of a Git LFS repository
///
/// The lock of another user needs `force`, and the right to take locks over.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UnlockFile {
    /// The path of the repository.
    repository: String,
    /// The id of the lock.
    id: String,
    /// End the lock of another user.
    force: Option<bool>,
}

impl Operation for LockFile {
    type Output = OneLock;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let repository = repository(&self.repository)?;
        let file =
            repository.file(self.path.as_deref().unwrap_or_default()).map_err(|error| invalid(&error))?;
        let request = Acquire {
            kind: LockKind::Lfs,
            user_name: call.display_name(None),
            ..Acquire::new(file, call.user()?.clone())
        };
        let actor = call.caller.actor();
        Answer::of(
            service,
            |service, done| service.lock_file(actor, request, done),
            move |at: &AsOf<Acquired>, clock| locked(&at.value, &repository, clock),
        )
    }
}

fn locked(outcome: &Acquired, repository: &Repository, clock: &LeaseClock) -> Result<Response, Problem> {
    let (lock, message) = match outcome {
        Acquired::Acquired(lock) | Acquired::Renewed(lock) | Acquired::Reclaimed(lock) => {
            return Ok(shown(201, &OneLock { lock: FileLock::of(lock, repository, clock) }));
        }
        Acquired::Held { lock, same_user: true, .. } => {
            (lock, "You have locked this file already.".to_owned())
        }
        Acquired::Held { lock, .. } | Acquired::TakeoverForbidden(lock) | Acquired::FenceMismatch(lock) => {
            (lock, format!("{} has locked this file.", holder(lock)))
        }
        Acquired::TakenOver { .. } => return Err(Error::Internal("a file was taken over".to_owned()).into()),
        Acquired::TooMany => return Err(Problem::from(Error::TooMany(Limit::Locks))),
    };
    let lock = FileLock::of(lock, repository, clock);
    Err(Problem::new(Code::LockHeld).detail(message).with(&OneLock { lock }))
}

impl Operation for ListFileLocks {
    type Output = FileLocks;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let repository = repository(&self.repository)?;
        call.may(service, repository.workspace(), Need::See)?;
        let clock = service.clock();
        let (locks, next) =
            match (self.path.filter(|path| !path.is_empty()), self.id.filter(|id| !id.is_empty())) {
                (None, None) => {
                    let page = page(service, &repository, self.cursor, self.limit)?;
                    let locks =
                        page.value.locks.iter().map(|lock| FileLock::of(lock, &repository, clock)).collect();
                    (locks, next_cursor(&page, &repository))
                }
                (path, id) => {
                    let found = match (&path, &id) {
                        // A path that no file can have has no lock.
                        (Some(path), _) => match repository.file(path) {
                            Ok(file) => service.lock(&file)?.value,
                            Err(_) => None,
                        },
                        (None, id) => with_id(service, &repository, id.as_deref().unwrap_or_default())?,
                    };
                    let locks = found.iter().map(|lock| FileLock::of(lock, &repository, clock));
                    (locks.filter(|lock| id.as_ref().is_none_or(|id| lock.id == *id)).collect(), None)
                }
            };
        Ok(Answer::Now(shown(200, &FileLocks { locks, next_cursor: next })))
    }
}

impl Operation for VerifyFileLocks {
    type Output = VerifiedLocks;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let repository = repository(&self.repository)?;
        call.may(service, repository.workspace(), Need::See)?;
        let user_id = call.user()?;
        let page = page(service, &repository, self.cursor, self.limit)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for lock in &page.value.locks {
            let whose = if lock.user_id == *user_id { &mut ours } else { &mut theirs };
            whose.push(FileLock::of(lock, &repository, service.clock()));
        }
        let verified = VerifiedLocks { ours, theirs, next_cursor: next_cursor(&page, &repository) };
        let actor = call.caller.actor();
        Answer::of(
            service,
            move |service, done| service.renew_file_locks(actor, &page, done),
            move |_, _| Ok(shown(200, &verified)),
        )
    }
}

impl Operation for UnlockFile {
    type Output = OneLock;

    fn run(self, service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
        let repository = repository(&self.repository)?;
        call.may(service, repository.workspace(), Need::See)?;
        let user_id = call.user()?.clone();
        let lock = with_id(service, &repository, &self.id)?.ok_or_else(|| no_such_lock(&self.id))?;
        let authority = if lock.user_id == user_id {
            Authority::Holder
        } else if self.force == Some(true) {
            Authority::TakesOver
        } else {
            return Err(Problem::new(Code::NotHolder)
                .detail(format!("{} has locked this file. Use --force to end their lock.", holder(&lock))));
        };
        let request = Release {
            claim: claim(&lock, user_id),
            user_name: call.display_name(None),
            authority,
            privilege: call.caller.scope.privilege(),
            reason: None,
        };
        let (actor, id) = (call.caller.actor(), self.id);
        Answer::of(
            service,
            |service, done| service.release(actor, request, done),
            move |at: &AsOf<(Released, _)>, clock| match &at.value.0 {
                Released::Released(lock) => {
                    Ok(shown(200, &OneLock { lock: FileLock::of(lock, &repository, clock) }))
                }
                Released::Forbidden(lock) => Err(Problem::new(Code::TakeoverForbidden)
                    .detail(format!("You may not end the lock of {}. Ask an administrator.", holder(lock)))),
                Released::Nothing | Released::NotHolder { .. } => Err(no_such_lock(&id)),
            },
        )
    }
}

/// The claim of a user to end this lock.
fn claim(lock: &Lock, user_id: UserId) -> Claim {
    Claim {
        workspace_id: lock.workspace_id.clone(),
        session_id: lock.session_id.clone().filter(|_| lock.user_id == user_id),
        user_id,
        fence: Some(lock.fence),
        is_agent: false,
    }
}

fn shown(status: u16, body: &impl Serialize) -> Response {
    Response { content_type: Some(LFS_JSON), ..with_status(status, body) }
}

fn repository(path: &str) -> Result<Repository, Problem> {
    Repository::parse(path).map_err(|error| invalid(&error))
}

/// The refusal of a repository or a path: 422, which Git LFS shows.
fn invalid(error: &Error) -> Problem {
    Problem::new(Code::Unprocessable).detail(format!("{error}."))
}

fn no_such_lock(id: &str) -> Problem {
    Problem::new(Code::LockNotFound).detail(format!("This repository has no lock with the id {id}."))
}

fn with_id(service: &Service, repository: &Repository, id: &str) -> Result<Option<Lock>, Problem> {
    let Ok(fence) = id.parse() else { return Ok(None) };
    Ok(service.file_lock(repository, Fence(fence))?.value)
}

fn page(
    service: &Service,
    repository: &Repository,
    cursor: Option<String>,
    limit: Option<i64>,
) -> Result<AsOf<FoundLocks>, Problem> {
    let after = match cursor.filter(|cursor| !cursor.is_empty()) {
        None => String::new(),
        Some(cursor) => URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|path| String::from_utf8(path).ok())
            .ok_or_else(|| Problem::invalid("cursor", "must be the next_cursor of the previous page"))?,
    };
    // Git LFS sends 0 for no limit.
    let limit = limit.filter(|limit| *limit > 0).map_or(DEFAULT_PAGE, |limit| limit.min(MAX_PAGE));
    Ok(service.file_locks(repository, &after, usize::try_from(limit).unwrap_or_default())?)
}

/// The path after which the next page begins, so that it may contain any character.
fn next_cursor(page: &AsOf<FoundLocks>, repository: &Repository) -> Option<String> {
    let after = page.value.next.as_deref()?.strip_prefix(&repository.prefix())?;
    Some(URL_SAFE_NO_PAD.encode(after))
}
