//! The locks that this session holds: they are renewed while it lives, and each loss is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::super::client::{ApiClient, PATIENCE, encoded, set};
use super::super::http::ServerAnswer;
use super::view::LockView;
use crate::time::since_boot;

/// A lock that was lost.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) workspace_id: String,
    /// A sentence.
    pub(super) text: String,
}

impl Loss {
    pub(super) fn structured(&self) -> Value {
        json!({ "workspace": self.workspace_id, "text": self.text })
    }
}

struct Held {
    fence: i64,
    /// When the lease ends, unless it is renewed.
    ends_at: Duration,
    /// Who asks for it.
    asked_by: Option<String>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<String, Held>,
    /// Workspaces whose lock is being acquired.
    pending: BTreeSet<String>,
    /// Losses that no result has told yet.
    untold: Vec<Loss>,
    /// Whether the agent has done something since the last heartbeat.
    is_active: bool,
    is_closed: bool,
}

/// A session of an agent.
pub(super) struct AgentSession {
    pub(super) api: ApiClient,
    pub(super) id: String,
    state: Mutex<State>,
    /// Whether the token is an agent's, and so has the name of the agent.
    is_named: OnceLock<bool>,
}

#[derive(Deserialize)]
struct CallerAnswer {
    agent: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RenewedAnswer {
    expires_in_ms: u64,
    knock: Option<KnockAnswer>,
}

#[derive(Deserialize)]
struct KnockAnswer {
    user_id: String,
    name: Option<String>,
    message: Option<String>,
}

impl AgentSession {
    pub(super) fn new(api: ApiClient, id: String) -> Self {
        Self { api, id, state: Mutex::default(), is_named: OnceLock::new() }
    }

    /// Whether the server knows the name of the agent, from its token.
    pub(super) fn is_named(&self) -> bool {
        if let Some(is_named) = self.is_named.get() {
            return *is_named;
        }
        let caller: Option<CallerAnswer> = self.api.get("/whoami").ok().and_then(|answer| answer.body());
        // Without an answer it is asked again for the next lock.
        caller.is_some_and(|caller| *self.is_named.get_or_init(|| caller.agent.is_some()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request about the lock of a workspace and waits for the answer.
    pub(super) fn post(
        &self,
        workspace_id: &str,
        operation: &str,
        body: Value,
        timeout: Duration,
    ) -> Result<ServerAnswer, String> {
        let path = format!("/workspaces/{}/lock{operation}", encoded(workspace_id));
        self.api.post(&path, body, timeout).map_err(|error| self.api.failed(&error))
    }

    /// Marks that a lock is being acquired. `false` if the session has ended.
    pub(super) fn begin(&self, workspace_id: &str) -> bool {
        let mut state = self.state();
        state.pending.insert(workspace_id.to_owned());
        !state.is_closed
    }

    /// The acquire has ended. A lock that was acquired is renewed from now on; `false` if the session has ended.
    pub(super) fn end(&self, workspace_id: &str, acquired: Option<&LockView>) -> bool {
        let mut state = self.state();
        state.pending.remove(workspace_id);
        if let Some(lock) = acquired {
            let ends_at = since_boot() + Duration::from_millis(lock.expires_in_ms);
            let held = Held { fence: lock.fence, ends_at, asked_by: None };
            state.held.insert(workspace_id.to_owned(), held);
        }
        !state.is_closed
    }

    /// Renews all locks. Returns those that were found to be lost.
    pub(super) fn renew(&self) -> Vec<Loss> {
        let (held, is_active) = {
            let mut state = self.state();
            let held: Vec<_> = state.held.iter().map(|(id, held)| (id.clone(), held.fence)).collect();
            (held, std::mem::take(&mut state.is_active))
        };
        held.into_iter().filter_map(|(id, fence)| self.renew_one(&id, fence, is_active)).collect()
    }

    fn renew_one(&self, workspace_id: &str, fence: i64, is_active: bool) -> Option<Loss> {
        let sent_at = since_boot();
        let body = json!({ "fence": fence, "session_id": self.id, "active": is_active });
        let answer = self.post(workspace_id, "/heartbeat", body, PATIENCE);
        let mut state = self.state();
        // It may have been released in the meantime.
        let held = state.held.get_mut(workspace_id).filter(|held| held.fence == fence)?;
        let why = match &answer {
            Ok(answer) if answer.status == 200 => {
                if let Some(RenewedAnswer { expires_in_ms, knock }) = answer.body() {
                    held.ends_at = sent_at + Duration::from_millis(expires_in_ms);
                    held.asked_by = knock.map(KnockAnswer::sentence);
                }
                return None;
            }
            Ok(answer) if matches!(answer.code().as_deref(), Some("not_holder" | "lock_not_found")) => {
                answer.reason()
            }
            Ok(_) | Err(_) if since_boot() < held.ends_at => return None,
            Ok(_) | Err(_) => "it could not be renewed in time".to_owned(),
        };
        state.held.remove(workspace_id);
        let text = format!(
            "You have lost the lock of {workspace_id}: {why}. Do not write to it any more. What you have not saved is refused; load it again after you get the lock."
        );
        let loss = Loss { workspace_id: workspace_id.to_owned(), text };
        state.untold.push(loss.clone());
        Some(loss)
    }

    /// What a result must tell beside its own: losses that were not told yet, and who asks for a lock.
    pub(super) fn news(&self) -> (Vec<Loss>, Vec<String>) {
        let mut state = self.state();
        let asked = state.held.iter().filter_map(|(id, held)| {
            held.asked_by.as_ref().map(|by| format!("{by} asks for {id}. Finish, save and release it."))
        });
        let asked = asked.collect();
        (std::mem::take(&mut state.untold), asked)
    }

    /// The agent does something.
    pub(super) fn touch(&self) {
        self.state().is_active = true;
    }

    /// The fence of a lock that is held.
    pub(super) fn fence(&self, workspace_id: &str) -> Option<i64> {
        self.state().held.get(workspace_id).map(|held| held.fence)
    }

    /// Releases a lock, if this session has it.
    pub(super) fn release(&self, workspace_id: &str, fence: Option<i64>) -> Result<ServerAnswer, String> {
        let mut body = json!({ "session_id": self.id });
        if let Some(fence) = fence {
            set(&mut body, "fence", fence);
        }
        let answer = self.post(workspace_id, "/release", body, PATIENCE);
        if answer.as_ref().is_ok_and(|answer| answer.status < 429) {
            let mut state = self.state();
            if state.held.get(workspace_id).is_some_and(|held| fence.is_none_or(|fence| fence == held.fence))
            {
                state.held.remove(workspace_id);
            }
        }
        answer
    }

    /// Ends the session: releases everything.
    pub(super) fn close(&self) {
        let (held, pending) = {
            let mut state = self.state();
            state.is_closed = true;
            let held: Vec<_> = state.held.iter().map(|(id, held)| (id.clone(), held.fence)).collect();
            (held, state.pending.clone())
        };
        for (workspace_id, fence) in held {
            // If this fails, the lease ends by itself.
            let _ = self.release(&workspace_id, Some(fence));
        }
        for workspace_id in pending {
            let _ = self.release(&workspace_id, None);
        }
    }
}

impl KnockAnswer {
    fn sentence(self) -> String {
        let name = self.name.unwrap_or(self.user_id);
        self.message.map_or_else(|| name.clone(), |message| format!("{name} ({message:?})"))
    }
}
