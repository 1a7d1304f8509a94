//! `lockhouse token`: manages tokens directly in the database, for the first administrator and for scripts.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use clap::{Args, Subcommand, ValueEnum};

use super::Database;
use crate::auth::{Scope, token};
use crate::domain::token::Token;
use crate::domain::{DisplayName, UserId};
use crate::error::Error;
use crate::store::tokens::{self, Location};
use crate::time::{Clock, WallTime};

/// The start of the year 10000. RFC 3339 cannot express later times.
const THE_YEAR_10000: WallTime = WallTime(253_402_300_800_000);
/// The number of tokens that `list` reads at a time.
const PAGE: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it on standard output. It cannot be shown again.
    Create(Create),
    /// List the tokens, without their secrets.
    List(Database),
    /// Revoke a token. A running server refuses it within a second.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    database: Database,
    /// What the token permits.
    #[arg(long, value_enum, required_unless_present = "agent", default_value_if("agent", "true", "user"))]
    scope: Option<TokenScope>,
    /// The user who acts with the token.
    #[arg(long, value_name = "ID", required_if_eq_any = [("scope", "user"), ("agent", "true")])]
    user: Option<String>,
    /// The token is for an AI agent that acts for the user: it takes locks of the kind agent only.
    #[arg(long)]
    agent: bool,
    /// The display name of the user or of the agent, or the purpose of the token.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// How long the token is valid, such as 90d [default: until it is revoked].
    #[arg(long, value_name = "DURATION")]
    expires: Option<humantime::Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    database: Database,
    /// The id of the token, from lockhouse token list.
    token_id: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TokenScope {
    /// Permits everything.
    Admin,
    /// Acts for any user, for the back end of an app.
    Service,
    /// Acts as its user.
    User,
    /// Reads only, for monitoring.
    Read,
}

impl TokenScope {
    const fn scope(self) -> Scope {
        match self {
            Self::Admin => Scope::Admin,
            Self::Service => Scope::Service,
            Self::User => Scope::User,
            Self::Read => Scope::Read,
        }
    }
}

/// Runs the subcommand.
pub(super) fn run(verb: TokenCommand) -> Result<(), Error> {
    match verb {
        TokenCommand::Create(create) => make(&create),
        TokenCommand::List(database) => list(&database),
        TokenCommand::Revoke(Revoke { database, token_id }) => {
            let revoked = tokens::beside(&database.existing()?, |rows| rows.delete_token(&token_id, None))?;
            if revoked.is_some() {
                Ok(())
            } else {
                Err(Error::Internal(format!(
                    "there is no token with the id {token_id}; see lockhouse token list"
                )))
            }
        }
    }
}

fn make(create: &Create) -> Result<(), Error> {
    let now = Clock::system().wall();
    let expires = create.expires.map(|expires| end(now, expires)).transpose()?;
    if goes_nowhere(&io::stdout()) {
        return Err(Error::Internal(
            "standard output is closed, or /dev/null: the token would be lost, so none was created"
                .to_owned(),
        ));
    }
    let user_id = create.user.as_deref().map(UserId::parse).transpose()?;
    let name = create.name.as_deref().map(DisplayName::parse).transpose()?.flatten();
    let scope = create.scope.unwrap_or(TokenScope::User);
    let (secret, token, hash) = token::mint(scope.scope(), user_id, name, create.agent, now, expires)?;
    let location = create.database.location()?;
    let new_file = match &location {
        Location::File(path) if !path.exists() => Some(path.display()),
        Location::File(_) | Location::Postgres(_) => None,
    };
    tokens::beside(&location, |rows| rows.insert_token(&token, &hash))?;
    if let Some(path) = new_file {
        // This is expected before the first start of the server. Otherwise the path is likely to be wrong.
        eprintln!("lockhouse: there was no database {path}; it was created");
    }
    let mut out = io::stdout();
    let Err(error) = writeln!(out, "{secret}").and_then(|()| out.flush()) else { return Ok(()) };
    // Nobody has seen the token.
    tokens::beside(&location, |rows| rows.delete_token(&token.token_id, None))?;
    Err(Error::Internal(format!("the token cannot be shown, so it was revoked: {error}")))
}

/// When a new token expires.
fn end(now: WallTime, expires: humantime::Duration) -> Result<WallTime, Error> {
    let wrong = |what: &str| Err(Error::Internal(format!("--expires {expires} cannot be used: {what}")));
    let end = i64::try_from(expires.as_millis()).ok().and_then(|expires| now.0.checked_add(expires));
    match end.map(WallTime) {
        Some(end) if end <= now => wrong("the token would expire at once"),
        Some(end) if end < THE_YEAR_10000 => Ok(end),
        Some(_) | None => {
            wrong("the token would expire after the year 9999; leave it out for a token that does not expire")
        }
    }
}

/// Whether output is lost: it goes to /dev/null, which also replaces a closed standard output.
fn goes_nowhere(out: &impl AsFd) -> bool {
    let out = out.as_fd().try_clone_to_owned().and_then(|out| File::from(out).metadata());
    match (out, std::fs::metadata("/dev/null")) {
        (Ok(out), Ok(null)) => out.file_type().is_char_device() && out.rdev() == null.rdev(),
        (Ok(_), Err(_)) => false,
        (Err(_), _) => true,
    }
}

fn list(database: &Database) -> Result<(), Error> {
    let location = database.existing()?;
    let now = Clock::system().wall();
    let mut after = String::new();
    let mut out = io::stdout().lock();
    loop {
        let page = tokens::beside(&location, |rows| rows.tokens(&after, PAGE))?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.token_id);
        for token in &page {
            // A failed write means that the reader has closed the pipe, which is no error here.
            if writeln!(out, "{}", line(token, now)).is_err() {
                return Ok(());
            }
        }
    }
}

fn line(token: &Token, now: WallTime) -> String {
    let at = |at: Option<WallTime>| at.map_or_else(|| "never".to_owned(), WallTime::to_rfc3339);
    let agent = if token.is_agent { "  agent" } else { "" };
    let expired = if token.expires_at.is_some_and(|end| end <= now) { " (expired)" } else { "" };
    format!(
        "{}  {:7}  user={:?}  name={:?}{agent}  created={}  expires={}{expired}  last_used={}",
        token.token_id,
        token.scope.as_str(),
        token.user_id.as_ref().map_or("", UserId::as_str),
        token.name.as_ref().map_or("", DisplayName::as_str),
        token.created_at.to_rfc3339(),
        at(token.expires_at),
        at(token.last_used_at),
    )
}
