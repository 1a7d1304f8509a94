//! Two servers on one PostgreSQL: locks, fences, events and waiters are those of one server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::HashSet;
use std::thread;

use common::postgres::{Cluster, new_database};
use common::proxy::{Cut, Proxy};
use common::waiting::{ask, line, line_becomes};
use common::{Client, Server, eventually, follow, told};
use lockhouse::auth::Scope;
use lockhouse::config::{AuthMode, Config, Secret};
use lockhouse::domain::access::Membership;
use serde_json::{Value, json};

fn node(url: &Secret, set: impl FnOnce(&mut Config)) -> Server {
    Server::with(|config| {
        config.database.url = Some(url.clone());
        set(config);
    })
}

fn two_with(set: impl Fn(&mut Config)) -> [Server; 2] {
    let url = new_database();
    [node(&url, &set), node(&url, &set)]
}

fn two() -> [Server; 2] {
    two_with(|_| {})
}

/// Waits for the lock of `w` at this server.
fn wait(server: &Server, user: &str) -> Client {
    ask(server, user, &json!({ "wait_ms": 60_000 }))
}

#[track_caller]
fn granted(client: &mut Client, user: &str) -> Value {
    let answer = client.receive("POST").unwrap().expect(200);
    let lock = answer["lock"].clone();
    assert_eq!((&answer["outcome"], &lock["locked_by_user_id"]), (&json!("acquired"), &json!(user)));
    lock
}

#[test]
fn a_lock_excludes_on_both_servers_and_fences_rise() {
    let [one, other] = two();
    let mut last = 0;
    for round in 0..6 {
        let (here, there) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let lock = here.user("alice").acquire("w", &json!({})).expect(200)["lock"].clone();
        let fence = lock["fence"].as_i64().unwrap();
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        there.user("bob").acquire("w", &json!({})).expect(409);
        assert_eq!(there.client().lock("w"), lock);
        // The other server renews and releases it.
        there.user("alice").heartbeat("w", &json!({ "fence": fence })).expect(200);
        there.user("alice").release("w", &json!({ "fence": fence })).expect(200);
    }
}

#[test]
fn one_lock_per_user_holds_on_both_servers_at_once() {
    let servers = two_with(|config| config.limits.locks_per_user = 1);
    let addresses = servers.each_ref().map(Server::address);
    for round in 0..30 {
        let granted: usize = thread::scope(|scope| {
            let asking: Vec<_> = (0..4)
                .map(|number| {
                    let mut client = Client::connect(addresses[number % 2]).by(&format!("user-{round}"));
                    let workspace = format!("w{round}-{number}");
                    scope.spawn(move || usize::from(client.acquire(&workspace, &json!({})).status == 200))
                })
                .collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).sum()
        });
        assert_eq!(granted, 1, "round {round}");
    }
}

