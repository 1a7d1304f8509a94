//! Reads the settings from the file, the environment and the flags.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::check::check;
use super::setting::Setting;
use super::settings::{Config, SETTINGS, sections};
use super::webhooks::{FIELDS, Webhook};

/// Environment variables of commands that call a running server. They are not settings, and cause no
/// warning.
pub const CLIENT_VARIABLES: [&str; 7] = [
    "LOCKHOUSE_URL",
    "LOCKHOUSE_TOKEN",
    "LOCKHOUSE_TOKEN_FILE",
    "LOCKHOUSE_USER",
    "LOCKHOUSE_FENCE",
    "LOCKHOUSE_WORKSPACE",
    "LOCKHOUSE_SESSION",
];

/// An invalid setting. The message names the source, the key, the value and the accepted values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub(super) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The unparsed settings, by source.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    /// The environment variables: names and values.
    pub environment: Vec<(String, String)>,
    /// The flags, such as `--listen`, and their values.
    pub flags: Vec<(&'static str, String)>,
}

/// A [`Config`] and the warnings about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Reads the file, then the environment, then the flags, and checks the result.
///
/// # Errors
/// A [`ConfigError`] that names the source, the key, the value and what is allowed.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loaded = read(sources)?;
    loaded.config.database.read_url().map_err(ConfigError)?;
    check(&loaded.config).map_err(ConfigError)?;
    let webhooks = &mut loaded.config.webhooks;
    webhooks.iter_mut().try_for_each(Webhook::read_secret).map_err(ConfigError)?;
    Ok(loaded)
}

/// Reads the settings like [`load`], but does not check the rules between them. For commands that need single settings
/// only.
///
/// # Errors
/// The errors of [`load`], for single settings.
pub fn read(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), warnings: Vec::new() };
    if let Some(path) = &sources.file {
        read_file(path, &mut loaded.config).map_err(ConfigError)?;
    }
    for (name, value) in &sources.environment {
        read_variable(name, value, &mut loaded).map_err(ConfigError)?;
    }
    for (flag, value) in &sources.flags {
        let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag));
        let setting = setting.ok_or_else(|| ConfigError(format!("there is no flag {flag}")))?;
        set(setting, &value.as_str().into(), flag, &mut loaded.config).map_err(ConfigError)?;
        if *flag == "--database" {
            // It takes precedence over an address of PostgreSQL, too.
            (loaded.config.database.url, loaded.config.database.url_file) = (None, None);
        }
    }
    Ok(loaded)
}

fn set<C: 'static>(setting: &Setting<C>, value: &Value, source: &str, config: &mut C) -> Result<(), String> {
    setting.set(config, value).ok_or_else(|| {
        let shown = if setting.is_secret { "(not shown)".to_owned() } else { value.to_string() };
        format!("{source}: {} = {shown} cannot be used; it takes {}", setting.key(), setting.allowed)
    })
}

fn read_file(path: &Path, config: &mut Config) -> Result<(), String> {
    let file = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the settings in {file}: {error}"))?;
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(&text).map_err(|error| {
        // Only the message is used: the full error shows the line, which may contain a secret.
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
        let column = before.chars().count() + 1;
        format!("{file} is not TOML: line {}, column {column}: {}", line(at), error.message())
    })?;
    let source = |at: usize| format!("{file}:{}", line(at));
    for (at, section, entries) in sections_of(table.into_inner()) {
        let source_of_section = source(at);
        if section == "webhooks" {
            let DeValue::Array(webhooks) = entries else {
                return Err(format!("{source_of_section}: webhooks is a list: write [[webhooks]]"));
            };
            for webhook in webhooks {
                let at = source(webhook.span().start);
                let DeValue::Table(entries) = webhook.into_inner() else {
                    return Err(format!("{at}: webhooks is a list of tables: write [[webhooks]]"));
                };
                let mut webhook = Webhook::default();
                read_table(path, &section, &FIELDS, entries, &mut webhook, source)?;
                webhook.check(&config.webhooks).map_err(|problem| format!("{at}: {problem}"))?;
                config.webhooks.push(webhook);
            }
            continue;
        }
        let Some((_, settings)) = sections().find(|(known, _)| *known == section) else {
            let known: Vec<_> = sections().map(|(known, _)| format!("[{known}]")).collect();
            return Err(format!(
                "{source_of_section}: there is no section [{section}]; there are {} and [[webhooks]]",
                known.join(", ")
            ));
        };
        let DeValue::Table(entries) = entries else {
            return Err(format!("{source_of_section}: {section} is a section: write [{section}]"));
        };
        read_table(path, &section, settings, entries, config, source)?;
    }
    Ok(())
}

