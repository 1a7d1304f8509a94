//! The `lockhouse` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockhouse::cli::main()
}
