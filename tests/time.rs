//! Time: changes of the wall clock, while the server runs and while it is stopped, do not change the remaining lease time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Server, postgres};
use lockhouse::config::Secret;
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;

#[test]
fn setting_the_clock_changes_only_shown_timestamps() {
    for by in [HOUR, -HOUR, 400 * 24 * HOUR, -400 * 24 * HOUR] {
        let server = Server::start();
        let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
        let before = alice.acquire("w", &json!({})).expect(200)["lock"].clone();
        server.pass(60_000);
        server.clock.set_wall_by(by);
        bob.acquire("w", &json!({})).refused(409, "lock_held");
        let shown = alice.lock("w");
        assert_eq!(shown["expires_in_ms"], 540_000, "what is left stays ({by} ms)");
        let at = |instant: &Value| {
            chrono::DateTime::parse_from_rfc3339(instant.as_str().unwrap()).unwrap().timestamp_millis()
        };
        assert_eq!(at(&shown["expires_at"]), at(&before["expires_at"]) + by, "what is shown is true again");
        let next = bob.acquire("other", &json!({})).expect(200)["lock"].clone();
        assert!(next["fence"].as_i64() > before["fence"].as_i64(), "a fence never falls ({by} ms)");
        server.pass(540_000 - 1);
        bob.acquire("w", &json!({})).refused(409, "lock_held");
        server.pass(1);
        assert_eq!(bob.acquire("w", &json!({})).expect(200)["outcome"], "acquired");
        assert!(bob.get("/metrics").text().contains("lockhouse_clock_corrections_total 1\n"));
    }
}

#[test]
fn small_clock_drift_is_ignored() {
    let server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    server.clock.set_wall_by(1_000);
    server.sweep();
    assert_eq!(alice.lock("w")["expires_at"], "2026-11-23T12:10:00.000Z");
    assert!(alice.get("/metrics").text().contains("lockhouse_clock_corrections_total 0\n"));
}