/// Reads the entries of a table of the file.
fn read_table<C: 'static>(
    path: &Path,
    section: &str,
    settings: &[Setting<C>],
    entries: DeTable<'_>,
    config: &mut C,
    source: impl Fn(usize) -> String,
) -> Result<(), String> {
    for (name, value) in entries {
        let source = source(name.span().start);
        let setting = settings.iter().find(|setting| setting.name == name.as_ref().as_ref());
        let setting =
            setting.ok_or_else(|| unknown(&source, settings, &format!("{section}.{}", name.as_ref())))?;
        let value = Value::deserialize(ValueDeserializer::from(value)).map_err(|_| {
            format!("{source}: {} cannot be used; it takes {}", setting.key(), setting.allowed)
        })?;
        let is_empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
        if setting.is_secret && !is_empty {
            check_private(path).map_err(|mode| {
                let key = setting.key();
                // A webhook has no environment variables.
                let instead =
                    if section == "webhooks" { "secret_file".to_owned() } else { setting.variable() };
                format!("{source}: {key} is a secret, and others can read this file (mode {mode:o}): chmod 600 it, or use {instead} instead")
            })?;
        }
        set(setting, &value, &source, config)?;
    }
    Ok(())
}

/// The sections of a file: position, name and value. `[kinds.run]` is a table in a table.
fn sections_of(table: DeTable<'_>) -> Vec<(usize, String, DeValue<'_>)> {
    let has_parts = |name: &str| {
        sections().any(|(known, _)| known.split_once('.').is_some_and(|(group, _)| group == name))
    };
    let mut found = Vec::new();
    for (name, value) in table {
        let at = name.span().start;
        match (name.into_inner(), value.into_inner()) {
            (group, DeValue::Table(parts)) if has_parts(&group) => {
                found.extend(parts.into_iter().map(|(name, value)| {
                    (name.span().start, format!("{group}.{}", name.as_ref()), value.into_inner())
                }));
            }
            (name, value) => found.push((at, name.into_owned(), value)),
        }
    }
    found
}

/// Checks that only the owner can read a file. The error is its mode.
fn check_private(path: &Path) -> Result<(), u32> {
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o777);
    // The low six bits are the permissions of the group and of others.
    if mode.trailing_zeros() >= 6 { Ok(()) } else { Err(mode) }
}

/// The message for an unknown setting. It lists the known ones.
fn unknown<C: 'static>(source: &str, settings: &[Setting<C>], key: &str) -> String {
    let section = settings.first().map_or("", |setting| setting.section);
    let known: Vec<_> = settings.iter().map(|setting| setting.name).collect();
    format!("{source}: there is no setting {key}; [{section}] has {}", known.join(", "))
}

fn read_variable(name: &str, value: &str, loaded: &mut Loaded) -> Result<(), String> {
    let Some(rest) = name.strip_prefix("LOCKHOUSE_") else { return Ok(()) };
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) {
        return set(setting, &value.into(), name, &mut loaded.config);
    }
    if CLIENT_VARIABLES.contains(&name) {
        return Ok(());
    }
    let rest = rest.to_ascii_lowercase();
    let begins = |section: &str| {
        let section = section.replace('.', "_");
        rest.strip_prefix(&section).is_some_and(|rest| rest.starts_with('_'))
    };
    if let Some((_, settings)) = sections().find(|(section, _)| begins(section)) {
        return Err(unknown("environment", settings, name));
    }
    // Not refused: Kubernetes sets LOCKHOUSE_PORT and LOCKHOUSE_SERVICE_HOST for a service named lockhouse.
    loaded.warnings.push(format!("the environment variable {name} is not a setting; it is ignored"));
    Ok(())
}
