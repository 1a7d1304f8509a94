//! The contents of pages of `docs`.

use std::path::PathBuf;

/// A page.
pub fn read(page: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap()
}

/// The blocks of this language on a page.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    read(page).split(&fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

/// The first of them, with our own paths and addresses in place of those of the page.
pub fn block_with(page: &str, language: &str, ours: &[(&str, &str)]) -> String {
    with(blocks(page, language).swap_remove(0), ours)
}

/// A text with our own paths and addresses in place of those of a page.
pub fn with(mut text: String, ours: &[(&str, &str)]) -> String {
    for (shown, ours) in ours {
        assert!(text.contains(shown), "{shown} is not on the page");
        text = text.replace(shown, ours);
    }
    text
}
