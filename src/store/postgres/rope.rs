//! What the thread of the bell waits for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What the thread waits for.
#[derive(Default)]
pub(super) struct Rope {
    /// This node has committed something that concerns others, or the thread has to stop.
    pub(super) pulled: Notify,
    /// Another node has notified.
    pub(super) heard: Notify,
    /// This node has heard itself.
    pub(super) hears_itself: AtomicBool,
    pub(super) is_stopping: AtomicBool,
}

impl Rope {
    /// Tells the other nodes to look.
    pub(super) fn pull(&self) {
        self.pulled.notify_one();
    }

    /// A notification of `node_id` has arrived.
    pub(super) fn hear(&self, node_id: &str, own_id: &str) {
        if node_id == own_id {
            self.hears_itself.store(true, Ordering::SeqCst);
        } else {
            self.heard.notify_one();
        }
    }
}
