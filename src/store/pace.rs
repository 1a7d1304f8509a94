//! How fast something long goes on, so that those who want the writer meanwhile hardly notice.

use std::time::Duration;

/// What a step may take, its commit with it.
const GOAL: Duration = Duration::from_millis(10);
/// Rows of a step: at least, and at most.
const LEAST: u32 = 16;
const MOST: u32 = 512;

/// The pace of something that is done step by step. The rows of a step follow from what the steps before took: how long a
/// commit takes depends on the disk, and on how far apart the rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    rows: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: LEAST }
    }
}

impl Pace {
    /// Most rows of the next step.
    #[must_use]
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// A step took so long. Returns how long others have the writer to themselves before the next one.
    pub fn stepped(&mut self, took: Duration) -> Duration {
        self.rows = if took > GOAL { self.rows / 2 } else { self.rows * 2 }.clamp(LEAST, MOST);
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            assert_eq!(pace.stepped(GOAL), GOAL);
        }
        assert_eq!(pace.rows(), MOST);
        for _ in 0..20 {
            pace.stepped(GOAL + Duration::from_millis(1));
        }
        assert_eq!(pace.rows(), LEAST, "it always goes on");
    }
}
