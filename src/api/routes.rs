//! The API as one table. The router, the authorisation, the input checks and the OpenAPI document use it.

use super::events::{EVENT_STREAM, FollowEvents};
use super::file_lock::LFS_JSON;
use super::gate::PassGate;
use super::handoff::{DeclineKnock, HandOverLock, KnockForLock};
use super::history::{ReadHistory, ReadWholeHistory};
use super::lfs::{ListFileLocks, LockFile, UnlockFile, VerifyFileLocks};
use super::listing::{ListLocks, ReleaseLocksOfUser};
use super::locks::{AcquireLock, ReadLock, ReleaseLock, ReleaseLockByBeacon};
use super::members::{ListMembers, PutMember, RemoveMember};
use super::operation::{BodyKind, GATE, JSON, Right, Route, STATE_GATE, StoreAccess};
use super::presence::ReadPresence;
use super::problem::Code;
use super::renewals::{RenewLock, RenewLocks};
use super::service::{CheckInvariants, IsReady, IsUp, ReadMetrics, ReadOpenApi, WhoAmI};
use super::terraform::{AcquireStateLock, PassStateGate, ReleaseStateLock};
use super::tokens::{CreateToken, ListTokens, RevokeToken};
use super::webhooks::{ListWebhooks, TryWebhook};
use super::workspaces::{DeleteWorkspace, ListWorkspaces, PutWorkspace, ReadWorkspace};
use crate::metrics::Metrics;

