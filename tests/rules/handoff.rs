//! Knocking, handing over and declining, in both worlds.

use lockhouse::domain::LockKind;
use lockhouse::domain::handoff::{self, KnockReply, KnockRequest, Knocked, ReplyOutcome};
use lockhouse::domain::rules::Decision;
use lockhouse::domain::token::Validity;
use lockhouse::time::Timestamp;

use crate::model::Lease;
use crate::play::Play;
use crate::steps::Who;
use crate::{session, user, workspace};

impl Play {
    pub fn knock(&mut self, kind: LockKind, by: Who, at: usize) {
        let request = KnockRequest {
            validity: Validity::Unlimited,
            workspace_id: workspace(at),
            kind,
            user_id: user(by.user),
            name: None,
            for_name: None,
            session_id: session(by.session),
            message: None,
        };
        let now = self.now;
        let found = self.world.now(at, &self.model.rules, now);
        let Decision { change, outcome } = handoff::knock(found, &request, &self.model.rules, Timestamp(now));
        self.world.apply(at, change);
        self.told.push(format!("{outcome:?}"));
        let Some(lease) = self.model.live(at, now).cloned() else {
            return assert_eq!(outcome, Knocked::NoLock);
        };
        if self.model.owns(&lease, kind, by) {
            return assert!(matches!(outcome, Knocked::OwnLock(_)), "{outcome:?}");
        }
        let again = self.model.rules.knock_again_after.as_millis();
        let agent = kind == LockKind::Agent;
        let declined = lease
            .declined
            .iter()
            .rev()
            .find(|(user, was, at)| (*user, *was) == (by.user, agent) && at + again > now);
        if let Some((.., at)) = declined {
            let Knocked::TooSoon { lock, again: rest } = outcome else { panic!("{outcome:?}") };
            return assert_eq!((lock.fence.0, rest.as_millis()), (lease.fence, at + again - now));
        }
        let Knocked::Pending(lock) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((lock.fence.0, lock.expires_at.0), (lease.fence, lease.ends), "the lease is as it was");
        let rules = self.model.rules.clone();
        let last = self.model.last(at);
        if let Some(knock) =
            last.knocks.iter_mut().find(|(user, _, as_)| (*user, *as_ == LockKind::Agent) == (by.user, agent))
        {
            knock.1 = by.session.or(knock.1);
            knock.2 = kind;
        } else {
            let first = last.knocks.first().copied();
            last.knocks.push((by.user, by.session, kind));
            last.knocks.sort_by_key(|(.., kind)| *kind == LockKind::Agent);
            if last.knocks.first().copied() != first {
                last.show_the_first(&rules, now);
            }
        }
        let knocks: Vec<_> = lock
            .knocks
            .pending
            .iter()
            .map(|knock| (knock.user_id.clone(), knock.session_id.clone(), knock.kind))
            .collect();
        let expected: Vec<_> =
            last.knocks.iter().map(|knock| (user(knock.0), session(knock.1), knock.2)).collect();
        assert_eq!(knocks, expected, "in the order in which they came");
    }

    pub fn hand_over(&mut self, agent: bool, by: Who, at: usize, fence: Option<i64>, to: Option<usize>) {
        let request = KnockReply { claim: Self::claim(agent, by, at, fence), user_id: to.map(user) };
        let now = self.now;
        let found = self.world.now(at, &self.model.rules, now);
        let next_fence = self.world.next_fence(at);
        let Decision { change, outcome } =
            handoff::hand_over(found, &request, true, None, &self.model.rules, self.world.moment(at, now));
        self.world.apply(at, change);
        self.told.push(format!("{outcome:?}"));
        let Some(lease) = self.holders(agent, by, at, fence, &outcome) else { return };
        let Some(to) = to.or(lease.knocks.first().map(|knock| knock.0)) else {
            return assert_eq!(outcome, ReplyOutcome::NoKnock);
        };
        let knock = lease.knocks.iter().find(|knock| knock.0 == to);
        if to == lease.user && knock.is_none() {
            return assert_eq!(outcome, ReplyOutcome::OwnLock);
        }
        let session = knock.and_then(|knock| knock.1);
        let kind = knock.map_or(LockKind::Edit, |knock| knock.2);
        let ReplyOutcome::HandedOver(lock) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(lock.user_id, user(to));
        let next = Lease::given(kind, Who { user: to, session }, next_fence.0, &self.model.rules, now);
        let last = self.model.last(at);
        (last.given_up, last.forced) = (true, true);
        self.model.begin(at, next, now);
    }

    pub fn decline(&mut self, agent: bool, by: Who, at: usize, fence: Option<i64>, whose: Option<usize>) {
        let request = KnockReply { claim: Self::claim(agent, by, at, fence), user_id: whose.map(user) };
        let now = self.now;
        let found = self.world.now(at, &self.model.rules, now);
        let Decision { change, outcome } =
            handoff::decline(found, &request, &self.model.rules, Timestamp(now));
        self.world.apply(at, change);
        self.told.push(format!("{outcome:?}"));
        let Some(lease) = self.holders(agent, by, at, fence, &outcome) else { return };
        let place = match whose {
            Some(whose) => lease.knocks.iter().position(|knock| knock.0 == whose),
            None => (!lease.knocks.is_empty()).then_some(0),
        };
        let Some(place) = place else {
            return assert_eq!(outcome, ReplyOutcome::NoKnock);
        };
        assert!(matches!(outcome, ReplyOutcome::Declined(_)), "{outcome:?}");
        let rules = self.model.rules.clone();
        let last = self.model.last(at);
        let (user, _, kind) = last.knocks.remove(place);
        last.declined.push((user, kind == LockKind::Agent, now));
        last.active = now;
        if place == 0 {
            last.show_the_first(&rules, now);
        }
    }

    /// The live lease if it belongs to `by`. Otherwise checks the refusal.
    fn holders(
        &self,
        agent: bool,
        by: Who,
        at: usize,
        fence: Option<i64>,
        outcome: &ReplyOutcome,
    ) -> Option<Lease> {
        match self.model.live(at, self.now) {
            None => assert_eq!(*outcome, ReplyOutcome::NoLock),
            Some(lease) if self.model.is_given_by(lease, agent, by, fence) => return Some(lease.clone()),
            Some(lease) => {
                let ReplyOutcome::NotHolder { lock, same_user } = outcome else { panic!("{outcome:?}") };
                assert_eq!((lock.fence.0, *same_user), (lease.fence, lease.user == by.user));
            }
        }
        None
    }
}
