//! What the dispatcher is told by other threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::receiver::Outcome;
use crate::error::Error;

/// News for the dispatcher, about the webhook at this place.
pub(super) enum News {
    /// An attempt is over.
    Attempted(usize, Outcome),
    /// A position was written down, or not because another server has claimed the webhook.
    Stored(usize, i64, Result<bool, Error>),
    /// The webhook was claimed, or not because another server has it.
    Claimed(usize, Result<Option<i64>, Error>),
    /// An attempt is wanted now.
    Hurry(usize),
}

/// The inbox, with a condition variable for the one thread that waits for it.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    wakeup: Condvar,
}

#[derive(Default)]
pub(super) struct InboxState {
    pub(super) news: Vec<News>,
    woken: bool,
    pub(super) is_stopping: bool,
}

impl Inbox {
    pub(super) fn push(&self, news: News) {
        let mut state = self.lock();
        state.news.push(news);
        self.wake_up(state);
    }

    /// A repeated wish is one wish.
    pub(super) fn hurry(&self, place: usize) {
        let mut state = self.lock();
        state.news.retain(|news| !matches!(news, News::Hurry(known) if *known == place));
        state.news.push(News::Hurry(place));
        self.wake_up(state);
    }

    /// Wakes the thread: there are new events, or the clock was moved.
    pub(super) fn wake(&self) {
        self.wake_up(self.lock());
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        self.wake_up(state);
    }

    fn wake_up(&self, mut state: MutexGuard<'_, InboxState>) {
        if !state.woken {
            state.woken = true;
            self.wakeup.notify_all();
        }
    }

    /// Waits until woken, for `at_most` this long. Returns the news, and whether to stop.
    pub(super) fn wait(&self, at_most: Duration) -> (Vec<News>, bool) {
        let state = self.lock();
        let (mut state, _) = self
            .wakeup
            .wait_timeout_while(state, at_most, |state| !state.woken)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        (std::mem::take(&mut state.news), state.is_stopping)
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        // No code panics while it holds the mutex.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
