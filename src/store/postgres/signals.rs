//! What the listening thread waits for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What the listening thread waits for.
#[derive(Default)]
pub(super) struct Signals {
    /// This node has committed something that concerns others, or the thread has to stop.
    pub(super) committed: Notify,
    /// Another node has notified.
    pub(super) notified: Notify,
    /// A notification of this node has come back to it.
    pub(super) hears_itself: AtomicBool,
    pub(super) is_stopping: AtomicBool,
}

impl Signals {
    /// Asks the thread to notify the other nodes.
    pub(super) fn notify_others(&self) {
        self.committed.notify_one();
    }

    /// A notification of `node_id` has arrived.
    pub(super) fn received(&self, node_id: &str, own_id: &str) {
        if node_id == own_id {
            self.hears_itself.store(true, Ordering::SeqCst);
        } else {
            self.notified.notify_one();
        }
    }
}
