//! The pace of a long task, limited so that it hardly delays others that need the writer.

use std::time::Duration;

/// Target duration of a step, including its commit.
const STEP_GOAL: Duration = Duration::from_millis(10);
/// Minimum and maximum number of rows of a step.
const MIN_ROWS: u32 = 16;
const MAX_ROWS: u32 = 512;

/// The number of rows that a long task handles in its next step. It follows from the duration of the last
/// step: a commit takes longer on a slow disk, and if the rows are far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    rows: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: MIN_ROWS }
    }
}

impl Pace {
    /// Maximum number of rows of the next step.
    #[must_use]
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// Records the duration of a step. Returns how long to wait before the next one, so that others get the
    /// writer for as long as the step took.
    pub fn record_step(&mut self, took: Duration) -> Duration {
        self.rows = if took > STEP_GOAL { self.rows / 2 } else { self.rows * 2 }.clamp(MIN_ROWS, MAX_ROWS);
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_when_fast_and_shrink_when_slow() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            assert_eq!(pace.record_step(STEP_GOAL), STEP_GOAL);
        }
        assert_eq!(pace.rows(), MAX_ROWS);
        for _ in 0..20 {
            pace.record_step(STEP_GOAL + Duration::from_millis(1));
        }
        assert_eq!(pace.rows(), MIN_ROWS, "it always goes on");
    }
}
