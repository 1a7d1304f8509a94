//! The steps of a history, on all engines.

use std::sync::Arc;

use lockhouse::app::terraform::{self, Unlock};
use lockhouse::app::waitlist::{self, WaitOutcome};
use lockhouse::app::{handoff, locks, members, release_user, sweep};
use lockhouse::domain::access::Privilege;
use lockhouse::domain::event::Author;
use lockhouse::domain::handoff::{KnockReply, KnockRequest};
use lockhouse::domain::member::{Member, Role};
use lockhouse::domain::token::Validity;
use lockhouse::domain::{Acquire, Activity, Authority, Claim, Fence, Force, Heartbeat, LockKind, Release};
use lockhouse::error::Error;
use lockhouse::store::queue::Waiter;
use lockhouse::store::{AsOf, Keys, WorkingSet};
use lockhouse::time::Ttl;
use proptest::prelude::*;

use super::engine::Engine;
use super::{Engines, SQLITE};
use crate::common::NOON;
use crate::steps::{FenceStep, ForceStep, Step, USERS, WORKSPACES, Who, kind, step, ttl, who};
use crate::waiters::{WaiterAnswer, WaitingClient};
use crate::{session, user, workspace};

/// A step on all engines.
#[derive(Debug, Clone)]
pub enum EngineStep {
    Rules(Step),
    /// Acquires, and waits for up to `wait`.
    Wait {
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        wait: i64,
    },
    /// The waiters whose wait is over are answered.
    Leave,
    /// Unlocks a state of Terraform. Without a session, it names no lock id.
    Unlock {
        by: Who,
        at: usize,
    },
    /// All leases of a user are ended.
    ReleaseUser(usize),
    /// A user gets a role in a workspace, or loses it.
    Member {
        whose: usize,
        at: usize,
        role: Option<Role>,
    },
    /// One server stops, and starts after `away`. The waiters that are connected to it are gone. They keep their places
    /// for a while if it `leaves` in order.
    Replace {
        away: i64,
        leaves: bool,
    },
}

pub fn engine_step() -> impl Strategy<Value = EngineStep> {
    prop_oneof![
        8 => step().prop_map(EngineStep::Rules),
        3 => (kind(), who(), 0..WORKSPACES, ttl(), 1_i64..200)
            .prop_map(|(kind, by, at, ttl, wait)| EngineStep::Wait { kind, by, at, ttl, wait }),
        1 => Just(EngineStep::Leave),
        2 => (who(), 0..WORKSPACES).prop_map(|(by, at)| EngineStep::Unlock { by, at }),
        1 => (0..USERS).prop_map(EngineStep::ReleaseUser),
        1 => (0..USERS, 0..WORKSPACES, prop::option::of(prop::sample::select(Role::ALL.to_vec())))
            .prop_map(|(whose, at, role)| EngineStep::Member { whose, at, role }),
        1 => (0_i64..200, any::<bool>()).prop_map(|(away, leaves)| EngineStep::Replace { away, leaves }),
    ]
}

/// The server that takes a step, where there are two.
pub fn on() -> impl Strategy<Value = usize> {
    0_usize..2
}

fn keys(at: usize) -> Keys {
    Keys::workspace(&workspace(at))
}

impl Engines {
    /// Takes the step on the server `on`. Returns the answers to waiters: those of earlier steps, and to the caller of
    /// this one.
    pub fn take(&mut self, on: usize, step: &EngineStep) -> Vec<WaiterAnswer> {
        let before: Vec<_> = (0..WORKSPACES).map(|at| self.live(at)).collect();
        let mut answers = Vec::new();
        match step {
            EngineStep::Rules(step) => self.take_rules(on, step),
            EngineStep::Wait { kind, by, at, ttl, wait } => {
                answers.extend(self.wait(on, *kind, *by, *at, *ttl, *wait));
            }
            EngineStep::Leave => self.leave(),
            EngineStep::Unlock { by, at } => self.unlock(on, *by, *at),
            EngineStep::ReleaseUser(whose) => self.release_user(on, *whose),
            EngineStep::Member { whose, at, role } => self.put_member(on, *whose, *at, *role),
            EngineStep::Replace { away, .. } if self.servers.number == 1 => self.restart(*away, 0),
            EngineStep::Replace { away, leaves } => self.replace(on, *away, *leaves),
        }
        self.look(on + 1);
        answers.extend(self.answers());
        for (at, before) in before.iter().enumerate() {
            self.people_go_first(at, before.as_ref(), step);
        }
        answers
    }

