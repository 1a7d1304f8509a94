//! `lockhouse check`: the settings in force, and what must always be so of a database.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::serve;
use crate::auth::Means;
use crate::config::{Config, Loaded, effective};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::{Store, invariants};
use crate::time::Clock;

/// Prints the settings, and what deserves a warning.
pub(super) fn settings(loaded: &Loaded) -> Result<(), Error> {
    warn(loaded);
    // Keys that cannot be used.
    Means::new(&loaded.config.auth)?;
    // Whoever does not read it does not want it.
    let _ = io::stdout().write_all(effective(&loaded.config).as_bytes());
    Ok(())
}

/// Looks at the database for what must not be, puts it right, and prints it.
pub(super) fn data(loaded: &Loaded) -> Result<(), Error> {
    warn(loaded);
    let Config { database, locks, .. } = &loaded.config;
    if !database.path.exists() {
        return Err(Error::Internal(format!("there is no database {}", database.path.display())));
    }
    let mut options = serve::options(&loaded.config);
    // Nobody is there whose lease would have to wait for them.
    options.restart_grace = Duration::ZERO;
    let store = Store::open(&options, Clock::system(), &Arc::new(Metrics::default()))?;
    let rules = locks.rules.clone();
    let found = store.write(move |write| invariants::repair(write, None, &rules));
    store.close();
    let found = found?.value;
    let mut out = io::stdout().lock();
    for violation in &found {
        let (kind, workspace) = (violation.kind.as_str(), violation.workspace_id.as_str());
        let _ = writeln!(out, "{kind} workspace={workspace:?} fence={}", violation.fence.0);
    }
    let _ = writeln!(out, "{} found, {} put right", found.len(), found.len());
    Ok(())
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("lockhouse: {warning}");
    }
}
