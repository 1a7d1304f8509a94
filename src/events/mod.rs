//! What waits: nothing here takes a thread for each of those who do.

pub mod broadcaster;
mod followers;
pub mod piece;
pub mod presence;
pub mod stream_limit;
pub mod timer;
