//! Access to the tokens of a database for a second process (`lockhouse token`).

use std::path::Path;

use rusqlite::TransactionBehavior;

use super::tables::Tables;
use super::{guard, open};
use crate::domain::grace::RestartGrace;
use crate::error::Error;
use crate::store::rows::Changes;
use crate::time::Timestamp;

/// Runs `work` on the tokens of a database, whether a server has it open or not. The file is created if it
/// does not exist.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub(in crate::store) fn beside<T>(
    path: &Path,
    work: impl FnOnce(&dyn Changes) -> Result<T, Error>,
) -> Result<T, Error> {
    // Must be closed last: see guard.rs.
    let beside = guard::SharedAccess::open(path)?;
    let mut connection = open::prepare(&beside.path, open::Older::Leave)?;
    // Only the server may change the database file (see files.rs).
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A file of an older version is not migrated, because a server of that version may run on it. It has no tokens of
    // agents, so the column is there for this transaction only.
    let knows_agents = transaction.column_exists(None, "tokens", "agent")?;
    if !knows_agents {
        transaction.execute_batch("ALTER TABLE tokens ADD COLUMN agent INTEGER NOT NULL DEFAULT 0")?;
    }
    // Tokens do not use lease time.
    let done = work(&Tables::new(&transaction, Timestamp(0), &RestartGrace::none()))?;
    if !knows_agents {
        if transaction.query_row("SELECT EXISTS (SELECT 1 FROM tokens WHERE agent)", [], |row| row.get(0))? {
            return Err(Error::Internal(format!(
                "{} has no tokens of agents yet: start the server of this version on it first",
                path.display()
            )));
        }
        transaction.execute_batch("ALTER TABLE tokens DROP COLUMN agent")?;
    }
    transaction.commit()?;
    Ok(done)
}
