//! What the operations do: a value comes in, a use case is called, its outcome goes out. They know nothing of sockets.

pub mod asking;
pub mod bulk;
pub mod events;
pub mod locks;
pub mod service;

use super::exchange::{Reply, Response};
use super::problem::Problem;
use crate::error::Error;

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
