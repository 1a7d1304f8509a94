//! Listing locks and history: each page has the right entries and limited cost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use common::Server;
use lockhouse::domain::UserId;
use lockhouse::store::listing::{FoundLocks, LockQuery};
use serde_json::{Value, json};

/// Ids that stand close to each other, at the ends of what a text can be.
const IDS: [&str; 14] = [
    "a",
    "a\u{7f}",
    "a\u{80}",
    "a b",
    "a/",
    "a/b",
    "a0",
    "b",
    "é",
    "\u{d7ff}",
    "\u{e000}",
    "\u{10ffff}",
    "\u{10ffff}\u{10ffff}",
    "a\u{10ffff}",
];

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// Puts locks into the database, as a server would have.
fn insert(server: &Server, locks: &[(String, &str, bool)]) {
    let now = server.running().service().clock().now().0;
    let rows = (1..).zip(locks).map(|(fence, (id, user_id, lives))| {
        let (since, end) = (now - 1_000, if *lives { now + 600_000 } else { now - 1 });
        format!(
            "('{id}', '{user_id}', {fence}, {since}, {since}, {since}, {end}, 600000, '{{}}', 0, 0, (SELECT run FROM meta), {end}, 'edit')"
        )
    });
    server.query(&format!(
        "INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, metadata, given, knocks, run, check_at, kind)
         VALUES {}",
        rows.collect::<Vec<_>>().join(", ")
    ));
}

fn page(server: &Server, listing: &LockQuery) -> (Vec<String>, Option<String>) {
    let FoundLocks { locks, next } = server.running().service().locks(listing).unwrap().value;
    (locks.iter().map(|lock| lock.workspace_id.as_str().to_owned()).collect(), next)
}

/// All pages.
fn listed(server: &Server, mut listing: LockQuery) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let (ids, next) = page(server, &listing);
        assert!(ids.len() <= listing.limit);
        found.extend(ids);
        let Some(next) = next else { return found };
        assert!(next > listing.after, "each page begins after the one before");
        listing.after = next;
    }
}

#[test]
fn listings_match_their_filters_in_order() {
    let server = Server::start();
    let mut locks = BTreeMap::new();
    for (number, id) in (0_usize..).zip(IDS.iter().flat_map(|head| IDS.map(|tail| format!("{head}{tail}")))) {
        locks.insert(id, (["alice", "bob", "carol"][number % 3], number % 5 > 0, number % 2 > 0));
    }
    let rows: Vec<_> = locks.iter().map(|(id, (user, lives, _))| (id.clone(), *user, *lives)).collect();
    insert(&server, &rows);
    let doras = locks.iter().filter(|(_, (_, _, is_member))| *is_member);
    let doras = doras.map(|(id, _)| (id.as_str(), "viewer")).chain([("a1", "admin")]);
    let (workspaces, members): (Vec<_>, Vec<_>) =
        doras.map(|(id, role)| (format!("('{id}', NULL, 0)"), format!("('{id}', 'dora', '{role}')"))).unzip();
    server.query(&format!(
        "INSERT INTO workspaces VALUES {}; INSERT INTO members VALUES {};",
        workspaces.join(", "),
        members.join(", ")
    ));
    let prefixes = ["", "zzz"].into_iter().chain(IDS).map(str::to_owned);
    for prefix in prefixes.chain(IDS.map(|id| format!("{id}a"))) {
        for after in ["", "a", "a/", "b", "\u{10ffff}", "zzz"] {
            for (of, member) in
                [(None, None), (Some("bob"), None), (None, Some("dora")), (Some("bob"), Some("dora"))]
            {
                let expected: Vec<_> = locks
                    .iter()
                    .filter(|(id, (holder, lives, is_member))| {
                        *lives
                            && id.starts_with(&prefix)
                            && id.as_str() > after
                            && of.is_none_or(|of| of == *holder)
                            && (member.is_none() || *is_member)
                    })
                    .map(|(id, _)| id.clone())
                    .collect();
                // A hundred pages of one lock show no more than twenty.
                let limits: &[usize] = if expected.len() > 20 { &[7, 500] } else { &[1, 7, 500] };
                for &limit in limits {
                    let listing = LockQuery {
                        kinds: Vec::new(),
                        user_id: of.map(user),
                        prefix: prefix.clone(),
                        after: after.to_owned(),
                        limit,
                        member: member.map(user),
                        ..LockQuery::default()
                    };
                    assert_eq!(listed(&server, listing.clone()), expected, "{listing:?}");
                }
            }
        }
    }
}

