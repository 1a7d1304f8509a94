//! Operation: the program's log and the scheduled sweep.

pub mod logging;
pub mod sweeper;
