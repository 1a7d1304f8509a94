//! What waits: nothing here takes a thread for each of those who do.

pub mod dues;
pub mod faces;
mod followers;
pub mod hub;
pub mod piece;
pub mod seats;
