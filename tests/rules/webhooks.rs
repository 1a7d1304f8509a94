//! Which server sends a webhook, and how far it has been served: the same on all engines.

use lockhouse::config::Config;
use lockhouse::store::Keys;
use lockhouse::time::Ttl;
use lockhouse::webhooks::claim::{Claimant, advance, claim, tidy};

use crate::engines::{Engines, Servers};

const LEASE: i64 = 9_000;
const WEEK: i64 = 7 * 24 * 60 * 60 * 1_000;

fn server(owner: &'static str) -> Claimant {
    Claimant { owner: owner.to_owned(), ttl: Some(Ttl::from_millis(LEASE)) }
}

#[test]
fn a_webhook_is_claimed_by_one_server_at_a_time() {
    let engines = Engines::new(Config::default().rules(), Servers { number: 2, is_prompt: true });
    let on = |owner| usize::from(owner == "two");
    let claims = |owner| {
        engines.run(on(owner), &Keys::default(), move |set| {
            Ok(format!("{:?}", claim(set, "app", &server(owner))?))
        })
    };
    let advances = |owner, position| {
        engines.run(on(owner), &Keys::default(), move |set| {
            Ok(format!("{:?}", advance(set, "app", &server(owner), position)?))
        })
    };
    assert_eq!(claims("one"), "Some(0)");
    assert_eq!((claims("two").as_str(), advances("two", 9).as_str()), ("None", "false"));
    assert_eq!(advances("one", 5), "true");
    engines.pass(LEASE - 1);
    assert_eq!(claims("two"), "None");
    assert_eq!(claims("one"), "Some(5)", "its own, again");
    engines.pass(LEASE);
    assert_eq!(claims("two"), "Some(5)");
    assert_eq!(advances("one", 6), "false", "what a stopped server sent last is sent again");
    assert_eq!(claims("one"), "None");
}

#[test]
fn a_removed_webhook_is_forgotten_after_a_week() {
    let engines = Engines::new(Config::default().rules(), Servers { number: 2, is_prompt: true });
    let run = |names: &'static [&str]| {
        engines.run(0, &Keys::default(), move |set| {
            tidy(set, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
            for name in names {
                claim(set, name, &Claimant::of(None))?;
            }
            let rows = set.webhooks(9)?;
            let shown = rows.iter().map(|row| format!("{} {:?}", row.name, row.removed_at.is_some()));
            Ok(shown.collect::<Vec<_>>().join(", "))
        })
    };
    assert_eq!(run(&["a", "b"]), "a false, b false");
    assert_eq!(run(&["a"]), "a false, b true");
    engines.pass(WEEK - 1);
    assert_eq!(run(&["a"]), "a false, b true");
    assert_eq!(run(&["a", "b"]), "a false, b false", "it is back in time");
    assert_eq!(run(&["a"]), "a false, b true");
    engines.pass(WEEK);
    assert_eq!(run(&["a"]), "a false");
}
