//! The queue of a source: written in bursts, read at the pace of real time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::format::Format;

/// What leaves the queue at a time, unless the queue is shorter.
const TICK_MS: u32 = 20;

/// Ticks that a thread may be late and still makes up; beyond that the clock starts anew.
const MAX_BEHIND: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Pacer {
    queue: VecDeque<i16>,
    /// Samples that may be queued.
    capacity: usize,
    /// Samples that leave at a time.
    tick_samples: usize,
    tick: Duration,
    phase: Phase,
    /// The pace: no tick leaves before. `None` until the first.
    not_before: Option<Instant>,
    /// How often the queue was cleared: a writer that waited across a clearing must not write.
    clearings: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is queued.
    Idle,
    /// A whole tick leaves at `at`.
    Playing { at: Instant },
    /// Less than a tick is queued. At `until` it leaves filled up with silence, unless more is written before.
    RunningDry { until: Instant },
}

impl Pacer {
    /// A queue of `queue_ms`, which must not be 0.
    pub(crate) fn new(format: Format, queue_ms: u32) -> Self {
        let tick_ms = TICK_MS.min(queue_ms);
        Self {
            queue: VecDeque::new(),
            capacity: format.samples_in_ms(queue_ms),
            tick_samples: format.samples_in_ms(tick_ms),
            tick: Duration::from_millis(tick_ms.into()),
            phase: Phase::Idle,
            not_before: None,
            clearings: 0,
        }
    }

    /// Samples that may be queued at most.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How often the queue was cleared.
    pub(crate) fn clearings(&self) -> u64 {
        self.clearings
    }

    /// Queues `samples` if there is room for all of them; says whether there was.
    pub(crate) fn push(&mut self, samples: &[i16], now: Instant) -> bool {
        if self.queue.len() + samples.len() > self.capacity {
            return false;
        }
        self.queue.extend(samples);
        let whole = self.queue.len() >= self.tick_samples;
        let at = self.not_before.map_or(now, |at| at.max(now));
        self.phase = match self.phase {
            Phase::Playing { at } => Phase::Playing { at },
            Phase::Idle | Phase::RunningDry { .. } if whole => Phase::Playing { at },
            Phase::RunningDry { until } => Phase::RunningDry { until },
            Phase::Idle => Phase::RunningDry { until: at + self.tick },
        };
        true
    }

    /// Drops what is queued.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.phase = Phase::Idle;
        self.clearings += 1;
    }

    /// What is due to leave, if anything is. To be called until nothing is.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<i16>> {
        match self.phase {
            Phase::Idle => None,
            Phase::Playing { at } if now < at => None,
            Phase::RunningDry { until } if now < until => None,
            Phase::RunningDry { until } => {
                let mut tick: Vec<i16> = self.queue.drain(..).collect();
                tick.resize(self.tick_samples, 0);
                self.phase = Phase::Idle;
                self.not_before = Some(until + self.tick);
                Some(tick)
            }
            Phase::Playing { at } => {
                let tick = self.queue.drain(..self.tick_samples).collect();
                let next = if now > at + MAX_BEHIND { now } else { at } + self.tick;
                self.not_before = Some(next);
                self.phase = match self.queue.len() {
                    0 => Phase::Idle,
                    queued if queued < self.tick_samples => Phase::RunningDry { until: next + self.tick },
                    _ => Phase::Playing { at: next },
                };
                Some(tick)
            }
        }
    }

    /// When something is due to leave.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => None,
            Phase::Playing { at } => Some(at),
            Phase::RunningDry { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const MS: Duration = Duration::from_millis(1);

    /// 1 sample per millisecond would be too coarse for 20 ms ticks of real rates, and 8 kHz is easy to read.
    fn pacer(queue_ms: u32) -> Pacer {
        Pacer::new(Format::new(8_000, 1).unwrap(), queue_ms)
    }

    /// Writes all the time, takes when due; returns when each tick left, in ms.
    fn ticks_of_an_eager_writer(queue_ms: u32, count: usize) -> Vec<u128> {
        let start = now();
        let (mut pacer, mut now, mut left) = (pacer(queue_ms), start, Vec::new());
        while left.len() < count {
            while pacer.push(&[1; 80], now) {}
            while pacer.take(now).is_some() {
                left.push(now.duration_since(start).as_millis());
            }
            now += MS;
        }
        left
    }

    #[test]
    fn sound_leaves_in_real_time_however_eagerly_it_is_written() {
        for queue_ms in [20, 40, 200] {
            assert_eq!(ticks_of_an_eager_writer(queue_ms, 4), [0, 20, 40, 60], "queue of {queue_ms} ms");
        }
        assert_eq!(ticks_of_an_eager_writer(10, 4), [0, 10, 20, 30]);
    }

    #[test]
    fn a_full_queue_takes_nothing_until_something_left() {
        let now = now();
        let mut pacer = pacer(40);
        assert!(pacer.push(&[1; 320], now));

        assert!(!pacer.push(&[1; 80], now));
        pacer.take(now).unwrap();

        assert!(pacer.push(&[1; 80], now));
    }

    #[test]
    fn a_writer_in_real_time_is_not_cut_up_by_silence() {
        let start = now();
        let (mut pacer, mut left) = (pacer(200), Vec::new());
        for ms in 0..200_u64 {
            let now = start + Duration::from_millis(ms);
            if ms % 10 == 0 {
                assert!(pacer.push(&[1; 80], now));
            }
            left.extend(pacer.take(now).into_iter().flatten());
        }

        assert!(left.len() >= 1_280);
        assert!(left.iter().all(|sample| *sample == 1));
    }

    #[test]
    fn the_last_piece_leaves_filled_up_with_silence() {
        let now = now();
        let mut pacer = pacer(200);
        pacer.push(&[1; 80], now);

        assert_eq!(pacer.take(now), None);
        let tick = pacer.take(pacer.deadline().unwrap()).unwrap();

        assert_eq!((tick[..80].to_vec(), tick[80..].to_vec()), (vec![1; 80], vec![0; 80]));
        assert_eq!(pacer.deadline(), None);
    }

    #[test]
    fn a_cleared_queue_is_silent_at_once() {
        let now = now();
        let mut pacer = pacer(200);
        pacer.push(&[1; 1_600], now);

        pacer.clear();

        assert_eq!((pacer.take(now + 100 * MS), pacer.deadline()), (None, None));
    }

    #[test]
    fn a_thread_that_was_late_makes_up_for_it_but_not_for_a_suspend() {
        let now = now();
        let mut pacer = pacer(1_000);
        pacer.push(&[1; 8_000], now);

        let late = now + 60 * MS;
        let made_up = std::iter::from_fn(|| pacer.take(late)).count();
        let suspended = late + Duration::from_secs(60);
        let after = std::iter::from_fn(|| pacer.take(suspended)).count();

        assert_eq!((made_up, after), (4, 1));
    }
}