/// All operations.
pub const ROUTES: &[Route] = &[
    Route::of::<AcquireLock>("POST", "/api/v1/workspaces/{workspace_id}/lock", "acquireLock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &["force"])
        .refuse(&[Code::NotAMember, Code::TakeoverForbidden, Code::LockHeld, Code::FenceMismatch]),
    Route::of::<ReadLock>("GET", "/api/v1/workspaces/{workspace_id}/lock", "readLock")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<ReleaseLock>("DELETE", "/api/v1/workspaces/{workspace_id}/lock", "releaseLock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &["fence", "session_id", "force", "reason"])
        .refuse(&[Code::NotHolder, Code::TakeoverForbidden]),
    Route::of::<ReleaseLockByBeacon>(
        "POST",
        "/api/v1/workspaces/{workspace_id}/lock/release",
        "releaseLockByBeacon",
    )
    .allow(Right::Lock, StoreAccess::Writes)
    .body(BodyKind::Beacon, &["fence", "session_id", "force"])
    .refuse(&[Code::NotHolder, Code::TakeoverForbidden]),
    Route::of::<RenewLock>("POST", "/api/v1/workspaces/{workspace_id}/lock/heartbeat", "renewLock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &[])
        .refuse(&[Code::NotHolder, Code::LockNotFound]),
    Route::of::<KnockForLock>("POST", "/api/v1/workspaces/{workspace_id}/lock/knock", "knock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &[])
        .answer(202, JSON)
        .refuse(&[Code::NotAMember, Code::LockNotFound, Code::KnockOnOwnLock, Code::KnockTooSoon]),
    Route::of::<DeclineKnock>("POST", "/api/v1/workspaces/{workspace_id}/lock/knock/decline", "declineKnock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &[])
        .refuse(&[Code::NotHolder, Code::LockNotFound]),
    Route::of::<HandOverLock>("POST", "/api/v1/workspaces/{workspace_id}/lock/handover", "handOverLock")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &[])
        .refuse(&[Code::NotHolder, Code::NotAMember, Code::LockNotFound]),
    Route::of::<ReadPresence>("GET", "/api/v1/workspaces/{workspace_id}/presence", "readPresence")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<ReadHistory>("GET", "/api/v1/workspaces/{workspace_id}/history", "readHistory")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<ReadWholeHistory>("GET", "/api/v1/history", "readWholeHistory")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<WhoAmI>("GET", "/api/v1/whoami", "whoAmI").allow(Right::Read, StoreAccess::None),
    Route::of::<FollowEvents>("GET", "/api/v1/events", "followEvents")
        .allow(Right::Read, StoreAccess::Reads)
        .answer(200, EVENT_STREAM)
        .refuse(&[Code::WorkspaceNotFound]),
    Route::of::<ListLocks>("GET", "/api/v1/locks", "listLocks").allow(Right::Read, StoreAccess::Reads),
    Route::of::<RenewLocks>("POST", "/api/v1/locks/heartbeat", "renewLocks")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Json, &[]),
    Route::of::<ReleaseLocksOfUser>("DELETE", "/api/v1/users/{user_id}/locks", "releaseLocksOfUser")
        .allow(Right::Lock, StoreAccess::Writes),
    Route::of::<ListWorkspaces>("GET", "/api/v1/workspaces", "listWorkspaces")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<PutWorkspace>("PUT", "/api/v1/workspaces/{workspace_id}", "putWorkspace")
        .allow(Right::Serve, StoreAccess::Writes)
        .log_at_info()
        .body(BodyKind::Json, &[]),
    Route::of::<ReadWorkspace>("GET", "/api/v1/workspaces/{workspace_id}", "readWorkspace")
        .allow(Right::Read, StoreAccess::Reads),
    Route::of::<DeleteWorkspace>("DELETE", "/api/v1/workspaces/{workspace_id}", "deleteWorkspace")
        .allow(Right::Serve, StoreAccess::Writes),
    Route::of::<ListMembers>("GET", "/api/v1/workspaces/{workspace_id}/members", "listMembers")
        .allow(Right::Read, StoreAccess::Reads)
        .refuse(&[Code::WorkspaceNotFound]),
    Route::of::<PutMember>("PUT", "/api/v1/workspaces/{workspace_id}/members/{user_id}", "putMember")
        .allow(Right::Read, StoreAccess::Writes)
        .log_at_info()
        .body(BodyKind::Json, &[]),
    Route::of::<RemoveMember>(
        "DELETE",
        "/api/v1/workspaces/{workspace_id}/members/{user_id}",
        "removeMember",
    )
    .allow(Right::Read, StoreAccess::Writes),
    Route::of::<CheckInvariants>("POST", "/api/v1/invariants/check", "checkInvariants")
        .allow(Right::Administer, StoreAccess::ReadsThenWrites)
        .log_at_info(),
    Route::of::<CreateToken>("POST", "/api/v1/tokens", "createToken")
        .allow(Right::Serve, StoreAccess::Writes)
        .body(BodyKind::Json, &[])
        .answer(201, JSON),
    Route::of::<ListTokens>("GET", "/api/v1/tokens", "listTokens")
        .allow(Right::Administer, StoreAccess::Reads),
    Route::of::<RevokeToken>("DELETE", "/api/v1/tokens/{token_id}", "revokeToken")
        .allow(Right::Serve, StoreAccess::Writes),
    Route::of::<ListWebhooks>("GET", "/api/v1/webhooks", "listWebhooks")
        .allow(Right::Administer, StoreAccess::None),
    Route::of::<TryWebhook>("POST", "/api/v1/webhooks/{name}/try", "tryWebhook")
        .allow(Right::Administer, StoreAccess::None)
        .log_at_info(),
    Route::of::<PassGate>("GET", "/api/v1/gate", GATE)
        .allow(Right::Lock, StoreAccess::Reads)
        .answer(204, "")
        .refuse(&[Code::NotHolder]),
    Route::of::<LockFile>("POST", "/lfs/{repository}/locks", "lockFile")
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Lfs, &[])
        .answer(201, LFS_JSON)
        .refuse(&[Code::NotAMember, Code::LockHeld, Code::Unprocessable]),
    Route::of::<ListFileLocks>("GET", "/lfs/{repository}/locks", "listFileLocks")
        .allow(Right::Read, StoreAccess::Reads)
        .answer(200, LFS_JSON)
        .refuse(&[Code::NotAMember, Code::Unprocessable]),
    Route::of::<VerifyFileLocks>("POST", "/lfs/{repository}/locks/verify", "verifyFileLocks")
        .allow(Right::Lock, StoreAccess::ReadsThenWrites)
        .body(BodyKind::Lfs, &[])
        .answer(200, LFS_JSON)
        .refuse(&[Code::NotAMember, Code::Unprocessable]),
    Route::of::<UnlockFile>("POST", "/lfs/{repository}/locks/{id}/unlock", "unlockFile")
        .allow(Right::Lock, StoreAccess::ReadsThenWrites)
        .body(BodyKind::Lfs, &[])
        .answer(200, LFS_JSON)
        .refuse(&[
            Code::NotAMember,
            Code::NotHolder,
            Code::TakeoverForbidden,
            Code::LockNotFound,
            Code::Unprocessable,
        ]),
    lock_state("POST", "/terraform/{workspace_id}/lock", "lockState"),
    lock_state("PUT", "/terraform/{workspace_id}/lock", "lockStateByPut"),
    lock_state("LOCK", "/terraform/{workspace_id}", "lockStateByLock"),
    unlock_state("DELETE", "/terraform/{workspace_id}/lock", "unlockState"),
    unlock_state("UNLOCK", "/terraform/{workspace_id}", "unlockStateByUnlock"),
    Route::of::<PassStateGate>("GET", "/terraform/{workspace_id}/gate", STATE_GATE)
        .allow(Right::Lock, StoreAccess::Reads)
        .answer(204, "")
        .refuse(&[Code::NotHolder]),
    Route::of::<ReadOpenApi>("GET", "/api/v1/openapi.json", "readOpenApi")
        .allow(Right::Open, StoreAccess::Reads),
    Route::of::<IsUp>("GET", "/healthz", "isUp"),
    Route::of::<IsReady>("GET", "/readyz", "isReady").allow(Right::Open, StoreAccess::Writes),
    Route::of::<ReadMetrics>("GET", "/metrics", "readMetrics")
        .allow(Right::Monitor, StoreAccess::Reads)
        .answer(200, Metrics::CONTENT_TYPE),
];

/// The methods and paths with which Terraform locks a state are its settings.
const fn lock_state(method: &'static str, path: &'static str, name: &'static str) -> Route {
    Route::of::<AcquireStateLock>(method, path, name)
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Terraform, &["ttl_ms"])
        .refuse(&[Code::StateLocked])
}

/// The same for unlocking. The query of its address may be that of locking.
const fn unlock_state(method: &'static str, path: &'static str, name: &'static str) -> Route {
    Route::of::<ReleaseStateLock>(method, path, name)
        .allow(Right::Lock, StoreAccess::Writes)
        .body(BodyKind::Terraform, &["ID", "ttl_ms"])
        .refuse(&[Code::TakeoverForbidden, Code::OtherStateLock])
}
