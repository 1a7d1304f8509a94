//! `lockhouse run`: holds a lock while a command runs.
//!
//! Three processes take part, all of this program: the one that the user started, which talks to the server
//! ([`supervise`]); the guard, which starts the command and kills it if the first one does not ([`guarding`]); and the
//! step before the command, which becomes it ([`launch`]).

mod acquire;
mod guard;
mod guarding;
mod keeper;
mod launch;
mod session;
mod supervise;
mod terminal;
mod times;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::acquire::{NotAcquired, Wait};
use self::session::{RunEvent, Session, say};
use self::supervise::{Ended, OnLost};
use super::client::{CallerFlags, PATIENCE, set};
use super::process::pass_on_signals;
use crate::auth::token;
use crate::domain::WorkspaceId;
use crate::time::since_boot;

/// Exit code if the server cannot be reached or refuses, or the command cannot be supervised (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// Exit code for an invalid command line.
const WRONG_USE: u8 = 2;
/// How often a release is tried.
const RELEASES: u32 = 2;

#[derive(Debug, Args)]
pub(super) struct RunFlags {
    #[command(flatten)]
    caller: CallerFlags,
    /// Read the token from this file [default: LOCKHOUSE_TOKEN, else the file that LOCKHOUSE_TOKEN_FILE names].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The length of the lease. It is renewed while the command runs.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive)]
    ttl: Duration,
    /// Wait at most this long for the lock [default: as long as it takes].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// Do not wait for the lock.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// What happens to the command when the lock is lost.
    #[arg(long, value_enum, default_value = "term")]
    on_lost: OnLost,
    /// The time from TERM to KILL [default: 5s, or a quarter of a lease under 20s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    kill_after: Option<Duration>,
    /// The exit code if another holder has the lock.
    #[arg(long, value_name = "CODE", default_value_t = 75)]
    conflict_exit_code: u8,
    /// The exit code if the lock was lost.
    #[arg(long, value_name = "CODE", default_value_t = 76)]
    lost_exit_code: u8,
    /// The id of the workspace.
    #[arg(value_name = "WORKSPACE")]
    workspace_id: String,
    /// The command and its arguments, after --.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Parses a duration such as `90s`. A number without a unit is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s, 5m or 500ms"))
}

fn positive(text: &str) -> Result<Duration, String> {
    duration(text)
        .and_then(|parsed| if parsed.is_zero() { Err("must not be 0".to_owned()) } else { Ok(parsed) })
}

/// Runs this process as one of the other steps, if it was started as one.
pub(super) fn step() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let name = arguments.next()?;
    if name == guard::GUARD {
        Some(guarding::main(arguments.collect()))
    } else if name == launch::LAUNCH {
        Some(launch::main(arguments.collect()))
    } else {
        None
    }
}

/// Runs the command under the lock. The exit code is the command's, or one of those that the help lists.
pub(super) fn run(flags: &RunFlags) -> ExitCode {
    if let Err(error) = WorkspaceId::parse(&flags.workspace_id) {
        say(&error.to_string());
        return ExitCode::from(WRONG_USE);
    }
    let session = match start(flags) {
        Ok(session) => session,
        Err(why) => {
            say(&why);
            return ExitCode::from(UNAVAILABLE);
        }
    };
    ExitCode::from(run_under_lock(flags, &session))
}

fn start(flags: &RunFlags) -> Result<Session, String> {
    let api = flags.caller.api_with(flags.token_file.as_deref())?;
    let id = format!("run-{}", token::random_id().map_err(|error| error.to_string())?);
    let (sender, events) = channel();
    // The threads that are started from here on inherit it.
    terminal::block_ttou();
    let signals = sender.clone();
    pass_on_signals(move |signal| drop(signals.send(RunEvent::Signal(signal))))
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let (workspace_id, ttl, kill_after) = (flags.workspace_id.clone(), flags.ttl, flags.kill_after);
    Ok(Session { api, workspace_id, id, ttl, kill_after, sender, events })
}

fn run_under_lock(flags: &RunFlags, session: &Session) -> u8 {
    let wait = match (flags.no_wait, flags.wait) {
        (true, _) => Wait::Until(since_boot()),
        (false, Some(wait)) => Wait::Until(since_boot() + wait),
        (false, None) => Wait::Forever,
    };
    let mut keeper = match acquire::acquire(session, wait) {
        Ok(keeper) => keeper,
        Err(NotAcquired::Conflict(why)) => {
            say(&why);
            return flags.conflict_exit_code;
        }
        Err(NotAcquired::Unavailable(why)) => {
            say(&why);
            return UNAVAILABLE;
        }
        Err(NotAcquired::Signal(signal)) => {
            // The lock may have been granted a moment ago.
            release(session, None);
            return u8::try_from(128 + signal).unwrap_or(UNAVAILABLE);
        }
    };
    match supervise::supervise(session, &mut keeper, &flags.command, flags.on_lost) {
        Ended::Exited(code) => {
            release(session, Some(keeper.fence()));
            code
        }
        Ended::Lost => {
            // Nothing is released but this lease, which the server may still have.
            release(session, Some(keeper.fence()));
            flags.lost_exit_code
        }
        Ended::Failed(why) => {
            say(&why);
            UNAVAILABLE
        }
    }
}

/// Releases this session's lease. If that fails, it ends by itself.
fn release(session: &Session, fence: Option<i64>) {
    let mut body = json!({ "session_id": session.id });
    if let Some(fence) = fence {
        set(&mut body, "fence", fence);
    }
    for _ in 0..RELEASES {
        if session
            .api
            .post(&session.path("/release"), body.clone(), PATIENCE)
            .is_ok_and(|answer| answer.status < 429)
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("soon").unwrap_err().contains("30s"));
        assert!(duration("-1").is_err());
        assert!(positive("0").is_err() && positive("0s").is_err());
    }
}
