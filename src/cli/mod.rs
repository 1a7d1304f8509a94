//! The command line.

mod backup;
mod check;
mod client;
mod copy;
mod health;
mod http;
mod locks;
mod mcp;
mod pages;
mod process;
mod restore;
mod run;
mod scratch;
pub mod serve;
mod socket;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{self, ConfigError, DatabaseConfig, Loaded, Sources};
use crate::domain::Fence;
use crate::error::Error;
use crate::store::tokens::Location;

/// Workspace locks for web apps: who is editing, and a safe way to take over.
///
/// A lock is a lease: it expires unless its holder renews it, so a holder who is gone never blocks others. All data is
/// in one SQLite file, or in PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "lockhouse",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with:  lockhouse serve\n\
                  Then try:    curl -X POST http://127.0.0.1:7311/api/v1/workspaces/demo/lock -H 'X-User-Id: alice'\n\n\
                  Every setting of the file (see config.example.toml) is also an environment variable,\n\
                  LOCKHOUSE_<SECTION>_<NAME>. Precedence: flags, environment, file.\n\n\
                  Exit codes: 0 for success, 1 for failure, 2 for an invalid command line; lockhouse run has its own."
)]
struct Lockhouse {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server until SIGTERM, SIGINT or SIGHUP.
    ///
    /// No settings are needed: by default it listens on 127.0.0.1:7311 and creates lockhouse.db in the working
    /// directory. When it is ready, it prints one line on standard output. The log goes to standard error.
    ///
    /// A socket passed by systemd takes precedence over --listen.
    ///
    /// On SIGTERM, SIGINT or SIGHUP it accepts no more requests, answers those it has accepted, folds the write-ahead
    /// log into the database and exits with 0. If SIGHUP is ignored at the start (nohup), it stays ignored. A second
    /// signal ends the process at once. Answered writes are not lost.
    Serve(Serve),
    /// Check the settings and print those in force, or check a database.
    ///
    /// Without --database and --repair it prints the settings in force as TOML, without secrets. If a setting is
    /// invalid, it prints its name and the allowed values on standard error, and exits with 1.
    ///
    /// With --database it checks that file for damage and for locks that violate the settings. It only reads, so a
    /// server may run on the file. It prints each fault, and exits with 1 if there is one.
    Check(Check),
    /// Create, list or revoke tokens. A server may run on the database.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Copy the database to a new file. A server may run on the database.
    ///
    /// The copy is a consistent snapshot. It is checked and synced to the disk before it gets its name. Only its owner
    /// can read it. An existing file is not overwritten.
    Backup(backup::BackupFlags),
    /// Replace the database with a backup, while no server runs on it.
    ///
    /// Checks a copy of the backup first, and migrates it if it is from an older version. Keeps the previous database
    /// in the same directory, with the time in its name. Ends all locks of the backup, and raises the fence floor, so
    /// that no fence is issued twice. Prints the contents of the restored database.
    Restore(restore::RestoreFlags),
    /// Copy a SQLite file to an empty PostgreSQL database, while no server runs on either.
    ///
    /// The file is database.path, or --database; the target is database.url. Copies everything or nothing: workspaces,
    /// members, tokens, the history, the fence floor and the locks, which go on as after a restart. Prints what it copied.
    Copy(Database),
    /// List or end the locks of a running server.
    ///
    /// The token is read from LOCKHOUSE_TOKEN, or from the file that LOCKHOUSE_TOKEN_FILE names. There is no flag for
    /// it, because other users of the machine can see flags.
    #[command(subcommand)]
    Locks(locks::LocksCommand),
    /// Hold a lock while a command runs, and stop the command before the lock can be anyone else's.
    ///
    /// Waits for the lock in the server's line, starts COMMAND in a process group of its own, and renews the lease until
    /// no process of the group is left. Passes TERM, INT, HUP and QUIT on to the group. A terminal on standard input
    /// is given to the group. The command finds the lease in LOCKHOUSE_FENCE,
    /// LOCKHOUSE_WORKSPACE and LOCKHOUSE_SESSION.
    ///
    /// When the lock is lost, the group gets TERM, and KILL before the lease ends. If this program is stopped or killed,
    /// a guard kills the group. A process that leaves the group is not covered.
    ///
    /// The token is read from --token-file, LOCKHOUSE_TOKEN, or the file that LOCKHOUSE_TOKEN_FILE names.
    ///
    /// Exit codes: that of the command, or 128 and the number of the signal that ended it; 75 if another holder has the
    /// lock; 76 if the lock was lost; 69 if the server cannot be reached or refuses, or the command cannot be
    /// supervised; 126 if the command cannot be executed; 127 if it was not found; 2 for an invalid command line.
    Run(run::RunFlags),
    /// Serve the locks of an AI agent, by the Model Context Protocol on standard input and output.
    ///
    /// The tools tell who is editing, acquire, release and list locks, and ask for one. Locks are of the kind agent. They
    /// are renewed while the session lives, and released when standard input is closed or on TERM.
    ///
    /// The token is read from LOCKHOUSE_TOKEN, or from the file that LOCKHOUSE_TOKEN_FILE names.
    Mcp(mcp::McpFlags),
    /// Check whether a running server is ready, which means that its store can write.
    ///
    /// Prints one sentence. Exits with 0 if the server is ready, else with 1. Waits at most 5 seconds for each response.
    Health(client::ServerFlags),
    /// Print the completion script of a shell.
    ///
    /// For example: lockhouse completions bash > /usr/share/bash-completion/completions/lockhouse
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: CompletedShell,
    },
    /// Print this program's manual page, in roff: lockhouse man | man -l -
    Man,
}