#[test]
fn a_page_reads_a_limited_number_of_rows() {
    let server = Server::start();
    let mut rows: Vec<_> = (0..6_000).map(|number| (format!("w{number:04}"), "alice", false)).collect();
    rows.push(("x".to_owned(), "alice", true));
    insert(&server, &rows);
    server.query(
        "INSERT INTO workspaces SELECT workspace_id, NULL, 0 FROM locks;
         INSERT INTO members SELECT workspace_id, 'dora', 'viewer' FROM workspaces;",
    );
    for (of, member) in
        [(None, None), (Some("alice"), None), (None, Some("dora")), (Some("alice"), Some("dora"))]
    {
        let listing = LockQuery {
            kinds: Vec::new(),
            user_id: of.map(user),
            limit: 10,
            member: member.map(user),
            ..LockQuery::default()
        };
        let (ids, next) = page(&server, &listing);
        assert_eq!((ids.len(), next.as_deref()), (0, Some("w1999")), "after 2,000 rows there is a cursor");
        assert_eq!(listed(&server, listing), ["x"]);
    }
    let mut alice = server.user("alice");
    let all = alice.get("/api/v1/locks?cursor=w5000").expect(200);
    assert_eq!(all["locks"][0]["workspace_id"], "x");
    assert_eq!(all["next_cursor"], serde_json::Value::Null);
}

#[test]
fn live_locks_are_listed_in_pages_by_prefix_and_user() {
    let server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    bob.acquire("gone", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(1_000);
    for name in ["team%2Fa", "team%2Fb", "team%2Fc", "zebra", "team"] {
        alice.acquire(name, &json!({})).expect(200);
    }
    bob.acquire("team%2Fd", &json!({})).expect(200);
    let mut all = |query: &str| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        for _ in 0..10 {
            let page = bob.get(&format!("/api/v1/locks?limit=2{query}{cursor}")).expect(200);
            let locks = page["locks"].as_array().unwrap();
            assert!(locks.len() <= 2);
            found.extend(locks.iter().map(|lock| lock["workspace_id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
                None => return found,
            }
        }
        panic!("the pages do not end");
    };
    assert_eq!(all(""), ["team", "team/a", "team/b", "team/c", "team/d", "zebra"]);
    assert_eq!(all("&prefix=team%2F"), ["team/a", "team/b", "team/c", "team/d"]);
    assert_eq!(all("&prefix=team%2F&user_id=alice"), ["team/a", "team/b", "team/c"]);
    assert_eq!(all("&user_id=carol"), Vec::<String>::new());
    assert_eq!(all("&prefix=team%2Fd"), ["team/d"]);
}

#[test]
fn the_history_is_paged_and_shows_expiries_not_yet_swept() {
    let server = Server::start();
    let mut alice = server.user("alice");
    for _ in 0..3 {
        alice.acquire("w", &json!({})).expect(200);
        alice.delete("/api/v1/workspaces/w/lock").expect(200);
    }
    alice.acquire("w", &json!({})).expect(200);
    server.pass(600_000);
    let first = alice.get("/api/v1/workspaces/w/history?limit=5").expect(200);
    assert_eq!(first["events"][0]["type"], "lock.expired");
    assert_eq!(first["events"][0]["at"], "2026-11-23T12:10:00.000Z");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = alice.get(&format!("/api/v1/workspaces/w/history?limit=5&cursor={cursor}")).expect(200);
    let revisions: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["events"].as_array().unwrap())
        .map(|event| event["revision"].as_i64().unwrap())
        .collect();
    assert_eq!(revisions, [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(alice.get("/api/v1/workspaces/none/history").expect(200)["events"], json!([]));
}
