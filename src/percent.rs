//! Percent-encoding (RFC 3986 §2.1): the one rule for paths, queries and headers.

use percent_encoding::percent_decode_str;

/// The reason for refusing input that [`decode`] cannot decode: the end of a sentence.
///
/// The sentence begins with the name of the field.
pub const RULE: &str =
    "must be percent-encoded UTF-8: two hexadecimal digits follow each %, and a % itself is %25";

/// Decodes percent-encoded text.
///
/// `None` unless two hexadecimal digits follow each `%` and the result is UTF-8.
#[must_use]
pub fn decode(encoded: &str) -> Option<String> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !encoded.split('%').skip(1).all(is_escape) {
        return None;
    }
    percent_decode_str(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_need_two_hexadecimal_digits() {
        for (encoded, text) in [
            ("", ""),
            ("a", "a"),
            ("team%2Fdesign%2042", "team/design 42"),
            ("%C3%ab", "ë"),
            ("a%2525", "a%25"),
        ] {
            assert_eq!(decode(encoded).as_deref(), Some(text), "{encoded}");
        }
        for bad in ["%", "%2", "a%zz", "%2 ", "%%20", "%+f", "a%", "%ff", "%c3", "%C3%", "%ë1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
