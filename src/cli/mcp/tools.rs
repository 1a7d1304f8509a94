//! The tools of `lockhouse mcp`.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::client::{PATIENCE, encoded, set};
use super::super::http::ServerAnswer;
use super::held::AgentSession;
use super::view::LockView;
use crate::time::since_boot;

/// The longest wait of one request, and of a tool call.
const MAX_REQUEST: Duration = Duration::from_secs(60);
const MAX_WAIT: Duration = Duration::from_secs(600);
/// The number of locks that are listed.
const LISTED: usize = 100;

/// The result of a tool: sentences, the same for programs, and whether it failed.
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) structured: Map<String, Value>,
    pub(super) is_error: bool,
}

/// Why a tool was not run.
pub(super) enum NoTool {
    Unknown,
    InvalidArguments(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneWorkspace {
    workspace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireArguments {
    workspace: String,
    note: Option<String>,
    /// In seconds.
    wait: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskArguments {
    workspace: String,
    message: Option<String>,
}

#[derive(Deserialize)]
struct StateAnswer {
    lock: Option<LockView>,
}

#[derive(Deserialize)]
struct AcquiredAnswer {
    lock: LockView,
}

#[derive(Deserialize)]
struct LocksAnswer {
    locks: Vec<LockView>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct ReleasedAnswer {
    released: bool,
}

#[derive(Deserialize)]
struct KnockedAnswer {
    auto_grant_in_ms: Option<u64>,
}

/// The definitions of the tools.
pub(super) fn definitions() -> Value {
    let workspace = json!({ "type": "string", "description": "The id of the workspace: the document, folder or project." });
    let tool = |name: &str, title: &str, about: &str, mut properties: Value, is_read_only: bool| {
        let mut required = json!([]);
        if name != "lock_list" {
            set(&mut properties, "workspace", workspace.clone());
            required = json!(["workspace"]);
        }
        json!({
            "name": name,
            "title": title,
            "description": about,
            "inputSchema": { "type": "object", "properties": properties, "required": required, "additionalProperties": false },
            "annotations": { "readOnlyHint": is_read_only, "destructiveHint": false, "openWorldHint": false },
        })
    };
    json!([
        tool(
            "lock_status",
            "Who is editing",
            "Says who is editing a workspace, and whether you may write to it. Locks nothing.",
            json!({}),
            true
        ),
        tool(
            "lock_acquire",
            "Acquire a lock",
            "Acquires the lock of a workspace. Call it before you write to the workspace, and write only if it says that you have the lock. The lock is renewed while this session lives.",
            json!({
                "note": { "type": "string", "description": "What you are about to do. People see it." },
                "wait": { "type": "number", "minimum": 0, "maximum": 600, "description": "Seconds to wait if another holder has the lock. Default: 0. People come first in the line." },
            }),
            false,
        ),
        tool(
            "lock_release",
            "Release a lock",
            "Releases a lock that you hold. Call it when you have saved.",
            json!({}),
            false
        ),
        tool(
            "lock_list",
            "List the locks",
            "Lists the locks that are held now, by people and by agents.",
            json!({ "prefix": { "type": "string", "description": "Only workspaces whose id begins with this." } }),
            true,
        ),
        tool(
            "lock_ask",
            "Ask for a lock",
            "Asks the holder of a workspace to let you have it. They see your message.",
            json!({ "message": { "type": "string", "description": "Why you ask, for a person." } }),
            false,
        ),
    ])
}

/// Runs a tool. The name is that of the agent.
pub(super) fn call(
    session: &AgentSession,
    agent: Option<&str>,
    name: &str,
    arguments: Value,
) -> Result<Outcome, NoTool> {
    session.touch();
    let outcome = match name {
        "lock_status" => status(session, &parsed::<OneWorkspace>(arguments)?.workspace),
        "lock_acquire" => acquire(session, agent, parsed(arguments)?)?,
        "lock_release" => release(session, &parsed::<OneWorkspace>(arguments)?.workspace),
        "lock_list" => list(session, parsed::<ListArguments>(arguments)?.prefix.as_deref()),
        "lock_ask" => ask(session, agent, &parsed(arguments)?),
        _ => return Err(NoTool::Unknown),
    };
    Ok(outcome.unwrap_or_else(|why| Outcome {
        text: format!(
            "Lockhouse did not do it: {why} Do not write to a workspace whose lock you do not have."
        ),
        structured: Map::from_iter([("error".to_owned(), Value::from(why))]),
        is_error: true,
    }))
}

fn parsed<T: DeserializeOwned>(arguments: Value) -> Result<T, NoTool> {
    let arguments = if arguments.is_null() { json!({}) } else { arguments };
    serde_json::from_value(arguments).map_err(|error| NoTool::InvalidArguments(error.to_string()))
}

fn told(text: String, structured: Value) -> Outcome {
    let structured = if let Value::Object(structured) = structured { structured } else { Map::new() };
    Outcome { text, structured, is_error: false }
}

fn status(session: &AgentSession, workspace_id: &str) -> Result<Outcome, String> {
    let answer = session.api.get(&format!("/workspaces/{}/lock", encoded(workspace_id)));
    let answer = answer.map_err(|error| session.api.failed(&error))?;
    let Some(StateAnswer { lock }) = answer.body().filter(|_| answer.status == 200) else {
        return Err(session.api.refused(&answer));
    };
    Ok(match lock {
        Some(lock) if lock.is_of(&session.id) => told(lock.permission(), lock.structured(&session.id)),
        Some(lock) => told(lock.warning(), lock.structured(&session.id)),
        None => told(
            format!("Nobody is editing {workspace_id}. Acquire its lock before you write to it."),
            json!({ "workspace": workspace_id, "locked": false, "held_by_you": false }),
        ),
    })
}

fn acquire(
    session: &AgentSession,
    agent: Option<&str>,
    arguments: AcquireArguments,
) -> Result<Result<Outcome, String>, NoTool> {
    let AcquireArguments { workspace, note, wait } = arguments;
    let wait = Duration::try_from_secs_f64(wait.unwrap_or(0.0))
        .map_err(|_| NoTool::InvalidArguments("wait must be a number of seconds, 0 to 600".to_owned()))?;
    let until = since_boot() + wait.min(MAX_WAIT);
    if !session.begin(&workspace) {
        return Ok(Err("this session is ending.".to_owned()));
    }
    let answer = acquire_until(session, agent, (&workspace, note.as_deref()), until);
    let acquired = answer.as_ref().ok().filter(|answer| answer.status == 200);
    let acquired: Option<AcquiredAnswer> = acquired.and_then(ServerAnswer::body);
    let goes_on = session.end(&workspace, acquired.as_ref().map(|acquired| &acquired.lock));
    let Some(AcquiredAnswer { lock }) = acquired else {
        return Ok(answer.and_then(|answer| not_acquired(session, &answer)));
    };
    if !goes_on {
        let _ = session.release(&workspace, Some(lock.fence));
        return Ok(Err("this session is ending.".to_owned()));
    }
    // A lease that was granted after a wait is claimed by a heartbeat.
    if session.renew().iter().any(|loss| loss.workspace_id == workspace) {
        return Ok(Err("the lock was lost again at once.".to_owned()));
    }
    let mut structured = lock.structured(&session.id);
    set(&mut structured, "acquired", true);
    Ok(Ok(told(lock.permission(), structured)))
}

/// Asks for the lock until the wait is over.
fn acquire_until(
    session: &AgentSession,
    agent: Option<&str>,
    (workspace_id, note): (&str, Option<&str>),
    until: Duration,
) -> Result<ServerAnswer, String> {
    loop {
        let wait = until.saturating_sub(since_boot()).min(MAX_REQUEST);
        let mut body = json!({ "kind": "agent", "session_id": session.id });
        set(&mut body, "wait_ms", u64::try_from(wait.as_millis()).unwrap_or(0));
        if let Some(agent) = agent {
            set(&mut body, "name", agent);
        }
        if let Some(note) = note {
            set(&mut body, "note", note);
        }
        let answer = session.post(workspace_id, "", body, wait + PATIENCE)?;
        if ![409, 429].contains(&answer.status) || since_boot() >= until {
            return Ok(answer);
        }
        // A refusal that came at once is not asked for again at once.
        std::thread::park_timeout(Duration::from_secs(1).min(until.saturating_sub(since_boot())));
    }
}

fn not_acquired(session: &AgentSession, answer: &ServerAnswer) -> Result<Outcome, String> {
    let Some(AcquiredAnswer { lock }) = answer.body().filter(|_| answer.status == 409) else {
        return Err(session.api.refused(answer));
    };
    let mut structured = lock.structured(&session.id);
    set(&mut structured, "acquired", false);
    Ok(told(lock.warning(), structured))
}

fn release(session: &AgentSession, workspace_id: &str) -> Result<Outcome, String> {
    let Some(fence) = session.fence(workspace_id) else {
        return Ok(told(
            format!("You do not have the lock of {workspace_id}, so there is nothing to release."),
            json!({ "workspace": workspace_id, "released": false }),
        ));
    };
    let answer = session.release(workspace_id, Some(fence))?;
    let released = answer.body().is_some_and(|ReleasedAnswer { released }| released);
    let text = if released {
        format!("You have released the lock of {workspace_id}. Do not write to it any more.")
    } else if answer.status == 200 || answer.status == 403 {
        format!("You had already lost the lock of {workspace_id}. Do not write to it any more.")
    } else {
        return Err(session.api.refused(&answer));
    };
    Ok(told(text, json!({ "workspace": workspace_id, "released": released })))
}

fn list(session: &AgentSession, prefix: Option<&str>) -> Result<Outcome, String> {
    let prefix = prefix.map(|prefix| format!("&prefix={}", encoded(prefix))).unwrap_or_default();
    let answer = session.api.get(&format!("/locks?limit={LISTED}{prefix}"));
    let answer = answer.map_err(|error| session.api.failed(&error))?;
    let Some(LocksAnswer { locks, next_cursor }) = answer.body().filter(|_| answer.status == 200) else {
        return Err(session.api.refused(&answer));
    };
    let mut lines: Vec<_> = locks
        .iter()
        .map(|lock| if lock.is_of(&session.id) { lock.permission() } else { lock.warning() })
        .collect();
    if lines.is_empty() {
        lines.push("Nobody is editing anything.".to_owned());
    }
    if next_cursor.is_some() {
        lines.push(format!("These are the first {LISTED}. There are more: give a prefix."));
    }
    let locks: Vec<_> = locks.iter().map(|lock| lock.structured(&session.id)).collect();
    Ok(told(lines.join("\n"), json!({ "locks": locks, "more": next_cursor.is_some() })))
}

fn ask(session: &AgentSession, agent: Option<&str>, arguments: &AskArguments) -> Result<Outcome, String> {
    let AskArguments { workspace, message } = arguments;
    let mut body = json!({ "kind": "agent", "session_id": session.id });
    if let Some(message) = message {
        set(&mut body, "message", message.as_str());
    }
    if let Some(agent) = agent {
        set(&mut body, "name", agent);
    }
    let answer = session.post(workspace, "/knock", body, PATIENCE)?;
    let asked: Option<KnockedAnswer> = answer.body().filter(|_| answer.status == 202);
    let text = match asked {
        Some(KnockedAnswer { auto_grant_in_ms: Some(left) }) => format!(
            "You have asked for {workspace}. If the holder does not answer, it passes to you in {} s. Then call lock_acquire.",
            left.div_ceil(1_000)
        ),
        Some(KnockedAnswer { auto_grant_in_ms: None }) => format!(
            "You have asked for {workspace}. It does not pass to you by itself: wait for the holder, or work elsewhere."
        ),
        None if answer.code().as_deref() == Some("lock_not_found") => {
            format!("Nobody is editing {workspace}. Call lock_acquire.")
        }
        None => return Err(session.api.refused(&answer)),
    };
    Ok(told(text, json!({ "workspace": workspace, "asked": answer.status == 202 })))
}
