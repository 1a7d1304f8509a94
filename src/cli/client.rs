//! The flags and variables of the commands that call a running server.

use std::path::PathBuf;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Settings;
use super::http::RemoteServer;
use crate::config;

/// What is percent-encoded in a path or a header: all but the unreserved characters (RFC 3986 §2.3).
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The flags that select the server.
#[derive(Debug, Args)]
pub(super) struct ServerFlags {
    /// The server: http://HOST:PORT or unix:PATH [default: LOCKHOUSE_URL, else server.listen of the settings].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Read server.listen from this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The flags that select the server and the caller.
#[derive(Debug, Args)]
pub(super) struct CallerFlags {
    #[command(flatten)]
    target: ServerFlags,
    /// The user to act for, with auth.mode "none" or a token that may act for others [default: LOCKHOUSE_USER].
    #[arg(long, value_name = "ID")]
    user: Option<String>,
}

/// A server, and the headers that identify the caller.
pub(super) struct ApiClient {
    server: RemoteServer,
    headers: Vec<(&'static str, String)>,
}

impl ServerFlags {
    pub(super) fn server(&self) -> Result<RemoteServer, String> {
        if let Some(url) = self.url.clone().map_or_else(|| variable("LOCKHOUSE_URL"), |url| Ok(Some(url)))? {
            return RemoteServer::parse(&url);
        }
        // Only the address is needed. The server's secrets may be in its own environment only.
        let settings = Settings { config: self.config.clone(), listen: None, database: None };
        let read = config::read(&settings.sources()).map_err(|error| error.to_string())?;
        RemoteServer::listening(&read.config.server.listen)
    }
}

impl CallerFlags {
    pub(super) fn api(&self) -> Result<ApiClient, String> {
        let mut headers = Vec::new();
        if let Some(token) = token()? {
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        let user = self.user.clone().map_or_else(|| variable("LOCKHOUSE_USER"), |user| Ok(Some(user)))?;
        if let Some(user) = user {
            headers.push(("X-User-Id", encoded(&user)));
        }
        Ok(ApiClient { server: self.target.server()?, headers })
    }
}

impl ApiClient {
    /// Calls an operation. A status other than 200 is an error.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, String> {
        let Self { server, headers } = self;
        let response = server
            .call(method, &format!("/api/v1{path}"), headers, body)
            .map_err(|error| format!("{server} {error}"))?;
        if let (200, Some(body)) = (response.status, response.body()) {
            return Ok(body);
        }
        let hint = match response.status {
            401 => " Set LOCKHOUSE_TOKEN or LOCKHOUSE_TOKEN_FILE; with auth.mode \"none\", give --user.",
            _ => "",
        };
        Err(format!("{server} refuses: {}{hint}", response.problem()))
    }
}

/// Percent-encodes a value for a path or a header.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string()
}

/// A variable of the environment. An empty one counts as not set.
fn variable(name: &str) -> Result<Option<String>, String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(|value| value.into_string().map_err(|_| format!("{name} is not UTF-8"))).transpose()
}

/// The token. It is never shown, and never a flag: other users can see the flags of a process.
fn token() -> Result<Option<String>, String> {
    let (source, token) = match (variable("LOCKHOUSE_TOKEN")?, variable("LOCKHOUSE_TOKEN_FILE")?) {
        (None, None) => return Ok(None),
        (Some(token), _) => ("LOCKHOUSE_TOKEN".to_owned(), token),
        (None, Some(file)) => {
            let token = std::fs::read_to_string(&file)
                .map_err(|error| format!("cannot read the token in {file}: {error}"))?;
            (file, token)
        }
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{source} has no token: it must be one word of ASCII characters"));
    }
    Ok(Some(token.to_owned()))
}
