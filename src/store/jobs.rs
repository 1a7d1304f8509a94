//! What is submitted to the writer, and the thread that answers it: turning answers into bytes and sending them overlaps
//! with the next commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::queue::Waiter;
use super::rows::AsOf;
use super::rows::Keys;
use super::set::WorkingSet;
use crate::domain::Acquired;
use crate::error::Error;

/// A use case that was submitted.
pub(super) trait Job: Send {
    /// What it will touch.
    fn keys(&self) -> &Keys;
    /// Carries it out; may be called again, on another set.
    fn run(&mut self, set: &WorkingSet<'_>) -> Result<(), Error>;
    /// Answers it: with what [`Self::run`] found, or with why that was not kept.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct UseCase<T, W, R> {
    keys: Keys,
    work: W,
    found: Option<AsOf<T>>,
    reply: R,
}

impl<T, W, R> Job for UseCase<T, W, R>
where
    T: Send,
    W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send,
    R: FnOnce(Result<AsOf<T>, Error>) + Send,
{
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn run(&mut self, set: &WorkingSet<'_>) -> Result<(), Error> {
        self.found = Some(AsOf { now: set.now(), value: (self.work)(set)? });
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let answer = match (failure, self.found) {
            (Some(failure), _) => Err(failure),
            (None, Some(found)) => Ok(found),
            (None, None) => Err(Error::Internal("a use case was answered before it ran".to_owned())),
        };
        (self.reply)(answer);
    }
}

/// The use case `work`, which will touch `keys`, and whose answer goes to `reply`.
pub(super) fn job<T, W, R>(keys: Keys, work: W, reply: R) -> Box<dyn Job>
where
    T: Send + 'static,
    W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
    R: FnOnce(Result<AsOf<T>, Error>) + Send + 'static,
{
    Box::new(UseCase { keys, work, found: None, reply })
}

/// Who is to be told of what was committed.
#[derive(Default)]
pub(super) struct Answers {
    /// Those who submitted the use cases, each with why it failed, if it did.
    pub(super) jobs: Vec<(Box<dyn Job>, Option<Error>)>,
    /// Those who waited.
    pub(super) told: Vec<FinalAnswer>,
}

/// What became of somebody who waited.
pub(super) type FinalAnswer = (Arc<Waiter>, Result<AsOf<Acquired>, Error>);

/// Gives the answers.
pub(super) fn answer(to_answer: &Receiver<Answers>) {
    to_answer.iter().for_each(Answers::answer);
}

impl Answers {
    /// Gives the answers. A reply that panics loses its own answer and no other.
    pub(super) fn answer(self) {
        for (job, failure) in self.jobs {
            in_peace(|| job.answer(failure));
        }
        for (waiter, answer) in self.told {
            in_peace(|| waiter.answer(answer));
        }
    }
}

fn in_peace(answer: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(answer)).is_err() {
        log::error!("an answer panicked");
    }
}
