//! Event streams, presence and the timer of leases. One thread serves all of them.

pub mod broadcaster;
mod followers;
pub mod piece;
pub mod presence;
pub mod stream_limit;
pub mod subscription;
pub mod timer;
