//! Forwarded requests: their progress, and what their answer depends on.

use super::parser::{After, Head, Version};
use super::socket::Written;

/// A forwarded request, and the properties that its answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) id: u64,
    pub(super) version: Version,
    pub(super) after: After,
    pub(super) is_head: bool,
    pub(super) phase: Phase,
}

impl Exchange {
    pub(super) fn new(id: u64, head: &Head<'_>) -> Self {
        let is_head = head.method == "HEAD";
        Self { id, version: head.version, after: head.after, is_head, phase: Phase::InFlight }
    }

    /// The exchange of a refusal. The connection is closed after it.
    pub(super) const fn last(is_head: bool) -> Self {
        Self { id: 0, version: Version::Http11, after: After::Close, is_head, phase: Phase::InFlight }
    }
}

/// The progress of a forwarded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request is being processed.
    InFlight,
    /// The request waits for an event, possibly for minutes.
    Parked,
    /// The head of the answer was sent. These pieces are still in the output.
    Streaming(Pieces),
}

/// The size of the pieces in the output, without and with the chunk framing (bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    bytes: usize,
    framed: usize,
}

impl Pieces {
    /// Adds a piece of this size, without and with framing (bytes).
    pub(super) const fn add(&mut self, bytes: usize, framed: usize) {
        self.bytes += bytes;
        self.framed += framed;
    }

    /// Subtracts what was written, and returns its size without framing (bytes).
    pub(super) const fn taken(&mut self, written: Written) -> usize {
        let framed = match written {
            Written::Blocked(framed) if framed < self.framed => framed,
            Written::Blocked(_) | Written::All => self.framed,
        };
        if framed == self.framed {
            let bytes = self.bytes;
            *self = Self { bytes: 0, framed: 0 };
            return bytes;
        }
        // A proportional estimate. The last write corrects it.
        let bytes = self.bytes * framed / self.framed;
        self.bytes -= bytes;
        self.framed -= framed;
        bytes
    }
}
