//! `lockhouse check`: prints the settings in force, or checks the invariants of a database.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::serve;
use crate::app::invariants;
use crate::auth::Means;
use crate::config::{Loaded, effective};
use crate::domain::access::Rules;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::Store;

/// Prints the settings in force, and warnings about them.
pub(super) fn settings(loaded: &Loaded) -> Result<(), Error> {
    warn(loaded);
    // Fails on keys that cannot be used.
    Means::new(&loaded.config.auth)?;
    // A failed write means that the reader has closed the pipe, which is no error here.
    let _ = io::stdout().write_all(effective(&loaded.config).as_bytes());
    Ok(())
}

/// Checks the invariants of the database, repairs violations and prints them.
pub(super) fn data(loaded: &Loaded) -> Result<(), Error> {
    warn(loaded);
    let path = &loaded.config.database.path;
    if !path.exists() {
        return Err(Error::Internal(format!("there is no database {}", path.display())));
    }
    let mut options = serve::options(&loaded.config);
    // The database is checked as of the moment when the server stopped. Leases that were live then
    // continue when the server starts again, however late, and get their restart grace only then.
    options.restart_grace = Duration::ZERO;
    let store = Store::open_as_it_stopped(&options, &Arc::new(Metrics::default()))?;
    let found = print_all(&store, loaded.config.rules());
    store.close();
    let found = found?;
    let _ = writeln!(io::stdout(), "{found} found, {found} put right");
    Ok(())
}

/// Checks and repairs. Prints each violation, and returns their number.
fn print_all(store: &Store, rules: Rules) -> Result<usize, Error> {
    let mut out = io::stdout().lock();
    let mut total = 0;
    invariants::check(
        store,
        None,
        &Arc::new(rules),
        usize::MAX,
        || false,
        |violation| {
            let kind = violation.kind.as_str();
            let _ = match violation.lock {
                Some((id, fence)) => writeln!(out, "{kind} workspace={:?} fence={}", id.as_str(), fence.0),
                None => writeln!(out, "{kind}"),
            };
            total += 1;
        },
    )?;
    Ok(total)
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("lockhouse: {warning}");
    }
}
