//! The recent messages of a session, numbered, so that a client that resumes gets what it missed.
//!
//! Bounded: at most [`CAPACITY`] messages, none older than [`MAX_AGE`]. A client that missed more is not resumed
//! and gets the current state.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytestring::ByteString;

/// How many messages are kept.
pub const CAPACITY: usize = 256;

/// How long a message is kept.
pub const MAX_AGE: Duration = Duration::from_secs(60);

/// The numbered messages.
#[derive(Debug, Default)]
pub struct ResumeBuffer {
    ring: VecDeque<Kept>,
    /// The number of the last message.
    last_seq: u64,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    at: Instant,
    frame: ByteString,
}

impl ResumeBuffer {
    /// A buffer whose last message had this number.
    pub fn starting_after(last_seq: u64) -> Self {
        Self { ring: VecDeque::new(), last_seq }
    }

    /// The number of the last message; 0 if there was none.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The number that the next message gets.
    pub fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// Keeps a message under [`next_seq`](Self::next_seq).
    pub fn keep(&mut self, frame: ByteString, now: Instant) {
        self.last_seq += 1;
        self.ring.push_back(Kept { seq: self.last_seq, at: now, frame });
        while self.ring.len() > CAPACITY || self.ring.front().is_some_and(|kept| now - kept.at > MAX_AGE) {
            self.ring.pop_front();
        }
    }

    /// Drops everything and skips a number: a client with an older number cannot resume.
    pub fn forget(&mut self) {
        self.ring.clear();
        self.last_seq += 1;
    }

    /// The client has everything up to here.
    pub fn acknowledge(&mut self, seq: u64) {
        while self.ring.front().is_some_and(|kept| kept.seq <= seq) {
            self.ring.pop_front();
        }
    }

    /// What came after `seq`; none where some of it is gone, or where `seq` was never given out.
    pub fn after(&mut self, seq: u64, now: Instant) -> Option<Vec<ByteString>> {
        while self.ring.front().is_some_and(|kept| now - kept.at > MAX_AGE) {
            self.ring.pop_front();
        }
        let oldest = self.ring.front().map_or(self.last_seq + 1, |kept| kept.seq);
        if seq + 1 < oldest || seq > self.last_seq {
            return None;
        }
        Some(self.ring.iter().filter(|kept| kept.seq > seq).map(|kept| kept.frame.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn filled(count: u64) -> (ResumeBuffer, Instant) {
        let mut outbox = ResumeBuffer::default();
        let now = clock::now();
        for n in 1..=count {
            outbox.keep(n.to_string().into(), now);
        }
        (outbox, now)
    }

    #[test]
    fn a_client_gets_what_it_missed_and_nothing_twice() {
        let (mut outbox, now) = filled(5);
        assert_eq!(outbox.after(3, now), Some(vec!["4".into(), "5".into()]));
        assert_eq!(outbox.after(5, now), Some(vec![]));
    }

    #[test]
    fn a_client_that_missed_too_much_is_not_served_with_a_gap() {
        let (mut outbox, now) = filled(CAPACITY as u64 + 10);
        assert_eq!(outbox.after(9, now), None);
        assert_eq!(outbox.after(10, now).map(|frames| frames.len()), Some(CAPACITY));
    }

    #[test]
    fn old_messages_are_let_go() {
        let (mut outbox, now) = filled(3);
        assert_eq!(outbox.after(0, now + MAX_AGE + Duration::from_millis(1)), None);
        assert_eq!(outbox.after(3, now + MAX_AGE + Duration::from_millis(1)), Some(vec![]));
    }

    #[test]
    fn after_a_time_without_numbers_nobody_is_told_that_nothing_was_missed() {
        let (mut outbox, now) = filled(3);
        outbox.forget();
        assert_eq!(outbox.after(3, now), None);
        outbox.keep("5".into(), now);
        assert_eq!(outbox.after(4, now), Some(vec!["5".into()]));
    }

    #[test]
    fn a_number_that_was_never_given_out_is_not_believed() {
        let (mut outbox, now) = filled(3);
        assert_eq!(outbox.after(4, now), None);
    }

    proptest! {
        #[test]
        fn a_replay_is_exactly_the_tail(count in 0..600u64, seq in 0..700u64, acked in 0..600u64) {
            let (mut outbox, now) = filled(count);
            outbox.acknowledge(acked);
            if let Some(frames) = outbox.after(seq, now) {
                let expected: Vec<ByteString> = (seq + 1..=count).map(|n| n.to_string().into()).collect();
                prop_assert_eq!(frames, expected);
            }
        }
    }
}
