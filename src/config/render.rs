//! Texts that are generated from the table of settings.

use std::fmt::Write as _;

use super::settings::{Config, SETTINGS, sections};

/// `config.example.toml`: every setting with its default and its description.
#[must_use]
pub fn example() -> String {
    let config = Config::default();
    let mut text = String::from(
        "# Lockhouse needs no configuration. These are all settings with their defaults; keep those that you change.\n\
         # Start it with `lockhouse serve --config FILE`; `lockhouse check --config FILE` shows the settings in force.\n\
         # Each is also an environment variable, LOCKHOUSE_<SECTION>_<NAME>, which takes precedence over the file.\n",
    );
    for (section, settings) in sections() {
        // Writing into a string does not fail.
        let _ = writeln!(text, "\n[{section}]");
        for setting in settings {
            setting.lines().for_each(|line| text.extend(["# ", line, "\n"]));
            let _ = writeln!(text, "{} = {}", setting.name, setting.show(&config));
        }
    }
    text
}

/// `docs/settings.md`: the reference of all settings.
#[must_use]
pub fn page() -> String {
    let config = Config::default();
    let mut text = String::from(
        "# Settings\n\n\
         Lockhouse needs no configuration. A setting comes from a flag, an environment variable or the TOML file that\n\
         `--config FILE` names, in this order of precedence. `lockhouse check` prints the settings in force. A setting that\n\
         does not exist and a value that cannot be used are refused at the start. In an environment variable a list is\n\
         written with commas between its entries.\n\n\
         This page and `config.example.toml` are generated from the code.\n",
    );
    for (section, settings) in sections() {
        let _ = writeln!(text, "\n## [{section}]");
        for setting in settings {
            let _ = writeln!(text, "\n### `{}`\n", setting.key());
            setting.lines().for_each(|line| text.extend([line, "\n"]));
            let flag = setting.flag.map_or_else(String::new, |flag| format!(", `{flag}`"));
            let _ = writeln!(
                text,
                "\nDefault: `{}`. It takes {}. Also: `{}`{flag}.",
                setting.show(&config),
                setting.allowed,
                setting.variable()
            );
        }
    }
    text
}

/// The settings that differ from their defaults, as one line for the log. Secrets are not shown.
#[must_use]
pub fn changed(config: &Config) -> String {
    let default = Config::default();
    let changed = SETTINGS.iter().filter(|setting| setting.show(config) != setting.show(&default));
    let shown = changed.map(|setting| {
        let shown = if setting.is_secret { "(not shown)".to_owned() } else { setting.show(config) };
        format!("{} = {shown}", setting.key())
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The settings in force, as TOML. Secrets are not shown.
#[must_use]
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    for (section, settings) in sections() {
        let _ = writeln!(text, "[{section}]");
        for setting in settings {
            let shown = setting.show(config);
            let _ = if setting.is_secret && shown != setting.show(&Config::default()) {
                writeln!(text, "# {} is set, and is not shown", setting.name)
            } else {
                writeln!(text, "{} = {shown}", setting.name)
            };
        }
        text.push('\n');
    }
    text
}
