//! `lockhouse check`: the settings in force.

use std::io::{self, Write};

use crate::config::{Loaded, effective};

/// Prints the settings, and what deserves a warning.
pub(super) fn run(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("lockhouse: {warning}");
    }
    // Whoever does not read it does not want it.
    let _ = io::stdout().write_all(effective(&loaded.config).as_bytes());
}
