//! The shapes of Git LFS: a lock on a file, and a refusal.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::refusals::holder;
use crate::domain::Lock;
use crate::domain::lfs::Repository;
use crate::time::{LeaseClock, WallTime};

/// The media type of the Git LFS API.
pub const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// A lock on a file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LfsLock")]
pub struct FileLock {
    /// The fence of the lock.
    pub id: String,
    path: String,
    locked_at: WallTime,
    owner: FileOwner,
}

/// The holder of a lock on a file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LfsOwner")]
struct FileOwner {
    /// The display name or, without one, the user id.
    name: String,
}

/// A refusal.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LfsError")]
pub struct LfsError<'a> {
    /// A sentence for a person. Git LFS shows it.
    pub message: &'a str,
    /// The id of the request in the log of the server.
    pub request_id: &'a str,
    /// The lock that prevents the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FileLock")]
    pub lock: Option<&'a RawValue>,
}

impl FileLock {
    /// Converts the lock of a file in `repository`.
    #[must_use]
    pub fn of(lock: &Lock, repository: &Repository, clock: &LeaseClock) -> Self {
        Self {
            id: lock.fence.0.to_string(),
            path: repository.path_of(&lock.workspace_id).unwrap_or_default().to_owned(),
            locked_at: clock.wall_at(lock.acquired_at),
            owner: FileOwner { name: holder(lock).to_owned() },
        }
    }
}
