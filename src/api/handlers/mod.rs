//! What the operations do: a value comes in, a use case is called, its outcome goes out. They know nothing of sockets.

pub mod audit;
pub mod bulk;
pub mod events;
pub mod handoff;
pub mod locks;
pub mod service;
pub mod tokens;
pub mod workspaces;

use serde_json::{Value, json};

use super::dispatch::Call;
use super::exchange::Response;
use super::problem::Problem;
use super::responder::Responder;
use super::wire::ok;
use crate::domain::event::Author;
use crate::error::Error;

/// Entries of a page when the caller does not say.
const PAGE: i64 = 100;

/// Who does it, and why, for the history.
fn by(call: &Call) -> Option<Author> {
    let user_id = call.caller.user_id.clone()?;
    let reason = call.values.text("reason").filter(|reason| !reason.is_empty()).map(str::to_owned);
    Some(Author { reason, ..Author::person(user_id, call.caller.name.clone()) })
}

/// The end of a use case: sends what `show` makes of the outcome, or why there is none.
fn answer<T>(
    responder: Responder,
    show: impl FnOnce(&T) -> Result<Response, Problem> + Send + 'static,
) -> impl FnOnce(Result<T, Error>) + Send + 'static {
    move |answer| {
        let request_id = responder.request_id().to_owned();
        responder.send_with(|| {
            answer
                .map_err(|error| Problem::of(&error, &request_id))
                .and_then(|outcome| show(&outcome))
                .unwrap_or_else(|problem| problem.to_response(&request_id))
        });
    }
}

/// Where a page begins, and how long it is.
fn page(call: &Call) -> (String, usize) {
    let after = call.values.text("cursor").unwrap_or_default().to_owned();
    (after, usize::try_from(call.values.integer("limit").unwrap_or(PAGE)).unwrap_or_default())
}

/// A page of `found`, which has one more than fits if there are more.
fn paged<T>(
    name: &str,
    found: &[T],
    limit: usize,
    show: impl Fn(&T) -> Value,
    id: impl Fn(&T) -> &str,
) -> Response {
    let entries = found.get(..limit).unwrap_or(found);
    let next_cursor = entries.last().filter(|_| found.len() > entries.len()).map(id);
    ok(&json!({ name: entries.iter().map(show).collect::<Vec<_>>(), "next_cursor": next_cursor }))
}
