//! The API over HTTP.
//!
//! [`routes`] declares it as one table, which feeds the router, the check of bodies and parameters, the authorisation
//! and the OpenAPI document. [`exchange`] is a request and its reply without sockets, [`dispatch`] takes one through
//! the table, `handlers` do what it says, [`wire`] turns JSON into values and back, [`problem`] is the only place
//! where an error becomes a status. [`server`] is the only user of `tiny_http`.

mod admission;
mod checks;
pub mod dispatch;
pub mod exchange;
pub mod fields;
mod find;
mod handlers;
pub mod hold;
pub mod json;
pub mod letters;
pub mod openapi;
pub mod pages;
pub mod parameters;
pub mod problem;
pub mod rate;
pub mod render;
pub mod routes;
mod schemas;
pub mod server;
pub mod tag;
mod turns;
pub mod wire;
