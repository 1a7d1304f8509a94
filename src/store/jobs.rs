//! Use cases that are submitted to the writer, and the thread that answers them.
//! Serializing and sending the answers overlaps with the next commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::origin::Origin;
use super::queue::Waiter;

use super::rows::{AsOf, Keys, Reply};
use super::set::WorkingSet;
use crate::domain::Acquired;
use crate::error::Error;

/// A submitted use case.
pub(super) trait Job: Send {
    /// The keys that it will touch.
    fn keys(&self) -> &Keys;
    /// Runs the use case. May be called again, on another working set.
    fn run(&mut self, set: &WorkingSet<'_>) -> Result<(), Error>;
    /// Sends the answer: the result of [`Self::run`], or `failure` if it was not committed.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct UseCase<T, W, R> {
    keys: Keys,
    origin: Origin,
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
        self.found = Some(AsOf { now: set.now(), value: self.origin.run(|| (self.work)(set))? });
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let Self { origin, found, reply, .. } = *self;
        let answer = match (failure, found) {
            (Some(failure), _) => Err(failure),
            (None, Some(found)) => Ok(found),
            (None, None) => Err(Error::Internal("a use case was answered before it ran".to_owned())),
        };
        // The reply may submit a next step of the same request.
        origin.run(|| reply(answer));
    }
}

/// Creates a job from `work`. It will touch `keys`, and its answer goes to `reply`.
pub(super) fn job<T, W, R>(keys: Keys, work: W, reply: R) -> Box<dyn Job>
where
    T: Send + 'static,
    W: Fn(&WorkingSet<'_>) -> Result<T, Error> + Send + 'static,
    R: Reply<T>,
{
    Box::new(UseCase { keys, origin: Origin::current(), work, found: None, reply })
}

/// The answers of a batch.
#[derive(Default)]
pub(super) struct Answers {
    /// The use cases, each with its error if it failed.
    pub(super) jobs: Vec<(Box<dyn Job>, Option<Error>)>,
    /// The waiters whose wait has ended, each with its answer.
    pub(super) told: Vec<FinalAnswer>,
}

/// A waiter and its final answer.
pub(super) type FinalAnswer = (Arc<Waiter>, Result<AsOf<Acquired>, Error>);

/// Sends the answers of all batches until the channel closes.
pub(super) fn answer(to_answer: &Receiver<Answers>) {
    to_answer.iter().for_each(Answers::answer);
}

impl Answers {
    /// Sends the answers. A reply that panics affects only its own answer.
    pub(super) fn answer(self) {
        for (job, failure) in self.jobs {
            catch_panic(|| job.answer(failure));
        }
        for (waiter, answer) in self.told {
            catch_panic(|| waiter.answer(answer));
        }
    }
}

fn catch_panic(answer: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(answer)).is_err() {
        log::error!("an answer panicked");
    }
}
