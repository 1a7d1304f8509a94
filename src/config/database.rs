//! The address of a PostgreSQL database, which may be in a file of its own.

use std::path::Path;

use super::types::Secret;

/// What an address is, as the end of the sentence "it takes …".
pub(super) const ADDRESS: &str = "the address of a PostgreSQL database, beginning with postgres://";

/// Whether a text is an address of PostgreSQL.
pub(super) fn is_address(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Reads the address from a file. The error is a sentence without it.
pub(super) fn read_address(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read database.url_file {shown}: {error}"))?;
    let address = text.trim();
    if !is_address(address) {
        return Err(format!("database.url_file {shown} cannot be used; it must have {ADDRESS}"));
    }
    Ok(Secret::from(address))
}
