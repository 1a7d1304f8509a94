//! What waits: nothing here takes a thread for each of those who do.

pub mod dues;
pub mod faces;
pub mod hub;
pub mod seats;
