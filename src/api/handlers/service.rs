//! About the server itself.

#![expect(clippy::unnecessary_wraps, reason = "the table of routes asks for one type of handler")]

use std::sync::{Arc, LazyLock};

use serde_json::json;

use super::answer;
use crate::api::dispatch::Call;
use crate::api::exchange::Response;
use crate::api::openapi;
use crate::api::problem::Problem;
use crate::api::routes::{Answer, JSON};
use crate::api::wire::ok;
use crate::app::{Ready, Service};
use crate::config::AuthMode;
use crate::metrics::Metrics;

/// `GET /healthz`
pub fn health(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::Now(ok(&json!({ "status": "up", "version": env!("CARGO_PKG_VERSION") }))))
}

/// `GET /readyz`
pub fn ready(service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        let show = |ready: &Ready| match ready {
            Ready::Yes => Ok(ok(&json!({ "status": "ready", "version": env!("CARGO_PKG_VERSION") }))),
            Ready::Unreadable => {
                Err(Problem::busy("The store cannot be read just now. The server's log tells why."))
            }
        };
        service.ready(answer(reply, show));
    }))
}

/// `GET /metrics`
pub fn metrics(service: &Arc<Service>, call: &Call) -> Result<Answer, Problem> {
    let measured = service.measured().map_err(|error| Problem::of(&error, &call.request_id))?;
    let text = measured.to_text();
    Ok(Answer::Now(Response::of(200, Metrics::CONTENT_TYPE, text.into_bytes())))
}

/// `GET /api/v1/openapi.json`
pub fn openapi(service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    static DOCUMENTS: LazyLock<Vec<(AuthMode, Vec<u8>)>> = LazyLock::new(|| {
        let document = |mode| (mode, openapi::document(mode).to_string().into_bytes());
        [AuthMode::None, AuthMode::Token, AuthMode::Jwt, AuthMode::Proxy].map(document).into()
    });
    let mine = DOCUMENTS.iter().find(|(mode, _)| *mode == service.auth_mode());
    let document = mine.map(|(_, document)| document.clone()).unwrap_or_default();
    Ok(Answer::Now(Response::of(200, JSON, document)))
}
