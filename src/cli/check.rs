//! `lockhouse check`: prints the settings in force, or checks a database.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::serve;
use crate::app::invariants::{self, Violation};
use crate::auth::AuthKeys;
use crate::config::{Loaded, effective};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::sqlite::backup;
use crate::webhooks::Trust;

/// Prints the settings in force, and warnings about them.
pub(super) fn settings(loaded: &Loaded) -> Result<(), Error> {
    warn(loaded);
    // Fails on keys that cannot be used, and without certificates for webhooks.
    AuthKeys::new(&loaded.config.auth)?;
    Trust::of_this_machine(&loaded.config.webhooks)?;
    // A failed write means that the reader has closed the pipe, which is no error here.
    let _ = io::stdout().write_all(effective(&loaded.config).as_bytes());
    Ok(())
}

/// Prints violations of the invariants. Changes nothing.
pub(super) fn look(loaded: &Loaded) -> Result<(), Error> {
    let path = database(loaded)?;
    let rules = loaded.config.rules();
    let mut found = 0;
    backup::look(&path, |rows, last_fence| {
        invariants::look(rows, last_fence, &rules, |violation| {
            print(&violation);
            found += 1;
        })
    })?;
    let _ = writeln!(io::stdout(), "{found} found");
    if found == 0 {
        return Ok(());
    }
    Err(Error::Internal(format!("{} has faults: --repair repairs them while no server runs", path.display())))
}

/// Prints violations of the invariants, and repairs them.
pub(super) fn repair(loaded: &Loaded) -> Result<(), Error> {
    database(loaded)?;
    let mut options = serve::options(&loaded.config);
    // The database is checked as of the moment when the server stopped. Leases that were live then
    // continue when the server starts again, however late, and get their restart grace only then.
    options.restart_grace = Duration::ZERO;
    let store = Store::open_as_it_stopped(&options, &Arc::new(Metrics::default()))?;
    let mut found = 0;
    let rules = Arc::new(loaded.config.rules());
    let checked = invariants::check(
        &store,
        None,
        &rules,
        usize::MAX,
        || false,
        |violation| {
            print(&violation);
            found += 1;
        },
    );
    store.close();
    checked?;
    let _ = writeln!(io::stdout(), "{found} found, {found} repaired");
    Ok(())
}

/// The path of the database, which must exist. Prints the warnings about the settings, too.
fn database(loaded: &Loaded) -> Result<PathBuf, Error> {
    warn(loaded);
    let path =
        loaded.config.database.location().file("ask a running server: POST /api/v1/invariants/check")?;
    if path.exists() {
        return Ok(path);
    }
    Err(Error::Internal(format!("there is no database {}", path.display())))
}

fn print(violation: &Violation) {
    let (kind, mut out) = (violation.kind.as_str(), io::stdout());
    let _ = match &violation.lock {
        Some((id, fence)) => writeln!(out, "{kind} workspace={:?} fence={}", id.as_str(), fence.0),
        None => writeln!(out, "{kind}"),
    };
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        eprintln!("lockhouse: {warning}");
    }
}
