//! The pages for browsers: access, headers, and how they are turned off.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Answer, Client, Server};
use lockhouse::auth::Scope;
use lockhouse::config::{AuthMode, Config, Demo};
use lockhouse::web::{CLIENT, CONSOLE, DEMO, DEMO_IS_OFF, EmbeddedFile, LOOK, docs};

/// All files, but for 404 pages.
fn all() -> impl Iterator<Item = &'static EmbeddedFile> {
    [CONSOLE, LOOK, CLIENT, DEMO, docs::PAGES, docs::FILES].into_iter().flatten()
}

/// The contract that [`Client::request`] knows has no pages.
#[track_caller]
fn ask(client: &mut Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    client.try_request(method, path, headers, b"").unwrap()
}

#[track_caller]
fn status(server: &Server, path: &str) -> u16 {
    ask(&mut server.client(), "GET", path, &[]).status
}

#[test]
fn pages_are_public_and_have_a_strict_csp() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.server.demo = Demo::On;
    });
    let mut nobody = server.client();
    for page in all() {
        let answer = ask(&mut nobody, "GET", page.path, &[]);
        assert_eq!((answer.status, answer.body.as_slice()), (200, page.bytes()), "{}", page.path);
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|known| known == part), "{part} is missing in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("content-type", page.media_type),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", page.path);
        }
        let head = ask(&mut nobody, "HEAD", page.path, &[]);
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length").unwrap(), page.bytes().len().to_string());
        assert_eq!(head.header("content-security-policy"), Some(policy));
    }
    for path in ["/?utm=x", "/console/console.css?2"] {
        assert_eq!(ask(&mut nobody, "GET", path, &[]).status, 200, "{path}");
    }
    for path in ["/console", "/console/", "/console/nothing.js", "/client/../client/client.js", "/index.html"]
    {
        ask(&mut nobody, "GET", path, &[]).refused(404, "not_found");
    }
}

