//! What waits: nothing here takes a thread for each of those who do.

pub mod hub;
