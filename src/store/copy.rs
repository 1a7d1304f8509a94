//! Copies a SQLite database to PostgreSQL (`lockhouse copy`).

use std::path::Path;

use super::sqlite::backup::Contents;
use crate::config::Secret;
use crate::domain::Fence;
use crate::error::Error;

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// The data.
    pub contents: Contents,
    /// New fences are greater than this one.
    pub fence_floor: Fence,
}

/// Copies all of a SQLite database, or nothing, to an empty PostgreSQL database. The leases go on as after a
/// restart. No server can use the file meanwhile.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
#[cfg(feature = "postgres")]
pub fn copy(file: &Path, url: &Secret) -> Result<Copied, Error> {
    let source = super::sqlite::dump::Dump::open(file)?;
    super::postgres::fill(url.as_str(), &source)?;
    Ok(Copied { contents: source.contents()?, fence_floor: source.highest_fence })
}

/// Without PostgreSQL there is nothing to copy to.
///
/// # Errors
/// Always.
#[cfg(not(feature = "postgres"))]
pub fn copy(_: &Path, _: &Secret) -> Result<Copied, Error> {
    Err(super::open::no_postgres())
}
