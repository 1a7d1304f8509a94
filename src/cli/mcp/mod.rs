//! `lockhouse mcp`: a server of the Model Context Protocol, for the locks of an AI agent.
//!
//! The main thread reads requests. Each call of a tool has a thread, so that a call that waits holds up no other. One
//! thread renews the locks.

mod held;
mod protocol;
mod tools;
mod view;

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::held::{AgentSession, Loss};
use self::protocol::{Incoming, Peer, RpcError, text};
use self::tools::{NoTool, Outcome};
use super::client::CallerFlags;
use super::process::pass_on_signals;
use crate::auth::token;

/// How often locks are renewed. So soon a loss is noticed.
const RENEWAL: Duration = Duration::from_secs(5);
/// Size limit of a request, in bytes.
const LINE_BYTES: u64 = 1024 * 1024;
/// Maximum number of calls at a time.
const CALLS: usize = 32;

#[derive(Debug, Args)]
pub(super) struct McpFlags {
    #[command(flatten)]
    caller: CallerFlags,
    /// The name of the agent, which people see [default: the name of its token, else what the client calls itself].
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

/// A server that talks to one client.
struct McpServer {
    session: AgentSession,
    name: Option<String>,
    peer: Mutex<Peer>,
    /// The calls that run. `true` if the call was cancelled.
    calls: Mutex<HashMap<String, Arc<AtomicBool>>>,
    out: Mutex<io::Stdout>,
}

/// Serves until standard input is closed or a signal comes. Releases all locks.
pub(super) fn run(flags: McpFlags) -> Result<(), String> {
    let id = format!("mcp-{}", token::random_id().map_err(|error| error.to_string())?);
    let session = AgentSession::new(flags.caller.api()?, id);
    let server = Arc::new(McpServer {
        session,
        name: flags.name,
        peer: Mutex::default(),
        calls: Mutex::default(),
        out: Mutex::new(io::stdout()),
    });
    let failed = |error: io::Error| format!("cannot start a thread: {error}");
    let (stop, stopped) = channel::<()>();
    let end: Sender<()> = stop.clone();
    pass_on_signals(move |_| {
        let _ = end.send(());
    })
    .map_err(failed)?;
    let reader = Arc::clone(&server);
    Builder::new()
        .name("requests".to_owned())
        .spawn(move || {
            reader.read();
            let _ = stop.send(());
        })
        .map_err(failed)?;
    while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
        server.renew();
    }
    server.session.close();
    Ok(())
}

impl McpServer {
    /// Reads requests until the end of standard input.
    fn read(self: &Arc<Self>) {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut input).take(LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                // Without its end the rest cannot be read either.
                Ok(_) if line.last() != Some(&b'\n') => return,
                Ok(_) => {}
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match protocol::parse(&line) {
                Ok(Incoming { id: Some(id), method: Some(method), params, .. }) => {
                    self.answer(&id, &method, params);
                }
                Ok(Incoming { method: Some(method), params, .. }) if method == "notifications/cancelled" => {
                    self.cancel(params.get("requestId").unwrap_or(&Value::Null));
                }
                // Other notifications, and answers: nothing was asked of the client.
                Ok(_) => {}
                Err(error) => self.send(&protocol::answer(&Value::Null, Err(error), false)),
            }
        }
    }

    /// Answers a request, at once or on a thread.
    fn answer(self: &Arc<Self>, id: &Value, method: &str, params: Value) {
        let noted = self.peer().note(&params);
        let without_handshake = matches!(noted, Ok(true));
        let result = match (noted, method) {
            (Err(error), _) => Err(error),
            (Ok(_), "initialize") => Ok(self.peer().initialize(&params)),
            (Ok(_), "server/discover") => Ok(protocol::discover()),
            (Ok(_), "ping") => Ok(json!({})),
            (Ok(_), "logging/setLevel") => self.peer().set_level(&params),
            (Ok(_), "tools/list") => Ok(protocol::tools(&tools::definitions(), without_handshake)),
            (Ok(_), "tools/call") => match self.start_call(id, params, without_handshake) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            (Ok(_), method) => Err(RpcError::not_found(method)),
        };
        self.send(&protocol::answer(id, result, without_handshake));
    }

    fn start_call(
        self: &Arc<Self>,
        id: &Value,
        params: Value,
        without_handshake: bool,
    ) -> Result<(), RpcError> {
        let is_cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            if calls.len() >= CALLS {
                return Err(RpcError::new(-32_000, "too many calls at a time"));
            }
            calls.insert(id.to_string(), Arc::clone(&is_cancelled));
        }
        let (server, id) = (Arc::clone(self), id.clone());
        let call = move || {
            let result = server.call(&params);
            server.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.to_string());
            // A call that was cancelled is not answered.
            if !is_cancelled.load(Ordering::SeqCst) {
                server.send(&protocol::answer(&id, result, without_handshake));
            } else if text(&params, &["name"]) == Some("lock_acquire")
                && let Some(workspace_id) = text(&params, &["arguments", "workspace"])
                && let Some(fence) = server.session.fence(workspace_id)
            {
                // Nobody knows of this lock.
                let _ = server.session.release(workspace_id, Some(fence));
            }
        };
        Builder::new()
            .name("call".to_owned())
            .spawn(call)
            .map(drop)
            .map_err(|error| RpcError::new(-32_603, format!("cannot start a thread: {error}")))
    }

    fn cancel(&self, id: &Value) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_cancelled) = calls.get(&id.to_string()) {
            is_cancelled.store(true, Ordering::SeqCst);
        }
    }

    /// Calls a tool. The result also tells what was lost since the last one.
    fn call(&self, params: &Value) -> Result<Value, RpcError> {
        let name = text(params, &["name"]).ok_or_else(|| RpcError::invalid_params("name is missing"))?;
        let is_named = self.name.is_none() && self.session.is_named();
        let agent = self.name.clone().or_else(|| self.peer().name.clone()).filter(|_| !is_named);
        // Losses are told in this result, not in one of later calls.
        self.renew();
        let called = tools::call(
            &self.session,
            agent.as_deref(),
            name,
            params.get("arguments").cloned().unwrap_or_default(),
        );
        let Outcome { text: said, mut structured, is_error } = called.map_err(|why| match why {
            NoTool::Unknown => RpcError::invalid_params(format!("there is no tool {name}")),
            NoTool::InvalidArguments(why) => RpcError::invalid_params(why),
        })?;
        let (losses, asked) = self.session.news();
        structured.insert("lost".to_owned(), losses.iter().map(Loss::structured).collect());
        let news = losses.into_iter().map(|loss| loss.text).chain(asked);
        let told = news.chain([said]).collect::<Vec<_>>().join("\n");
        Ok(json!({
            "content": [{ "type": "text", "text": told }],
            "structuredContent": structured,
            "isError": is_error,
        }))
    }

    /// Renews the locks, and tells of those that are lost.
    fn renew(&self) {
        for loss in self.session.renew() {
            if self.peer().takes_warnings() {
                self.send(&protocol::warning(&loss.structured()));
            }
        }
    }

    fn peer(&self) -> std::sync::MutexGuard<'_, Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &Value) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // If the client does not read any more, it closes standard input, too.
        let _ = writeln!(out, "{message}").and_then(|()| out.flush());
    }
}