/// The shells that have completions.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompletedShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl CompletedShell {
    const fn shell(self) -> Shell {
        match self {
            Self::Bash => Shell::Bash,
            Self::Zsh => Shell::Zsh,
            Self::Fish => Shell::Fish,
        }
    }
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// Issue only fences greater than N. Use it once, after a backup was restored without its fence floor (docs/operation.md).
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=8_000_000_000_000_000))]
    fence_at_least: Option<i64>,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Repair the faults in the database, and exit with 0. No server may run on it. For a running server, use
    /// POST /api/v1/invariants/check.
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Args)]
struct Settings {
    /// Read settings from this TOML file (see config.example.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:7311]. Port 0 picks a free port; unix:PATH is a Unix socket.
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    listen: Option<String>,
    /// The SQLite file [default: lockhouse.db].
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
}

impl Settings {
    fn load(self) -> Result<Loaded, ConfigError> {
        config::load(&self.sources())
    }

    fn sources(self) -> Sources {
        let flags = [("--listen", self.listen), ("--database", self.database)];
        let flags = flags.into_iter().filter_map(|(flag, value)| Some((flag, value?))).collect();
        // A name that is not UTF-8 is not a setting. A value that is not UTF-8 is converted with replacement
        // characters and then refused.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        Sources { file: self.config, environment, flags }
    }
}

/// The flags of commands that need only the path of the database.
#[derive(Debug, Args)]
struct Database {
    /// Read the settings of the database from this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The SQLite file [default: database.url or database.path of the settings, else lockhouse.db].
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
}

impl Database {
    fn settings(config: Option<&PathBuf>, database: Option<&String>) -> Result<DatabaseConfig, Error> {
        let settings = Settings { config: config.cloned(), listen: None, database: database.cloned() };
        // Only the database is needed. The other settings may be incomplete here: the server's secrets may be
        // in its own environment only.
        let read = config::read(&settings.sources()).map_err(|error| Error::Internal(error.to_string()))?;
        let mut database = read.config.database;
        database.read_url().map_err(Error::Internal)?;
        Ok(database)
    }

    /// The database of the settings.
    fn location(&self) -> Result<Location, Error> {
        Ok(Self::settings(self.config.as_ref(), self.database.as_ref())?.location())
    }

    /// The database, which must exist.
    fn existing(&self) -> Result<Location, Error> {
        let location = self.location()?;
        match &location {
            Location::File(path) if !path.exists() => Err(Error::Internal(format!(
                "there is no database {}: give its path with --database",
                path.display()
            ))),
            Location::File(_) | Location::Postgres(_) => Ok(location),
        }
    }
}

/// Runs the program. Exit codes: 0 for success, 1 for failure, 2 for an invalid command line.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = run::step() {
        return code;
    }
    let verb = Lockhouse::parse().verb;
    if let Verb::Run(flags) = &verb {
        return run::run(flags);
    }
    let outcome =
        process::survive_file_size_limit().map_err(|error| error.to_string()).and_then(|()| run(verb));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("lockhouse: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), String> {
    match verb {
        Verb::Serve(Serve { settings, fence_at_least }) => {
            settings.load().map_err(|error| error.to_string()).and_then(|loaded| {
                serve::run(&loaded, fence_at_least.map(Fence)).map_err(|error| error.to_string())
            })
        }
        Verb::Check(Check { settings, repair }) => {
            let looks = settings.database.is_some();
            let loaded = settings.load().map_err(|error| error.to_string())?;
            let checked = match (repair, looks) {
                (true, _) => check::repair(&loaded),
                (false, true) => check::look(&loaded),
                (false, false) => check::settings(&loaded),
            };
            checked.map_err(|error| error.to_string())
        }
        Verb::Token(verb) => token::run(verb).map_err(|error| error.to_string()),
        Verb::Backup(backup) => backup::run(&backup).map_err(|error| error.to_string()),
        Verb::Restore(restore) => restore::run(&restore).map_err(|error| error.to_string()),
        Verb::Copy(database) => copy::run(&database).map_err(|error| error.to_string()),
        Verb::Locks(verb) => locks::run(&verb),
        Verb::Health(target) => health::run(&target),
        Verb::Mcp(flags) => mcp::run(flags),
        // It has exit codes of its own.
        Verb::Run(_) => Ok(()),
        Verb::Completions { shell } => {
            pages::completions(shell.shell());
            Ok(())
        }
        Verb::Man => pages::manual().map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_the_command_line_definition() {
        Lockhouse::command().debug_assert();
    }

    #[test]
    fn flags_match_the_settings_that_have_one() {
        let command = Lockhouse::command();
        let serve = command.find_subcommand("serve").unwrap();
        let flags = serve.get_arguments().filter_map(|flag| Some(format!("--{}", flag.get_long()?)));
        let others = ["--config", "--fence-at-least"];
        let flags: Vec<_> = flags.filter(|flag| !others.contains(&flag.as_str())).collect();
        let settings: Vec<_> = config::SETTINGS.iter().filter_map(|setting| setting.flag).collect();
        assert_eq!(flags, settings);
    }
}
