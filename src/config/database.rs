//! The address of a PostgreSQL database, which may be in a file of its own.

use super::settings::DatabaseConfig;
use super::types::Secret;

/// What an address is, as the end of the sentence "it takes …".
pub(super) const ADDRESS: &str = "the address of a PostgreSQL database, beginning with postgres://";

/// Whether a text is an address of PostgreSQL.
pub(super) fn is_address(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

impl DatabaseConfig {
    /// Reads the address from `url_file`, if that is set.
    ///
    /// # Errors
    /// A sentence for the operator, without the address.
    pub fn read_url(&mut self) -> Result<(), String> {
        let Some(path) = &self.url_file else { return Ok(()) };
        if self.url.is_some() {
            return Err("database.url and database.url_file are both set: remove one".to_owned());
        }
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read database.url_file {shown}: {error}"))?;
        let address = text.trim();
        if !is_address(address) {
            return Err(format!("database.url_file {shown} cannot be used; it must have {ADDRESS}"));
        }
        self.url = Some(Secret::from(address));
        Ok(())
    }
}
