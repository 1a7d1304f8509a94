//! The API over HTTP.
//!
//! [`routes`] declares it as one table, which feeds the router, the authorisation, the check of what comes in, and the
//! OpenAPI document. Each row names a type: its fields are what the operation takes, and it carries the operation out
//! ([`operation`]). There is one file for each resource: `locks`, `renewals`, `handoff`, `members`, … [`fields`] has the
//! types of single fields, `input` reads a request into such a type, [`problem`] is the only place where an error becomes
//! a status. [`exchange`] has a request and its response without sockets, [`workers`] the threads that carry requests
//! out, [`dispatch`] takes one through the table. A [`responder`] answers one request, by messages to the event loop
//! ([`outbox`]).

mod authorize;
pub mod dispatch;
mod events;
pub mod exchange;
pub mod fields;
mod gate;
mod handoff;
mod history;
mod input;
pub mod json;
mod listing;
mod lock;
mod locks;
mod members;
pub mod openapi;
pub mod operation;
pub mod outbox;
pub mod pages;
mod presence;
pub mod problem;
pub mod rate;
mod refusals;
mod renewals;
pub mod request_log;
pub mod responder;
mod router;
pub mod routes;
mod service;
mod tokens;
pub mod workers;
mod workspaces;

pub use events::EVENT_ENCODER;
