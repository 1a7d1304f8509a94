//! Relative links of the pages lead to files that exist, and their anchors to headings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown pages, by their path from the root of the repository. The changelog names pages of older versions.
fn pages() -> Vec<PathBuf> {
    let files = |folder: &str| {
        let folder = folder.to_owned();
        root().join(&folder).read_dir().unwrap().map(move |entry| {
            let name = entry.unwrap().file_name();
            if folder == "." { PathBuf::from(name) } else { Path::new(&folder).join(name) }
        })
    };
    let mut pages: Vec<_> =
        [".", "docs", "clients/js", "clients/python", "examples"].into_iter().flat_map(files).collect();
    let of_examples = files("examples").map(|example| example.join("README.md"));
    pages.extend(of_examples.filter(|page| root().join(page).is_file()));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.retain(|page| page != Path::new("CHANGELOG.md"));
    pages.sort();
    pages
}

/// The lines of a page that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The anchors of a page's headings, made as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let slug: String = line
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect();
            let count = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_insert(0);
            if *count == 0 { slug } else { format!("{slug}-{count}") }
        })
        .collect()
}

/// What the page's links and pictures name: `](target)`.
fn targets(text: &str) -> Vec<String> {
    let prose: Vec<_> = prose(text).collect();
    let prose = prose.join("\n");
    prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

#[test]
fn relative_links_and_anchors_resolve() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        for target in targets(&text) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            // The server has the pages of `docs/`, and no others.
            if page.starts_with("docs") && path.starts_with("..") {
                wrong.push(format!("{}: {target}: leads out of docs", page.display()));
            }
            let file = root().join(file);
            if !file.is_file() {
                wrong.push(format!("{}: {target}: no such file", page.display()));
            } else if !anchor.is_empty() && !anchors(&std::fs::read_to_string(file).unwrap()).contains(anchor)
            {
                wrong.push(format!("{}: {target}: no such heading", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(links > 20, "only {links} links were found");
}

#[test]
fn files_named_on_pages_exist() {
    let folders = ["src/", "tests/", "benches/", "docs/", "packaging/", "clients/", "examples/"];
    let mut named = 0;
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        let prose = prose(&text).collect::<Vec<_>>().join("\n");
        for path in prose.split('`').skip(1).step_by(2) {
            if folders.iter().any(|folder| path.starts_with(folder)) && !path.contains(char::is_whitespace) {
                let folders = [root(), root().join(page.parent().unwrap())];
                let exists = folders.iter().any(|folder| folder.join(path).exists());
                assert!(exists, "{}: {path} does not exist", page.display());
                named += 1;
            }
        }
    }
    assert!(named > 15, "only {named} files are named");
}

/// Pages about one tool or client each. Their words are counted page by page.
const OF_ONE_TOOL: [&str; 9] = [
    "docs/agents.md",
    "docs/git-lfs.md",
    "docs/mcp.md",
    "docs/python.md",
    "docs/run.md",
    "docs/scale.md",
    "docs/terraform.md",
    "docs/webhooks.md",
    "clients/python/README.md",
];

/// Generated pages do not count, nor do those of the examples, of which people read one.
#[test]
fn hand_written_pages_have_fewer_than_12_000_words() {
    let mut pages = pages();
    pages.retain(|page| !["docs/api.md", "docs/settings.md"].map(Path::new).contains(&page.as_path()));
    pages.retain(|page| !page.starts_with("examples"));
    let words =
        |page: &PathBuf| std::fs::read_to_string(root().join(page)).unwrap().split_whitespace().count();
    let (of_one_tool, others): (Vec<_>, Vec<_>) =
        pages.iter().partition(|page| OF_ONE_TOOL.map(Path::new).contains(&page.as_path()));
    for page in of_one_tool {
        assert!(words(page) <= 600, "{} has {} words", page.display(), words(page));
    }
    let sum: usize = others.into_iter().map(words).sum();
    assert!(sum < 12_000, "{sum} words");
}

/// The server shows the pages of `docs/` as text: HTML in them would be shown as it is written.
#[test]
fn pages_have_no_html() {
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        let is_html =
            |line: &&str| line.trim_start().starts_with(['<']) && !line.trim_start().starts_with("<http");
        let html = prose(&text).find(is_html);
        assert!(html.is_none(), "{}: {html:?}", page.display());
    }
}
