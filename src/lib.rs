//! Lockhouse: a self-hosted server for workspace locks. One binary, SQLite inside, nothing else to run.
//!
//! A workspace lock is a lease. It heals itself: a holder who goes away loses it when the lease ends, because the
//! server decides, inside the transaction that reads the lock, and never because a client or a timer cleaned up.
//!
//! # Layout
//!
//! In reading order; each module uses only those above it, which `tests/architecture.rs` checks.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`time`] | instants, durations, and the only place that reads a clock |
//! | [`error`] | the errors of the use cases, without HTTP |
//! | [`percent`] | percent-encoding, by one strict rule |
//! | [`tls`] | TLS of the connections that Lockhouse opens |
//! | [`domain`] | the rules, pure: [`domain::rules`] decides about locks, [`domain::rights`] who may do what |
//! | [`config`] | one table of settings, read from file, environment and flags |
//! | [`metrics`] | the metrics, as one table |
//! | [`store`] | the working set of a use case, one writer with group commit, and [`store::sqlite`] with the only SQL |
//! | [`events`] | the followers of events, presence, and the thread that serves them and the timer |
//! | [`webhooks`] | the webhooks: who sends, what comes next, and the threads that send it |
//! | [`app`] | the use cases, one file for each group, on a working set |
//! | [`ops`] | the log, and the sweeper that keeps the file small |
//! | [`auth`] | who is calling: tokens, JWTs, a proxy's header |
//! | [`web`] | the files of console, playground and browser client, embedded |
//! | [`api`] | the HTTP API: typed requests and responses, one table of routes |
//! | [`server`] | client connections: one event loop; [`server::tiny`] is the only user of `tiny_http` |
//! | [`cli`] | the program: one file for each command |
//!
//! The data is defined in `schema.sql`, the settings in [`config::SETTINGS`], the API in [`api::routes`].
//!
//! # A heartbeat, to the disk and back
//!
//! 1. `server::event_loop` reads from the client. [`server::parser`] checks the request, within limits and deadlines.
//! 2. `server::forward` registers the request's id and sends the complete request to `tiny_http`.
//! 3. [`server::tiny`] receives it and drops its writer: no answer goes back this way.
//! 4. [`api::workers`] finds the operation in [`api::routes`] and the caller in [`auth`].
//! 5. [`api::dispatch`] reads the typed request. The operation calls a use case of [`app`].
//! 6. [`store::writer`] takes it from the queue and runs it in the transaction of the batch.
//! 7. [`app::current::load_current`] loads the lock, after due expiries and grants are applied.
//! 8. [`domain::rules::heartbeat`] decides. [`app::current::apply`] writes what it decided.
//! 9. The writer commits. Only then the [`api::responder`] posts the answer to the [`api::outbox`].
//! 10. The event loop finds the client by the id and writes the answer.
//!
//! # A waiter that is granted the lock
//!
//! 1. [`app::waitlist::acquire`] finds the lock held. It puts the waiter into the line ([`store::queue`]) and answers nothing.
//! 2. The event loop parks the request. It costs a socket and a few hundred bytes, and no thread.
//! 3. The holder releases: [`app::locks::release`] loads the lock, and [`domain::rules::release`] decides that the lease ends.
//! 4. [`app::current::apply`] deletes the row, records the event, and calls `grant_next` in the same transaction. So no
//!    other request comes between.
//! 5. The next waiter whose credentials and role still allow it gets a lease with a new fence.
//! 6. After the commit the writer answers both: the waiter's parked request is answered through its responder.
//!
//! # A lease that expires
//!
//! 1. Nothing needs to notice it: each transaction that loads the lock applies the expiry first (`apply_due` in
//!    [`app::current`]).
//! 2. So that followers are told in time, each commit gives the next due time to [`store::commit_notifier`].
//! 3. The events thread ([`events::broadcaster`]) sleeps until then and runs the timer of [`app::sweep`].
//! 4. [`app::sweep::sweep`] reads the rows whose `check_at` has come, in steps of limited size. It ends those that have
//!    expired and moves `check_at` of those that were renewed.
//! 5. The commit wakes the events thread. It reads the new events and sends `lock.expired` to the followers.

pub mod time;

pub mod error;

pub mod percent;

pub mod tls;

pub mod domain;

pub mod config;

pub mod metrics;

pub mod store;

pub mod events;

pub mod webhooks;

pub mod app;

pub mod ops;

pub mod auth;

pub mod web;

pub mod api;

pub mod server;

pub mod cli;
