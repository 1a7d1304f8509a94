//! Texts that are generated from the table of settings.

use std::fmt::Write as _;

use super::setting::Setting;
use super::settings::{Config, SETTINGS, sections};
use super::webhooks::{FIELDS, MAX_WEBHOOKS, Webhook};

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
    let _ = writeln!(
        text,
        "\n# Receivers of events, up to {MAX_WEBHOOKS}: see docs/webhooks.md.\n# [[webhooks]]"
    );
    let webhook = Webhook {
        name: "app".to_owned(),
        url: "https://app.example/lockhouse".to_owned(),
        secret_file: Some("/etc/lockhouse/app.secret".into()),
        ..Webhook::default()
    };
    for field in FIELDS.iter() {
        field.lines().for_each(|line| text.extend(["# ", line, "\n"]));
        let _ = writeln!(text, "# {}", shown(field, &webhook));
    }
    text
}

/// A line of a webhook. The secret is not shown.
fn shown(field: &Setting<Webhook>, webhook: &Webhook) -> String {
    let value = if field.is_secret { "\"whsec_…\"".to_owned() } else { field.show(webhook) };
    format!("{} = {value}", field.name)
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
    let _ = writeln!(
        text,
        "\n## [[webhooks]]\n\nReceivers of events, in the file only, up to {MAX_WEBHOOKS}: see [webhooks](webhooks.md). A webhook has\n"
    );
    for field in FIELDS.iter() {
        let about = field.lines().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "- `{}`: {} It takes {}.", field.name, about.trim_end(), field.allowed);
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
    let names: Vec<_> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
    let webhooks = (!names.is_empty()).then(|| format!("webhooks = {names:?}"));
    shown.chain(webhooks).collect::<Vec<_>>().join(", ")
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
    for webhook in &config.webhooks {
        text.push_str("[[webhooks]]\n");
        for field in FIELDS.iter() {
            let comment = if field.is_secret { "# " } else { "" };
            let _ = writeln!(text, "{comment}{}", shown(field, webhook));
        }
        text.push('\n');
    }
    text
}
