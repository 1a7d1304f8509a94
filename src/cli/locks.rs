//! `lockhouse locks`: lists and ends locks of a running server.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{CallerFlags, encoded};

#[derive(Debug, Subcommand)]
pub(super) enum LocksCommand {
    /// List the live locks that the caller may see.
    List(ListFlags),
    /// End the lock of a workspace by force. The next heartbeat of its holder fails.
    End(EndFlags),
}

#[derive(Debug, Args)]
pub(super) struct ListFlags {
    #[command(flatten)]
    client: CallerFlags,
    /// List only workspaces whose id begins with this text.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Print one JSON object per line, as the API returns it, instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndFlags {
    #[command(flatten)]
    client: CallerFlags,
    /// The id of the workspace.
    workspace_id: String,
    /// The reason, which the history and the holder show.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// A page of locks. Each is kept as the server has sent it.
#[derive(Deserialize)]
struct LocksPage {
    locks: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// The fields of a lock that the table shows.
#[derive(Deserialize)]
struct LockRow {
    workspace_id: String,
    kind: String,
    locked_by_user_id: String,
    locked_by_name: Option<String>,
    acquired_at: String,
    expires_in_ms: u64,
    fence: i64,
}

#[derive(Deserialize)]
struct ReleaseAnswer {
    released: bool,
}

/// Runs the subcommand.
pub(super) fn run(verb: &LocksCommand) -> Result<(), String> {
    match verb {
        LocksCommand::List(list) => print(list),
        LocksCommand::End(end) => finish(end),
    }
}

fn print(list: &ListFlags) -> Result<(), String> {
    let api = list.client.api()?;
    let prefix = list.prefix.as_deref().map(|prefix| format!("&prefix={}", encoded(prefix)));
    let mut rows =
        vec![["WORKSPACE", "KIND", "USER", "NAME", "SINCE", "ENDS IN", "FENCE"].map(str::to_owned)];
    let mut cursor = String::new();
    loop {
        let path = format!("/locks?limit=500{}{cursor}", prefix.as_deref().unwrap_or_default());
        let page: LocksPage = api.call("GET", &path, None)?;
        for lock in &page.locks {
            if !list.json {
                rows.push(row(lock)?);
            } else if writeln!(io::stdout(), "{lock}").is_err() {
                // The reader has closed the pipe, which is no error here.
                return Ok(());
            }
        }
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={}", encoded(&next));
    }
    if !list.json {
        let _ = io::stdout().write_all(table(&rows).as_bytes());
    }
    Ok(())
}

fn row(lock: &RawValue) -> Result<[String; 7], String> {
    let lock: LockRow = serde_json::from_str(lock.get())
        .map_err(|error| format!("the response of the server is invalid: {error}"))?;
    let left = Duration::from_secs(lock.expires_in_ms / 1_000);
    Ok([
        lock.workspace_id,
        lock.kind,
        lock.locked_by_user_id,
        lock.locked_by_name.unwrap_or_default(),
        lock.acquired_at,
        humantime::format_duration(left).to_string(),
        lock.fence.to_string(),
    ])
}

/// Pads the columns to the same width.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

fn finish(end: &EndFlags) -> Result<(), String> {
    let path = format!("/workspaces/{}/lock/release", encoded(&end.workspace_id));
    let body = match &end.reason {
        Some(reason) => json!({ "force": true, "reason": reason }),
        None => json!({ "force": true }),
    };
    let ReleaseAnswer { released } = end.client.api()?.call("POST", &path, Some(&body))?;
    let what = if released { "was locked, and its lock was ended" } else { "was not locked" };
    let _ = writeln!(io::stdout(), "{:?} {what}", end.workspace_id);
    Ok(())
}
