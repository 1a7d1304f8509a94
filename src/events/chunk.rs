//! Bytes of a stream, shared by all followers that they are queued for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes of all chunks in memory.
#[derive(Debug, Default)]
pub struct StreamMemory(AtomicUsize);

impl StreamMemory {
    /// Bytes now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Bytes of a stream. A clone shares them.
#[derive(Debug, Clone)]
pub struct StreamChunk(Arc<SharedBytes>);

#[derive(Debug)]
struct SharedBytes {
    /// The bytes with the framing of a chunk (RFC 9112 §7.1).
    chunk: Box<[u8]>,
    /// Range of the bytes inside the framing.
    begin: usize,
    end: usize,
    stream_memory: Arc<StreamMemory>,
}

impl StreamChunk {
    /// Copies `bytes`. They are counted by `stream_memory` until the last clone is dropped.
    #[must_use]
    pub fn new(bytes: &[u8], stream_memory: &Arc<StreamMemory>) -> Self {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        let begin = chunk.len();
        chunk.extend_from_slice(bytes);
        let end = chunk.len();
        chunk.extend_from_slice(b"\r\n");
        stream_memory.0.fetch_add(chunk.len(), Ordering::SeqCst);
        Self(Arc::new(SharedBytes {
            chunk: chunk.into(),
            begin,
            end,
            stream_memory: Arc::clone(stream_memory),
        }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.chunk.get(self.0.begin..self.0.end).unwrap_or_default()
    }

    /// The bytes framed as a chunk of HTTP/1.1.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        &self.0.chunk
    }
}

impl PartialEq for StreamChunk {
    fn eq(&self, other: &Self) -> bool {
        self.0.chunk == other.0.chunk
    }
}

impl Eq for StreamChunk {}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        self.stream_memory.0.fetch_sub(self.chunk.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_chunks_are_counted_once_until_the_last_clone_is_dropped() {
        let stream_memory = Arc::default();
        let chunk = StreamChunk::new(b"an event, say", &stream_memory);
        let another = chunk.clone();
        assert_eq!((chunk.bytes(), chunk.chunk()), (&b"an event, say"[..], &b"d\r\nan event, say\r\n"[..]));
        assert_eq!(stream_memory.bytes(), 18);
        drop(chunk);
        assert_eq!(stream_memory.bytes(), 18);
        drop(another);
        assert_eq!(stream_memory.bytes(), 0);
    }
}
