//! Who receives a room's updates, and who lags behind. Pure.
//!
//! ```text
//!   subscribe ─▶ Behind ─ snapshot or missed diffs sent ─▶ CatchingUp ─ accepted ─▶ Current
//!                  ▲                                           │                      │
//!                  └─────────────── its queue is full ◀────────┴──────────────────────┘
//! ```
//! A subscriber whose queue is full delays nobody: it misses diffs, gets a snapshot once it reads again, and is
//! aborted after [`MAX_LAG`].

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// How often lagging subscribers are tried again, and event streams get heartbeats.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// An event stream gets a heartbeat once in this many rounds: proxies close idle connections.
const HEARTBEAT_ROUNDS: u64 = 15;

/// How long a subscriber may lag before its connection is aborted.
const MAX_LAG: Duration = Duration::from_secs(30);

/// Tells subscribers apart: the number of the connection.
pub(crate) type SubscriberId = u64;

/// How a subscriber is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscriberKind {
    /// A control channel: WebSocket frames.
    Channel,
    /// An event stream (WHATWG HTML §9.2, server-sent events).
    Stream,
}

/// The last update that a subscriber has: an epoch and a version.
pub(crate) type Position = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Subscribers {
    all: HashMap<SubscriberId, Subscriber>,
    /// Those that are [`Progress::Behind`].
    behind: BTreeSet<SubscriberId>,
    rounds: u64,
    /// When the next maintenance round is due; none without subscribers.
    maintenance_at: Option<Instant>,
}

#[derive(Debug)]
struct Subscriber {
    kind: SubscriberKind,
    /// Where it wants to continue.
    resume: Option<Position>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Current,
    /// Updates were sent to it; whether its queue accepted them is not known yet.
    CatchingUp {
        behind_since: Instant,
    },
    Behind {
        since: Instant,
    },
}

/// Whom a maintenance round concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Maintenance {
    /// Event streams that get a heartbeat, and channels whose connection is checked.
    pub(super) probe: Vec<SubscriberId>,
    /// Those that lag for too long. They are removed.
    pub(super) abort: Vec<SubscriberId>,
}

impl Subscribers {
    /// Adds a subscriber, in place of an earlier one of this id. It is behind until it is sent something.
    pub(super) fn subscribe(
        &mut self,
        id: SubscriberId,
        kind: SubscriberKind,
        resume: Option<Position>,
        now: Instant,
    ) {
        self.all.insert(id, Subscriber { kind, resume, progress: Progress::Behind { since: now } });
        self.behind.insert(id);
        self.maintenance_at.get_or_insert(now + MAINTENANCE_INTERVAL);
    }

