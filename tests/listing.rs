//! Listing locks: each page has the right locks and limited cost.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use common::Server;
use lockhouse::domain::UserId;
use lockhouse::store::listing::{LockPage, LockQuery};
use rusqlite::params;

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

/// Puts a lock into the file, as a server would have.
fn insert(server: &Server, locks: &[(String, &str, bool)]) {
    let now = server.running().service().clock().now().0;
    let mut sql = server.sql();
    let all = sql.transaction().unwrap();
    for (fence, (id, user_id, lives)) in (1..).zip(locks) {
        let end = if *lives { now + 600_000 } else { now - 1 };
        all.prepare_cached(
            "INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms, run, check_at)
             VALUES (?1, ?2, ?3, ?4, ?4, ?4, ?5, 600000, (SELECT run FROM meta), ?5)",
        )
        .unwrap()
        .execute(params![id, user_id, fence, now - 1_000, end])
        .unwrap();
    }
    all.commit().unwrap();
}

fn page(server: &Server, listing: &LockQuery) -> (Vec<String>, Option<String>) {
    let LockPage { locks, next } = server.running().service().locks(listing).unwrap().value;
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
    let sql = server.sql();
    for (id, _) in locks.iter().filter(|(_, (_, _, is_member))| *is_member) {
        sql.execute("INSERT INTO workspaces VALUES (?1, NULL, 0)", [id]).unwrap();
        sql.execute("INSERT INTO members VALUES (?1, 'dora', 'viewer')", [id]).unwrap();
    }
    sql.execute_batch(
        "INSERT INTO workspaces VALUES ('a1', NULL, 0); INSERT INTO members VALUES ('a1', 'dora', 'admin')",
    )
    .unwrap();
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
                for limit in [1, 7, 500] {
                    let listing = LockQuery {
                        user_id: of.map(user),
                        prefix: prefix.clone(),
                        after: after.to_owned(),
                        limit,
                        member: member.map(user),
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
    let sql = server.sql();
    sql.execute_batch(
        "INSERT INTO workspaces SELECT workspace_id, NULL, 0 FROM locks;
         INSERT INTO members SELECT workspace_id, 'dora', 'viewer' FROM workspaces;",
    )
    .unwrap();
    for (of, member) in
        [(None, None), (Some("alice"), None), (None, Some("dora")), (Some("alice"), Some("dora"))]
    {
        let listing = LockQuery {
            user_id: of.map(user),
            prefix: String::new(),
            after: String::new(),
            limit: 10,
            member: member.map(user),
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
