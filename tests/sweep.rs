//! The real program under load on a disk whose calls fail once and for ever: each kind of call, on the database and on its
//! log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::disk::{DATABASE, Disk, EIO, ENOSPC, FOR_EVER, LOG, READ, SYNC, TRUNCATE, WRITE};
use common::eventually;
use common::load::{Progress, Refusals, defects, killed_after, missing};
use common::process::Process;
use serde_json::json;

/// Clients of a round have workspaces of their own.
const CLIENTS_OF_A_ROUND: usize = 100;
/// Most answers that a fault has to wait for its call.
const AT_MOST: usize = 200;

/// What fails, and how.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: i32,
    file: i32,
    error: i32,
}

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Killed while the calls fail.
    KilledInIt,
    /// Killed right after one call has failed.
    KilledAfterOne,
    /// Stopped in good order while the calls fail.
    StoppedInIt,
}

impl Fault {
    /// Whether the server cannot be ready while this goes on.
    fn is_noticed(self) -> bool {
        // The database is written and the log is read only in a checkpoint. Until then the log keeps everything.
        [(WRITE, LOG), (SYNC, LOG), (READ, DATABASE)].contains(&(self.call, self.file))
    }

    /// From now on. Returns when a call has failed, or none is made.
    fn begin(self, disk: &Disk, times: i32, progress: &Progress<'_>) {
        disk.fail(self.call, self.file, self.error, times);
        progress.wait(AT_MOST, || disk.failed() > 0);
    }

    /// Whether the server is ready as soon as it works again. A disk that was full counts as full for a minute, one that
    /// could not be read for ten seconds.
    fn is_forgotten_at_once(self) -> bool {
        self.error != ENOSPC && self.call != READ
    }

    /// Returns how many calls have failed.
    fn round(self, disk: &Disk, process: &Process, progress: &Progress<'_>, end: End) -> i32 {
        let mut failed = 0;
        for pause in [7, 40, 23] {
            progress.wait(pause, || false);
            self.begin(disk, 1, progress);
            failed += disk.failed();
            disk.heal();
            recovers(process);
        }
        self.begin(disk, FOR_EVER, progress);
        progress.wait(20, || false);
        failed += disk.failed();
        if disk.failed() > 0 && self.is_noticed() {
            let mut client = process.user("probe");
            let ready = client.get("/readyz");
            assert!([503, 507].contains(&ready.status), "{}", ready.text());
        }
        disk.heal();
        recovers(process);
        if self.is_forgotten_at_once() || (self.error != ENOSPC && end == End::StoppedInIt) {
            eventually(|| process.user("probe").get("/readyz").status == 200);
        }
        match end {
            End::KilledInIt => {
                self.begin(disk, FOR_EVER, progress);
                progress.wait(20, || false);
            }
            End::KilledAfterOne => self.begin(disk, 1, progress),
            End::StoppedInIt => {
                disk.fail(self.call, self.file, self.error, FOR_EVER);
                process.ask_to_stop();
                eventually(|| process.is_over());
            }
        }
        failed + disk.failed()
    }
}

/// It works again, without a restart.
fn recovers(process: &Process) {
    let mut client = process.user("recovery");
    eventually(|| client.acquire("recovery", &json!({})).status == 200);
}

fn sweep(call: i32, errors: &[i32]) {
    let Some(disk) = Disk::new() else { return };
    let mut number = 0;
    for file in [DATABASE, LOG] {
        for error in errors {
            let fault = Fault { call, file, error: *error };
            let mut failed = 0;
            for end in [End::KilledInIt, End::KilledAfterOne, End::StoppedInIt] {
                let process = Process::start(&mut disk.lockhouse(), &disk.database());
                number += 1;
                let first = number * CLIENTS_OF_A_ROUND;
                let told = killed_after(process, first, Refusals::OfTheDisk, |process, progress| {
                    failed += fault.round(&disk, process, progress, end);
                });
                assert_eq!(missing(&disk.database(), &told), [""; 0], "{fault:?} {end:?}");
                assert_eq!(defects(&disk.database()), [""; 0], "{fault:?} {end:?}");
            }
            assert!(failed > 0, "{fault:?} never came to pass");
        }
    }
}

#[test]
fn failing_writes_lose_no_acknowledged_change() {
    sweep(WRITE, &[EIO, ENOSPC]);
}

#[test]
fn failing_syncs_lose_no_acknowledged_change() {
    sweep(SYNC, &[EIO, ENOSPC]);
}

#[test]
fn failing_truncates_lose_no_acknowledged_change() {
    sweep(TRUNCATE, &[EIO]);
}

#[test]
fn failing_reads_lose_no_acknowledged_change() {
    sweep(READ, &[EIO]);
}
