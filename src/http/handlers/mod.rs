//! What the operations do: a value comes in, a use case is called, its outcome goes out. They know nothing of sockets.

pub mod asking;
pub mod bulk;
pub mod events;
pub mod locks;
pub mod service;
pub mod tokens;
pub mod workspaces;

use super::dispatch::Call;
use super::exchange::{Reply, Response};
use super::problem::Problem;
use crate::error::Error;
use crate::store::events::By;

/// Who does it, and why, for the history.
fn by(call: &Call) -> Option<By> {
    let user_id = call.caller.user_id.clone()?;
    let reason = call.values.text("reason").filter(|reason| !reason.is_empty()).map(str::to_owned);
    Some(By { reason, ..By::person(user_id, call.caller.name.clone()) })
}

/// The end of a use case: sends what `show` makes of the outcome, or why there is none.
fn answer<T>(
    reply: Reply,
    show: impl FnOnce(&T) -> Result<Response, Problem> + Send + 'static,
) -> impl FnOnce(Result<T, Error>) + Send + 'static {
    move |answer| {
        let request_id = reply.request_id().to_owned();
        reply.send_with(|| {
            answer
                .map_err(|error| Problem::of(&error, &request_id))
                .and_then(|outcome| show(&outcome))
                .unwrap_or_else(|problem| problem.to_response(&request_id))
        });
    }
}
