//! The keys of advisory locks. They never change between versions: nodes of two versions run side by side.

use crate::domain::{UserId, WorkspaceId};
use crate::store::rows::Keys;

/// The key of a workspace.
pub(super) fn of_workspace(workspace_id: &WorkspaceId) -> i64 {
    key("w", workspace_id.as_str())
}

/// The key of a user whose locks are counted.
pub(super) fn of_user(user_id: &UserId) -> i64 {
    key("u", user_id.as_str())
}

/// The key of a webhook.
pub(super) fn of_webhook(name: &str) -> i64 {
    key("h", name)
}

/// All keys that use cases have named.
pub(super) fn of_all(keys: &[&Keys]) -> Vec<i64> {
    let workspaces = keys.iter().flat_map(|keys| &keys.workspaces).map(of_workspace);
    let users = keys.iter().flat_map(|keys| &keys.users).map(of_user);
    // Where roles matter, nobody changes them meanwhile. Those of a file are its repository's.
    let with_roles = keys.iter().filter(|keys| keys.caller.is_some()).flat_map(|keys| &keys.workspaces);
    let with_roles = with_roles.map(|id| of_workspace(&id.with_roles()));
    let mut all: Vec<_> = workspaces.chain(with_roles).chain(users).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// FNV-1a of 64 bits. Two ids with the same key only wait for each other.
fn key(kind: &str, id: &str) -> i64 {
    let bytes = kind.bytes().chain([b':']).chain(id.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_with_its_repository_where_roles_matter() {
        let ids = ["lfs/game:a", "lfs/game"].map(|id| WorkspaceId::parse(id).unwrap());
        let mut keys = Keys::workspace(&ids[0]);
        assert_eq!(of_all(&[&keys]), [of_workspace(&ids[0])]);
        keys.caller = Some(UserId::parse("alice").unwrap());
        let mut both = ids.each_ref().map(of_workspace);
        both.sort_unstable();
        assert_eq!(of_all(&[&keys]), both);
    }

    #[test]
    fn keys_stay_the_same_between_versions() {
        let workspace = of_workspace(&WorkspaceId::parse("design-42").unwrap());
        assert_eq!(workspace, 0x0e9b_f501_e259_65f3_u64.cast_signed());
        assert_eq!(of_user(&UserId::parse("alice").unwrap()), 0x5366_21b7_aa09_e6b6_u64.cast_signed());
    }
}
