//! The API over HTTP.
//!
//! [`routes`] declares it as one table, which feeds the router, the check of bodies and parameters, the authorisation
//! and the OpenAPI document. [`exchange`] has a request and its response without sockets, [`workers`] the threads that
//! carry requests out, [`dispatch`] takes one through the table, `handlers` do what it says, [`wire`] turns JSON into
//! values and back, [`problem`] is the only place where an error becomes a status. A [`responder`] answers one request,
//! by messages to the event loop ([`outbox`]).

mod authorize;
mod checks;
pub mod dispatch;
pub mod exchange;
pub mod fields;
mod handlers;
pub mod json;
pub mod openapi;
pub mod outbox;
pub mod pages;
pub mod parameters;
pub mod problem;
pub mod rate;
pub mod request_log;
pub mod responder;
mod router;
pub mod routes;
mod schemas;
pub mod wire;
pub mod workers;
