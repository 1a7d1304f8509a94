//! The Model Context Protocol on lines of JSON: versions, the handshake and the form of messages
//! (<https://modelcontextprotocol.io/specification/>).
//!
//! Up to 2025-11-25 a session begins with `initialize`. From 2026-07-28 each request names its version itself.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::client::set;

/// The versions with `initialize`, the newest last.
const WITH_HANDSHAKE: [&str; 2] = ["2025-06-18", "2025-11-25"];
/// The version without.
const WITHOUT_HANDSHAKE: &str = "2026-07-28";
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CLIENT_KEY: &str = "io.modelcontextprotocol/clientInfo";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";
/// How long a client may keep the list of tools: it does not change while the program runs.
const TOOLS_KEPT_MS: u64 = 3_600_000;
/// The log levels that hide a warning (RFC 5424).
const ABOVE_WARNING: [&str; 4] = ["error", "critical", "alert", "emergency"];

const INSTRUCTIONS: &str = "People and agents edit the same workspaces. Before you write to one, call lock_acquire, and write only if it says that you have the lock. When you have saved, call lock_release. People come first: if a result says that you have lost a lock, stop writing.";

/// A refusal of a request (JSON-RPC 2.0 §5.1).
pub(super) struct RpcError {
    code: i32,
    message: String,
    data: Option<Value>,
}

impl RpcError {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(super) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32_602, message)
    }

    pub(super) fn not_found(method: &str) -> Self {
        Self::new(-32_601, format!("there is no method {method}"))
    }
}

/// A message of the client.
#[derive(Deserialize)]
pub(super) struct Incoming {
    jsonrpc: String,
    /// Missing in a notification.
    #[serde(default, deserialize_with = "present")]
    pub(super) id: Option<Value>,
    /// Missing in an answer.
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Value,
}

/// Tells a member that is null from one that is missing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Parses a line.
pub(super) fn parse(line: &[u8]) -> Result<Incoming, RpcError> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| RpcError::new(-32_700, format!("this is no JSON: {error}")))?;
    let invalid = || RpcError::new(-32_600, "this is no JSON-RPC 2.0 request");
    let message: Incoming = serde_json::from_value(value).map_err(|_| invalid())?;
    let has_id = message.id.as_ref().is_none_or(|id| id.is_string() || id.is_number());
    if message.jsonrpc == "2.0" && has_id { Ok(message) } else { Err(invalid()) }
}

/// The text at a path of members.
pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |value, name| value.get(name))?.as_str()
}

/// What is known of the client.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The name of the agent.
    pub(super) name: Option<String>,
    has_handshake: bool,
    log_level: Option<String>,
}

impl Peer {
    /// Reads what a request says about the client. Returns whether it is of the version without a handshake.
    pub(super) fn note(&mut self, params: &Value) -> Result<bool, RpcError> {
        let Some(version) = text(params, &["_meta", VERSION_KEY]) else { return Ok(false) };
        if version != WITHOUT_HANDSHAKE {
            let supported: Vec<_> = WITH_HANDSHAKE.into_iter().chain([WITHOUT_HANDSHAKE]).collect();
            let data = Some(json!({ "supported": supported, "requested": version }));
            return Err(RpcError { code: -32_022, message: "unsupported protocol version".to_owned(), data });
        }
        self.name_from(params, &["_meta", CLIENT_KEY]);
        if let Some(level) = text(params, &["_meta", LOG_LEVEL_KEY]) {
            self.log_level = Some(level.to_owned());
        }
        Ok(true)
    }

    /// Takes the name of the client from the object at `path`.
    fn name_from(&mut self, params: &Value, path: &[&str]) {
        let name = ["title", "name"].into_iter().find_map(|name| text(params, &[path, &[name]].concat()));
        if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
            self.name = Some(name.chars().take(50).collect());
        }
    }

    /// Answers `initialize`.
    pub(super) fn initialize(&mut self, params: &Value) -> Value {
        self.has_handshake = true;
        self.name_from(params, &["clientInfo"]);
        let asked = text(params, &["protocolVersion"]).unwrap_or_default();
        let newest = WITH_HANDSHAKE.last().copied().unwrap_or_default();
        let version = WITH_HANDSHAKE.into_iter().find(|version| *version == asked).unwrap_or(newest);
        json!({
            "protocolVersion": version,
            "capabilities": capabilities(),
            "serverInfo": server_info(),
            "instructions": INSTRUCTIONS,
        })
    }

    /// Sets the log level (`logging/setLevel`).
    pub(super) fn set_level(&mut self, params: &Value) -> Result<Value, RpcError> {
        let level = text(params, &["level"]).ok_or_else(|| RpcError::invalid_params("level is missing"))?;
        self.log_level = Some(level.to_owned());
        Ok(json!({}))
    }

    /// Whether the client is sent warnings. Without a handshake it must have asked for them.
    pub(super) fn takes_warnings(&self) -> bool {
        match &self.log_level {
            Some(level) => !ABOVE_WARNING.contains(&level.as_str()),
            None => self.has_handshake,
        }
    }
}

fn capabilities() -> Value {
    json!({ "tools": {}, "logging": {} })
}

fn server_info() -> Value {
    json!({ "name": "lockhouse", "title": "Lockhouse", "version": env!("CARGO_PKG_VERSION") })
}

/// Answers `server/discover`.
pub(super) fn discover() -> Value {
    let supported: Vec<_> = WITH_HANDSHAKE.into_iter().chain([WITHOUT_HANDSHAKE]).collect();
    json!({
        "supportedVersions": supported,
        "capabilities": capabilities(),
        "instructions": INSTRUCTIONS,
        "ttlMs": TOOLS_KEPT_MS,
        "cacheScope": "private",
        "_meta": { SERVER_KEY: server_info() },
    })
}

/// Answers `tools/list`.
pub(super) fn tools(definitions: &Value, without_handshake: bool) -> Value {
    let mut result = json!({ "tools": definitions });
    if without_handshake {
        set(&mut result, "ttlMs", TOOLS_KEPT_MS);
        set(&mut result, "cacheScope", "private");
    }
    result
}

/// The answer to a request.
pub(super) fn answer(id: &Value, result: Result<Value, RpcError>, without_handshake: bool) -> Value {
    match result {
        Ok(mut result) => {
            if without_handshake {
                set(&mut result, "resultType", "complete");
            }
            json!({ "jsonrpc": "2.0", "id": id, "result": result })
        }
        Err(RpcError { code, message, data }) => {
            let mut error = json!({ "code": code, "message": message });
            if let Some(data) = data {
                set(&mut error, "data", data);
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    }
}

/// The notification of a warning.
pub(super) fn warning(data: &Value) -> Value {
    let params = json!({ "level": "warning", "logger": "lockhouse", "data": data });
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params })
}
