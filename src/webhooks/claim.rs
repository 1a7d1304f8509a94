//! Which server sends a webhook, and how far it has been served: the row of each webhook.
//!
//! Of the servers that share a database one sends each webhook. It has a lease on the row, and renews it. A
//! server with a database of its own needs no lease.

use crate::error::Error;
use crate::store::{WebhookPosition, WorkingSet};
use crate::time::{Timestamp, Ttl};

/// How long a claim is good. After a crash of the server another one goes on after this time.
const LEASE: Ttl = Ttl::from_millis(15_000);
/// How long the position of a webhook is kept after it was removed from the settings.
const KEEP_REMOVED: Ttl = Ttl::from_millis(7 * 24 * 60 * 60 * 1_000);
/// Maximum number of rows that are looked through for webhooks that were removed.
const MAX_ROWS: usize = 1_000;

/// The server that claims webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The server, among those that share the database. Empty if there is only one.
    pub owner: String,
    /// How long a claim is good. `None` if there is only one server.
    pub ttl: Option<Ttl>,
}

impl Claimant {
    /// The server with this id, or the only server of a database.
    #[must_use]
    pub fn of(node_id: Option<&str>) -> Self {
        Self { owner: node_id.unwrap_or_default().to_owned(), ttl: node_id.map(|_| LEASE) }
    }

    fn until(&self, now: Timestamp) -> Timestamp {
        self.ttl.map_or(Timestamp(0), |ttl| now.plus(ttl))
    }
}

/// Claims a webhook. Returns its position; `None` if another server sends it. A new webhook begins with the next
/// event.
///
/// # Errors
/// Errors of the engine.
pub fn claim(set: &WorkingSet<'_>, name: &str, claimant: &Claimant) -> Result<Option<i64>, Error> {
    let now = set.now();
    let found = set.webhook(name)?;
    let is_kept = |row: &WebhookPosition| row.removed_at.is_none_or(|at| now < at.plus(KEEP_REMOVED));
    let before = found.as_ref().filter(|row| is_kept(row));
    if before.is_some_and(|row| row.owner != claimant.owner && now < row.until) {
        return Ok(None);
    }
    let position = match before {
        Some(row) => row.position,
        None => set.revisions()?.last,
    };
    put(set, name, claimant, position, found.as_ref())?;
    Ok(Some(position))
}

/// Writes how far a webhook has been served, and renews the claim. Returns false if the server no longer has
/// it; then nothing is written.
///
/// # Errors
/// Errors of the engine.
pub fn advance(set: &WorkingSet<'_>, name: &str, claimant: &Claimant, position: i64) -> Result<bool, Error> {
    let found = set.webhook(name)?;
    if found.as_ref().is_some_and(|row| row.owner != claimant.owner) {
        return Ok(false);
    }
    put(set, name, claimant, position, found.as_ref())?;
    Ok(true)
}

fn put(
    set: &WorkingSet<'_>,
    name: &str,
    claimant: &Claimant,
    position: i64,
    before: Option<&WebhookPosition>,
) -> Result<(), Error> {
    let row = WebhookPosition {
        name: name.to_owned(),
        position,
        owner: claimant.owner.clone(),
        until: claimant.until(set.now()),
        removed_at: None,
    };
    if before == Some(&row) { Ok(()) } else { set.put_webhook(&row) }
}

/// Marks webhooks that are not in `names` as removed. Deletes those that were removed long ago.
///
/// # Errors
/// Errors of the engine.
pub fn tidy(set: &WorkingSet<'_>, names: &[String]) -> Result<(), Error> {
    let now = set.now();
    let rows = set.webhooks(MAX_ROWS)?;
    for row in rows.into_iter().filter(|row| !names.contains(&row.name)) {
        // Another server may have it in its settings. Its row is read again when nobody else can change it.
        let Some(row) = set.webhook(&row.name)? else { continue };
        match row.removed_at {
            None => set.put_webhook(&WebhookPosition { removed_at: Some(now), ..row })?,
            Some(at) if at.plus(KEEP_REMOVED) <= now => set.delete_webhook(&row.name)?,
            Some(_) => {}
        }
    }
    Ok(())
}
