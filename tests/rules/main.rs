//! The rules without SQL and HTTP: long random histories of acquire, heartbeat, release, takeover, knock, handover, time,
//! restart and sweep, compared with a small model.
//!
//! The model keeps each lease of each workspace: its holder, its end, and whether it was given up. It never deletes
//! anything, so it has no notion of sweeping.
//!
//! The same kind of histories then run on three engines, which must give the same outcomes: SQLite, PostgreSQL with one or
//! two servers, and an engine in memory that loads in batches (`engines.rs`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod engines;
mod handoff;
mod memory;
mod model;
mod play;
mod refusals;
mod requests;
mod steps;
mod waiters;
mod webhooks;
mod world;

use lockhouse::domain::{SessionId, UserId, WorkspaceId};
use play::Play;
use proptest::prelude::*;
use steps::{Step, WORKSPACES, rules, step};

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user {number}")).unwrap()
}

fn session(number: Option<usize>) -> Option<SessionId> {
    number.map(|number| SessionId::parse(&format!("session {number}")).unwrap())
}

fn workspace(number: usize) -> WorkspaceId {
    WorkspaceId::parse(&format!("workspace {number}")).unwrap()
}

/// The number of cases of a property: the usual one, or that of `SLOW_TESTS=1`.
fn cases(usual: u32, slow: u32) -> u32 {
    if std::env::var_os("SLOW_TESTS").is_some() { slow } else { usual }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_000, 20_000), ..ProptestConfig::default() })]

    #[test]
    fn random_histories_match_the_model(rules in rules(), steps in prop::collection::vec(step(), 1..120)) {
        let mut play = Play::new(rules);
        for step in &steps {
            play.take(step);
        }
    }

    /// The same history, once with a sweeper that never comes and once with one that comes after every step: what
    /// the clients are told is the same, word for word.
    #[test]
    fn the_sweeper_is_invisible_to_clients(
        rules in rules(), steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut never = Play::new(rules.clone());
        let mut always = Play::new(rules);
        for step in &steps {
            if !matches!(step, Step::Sweep) {
                never.take(step);
            }
            always.take(step);
            always.take(&Step::Sweep);
            for at in 0..WORKSPACES {
                let shown = |play: &Play| play.world.seen(at, &play.model.rules, play.now);
                prop_assert_eq!(shown(&never), shown(&always));
            }
            prop_assert_eq!(&never.told, &always.told);
        }
    }
}
