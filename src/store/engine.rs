//! The interface between the writer and a storage engine.

use super::queue::Queue;
use super::rows::{Changes, Keys};
use super::set::{Effects, TransactionStart};
use crate::error::Error;

/// The content of one transaction: a batch of use cases.
pub trait Work {
    /// The keys of each use case. Empty if the transaction only writes down the time.
    fn keys(&self) -> Vec<&Keys>;

    /// Runs the use cases on `rows`. May be called again, on other rows. An engine that shares the waiters with other
    /// servers passes a `queue`, in which the waiters of a workspace are after its lock was read.
    ///
    /// # Errors
    /// The error of a use case.
    fn run(
        &mut self,
        rows: &dyn Changes,
        begin: TransactionStart,
        queue: Option<&Queue>,
    ) -> Result<Effects, Error>;
}

/// Work that changes nothing. The transaction still writes down the time.
pub(super) struct Probe;

impl Work for Probe {
    fn keys(&self) -> Vec<&Keys> {
        Vec::new()
    }

    fn run(
        &mut self,
        rows: &dyn Changes,
        begin: TransactionStart,
        _: Option<&Queue>,
    ) -> Result<Effects, Error> {
        Ok(Effects { is_touched: true, ..Effects::none(rows.now(), begin.meta) })
    }
}

/// A storage engine. The writer thread owns it.
pub trait Engine: Send {
    /// Runs `work` in one transaction. All of its changes are committed, or none.
    ///
    /// # Errors
    /// Errors of `work`, and errors that prevent the commit.
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error>;

    /// Checks the files while the writer is idle. The next transaction reports a fault that this finds.
    fn idle(&mut self);

    /// Makes sure that a restart cannot find a transaction that failed. Returns whether that is so. Called
    /// after a batch, before its answers are sent.
    fn resolve_failed_commit(&mut self) -> bool;

    /// Keeps the files small. Called after the answers of a batch were sent or handed on.
    fn checkpoint_if_long(&mut self);

    /// Folds the write-ahead log into the database, of any size.
    ///
    /// # Errors
    /// [`Error::Busy`] while another connection reads from the log, and errors of the engine.
    fn checkpoint(&mut self) -> Result<(), Error>;

    /// Whether the files are gone. Then the store does not read or write any more.
    fn is_gone(&self) -> bool;

    /// Finishes after the last transaction. The engine is dropped after the readers are closed.
    fn finish(&mut self);
}
