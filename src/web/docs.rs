//! The documentation: the Markdown pages of `docs/`, rendered on first use.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::{CSS, EmbeddedFile, HTML, PNG};

/// The path of the documentation. It shows the first page.
pub const HOME: &str = "/docs";
/// Sections with more subsections than this begin with a list of them.
const FEW: usize = 5;
/// The template of all pages: head, navigation, content.
const FRAME: &str = include_str!("docs/page.html");
/// The server address in the examples. Links to it are made relative to this server.
const SHOWN: &str = "http://127.0.0.1:7311";

/// The pages in reading order, as Markdown and as files.
macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        const MARKDOWN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../docs/", $name, ".md")))),*];

        /// The pages.
        pub const PAGES: &[EmbeddedFile] = &[$(EmbeddedFile {
            path: concat!("/docs/", $name),
            status: 200,
            media_type: HTML,
            content: || {
                static PAGE: LazyLock<String> = LazyLock::new(|| page($name));
                PAGE.as_bytes()
            },
        }),*];
    };
}

pages![
    "start",
    "concepts",
    "browser",
    "back-end",
    "waiting-and-events",
    "python",
    "agents",
    "settings",
    "auth",
    "gate",
    "git-lfs",
    "run",
    "mcp",
    "terraform",
    "webhooks",
    "operation",
    "scale",
    "limits",
    "threat-model",
    "api",
    "architecture",
    "faq",
    "console",
];

macro_rules! picture {
    ($name:literal) => {
        EmbeddedFile {
            path: concat!("/docs/images/", $name),
            status: 200,
            media_type: PNG,
            content: || include_bytes!(concat!("../../docs/images/", $name)),
        }
    };
}

/// The style sheet and the pictures of the pages.
pub const FILES: &[EmbeddedFile] = &[
    EmbeddedFile {
        path: "/docs/docs.css",
        status: 200,
        media_type: CSS,
        content: || include_bytes!("docs/docs.css"),
    },
    picture!("console-health.png"),
    picture!("console-locks.png"),
    picture!("console-workspace.png"),
];

/// The answer for a page that does not exist.
pub const NOT_FOUND: EmbeddedFile = EmbeddedFile {
    path: "/docs/",
    status: 404,
    media_type: HTML,
    content: || {
        static PAGE: LazyLock<String> = LazyLock::new(|| {
            let text =
                "<h1>There is no such page</h1>\n<p>The pages of the documentation are in the menu.</p>\n";
            framed("There is no such page", "", &[], text)
        });
        PAGE.as_bytes()
    },
};

/// A heading of a page.
struct Heading {
    level: HeadingLevel,
    id: String,
    /// Its text, as HTML.
    html: String,
    /// The index of its last event.
    end: usize,
}

/// A page as HTML.
fn page(name: &str) -> String {
    let place = MARKDOWN.iter().position(|(known, _)| *known == name).unwrap_or_default();
    let markdown = MARKDOWN.get(place).map_or("", |(_, markdown)| *markdown);
    let mut events: Vec<_> = Parser::new_ext(markdown, Options::ENABLE_TABLES).map(with_address).collect();
    let headings = headings(&mut events);
    let mut text = String::new();
    html::push_html(&mut text, with_lists(events, &headings));
    // Text is escaped, so only elements match. Scrollable elements need `tabindex` for scrolling by keyboard.
    text = text
        .replace("<th></th>", "<td></td>")
        .replace("<pre>", "<pre tabindex=\"0\">")
        .replace("<table>", "<div class=\"scroll\" tabindex=\"0\"><table>")
        .replace("</table>", "</table></div>");
    text.push_str("<p class=\"turn\">");
    let neighbours = [("prev", place.checked_sub(1)), ("next", place.checked_add(1))];
    for (direction, neighbour) in neighbours {
        if let Some((name, markdown)) = neighbour.and_then(|place| MARKDOWN.get(place)) {
            let _ = write!(text, "<a rel=\"{direction}\" href=\"/docs/{name}\">{}</a>", title(markdown));
        }
    }
    text.push_str("</p>\n");
    framed(title(markdown), name, &headings, &text)
}

/// The title of a page: its first line.
fn title(markdown: &str) -> &str {
    markdown.lines().next().unwrap_or_default().trim_start_matches("# ")
}

