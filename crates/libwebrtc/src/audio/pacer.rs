//! The queue of an audio source: written in bursts, read in real time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::format::Format;

/// Length of one tick, the audio taken from the queue at a time. Shorter if the queue is shorter.
const TICK_MS: u32 = 20;

/// A delay of up to this is made up for by sending ticks early; after a longer one the clock restarts.
const MAX_CATCH_UP: Duration = Duration::from_millis(100);

/// A paced queue; see the module documentation.
#[derive(Debug)]
pub(crate) struct Pacer {
    queue: VecDeque<i16>,
    /// Maximum number of queued samples.
    capacity: usize,
    /// Samples per tick.
    tick_samples: usize,
    tick: Duration,
    phase: Phase,
    /// Earliest time of the next tick; `None` before the first.
    not_before: Option<Instant>,
    /// Number of calls of [`Self::clear`]. A writer that waited across one must discard its samples.
    clear_count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The queue is empty.
    Idle,
    /// At least one tick is queued; it is due at `at`.
    Playing { at: Instant },
    /// Less than a tick is queued. Unless more is written before, it is due at `until`, padded with silence.
    Draining { until: Instant },
}

impl Pacer {
    /// Creates a queue of `queue_ms` milliseconds, which must not be 0.
    pub(crate) fn new(format: Format, queue_ms: u32) -> Self {
        let tick_ms = TICK_MS.min(queue_ms);
        Self {
            queue: VecDeque::new(),
            capacity: format.samples_in_ms(queue_ms),
            tick_samples: format.samples_in_ms(tick_ms),
            tick: Duration::from_millis(tick_ms.into()),
            phase: Phase::Idle,
            not_before: None,
            clear_count: 0,
        }
    }

    /// Maximum number of queued samples.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of calls of [`Self::clear`].
    pub(crate) fn clear_count(&self) -> u64 {
        self.clear_count
    }

    /// Queues `samples` if there is room for all of them. Returns whether there was.
    pub(crate) fn push(&mut self, samples: &[i16], now: Instant) -> bool {
        if self.queue.len() + samples.len() > self.capacity {
            return false;
        }
        self.queue.extend(samples);
        let whole = self.queue.len() >= self.tick_samples;
        let at = self.not_before.map_or(now, |at| at.max(now));
        self.phase = match self.phase {
            Phase::Playing { at } => Phase::Playing { at },
            Phase::Idle | Phase::Draining { .. } if whole => Phase::Playing { at },
            Phase::Draining { until } => Phase::Draining { until },
            Phase::Idle => Phase::Draining { until: at + self.tick },
        };
        true
    }

    /// Drops all queued samples.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.phase = Phase::Idle;
        self.clear_count += 1;
    }

    /// Takes a tick if one is due. Call until it returns `None`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<i16>> {
        match self.phase {
            Phase::Idle => None,
            Phase::Playing { at } if now < at => None,
            Phase::Draining { until } if now < until => None,
            Phase::Draining { until } => {
                let mut tick: Vec<i16> = self.queue.drain(..).collect();
                tick.resize(self.tick_samples, 0);
                self.phase = Phase::Idle;
                self.not_before = Some(until + self.tick);
                Some(tick)
            }
            Phase::Playing { at } => {
                let tick = self.queue.drain(..self.tick_samples).collect();
                let next = if now > at + MAX_CATCH_UP { now } else { at } + self.tick;
                self.not_before = Some(next);
                self.phase = match self.queue.len() {
                    0 => Phase::Idle,
                    queued if queued < self.tick_samples => Phase::Draining { until: next + self.tick },
                    _ => Phase::Playing { at: next },
                };
                Some(tick)
            }
        }
    }

    /// When the next tick is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => None,
            Phase::Playing { at } => Some(at),
            Phase::Draining { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const MS: Duration = Duration::from_millis(1);

    /// 8 kHz mono: 8 samples per millisecond.
    fn pacer(queue_ms: u32) -> Pacer {
        Pacer::new(Format::new(8_000, 1).unwrap(), queue_ms)
    }

    /// Keeps the queue full and takes ticks when due; returns when each tick was taken, in ms.
    fn tick_times_with_full_queue(queue_ms: u32, count: usize) -> Vec<u128> {
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
    fn ticks_are_due_in_real_time_even_if_the_queue_is_always_full() {
        for queue_ms in [20, 40, 200] {
            assert_eq!(tick_times_with_full_queue(queue_ms, 4), [0, 20, 40, 60], "queue of {queue_ms} ms");
        }
        assert_eq!(tick_times_with_full_queue(10, 4), [0, 10, 20, 30]);
    }

    #[test]
    fn a_full_queue_rejects_samples_until_a_tick_is_taken() {
        let now = now();
        let mut pacer = pacer(40);
        assert!(pacer.push(&[1; 320], now));

        assert!(!pacer.push(&[1; 80], now));
        pacer.take(now).unwrap();

        assert!(pacer.push(&[1; 80], now));
    }

    #[test]
    fn no_silence_is_inserted_if_the_writer_keeps_real_time() {
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
    fn the_last_partial_tick_is_padded_with_silence() {
        let now = now();
        let mut pacer = pacer(200);
        pacer.push(&[1; 80], now);

        assert_eq!(pacer.take(now), None);
        let tick = pacer.take(pacer.deadline().unwrap()).unwrap();

        assert_eq!((tick[..80].to_vec(), tick[80..].to_vec()), (vec![1; 80], vec![0; 80]));
        assert_eq!(pacer.deadline(), None);
    }

    #[test]
    fn a_cleared_queue_has_nothing_due() {
        let now = now();
        let mut pacer = pacer(200);
        pacer.push(&[1; 1_600], now);

        pacer.clear();

        assert_eq!((pacer.take(now + 100 * MS), pacer.deadline()), (None, None));
    }

    #[test]
    fn ticks_missed_by_a_delayed_thread_are_made_up_for_but_not_those_of_a_suspend() {
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
