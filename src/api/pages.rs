//! The pages of the console as responses.

use super::exchange::Response;
use crate::web::EmbeddedFile;

/// What a page is called in the log and the metrics, whichever it is.
pub const NAME: &str = "page";

/// What a page may do (CSP level 3): load what this server has, talk to this server, and nothing else. No script or
/// style stands in the page itself, no text becomes HTML, and nobody may put the page into a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page, with the headers that keep it apart from other pages.
#[must_use]
pub fn response(page: &EmbeddedFile) -> Response {
    Response::of(page.status, page.media_type, page.bytes.to_vec())
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with("Referrer-Policy", "no-referrer")
        .with("Cross-Origin-Opener-Policy", "same-origin")
}