    fn wait(
        &mut self,
        on: usize,
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        wait: i64,
    ) -> Option<WaiterAnswer> {
        let request = Acquire {
            kind,
            session_id: session(by.session),
            ttl: ttl.map(Ttl::from_millis),
            ..Acquire::new(workspace(at), user(by.user))
        };
        let number = self.next;
        self.next += 1;
        let server = on % self.servers.number;
        let waiter = |engine: &Engine| {
            let client = WaitingClient {
                number,
                request: request.clone(),
                answers: Arc::clone(&engine.answers),
                is_gone: Arc::clone(&self.stopped[server]),
            };
            let wait = Ttl::from_millis(wait);
            let waiter = Waiter::new(request.clone(), wait, Validity::Unlimited, Box::new(client));
            engine.waiters.borrow_mut().insert(waiter.id, number);
            waiter
        };
        let waiters: Vec<_> = self.all.iter().map(waiter).collect();
        let rules = Arc::clone(&self.rules);
        let keys = keys(at).and_user(&user(by.user));
        let mut told = self.run_each(on, &keys, move |engine, set| {
            waitlist::acquire(set, &waiters[engine], Privilege::Ordinary, &rules)
        });
        let AsOf { now, value } = told.swap_remove(SQLITE);
        match value {
            WaitOutcome::Answered(value) => Some((request, Ok(AsOf { now, value: *value }))),
            WaitOutcome::Waiting => {
                self.waiting.insert(number, server);
                None
            }
            WaitOutcome::LimitReached(_) => None,
        }
    }

    fn unlock(&self, on: usize, by: Who, at: usize) {
        let request = Unlock {
            workspace_id: workspace(at),
            user_id: user(by.user),
            user_name: None,
            id: session(by.session).map(|session| session.as_str().to_owned()),
        };
        let rules = Arc::clone(&self.rules);
        self.run(on, &keys(at), move |set| {
            Ok(format!("{:?}", terraform::unlock(set, &request, Privilege::Ordinary, &rules)?))
        });
    }

    fn release_user(&self, on: usize, whose: usize) {
        let (rules, by) = (Arc::clone(&self.rules), Author::new(user(whose), None));
        self.run(on, &Keys::default(), move |set| {
            let ended = release_user::release_user(set, &user(whose), &LockKind::ALL, &by, &rules, "")?;
            Ok(format!("{ended:?}"))
        });
    }

    /// Gives a user a role in a workspace, or takes it.
    pub(super) fn put_member(&self, on: usize, whose: usize, at: usize, role: Option<Role>) {
        let rules = Arc::clone(&self.rules);
        self.run(on, &keys(at), move |set| {
            let workspace_id = workspace(at);
            let Some(role) = role else {
                let removed = members::remove_member(set, &workspace_id, &user(whose), None, &rules)?;
                return Ok(format!("{removed:?}"));
            };
            set.put_workspace(&workspace_id, None, false, NOON)?;
            let member = Member { user_id: user(whose), role };
            Ok(format!("{:?}", members::put_member(set, &workspace_id, &member, None, &rules)?))
        });
    }

