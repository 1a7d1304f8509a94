//! Static files for browsers: the console, the playground, the documentation, and the JavaScript client that the console
//! and the playground use. They are embedded in the binary without a build step.

pub mod docs;

/// Which pages are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// `/` and its files.
    pub console: bool,
    /// `/demo` and its files.
    pub demo: bool,
    /// `/docs` and its files.
    pub docs: bool,
}

/// A static file and its response.
#[derive(Debug)]
pub struct EmbeddedFile {
    /// The path of the URL.
    pub path: &'static str,
    /// The status code.
    pub status: u16,
    /// The media type.
    pub media_type: &'static str,
    /// Returns the body.
    content: fn() -> &'static [u8],
}

impl EmbeddedFile {
    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &'static [u8] {
        (self.content)()
    }
}

/// Serves `pages/name` as `/console/name`.
macro_rules! console {
    ($name:literal, $media_type:expr) => {
        EmbeddedFile {
            path: concat!("/console/", $name),
            status: 200,
            media_type: $media_type,
            content: || include_bytes!(concat!("pages/", $name)),
        }
    };
}

/// Serves `demo/name` as `/demo/name`.
macro_rules! demo {
    ($name:literal, $media_type:expr) => {
        EmbeddedFile {
            path: concat!("/demo/", $name),
            status: 200,
            media_type: $media_type,
            content: || include_bytes!(concat!("demo/", $name)),
        }
    };
}