    pub(super) fn unsubscribe(&mut self, id: SubscriberId) {
        self.all.remove(&id);
        self.behind.remove(&id);
        if self.all.is_empty() {
            self.maintenance_at = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn has_lagging(&self) -> bool {
        !self.behind.is_empty()
    }

    pub(super) fn maintenance_at(&self) -> Option<Instant> {
        self.maintenance_at
    }

    /// Who gets a diff: everybody of this kind who has the version before it.
    pub(super) fn current(&self, kind: SubscriberKind) -> Vec<SubscriberId> {
        let is_current =
            |subscriber: &Subscriber| subscriber.kind == kind && subscriber.progress == Progress::Current;
        self.all.iter().filter(|(_, subscriber)| is_current(subscriber)).map(|(id, _)| *id).collect()
    }

    /// Everybody who lags, with their kind and, once, the position that they want to continue from. They count as
    /// catching up from here on.
    pub(super) fn catch_up(&mut self) -> Vec<(SubscriberId, SubscriberKind, Option<Position>)> {
        let mut lagging = Vec::new();
        for id in std::mem::take(&mut self.behind) {
            if let Some(subscriber) = self.all.get_mut(&id) {
                if let Progress::Behind { since } = subscriber.progress {
                    subscriber.progress = Progress::CatchingUp { behind_since: since };
                }
                lagging.push((id, subscriber.kind, subscriber.resume.take()));
            }
        }
        lagging
    }

    /// The queue of a subscriber accepted what it was sent.
    pub(super) fn accepted(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.all.get_mut(&id)
            && let Progress::CatchingUp { .. } = subscriber.progress
        {
            subscriber.progress = Progress::Current;
        }
    }

    /// The queue of a subscriber is full. True if it was current until now.
    pub(super) fn is_full(&mut self, id: SubscriberId, now: Instant) -> bool {
        let Some(subscriber) = self.all.get_mut(&id) else { return false };
        let was_current = subscriber.progress == Progress::Current;
        let since = match subscriber.progress {
            Progress::Current => now,
            Progress::CatchingUp { behind_since: since } | Progress::Behind { since } => since,
        };
        subscriber.progress = Progress::Behind { since };
        self.behind.insert(id);
        was_current
    }

    /// Begins a maintenance round if one is due.
    pub(super) fn maintain(&mut self, now: Instant) -> Option<Maintenance> {
        if self.maintenance_at.is_none_or(|at| now < at) {
            return None;
        }
        self.rounds += 1;
        let lags = |subscriber: &Subscriber| match subscriber.progress {
            Progress::Behind { since } => now >= since + MAX_LAG,
            Progress::Current | Progress::CatchingUp { .. } => false,
        };
        let abort: Vec<SubscriberId> =
            self.behind.iter().filter(|id| self.all.get(id).is_some_and(lags)).copied().collect();
        for id in &abort {
            self.unsubscribe(*id);
        }
        // A part of them in each round, so that thousands of connections are not woken at once.
        let turn = self.rounds % HEARTBEAT_ROUNDS;
        let probe = self.all.keys().filter(|id| *id % HEARTBEAT_ROUNDS == turn).copied().collect();
        self.maintenance_at = (!self.all.is_empty()).then_some(now + MAINTENANCE_INTERVAL);
        Some(Maintenance { probe, abort })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Lets a second pass, in which the queue of 1 stays full.
    fn stay_full(subscribers: &mut Subscribers, now: Instant) -> Maintenance {
        let round = subscribers.maintain(now).unwrap();
        for (id, ..) in subscribers.catch_up() {
            subscribers.is_full(id, now);
        }
        round
    }

    #[test]
    fn a_new_subscriber_is_current_once_its_queue_accepted_a_snapshot() {
        let (mut subscribers, now) = (Subscribers::default(), clock::now());
        subscribers.subscribe(1, SubscriberKind::Channel, Some((7, 3)), now);
        assert!(subscribers.current(SubscriberKind::Channel).is_empty());

        assert_eq!(subscribers.catch_up(), [(1, SubscriberKind::Channel, Some((7, 3)))]);
        assert!(subscribers.current(SubscriberKind::Channel).is_empty());
        subscribers.accepted(1);

        assert_eq!(subscribers.current(SubscriberKind::Channel), [1]);
        assert!(subscribers.current(SubscriberKind::Stream).is_empty());
        assert!(!subscribers.has_lagging());
    }

    #[test]
    fn the_position_to_continue_from_is_used_once() {
        let (mut subscribers, now) = (Subscribers::default(), clock::now());
        subscribers.subscribe(1, SubscriberKind::Stream, Some((7, 3)), now);
        subscribers.catch_up();

        subscribers.is_full(1, now);

        assert_eq!(subscribers.catch_up(), [(1, SubscriberKind::Stream, None)]);
    }

    #[test]
    fn a_subscriber_that_lags_for_too_long_is_aborted_however_often_it_is_tried() {
        let (mut subscribers, now) = (Subscribers::default(), clock::now());
        subscribers.subscribe(1, SubscriberKind::Channel, None, now);
        subscribers.catch_up();
        subscribers.accepted(1);
        assert!(subscribers.is_full(1, now), "it was current until now");

        for second in 1..30 {
            let round = stay_full(&mut subscribers, now + Duration::from_secs(second));
            assert!(round.abort.is_empty(), "second {second}");
        }
        let last = stay_full(&mut subscribers, now + MAX_LAG);

        assert_eq!(last.abort, [1]);
        assert!(subscribers.is_empty());
        assert_eq!(subscribers.maintenance_at(), None);
    }

    #[test]
    fn each_subscriber_is_probed_once_in_fifteen_rounds() {
        let (mut subscribers, mut now) = (Subscribers::default(), clock::now());
        for id in 1..=30 {
            subscribers.subscribe(id, SubscriberKind::Stream, None, now);
        }
        let mut probed = Vec::new();
        for _ in 0..HEARTBEAT_ROUNDS {
            now += MAINTENANCE_INTERVAL;
            let round = subscribers.maintain(now).unwrap();
            assert_eq!(round.probe.len(), 2);
            probed.extend(round.probe);
        }
        probed.sort_unstable();
        assert_eq!(probed, (1..=30).collect::<Vec<_>>());
    }
}
