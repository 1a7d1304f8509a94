//! A simulated disk with power cuts and faults: `tests/shims/disk.c` between the program and the system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::lockhouse;

/// Calls that can fail.
pub const READ: i32 = 1;
pub const WRITE: i32 = 2;
pub const SYNC: i32 = 4;
pub const TRUNCATE: i32 = 8;
pub const RENAME: i32 = 16;

/// Files on which they can.
pub const DATABASE: i32 = 1;
pub const LOG: i32 = 2;
pub const FENCE: i32 = 16;
pub const DIRECTORY: i32 = 32;
pub const ALL: i32 = -1;

/// `errno`
pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

pub const FOR_EVER: i32 = -1;

/// A power cut keeps or loses so many bytes at a time.
const SECTOR: usize = 512;

/// A directory with a database on the simulated disk.
pub struct Disk {
    root: TempDir,
    control: File,
}

impl Disk {
    /// `None` where there is no C compiler.
    pub fn new() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        super::shim::compile("disk", root.path())?;
        for directory in ["data", "synced"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let control = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(root.path().join("control"))
            .unwrap();
        control.set_len(64).unwrap();
        Some(Self { root, control })
    }

    fn data(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("data")
    }

    fn synced(&self) -> PathBuf {
        self.root.path().join("synced")
    }

    pub fn database(&self) -> PathBuf {
        self.data().join("lockhouse.db")
    }

    /// `lockhouse` on this disk, without faults so far.
    pub fn lockhouse(&self) -> Command {
        self.heal();
        let mut command = lockhouse();
        command
            .env("LD_PRELOAD", self.root.path().join("disk.so"))
            .env("SHIM_DIRECTORY", self.data())
            .env("SHIM_CONTROL", self.root.path().join("control"));
        command
    }

    /// The same on a disk that can lose its power. What is there now is synced.
    pub fn lockhouse_until_the_power_is_cut(&self) -> Command {
        fs::remove_dir_all(self.synced()).unwrap();
        fs::create_dir(self.synced()).unwrap();
        let mut command = self.lockhouse();
        command.env("SHIM_SYNCED", self.synced());
        command
    }

    /// The `place`th number of `struct control`.
    fn set(&self, place: u64, value: i32) {
        self.control.write_all_at(&value.to_ne_bytes(), place * 4).unwrap();
    }

    /// From now on the next `times` of these calls on these files fail.
    pub fn fail(&self, calls: i32, files: i32, error: i32, times: i32) {
        self.heal();
        for (place, value) in [(1, files), (2, error), (3, times), (4, 0), (0, calls)] {
            self.set(place, value);
        }
    }

    pub fn heal(&self) {
        self.set(0, 0);
    }

    /// How many calls have failed since [`Self::fail`].
    pub fn failed(&self) -> i32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, 16).unwrap();
        i32::from_ne_bytes(bytes)
    }

    /// From now on syncs of these files succeed without an effect.
    pub fn skip_syncs_of(&self, files: i32) {
        self.set(5, files);
    }

    /// After SIGKILL: puts what a power cut leaves in the place of the files. Of what was written and not synced that
    /// survives for which `survives` says so: sectors, lengths, and names.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let names = fs::read_to_string(self.synced().join("names")).unwrap();
        let before: BTreeMap<String, u64> = names
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(inode, name)| (name.to_owned(), inode.parse().unwrap()))
            .collect();
        let mut after = BTreeMap::new();
        let mut bytes = BTreeMap::new();
        for entry in fs::read_dir(self.data()).unwrap() {
            let (path, inode) =
                (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().metadata().unwrap().ino());
            after.insert(entry.unwrap().file_name().into_string().unwrap(), inode);
            bytes.insert(inode, fs::read(&path).unwrap());
            fs::remove_file(path).unwrap();
        }
        let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for name in all {
            let (old, new) = (before.get(name), after.get(name));
            let Some(inode) = (if old == new || !survives() { old } else { new }) else { continue };
            let kept = fs::read(self.synced().join(inode.to_string())).unwrap_or_default();
            let kept = bytes.get(inode).map_or_else(|| kept.clone(), |new| mixed(&kept, new, &mut survives));
            // The index of the log is memory that two processes share, and nothing of it is on the disk.
            let kept = if name.ends_with("-shm") { Vec::new() } else { kept };
            fs::write(self.data().join(name), kept).unwrap();
        }
    }
}

fn mixed(old: &[u8], new: &[u8], survives: &mut impl FnMut() -> bool) -> Vec<u8> {
    let length = if old.len() == new.len() || !survives() { old.len() } else { new.len() };
    let mut mixed = old.to_vec();
    mixed.resize(length, 0);
    for (at, sector) in new.chunks(SECTOR).enumerate() {
        let start = at * SECTOR;
        let end = (start + sector.len()).min(length);
        if start < end && mixed[start..end] != sector[..end - start] && survives() {
            mixed[start..end].copy_from_slice(&sector[..end - start]);
        }
    }
    mixed
}
