//! The `lockhouse` program: parse, run, exit code.

use std::process::ExitCode;

/// A request is allocated on one thread and freed on another, which takes the system's allocator a fifth of all time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lockhouse::cli::main()
}
