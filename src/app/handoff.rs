//! Use cases on knocks: knock, hand over, decline.

use std::sync::Arc;

use super::Service;
use super::current::{acquire_of, apply, is_allowed, state};
use super::locks::lost;
use crate::domain::WorkspaceState;
use crate::domain::access::Rules;
use crate::domain::event::{Author, Lost};
use crate::domain::handoff::{self, KnockReply, KnockRequest, Knocked, ReplyOutcome};
use crate::domain::rights::{Actor, Need};
use crate::error::{Error, Limit};
use crate::store::{Keys, Reply, WorkingSet};

/// Outcome of a reply. If the caller is not the holder, it includes how the caller's own lease ended.
pub type ReplyResult = (ReplyOutcome, Option<Lost>);

/// Knocks: asks the holder for the lock.
///
/// # Errors
/// Any error of the store.
pub fn knock(set: &WorkingSet<'_>, request: &KnockRequest, rules: &Rules) -> Result<Knocked, Error> {
    let found = state(set, &request.workspace_id, rules)?;
    let decision = handoff::knock(found, request, rules, set.now());
    let by = Author::new(request.user_id.clone(), request.name.clone());
    apply(set, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// Hands the lock over to another user.
///
/// # Errors
/// Any error of the store.
pub fn hand_over(
    set: &WorkingSet<'_>,
    request: &KnockReply,
    by: &Author,
    rules: &Rules,
) -> Result<ReplyResult, Error> {
    let workspace_id = &request.claim.workspace_id;
    let found = state(set, workspace_id, rules)?;
    let may_hold = match &request.user_id {
        Some(user_id) => is_allowed(&**set, workspace_id, user_id, rules)?.is_ok(),
        None => true,
    };
    let recipient = match &found {
        WorkspaceState::Locked(lock) => handoff::recipient(lock, request),
        WorkspaceState::Free { .. } => None,
    };
    let waiting = match recipient {
        Some(recipient) => acquire_of(set, workspace_id, recipient, rules)?,
        None => None,
    };
    let decision = handoff::hand_over(found, request, may_hold, waiting.as_ref(), rules, set.moment());
    apply(set, decision.change, Some(by), rules)?;
    let (replied, lost) = with_lost(set, request, decision.outcome)?;
    Ok(match (replied, lost) {
        // A repeat of a handover whose answer was lost.
        (ReplyOutcome::NotHolder { lock, .. }, Some(lost))
            if handoff::was_handed_over(request, &lost, &lock, rules) =>
        {
            (ReplyOutcome::HandedOver(lock), None)
        }
        answer => answer,
    })
}

/// Declines a knock.
///
/// # Errors
/// Any error of the store.
pub fn decline(
    set: &WorkingSet<'_>,
    request: &KnockReply,
    by: &Author,
    rules: &Rules,
) -> Result<ReplyResult, Error> {
    let found = state(set, &request.claim.workspace_id, rules)?;
    let decision = handoff::decline(found, request, rules, set.now());
    apply(set, decision.change, Some(by), rules)?;
    with_lost(set, request, decision.outcome)
}

/// Adds how the caller's own lease ended, if the caller is not the holder.
fn with_lost(
    set: &WorkingSet<'_>,
    request: &KnockReply,
    replied: ReplyOutcome,
) -> Result<ReplyResult, Error> {
    let lost = match &replied {
        ReplyOutcome::NotHolder { lock, .. } => lost(set, &request.claim, Some(lock.fence))?,
        ReplyOutcome::NoLock => lost(set, &request.claim, None)?,
        ReplyOutcome::HandedOver(_)
        | ReplyOutcome::Declined(_)
        | ReplyOutcome::NoKnock
        | ReplyOutcome::OwnLock
        | ReplyOutcome::NotAMember => None,
    };
    Ok((replied, lost))
}

impl Service {
    /// Knocks: asks the holder for the lock.
    pub fn knock(&self, actor: Actor, request: KnockRequest, reply: impl Reply<Knocked>) {
        let keys = Keys::workspace(&request.workspace_id);
        let metrics = Arc::clone(&self.metrics);
        let work = move |set: &WorkingSet<'_>, rules: &Rules, _| knock(set, &request, rules);
        self.submit_as(actor, keys, Need::Edit, work, move |answer| {
            match answer.as_ref().map(|asked| &asked.value) {
                Ok(Knocked::TooSoon { .. }) => metrics.limited(Limit::KnockAgain),
                Ok(Knocked::TooMany) => metrics.limited(Limit::Knocks),
                Ok(Knocked::Pending(_) | Knocked::NoLock | Knocked::OwnLock(_)) | Err(_) => {}
            }
            reply(answer);
        });
    }

    /// Answers a knock: `work` is [`hand_over`] or [`decline`].
    pub fn answer_knock(
        &self,
        work: fn(&WorkingSet<'_>, &KnockReply, &Author, &Rules) -> Result<ReplyResult, Error>,
        actor: Actor,
        request: KnockReply,
        by: Author,
        reply: impl Reply<ReplyResult>,
    ) {
        let claim = request.claim.clone();
        let work = move |set: &WorkingSet<'_>, rules: &Rules| work(set, &request, &by, rules);
        self.submit_as_holder(actor, claim, work, |lost| (ReplyOutcome::NoLock, Some(lost)), reply);
    }
}
