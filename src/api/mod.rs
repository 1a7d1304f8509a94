//! The HTTP API.
//!
//! [`routes`] is one table of all operations. The router, the authorisation, the input checks and the OpenAPI
//! document use it. Each row names a type. The fields of the type are the input of the operation, and its
//! [`operation`] implementation runs it. There is one file for each resource: `locks`, `renewals`, `handoff`,
//! `members`, and others.
//!
//! [`fields`] has the types of single fields. `input` reads a request into the type of an operation, with the deserializers of
//! `deserialize`.
//! [`problem`] is the only place where an error becomes a status. [`exchange`] has the request and the
//! response, without sockets. [`workers`] has the threads that run requests. [`dispatch`] finds the operation
//! of a request and runs it. A [`responder`] answers one request, by messages to the event loop ([`outbox`]).

pub mod authorize;
pub mod code;
mod deserialize;
pub mod dialect;
pub mod dispatch;
mod events;
pub mod exchange;
pub mod fields;
pub mod file_lock;
mod gate;
mod handoff;
mod history;
mod input;
pub mod json;
mod lfs;
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
pub mod terraform;
mod tokens;
mod webhooks;
pub mod workers;
mod workspaces;

pub use events::{EVENT_ENCODER, webhook_body};
