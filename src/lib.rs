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
//! | [`store`] | where the rows are kept: the working set of a use case, one writer with group commit, and [`store::sqlite`] with the only SQL |
//! | [`events`] | who follows the events, what is due at a time, and the one thread that sees to both |
//! | [`app`] | the use cases, one file for each group, on a working set |
//! | [`ops`] | the log, and the sweeper that keeps the file small |
//! | [`auth`] | who is calling: tokens, JWTs, a proxy's word, or nobody's |
//! | [`web`] | the files that a browser is served |
//! | [`api`] | the API as one table, and what carries it out |
//! | [`server`] | HTTP: one event loop owns the client connections; [`server::tiny`] is the only user of `tiny_http` |
//! | [`cli`] | the program: `serve`, `check`, `token` |
//!
//! The data is defined in `schema.sql`, the settings in [`config::SETTINGS`], the API in [`api::routes`].
//!
//! # The life of a heartbeat
//!
//! The event loop of the [`server`] reads it, within limits and deadlines ([`server::parser`]). When it is complete, the
//! loop registers its id and forwards it in canonical form → [`server::tiny`] receives it, and answers nothing →
//! [`api::workers`] finds its operation in [`api::routes`] and its sender ([`auth`]) → [`api::dispatch`] checks what came
//! in ([`api::fields`]) → `api::handlers` call [`app`] → the writer's queue → inside the transaction [`app::locks`] loads
//! the lock from the [`store::WorkingSet`], [`domain::rules`] decides, [`app::current`] writes → commit → the [`api::responder`] of the request posts the answer to the
//! [`api::outbox`] → the event loop finds the client by the id and writes. No step goes back, and nothing is answered
//! before it is committed.
//!
//! A request that waits for a lock has its place in the line in memory ([`store::queue`]). The transaction that ends a
//! lease gives the lock to the first in the line ([`app::waitlist`]), so that no other request comes between. Its
//! responder is used then; meanwhile it costs a socket and no thread.

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
