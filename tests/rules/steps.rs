//! Random steps.

use lockhouse::domain::LockKind;
use lockhouse::domain::access::{KindRules, Membership, PerKind, Rules, SameUser, Takeover};
use lockhouse::time::Ttl;
use proptest::prelude::*;

pub const WORKSPACES: usize = 2;
pub const USERS: usize = 3;
pub const SESSIONS: usize = 2;
pub const MIN_TTL: i64 = 10;
pub const RECLAIM_WITHIN: i64 = 150;

#[derive(Debug, Clone)]
pub enum Step {
    Acquire {
        kind: LockKind,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        force: ForceStep,
        admin: bool,
    },
    Heartbeat {
        agent: bool,
        by: Who,
        at: usize,
        ttl: Option<i64>,
        fence: FenceStep,
        session: bool,
        active: bool,
    },
    Release {
        agent: bool,
        by: Who,
        at: usize,
        fence: FenceStep,
        session: bool,
        admin: bool,
    },
    Knock {
        kind: LockKind,
        by: Who,
        at: usize,
    },
    /// The holder answers the named knock, or the first.
    HandOver {
        agent: bool,
        by: Who,
        at: usize,
        fence: FenceStep,
        to: Option<usize>,
    },
    Decline {
        agent: bool,
        by: Who,
        at: usize,
        fence: FenceStep,
        whose: Option<usize>,
    },
    /// Time passes.
    Pass(i64),
    /// A server that was away for so long starts again, with this grace.
    Restart {
        away: i64,
        grace: i64,
    },
    Sweep,
}

/// The default and the longest lease of a kind.
pub const fn ttls(kind: LockKind) -> (i64, i64) {
    match kind {
        LockKind::Edit => (50, 100),
        LockKind::Agent => (40, 60),
        LockKind::Run => (20, 100),
        LockKind::Terraform => (90, 120),
        LockKind::Lfs => (100, 150),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    pub user: usize,
    pub session: Option<usize>,
}

impl Step {
    /// Whether an agent takes the step.
    pub const fn is_by_agent(&self) -> bool {
        match self {
            Self::Acquire { kind, .. } | Self::Knock { kind, .. } => matches!(kind, LockKind::Agent),
            Self::Heartbeat { agent, .. }
            | Self::Release { agent, .. }
            | Self::HandOver { agent, .. }
            | Self::Decline { agent, .. } => *agent,
            Self::Pass(_) | Self::Restart { .. } | Self::Sweep => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum ForceStep {
    No,
    Anyone,
    /// The lease that was live so many leases ago.
    Seen(usize),
}

/// Which fence a message carries: none, or that of the lease so many leases ago on the workspace (late, repeated and
/// reordered messages are messages with an old fence).
#[derive(Debug, Clone, Copy)]
pub enum FenceStep {
    None,
    Ago(usize),
}

pub fn who() -> impl Strategy<Value = Who> {
    (0..USERS, prop::option::of(0..SESSIONS)).prop_map(|(user, session)| Who { user, session })
}

pub fn fence() -> impl Strategy<Value = FenceStep> {
    prop_oneof![2 => Just(FenceStep::None), 3 => Just(FenceStep::Ago(0)), 2 => (1_usize..4).prop_map(FenceStep::Ago)]
}

pub fn ttl() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(prop_oneof![1_i64..150, Just(MIN_TTL), Just(ttls(LockKind::Edit).1)])
}

/// Mostly the same kind, so that holders and requests meet.
pub fn kind() -> impl Strategy<Value = LockKind> {
    prop_oneof![
        5 => Just(LockKind::Edit),
        2 => Just(LockKind::Agent),
        2 => prop::sample::select(LockKind::ALL.to_vec()),
    ]
}

/// Whether a claim is an agent's.
fn agent() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.25)
}

pub fn force() -> impl Strategy<Value = ForceStep> {
    prop_oneof![
        5 => Just(ForceStep::No), 1 => Just(ForceStep::Anyone), 1 => (0_usize..3).prop_map(ForceStep::Seen)
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let at = 0..WORKSPACES;
    prop_oneof![
        6 => (kind(), who(), at.clone(), ttl(), force(), any::<bool>())
            .prop_map(|(kind, by, at, ttl, force, admin)| Step::Acquire { kind, by, at, ttl, force, admin }),
        5 => (agent(), who(), at.clone(), ttl(), fence(), any::<bool>(), any::<bool>()).prop_map(
            |(agent, by, at, ttl, fence, session, active)| {
                Step::Heartbeat { agent, by, at, ttl, fence, session, active }
            }
        ),
        4 => (kind(), who(), at.clone()).prop_map(|(kind, by, at)| Step::Knock { kind, by, at }),
        2 => (agent(), who(), at.clone(), fence(), prop::option::of(0..USERS))
            .prop_map(|(agent, by, at, fence, to)| Step::HandOver { agent, by, at, fence, to }),
        2 => (agent(), who(), at.clone(), fence(), prop::option::of(0..USERS))
            .prop_map(|(agent, by, at, fence, whose)| Step::Decline { agent, by, at, fence, whose }),
        3 => (agent(), who(), at, fence(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(agent, by, at, fence, session, admin)| {
                Step::Release { agent, by, at, fence, session, admin: admin && !agent }
            }
        ),
        5 => prop_oneof![0_i64..5, 5_i64..60, Just(MIN_TTL), Just(ttls(LockKind::Edit).1), 100_i64..400].prop_map(Step::Pass),
        1 => (0_i64..200, 0_i64..50).prop_map(|(away, grace)| Step::Restart { away, grace }),
        2 => Just(Step::Sweep),
    ]
}

/// The settings of the kinds, with this number of locks per user.
pub fn limited_to(locks_per_user: u32) -> PerKind {
    let of = |kind| {
        let (default_ttl, max_ttl) = ttls(kind);
        let [default_ttl, max_ttl] = [default_ttl, max_ttl].map(Ttl::from_millis);
        KindRules { default_ttl, max_ttl, locks_per_user }
    };
    PerKind {
        edit: of(LockKind::Edit),
        agent: of(LockKind::Agent),
        run: of(LockKind::Run),
        terraform: of(LockKind::Terraform),
        lfs: of(LockKind::Lfs),
    }
}

pub fn rules() -> impl Strategy<Value = Rules> {
    let same_user = prop_oneof![Just(SameUser::Share), Just(SameUser::Separate)];
    let takeover =
        prop_oneof![3 => Just(Takeover::Anyone), 1 => Just(Takeover::Admins), 1 => Just(Takeover::Nobody)];
    let grants = (prop::option::of(0_i64..60), prop::option::of(0_i64..120));
    let knocks = (5_i64..40, grants, 0_i64..40, prop::option::of(0_i64..80));
    let settings = (same_user, takeover, prop::bool::weighted(0.7), knocks);
    settings.prop_map(|(same_user, takeover, agents_yield, (claim, (grant, more), again, idle))| Rules {
        agents_yield,
        kinds: limited_to(1_000),
        min_ttl: Ttl::from_millis(MIN_TTL),
        same_user,
        takeover,
        claim_within: Ttl::from_millis(claim),
        knock_grant_after: grant.map(Ttl::from_millis),
        knock_grant_at_latest: more.map(|more| Ttl::from_millis(grant.unwrap_or_default() + more)),
        knock_again_after: Ttl::from_millis(again),
        idle_takeover_after: idle.map(Ttl::from_millis),
        membership: Membership::Open,
        reclaim_within: Ttl::from_millis(RECLAIM_WITHIN),
    })
}
