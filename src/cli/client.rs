//! The flags and variables of the commands that call a running server.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Settings;
use super::http::{ApiRequest, RemoteServer, ServerAnswer};
use crate::config;

/// What is percent-encoded in a path or a header: all but the unreserved characters (RFC 3986 §2.3).
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long a command waits for a response.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The flags that select the server.
#[derive(Debug, Args)]
pub(super) struct ServerFlags {
    /// The server: http://HOST:PORT, the same with https, or unix:PATH [default: LOCKHOUSE_URL, else server.listen of the settings].
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
#[derive(Clone)]
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
        self.api_with(None)
    }

    /// The same, with the token in a file, if one is given.
    pub(super) fn api_with(&self, token_file: Option<&Path>) -> Result<ApiClient, String> {
        let mut headers = Vec::new();
        if let Some(token) = token(token_file)? {
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
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, String> {
        let response = self.server.call(&self.request(method, path, body.cloned()), PATIENCE);
        let response = response.map_err(|error| self.failed(&error))?;
        if let (200, Some(body)) = (response.status, response.body()) {
            return Ok(body);
        }
        Err(self.refused(&response))
    }

    /// Sends a request. `done` gets the response, or why there is none.
    pub(super) fn start(
        &self,
        method: &'static str,
        path: &str,
        body: Value,
        timeout: Duration,
        done: impl FnOnce(Result<ServerAnswer, String>) + Send + 'static,
    ) {
        self.server.start(&self.request(method, path, Some(body)), timeout, done);
    }

    /// Sends a request and waits for the response, which may have an error status.
    pub(super) fn post(&self, path: &str, body: Value, timeout: Duration) -> Result<ServerAnswer, String> {
        self.server.call(&self.request("POST", path, Some(body)), timeout)
    }

    /// Reads. Waits for the response, which may have an error status.
    pub(super) fn get(&self, path: &str) -> Result<ServerAnswer, String> {
        self.server.call(&self.request("GET", path, None), PATIENCE)
    }

    /// Opens the stream of events of a workspace. Each line comes within `silence`, or the stream ends.
    pub(super) fn follow(&self, workspace_id: &str, silence: Duration) -> Result<impl BufRead, String> {
        let path = format!("/events?workspace_id={}", encoded(workspace_id));
        self.server.open(&self.request("GET", &path, None), silence)
    }

    /// The sentence about a request that was not answered.
    pub(super) fn failed(&self, error: &str) -> String {
        format!("{} {error}", self.server)
    }

    /// The sentence about a response that is a refusal.
    pub(super) fn refused(&self, response: &ServerAnswer) -> String {
        let hint = match response.status {
            401 => " Set LOCKHOUSE_TOKEN or LOCKHOUSE_TOKEN_FILE; with auth.mode \"none\", give --user.",
            _ => "",
        };
        format!("{} refuses: {}{hint}", self.server, response.problem())
    }

    fn request(&self, method: &'static str, path: &str, body: Option<Value>) -> ApiRequest {
        ApiRequest { method, path: format!("/api/v1{path}"), headers: self.headers.clone(), body }
    }
}

/// Percent-encodes a value for a path or a header.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string()
}

/// Sets a member of a JSON object.
pub(super) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

/// A variable of the environment. An empty one counts as not set.
fn variable(name: &str) -> Result<Option<String>, String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(|value| value.into_string().map_err(|_| format!("{name} is not UTF-8"))).transpose()
}

/// The token. It is never shown, and never a flag: other users can see the flags of a process.
fn token(file: Option<&Path>) -> Result<Option<String>, String> {
    let file = file.map(|file| file.display().to_string());
    let token = if file.is_some() { None } else { variable("LOCKHOUSE_TOKEN")? };
    let file = if file.is_some() { file } else { variable("LOCKHOUSE_TOKEN_FILE")? };
    let (source, token) = match (token, file) {
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
