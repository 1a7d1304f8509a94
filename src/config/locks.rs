//! The settings of the sections `[locks]`, `[workspaces]` and `[limits]`.

use super::settings::Setting;
use super::values::{Given, choice, duration, duration_or, number_within, show_choice, show_duration};
use crate::domain::access::{SameUser, Takeover};
use crate::domain::member::Membership;
use crate::time::Ttl;
use std::time::Duration;

const MEMBERSHIP: &[(&str, Membership)] = &[("open", Membership::Open), ("enforced", Membership::Enforced)];
const SAME_USER: &[(&str, SameUser)] = &[("share", SameUser::Share), ("separate", SameUser::Separate)];
const TAKEOVER: &[(&str, Takeover)] =
    &[("anyone", Takeover::Anyone), ("admins", Takeover::Admins), ("nobody", Takeover::Nobody)];

pub(super) fn show_ttl(ttl: Ttl) -> String {
    show_duration(Duration::from_millis(ttl.as_millis().unsigned_abs()))
}

fn show_ttl_or_never(ttl: Option<Ttl>) -> String {
    ttl.map_or_else(|| "\"never\"".to_owned(), show_ttl)
}

/// A number from 1 on, or nothing for `"unlimited"`.
fn number_or_unlimited(given: Given, most: usize) -> Result<Option<u32>, ()> {
    if given == Given::Text("unlimited".to_owned()) {
        return Ok(None);
    }
    let number: usize = number_within(given, 1, most)?;
    u32::try_from(number).map(Some).map_err(drop)
}

fn show_number_or_unlimited(number: Option<u32>) -> String {
    number.map_or_else(|| "\"unlimited\"".to_owned(), |number| number.to_string())
}

const A_DURATION: &str = "it takes a duration such as \"500ms\", \"30s\", \"10m\", \"24h\" or \"30d\"";

