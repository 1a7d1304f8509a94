//! Baselines that Lockhouse is compared with (see `benches/http.sh`):
//!
//! - `raw`: `tiny_http` without the event loop, four threads, a constant answer of the size of a heartbeat's answer.
//! - `event-loop`: the event loop and `tiny_http` with the same constant answer. `/slow` takes 200 ms. `/hold` is never
//!   answered.
//! - `commit`: COUNT transactions that renew one lease, without HTTP, on the same schema with the same pragmas.
//! - `pooled`: the simple design: 64 threads and a pool of 64 connections; each request is an IMMEDIATE transaction, on
//!   the same schema with the same pragmas.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark may panic and reads the clock"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockhouse::api;
use lockhouse::api::operation::{Answer as Reply, Handler, Right, Route, StoreAccess};
use lockhouse::api::responder::Responder;
use lockhouse::cli::serve::start_on;
use lockhouse::config::Config;
use lockhouse::time::Clock;
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
        ["event-loop", address] => event_loop(address),
        ["commit", database, count] => commit(database, count.parse().unwrap()),
        _ => eprintln!(
            "baselines raw ADDRESS:PORT | event-loop ADDRESS:PORT | pooled ADDRESS:PORT DATABASE | commit DATABASE COUNT"
        ),
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

/// The responders of `/hold`, which are never used.
static PARKED: Mutex<Vec<Responder>> = Mutex::new(Vec::new());

const fn route(path: &'static str, store: StoreAccess, handler: Handler) -> Route {
    Route::new("GET", path, "bench", handler).allow(Right::Open, store)
}

const BENCH_ROUTES: &[Route] = &[
    route("/healthz", StoreAccess::None, |_, _| Ok(Reply::Now(constant()))),
    route("/slow", StoreAccess::Reads, |_, _| {
        std::thread::sleep(Duration::from_millis(200));
        Ok(Reply::Now(constant()))
    }),
    route("/hold", StoreAccess::None, |_, _| {
        Ok(Reply::later(|reply| PARKED.lock().unwrap().push(reply.park())))
    }),
];

fn constant() -> api::exchange::Response {
    api::exchange::Response::of(200, "text/plain; charset=UTF-8", ANSWER.as_bytes().to_vec())
}

fn event_loop(address: &str) {
    let directory = std::env::temp_dir().join(format!("baselines-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let mut config = Config::default();
    config.server.listen = address.parse().unwrap();
    config.database.path = directory.join("lockhouse.db");
    // Logging stays off, because the `raw` baseline does not log either.
    let running = start_on(&config, Vec::new(), Clock::system(), BENCH_ROUTES).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    println!("{}", running.addresses()[0]);
    loop {
        std::thread::park();
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
    connection.execute("INSERT INTO meta (id, last_fence, last_revision, last_seen_at, wall_offset_ms) VALUES (1, 0, 0, 0, 0)", []).unwrap();
    pool
}

/// Renews one lease `count` times, each in its own transaction.
fn commit(database: &str, count: u32) {
    let mut connection = pool(database).get().unwrap();
    for expires_at in 0..count {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        transaction
            .prepare_cached(
                "INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms)
                 VALUES ('w', 'bench', 1, 0, 0, 0, ?1, 600000)
                 ON CONFLICT (workspace_id) DO UPDATE SET renewed_at = ?1, expires_at = ?1",
            )
            .unwrap()
            .execute([expires_at])
            .unwrap();
        transaction.commit().unwrap();
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Answers `/api/v1/workspaces/NAME/lock` and `…/lock/heartbeat`, assuming that the caller holds the lock.
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
                .prepare_cached("INSERT INTO locks (workspace_id, user_id, fence, acquired_at, renewed_at, last_active_at, expires_at, ttl_ms) VALUES (?1, 'bench', ?2, ?3, ?3, ?3, ?4, 600000)")
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
