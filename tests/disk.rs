//! The program on a disk with power cuts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::disk::{Disk, LOG};
use common::load::{defects, highest, killed_under_load, missing};
use common::process::Process;

/// Yes and no, in a sequence that is the same each time (xorshift64).
fn coin(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed;
    move || {
        for shift in [13, -7, 17] {
            state ^= if shift > 0 { state << shift } else { state >> -shift };
        }
        state & 1 == 1
    }
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    let Some(disk) = Disk::new() else { return };
    let mut before = 0;
    for round in 0..10_usize {
        let process = Process::start(&mut disk.lockhouse_until_the_power_is_cut(), &disk.database());
        let told = killed_under_load(process, round, 60 + round * 41);
        // In even rounds nothing survives that was not synced, in odd rounds some of it.
        let mut some = coin(u64::try_from(round).unwrap() + 1);
        disk.cut_power(|| round % 2 == 1 && some());
        assert_eq!(missing(&disk.database(), &told), [""; 0], "round {round}");
        assert_eq!(defects(&disk.database()), [""; 0], "round {round}");
        assert!(highest(&told) > before, "fences go on after round {round}");
        before = highest(&told);
    }
}

#[test]
fn the_power_cut_test_detects_a_disk_that_skips_syncs() {
    let Some(disk) = Disk::new() else { return };
    let process = Process::start(&mut disk.lockhouse_until_the_power_is_cut(), &disk.database());
    disk.skip_syncs_of(LOG);
    let told = killed_under_load(process, 0, 60);
    disk.cut_power(|| false);
    assert!(!missing(&disk.database(), &told).is_empty());
}
