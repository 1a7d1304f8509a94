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
//! | [`domain`] | the domain; [`domain::rules`] has the rules of the product, pure |
//! | [`config`] | file + environment + flags → one checked `Config` |
//! | [`metrics`] | what is counted |
//! | [`store`] | SQLite and the only SQL: one writer with group commit, pooled readers |
//! | [`events`] | who follows the events, what is due at a time, and the one thread that sees to both |
//! | [`app`] | the use cases that HTTP, the sweeper and the command line share |
//! | [`ops`] | the log, and the sweeper that keeps the file small |
//! | [`auth`] | who is calling: tokens, JWTs, a proxy's word, or nobody's |
//! | [`web`] | the files that a browser is served |
//! | [`api`] | the API as one table, and what carries it out; [`api::tiny`] is the only user of `tiny_http` |
//! | [`server`] | the clients' connections: one event loop, through which only well-formed requests go on |
//! | [`cli`] | the program: `serve`, `check`, `token` |
//!
//! The data is defined in `schema.sql`, the settings in [`config::settings()`], the API in [`api::routes`].
//!
//! # The life of a heartbeat
//!
//! The [`server`] reads it, within limits and deadlines, and sends it on in canonical form when it is complete
//! ([`server::parser`]) → [`api::tiny`] receives it → [`api::dispatch`] finds the operation in [`api::routes`],
//! checks who sent it ([`auth`]) and what came in ([`api::fields`]) → `api::handlers` call [`app`] → the writer's
//! queue → inside the transaction [`store::locks`] loads the lock and [`domain::rules`] decides → commit → the answer is
//! written as JSON ([`api::wire`]) and goes back through the door, which knows by its id whose it is. No step goes
//! back, and nothing is answered before it is committed.
//!
//! Whoever waits for a lock waits at the door: their place in the line is in memory ([`store::queue`]), and the
//! transaction that ends a lease gives it to the next of them ([`store::waiting`]), so that nobody comes between.
//!
//! What takes its time is put off, so that it keeps neither a thread nor the requests behind it waiting: the door keeps
//! the client's connection, and the answer follows as a letter ([`api::deferred`]).

pub mod time;

pub mod error;

pub mod percent;

pub mod domain;

pub mod config;

pub mod metrics;

pub mod store;

pub mod events;

pub mod app;

pub mod ops;

pub mod auth;

pub mod web;

pub mod api;

pub mod server;

pub mod cli;
