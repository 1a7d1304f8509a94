//! Operation: the log and the scheduled sweep.

pub mod log_limit;
pub mod logging;
pub mod sweeper;