/// Fills the template. The navigation shows the sections of the page `name`.
fn framed(title: &str, name: &str, headings: &[Heading], content: &str) -> String {
    let mut menu = String::from("<ul>\n");
    for (other, markdown) in MARKDOWN {
        let current = if *other == name { " aria-current=\"page\"" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(menu, "<li><a href=\"/docs/{other}\"{current}>{}</a>", self::title(markdown));
        if *other == name {
            menu.push_str(&list(headings.iter().filter(|heading| heading.level == HeadingLevel::H2)));
        }
        menu.push_str("</li>\n");
    }
    menu.push_str("</ul>");
    FRAME.replace("{title}", title).replace("{menu}", &menu).replace("{content}", content)
}

/// A list of links to headings, as HTML.
fn list<'h>(headings: impl Iterator<Item = &'h Heading>) -> String {
    let mut items = String::new();
    for Heading { id, html, .. } in headings {
        let _ = writeln!(items, "<li><a href=\"#{id}\">{html}</a></li>");
    }
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

/// Inserts a list of the subsections after each heading with many of them, unless a table follows.
fn with_lists<'e>(events: Vec<Event<'e>>, headings: &[Heading]) -> impl Iterator<Item = Event<'e>> {
    let lists: HashMap<usize, String> = headings
        .iter()
        .enumerate()
        .filter(|(_, heading)| heading.level == HeadingLevel::H2)
        .filter_map(|(place, heading)| {
            let rest = headings.iter().skip(place + 1);
            let inside = || rest.clone().take_while(|other| other.level > HeadingLevel::H2);
            let has_table = matches!(events.get(heading.end + 1), Some(Event::Start(Tag::Table(_))));
            let is_long = inside().count() > FEW && !has_table;
            is_long.then(|| (heading.end, format!("<div class=\"toc\">{}</div>\n", list(inside()))))
        })
        .collect();
    events.into_iter().enumerate().flat_map(move |(place, event)| {
        let list = lists.get(&place).map(|list| Event::Html(CowStr::from(list.clone())));
        std::iter::once(event).chain(list)
    })
}

/// Finds the headings, and sets the same ids as GitHub does.
fn headings(events: &mut [Event<'_>]) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let mut seen = HashMap::<String, usize>::new();
    for start in 0..events.len() {
        let Some(Event::Start(Tag::Heading { level, .. })) = events.get(start) else { continue };
        let level = *level;
        let is_end = |event: &&Event<'_>| matches!(event, Event::End(TagEnd::Heading(_)));
        let inside: Vec<_> =
            events.iter().skip(start + 1).take_while(|event| !is_end(event)).cloned().collect();
        let text: String = inside
            .iter()
            .map(|event| if let Event::Text(text) | Event::Code(text) = event { text.as_ref() } else { "" })
            .collect();
        let slug = slug(&text);
        let earlier = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_insert(0);
        let id = if *earlier == 0 { slug } else { format!("{slug}-{earlier}") };
        if let Some(Event::Start(Tag::Heading { id: place, .. })) = events.get_mut(start) {
            *place = Some(CowStr::from(id.clone()));
        }
        let end = start + 1 + inside.len();
        let mut html = String::new();
        html::push_html(&mut html, inside.into_iter());
        found.push(Heading { level, id, html, end });
    }
    found
}

fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// Rewrites the target of a link or picture for this server.
fn with_address(mut event: Event<'_>) -> Event<'_> {
    if let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = &mut event {
        *dest_url = CowStr::from(address(dest_url));
    }
    event
}

fn address(target: &str) -> String {
    if let Some(path) = target.strip_prefix(SHOWN) {
        return if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    }
    if target.contains("://") || target.starts_with('#') {
        return target.to_owned();
    }
    format!("{HOME}/{}", target.replacen(".md", "", 1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_page_and_every_picture_of_a_page_is_served() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let mut pages = 0;
        for entry in std::fs::read_dir(docs).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".md") else { continue };
            assert!(
                PAGES.iter().any(|page| page.path == format!("/docs/{name}")),
                "{name} is not in the table"
            );
            pages += 1;
        }
        assert_eq!(pages, PAGES.len());
    }

    #[test]
    fn links_lead_to_this_server_and_to_other_sites() {
        for (target, expected) in [
            ("concepts.md#fence", "/docs/concepts#fence"),
            ("api.md", "/docs/api"),
            ("images/demo.png", "/docs/images/demo.png"),
            ("#lease", "#lease"),
            ("http://127.0.0.1:7311/demo", "/demo"),
            ("http://127.0.0.1:7311", "/"),
            ("https://www.rfc-editor.org/rfc/rfc9457", "https://www.rfc-editor.org/rfc/rfc9457"),
        ] {
            assert_eq!(address(target), expected);
        }
    }

    #[test]
    fn headings_have_the_ids_of_github() {
        let mut events: Vec<_> =
            Parser::new("## `locks.min_ttl`, Ttl\n## A\n## A\n## Who's [there]?").collect();
        let ids: Vec<_> = headings(&mut events).into_iter().map(|heading| heading.id).collect();
        assert_eq!(ids, ["locksmin_ttl-ttl", "a", "a-1", "whos-there"]);
    }
}
