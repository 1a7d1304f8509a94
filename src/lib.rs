//! Lockhouse: a self-hosted server for workspace locks. One binary, SQLite inside, nothing else to run.
//!
//! A workspace lock is a lease. It heals itself: a holder who goes away loses it when the lease ends, because the
//! server decides, inside the transaction that reads the lock, and never because a client or a timer cleaned up.
//!
//! # Layout
//!
//! In reading order; each module uses only those above it, which `tests/architecture.rs` checks.
//!
//! | Module | What lives there |
//! | --- | --- |
//! | [`time`] | instants, durations, and the only place that reads a clock |
//! | [`error`] | what can go wrong inside; knows no HTTP |
//! | [`percent`] | percent-encoding, by one strict rule |
//! | [`lock`] | the domain; [`lock::decide`] has the rules of the product, pure |
//! | [`config`] | file + environment + flags → one checked `Config` |
//! | [`metrics`] | what is counted |
//! | [`store`] | SQLite and the only SQL: one writer with group commit, pooled readers |
//! | [`live`] | who follows the events, what is due at a time, and the one thread that sees to both |
//! | [`service`] | the use cases that HTTP, the sweeper and the command line share |
//! | [`sweeper`] | keeps the file small; nothing that a client can see depends on it |
//! | [`auth`] | who is calling: tokens, JWTs, a proxy's word, or nobody's |
//! | [`console`] | the files that a browser is served |
//! | [`http`] | the API as one table, and what carries it out; [`http::server`] is the only user of `tiny_http` |
//! | [`door`] | the clients' connections: one event loop, through which only well-formed requests go on |
//! | [`cli`] | the program: `serve`, `check`, `token` |
//!
//! The data is defined in `schema.sql`, the settings in [`config::settings()`], the API in [`http::routes`].
//!
//! # The life of a heartbeat
//!
//! The [`door`] reads it, within limits and deadlines, and sends it on in canonical form when it is complete
//! ([`door::framing`]) → [`http::server`] receives it → [`http::dispatch`] finds the operation in [`http::routes`],
//! checks who sent it ([`auth`]) and what came in ([`http::fields`]) → `http::handlers` call [`service`] → the writer's
//! queue → inside the transaction [`store::locks`] loads the lock and [`lock::decide`] decides → commit → the answer is
//! written as JSON ([`http::wire`]) and goes back through the door, which knows by its id whose it is. No step goes
//! back, and nothing is answered before it is committed.
//!
//! Whoever waits for a lock waits at the door: their place in the line is in memory ([`store::queue`]), and the
//! transaction that ends a lease gives it to the next of them ([`store::waiting`]), so that nobody comes between.
//!
//! What takes its time is put off, so that it keeps neither a thread nor the requests behind it waiting: the door keeps
//! the client's connection, and the answer follows as a letter ([`http::hold`]).

pub mod time;

pub mod error;

pub mod percent;

pub mod lock;

pub mod config;

pub mod metrics;

pub mod store;

pub mod live;

pub mod service;

pub mod sweeper;

pub mod auth;

pub mod console;

pub mod http;

pub mod door;

pub mod cli;
