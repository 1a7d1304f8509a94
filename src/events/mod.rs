//! Event streams and presence. One thread serves all of them, and runs the timer of leases ([`crate::app::sweep`]).

pub mod broadcaster;
mod followers;
pub mod piece;
pub mod presence;
pub mod stream_limit;
pub mod subscription;
