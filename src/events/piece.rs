//! A piece of a stream: kept once, however many are told it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes of pieces are kept, on their way to anybody.
#[derive(Debug, Default)]
pub struct Meter(AtomicUsize);

impl Meter {
    /// So many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A piece of a stream. A clone shares the bytes.
#[derive(Debug, Clone)]
pub struct Piece(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    /// As a chunk (RFC 9112 §7.1), so that it is framed once.
    chunk: Box<[u8]>,
    /// Where the bytes begin and end in it.
    begin: usize,
    end: usize,
    meter: Arc<Meter>,
}

impl Piece {
    /// These bytes, which are counted as long as anybody keeps them.
    #[must_use]
    pub fn new(bytes: &[u8], meter: &Arc<Meter>) -> Self {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        let begin = chunk.len();
        chunk.extend_from_slice(bytes);
        let end = chunk.len();
        chunk.extend_from_slice(b"\r\n");
        meter.0.fetch_add(chunk.len(), Ordering::SeqCst);
        Self(Arc::new(Kept { chunk: chunk.into(), begin, end, meter: Arc::clone(meter) }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.chunk.get(self.0.begin..self.0.end).unwrap_or_default()
    }

    /// The same as a chunk of HTTP/1.1.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        &self.0.chunk
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.0.chunk == other.0.chunk
    }
}

impl Eq for Piece {}

impl Drop for Kept {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.chunk.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_counted_once_and_until_nobody_has_it() {
        let meter = Arc::default();
        let piece = Piece::new(b"an event, say", &meter);
        let another = piece.clone();
        assert_eq!((piece.bytes(), piece.chunk()), (&b"an event, say"[..], &b"d\r\nan event, say\r\n"[..]));
        assert_eq!(meter.bytes(), 18);
        drop(piece);
        assert_eq!(meter.bytes(), 18);
        drop(another);
        assert_eq!(meter.bytes(), 0);
    }
}
