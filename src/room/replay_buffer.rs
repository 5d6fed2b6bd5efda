//! The last diffs of a room, so that an event stream that reconnects continues where it was.

use std::collections::VecDeque;

/// The newest diffs, of consecutive versions.
#[derive(Debug)]
pub(super) struct ReplayBuffer<T> {
    /// The version that each leads to, and its size.
    ring: VecDeque<(u64, T, usize)>,
    max_diffs: usize,
    max_bytes: usize,
    bytes: usize,
}

impl<T> ReplayBuffer<T> {
    pub(super) fn new(max_diffs: usize, max_bytes: usize) -> Self {
        Self { ring: VecDeque::new(), max_diffs, max_bytes, bytes: 0 }
    }

    /// Adds the diff that leads to `version`, the successor of the last one.
    pub(super) fn push(&mut self, version: u64, diff: T, bytes: usize) {
        debug_assert!(self.ring.back().is_none_or(|(last, ..)| last + 1 == version), "no version is skipped");
        self.ring.push_back((version, diff, bytes));
        self.bytes += bytes;
        while self.ring.len() > self.max_diffs || self.bytes > self.max_bytes {
            match self.ring.pop_front() {
                Some((_, _, bytes)) => self.bytes -= bytes,
                None => return,
            }
        }
    }

    /// The diffs that lead from `version` to `current`; none where some of them were dropped, or where there never
    /// was such a version.
    pub(super) fn after(&self, version: u64, current: u64) -> Option<Vec<&T>> {
        let oldest = self.ring.front().map_or(current + 1, |(version, ..)| *version);
        if version > current || version + 1 < oldest {
            return None;
        }
        Some(self.ring.iter().filter(|(of, ..)| *of > version).map(|(_, diff, _)| diff).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(versions: u64) -> ReplayBuffer<u64> {
        let mut recent = ReplayBuffer::new(3, 100);
        for version in 1..=versions {
            recent.push(version, version, 10);
        }
        recent
    }

    #[test]
    fn missed_diffs_are_given_once_and_without_a_gap() {
        let recent = filled(5);
        assert_eq!(recent.after(3, 5), Some(vec![&4, &5]));
        assert_eq!(recent.after(5, 5), Some(vec![]));
        assert_eq!(recent.after(1, 5), None, "version 2 is gone");
        assert_eq!(recent.after(6, 5), None, "there never was a version 6");
        assert_eq!(filled(0).after(0, 0), Some(vec![]));
    }

    #[test]
    fn a_large_diff_replaces_many() {
        let mut recent = filled(3);
        recent.push(4, 4, 85);
        assert_eq!(recent.after(2, 4), Some(vec![&3, &4]));
        recent.push(5, 5, 200);
        assert_eq!(recent.after(4, 5), None);
    }
}