    /// Runs the use case with the fence of an earlier lease, which each engine has its own for.
    fn run_with(
        &self,
        on: usize,
        keys: &Keys,
        (at, fence): (usize, FenceStep),
        work: impl Fn(&WorkingSet<'_>, Option<Fence>) -> Result<String, Error> + Send + Sync + 'static,
    ) {
        let fences: Vec<_> = self.all.iter().map(|engine| engine.fence(at, fence)).collect();
        self.run_each(on, keys, move |engine, set| work(set, fences[engine]));
    }

    fn take_rules(&mut self, on: usize, step: &Step) {
        let rules = Arc::clone(&self.rules);
        let claim = |is_agent, by: Who, at: usize| Claim {
            is_agent,
            workspace_id: workspace(at),
            user_id: user(by.user),
            session_id: session(by.session),
            fence: None,
        };
        match *step {
            Step::Acquire { kind, by, at, ttl, force, admin } => {
                let seen =
                    if let ForceStep::Seen(ago) = force { FenceStep::Ago(ago) } else { FenceStep::None };
                let request = Acquire {
                    kind,
                    session_id: session(by.session),
                    privilege: if admin { Privilege::Administrator } else { Privilege::Ordinary },
                    ttl: ttl.map(Ttl::from_millis),
                    ..Acquire::new(workspace(at), user(by.user))
                };
                let keys = keys(at).and_user(&user(by.user));
                self.run_with(on, &keys, (at, seen), move |set, fence| {
                    let force = match force {
                        ForceStep::No => Force::No,
                        ForceStep::Anyone | ForceStep::Seen(_) => {
                            fence.map_or(Force::AnyHolder, Force::OnlyFence)
                        }
                    };
                    let request = Acquire { force, ..request.clone() };
                    Ok(format!("{:?}", locks::acquire(set, &request, &rules)?))
                });
            }
            Step::Heartbeat { agent, by, at, ttl, fence, session, active } => {
                let by = if session { by } else { Who { session: None, ..by } };
                let activity = if active { Activity::Active } else { Activity::Idle };
                let claim = claim(agent, by, at);
                self.run_with(on, &keys(at), (at, fence), move |set, fence| {
                    let claim = Claim { fence, ..claim.clone() };
                    let request = Heartbeat { claim, ttl: ttl.map(Ttl::from_millis), activity };
                    Ok(format!("{:?}", locks::heartbeat(set, &request, &rules)?))
                });
            }
            Step::Release { agent, by, at, fence, session, admin } => {
                let by = if session { by } else { Who { session: None, ..by } };
                let (authority, privilege) = if admin {
                    (Authority::Administrator, Privilege::Administrator)
                } else {
                    (Authority::Holder, Privilege::Ordinary)
                };
                let claim = claim(agent, by, at);
                self.run_with(on, &keys(at), (at, fence), move |set, fence| {
                    let claim = Claim { fence, ..claim.clone() };
                    let request = Release { claim, user_name: None, authority, privilege, reason: None };
                    Ok(format!("{:?}", locks::release(set, &request, &rules)?))
                });
            }
            Step::Knock { kind, by, at } => {
                let request = KnockRequest {
                    kind,
                    validity: Validity::Unlimited,
                    workspace_id: workspace(at),
                    user_id: user(by.user),
                    name: None,
                    for_name: None,
                    session_id: session(by.session),
                    message: Some("please".to_owned()),
                };
                self.run(on, &keys(at), move |set| {
                    Ok(format!("{:?}", handoff::knock(set, &request, &rules)?))
                });
            }
            Step::HandOver { agent, by, at, fence, to } => {
                let (claim, by) = (claim(agent, by, at), Author::new(user(by.user), None));
                self.run_with(on, &keys(at), (at, fence), move |set, fence| {
                    let claim = Claim { fence, ..claim.clone() };
                    let request = KnockReply { claim, user_id: to.map(user) };
                    Ok(format!("{:?}", handoff::hand_over(set, &request, &by, &rules)?))
                });
            }
            Step::Decline { agent, by, at, fence, whose } => {
                let (claim, by) = (claim(agent, by, at), Author::new(user(by.user), None));
                self.run_with(on, &keys(at), (at, fence), move |set, fence| {
                    let claim = Claim { fence, ..claim.clone() };
                    let request = KnockReply { claim, user_id: whose.map(user) };
                    Ok(format!("{:?}", handoff::decline(set, &request, &by, &rules)?))
                });
            }
            Step::Pass(by) => self.pass(by),
            Step::Restart { away, grace } => self.restart(away, grace),
            Step::Sweep => {
                self.run(on, &Keys::default(), move |set| {
                    Ok(format!("{:?}", sweep::sweep(set, &rules, 10)?))
                });
            }
        }
    }
}