/// Serves a module of `clients/js/src` as `/client/name`.
macro_rules! client {
    ($name:literal) => {
        EmbeddedFile {
            path: concat!("/client/", $name),
            status: 200,
            media_type: JAVASCRIPT,
            content: || include_bytes!(concat!("../../clients/js/src/", $name)),
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const PNG: &str = "image/png";

/// The files of the console.
pub const CONSOLE: &[EmbeddedFile] = &[
    EmbeddedFile { path: "/", status: 200, media_type: HTML, content: || include_bytes!("pages/index.html") },
    console!("activity.js", JAVASCRIPT),
    console!("chart.js", JAVASCRIPT),
    console!("clock.js", JAVASCRIPT),
    console!("csv.js", JAVASCRIPT),
    console!("curl.js", JAVASCRIPT),
    console!("dialog.js", JAVASCRIPT),
    console!("dom.js", JAVASCRIPT),
    console!("endlocks.js", JAVASCRIPT),
    console!("format.js", JAVASCRIPT),
    console!("health.js", JAVASCRIPT),
    console!("history.js", JAVASCRIPT),
    console!("listing.js", JAVASCRIPT),
    console!("live.js", JAVASCRIPT),
    console!("lockrow.js", JAVASCRIPT),
    console!("locks.js", JAVASCRIPT),
    console!("locktable.js", JAVASCRIPT),
    console!("main.js", JAVASCRIPT),
    console!("measures.js", JAVASCRIPT),
    console!("members.js", JAVASCRIPT),
    console!("metrics.js", JAVASCRIPT),
    console!("names.js", JAVASCRIPT),
    console!("parts.css", CSS),
    console!("samples.js", JAVASCRIPT),
    console!("session.js", JAVASCRIPT),
    console!("settings.js", JAVASCRIPT),
    console!("storage.js", JAVASCRIPT),
    console!("store.js", JAVASCRIPT),
    console!("tokens.js", JAVASCRIPT),
    console!("user.js", JAVASCRIPT),
    console!("webhooks.js", JAVASCRIPT),
    console!("workspace.js", JAVASCRIPT),
    console!("workspaces.js", JAVASCRIPT),
];

/// The files of the console that the documentation also uses.
pub const LOOK: &[EmbeddedFile] = &[console!("console.css", CSS), console!("icon.svg", SVG)];

/// The modules of the JavaScript client, except `react.js`: it needs React, which is not embedded.
pub const CLIENT: &[EmbeddedFile] = &[
    client!("acquire-loop.js"),
    client!("api.js"),
    client!("client.js"),
    client!("clock.js"),
    client!("dialog.js"),
    client!("dialog-alert.js"),
    client!("dialog-de.js"),
    client!("dialog-es.js"),
    client!("dialog-fr.js"),
    client!("dialog-language.js"),
    client!("dialog-lookup.js"),
    client!("dialog-panels.js"),
    client!("dialog-style.js"),
    client!("dialog-surface.js"),
    client!("dialog-texts.js"),
    client!("dialog-time.js"),
    client!("draft.js"),
    client!("election.js"),
    client!("events.js"),
    client!("index.js"),
    client!("lease.js"),
    client!("lease-history.js"),
    client!("lock.js"),
    client!("lock-events.js"),
    client!("random.js"),
    client!("refusal.js"),
    client!("release-hook.js"),
    client!("retry.js"),
    client!("session.js"),
    client!("snapshot.js"),
    client!("state.js"),
    client!("tab-leader.js"),
    client!("web-locks.js"),
];

/// The files of the playground.
pub const DEMO: &[EmbeddedFile] = &[
    EmbeddedFile {
        path: "/demo",
        status: 200,
        media_type: HTML,
        content: || include_bytes!("demo/demo.html"),
    },
    demo!("client.js", JAVASCRIPT),
    demo!("demo.css", CSS),
    demo!("demo.js", JAVASCRIPT),
    demo!("document.js", JAVASCRIPT),
    demo!("log.js", JAVASCRIPT),
    demo!("page.js", JAVASCRIPT),
    demo!("person.js", JAVASCRIPT),
];

/// The response for `/demo` when the playground is disabled. It uses the style of the console.
pub const DEMO_IS_OFF: EmbeddedFile = EmbeddedFile {
    path: "/demo",
    status: 404,
    media_type: HTML,
    content: || include_bytes!("demo-is-off.html"),
};

impl Pages {
    /// The file at a path, if it is served.
    #[must_use]
    pub fn find(self, path: &str) -> Option<&'static EmbeddedFile> {
        let tables = [
            (self.console, CONSOLE),
            (self.demo, DEMO),
            (self.console || self.demo, CLIENT),
            (self.console || self.docs, LOOK),
            (self.docs, docs::PAGES),
            (self.docs, docs::FILES),
        ];
        if self.docs && path == docs::HOME {
            return docs::PAGES.first();
        }
        let served = tables.into_iter().filter(|(is_served, _)| *is_served);
        served.flat_map(|(_, files)| files).find(|file| file.path == path)
    }

    /// The HTML 404 page for a path, if there is one and its style sheet is served.
    #[must_use]
    pub fn find_missing(self, path: &str) -> Option<&'static EmbeddedFile> {
        if self.docs && path.starts_with(docs::NOT_FOUND.path) {
            return Some(&docs::NOT_FOUND);
        }
        (self.console && !self.demo && path == DEMO_IS_OFF.path).then_some(&DEMO_IS_OFF)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_console_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/pages");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" { "/".to_owned() } else { format!("/console/{name}") };
            assert!(CONSOLE.iter().chain(LOOK).any(|page| page.path == path), "{name} is not in the table");
        }
    }

    #[test]
    fn every_file_of_the_playground_and_of_the_client_is_served() {
        for (folder, path, pages, without) in
            [("src/web/demo", "/demo", DEMO, "demo.html"), ("clients/js/src", "/client", CLIENT, "react.js")]
        {
            for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let path = format!("{path}/{name}");
                assert_eq!(
                    pages.iter().any(|page| page.path == path),
                    name != without,
                    "{name} of {folder} in the table"
                );
            }
        }
    }

    #[test]
    fn every_import_of_a_module_is_served() {
        for page in CONSOLE.iter().chain(CLIENT).chain(DEMO).filter(|page| page.media_type == JAVASCRIPT) {
            let text = std::str::from_utf8(page.bytes()).unwrap();
            let (folder, _) = page.path.rsplit_once('/').unwrap();
            for import in
                text.lines().filter(|line| line.starts_with("import ") || line.starts_with("export {"))
            {
                let Some((_, from)) = import.rsplit_once(" from '") else { continue };
                let name = from.trim_end_matches("';");
                let path = name
                    .strip_prefix("./")
                    .map_or_else(|| name.to_owned(), |name| format!("{folder}/{name}"));
                let all = Pages { console: true, demo: true, docs: true };
                assert!(all.find(&path).is_some(), "{} imports {name}", page.path);
            }
        }
    }

    #[test]
    fn the_client_is_served_with_the_console_or_the_playground() {
        let served = |console, demo| Pages { console, demo, docs: true }.find("/client/client.js").is_some();
        assert!(served(true, false) && served(false, true) && !served(false, false));
    }
}
