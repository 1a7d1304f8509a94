//! What use cases have named, and the commands that load it in the first round trip of a batch.

use std::collections::BTreeSet;

use super::queries::{LAST_LEASES, load};
use super::session::{Command, parameters};
use super::waiters;
use crate::domain::{UserId, WorkspaceId};
use crate::store::rows::Keys;

/// Locks of a user are counted exactly only beyond this number.
pub(super) const COUNTED: i64 = 10_000;

/// What use cases have named.
pub(super) struct Named {
    pub(super) workspaces: Vec<String>,
    /// The workspaces of acquires.
    pub(super) acquired: Vec<String>,
    users: Vec<String>,
    /// Workspaces, the workspaces that have their members, and the callers.
    callers: BTreeSet<[String; 3]>,
}

impl Named {
    pub(super) fn by(keys: &[&Keys]) -> Self {
        fn texts<'k>(ids: impl Iterator<Item = &'k str>) -> Vec<String> {
            ids.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
        }
        let acquires = keys.iter().filter(|keys| !keys.users.is_empty());
        let callers = keys.iter().flat_map(|keys| keys.workspaces.iter().zip(keys.caller.iter().cycle()));
        Self {
            workspaces: texts(keys.iter().flat_map(|keys| &keys.workspaces).map(WorkspaceId::as_str)),
            acquired: texts(acquires.flat_map(|keys| &keys.workspaces).map(WorkspaceId::as_str)),
            users: texts(keys.iter().flat_map(|keys| &keys.users).map(UserId::as_str)),
            callers: callers
                .map(|(id, user_id)| {
                    [id.as_str(), id.with_roles().as_str(), user_id.as_str()].map(str::to_owned)
                })
                .collect(),
        }
    }

    /// The commands that load it.
    pub(super) fn loads(&self) -> Vec<Command> {
        let mut commands: Vec<_> = load(&self.workspaces).into();
        commands.push(waiters::load(&self.workspaces));
        commands.push(Command::new(LAST_LEASES, parameters![self.acquired.clone()]));
        commands.push(Command::new(
            "SELECT u.id, (SELECT count(*) FROM (SELECT 1 FROM locks WHERE user_id = u.id LIMIT $2) l) FROM unnest($1::text[]) u(id)",
            parameters![self.users.clone(), COUNTED],
        ));
        commands.extend(self.roles());
        commands
    }

    /// The command that loads the roles of the callers and of the holders.
    fn roles(&self) -> Option<Command> {
        let column = |at: usize| -> Vec<String> {
            self.callers.iter().filter_map(|caller| caller.get(at).cloned()).collect()
        };
        (!self.callers.is_empty()).then(|| {
            Command::new(
                "SELECT n.with_roles, u.id, m.role FROM unnest($1::text[], $2::text[], $3::text[]) n(id, with_roles, caller)
                 CROSS JOIN LATERAL (SELECT n.caller UNION SELECT user_id FROM locks WHERE workspace_id = n.id) u(id)
                 LEFT JOIN members m ON m.workspace_id = n.with_roles AND m.user_id = u.id",
                parameters![column(0), column(1), column(2)],
            )
        })
    }
}
