//! What the writer needs of an engine.

use super::rows::{Changes, Keys};
use super::set::{Begin, Effects};
use crate::error::Error;

/// What runs between the beginning and the commit of a transaction: a batch of use cases.
pub trait Work {
    /// What each of them named. There is none when the transaction only writes down when it was.
    fn keys(&self) -> Vec<&Keys>;

    /// Runs them, on rows. It may be called again, on others.
    ///
    /// # Errors
    /// What a use case returns.
    fn run(&mut self, rows: &dyn Changes, begin: Begin) -> Result<Effects, Error>;
}

/// Where a store keeps its rows. The writer's thread owns it.
pub trait Engine: Send {
    /// One transaction: all that `work` does, or nothing.
    ///
    /// # Errors
    /// What `work` returns; what keeps it from being committed.
    fn transact(&mut self, work: &mut dyn Work) -> Result<Effects, Error>;

    /// Between two batches nothing is to do. What this finds is told by the next transaction.
    fn idle(&mut self);

    /// After a batch, before it is answered: returns whether nothing that failed can be found after a restart.
    fn settle(&mut self) -> bool;

    /// After a batch was handed on to be answered: keeps the files small.
    fn tidy(&mut self);

    /// The same, at any size.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody reads; what the engine could not do.
    fn fold(&mut self) -> Result<(), Error>;

    /// Whether the store is gone, and nothing more is read or written.
    fn is_gone(&self) -> bool;

    /// The last transaction was the last. The engine is dropped when nobody reads any more.
    fn finish(&mut self);
}
