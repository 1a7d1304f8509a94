//! New leases: for a caller, for a waiter, and for the recipient of a handover.

use super::access::Rules;
use super::event::Ending;
use super::knocks::{Knock, Knocks};
use super::{Acquire, Fence, GrantState, Lock};
use crate::time::Timestamp;

/// New lease for `request`. `drain_until` is what the lease before has left.
pub(super) fn new_lease(
    request: &Acquire,
    rules: &Rules,
    now: Timestamp,
    fence: Fence,
    drain_until: Option<Timestamp>,
) -> Lock {
    let ttl = rules.ttl(request.kind, request.ttl, rules.of(request.kind).default_ttl);
    Lock {
        workspace_id: request.workspace_id.clone(),
        kind: request.kind,
        user_id: request.user_id.clone(),
        user_name: request.user_name.clone(),
        for_name: request.for_name.clone(),
        session_id: request.session_id.clone(),
        fence,
        acquired_at: now,
        renewed_at: now,
        last_active_at: now,
        expires_at: now.plus(ttl),
        ttl,
        note: request.note.clone(),
        metadata: request.metadata.clone().unwrap_or_else(|| "{}".to_owned()),
        grant_state: GrantState::Claimed,
        knocks: Knocks::default(),
        check_at: now.plus(ttl),
        drain_until: drain_until.filter(|until| *until > now),
    }
}

/// When a granted lease begins, and when its recipient is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantTime {
    /// Start of the lease.
    pub at: Timestamp,
    /// When a waiting recipient is told. The time to claim the lease runs from here.
    pub told_at: Timestamp,
}

impl GrantTime {
    /// Begins and is told at `now`.
    #[must_use]
    pub const fn now(now: Timestamp) -> Self {
        Self { at: now, told_at: now }
    }
}

/// Lease that is granted to a waiter or to the recipient of a handover. Unless it is renewed, it ends after
/// `claim_within`, or after its own duration if that is shorter. `drain_until` is what the lease before has left.
#[must_use]
pub fn granted_lease(
    request: &Acquire,
    grant_state: GrantState,
    rules: &Rules,
    begins: GrantTime,
    next_fence: Fence,
    drain_until: Option<Timestamp>,
) -> Lock {
    let lease = new_lease(request, rules, begins.at, next_fence, drain_until);
    let passes_on = request.kind.properties().passes_on;
    let first = if passes_on { lease.ttl.min(rules.claim_within) } else { lease.ttl };
    let expires_at = begins.told_at.plus(first);
    Lock { expires_at, check_at: expires_at, grant_state, ..lease }
}

/// Lease that `knock` gets in place of `lock`. `waiting` is the waiting acquire of the user who knocked, if there
/// is one.
pub(super) fn lease_for_knock(
    knock: &Knock,
    waiting: Option<&Acquire>,
    lock: &Lock,
    rules: &Rules,
    begins: GrantTime,
    next_fence: Fence,
) -> Lock {
    let drain_until = lock.drain_after(Ending::HandedOver);
    if let Some(waiting) = waiting {
        return granted_lease(waiting, GrantState::ToSession, rules, begins, next_fence, drain_until);
    }
    let request = Acquire {
        kind: knock.kind,
        user_name: knock.name.clone(),
        for_name: knock.for_name.clone(),
        session_id: knock.session_id.clone(),
        ..Acquire::new(lock.workspace_id.clone(), knock.user_id.clone())
    };
    let grant_state = if knock.session_id.is_some() { GrantState::ToSession } else { GrantState::ToUser };
    let begins = GrantTime { told_at: begins.at, ..begins };
    granted_lease(&request, grant_state, rules, begins, next_fence, drain_until)
}
