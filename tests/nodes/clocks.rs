//! The clock of the database is set, while servers run and while one starts.

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::postgres::Cluster;
use crate::common::process::{Process, faketime_library};
use crate::world::{fence, node};

fn left_ms(node: &Process, workspace: &str) -> i64 {
    node.user("auditor").lock(workspace)["expires_in_ms"]
        .as_i64()
        .unwrap_or_else(|| panic!("the lock is gone"))
}

#[test]
fn a_clock_of_the_database_that_is_set_ends_no_lease_and_lengthens_none() {
    let Some(library) = faketime_library() else { return };
    let cluster = Cluster::with_clock(&library);
    cluster.sql("postgres", "CREATE DATABASE locks");
    let url = cluster.url("locks");
    let first = node(&url, &[]);
    let mut alice = first.user("alice");
    let mut highest = fence(&alice.acquire("w", &json!({})).expect(200));
    let mut others = Vec::new();
    let clock = "SELECT extract(epoch FROM clock_timestamp())::bigint";
    for (round, by) in ["+3600s", "+0s", "-3600s", "+0s"].into_iter().enumerate() {
        alice.heartbeat("w", &json!({ "fence": highest })).expect(200);
        let before = cluster.sql("locks", clock).trim().parse::<i64>().unwrap();
        cluster.set_clock(by);
        // Every second time a server that starts meets it first.
        if round % 2 == 0 {
            others.push(node(&url, &[]));
        }
        let mut corrected = Value::Null;
        eventually(|| {
            let answer = first.user("bob").acquire("w", &json!({}));
            corrected = answer.json();
            assert_eq!(answer.status, 409, "{by}: {}", answer.text());
            let shown =
                chrono::DateTime::parse_from_rfc3339(corrected["lock"]["expires_at"].as_str().unwrap());
            // The shown time moves along.
            let now = cluster.sql("locks", clock).trim().parse::<i64>().unwrap();
            assert!((now - before).abs() > 3_000, "the clock was not set: {before} {now}");
            let from_now = shown.unwrap().timestamp() - now;
            (0..=605).contains(&from_now)
        });
        for node in others.iter().chain([&first]) {
            let left = left_ms(node, "w");
            assert!((500_000..=600_000).contains(&left), "{by}: {left} ms are left");
        }
        alice.heartbeat("w", &json!({ "fence": highest })).expect(200);
        let other = format!("other-{round}");
        let new = fence(&others[0].user("carol").acquire(&other, &json!({})).expect(200));
        assert!(new > highest);
        alice.delete("/api/v1/workspaces/w/lock").expect(200);
        highest = fence(&alice.acquire("w", &json!({})).expect(200));
        assert!(highest > new, "{by}: a fence falls");
    }
    // Time goes on: a short lease ends.
    others[0].user("dora").acquire("short", &json!({ "ttl_ms": 1_000 })).expect(200);
    eventually(|| first.user("bob").acquire("short", &json!({})).status == 200);
    let corrections: u64 = [&first, &others[0], &others[1]]
        .map(|node| {
            let metrics = node.user("auditor").get("/metrics");
            let line = metrics
                .text()
                .lines()
                .find_map(|line| line.strip_prefix("lockhouse_clock_corrections_total "));
            line.unwrap().parse::<u64>().unwrap()
        })
        .iter()
        .sum();
    assert_eq!(corrections, 4, "one server corrects each step, and the others follow");
}
