//! Display names of users, workspaces and tokens.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::id::NAME_BYTES;
use crate::error::Error;

/// Display name: 1 to 200 bytes with at least one visible character, without control characters and
/// bidirectional controls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DisplayName(String);

impl DisplayName {
    /// Parses `raw`: removes bidirectional controls, which could reverse the surrounding text, and trims
    /// blanks. Returns `None` if nothing visible is left.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field `name`, when `raw` is too long or contains a control character.
    pub fn parse(raw: &str) -> Result<Option<Self>, Error> {
        Self::parse_as("name", raw)
    }

    /// Like [`Self::parse`], with `field` as the field name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `field`.
    pub fn parse_as(field: &str, raw: &str) -> Result<Option<Self>, Error> {
        if raw.chars().any(char::is_control) {
            return Err(Error::invalid(field, "must not contain control characters"));
        }
        let shown: String = raw.chars().filter(|letter| !turns_text_round(*letter)).collect();
        let shown = shown.trim_matches(is_blank);
        if shown.len() > NAME_BYTES {
            return Err(Error::invalid(
                field,
                format!("must have at most {NAME_BYTES} bytes; this has {}", shown.len()),
            ));
        }
        Ok(shown.chars().any(is_visible).then(|| Self(shown.to_owned())))
    }

    /// Wraps a stored value without a check. The store holds only values that [`Self::parse`] accepted.
    pub(crate) const fn trusted(stored: String) -> Self {
        Self(stored)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the character is a `Bidi_Control` (<https://www.unicode.org/reports/tr9/>, section 2).
const fn turns_text_round(letter: char) -> bool {
    matches!(
        letter,
        '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    )
}

/// Whether the character is trimmed at the ends of a name: white space, including zero-width characters.
fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{AD}' | '\u{180E}' | '\u{200B}' | '\u{2060}' | '\u{FEFF}')
}

/// Whether the character is visible by itself. Not visible: separators, marks without a letter, format
/// characters, and letters that are blank or never displayed (`Default_Ignorable_Code_Point`).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "letters, numbers, punctuation and symbols show something"
)]
fn is_visible(letter: char) -> bool {
    if matches!(letter, '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{2800}') {
        return false;
    }
    match get_general_category(letter) {
        Category::Control
        | Category::Format
        | Category::Surrogate
        | Category::PrivateUse
        | Category::EnclosingMark
        | Category::NonspacingMark
        | Category::SpacingMark
        | Category::LineSeparator
        | Category::ParagraphSeparator
        | Category::SpaceSeparator => false,
        // Code points that are newer than this program's Unicode version count as visible, except those that
        // are never displayed.
        Category::Unassigned => {
            !matches!(letter, '\u{2065}' | '\u{FFF0}'..='\u{FFF8}' | '\u{E0000}'..='\u{E0FFF}')
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &str) -> Option<String> {
        DisplayName::parse(raw).unwrap().map(|name| name.as_str().to_owned())
    }

    #[test]
    fn names_are_trimmed_and_bidi_controls_are_removed() {
        for (raw, name) in [
            ("Alice", "Alice"),
            ("  Alice Martin\u{A0}", "Alice Martin"),
            ("\u{200B}Alice\u{FEFF}", "Alice"),
            ("\u{202E}ecilA", "ecilA"),
            ("Al\u{2066}ice\u{2069} \u{200F}\u{61C}", "Alice"),
            ("42", "42"),
            ("…", "…"),
            ("🎨", "🎨"),
            // Joiners and variation selectors inside emoji and words are kept.
            ("👩\u{200D}🎨", "👩\u{200D}🎨"),
            ("❤\u{FE0F}", "❤\u{FE0F}"),
            ("می\u{200C}خواهم", "می\u{200C}خواهم"),
            ("Zoe\u{308}", "Zoe\u{308}"),
        ] {
            assert_eq!(shown(raw).as_deref(), Some(name), "{raw:?}");
        }
    }

    #[test]
    fn invisible_names_are_no_names() {
        for raw in [
            "",
            " ",
            "\u{A0}\u{3000}",
            "\u{200B}",
            "\u{200D}",
            "\u{AD}",
            "\u{202E}",
            "\u{2060}\u{FEFF}",
            "\u{2028}",
            "\u{301}",
            "\u{20DD}",
            "\u{903}",
            "\u{34F}",
            "\u{FE0F}",
            "\u{180E}",
            "\u{115F}\u{1160}",
            "\u{3164}",
            "\u{FFA0}",
            "\u{2800}",
            "\u{17B4}",
            "\u{E0001}",
            "\u{E0100}",
            "\u{FFF0}",
            "\u{2065}",
            "\u{E000}",
        ] {
            assert_eq!(shown(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn the_length_limit_applies_to_the_cleaned_name() {
        let long = "ë".repeat(100);
        assert_eq!(shown(&format!("   {long}   ")).as_deref(), Some(long.as_str()));
        for bad in [
            format!("{long}e"),
            "a\nb".to_owned(),
            "a\u{7f}".to_owned(),
            "\tAlice".to_owned(),
            "\0".to_owned(),
        ] {
            assert!(DisplayName::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
