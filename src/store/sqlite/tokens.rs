//! Tokens from beside the server.

use std::path::Path;

use rusqlite::TransactionBehavior;

use super::tables::Tables;
use super::{guard, open};
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::store::rows::Changes;
use crate::time::Timestamp;

/// Works on the tokens of a database from beside, whether a server runs on it or not. The file is made if it is not
/// there.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub fn beside<T>(path: &Path, work: impl FnOnce(&dyn Changes) -> Result<T, Error>) -> Result<T, Error> {
    // Closed last: see guard.rs.
    let beside = guard::Beside::open(path)?;
    let mut connection = open::prepare(&beside.path, open::Older::Leave)?;
    // The file of the database changes only when the server says so (see files.rs).
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Of tokens nothing is told in lease time.
    let done = work(&Tables::new(&transaction, Timestamp(0), &RestartGrace::none()))?;
    transaction.commit()?;
    Ok(done)
}
