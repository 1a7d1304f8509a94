//! What Lockhouse is measured against (see `benches/http.sh`):
//!
//! - `raw`: `tiny_http` alone, four threads, a constant answer as large as that to a heartbeat.
//! - `pooled`: the obvious way to do it: 64 threads, a pool of 64 connections, each request in an IMMEDIATE
//!   transaction of its own, on the same schema with the same pragmas.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark may panic and reads the clock"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tiny_http::{Method, Request, Response, Server};

const ANSWER: &str = r#"{"success":true,"expires_at":"2026-11-23T10:51:43.120Z","expires_in_ms":600000,"fence":1795400533125001,"knock":null}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["raw", address] => serve(address, 4, |_| (200, ANSWER.to_owned())),
        ["pooled", address, database] => {
            let pool = pool(database);
            serve(address, 64, move |request| pooled(&mut pool.get().unwrap(), request));
        }
        _ => eprintln!("baselines raw ADDRESS:PORT | pooled ADDRESS:PORT DATABASE"),
    }
}

fn serve(address: &str, threads: usize, answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) {
    let server = Arc::new(Server::http(address).unwrap());
    let answer = Arc::new(answer);
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let (server, answer) = (Arc::clone(&server), Arc::clone(&answer));
            std::thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    let (status, body) = answer(&request);
                    let _ = request.respond(Response::from_string(body).with_status_code(status));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn pool(database: &str) -> r2d2::Pool<SqliteConnectionManager> {
    let manager = SqliteConnectionManager::file(database).with_init(|connection| {
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")
    });
    let pool = r2d2::Pool::builder().max_size(64).test_on_check_out(false).build(manager).unwrap();
    let connection = pool.get().unwrap();
    connection.execute_batch(include_str!("../schema.sql")).unwrap();
    connection.execute("INSERT INTO meta VALUES (1, 0, 0, 0, 0)", []).unwrap();
    pool
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// `/api/v1/workspaces/NAME/lock` and `…/lock/heartbeat`, for a user who holds what they ask for.
fn pooled(connection: &mut Connection, request: &Request) -> (u16, String) {
    let workspace = request.url().split('/').nth(4).unwrap_or_default().to_owned();
    let now = now_ms();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let held = transaction
        .prepare_cached("SELECT fence, expires_at FROM locks WHERE workspace_id = ?1")
        .unwrap()
        .query_row([&workspace], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .optional()
        .unwrap();
    match (request.method(), held) {
        (Method::Post, Some(_)) => {
            transaction
                .prepare_cached("UPDATE locks SET renewed_at = ?2, expires_at = ?3 WHERE workspace_id = ?1")
                .unwrap()
                .execute(params![workspace, now, now + 600_000])
                .unwrap();
        }
        (Method::Post, None) => {
            let fence = now * 1_000;
            transaction
                .prepare_cached("INSERT INTO locks VALUES (?1, 'bench', NULL, NULL, ?2, ?3, ?3, ?3, ?4, 600000, NULL, '{}')")
                .unwrap()
                .execute(params![workspace, fence, now, now + 600_000])
                .unwrap();
            event(&transaction, &workspace, "lock.acquired", now, fence);
        }
        (_, Some((fence, _))) => {
            transaction
                .prepare_cached("DELETE FROM locks WHERE workspace_id = ?1")
                .unwrap()
                .execute([&workspace])
                .unwrap();
            event(&transaction, &workspace, "lock.released", now, fence);
        }
        (_, None) => {}
    }
    transaction.commit().unwrap();
    (200, ANSWER.to_owned())
}

fn event(connection: &Connection, workspace: &str, name: &str, now: i64, fence: i64) {
    connection
        .prepare_cached("UPDATE meta SET last_revision = last_revision + 1, last_fence = max(last_fence, ?1)")
        .unwrap()
        .execute([fence])
        .unwrap();
    connection
        .prepare_cached(
            "INSERT INTO events (revision, workspace_id, type, at, lease_at, user_id, fence)
             SELECT last_revision, ?1, ?2, ?3, ?3, 'bench', ?4 FROM meta",
        )
        .unwrap()
        .execute(params![workspace, name, now, fence])
        .unwrap();
}
