//! Git LFS: the lock on a file of a repository is the lock of the workspace `lfs/{repository}:{path}`.

use super::id::{LFS_BYTES, LFS_PREFIX, WorkspaceId};
use crate::error::Error;

/// A repository: the workspace `lfs/{repository}`. Roles on it hold for all its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository(WorkspaceId);

impl Repository {
    /// Parses the path of a repository. A trailing `/info/lfs`, and then `.git`, is dropped, so that it may be the
    /// path that Git LFS derives from the address of a repository.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it contains a colon, or an empty, `.` or `..` segment.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let path = path.strip_suffix("/info/lfs").unwrap_or(path);
        let path = path.strip_suffix(".git").unwrap_or(path);
        if path.contains(':') {
            return Err(Error::invalid("repository", "must not contain a colon"));
        }
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Error::invalid("repository", "must not have empty segments, nor . and .."));
        }
        WorkspaceId::parse_as("repository", &format!("{LFS_PREFIX}{path}")).map(Self)
    }

    /// The workspace of the repository.
    #[must_use]
    pub const fn workspace(&self) -> &WorkspaceId {
        &self.0
    }

    /// What the workspaces of its files begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}:", self.0.as_str())
    }

    /// The workspace of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `path` is empty, absolute, too long, or has a `..` segment.
    pub fn file(&self, path: &str) -> Result<WorkspaceId, Error> {
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|segment| segment == "..") {
            return Err(Error::invalid(
                "path",
                "must be a path from the root of the repository, without a slash before it and without ..",
            ));
        }
        let most = LFS_BYTES - self.prefix().len();
        if path.len() > most {
            let reason =
                format!("must have at most {most} bytes in this repository; this has {}", path.len());
            return Err(Error::invalid("path", reason));
        }
        WorkspaceId::parse_as("path", &format!("{}{path}", self.prefix()))
    }

    /// The path of the file whose workspace this is, if it is one of this repository.
    #[must_use]
    pub fn path_of<'a>(&self, workspace_id: &'a WorkspaceId) -> Option<&'a str> {
        workspace_id.as_str().strip_prefix(self.0.as_str())?.strip_prefix(':')
    }
}

impl WorkspaceId {
    /// The workspace whose roles hold for this one: for a file, its repository.
    #[must_use]
    pub fn with_roles(&self) -> Self {
        let file = self.as_str().strip_prefix(LFS_PREFIX).and_then(|file| file.split_once(':'));
        file.map_or_else(
            || self.clone(),
            |(repository, _)| Self::trusted(format!("{LFS_PREFIX}{repository}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_path_without_what_git_lfs_adds() {
        for path in ["team/game", "team/game.git", "team/game/info/lfs", "team/game.git/info/lfs"] {
            assert_eq!(Repository::parse(path).unwrap().workspace().as_str(), "lfs/team/game", "{path}");
        }
        for bad in [
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            "a/./b",
            "a/..",
            "a:b",
            ".git",
            "x/.git",
            "a\nb",
            &"x".repeat(1_097),
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_has_a_path_from_the_root_of_its_repository() {
        let game = Repository::parse("game").unwrap();
        let file = game.file("art/hero: final.psd").unwrap();
        assert_eq!(file.as_str(), "lfs/game:art/hero: final.psd");
        assert_eq!(game.path_of(&file), Some("art/hero: final.psd"));
        assert_eq!(Repository::parse("gam").unwrap().path_of(&file), None);
        assert_eq!(file.with_roles().as_str(), "lfs/game");
        assert_eq!(WorkspaceId::parse("team:a").unwrap().with_roles().as_str(), "team:a");
        for bad in ["", "/etc/passwd", "..", "a/../b", "a\tb", &"x".repeat(1_092)] {
            assert!(game.file(bad).is_err(), "{bad:?}");
        }
        assert!(game.file(&"x".repeat(1_091)).is_ok());
    }
}
