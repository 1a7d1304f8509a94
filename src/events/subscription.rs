//! What a follower asks for, and how its connection is written to.

use super::chunk::StreamChunk;
use crate::domain::access::Rules;
use crate::domain::event::Event;
use crate::domain::{Lock, UserId, WorkspaceId};
use crate::time::{LeaseClock, Timestamp};

/// The connection of a follower.
pub trait EventSink: Send {
    /// Queues bytes for sending. Returns false when the connection has ended.
    fn push(&self, chunk: &StreamChunk) -> bool;
    /// Bytes that are queued and not yet sent.
    fn behind(&self) -> usize;
    /// Whether the connection has ended.
    fn is_gone(&self) -> bool;
    /// Calls `callback` when the connection ends. It is dropped uncalled when the server ends the stream.
    fn when_gone(&self, callback: Box<dyn FnOnce() + Send>);
}

/// How a stream is written: the format of server-sent events.
#[derive(Clone, Copy)]
pub struct EventEncoder {
    /// An event, with the lock that it began if that lock is still live, as seen now.
    pub event: fn(&Event, Option<&Lock>, &Rules, Timestamp, &LeaseClock) -> Vec<u8>,
    /// Events up to this revision are missing. The follower must read the state again.
    pub reset: fn(i64) -> Vec<u8>,
    /// A comment that carries nothing.
    pub keep_alive: &'static [u8],
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With the next event.
    Now,
    /// With the first event after this revision.
    After(i64),
}

/// What a follower asked for.
pub struct Subscription {
    /// Where the stream begins.
    pub from: StartFrom,
    /// Only events of these workspaces. Empty: of all.
    pub workspaces: Vec<WorkspaceId>,
    /// Only events that this member may see, and the one that ends their membership. None: all events.
    pub member: Option<UserId>,
    /// Also events of workspaces before they were deleted: for administrators.
    pub sees_deleted: bool,
    /// Whether the credentials are still good. Called every 15 seconds.
    pub still_allowed: Box<dyn Fn() -> bool + Send>,
}
