//! The request that causes a change, for the log lines about the change.
//!
//! It is kept for each thread while the request runs, so that no use case passes it on. A job takes it along.

use std::cell::RefCell;
use std::sync::Arc;

/// The ids of a request, or nothing for what the server does by itself.
#[derive(Debug, Clone, Default)]
pub struct Origin(Option<Arc<RequestIds>>);

/// The ids of a request.
#[derive(Debug)]
pub struct RequestIds {
    /// The request id.
    pub request_id: String,
    /// The trace that the request belongs to.
    pub trace_id: Option<String>,
}

thread_local! {
    static CURRENT: RefCell<Origin> = const { RefCell::new(Origin(None)) };
}

impl Origin {
    /// A request as the origin.
    #[must_use]
    pub fn request(request_id: &str, trace_id: Option<&str>) -> Self {
        let (request_id, trace_id) = (request_id.to_owned(), trace_id.map(str::to_owned));
        Self(Some(Arc::new(RequestIds { request_id, trace_id })))
    }

    /// The origin of what this thread runs.
    pub(super) fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Runs `work` with this origin.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(self.clone());
        // After a panic the old origin stays. The next request of this thread replaces it.
        let result = work();
        CURRENT.set(before);
        result
    }

    /// The ids of the request, if there is one.
    pub(super) fn ids(&self) -> Option<&RequestIds> {
        self.0.as_deref()
    }
}
