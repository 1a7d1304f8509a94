//! Credentials as they are stored: a hash, whose they are, what they are good for.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::note::Note;
use super::{Write, guard, open};
use crate::domain::{DisplayName, UserId};
use crate::error::Error;
use crate::time::WallTime;

/// The columns that `read` reads.
macro_rules! columns {
    () => {
        "token_id, scope, user_id, name, created_at, expires_at, last_used_at"
    };
}

/// A token's SHA-256.
pub type Hash = [u8; 32];

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Looks on.
    Read,
    /// Acts as its owner.
    User,
    /// Acts for anybody, and sees to workspaces, members and the tokens of users.
    Service,
    /// May do everything.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::Read, Self::User, Self::Service, Self::Admin];

    /// The name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A token, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub token_id: String,
    /// What it is good for.
    pub scope: Scope,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// What its owner, or it, is called.
    pub name: Option<DisplayName>,
    /// When it was made.
    pub created_at: WallTime,
    /// From then on it is good for nothing.
    pub expires_at: Option<WallTime>,
    /// When it was last used, give or take a minute.
    pub last_used_at: Option<WallTime>,
}

/// How long credentials are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lasts {
    /// As far as can be known here, for ever.
    Always,
    /// Until then.
    Until(WallTime),
    /// As long as there is a good token with this hash.
    AsLongAs(Hash),
}

/// Whether credentials are still good at `wall`.
///
/// # Errors
/// What SQLite refuses.
pub fn are_good(connection: &Connection, lasts: &Lasts, wall: WallTime) -> Result<bool, Error> {
    Ok(match lasts {
        Lasts::Always => true,
        Lasts::Until(end) => wall < *end,
        Lasts::AsLongAs(hash) => connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM tokens WHERE hash = ?1 AND (expires_at IS NULL OR expires_at > ?2))",
            )?
            .query_row(params![hash, wall.0], |row| row.get(0))?,
    })
}

/// Keeps a new token.
///
/// # Errors
/// What SQLite refuses.
pub fn create(connection: &Connection, token: &Token, hash: &Hash) -> Result<(), Error> {
    connection
        .prepare_cached(concat!(
            "INSERT INTO tokens (",
            columns!(),
            ", hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
        ))?
        .execute(params![
            token.token_id,
            token.scope.as_str(),
            token.user_id.as_ref().map(UserId::as_str),
            token.name.as_ref().map(DisplayName::as_str),
            token.created_at.0,
            token.expires_at.map(|at| at.0),
            token.last_used_at.map(|at| at.0),
            hash,
        ])?;
    Ok(())
}

/// The token with this hash, and the hash as it is stored.
///
/// # Errors
/// What SQLite refuses.
pub fn with_hash(connection: &Connection, hash: &Hash) -> Result<Option<(Token, Vec<u8>)>, Error> {
    Ok(connection
        .prepare_cached(concat!("SELECT ", columns!(), ", hash FROM tokens WHERE hash = ?1"))?
        .query_row([hash], |row| Ok((read(row)?, row.get(7)?)))
        .optional()?)
}

/// Tokens by id, after `after`, at most `limit`.
///
/// # Errors
/// What SQLite refuses.
pub fn list(connection: &Connection, after: &str, limit: usize) -> Result<Vec<Token>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(connection
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM tokens WHERE token_id > ?1 ORDER BY token_id LIMIT ?2"
        ))?
        .query_map(params![after, limit], read)?
        .collect::<rusqlite::Result<_>>()?)
}

/// Forgets a token, if it is of this scope: from now on it is good for nothing. Returns it, if there was one.
///
/// # Errors
/// What SQLite refuses.
pub fn revoke(connection: &Connection, token_id: &str, only: Option<Scope>) -> Result<Option<Token>, Error> {
    Ok(connection
        .prepare_cached(concat!(
            "DELETE FROM tokens WHERE token_id = ?1 AND (?2 IS NULL OR scope = ?2) RETURNING ",
            columns!()
        ))?
        .query_row(params![token_id, only.map(Scope::as_str)], read)
        .optional()?)
}

/// As [`create`], in the server, whose log tells it once it is committed.
///
/// # Errors
/// As [`create`].
pub fn create_logged(write: &Write<'_>, token: &Token, hash: &Hash) -> Result<(), Error> {
    create(write.connection(), token, hash)?;
    write.note(Note::of_new_token(token));
    Ok(())
}

/// As [`revoke`], in the server, whose log tells it once it is committed. Returns whether there was one.
///
/// # Errors
/// As [`revoke`].
pub fn revoke_logged(write: &Write<'_>, token_id: &str, only: Option<Scope>) -> Result<bool, Error> {
    let revoked = revoke(write.connection(), token_id, only)?;
    write.note(revoked.as_ref().and_then(Note::of_revoked_token));
    Ok(revoked.is_some())
}

/// Writes down when tokens were last used.
///
/// # Errors
/// What SQLite refuses.
pub fn were_used(write: &Write<'_>, uses: &[(String, WallTime)]) -> Result<(), Error> {
    let mut update =
        write.connection().prepare_cached("UPDATE tokens SET last_used_at = ?2 WHERE token_id = ?1")?;
    for (token_id, at) in uses {
        update.execute(params![token_id, at.0])?;
    }
    Ok(())
}

/// Whether there are tokens that were over before `before`.
///
/// # Errors
/// What SQLite refuses.
pub fn any_expired(connection: &Connection, before: WallTime) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM tokens WHERE expires_at < ?1)")?
        .query_row([before.0], |row| row.get(0))?)
}

/// Forgets tokens that were over before `before`, at most `limit`. Returns how many.
///
/// # Errors
/// What SQLite refuses.
pub fn forget_expired(write: &Write<'_>, before: WallTime, limit: u32) -> Result<usize, Error> {
    Ok(write
        .connection()
        .prepare_cached(
            "DELETE FROM tokens WHERE token_id IN (SELECT token_id FROM tokens WHERE expires_at < ?1 LIMIT ?2)",
        )?
        .execute(params![before.0, limit])?)
}

/// Works on the tokens of a database from beside, whether a server runs on it or not. The file is made if it is not
/// there.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator.
pub fn beside<T>(path: &Path, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    // Closed last: see guard.rs.
    let beside = guard::Beside::open(path)?;
    let mut connection = open::prepare(&beside.path, open::Older::Leave)?;
    // The file of the database changes only when the server says so (see files.rs).
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// A row of `columns`.
fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    let scope: String = row.get(1)?;
    Ok(Token {
        token_id: row.get(0)?,
        // The table has no others.
        scope: Scope::parse(&scope).unwrap_or(Scope::Read),
        user_id: row.get::<_, Option<String>>(2)?.map(UserId::trusted),
        // An older version kept names that show nothing.
        name: row.get::<_, Option<String>>(3)?.and_then(|name| DisplayName::parse(&name).ok().flatten()),
        created_at: WallTime(row.get(4)?),
        expires_at: row.get::<_, Option<i64>>(5)?.map(WallTime),
        last_used_at: row.get::<_, Option<i64>>(6)?.map(WallTime),
    })
}
