//! Asking the holder of a lock for it, and the holder's answer: each function is one use case.

use super::Write;
use super::events::Author;
use super::locks::{apply, lost, now};
use super::{waiting, workspaces};
use crate::domain::Now;
use crate::domain::access::Rules;
use crate::domain::event::Lost;
use crate::domain::handoff::{self, Ask, Asked, Replied, Reply};
use crate::error::Error;

/// Somebody asks the holder for the lock.
///
/// # Errors
/// What SQLite refuses.
pub fn ask(write: &Write<'_>, request: &Ask, rules: &Rules) -> Result<Asked, Error> {
    let found = now(write, &request.workspace_id, rules)?;
    let decision = handoff::ask(found, request, rules, write.now());
    let by = Author::person(request.user_id.clone(), request.name.clone());
    apply(write, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// The holder gives the lock to somebody.
///
/// # Errors
/// What SQLite refuses.
pub fn hand_over(
    write: &Write<'_>,
    request: &Reply,
    by: &Author,
    rules: &Rules,
) -> Result<(Replied, Option<Lost>), Error> {
    let workspace_id = &request.claim.workspace_id;
    let found = now(write, workspace_id, rules)?;
    if let Some(user_id) = &request.user_id
        && !workspaces::may_hold(write.connection(), workspace_id, user_id, rules)?
    {
        // Only the holder learns that.
        let holder = matches!(&found, Now::Locked(lock) if lock.user_id == request.claim.user_id);
        if holder {
            return Ok((Replied::NotAMember, None));
        }
    }
    let recipient = match &found {
        Now::Locked(lock) => handoff::recipient(lock, request),
        Now::Free { .. } => None,
    };
    let wish = match recipient {
        Some(recipient) => waiting::wish(write, workspace_id, recipient, rules)?,
        None => None,
    };
    let decision = handoff::hand_over(found, request, wish, rules, write.now(), write.fresh_fence());
    apply(write, decision.change, Some(by), rules)?;
    let (replied, lost) = with_lost(write, request, decision.outcome)?;
    Ok(match (replied, lost) {
        // The answer was lost, and the same is asked for again.
        (Replied::NotHolder { lock, .. }, Some(lost))
            if handoff::was_handed_over(request, &lost, &lock, rules) =>
        {
            (Replied::HandedOver(lock), None)
        }
        answer => answer,
    })
}

/// The holder keeps the lock.
///
/// # Errors
/// What SQLite refuses.
pub fn decline(
    write: &Write<'_>,
    request: &Reply,
    by: &Author,
    rules: &Rules,
) -> Result<(Replied, Option<Lost>), Error> {
    let found = now(write, &request.claim.workspace_id, rules)?;
    let decision = handoff::decline(found, request, rules, write.now());
    apply(write, decision.change, Some(by), rules)?;
    with_lost(write, request, decision.outcome)
}

/// Whoever answers a knock on a lock that is not theirs is told how their own lease ended.
fn with_lost(write: &Write<'_>, request: &Reply, replied: Replied) -> Result<(Replied, Option<Lost>), Error> {
    let lost = match &replied {
        Replied::NotHolder { lock, .. } => lost(write, &request.claim, Some(lock.fence))?,
        Replied::NoLock => lost(write, &request.claim, None)?,
        Replied::HandedOver(_)
        | Replied::Declined(_)
        | Replied::Nobody
        | Replied::Own
        | Replied::NotAMember => None,
    };
    Ok((replied, lost))
}
