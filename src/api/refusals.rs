//! Refusals about locks, each with a sentence for a dialog.

use std::time::Duration;

use super::code::{Held, NoLock, NotHolder};
use super::lock::{LockOut, LostOut};
use super::problem::{Code, Problem};
use crate::domain::event::{Ending, Lost};
use crate::domain::{DisplayName, Lock, UserId};
use crate::time::{LeaseClock, Timestamp};

/// The refusal if there is no live lock, although the caller claims to hold one.
pub fn no_lock(lost: Option<&Lost>) -> Problem {
    let detail = match lost.map(|lost| lost.ending) {
        Some(Ending::MemberRemoved) => "You lost this lock: you are no longer a member of the workspace.",
        Some(Ending::WorkspaceDeleted) => "You lost this lock: the workspace was deleted.",
        Some(_) => "You lost this lock, and nobody else has it. Acquire it again before you save.",
        None => "Nobody holds this lock. Acquire it first.",
    };
    Problem::new(Code::LockNotFound).detail(detail).with(&NoLock { lost: lost.map(LostOut::of) })
}

/// The refusal if the live lock is not the one that the caller claims.
pub fn not_holder(
    lock: &Lock,
    same_user: bool,
    lost: Option<&Lost>,
    now: Timestamp,
    clock: &LeaseClock,
) -> Problem {
    Problem::new(Code::NotHolder)
        .detail(format!("This is not the live lock. {}", describe_holder(lock, same_user, now)))
        .with(&NotHolder {
            lock: Some(LockOut::of(lock, now, clock)),
            same_user,
            lost: lost.map(LostOut::of),
        })
}

/// A refusal that shows the lock that prevents the operation.
pub fn held(
    code: Code,
    detail: impl Into<String>,
    lock: &Lock,
    now: Timestamp,
    clock: &LeaseClock,
) -> Problem {
    Problem::new(code).detail(detail).with(&Held { lock: LockOut::of(lock, now, clock) })
}

/// A sentence for a dialog: who holds the lock and for how long.
pub fn describe_holder(lock: &Lock, same_user: bool, now: Timestamp) -> String {
    let left = humantime::format_duration(Duration::from_secs(seconds(lock.expires_at.since(now))));
    let who = if same_user { "You" } else { holder(lock) };
    let (has, renew) = if same_user {
        ("have this workspace, by another lease or session,", "you renew")
    } else {
        ("has this workspace", "they renew")
    };
    format!("{who} {has} for another {left}, and longer if {renew} the lock.")
}

/// The name of the holder in a sentence.
pub fn holder(lock: &Lock) -> &str {
    lock.user_name.as_ref().map_or(UserId::as_str(&lock.user_id), DisplayName::as_str)
}

/// Milliseconds as seconds, rounded up so that a client does not retry too early.
pub fn seconds(milliseconds: i64) -> u64 {
    milliseconds.max(0).unsigned_abs().div_ceil(1_000)
}
