//! `lockhouse check`: the settings in force.

use crate::config::{Loaded, effective};

/// Prints the settings, and what deserves a warning.
pub(super) fn run(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("lockhouse: {warning}");
    }
    print!("{}", effective(&loaded.config));
}