#[test]
fn downtime_counts_except_for_the_restart_grace() {
    let mut server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("long", &json!({})).expect(200);
    let short = alice.acquire("short", &json!({ "ttl_ms": 20_000 })).expect(200)["lock"]["fence"].clone();
    alice.acquire("over", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(1_000);
    server.stop();
    server.pass(60_000);
    server.start_again();
    let mut alice = server.user("alice");
    assert_eq!(alice.lock("long")["expires_in_ms"], 600_000 - 61_000);
    assert_eq!(alice.lock("short")["expires_in_ms"], 30_000, "its holder had nobody to send a heartbeat to");
    assert_eq!(alice.lock("over"), Value::Null, "what was over when the server stopped stays over");
    server.pass(29_999);
    alice.heartbeat("short", &json!({ "fence": short })).expect(200);
    assert_eq!(alice.lock("short")["expires_in_ms"], 20_000);
    server.pass(20_000);
    assert_eq!(alice.lock("short"), Value::Null);
}

#[test]
fn the_restart_grace_is_configurable() {
    let mut server = Server::with(|config| config.locks.restart_grace = Duration::from_secs(5));
    server.user("alice").acquire("w", &json!({ "ttl_ms": 10_000 })).expect(200);
    server.stop();
    server.pass(3_600_000);
    server.start_again();
    assert_eq!(server.user("alice").lock("w")["expires_in_ms"], 5_000);
}

#[test]
fn a_clock_set_back_during_downtime_ends_no_lease() {
    let mut server = Server::start();
    let before = server.user("alice").acquire("w", &json!({})).expect(200)["lock"].clone();
    server.pass(60_000);
    server.stop();
    server.clock.set_wall_by(-24 * HOUR);
    server.start_again();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    let shown = alice.lock("w");
    assert_eq!(shown["expires_in_ms"], 540_000);
    assert_eq!(shown["expires_at"], "2026-11-22T12:10:00.000Z");
    let taken = bob.acquire("w", &json!({ "force": true })).expect(200)["lock"].clone();
    assert!(
        taken["fence"].as_i64() > before["fence"].as_i64(),
        "the fence goes on though the clock went back"
    );
    // Corrected while the server is stopped: it counts as a day. Live leases have the grace.
    server.stop();
    server.clock.set_wall_by(24 * HOUR);
    server.start_again();
    assert_eq!(server.user("bob").lock("w")["expires_in_ms"], 30_000);
}

#[test]
fn a_clock_correction_survives_a_restart() {
    let mut server = Server::start();
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.clock.set_wall_by(HOUR);
    server.sweep();
    server.restart();
    let shown = server.user("alice").lock("w");
    assert_eq!(
        (&shown["expires_in_ms"], &shown["expires_at"]),
        (&json!(600_000), &json!("2026-11-23T13:10:00.000Z"))
    );
}

/// A copy of a database.
enum Backup {
    File(PathBuf),
    Postgres(Secret),
}

fn back_up(server: &Server) -> Backup {
    if let Some(url) = &server.config.database.url {
        return Backup::Postgres(postgres::copy_of(url));
    }
    let backup = server.database().with_extension("backup");
    server.sql().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    Backup::File(backup)
}

/// Stops the server, and puts the backup, or an empty database, in the place of its database.
fn stop_and_restore(server: &mut Server, backup: Option<&Backup>) {
    server.stop();
    match backup {
        Some(Backup::Postgres(copy)) => server.config.database.url = Some(copy.clone()),
        Some(Backup::File(file)) => {
            std::fs::copy(file, server.database()).unwrap();
        }
        None if server.config.database.url.is_some() => {
            server.config.database.url = Some(postgres::new_database());
        }
        None => std::fs::remove_file(server.database()).unwrap(),
    }
    // PostgreSQL takes a shorter time for a pause of this node.
    server.pass(3_000);
}

#[test]
fn fences_grow_after_database_loss_or_rollback() {
    let mut server = Server::start();
    let mut alice = server.user("alice");
    alice.acquire("w", &json!({})).expect(200);
    let backup = back_up(&server);
    let mut highest = 0;
    for _ in 0..3 {
        server.pass(1);
        alice.delete("/api/v1/workspaces/w/lock").expect(200);
        highest = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64().unwrap();
    }
    for older in [Some(&backup), None] {
        stop_and_restore(&mut server, older);
        server.start_again();
        let fence = server.user("bob").acquire("w", &json!({ "force": true })).expect(200)["lock"]["fence"]
            .as_i64()
            .unwrap();
        assert!(fence > highest, "{fence} after {highest}");
        highest = fence;
    }
}

#[test]
fn leases_ended_before_a_restart_are_not_reclaimed() {
    let mut server = Server::start();
    let alices =
        server.user("alice").acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200)["lock"]["fence"].as_i64();
    server.pass(1_000);
    server.sweep();
    let backup = back_up(&server);
    let mut bob = server.user("bob");
    let bobs = bob.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64();
    assert!(bobs > alices);
    stop_and_restore(&mut server, Some(&backup));
    server.start_again();
    let again = server.user("alice").acquire("w", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired");
    assert!(again["lock"]["fence"].as_i64() > bobs, "{again}");
}

#[test]
fn trimming_history_with_a_wrong_clock_lowers_no_fence() {
    let server = Server::with(|config| config.history.keep = Some(Duration::from_secs(3_600)));
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    server.clock.set_wall_by(400 * 24 * HOUR);
    alice.acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200);
    server.pass(1_000);
    server.sweep();
    server.clock.set_wall_by(-400 * 24 * HOUR);
    server.pass(1_000);
    server.sweep();
    assert_eq!(alice.history("w").len(), 2, "a clock that is set forgets nothing");
    let bobs = bob.acquire("w", &json!({})).expect(200)["lock"]["fence"].as_i64();
    bob.delete("/api/v1/workspaces/w/lock").expect(200);
    for _ in 0..4 {
        server.pass(1_000_000);
        server.sweep();
    }
    let again = alice.acquire("w", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired");
    assert!(again["lock"]["fence"].as_i64() > bobs);
}

#[test]
fn a_lease_can_be_reclaimed_while_its_history_is_kept() {
    for swept in [false, true] {
        let server = Server::with(|config| config.history.keep = Some(Duration::from_secs(60)));
        let mut alice = server.user("alice");
        alice.acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200);
        server.pass(61_000);
        if swept {
            server.sweep();
        }
        assert_eq!(
            alice.acquire("w", &json!({ "ttl_ms": 1_000 })).expect(200)["outcome"],
            "reclaimed",
            "{swept}"
        );
        server.pass(61_001);
        if swept {
            server.sweep();
        }
        assert_eq!(alice.acquire("w", &json!({})).expect(200)["outcome"], "acquired", "{swept}");
    }
}

#[test]
fn a_clock_set_just_before_shutdown_ends_no_lease() {
    let mut server = Server::start();
    server.user("alice").acquire("w", &json!({})).expect(200);
    server.clock.set_wall_by(HOUR);
    server.restart();
    assert_eq!(server.user("alice").lock("w")["expires_in_ms"], 600_000);
}

#[test]
fn fences_stay_safe_integers_with_a_far_future_clock() {
    let server = Server::start();
    server.clock.set_wall_by(230 * 365 * 24 * HOUR);
    let mut alice = server.user("alice");
    let fence = alice.acquire("w", &json!({})).expect(200)["lock"]["fence"].clone();
    assert!(fence.as_i64().unwrap() < 9_007_199_254_740_991, "{fence}");
    alice.heartbeat("w", &json!({ "fence": fence })).expect(200);
}

/// Restored by hand: what was locked when the backup was made is ended.
#[test]
fn a_backup_restored_as_documented_lowers_no_fence() {
    let mut server = Server::start();
    let (mut alice, mut bob) = (server.user("alice"), server.user("bob"));
    alice.acquire("w", &json!({})).expect(200);
    let backup = back_up(&server);
    server.pass(1);
    let bobs = bob.acquire("w", &json!({ "force": true })).expect(200)["lock"]["fence"].as_i64();
    stop_and_restore(&mut server, Some(&backup));
    server.query("DELETE FROM locks");
    server.start_again();
    let mut alice = server.user("alice");
    assert_eq!(alice.lock("w"), Value::Null);
    let again = alice.acquire("w", &json!({})).expect(200);
    assert_eq!(again["outcome"], "acquired");
    assert!(again["lock"]["fence"].as_i64() > bobs, "{again}");
}
