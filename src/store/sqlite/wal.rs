//! Reads the write-ahead log and its index without SQLite (<https://www.sqlite.org/walformat.html>).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::guard::{Guard, Inode};
use crate::error::Error;

/// A process that folds the log in holds a lock on this byte of the index (`WAL_CKPT_LOCK`, section 2.3.2).
const CHECKPOINT_LOCK: u64 = 121;
/// Offset of the salts in the log, which change each time the log begins anew
/// (<https://www.sqlite.org/fileformat.html>, section 4.1).
const SALTS: u64 = 16;
/// The sizes in bytes of the header of the log and of the header of each page (file format, section 4.1).
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// Offsets in the index: of the number of the log's pages, of the log's salts, and the end of what is read
/// (section 2.1).
const INDEX_PAGES: usize = 16;
const INDEX_SALTS: usize = 32;
const INDEX_HEADER: usize = 40;
/// How often the log is compared with its index before a difference counts.
const ATTEMPTS: usize = 5;

/// The log and its index. The files are kept open until SQLite has closed the database.
pub(super) struct Wal {
    log: SideFile,
    index: SideFile,
    /// Number of pages in the log when it was last compared with its index.
    pages: u32,
}

/// A file of SQLite beside the database.
struct SideFile {
    path: PathBuf,
    file: File,
    inode: Inode,
}

impl SideFile {
    fn open(guard: &Guard, end: &str) -> Result<Self, Error> {
        let mut path = guard.path().as_os_str().to_owned();
        path.push(end);
        let path = PathBuf::from(path);
        let opened = File::open(&path).and_then(|file| Ok((Inode::of(&file.metadata()?), file)));
        match opened {
            Ok((inode, file)) => Ok(Self { path, file, inode }),
            Err(error) => Err(Error::Internal(format!("cannot open {}: {error}", path.display()))),
        }
    }
}

impl Wal {
    /// Opens the files of an open database to which SQLite has written.
    pub(super) fn open(guard: &Guard) -> Result<Self, Error> {
        Ok(Self { log: SideFile::open(guard, "-wal")?, index: SideFile::open(guard, "-shm")?, pages: 0 })
    }

    /// The paths, and the files that were opened there.
    pub(super) fn files(&self) -> [(&Path, Inode); 2] {
        [&self.log, &self.index].map(|file| (file.path.as_path(), file.inode))
    }

    /// The path of the log.
    pub(super) fn log_path(&self) -> &Path {
        &self.log.path
    }

    /// The number of pages in the log when it was last compared with its index.
    pub(super) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Whether the log has what its index describes. Another program may be changing both at this moment, so
    /// they are compared several times.
    pub(super) fn is_complete(&mut self, page_size: usize) -> io::Result<bool> {
        for _ in 0..ATTEMPTS {
            if self.matches_index(page_size)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the log has the salts and the number of pages that its index describes. SQLite writes the log
    /// before the index, and removes the pages from the index before it truncates the log.
    fn matches_index(&mut self, page_size: usize) -> io::Result<bool> {
        let mut index = [0; INDEX_HEADER];
        self.index.file.read_exact_at(&mut index, 0)?;
        let (_, rest) = index.split_at(INDEX_PAGES);
        self.pages = rest.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        if self.pages == 0 {
            return Ok(true);
        }
        let frame = u64::try_from(page_size).unwrap_or_default().saturating_add(FRAME_HEADER);
        let needed = LOG_HEADER.saturating_add(frame.saturating_mul(self.pages.into()));
        if self.log.file.metadata()?.len() < needed {
            return Ok(false);
        }
        let (_, salts) = index.split_at(INDEX_SALTS);
        Ok(self.salts()?.as_slice() == salts)
    }

    /// The salts in the header of the log.
    pub(super) fn salts(&self) -> io::Result<[u8; 8]> {
        let mut salts = [0; 8];
        self.log.file.read_exact_at(&mut salts, SALTS).map(|()| salts)
    }

    /// Whether another program is folding the log in.
    pub(super) fn is_being_checkpointed(&self) -> io::Result<bool> {
        let lock = Flock {
            start: CHECKPOINT_LOCK,
            length: 1,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        Ok(fcntl_getlk(&self.index.file, &lock)?.is_some())
    }
}
