//! A page of locks: the query and the result.

use crate::domain::{Fence, Lock, LockKind, UserId};

/// A query for a page of locks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LockQuery {
    /// Only locks of this user.
    pub user_id: Option<UserId>,
    /// Only these kinds; empty means all.
    pub kinds: Vec<LockKind>,
    /// Only the lock with this fence. `prefix` must begin with `lfs/`.
    pub fence: Option<Fence>,
    /// Only workspaces whose id begins with this prefix.
    pub prefix: String,
    /// Only workspaces after this one.
    pub after: String,
    /// Maximum number of locks.
    pub limit: usize,
    /// Only locks on workspaces of which this user is a member.
    pub member: Option<UserId>,
}

impl LockQuery {
    /// Whether locks of this kind are listed.
    #[must_use]
    pub fn has_kind(&self, kind: LockKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// A page of locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLocks {
    /// Live locks, by workspace id. There may be fewer than the limit although more follow.
    pub locks: Vec<Lock>,
    /// The workspace id after which the next page begins. `None` on the last page.
    pub next: Option<String>,
}

/// The first text after all texts that begin with `prefix`, if there is one.
pub(super) fn successor(prefix: &str) -> Option<String> {
    let last = |letter: char| (letter..=char::MAX).nth(1);
    let head = prefix.trim_end_matches(char::MAX);
    let (at, letter) = head.char_indices().next_back()?;
    let mut text = head.get(..at)?.to_owned();
    text.push(last(letter)?);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_range_is_the_next_text_without_the_prefix() {
        let follows = |prefix| successor(prefix);
        assert_eq!(follows("team/").as_deref(), Some("team0"));
        assert_eq!(follows("a\u{7f}").as_deref(), Some("a\u{80}"));
        assert_eq!(follows("\u{d7ff}").as_deref(), Some("\u{e000}"), "there are no letters between these");
        assert_eq!(follows("a\u{10ffff}\u{10ffff}").as_deref(), Some("b"));
        assert_eq!((follows(""), follows("\u{10ffff}")), (None, None));
    }
}
