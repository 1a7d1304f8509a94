//! Event streams and presence. One thread serves all of them, and runs the timer of leases ([`crate::app::sweep`]).

pub mod broadcaster;
pub mod chunk;
mod followers;
pub mod presence;
pub mod stream_limit;
pub mod subscription;
