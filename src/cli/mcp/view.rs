//! Locks as the API returns them, and as sentences that a model can act on.

use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

/// The fields of a lock that are told.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LockView {
    pub(super) workspace_id: String,
    locked_by_user_id: String,
    locked_by_name: Option<String>,
    session_id: Option<String>,
    pub(super) fence: i64,
    last_active_at: String,
    expires_at: String,
    pub(super) expires_in_ms: u64,
    note: Option<String>,
    kind: String,
    agent: Option<AgentView>,
}

/// An agent, and for whom it acts.
#[derive(Debug, Clone, Deserialize)]
struct AgentView {
    name: Option<String>,
    for_user_id: String,
    for_name: Option<String>,
}

impl LockView {
    /// Whether this session has the lock.
    pub(super) fn is_of(&self, session_id: &str) -> bool {
        self.kind == "agent" && self.session_id.as_deref() == Some(session_id)
    }

    /// Who has the lock: a person, an agent with the person for whom it acts, a process or a tool.
    pub(super) fn holder(&self) -> String {
        let user = self.locked_by_name.as_ref().unwrap_or(&self.locked_by_user_id);
        match (self.kind.as_str(), &self.agent) {
            ("agent", Some(AgentView { name, for_user_id, for_name })) => {
                let name = name.as_deref().unwrap_or("An agent");
                format!("{name} (agent of {})", for_name.as_ref().unwrap_or(for_user_id))
            }
            ("agent", None) => format!("{user} (an agent)"),
            ("edit", _) => user.clone(),
            (kind, _) => format!("{user} ({kind})"),
        }
    }

    /// How long ago the holder did something. The clock of this machine plays no part.
    fn active_ago(&self) -> Option<Duration> {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis());
        let now = at(&self.expires_at)?.checked_sub_unsigned(self.expires_in_ms)?;
        Some(Duration::from_secs(u64::try_from((now - at(&self.last_active_at)?) / 1_000).ok()?))
    }

    /// Tells an agent that another holder has the workspace.
    pub(super) fn warning(&self) -> String {
        let active = self.active_ago().map(|ago| format!(", active {} ago", humantime::format_duration(ago)));
        let note = self.note.as_ref().map(|note| format!(" Their note: {note:?}.")).unwrap_or_default();
        format!(
            "{} is editing {}{}.{note} Do not write to it. Wait, ask, or work elsewhere.",
            self.holder(),
            self.workspace_id,
            active.unwrap_or_default(),
        )
    }

    /// Tells an agent that it has the lock.
    pub(super) fn permission(&self) -> String {
        format!(
            "You have the lock of {}, fence {}. You may write to it. Send the fence with each write. The lock is renewed until you release it or this session ends.",
            self.workspace_id, self.fence
        )
    }

    /// The same for programs.
    pub(super) fn structured(&self, session_id: &str) -> Value {
        json!({
            "workspace": self.workspace_id,
            "locked": true,
            "held_by_you": self.is_of(session_id),
            "holder": {
                "text": self.holder(),
                "user_id": self.locked_by_user_id,
                "name": self.locked_by_name,
                "kind": self.kind,
                "note": self.note,
                "active_seconds_ago": self.active_ago().map(|ago| ago.as_secs()),
            },
            "fence": self.fence,
            "expires_in_ms": self.expires_in_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "what is written in the tests is clearer")]
    fn lock(more: Value) -> LockView {
        let mut lock = json!({
            "workspace_id": "design-42", "locked_by_user_id": "alice", "locked_by_name": "Alice Martin", "session_id": "s",
            "fence": 7, "last_active_at": "2026-11-23T10:41:20.004Z", "expires_at": "2026-11-23T10:51:43.120Z",
            "expires_in_ms": 603_116, "note": null, "kind": "edit", "agent": null,
        });
        lock.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(lock).unwrap()
    }

    #[test]
    fn a_model_is_told_who_edits_and_what_to_do() {
        assert_eq!(
            lock(json!({})).warning(),
            "Alice Martin is editing design-42, active 20s ago. Do not write to it. Wait, ask, or work elsewhere."
        );
        let agent = json!({ "kind": "agent", "agent": { "name": "Claude", "for_user_id": "alice", "for_name": "Alice" } });
        assert_eq!(lock(agent.clone()).holder(), "Claude (agent of Alice)");
        assert!(lock(agent.clone()).is_of("s") && !lock(agent).is_of("t") && !lock(json!({})).is_of("s"));
        assert_eq!(lock(json!({ "kind": "run", "locked_by_name": null })).holder(), "alice (run)");
        assert!(lock(json!({ "note": "the header" })).warning().contains("Their note: \"the header\"."));
    }
}
