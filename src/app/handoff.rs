//! Use cases on knocks: knock, hand over, decline.

use std::sync::Arc;

use super::Service;
use super::current::{apply, is_allowed, now};
use super::locks::lost;
use super::waitlist;
use crate::domain::Now;
use crate::domain::access::Rules;
use crate::domain::event::{Author, Lost};
use crate::domain::handoff::{self, Ask, Asked, Replied, Reply};
use crate::domain::member::{Actor, Need};
use crate::error::{Error, Limit};
use crate::store::{AsOf, Keys, WorkingSet};

/// Outcome of a reply. If the caller is not the holder, it includes how the caller's own lease ended.
type Answered = (Replied, Option<Lost>);

/// Knocks: asks the holder for the lock.
///
/// # Errors
/// Any error of the store.
pub fn ask(set: &WorkingSet<'_>, request: &Ask, rules: &Rules) -> Result<Asked, Error> {
    let found = now(set, &request.workspace_id, rules)?;
    let decision = handoff::ask(found, request, rules, set.now());
    let by = Author::person(request.user_id.clone(), request.name.clone());
    apply(set, decision.change, Some(&by), rules)?;
    Ok(decision.outcome)
}

/// Hands the lock over to another user.
///
/// # Errors
/// Any error of the store.
pub fn hand_over(
    set: &WorkingSet<'_>,
    request: &Reply,
    by: &Author,
    rules: &Rules,
) -> Result<Answered, Error> {
    let workspace_id = &request.claim.workspace_id;
    let found = now(set, workspace_id, rules)?;
    let may_hold = match &request.user_id {
        Some(user_id) => is_allowed(&**set, workspace_id, user_id, rules)?.is_ok(),
        None => true,
    };
    let recipient = match &found {
        Now::Locked(lock) => handoff::recipient(lock, request),
        Now::Free { .. } => None,
    };
    let wish = match recipient {
        Some(recipient) => waitlist::wish(set, workspace_id, recipient, rules)?,
        None => None,
    };
    let decision = handoff::hand_over(found, request, may_hold, wish, rules, set.moment());
    apply(set, decision.change, Some(by), rules)?;
    let (replied, lost) = with_lost(set, request, decision.outcome)?;
    Ok(match (replied, lost) {
        // A repeat of a handover whose answer was lost.
        (Replied::NotHolder { lock, .. }, Some(lost))
            if handoff::was_handed_over(request, &lost, &lock, rules) =>
        {
            (Replied::HandedOver(lock), None)
        }
        answer => answer,
    })
}

/// Declines a knock.
///
/// # Errors
/// Any error of the store.
pub fn decline(set: &WorkingSet<'_>, request: &Reply, by: &Author, rules: &Rules) -> Result<Answered, Error> {
    let found = now(set, &request.claim.workspace_id, rules)?;
    let decision = handoff::decline(found, request, rules, set.now());
    apply(set, decision.change, Some(by), rules)?;
    with_lost(set, request, decision.outcome)
}

/// Adds how the caller's own lease ended, if the caller is not the holder.
fn with_lost(set: &WorkingSet<'_>, request: &Reply, replied: Replied) -> Result<Answered, Error> {
    let lost = match &replied {
        Replied::NotHolder { lock, .. } => lost(set, &request.claim, Some(lock.fence))?,
        Replied::NoLock => lost(set, &request.claim, None)?,
        Replied::HandedOver(_)
        | Replied::Declined(_)
        | Replied::Nobody
        | Replied::Own
        | Replied::NotAMember => None,
    };
    Ok((replied, lost))
}

impl Service {
    /// Knocks: asks the holder for the lock.
    pub fn knock(
        &self,
        actor: Actor,
        request: Ask,
        reply: impl FnOnce(Result<AsOf<Asked>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let keys = Keys::workspace(&request.workspace_id);
        let metrics = Arc::clone(&self.metrics);
        let work = move |set: &WorkingSet<'_>, _| ask(set, &request, &rules);
        self.submit_as(actor, keys, Need::Edit, work, move |answer| {
            match answer.as_ref().map(|asked| &asked.value) {
                Ok(Asked::TooSoon { .. }) => metrics.limited(Limit::KnockAgain),
                Ok(Asked::TooMany) => metrics.limited(Limit::Knocks),
                Ok(Asked::Heard(_) | Asked::NoLock | Asked::Own(_)) | Err(_) => {}
            }
            reply(answer);
        });
    }

    /// Hands the lock over to another user.
    pub fn hand_over(
        &self,
        actor: Actor,
        request: Reply,
        by: Author,
        reply: impl FnOnce(Result<AsOf<Answered>, Error>) + Send + 'static,
    ) {
        self.reply_to_knock(hand_over, actor, request, by, reply);
    }

    /// Declines a knock.
    pub fn decline(
        &self,
        actor: Actor,
        request: Reply,
        by: Author,
        reply: impl FnOnce(Result<AsOf<Answered>, Error>) + Send + 'static,
    ) {
        self.reply_to_knock(decline, actor, request, by, reply);
    }

    fn reply_to_knock(
        &self,
        work: fn(&WorkingSet<'_>, &Reply, &Author, &Rules) -> Result<Answered, Error>,
        actor: Actor,
        request: Reply,
        by: Author,
        reply: impl FnOnce(Result<AsOf<Answered>, Error>) + Send + 'static,
    ) {
        let rules = Arc::clone(&self.rules);
        let claim = request.claim.clone();
        let work = move |set: &WorkingSet<'_>| work(set, &request, &by, &rules);
        self.submit_as_holder(actor, claim, work, |lost| (Replied::NoLock, Some(lost)), reply);
    }
}
