//! Finds what a request names in the table of routes.

use percent_encoding::percent_decode_str;

use super::routes::{Route, Touches};
use crate::console::Page;

/// What a request names.
pub enum Matched {
    /// This operation, with these parameters of its path, still percent-encoded.
    Route(&'static Route, Vec<(&'static str, String)>),
    /// This page.
    Page(&'static Page),
    /// A path, with other methods than this.
    OtherMethods(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

impl Matched {
    /// Whether it may keep the thread that carries it out: it reads from the store.
    #[must_use]
    pub const fn takes_time(&self) -> bool {
        matches!(self, Self::Route(route, _) if matches!(route.store, Touches::Reads | Touches::ReadsAndWrites))
    }

    /// Whether it waits for the writer among those that need not (see `door::upstream`).
    #[must_use]
    pub fn writes_though_it_is_read(&self, method: &str) -> bool {
        matches!(self, Self::Route(route, _) if matches!(route.store, Touches::Writes))
            && matches!(method, "GET" | "HEAD")
    }
}

/// Finds the operation. `HEAD` is a `GET`.
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

/// The parameters of `path`, if it is one of `template`.
fn parameters(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
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

/// What a segment of a path stands for; nothing unless it is percent-encoded UTF-8.
pub fn decode(segment: &str) -> Option<String> {
    let mut escapes = segment.split('%');
    escapes.next();
    let whole = escapes.all(|escape| {
        escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    whole.then(|| percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::parameters::PATH_PARAMETERS;
    use super::super::routes::ROUTES;
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(ROUTES, method, path) {
            Matched::Route(route, parameters) => {
                Some((route.name, parameters.into_iter().map(|(_, text)| text).collect()))
            }
            Matched::Page(_) | Matched::OtherMethods(_) | Matched::Nothing => None,
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_an_id() {
        let path = "/api/v1/workspaces/team%2Fdesign%2042/lock";
        assert_eq!(found("HEAD", path), Some(("readLock", vec!["team%2Fdesign%2042".to_owned()])));
        assert_eq!(decode("team%2Fdesign%2042").as_deref(), Some("team/design 42"));
        assert_eq!(found("GET", "/api/v1/workspaces/team/design/lock"), None);
    }

    #[test]
    fn what_is_not_percent_encoded_utf_8_stands_for_nothing() {
        for bad in ["%", "%2", "%zz", "a%", "%ff", "%c3"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(found("GET", "/api/v1/workspaces//lock"), None);
    }

    #[test]
    fn a_method_that_a_path_does_not_have_is_told_those_it_has() {
        match find(ROUTES, "PUT", "/api/v1/workspaces/w/lock") {
            Matched::OtherMethods(allowed) => {
                assert_eq!(allowed, ["POST", "GET", "HEAD", "DELETE", "OPTIONS"]);
            }
            Matched::Route(..) | Matched::Page(_) | Matched::Nothing => panic!("PUT is no method of it"),
        }
    }

    #[test]
    fn every_operation_has_a_name_and_a_path_of_its_own() {
        for (index, route) in ROUTES.iter().enumerate() {
            for other in &ROUTES[index + 1..] {
                assert_ne!(route.name, other.name);
                assert_ne!((route.method, route.path), (other.method, other.path));
            }
            for name in route.path.split('/').filter_map(|segment| segment.strip_prefix('{')) {
                assert!(PATH_PARAMETERS.iter().any(|field| name.strip_suffix('}') == Some(field.name)));
            }
        }
    }
}
