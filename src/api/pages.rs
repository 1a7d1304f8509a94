//! The pages of the console as responses.

use super::exchange::Response;
use crate::web::EmbeddedFile;

/// The name of all pages in the log and the metrics.
pub const NAME: &str = "page";

/// The content security policy of pages (CSP level 3).
///
/// A page may load from this server and connect to it, and nothing else. Inline scripts and styles are
/// blocked, strings cannot become HTML, and no page may put it into a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The response with a page, and the headers that isolate it from other pages.
#[must_use]
pub fn response(page: &EmbeddedFile) -> Response {
    Response::of(page.status, page.media_type, page.bytes().to_vec())
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("Referrer-Policy", "no-referrer")
        .with("Cross-Origin-Opener-Policy", "same-origin")
}
