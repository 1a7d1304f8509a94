//! `[[webhooks]]`: the receivers of events. They are in the file only.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Uri;

use super::kinds::{Kind, list, name, path, text};
use super::setting::Setting;
use crate::domain::event::EventType;

/// Maximum number of webhooks. Each has a thread.
pub const MAX_WEBHOOKS: usize = 32;
/// Maximum length of a name (bytes).
const MAX_NAME_BYTES: usize = 64;
/// Maximum length of a URL (bytes).
const MAX_URL_BYTES: usize = 2_048;
/// Minimum length of a decoded secret (bytes).
const MIN_SECRET_BYTES: usize = 24;
/// Maximum length of a file with a secret (bytes).
const MAX_SECRET_FILE_BYTES: u64 = 4_096;
/// How long a receiver has to answer. With the longest pause after it, a silent receiver is tried again within 35 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Unique and plain: it is in paths, metrics and the database.
    pub name: String,
    /// An absolute URL, `http` or `https`.
    pub url: String,
    /// The key of the signatures. After [`super::load()`] it is always there.
    pub secret: Option<WebhookSecret>,
    /// The file with the secret.
    pub secret_file: Option<PathBuf>,
    /// The types of events to send; empty means all.
    pub events: Vec<EventType>,
    /// Only events of workspaces whose id begins like this are sent.
    pub workspace_prefix: String,
    /// How long the receiver has to answer, from the first look-up of its name on. It is not a setting.
    pub answer_within: Duration,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            secret: None,
            secret_file: None,
            events: Vec::new(),
            workspace_prefix: String::new(),
            answer_within: ANSWER_WITHIN,
        }
    }
}

/// The key of the signatures, decoded. It is never shown, also not by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Parses `whsec_` and the base64 of at least 24 bytes. `None` if it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (key.len() >= MIN_SECRET_BYTES).then_some(Self(key))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

const SECRET: &str = "whsec_ and the base64 of at least 24 bytes";

/// The settings of a webhook.
pub(super) static FIELDS: LazyLock<Vec<Setting<Webhook>>> = LazyLock::new(|| {
    vec![
        Setting::new(
            [
                "webhooks",
                "name",
                "The name, in the console, the log, the metrics and the database. The position is kept under it.",
            ],
            name("1 to 64 letters, digits, - and _").only_if(|name| is_plain(name)),
            |webhook: &Webhook| &webhook.name,
            |webhook| &mut webhook.name,
        ),
        Setting::new(
            ["webhooks", "url", "Where events are sent by POST. Redirects are not followed."],
            name("an http or https URL without a user, a password and a fragment").only_if(|url| is_url(url)),
            |webhook| &webhook.url,
            |webhook| &mut webhook.url,
        ),
        Setting::new(
            [
                "webhooks",
                "secret",
                "The secret of the signatures. Others must not be able to read the settings file then.",
            ],
            secret(),
            |webhook| &webhook.secret,
            |webhook| &mut webhook.secret,
        ),
        Setting::new(
            ["webhooks", "secret_file", "Instead of `secret`: a file that has it."],
            path("the path of a file").or(""),
            |webhook| &webhook.secret_file,
            |webhook| &mut webhook.secret_file,
        ),
        Setting::new(
            ["webhooks", "events", "The types of events to send. Empty: all."],
            event_types(),
            |webhook| &webhook.events,
            |webhook| &mut webhook.events,
        ),
        Setting::new(
            ["webhooks", "workspace_prefix", "Only events of workspaces whose id begins like this are sent."],
            text("a text"),
            |webhook| &webhook.workspace_prefix,
            |webhook| &mut webhook.workspace_prefix,
        ),
    ]
});

fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.len() <= MAX_NAME_BYTES && name.bytes().all(is_plain)
}

fn is_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_authority = uri.authority().is_some_and(|authority| {
        let named = authority.as_str();
        let port = named.strip_prefix(authority.host()).unwrap_or("?");
        !authority.host().is_empty() && (port.is_empty() || authority.port_u16().is_some_and(|port| port > 0))
    });
    url.len() <= MAX_URL_BYTES && !url.contains('#') && has_scheme && is_authority
}

fn secret() -> Kind<Option<WebhookSecret>> {
    let read = |value: &toml::Value| value.as_str().and_then(WebhookSecret::parse).map(Some);
    Kind { is_secret: true, ..Kind::new(SECRET, read, |_| "(not shown)".into()) }
}

fn event_types() -> Kind<Vec<EventType>> {
    let all = EventType::names();
    let names: Vec<_> = all.iter().map(|name| format!("{name:?}")).collect();
    let one = Kind::new(
        format!("types of events, of {}", names.join(", ")),
        |value| EventType::parse(value.as_str()?),
        |event_type: &EventType| event_type.as_str().into(),
    );
    list(all.len(), one)
}

impl Webhook {
    /// Checks what must be given, and the names of the others. The error is the end of a sentence about this
    /// webhook.
    pub(super) fn check(&self, others: &[Self]) -> Result<(), String> {
        let missing = [("name", &self.name), ("url", &self.url)];
        if let Some((name, _)) = missing.into_iter().find(|(_, value)| value.is_empty()) {
            return Err(format!("a webhook needs {name}"));
        }
        let name = &self.name;
        if self.secret.is_some() == self.secret_file.is_some() {
            return Err(format!("the webhook {name} needs either secret or secret_file: {SECRET}"));
        }
        if others.iter().any(|other| other.name == *name) {
            return Err(format!("there are two webhooks with the name {name}"));
        }
        if others.len() >= MAX_WEBHOOKS {
            return Err(format!("there are more than {MAX_WEBHOOKS} webhooks"));
        }
        Ok(())
    }

    /// Reads the file with the secret.
    pub(super) fn read_secret(&mut self) -> Result<(), String> {
        let Some(path) = &self.secret_file else { return Ok(()) };
        let shown = format!("webhook {}: the secret in {}", self.name, path.display());
        let text = read_limited(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let secret = WebhookSecret::parse(text.trim());
        self.secret = Some(secret.ok_or_else(|| format!("{shown} cannot be used; it takes {SECRET}"))?);
        Ok(())
    }
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_SECRET_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
