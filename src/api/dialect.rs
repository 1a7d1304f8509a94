//! The dialects of the API: how the clients of a path send credentials and read refusals.

use super::code::Code;
use super::exchange::{JSON, Response};
use super::file_lock::{LFS_JSON, LfsError};
use super::problem::Problem;
use crate::config::AuthMode;

/// The name of the schema of [`LfsError`].
pub(super) const LFS_ERROR: &str = "LfsError";

/// The challenge of HTTP Basic authentication (RFC 7617).
const BASIC: &str = "Basic realm=\"lockhouse\"";

/// A dialect. The path decides which one a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The API of Lockhouse: bearer tokens and problem documents.
    Lockhouse,
    /// The `http` backend of Terraform and `OpenTofu`: HTTP Basic authentication.
    Terraform,
    /// The locking API of Git LFS: HTTP Basic authentication, and refusals with a `message`.
    Lfs,
}

impl Dialect {
    /// The dialect of a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/lfs/") {
            Self::Lfs
        } else if path.starts_with("/terraform/") {
            Self::Terraform
        } else {
            Self::Lockhouse
        }
    }

    /// Whether HTTP Basic credentials are accepted.
    ///
    /// Only these clients cannot send others. A browser remembers Basic credentials and sends them for any page, so
    /// they are not accepted elsewhere.
    #[must_use]
    pub const fn takes_basic(self) -> bool {
        match self {
            Self::Lockhouse => false,
            Self::Terraform | Self::Lfs => true,
        }
    }

    /// The header of a 401 that names the scheme.
    #[must_use]
    pub const fn challenge_header(self) -> &'static str {
        match self {
            Self::Lockhouse | Self::Terraform => "WWW-Authenticate",
            // A browser that sees this header does not ask for a password.
            Self::Lfs => "LFS-Authenticate",
        }
    }

    /// The refusal of a request without valid credentials.
    #[must_use]
    pub fn unauthenticated(self, mode: AuthMode) -> Problem {
        if self == Self::Lockhouse {
            return Problem::unauthenticated(mode);
        }
        let how_to = match mode {
            AuthMode::None => "Send the user id as the user name of HTTP Basic authentication.",
            AuthMode::Token | AuthMode::Jwt | AuthMode::Proxy => {
                "Send a valid token as the password of HTTP Basic authentication."
            }
        };
        Problem::new(Code::Unauthenticated).detail(how_to).header(self.challenge_header(), BASIC)
    }

    /// The response that refuses a request.
    #[must_use]
    pub fn refusal(self, problem: &Problem, request_id: &str) -> Response {
        match self {
            Self::Lockhouse => problem.to_response(request_id),
            Self::Terraform => {
                let mut response = self.present(problem).to_response(request_id);
                if problem.code().is_lock_info() {
                    response.content_type = Some(JSON);
                    response.body = problem.members();
                    response.body.push(b'\n');
                }
                response
            }
            Self::Lfs => {
                let shown = self.present(problem);
                let mut response = shown.to_response(request_id);
                response.content_type = Some(LFS_JSON);
                let error = LfsError { message: shown.sentence(), request_id, lock: shown.member("lock") };
                response.body = serde_json::to_vec(&error).unwrap_or_default();
                response.body.push(b'\n');
                response
            }
        }
    }

    /// The code in place of [`Code::WorkspaceNotFound`].
    ///
    /// Other clients give a 404 another meaning: Git LFS then pushes without locks, and Terraform believes that there is
    /// no state yet.
    #[must_use]
    pub const fn no_workspace(self) -> Code {
        match self {
            Self::Lockhouse => Code::WorkspaceNotFound,
            Self::Terraform | Self::Lfs => Code::NotAMember,
        }
    }

    /// Replaces a 404 that the client would understand differently.
    fn present(self, problem: &Problem) -> Problem {
        let code = problem.code();
        if code == Code::WorkspaceNotFound {
            Problem::new(self.no_workspace())
                .detail("You may not lock this. Ask an administrator to make you a member.")
        } else if code == Code::NotFound && self == Self::Terraform {
            Problem::invalid("path", "")
                .detail("The path must be /terraform/ and a workspace id. Write a slash in the id as %2F.")
        } else {
            problem.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_decides_the_dialect() {
        for (path, dialect) in [
            ("/lfs/team/game/locks", Dialect::Lfs),
            ("/terraform/prod", Dialect::Terraform),
            ("/api/v1/workspaces/lfs%2Fgame/lock", Dialect::Lockhouse),
            ("/lfs", Dialect::Lockhouse),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn git_lfs_reads_a_message_and_no_404_about_a_workspace() {
        let refusal = Dialect::Lfs.refusal(&Problem::new(Code::WorkspaceNotFound), "7");
        assert_eq!((refusal.status, refusal.content_type), (403, Some(LFS_JSON)));
        let body = String::from_utf8(refusal.body).unwrap();
        assert!(
            body.starts_with("{\"message\":\"You may not lock this.")
                && body.contains("\"request_id\":\"7\"")
        );
        assert_eq!(Dialect::Terraform.refusal(&Problem::new(Code::WorkspaceNotFound), "7").status, 403);
    }
}
