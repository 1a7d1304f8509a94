//! The sweeper: keeps the database file small. Nothing that a client can see depends on it.
//!
//! It deletes expired leases and old history, and folds the write-ahead log into the database. It works in
//! bounded steps that go through the writer like all other writes. Its writes also keep `meta.last_seen_at`
//! fresh on an idle server, and detect a wall clock that was set.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::app::Service;
use crate::app::sweep::StepResult;
use crate::error::Error;
use crate::store::pace::Pace;

/// The number of sweeper threads that read from the store.
pub const READING_THREADS: u32 = 1;
/// The size above which the write-ahead log is folded in (bytes).
const LOG_BYTES: u64 = 16 * 1024 * 1024;
/// The limit of steps of one kind in one round, so that a round ends.
const STEPS: usize = 10_000;

/// The results of one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired leases that were deleted.
    pub leases: usize,
    /// Events that were deleted.
    pub events: usize,
}

/// Runs one round.
///
/// # Errors
/// The error that keeps the store from writing. Completed steps stay done.
pub fn sweep_once(service: &Service) -> Result<Swept, Error> {
    let swept = Swept {
        leases: in_steps(service, Service::sweep_step)?,
        events: in_steps(service, Service::trim_step)?,
    };
    service.tidy_tokens()?;
    service.checkpoint_if_over(LOG_BYTES)?;
    Ok(swept)
}

fn in_steps(service: &Service, step: fn(&Service, u32) -> Result<StepResult, Error>) -> Result<usize, Error> {
    let (mut pace, mut total) = (Pace::default(), 0);
    for _ in 0..STEPS {
        let began = service.monotonic();
        let StepResult { done, more } = step(service, pace.rows())?;
        total += done;
        if !more || service.is_stopping() {
            break;
        }
        std::thread::park_timeout(pace.record_step(service.monotonic().saturating_sub(began)));
    }
    Ok(total)
}

/// Sweeps at every `interval`, and whenever `woken` receives a message, until the service stops.
///
/// # Errors
/// When the system gives no thread.
pub fn start(service: &Arc<Service>, interval: Duration, woken: Receiver<()>) -> io::Result<JoinHandle<()>> {
    let service = Arc::clone(service);
    Builder::new().name("sweeper".to_owned()).spawn(move || {
        while woken.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) && !service.is_stopping() {
            match sweep_once(&service) {
                Ok(Swept { leases: 0, events: 0 }) => {}
                Ok(Swept { leases, events }) => {
                    log::debug!("swept {leases} expired leases and {events} old events");
                }
                Err(error) => {
                    log::warn!("the sweeper could not write: {error}; it tries again in {interval:?}");
                }
            }
        }
    })
}
