//! The router: finds the route or page of a request.

use super::operation::{Route, StoreAccess};
use crate::web::EmbeddedFile;

/// The match of a request.
pub enum Matched {
    /// An operation, with its path parameters, still percent-encoded.
    Route(&'static Route, Vec<(&'static str, String)>),
    /// A page.
    EmbeddedFile(&'static EmbeddedFile),
    /// A known path with another method. The list has its methods.
    OtherMethods(Vec<&'static str>),
    /// No match.
    Nothing,
}

impl Matched {
    /// Whether the request may occupy a thread for long: it reads from the store, or its response is large.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        match self {
            Self::Route(route, _) => match route.store {
                StoreAccess::Reads | StoreAccess::ReadsThenWrites => true,
                StoreAccess::None | StoreAccess::Writes => false,
            },
            Self::EmbeddedFile(_) => true,
            Self::OtherMethods(_) | Self::Nothing => false,
        }
    }
}

/// Finds the operation. `HEAD` is treated as `GET`.
pub fn find(routes: &'static [Route], method: &str, path: &str) -> Matched {
    if path == "*" {
        // The server as a whole (RFC 9110 §9.3.7).
        return Matched::OtherMethods(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);
    }
    let method = if method == "HEAD" { "GET" } else { method };
    let mut others = Vec::new();
    for route in routes {
        let Some(parameters) = parameters(route.path, path) else { continue };
        if route.method == method {
            return Matched::Route(route, parameters);
        }
        others.push(route.method);
        if route.method == "GET" {
            others.push("HEAD");
        }
    }
    if others.is_empty() {
        Matched::Nothing
    } else {
        others.push("OPTIONS");
        Matched::OtherMethods(others)
    }
}

/// The one parameter that may have several segments.
const REST: &str = "{repository}";

/// The parameters of `path`, if it matches `template`.
fn parameters(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    // The last letter rules out most routes.
    let last = |text: &str| text.as_bytes().last().copied();
    if !template.ends_with('}') && last(template) != last(path) {
        return None;
    }
    match template.split_once(REST) {
        None => segments(template, path),
        Some((before, after)) => {
            let rest = path.strip_prefix(before)?;
            let (cut, _) = rest.rmatch_indices('/').nth(after.matches('/').count().checked_sub(1)?)?;
            let (repository, tail) = rest.split_at(cut);
            let mut parameters = segments(after, tail)?;
            parameters.push(("repository", repository.to_owned()));
            Some(parameters)
        }
    }
}

/// The parameters of `path`, each in a segment of its own.
fn segments(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for expected in template.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => parameters.push((name, segment.to_owned())),
            None if segment == expected => {}
            Some(_) | None => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(ROUTES, method, path) {
            Matched::Route(route, parameters) => {
                Some((route.name, parameters.into_iter().map(|(_, text)| text).collect()))
            }
            Matched::EmbeddedFile(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_path_segment() {
        let path = "/api/v1/workspaces/team%2Fdesign%2042/lock";
        assert_eq!(found("HEAD", path), Some(("readLock", vec!["team%2Fdesign%2042".to_owned()])));
        assert_eq!(found("GET", "/api/v1/workspaces/team/design/lock"), None);
        assert_eq!(found("GET", "/api/v1/workspaces//lock"), None);
    }

    #[test]
    fn a_repository_may_have_slashes() {
        let found = |method, path| found(method, path).map(|(name, parameters)| (name, parameters.join(" ")));
        for (method, path, operation) in [
            ("POST", "/lfs/game/locks", Some(("lockFile", "game"))),
            ("GET", "/lfs/team/game.git/info/lfs/locks", Some(("listFileLocks", "team/game.git/info/lfs"))),
            ("POST", "/lfs/locks/locks/verify", Some(("verifyFileLocks", "locks"))),
            ("POST", "/lfs/a%2Fb/c/locks/17/unlock", Some(("unlockFile", "17 a%2Fb/c"))),
            ("POST", "/lfs/a/objects/batch", None),
            ("POST", "/lfs/locks", None),
            ("DELETE", "/lfs/a/locks", None),
        ] {
            let expected = operation.map(|(name, parameters)| (name, parameters.to_owned()));
            assert_eq!(found(method, path), expected, "{path}");
        }
    }

    #[test]
    fn an_unknown_method_is_answered_with_the_allowed_ones() {
        match find(ROUTES, "PUT", "/api/v1/workspaces/w/lock") {
            Matched::OtherMethods(allowed) => {
                assert_eq!(allowed, ["POST", "GET", "HEAD", "DELETE", "OPTIONS"]);
            }
            Matched::Route(..) | Matched::EmbeddedFile(_) | Matched::Nothing => {
                panic!("PUT is no method of it")
            }
        }
    }

    #[test]
    fn operation_names_and_paths_are_unique() {
        for (index, route) in ROUTES.iter().enumerate() {
            for other in &ROUTES[index + 1..] {
                assert_ne!(route.name, other.name);
                assert_ne!((route.method, route.path), (other.method, other.path));
            }
        }
    }
}