#[test]
fn pages_allow_only_get_and_head() {
    let server = Server::start();
    let mut nobody = server.client();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = ask(&mut nobody, method, "/", &[]);
        answer.refused(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    assert_eq!(ask(&mut nobody, "OPTIONS", "/", &[]).status, 204);
}

#[test]
fn pages_can_be_turned_off() {
    let without = Server::with(|config| {
        config.server.console = false;
        config.server.demo = Demo::Off;
        config.server.docs = false;
    });
    assert_eq!(status(&without, docs::HOME), 404);
    for page in all() {
        assert_eq!(status(&without, page.path), 404, "{}", page.path);
    }
    let demo_only = Server::with(|config| config.server.console = false);
    assert_eq!(status(&demo_only, "/"), 404);
    assert_eq!(status(&demo_only, "/client/index.js"), 200, "the playground needs it");
    for page in DEMO {
        assert_eq!(status(&demo_only, page.path), 200, "{}", page.path);
    }
}

#[test]
fn a_disabled_playground_answers_html_to_browsers_only() {
    let html = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
    let off = Server::with(|config| config.server.demo = Demo::Off);
    let mut nobody = off.client();
    let answer = ask(&mut nobody, "GET", "/demo", &html);
    assert_eq!((answer.status, answer.body.as_slice()), (404, DEMO_IS_OFF.bytes()));
    assert_eq!(answer.header("content-type"), Some(DEMO_IS_OFF.media_type));
    assert!(answer.header("content-security-policy").is_some());
    for accept in ["*/*", "application/json"] {
        ask(&mut nobody, "GET", "/demo", &[("Accept", accept)]).refused(404, "not_found");
    }
    ask(&mut nobody, "GET", "/demo", &[]).refused(404, "not_found");
    ask(&mut nobody, "GET", "/demo/demo.js", &html).refused(404, "not_found");
    let bare = Server::with(|config| {
        config.server.console = false;
        config.server.demo = Demo::Off;
    });
    ask(&mut bare.client(), "GET", "/demo", &html).refused(404, "not_found");
    let on = Server::start();
    assert_eq!(ask(&mut on.client(), "GET", "/demo", &html).status, 200);
}

#[test]
fn the_playground_is_on_by_default_in_mode_none_only() {
    for (mode, demo, has_it) in [
        (AuthMode::None, Demo::Auto, true),
        (AuthMode::Token, Demo::Auto, false),
        (AuthMode::Jwt, Demo::Auto, false),
        (AuthMode::Proxy, Demo::Auto, false),
        (AuthMode::Token, Demo::On, true),
        (AuthMode::None, Demo::Off, false),
    ] {
        let mut config = Config::default();
        config.auth.mode = mode;
        config.server.demo = demo;
        assert_eq!(config.has_demo(), has_it, "{mode:?} {demo:?}");
    }
}

#[test]
fn configured_origins_may_import_the_client() {
    let server = Server::with(|config| config.server.cors_origins = vec!["https://app.example".to_owned()]);
    let mut nobody = server.client();
    for page in CLIENT {
        let answer = ask(&mut nobody, "GET", page.path, &[("Origin", "https://app.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(answer.header("cross-origin-resource-policy"), None);
        let answer = ask(&mut nobody, "GET", page.path, &[("Origin", "https://evil.example")]);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn page_requests_are_counted_and_not_rate_limited() {
    let server = Server::with(|config| {
        config.auth.mode = AuthMode::Token;
        config.limits.requests_per_second = Some(1);
    });
    let mut nobody = server.client();
    for page in CONSOLE.iter().chain(CLIENT) {
        assert_eq!(ask(&mut nobody, "GET", page.path, &[]).status, 200, "{}", page.path);
    }
    let mut calls = (0..50).map(|_| ask(&mut nobody, "GET", "/api/v1/openapi.json", &[]));
    calls.find(|answer| answer.status != 200).unwrap().refused(429, "rate_limited");
    let metrics = server.with_token(Scope::Read, None).get("/metrics");
    let counted = format!(
        "lockhouse_http_requests_total{{route=\"page\",status=\"200\"}} {}",
        CONSOLE.len() + CLIENT.len()
    );
    assert!(metrics.text().contains(&counted), "{}", metrics.text());
}

/// The values of an attribute in a page.
fn values<'p>(page: &'p str, attribute: &str) -> impl Iterator<Item = &'p str> {
    let begin = format!(" {attribute}=\"");
    let found: Vec<_> = page.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    found.into_iter()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    // Its look is there without the console, too.
    let server = Server::with(|config| config.server.console = false);
    let with_console = Server::start();
    let mut client = server.client();
    let mut pages = std::collections::BTreeMap::new();
    for page in docs::PAGES {
        pages.insert(page.path, String::from_utf8(page.bytes().to_vec()).unwrap());
    }
    let home = ask(&mut client, "GET", docs::HOME, &[]);
    assert_eq!((home.status, home.text()), (200, pages["/docs/start"].as_str()));
    let (mut wrong, mut links) = (Vec::new(), 0);
    for (path, page) in &pages {
        for target in values(page, "href").chain(values(page, "src")) {
            links += 1;
            if target.starts_with("https://") || target.starts_with("http://localhost") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path,
                docs::HOME => "/docs/start",
                file => file,
            };
            let found = if file.starts_with("/docs/") || file.starts_with("/console/") {
                status(&server, file)
            } else {
                status(&with_console, file)
            };
            let has_anchor = || pages.get(file).is_some_and(|page| values(page, "id").any(|id| id == anchor));
            if found != 200 || !(anchor.is_empty() || has_anchor()) {
                wrong.push(format!("{path}: {target}"));
            }
        }
        let ids: Vec<_> = values(page, "id").collect();
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(ids.len(), different.len(), "{path}: {ids:?}");
        assert!(!page.contains(" style=") && !page.contains("<script"), "{path}: the policy blocks it");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links > 500, "only {links} links were found");
}

#[test]
fn a_browser_is_shown_the_menu_for_an_unknown_page_of_the_documentation() {
    let html = [("Accept", "text/html")];
    let server = Server::start();
    let mut client = server.client();
    for path in ["/docs/", "/docs/nothing", "/docs/concepts.md"] {
        let answer = ask(&mut client, "GET", path, &html);
        assert_eq!(answer.status, 404);
        assert!(answer.text().contains("href=\"/docs/concepts\"") && answer.text().contains("no such page"));
        ask(&mut client, "GET", path, &[]).refused(404, "not_found");
    }
    ask(&mut client, "GET", "/docsx", &html).refused(404, "not_found");
}
