//! Limits the rate and the repetition of log lines.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hashlink::LruCache;

/// The time after a line during which its repetitions are not logged.
const QUIET: Duration = Duration::from_secs(600);
/// The maximum number of lines whose repetitions are counted.
const KNOWN: usize = 4096;

/// Limits the number of lines per second, and counts those left out.
#[derive(Debug)]
pub struct LineLimit {
    lines: u32,
    second: u64,
    used: u32,
    left_out: u64,
}

impl LineLimit {
    /// Allows this number of `lines` per second.
    #[must_use]
    pub const fn new(lines: u32) -> Self {
        Self { lines, second: 0, used: 0, left_out: 0 }
    }

    /// Whether one more line may be logged. In a new second, first logs how many were left out.
    pub fn allows(&mut self, now: Duration) -> bool {
        if now.as_secs() != self.second {
            if self.left_out > 0 {
                log::info!("{} more refusals and disconnections were not logged", self.left_out);
            }
            (self.second, self.used, self.left_out) = (now.as_secs(), 0, 0);
        }
        if self.used == self.lines {
            self.left_out += 1;
            return false;
        }
        self.used += 1;
        true
    }
}

/// Finds lines that repeat one of the last ten minutes.
pub struct Repeats(LruCache<u64, (Duration, u64)>);

impl Default for Repeats {
    fn default() -> Self {
        Self(LruCache::new(KNOWN))
    }
}

impl Repeats {
    /// The number of repetitions since the last line about `what`, if it is time for another one.
    pub fn due(&mut self, what: &impl Hash, now: Duration) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let what = hasher.finish();
        match self.0.get_mut(&what) {
            Some((logged_at, repeats)) if now.saturating_sub(*logged_at) < QUIET => {
                *repeats += 1;
                None
            }
            _ => Some(self.0.insert(what, (now, 0)).map_or(0, |(_, repeats)| repeats)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_due_after_ten_minutes_with_the_number_of_repetitions() {
        let mut repeats = Repeats::default();
        let at = Duration::from_secs;
        assert_eq!(repeats.due(&"a", at(5)), Some(0));
        assert_eq!(repeats.due(&"b", at(6)), Some(0));
        assert_eq!((repeats.due(&"a", at(7)), repeats.due(&"a", at(604))), (None, None));
        assert_eq!(repeats.due(&"a", at(605)), Some(2));
        assert_eq!((repeats.due(&"a", at(606)), repeats.due(&"a", at(1_205))), (None, Some(1)));
    }

    #[test]
    fn the_limit_of_lines_applies_to_each_second() {
        let mut limit = LineLimit::new(2);
        let allowed = [0, 1, 2, 999, 1_000].map(|millis| limit.allows(Duration::from_millis(millis)));
        assert_eq!(allowed, [true, true, false, false, true]);
    }

    #[test]
    fn the_memory_for_repetitions_is_limited() {
        let mut repeats = Repeats::default();
        for number in 0..2 * KNOWN {
            assert_eq!(repeats.due(&number, Duration::ZERO), Some(0));
        }
        assert_eq!(repeats.0.len(), KNOWN);
    }
}
