//! The API over HTTP.
//!
//! [`routes`] declares it as one table, which feeds the router, the check of bodies and parameters, the authorisation
//! and the OpenAPI document. [`exchange`] is a request and its reply without sockets, [`dispatch`] takes one through
//! the table, `handlers` do what it says, [`wire`] turns JSON into values and back, [`problem`] is the only place
//! where an error becomes a status. [`tiny`] is the only user of `tiny_http`.

mod authorize;
mod checks;
pub mod correlation_id;
pub mod deferred;
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
pub mod render;
mod router;
pub mod routes;
mod schemas;
pub mod tiny;
mod turns;
pub mod wire;