pub(super) const LOCKS: &[Setting] = &[
    Setting {
        section: "locks",
        name: "default_ttl",
        about: "How long a lease runs when an acquire does not say.",
        allowed: A_DURATION,
        secret: false,
        read: |config, given| {
            config.locks.rules.default_ttl = Ttl::from_duration(duration(given)?);
            Ok(())
        },
        show: |config| show_ttl(config.locks.rules.default_ttl),
    },
    Setting {
        section: "locks",
        name: "min_ttl",
        about: "A lease that is asked to be shorter becomes this long.",
        allowed: A_DURATION,
        secret: false,
        read: |config, given| {
            config.locks.rules.min_ttl = Ttl::from_duration(duration(given)?);
            Ok(())
        },
        show: |config| show_ttl(config.locks.rules.min_ttl),
    },
    Setting {
        section: "locks",
        name: "max_ttl",
        about: "A lease that is asked to be longer becomes this long.",
        allowed: A_DURATION,
        secret: false,
        read: |config, given| {
            config.locks.rules.max_ttl = Ttl::from_duration(duration(given)?);
            Ok(())
        },
        show: |config| show_ttl(config.locks.rules.max_ttl),
    },
    Setting {
        section: "locks",
        name: "same_user",
        about: "What a second session (tab, device) of the holder is: \"share\" lets all sessions of one person\n\
                share the lock, \"separate\" makes them compete like different people.",
        allowed: "it takes \"share\" or \"separate\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.same_user = choice(given, SAME_USER)?;
            Ok(())
        },
        show: |config| show_choice(&config.locks.rules.same_user, SAME_USER),
    },
    Setting {
        section: "locks",
        name: "takeover",
        about: "Who may take a live lock over with force: \"anyone\" who may lock, \"admins\" (of the workspace or the\n\
                server) or \"nobody\". Admins can always end a lock with a forced release.",
        allowed: "it takes \"anyone\", \"admins\" or \"nobody\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.takeover = choice(given, TAKEOVER)?;
            Ok(())
        },
        show: |config| show_choice(&config.locks.rules.takeover, TAKEOVER),
    },
    Setting {
        section: "locks",
        name: "max_wait",
        about: "The longest that one request waits for a lock (wait_ms): less than what a proxy in front waits for an answer.",
        allowed: "it takes a duration of at most a minute, such as \"25s\"",
        secret: false,
        read: |config, given| {
            let wait = duration(given)?;
            config.locks.max_wait = Ttl::from_duration(wait);
            (wait <= Duration::from_secs(60)).then_some(()).ok_or(())
        },
        show: |config| show_ttl(config.locks.max_wait),
    },
    Setting {
        section: "locks",
        name: "claim_within",
        about: "What a lease lasts that was given to somebody who waited, knocked or was handed it, until they first\n\
                renew it: should they have gone away, they block nobody.",
        allowed: A_DURATION,
        secret: false,
        read: |config, given| {
            config.locks.rules.claim_within = Ttl::from_duration(duration(given)?);
            Ok(())
        },
        show: |config| show_ttl(config.locks.rules.claim_within),
    },
    Setting {
        section: "locks",
        name: "knock_grant_after",
        about: "A lock passes to the one who knocked when its holder has been silent for so long, whatever locks.takeover\n\
                says. A holder is silent who neither answers nor sends a heartbeat with \"active\". \"never\" turns it off.",
        allowed: "it takes a duration such as \"30s\", or \"never\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.knock_grant_after = duration_or("never", given)?.map(Ttl::from_duration);
            Ok(())
        },
        show: |config| show_ttl_or_never(config.locks.rules.knock_grant_after),
    },
    Setting {
        section: "locks",
        name: "knock_grant_at_latest",
        about: "How long after a knock the lock passes on at the latest, though its holder is at work and does not answer.\n\
                It is at least knock_grant_after. \"never\": not while the holder is at work.",
        allowed: "it takes a duration such as \"5m\", or \"never\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.knock_grant_at_latest = duration_or("never", given)?.map(Ttl::from_duration);
            Ok(())
        },
        show: |config| show_ttl_or_never(config.locks.rules.knock_grant_at_latest),
    },
    Setting {
        section: "locks",
        name: "knock_again_after",
        about: "How long somebody whose knock was declined has to wait until they can knock on the same lease again.",
        allowed: "it takes a duration such as \"1m\", or \"0s\" for no wait",
        secret: false,
        read: |config, given| {
            let after = duration_or("0s", given)?.unwrap_or_default();
            config.locks.rules.knock_again_after = Ttl::from_duration(after);
            Ok(())
        },
        show: |config| show_ttl(config.locks.rules.knock_again_after),
    },
    Setting {
        section: "locks",
        name: "idle_takeover_after",
        about: "A live lock whose holder has not been active for so long (heartbeats say `active`) may be taken over\n\
                by anybody who may lock, whatever locks.takeover says. \"never\" turns it off.",
        allowed: "it takes a duration such as \"15m\", or \"never\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.idle_takeover_after = duration_or("never", given)?.map(Ttl::from_duration);
            Ok(())
        },
        show: |config| show_ttl_or_never(config.locks.rules.idle_takeover_after),
    },
    Setting {
        section: "locks",
        name: "restart_grace",
        about: "A lease that was alive when the server stopped has at least this much left when it starts again,\n\
                because its holder had nobody to send a heartbeat to.",
        allowed: "it takes a duration such as \"30s\", or \"0s\" for none",
        secret: false,
        read: |config, given| {
            config.locks.restart_grace = duration_or("0s", given)?.unwrap_or_default();
            Ok(())
        },
        show: |config| show_duration(config.locks.restart_grace),
    },
    Setting {
        section: "workspaces",
        name: "membership",
        about: "Whether one has to belong to a workspace. \"open\": whoever is let in may lock, and a workspace need not\n\
                exist. \"enforced\": a workspace is seen by its members only, and locked by its editors and admins.",
        allowed: "it takes \"open\" or \"enforced\"",
        secret: false,
        read: |config, given| {
            config.locks.rules.membership = choice(given, MEMBERSHIP)?;
            Ok(())
        },
        show: |config| show_choice(&config.locks.rules.membership, MEMBERSHIP),
    },
    Setting {
        section: "limits",
        name: "locks_per_user",
        about: "Most locks that one user can have; a further one is answered with 429.",
        allowed: "it takes a whole number from 1 to 1000000",
        secret: false,
        read: |config, given| {
            let number: usize = number_within(given, 1, 1_000_000)?;
            config.locks.rules.locks_per_user = u32::try_from(number).map_err(drop)?;
            Ok(())
        },
        show: |config| config.locks.rules.locks_per_user.to_string(),
    },
    Setting {
        section: "limits",
        name: "requests_per_second",
        about: "Most requests that one caller may make each second, in the long run (ten times as many at once); further\n\
                ones are answered with 429. \"unlimited\" turns it off.",
        allowed: "it takes a whole number from 1 to 100000, or \"unlimited\"",
        secret: false,
        read: |config, given| {
            config.limits.requests_per_second = number_or_unlimited(given, 100_000)?;
            Ok(())
        },
        show: |config| show_number_or_unlimited(config.limits.requests_per_second),
    },
    Setting {
        section: "limits",
        name: "streams_per_user",
        about: "Most streams of events that one user can have at a time; a further one is answered with 429. Each takes\n\
                a connection. \"unlimited\" turns it off.",
        allowed: "it takes a whole number from 1 to 1000000, or \"unlimited\"",
        secret: false,
        read: |config, given| {
            config.limits.streams_per_user = number_or_unlimited(given, 1_000_000)?;
            Ok(())
        },
        show: |config| show_number_or_unlimited(config.limits.streams_per_user),
    },
    Setting {
        section: "limits",
        name: "waiters_per_workspace",
        about: "Most clients that can wait for one lock (wait_ms); a further one is answered with 429.",
        allowed: "it takes a whole number from 1 to 1000",
        secret: false,
        read: |config, given| {
            config.limits.waiters_per_workspace = number_within(given, 1, 1_000)?;
            Ok(())
        },
        show: |config| config.limits.waiters_per_workspace.to_string(),
    },
    Setting {
        section: "limits",
        name: "waiters_per_user",
        about: "Most clients of one user, in sessions of their own, that can wait for one lock; a further one is answered\n\
                with 429.",
        allowed: "it takes a whole number from 1 to 1000",
        secret: false,
        read: |config, given| {
            config.limits.waiters_per_user = number_within(given, 1, 1_000)?;
            Ok(())
        },
        show: |config| config.limits.waiters_per_user.to_string(),
    },
    Setting {
        section: "limits",
        name: "waiters",
        about: "Most clients that can wait for locks in all; a further one is answered with 429.",
        allowed: "it takes a whole number from 1 to 1000000",
        secret: false,
        read: |config, given| {
            config.limits.waiters = number_within(given, 1, 1_000_000)?;
            Ok(())
        },
        show: |config| config.limits.waiters.to_string(),
    },
];
