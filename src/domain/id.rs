//! Ids of workspaces, users and sessions, and the maximum sizes of texts.

use crate::error::Error;

/// Maximum size of a workspace or user id, in bytes.
pub const ID_BYTES: usize = 255;
/// Maximum size of a workspace id that begins with `lfs/`, in bytes.
pub const LFS_BYTES: usize = 1_100;
/// Maximum size of a session id, in bytes.
pub const SESSION_BYTES: usize = 128;
/// Maximum size of a display name, in bytes.
pub const NAME_BYTES: usize = 200;
/// Maximum size of a note, in bytes.
pub const NOTE_BYTES: usize = 500;
/// Maximum size of a knock's message, and of the reason of a takeover or a revocation, in bytes.
pub const MESSAGE_BYTES: usize = 500;
/// Maximum size of the metadata, in bytes of JSON without white space.
pub const METADATA_BYTES: usize = 4096;

/// Prefix of workspace ids that are file paths.
pub(super) const LFS_PREFIX: &str = "lfs/";

/// Checks for 1 to `most` bytes of UTF-8 without control characters.
///
/// # Errors
/// [`Error::Invalid`] with `field` and the allowed values.
fn identifier(field: &str, raw: &str, most: usize) -> Result<String, Error> {
    if raw.is_empty() || raw.len() > most {
        return Err(Error::invalid(field, format!("must have 1 to {most} bytes; this has {}", raw.len())));
    }
    if raw.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(raw.to_owned())
}

/// Like [`identifier`], for an id that is used in URL paths. `.` and `..` are refused: proxies and browsers
/// remove these segments from paths (RFC 3986 §5.2.4), percent-encoded or not.
fn path_segment(field: &str, raw: &str, most: usize) -> Result<String, Error> {
    if matches!(raw, "." | "..") {
        return Err(Error::invalid(field, "must not be . or .."));
    }
    identifier(field, raw, most)
}

macro_rules! identifier {
    ($(#[$about:meta])* $name:ident, $field:literal, $check:expr) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Parses `raw`.
            ///
            /// # Errors
            /// [`Error::Invalid`] when `raw` is not valid.
            pub fn parse(raw: &str) -> Result<Self, Error> {
                Self::parse_as($field, raw)
            }

            /// Parses `raw`. The error names `field`, for callers that use another field name.
            ///
            /// # Errors
            /// Same as [`Self::parse`], with `field` as the field name.
            pub fn parse_as(field: &str, raw: &str) -> Result<Self, Error> {
                let check: fn(&str, &str) -> Result<String, Error> = $check;
                check(field, raw).map(Self)
            }

            /// Wraps a stored value without a check. The store holds only values that [`Self::parse`]
            /// accepted.
            pub(crate) const fn trusted(stored: String) -> Self {
                Self(stored)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// Id of a workspace, the thing that people edit. 1 to 255 bytes of UTF-8 (1 to 1,100 if it begins with
    /// `lfs/`), no control characters, not `.` or `..`.
    WorkspaceId,
    "workspace_id",
    |field, raw| path_segment(field, raw, if raw.starts_with(LFS_PREFIX) { LFS_BYTES } else { ID_BYTES })
);
identifier!(
    /// Id of a user. 1 to 255 bytes of UTF-8, no control characters, not `.` or `..`.
    UserId,
    "user_id",
    |field, raw| path_segment(field, raw, ID_BYTES)
);
identifier!(
    /// Id of a session: one tab, device or process of a user. 1 to 128 bytes of UTF-8, no control characters.
    SessionId,
    "session_id",
    |field, raw| identifier(field, raw, SESSION_BYTES)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_maximum_length_and_no_control_characters() {
        assert!(WorkspaceId::parse("team/design 42 🎨").is_ok());
        assert!(WorkspaceId::parse(&"w".repeat(255)).is_ok());
        assert!(WorkspaceId::parse(&"w".repeat(256)).is_err());
        assert!(SessionId::parse(&"s".repeat(129)).is_err());
        for bad in ["", "a\nb", "a\u{7f}", "a\u{85}", "\0"] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
        let lfs = |bytes: usize| WorkspaceId::parse(&format!("lfs/{}", "x".repeat(bytes - 4)));
        assert!(lfs(1_100).is_ok() && lfs(1_101).is_err());
    }

    #[test]
    fn dot_segments_are_not_ids() {
        for bad in [".", ".."] {
            assert!(WorkspaceId::parse(bad).is_err() && UserId::parse(bad).is_err(), "{bad}");
            assert!(SessionId::parse(bad).is_ok(), "sessions stand in no path");
        }
        for fine in ["...", "a/..", "./a", ".a"] {
            assert!(WorkspaceId::parse(fine).is_ok() && UserId::parse(fine).is_ok(), "{fine}");
        }
    }
}
