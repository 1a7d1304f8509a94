//! The table of all settings.

use super::auth::AUTH;
use super::locks::LOCKS;
use super::server::SERVER;
use super::values::{
    Given, choice, duration, duration_or, show_choice, show_duration, show_duration_or, show_size, size,
};
use super::{Config, LogFormat};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// One setting.
pub struct Setting {
    /// The TOML table.
    pub section: &'static str,
    /// The key in it.
    pub name: &'static str,
    /// What it is for, in sentences.
    pub about: &'static str,
    /// What may be given, as the end of an error message.
    pub allowed: &'static str,
    /// Whether its value must not be shown.
    pub secret: bool,
    /// Puts what was typed into the configuration.
    pub read: fn(&mut Config, Given) -> Result<(), ()>,
    /// The value as TOML.
    pub show: fn(&Config) -> String,
}

impl Setting {
    /// `section.name`
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `LOCKHOUSE_SECTION_NAME`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LOCKHOUSE_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

const LOG_FORMAT: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// All settings, in the order in which they are shown.
pub fn settings() -> impl Iterator<Item = &'static Setting> + Clone {
    SERVER.iter().chain(DATABASE).chain(LOCKS).chain(OTHERS).chain(AUTH).chain(LOG)
}

const DATABASE: &[Setting] = &[
    Setting {
        section: "database",
        name: "path",
        about: "The SQLite file. It is made if it is not there, readable by its owner only.",
        allowed: "it takes the path of a file, such as \"lockhouse.db\"",
        secret: false,
        read: |config, given| {
            let text = given.text()?;
            // SQLite would take these for a database in memory, or for a URI.
            if text.is_empty() || text == ":memory:" || text.starts_with("file:") || text.contains('\0') {
                return Err(());
            }
            config.database.path = PathBuf::from(text);
            Ok(())
        },
        show: |config| format!("{:?}", config.database.path.to_string_lossy()),
    },
    Setting {
        section: "database",
        name: "busy_timeout",
        about: "How long a write waits while another process holds the database, a backup say, before it is\n\
                answered with 503.",
        allowed: "it takes a duration of up to an hour, such as \"500ms\" or \"5s\"",
        secret: false,
        read: |config, given| {
            config.database.busy_timeout = duration(given)?;
            if config.database.busy_timeout > Duration::from_secs(3_600) { Err(()) } else { Ok(()) }
        },
        show: |config| show_duration(config.database.busy_timeout),
    },
    Setting {
        section: "database",
        name: "max_size",
        about: "The size that the database file may grow to, so that it leaves room on the disk. Once it is\n\
                reached, what needs more room is answered with 507; reads go on.",
        allowed: "it takes a size of at least \"64KiB\", such as \"512MiB\" or \"2GiB\", or \"unlimited\"",
        secret: false,
        read: |config, given| {
            config.database.max_size = size(given)?;
            Ok(())
        },
        show: |config| show_size(config.database.max_size),
    },
];

const OTHERS: &[Setting] = &[
    Setting {
        section: "sweeper",
        name: "interval",
        about: "How often expired locks are cleared from the file and old history is trimmed. Nothing depends on\n\
                it but the size of the file: an expired lock is gone for everybody at once. \"never\" turns it off.",
        allowed: "it takes a duration such as \"30s\", or \"never\"",
        secret: false,
        read: |config, given| {
            config.sweeper.interval = duration_or("never", given)?;
            Ok(())
        },
        show: |config| show_duration_or("never", config.sweeper.interval),
    },
    Setting {
        section: "history",
        name: "keep",
        about: "How long the history of the locks is kept, or \"forever\".",
        allowed: "it takes a duration such as \"30d\", or \"forever\"",
        secret: false,
        read: |config, given| {
            config.history.keep = duration_or("forever", given)?;
            Ok(())
        },
        show: |config| show_duration_or("forever", config.history.keep),
    },
];

const LOG: &[Setting] = &[
    Setting {
        section: "log",
        name: "level",
        about: "What is logged to standard error: \"error\", \"warn\", \"info\" (requests, takeovers, handovers, revoked\n\
                locks, tokens), \"debug\" (heartbeats and every lock that begins or ends, too), \"trace\" or \"off\".",
        allowed: "it takes \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        secret: false,
        read: |config, given| {
            config.log.level = given.text()?.parse().map_err(drop)?;
            Ok(())
        },
        show: |config| format!("\"{}\"", config.log.level).to_ascii_lowercase(),
    },
    Setting {
        section: "log",
        name: "format",
        about: "How a line of the log looks: \"text\" for people, \"json\" for programs.",
        allowed: "it takes \"text\" or \"json\"",
        secret: false,
        read: |config, given| {
            config.log.format = choice(given, LOG_FORMAT)?;
            Ok(())
        },
        show: |config| show_choice(&config.log.format, LOG_FORMAT),
    },
];

/// The setting `section.name`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.section == section && setting.name == name)
}

/// The sections, in the order in which they are shown.
pub fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    settings().filter_map(move |setting| {
        let new = setting.section != last;
        last = setting.section;
        new.then_some(setting.section)
    })
}

/// `config.example.toml`: every setting with its default and what it is for.
#[must_use]
pub fn example() -> String {
    let config = Config::default();
    let mut text = String::from(
        "# Lockhouse needs no configuration. These are all settings with their defaults; keep what you change.\n\
         # Start it with `lockhouse serve --config FILE`; `lockhouse check --config FILE` shows what it makes of it.\n\
         # Each is also an environment variable, LOCKHOUSE_<SECTION>_<NAME>, which goes before the file.\n",
    );
    for section in sections() {
        text.push_str("\n[");
        text.push_str(section);
        text.push_str("]\n");
        for setting in settings().filter(|setting| setting.section == section) {
            for line in setting.about.lines() {
                text.push_str("# ");
                text.push_str(line);
                text.push('\n');
            }
            let _ = writeln!(text, "{} = {}", setting.name, (setting.show)(&config));
        }
    }
    text
}

/// The settings as they are in force, as TOML; secrets are not shown.
#[must_use]
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    for section in sections() {
        let _ = writeln!(text, "[{section}]");
        for setting in settings().filter(|setting| setting.section == section) {
            let shown = (setting.show)(config);
            if setting.secret && shown != (setting.show)(&Config::default()) {
                let _ = writeln!(text, "# {} is set, and is not shown", setting.name);
            } else {
                let _ = writeln!(text, "{} = {shown}", setting.name);
            }
        }
        text.push('\n');
    }
    text
}
