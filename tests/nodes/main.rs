//! Several servers on one PostgreSQL, as real processes, and what can go wrong with them. `SLOW_TESTS=1` runs the longer
//! versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::too_many_lines,
    reason = "a test may panic"
)]

#[path = "../common/mod.rs"]
mod common;

mod clocks;
mod exclusion;
mod failover;
mod gone;
mod telling;
mod waiting;
mod world;
