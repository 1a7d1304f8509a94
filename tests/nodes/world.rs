//! Servers on one database, and clients that go on with another server when one does not answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockhouse::config::Secret;
use lockhouse::time::Clock;
use serde_json::{Value, json};

use crate::common::process::{Process, lockhouse};
use crate::common::{Answer, Client};

/// The value for CI, or the one of `SLOW_TESTS=1`.
pub fn usual_or_slow<T>(usual: T, slow: T) -> T {
    if std::env::var_os("SLOW_TESTS").is_some() { slow } else { usual }
}

/// Starts a server on the database.
pub fn node(url: &Secret, settings: &[(&str, &str)]) -> Process {
    let mut command = lockhouse();
    command.env("LOCKHOUSE_DATABASE_URL", url.as_str()).env("LOCKHOUSE_LOG_LEVEL", "warn");
    command.envs(settings.iter().copied());
    Process::start(&mut command, "/nonexistent/lockhouse.db".as_ref())
}

/// Measures how long something takes.
pub struct Stopwatch(Clock);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Clock::system())
    }

    /// Milliseconds since the start.
    pub fn ms(&self) -> u128 {
        self.0.monotonic().as_millis()
    }
}

/// A client of a load balancer: it keeps to one server, and goes on with the next one if the connection fails.
pub struct Roamer<'a> {
    addresses: &'a Mutex<Vec<SocketAddr>>,
    at: usize,
    user: String,
    client: Option<Client>,
    /// How often a connection failed.
    pub failed: usize,
}

impl<'a> Roamer<'a> {
    pub fn new(addresses: &'a Mutex<Vec<SocketAddr>>, at: usize, user: &str) -> Self {
        Self { addresses, at, user: user.to_owned(), client: None, failed: 0 }
    }

    fn try_once(&mut self, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        if self.client.is_none() {
            let addresses = self.addresses.lock().unwrap().clone();
            let client = Client::try_connect(addresses[self.at % addresses.len()])?;
            self.client = Some(client.by(&self.user));
        }
        let client = self.client.as_mut().unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers: &[(&str, &str)] =
            if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        let answer = client.try_request(method, path, headers, body.as_bytes())?;
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.client = None;
        }
        Ok(answer)
    }

    /// Sends the request to the next servers until one answers.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let began = Stopwatch::start();
        loop {
            match self.try_once(method, path, body) {
                Ok(answer) => return answer,
                Err(error) => {
                    self.client = None;
                    self.at += 1;
                    self.failed += 1;
                    assert!(began.ms() < 60_000, "nobody answers {method} {path}: {error}");
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
    }

    /// The same, until the answer is not 503.
    #[track_caller]
    pub fn insist(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let began = Stopwatch::start();
        loop {
            let answer = self.request(method, path, body);
            if answer.status != 503 {
                return answer;
            }
            assert!(began.ms() < 90_000, "{method} {path}: {}", answer.text());
            self.at += 1;
            self.client = None;
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

pub fn lock_path(workspace: &str) -> String {
    format!("/api/v1/workspaces/{workspace}/lock")
}

/// The fence of a lease in an answer.
pub fn fence(answer: &Value) -> i64 {
    answer["lock"]["fence"]
        .as_i64()
        .or(answer["fence"].as_i64())
        .unwrap_or_else(|| panic!("no fence in {answer}"))
}

/// A workspace as its users see it: who holds it, and the highest fence.
#[derive(Default)]
pub struct Seen {
    holder: AtomicUsize,
    highest: Mutex<i64>,
}

impl Seen {
    /// `user` has got the lock with this fence. Nobody else may have it, and the fence is new.
    #[track_caller]
    pub fn got(&self, user: usize, fence: i64) {
        let before = self.holder.swap(user, Ordering::SeqCst);
        assert_eq!(before, 0, "user {user} has got what user {before} holds");
        let mut highest = self.highest.lock().unwrap();
        assert!(*highest < fence, "the fence {fence} after {highest}");
        *highest = fence;
    }

    /// `user` is about to release it.
    #[track_caller]
    pub fn gives(&self, user: usize) {
        assert_eq!(self.holder.swap(0, Ordering::SeqCst), user);
    }
}

/// Acquires until somebody else does not have it, then releases. `user` counts from 1.
pub fn take_turn(client: &mut Roamer<'_>, user: usize, workspace: &str, seen: &Seen) -> bool {
    let path = lock_path(workspace);
    let answer = client.request("POST", &path, &Value::Null);
    match answer.status {
        200 => {}
        409 => return false,
        _ => panic!("{} {}", answer.status, answer.text()),
    }
    let fence = fence(&answer.json());
    seen.got(user, fence);
    client.request("POST", &format!("{path}/heartbeat"), &json!({ "fence": fence })).expect(200);
    seen.gives(user);
    client.request("POST", &format!("{path}/release"), &json!({ "fence": fence })).expect(200);
    true
}