#[test]
fn fences_of_both_servers_are_never_the_same() {
    let servers = two();
    let addresses = servers.each_ref().map(Server::address);
    let fences: Vec<i64> = thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|number| {
                let mut client = Client::connect(addresses[number % 2]).by(&format!("user-{number}"));
                scope.spawn(move || {
                    let fence = |at: usize| {
                        let granted = client.acquire(&format!("w{number}-{at}"), &json!({})).expect(200);
                        granted["lock"]["fence"].as_i64().unwrap()
                    };
                    (0..25).map(fence).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(fences.iter().collect::<HashSet<_>>().len(), 100);
}

#[test]
fn an_event_of_one_server_is_heard_at_the_other() {
    let [one, other] = two();
    let mut events = follow(&other, "carol", "?workspace_id=w");
    let fence = one.user("alice").acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    let event = told(&mut events);
    assert_eq!((&event["type"], &event["fence"]), (&json!("lock.acquired"), &fence));
    one.user("alice").release("w", &json!({})).expect(200);
    assert_eq!(told(&mut events)["type"], "lock.released");
}

#[test]
fn waiters_of_both_servers_get_the_lock_in_their_order() {
    let [one, other] = two();
    let mut alice = one.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let mut bob = wait(&other, "bob");
    line_becomes(&one, &["bob"]);
    let mut carol = wait(&one, "carol");
    line_becomes(&other, &["bob", "carol"]);
    let mut dave = wait(&other, "dave");
    line_becomes(&one, &["bob", "carol", "dave"]);
    alice.release("w", &json!({})).expect(200);
    let first = granted(&mut bob, "bob");
    // It is released at a server to which the next is connected, and then at the other one.
    one.user("bob").release("w", &json!({ "fence": first["fence"] })).expect(200);
    let second = granted(&mut carol, "carol");
    one.user("carol").release("w", &json!({ "fence": second["fence"] })).expect(200);
    let third = granted(&mut dave, "dave");
    assert!(third["fence"].as_i64() > second["fence"].as_i64());
    line_becomes(&other, &[]);
}

#[test]
fn a_waiter_that_leaves_or_whose_wait_is_over_is_passed_over() {
    let [one, other] = two();
    let mut alice = one.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let bob = wait(&other, "bob");
    line_becomes(&one, &["bob"]);
    let mut carol = wait(&other, "carol");
    line_becomes(&one, &["bob", "carol"]);
    drop(bob);
    line_becomes(&one, &["carol"]);
    alice.release("w", &json!({})).expect(200);
    granted(&mut carol, "carol");
}

#[test]
fn a_waiter_that_asks_again_at_the_other_server_keeps_the_place() {
    let [one, other] = two();
    let mut alice = one.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let mut earlier = wait(&one, "bob");
    line_becomes(&one, &["bob"]);
    let _carol = wait(&one, "carol");
    line_becomes(&one, &["bob", "carol"]);
    let mut bob = wait(&other, "bob");
    // The earlier request is answered with the lock of the holder.
    earlier.receive("POST").unwrap().expect(409);
    assert_eq!(line(&other), ["bob", "carol"]);
    alice.release("w", &json!({})).expect(200);
    granted(&mut bob, "bob");
}

/// Two servers, of which one has stopped. Alice holds the lock of `w`; bob and carol have waited at the one that stopped.
fn after_a_stop() -> [Server; 2] {
    let [mut stops, stays] = two();
    stays.user("alice").acquire("w", &json!({})).expect(200);
    let mut waiters = ["bob", "carol"].map(|user| {
        let client = wait(&stops, user);
        eventually(|| line(&stays).last().is_some_and(|last| last == user));
        client
    });
    stops.stop();
    for waiter in &mut waiters {
        waiter.receive("POST").unwrap().expect(503);
    }
    [stops, stays]
}

#[test]
fn waiters_of_a_server_that_stops_keep_their_places_when_they_ask_again() {
    let [_stops, stays] = after_a_stop();
    let mut dave = wait(&stays, "dave");
    line_becomes(&stays, &["dave"]);
    let mut carol = wait(&stays, "carol");
    line_becomes(&stays, &["carol", "dave"]);
    stays.pass(4_999);
    let mut bob = wait(&stays, "bob");
    line_becomes(&stays, &["bob", "carol", "dave"]);
    // The places are theirs for good.
    stays.pass(5_000);
    stays.user("alice").release("w", &json!({})).expect(200);
    for (client, user) in [(&mut bob, "bob"), (&mut carol, "carol"), (&mut dave, "dave")] {
        let lock = granted(client, user);
        stays.user(user).release("w", &json!({ "fence": lock["fence"] })).expect(200);
    }
}

#[test]
fn a_waiter_that_does_not_ask_again_within_5_s_loses_the_place() {
    let [_stops, stays] = after_a_stop();
    let _dave = wait(&stays, "dave");
    line_becomes(&stays, &["dave"]);
    stays.pass(5_000);
    let _bob = wait(&stays, "bob");
    line_becomes(&stays, &["dave", "bob"]);
}

#[test]
fn waiters_that_have_not_asked_again_yet_hold_up_nobody() {
    let [_stops, stays] = after_a_stop();
    let mut dave = wait(&stays, "dave");
    line_becomes(&stays, &["dave"]);
    stays.user("alice").release("w", &json!({})).expect(200);
    granted(&mut dave, "dave");
    // They still come before waiters that have asked later.
    let _erin = wait(&stays, "erin");
    line_becomes(&stays, &["erin"]);
    let mut bob = wait(&stays, "bob");
    line_becomes(&stays, &["bob", "erin"]);
    stays.user("dave").release("w", &json!({})).expect(200);
    let fence = granted(&mut bob, "bob")["fence"].clone();
    stays.user("bob").release("w", &json!({ "fence": fence })).expect(200);
}

#[test]
fn a_lock_without_a_holder_is_free_although_waiters_may_come_back() {
    let [mut stops, stays] = after_a_stop();
    stays.user("alice").release("w", &json!({})).expect(200);
    let lock = stays.user("dave").acquire("w", &json!({})).expect(200)["lock"].clone();
    let _carol = wait(&stays, "carol");
    // The server that has stopped is there again, as the only one would be.
    stops.start_again();
    let _bob = wait(&stops, "bob");
    line_becomes(&stays, &["bob", "carol"]);
    assert_eq!(stops.client().lock("w"), lock);
}

#[test]
fn locks_and_fences_stay_when_a_server_stops() {
    let [mut one, other] = two();
    let lock = one.user("alice").acquire("w", &json!({})).expect(200)["lock"].clone();
    one.stop();
    assert_eq!(other.client().lock("w"), lock);
    other.user("alice").heartbeat("w", &json!({ "fence": lock["fence"] })).expect(200);
    one.start_again();
    one.user("bob").acquire("w", &json!({})).expect(409);
}

/// The name of the database in an address.
fn database(url: &Secret) -> &str {
    url.as_str().rsplit_once('/').unwrap().1
}

#[track_caller]
fn sql(url: &Secret, sql: &str) -> String {
    Cluster::of_this_process().sql(database(url), sql).trim().to_owned()
}

#[test]
fn after_a_failover_that_lost_commits_a_lease_is_acquired_again() {
    let url = new_database();
    let server = node(&url, |_| {});
    let mut alice = server.user("alice");
    let before = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    // Of the same user, by a request that names no lease.
    alice.heartbeat("w", &json!({})).expect(200);
    // What is known is another timeline than that of PostgreSQL.
    sql(&url, "UPDATE meta SET timeline = '00000000'");
    let new = server.client().lock("w")["fence"].as_i64().unwrap();
    for claim in [json!({}), json!({ "fence": before }), json!({ "fence": new })] {
        alice.heartbeat("w", &claim).refused(404, "lock_not_found");
    }
    server.user("bob").heartbeat("w", &json!({})).expect(403);
    server.user("bob").acquire("w", &json!({})).refused(409, "lock_held");
    let again = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    assert!(again > before);
    alice.heartbeat("w", &json!({})).expect(200);
    alice.heartbeat("w", &json!({ "fence": again })).expect(200);
}

/// Each combination: whether the commit reached PostgreSQL, and whether it can be asked what became of it.
const DOUBTS: [(bool, bool); 4] = [(true, true), (false, true), (true, false), (false, false)];

#[test]
fn a_commit_in_doubt_is_answered_as_it_went() {
    let url = new_database();
    let proxy = Proxy::before(Cluster::of_this_process());
    let server = node(&proxy.url(database(&url)), |_| {});
    let holds =
        |workspace: &str| sql(&url, &format!("SELECT fence FROM locks WHERE workspace_id = '{workspace}'"));
    let told = |workspace: &str| {
        sql(
            &url,
            &format!(
                "SELECT string_agg(type, ' ' ORDER BY revision) FROM events WHERE workspace_id = '{workspace}'"
            ),
        )
    };
    for (is_carried_out, can_be_asked) in DOUBTS {
        let workspace = format!("doubt-{is_carried_out}-{can_be_asked}");
        let case = format!("carried out: {is_carried_out}, can be asked: {can_be_asked}");
        let in_doubt =
            || proxy.cut(Cut { workspace: workspace.clone(), is_carried_out, is_away_then: !can_be_asked });
        let mut alice = server.user("alice");
        in_doubt();
        let mut answer = alice.acquire(&workspace, &json!({}));
        assert!(proxy.has_cut(), "{case}: {}", answer.text());
        if !can_be_asked {
            // Nobody knows, and the client is told so. What it repeats is done once.
            assert_eq!(answer.status, 503, "{case}");
            assert_eq!(holds(&workspace).is_empty(), !is_carried_out, "{case}");
            proxy.go_on();
            eventually(|| {
                answer = alice.acquire(&workspace, &json!({}));
                answer.status != 503
            });
        }
        let lock = answer.expect(200)["lock"].clone();
        assert_eq!(holds(&workspace), lock["fence"].to_string(), "{case}");
        assert_eq!(told(&workspace), "lock.acquired", "{case}");
        in_doubt();
        let release = json!({ "fence": lock["fence"] });
        let mut answer = alice.release(&workspace, &release);
        assert!(proxy.has_cut(), "{case}: {}", answer.text());
        if !can_be_asked {
            assert_eq!(answer.status, 503, "{case}");
            assert_eq!(holds(&workspace).is_empty(), is_carried_out, "{case}");
            proxy.go_on();
            eventually(|| {
                answer = alice.release(&workspace, &release);
                answer.status != 503
            });
        }
        answer.expect(200);
        assert_eq!(holds(&workspace), "", "{case}");
        assert_eq!(told(&workspace), "lock.acquired lock.released", "{case}");
    }
}

#[test]
fn a_member_costs_no_round_trip_more_than_others() {
    let url = new_database();
    let proxy = Proxy::before(Cluster::of_this_process());
    let through_proxy = proxy.url(database(&url));
    for membership in [Membership::Open, Membership::Enforced] {
        let server = node(&through_proxy, |config| {
            config.workspaces.membership = membership;
            config.auth.mode = AuthMode::Token;
        });
        let workspace = format!("counted-{membership:?}");
        sql(&url, &format!("INSERT INTO workspaces VALUES ('{workspace}', NULL, 0)"));
        for user in ["alice", "bob"] {
            sql(&url, &format!("INSERT INTO members VALUES ('{workspace}', '{user}', 'editor')"));
        }
        let mut alice = server.with_token(Scope::User, Some("alice"));
        let mut bob = server.with_token(Scope::User, Some("bob"));
        // The statements of the first ones are prepared.
        let mut counted = |work: &mut dyn FnMut(&mut Client)| {
            proxy.round_trips(&workspace, || (0..5).for_each(|_| work(&mut alice)))
        };
        let mut fence = Value::Null;
        let acquires = counted(&mut |alice| {
            fence = alice.acquire(&workspace, &json!({})).expect(200)["lock"]["fence"].clone();
        });
        let heartbeats = counted(&mut |alice| {
            alice.heartbeat(&workspace, &json!({ "fence": fence })).expect(200);
        });
        let refused = counted(&mut |_| {
            bob.acquire(&workspace, &json!({})).refused(409, "lock_held");
        });
        assert_eq!((acquires, heartbeats, refused), (2, 2, 2), "{membership:?}");
    }
}
