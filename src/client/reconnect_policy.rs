//! What a client decides about its connection: when to try again, when one is dead, where to go on.
//!
//! ```text
//!                connect              connection_ack
//!   waiting ───────────────▶ connecting ───────────▶ attached
//!      ▲                         │                      │
//!      ├──── not reached ────────┘                      │ closed, broken, or silent for too long
//!      └────────────────────────────────────────────────┘
//!   over: the session ended, a newer socket took it, or the gateway refuses for good
//! ```
//!
//! Pure: the time comes in, chance from a seeded generator.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    client::ClientError,
    ids::SessionId,
    protocol::edge_v1::{
        from_client::Resume,
        to_client::{ConnectionAck, EndReason},
    },
};

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// At most so long before the first attempt; each failure doubles it.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(8) }
    }
}

/// A connection that stood for so long was a good one: the next failure is a first one.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// So many messages are acknowledged at once.
const ACK_INTERVAL: u64 = 32;

/// Heartbeats without any frame before a connection counts as dead.
const MISSED_HEARTBEATS: u32 = 2;

/// Why a client does not come back any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The session is over.
    Session(EndReason),
    /// A newer socket has the session. Coming back would take it from that one.
    Superseded,
    /// The gateway refuses, and would again.
    Refused {
        /// Its code.
        code: String,
        /// Its sentence.
        message: String,
    },
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Connect.
    Connect,
    /// Send a ping with this number.
    Ping(u64),
    /// The connection is dead: drop it.
    Dead,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Instant },
    Connecting,
    Attached { since: Instant, heard_at: Instant, ping_at: Instant },
    Over,
}

/// The state of the connection, and what outlives it.
#[derive(Debug)]
pub struct ReconnectPolicy {
    retry: Retry,
    chance: StdRng,
    phase: Phase,
    /// Failures in a row.
    failures: u32,
    /// The session, and the secret that resumes it.
    session: Option<(SessionId, String)>,
    /// The highest number that arrived.
    last_seq: u64,
    /// The highest number that was acknowledged.
    acknowledged: u64,
    heartbeat: Duration,
    pings: u64,
    /// What the gateway said last of the session's end.
    ended: Option<EndReason>,
}

impl ReconnectPolicy {
    /// A link that wants to connect now.
    pub fn new(retry: Retry, seed: u64, now: Instant) -> Self {
        Self {
            retry,
            chance: StdRng::seed_from_u64(seed),
            phase: Phase::Waiting { until: now },
            failures: 0,
            session: None,
            last_seq: 0,
            acknowledged: 0,
            heartbeat: Duration::from_secs(10),
            pings: 0,
            ended: None,
        }
    }

    /// When [`due`](Self::due) has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Attached { heard_at, ping_at, .. } => Some((*ping_at).min(self.dead_at(*heard_at))),
            Phase::Connecting | Phase::Over => None,
        }
    }

    /// What is to be done now.
    pub fn due(&mut self, now: Instant) -> Due {
        match &mut self.phase {
            Phase::Waiting { until } if now >= *until => {
                self.phase = Phase::Connecting;
                Due::Connect
            }
            Phase::Attached { heard_at, .. }
                if now >= *heard_at + self.heartbeat * (MISSED_HEARTBEATS + 1) =>
            {
                Due::Dead
            }
            Phase::Attached { ping_at, .. } if now >= *ping_at => {
                *ping_at = now + self.heartbeat;
                self.pings += 1;
                Due::Ping(self.pings)
            }
            Phase::Waiting { .. } | Phase::Attached { .. } | Phase::Connecting | Phase::Over => Due::Nothing,
        }
    }

    /// Where to go on.
    pub fn resume(&self, last_audio_seq: u32) -> Option<Resume> {
        let (session_id, resume_token) = self.session.clone()?;
        Some(Resume { session_id, resume_token, last_server_seq: self.last_seq, last_audio_seq })
    }

    /// The gateway acknowledged. Says whether what was known goes on; else it begins anew.
    pub fn attached(&mut self, ack: &ConnectionAck, now: Instant) -> bool {
        self.session = Some((ack.session_id, ack.resume_token.clone()));
        self.heartbeat = Duration::from_millis(ack.heartbeat_ms.max(1));
        self.phase = Phase::Attached { since: now, heard_at: now, ping_at: now + self.heartbeat };
        self.ended = None;
        if !ack.resumed {
            // What follows is numbered as the gateway likes.
            self.last_seq = 0;
            self.acknowledged = 0;
        }
        ack.resumed
    }

    /// Any frame arrived.
    pub fn heard(&mut self, now: Instant) {
        if let Phase::Attached { heard_at, .. } = &mut self.phase {
            *heard_at = now;
        }
    }

    /// A message arrived. Says whether it is news: one that is sent again is not.
    pub fn take(&mut self, seq: Option<u64>) -> bool {
        match seq {
            None => true,
            Some(seq) if seq > self.last_seq => {
                self.last_seq = seq;
                true
            }
            Some(_) => false,
        }
    }

    /// What is to be acknowledged by `resume_ack`, if it is time for that.
    pub fn acknowledge(&mut self) -> Option<u64> {
        if self.acknowledged == 0 {
            // Where the numbers begin is the gateway's to choose.
            self.acknowledged = self.last_seq;
        }
        if self.last_seq - self.acknowledged < ACK_INTERVAL {
            return None;
        }
        self.acknowledged = self.last_seq;
        Some(self.last_seq)
    }

    /// The gateway said why the session, or this channel of it, ends.
    pub fn session_end(&mut self, reason: EndReason) {
        self.ended = Some(reason);
    }

    /// The connection is over. Gives the reason where it was the last one.
    pub fn lost(&mut self, code: u16, now: Instant) -> Option<End> {
        let end = match (self.ended.take(), code) {
            (Some(EndReason::Superseded), _) | (None, 4001) => Some(End::Superseded),
            (Some(reason @ (EndReason::Logout | EndReason::Disconnected | EndReason::GraceExpired)), _) => {
                Some(End::Session(reason))
            }
            (None, 4401) => {
                Some(End::Refused { code: "EXPIRED_TOKEN".into(), message: "the token has ended".into() })
            }
            (Some(EndReason::Shutdown) | None, _) => None,
        };
        if let Phase::Attached { since, .. } = self.phase
            && now.saturating_duration_since(since) >= STABLE_AFTER
        {
            self.failures = 0;
        }
        self.next(end, None, now)
    }

    /// The gateway was not reached, or did not take us. Gives the reason where it would not be otherwise.
    pub fn not_attached(&mut self, error: &ClientError, now: Instant) -> Option<End> {
        let (end, after) = match error {
            ClientError::Refused { retry_after: Some(after), .. } => (None, Some(*after)),
            ClientError::Refused { code, message, retry_after: None } => {
                (Some(End::Refused { code: code.clone(), message: message.clone() }), None)
            }
            ClientError::Closed { code: 4001, .. } => (Some(End::Superseded), None),
            ClientError::Unreachable(_)
            | ClientError::Protocol(_)
            | ClientError::Closed { .. }
            | ClientError::Livekit(_) => (None, None),
        };
        self.next(end, after, now)
    }

    fn next(&mut self, end: Option<End>, after: Option<Duration>, now: Instant) -> Option<End> {
        self.phase = match end {
            Some(_) => Phase::Over,
            None => Phase::Waiting { until: now + after.unwrap_or_default() + self.pause() },
        };
        end
    }

    /// How long to wait: shorter than the last failure's double, and never as long as everybody else.
    fn pause(&mut self) -> Duration {
        let whole = self
            .retry
            .first
            .saturating_mul(2u32.saturating_pow(self.failures.min(16)))
            .min(self.retry.longest);
        // The first attempt may come at once: a cable was pulled for one. Later ones keep their distance.
        let least = if self.failures == 0 { 0.0 } else { 0.5 };
        self.failures += 1;
        whole.mul_f64(self.chance.random_range(least..1.0))
    }

    fn dead_at(&self, heard_at: Instant) -> Instant {
        heard_at + self.heartbeat * (MISSED_HEARTBEATS + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock,
        protocol::{ToClient, edge_v1::audio::Codec},
    };

    fn ack(resumed: bool) -> ConnectionAck {
        let page = include_str!("../../docs/PROTOCOL.md");
        let (_, rest) = page.split_once("{\"type\": \"connection_ack\"").unwrap();
        let (rest, _) = rest.split_once("```").unwrap();
        let text = format!("{{\"type\": \"connection_ack\"{rest}");
        let ToClient::ConnectionAck(ack) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(ack.audio.codec, Codec::Pcm16le);
        ConnectionAck { resumed, heartbeat_ms: 10_000, ..*ack }
    }

    fn attached() -> (ReconnectPolicy, Instant) {
        let now = clock::now();
        let mut link = ReconnectPolicy::new(Retry::default(), 1, now);
        assert_eq!(link.due(now), Due::Connect);
        link.attached(&ack(false), now);
        (link, now)
    }

    #[test]
    fn it_resumes_after_the_last_number_that_arrived_and_takes_nothing_twice() {
        let (mut link, now) = attached();
        assert!(link.take(Some(1)) && link.take(Some(2)) && link.take(None));
        assert_eq!(link.lost(1006, now), None);

        let resume = link.resume(17).unwrap();
        assert_eq!((resume.last_server_seq, resume.last_audio_seq), (2, 17));
        assert!(link.attached(&ack(true), now));
        assert!(!link.take(Some(2)));
        assert!(link.take(Some(3)));
    }

    #[test]
    fn where_the_gateway_begins_anew_its_numbers_count() {
        let (mut link, now) = attached();
        link.take(Some(90));
        link.lost(1006, now);
        assert!(!link.attached(&ack(false), now));
        assert!(link.take(Some(1)));
    }

    #[test]
    fn attempts_keep_their_distance_and_a_good_connection_begins_anew() {
        let (mut link, mut now) = attached();
        let retry = Retry::default();
        assert_eq!(link.lost(1006, now), None);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let until = link.deadline().unwrap();
            pauses.push(until - now);
            now = until;
            assert_eq!(link.due(now), Due::Connect);
            assert_eq!(link.not_attached(&ClientError::Unreachable("no".into()), now), None);
        }
        assert!(pauses[0] <= retry.first);
        assert!(pauses[1..].iter().all(|pause| *pause >= retry.first && *pause <= retry.longest));
        assert!(pauses.last().unwrap() >= &(retry.longest / 2));

        now = link.deadline().unwrap();
        link.due(now);
        link.attached(&ack(true), now);
        now += STABLE_AFTER;
        link.lost(1006, now);
        assert!(link.deadline().unwrap() - now <= retry.first);
    }

    #[test]
    fn two_clients_do_not_come_back_at_the_same_moment() {
        let now = clock::now();
        let pause = |seed| {
            let mut link = ReconnectPolicy::new(Retry::default(), seed, now);
            link.lost(1012, now);
            link.deadline().unwrap()
        };
        assert_ne!(pause(1), pause(2));
    }

    #[test]
    fn a_connection_that_says_nothing_is_asked_and_then_given_up() {
        let (mut link, _) = attached();
        let mut pings = 0;
        loop {
            let now = link.deadline().unwrap();
            match link.due(now) {
                Due::Ping(_) => pings += 1,
                Due::Dead => break,
                Due::Nothing | Due::Connect => panic!("not now"),
            }
        }
        assert_eq!(pings, 2);
    }

    #[test]
    fn who_was_superseded_or_has_no_session_any_more_stays_away_and_a_restart_is_waited_for() {
        for (reason, end) in [
            (EndReason::Superseded, Some(End::Superseded)),
            (EndReason::Logout, Some(End::Session(EndReason::Logout))),
            (EndReason::Disconnected, Some(End::Session(EndReason::Disconnected))),
            (EndReason::Shutdown, None),
        ] {
            let (mut link, now) = attached();
            link.session_end(reason);
            assert_eq!(link.lost(1000, now), end);
            assert_eq!(link.deadline().is_none(), end.is_some());
        }
        let (mut link, now) = attached();
        assert_eq!(link.lost(4001, now), Some(End::Superseded), "the message was lost, the code was not");
    }

    #[test]
    fn a_refusal_is_final_unless_the_gateway_says_when_to_try_again() {
        let refused = |retry_after| ClientError::Refused {
            code: "RATE_LIMITED".into(),
            message: "slower".into(),
            retry_after,
        };
        let (mut link, now) = attached();
        assert_eq!(link.not_attached(&refused(Some(Duration::from_secs(3))), now), None);
        assert!(link.deadline().unwrap() >= now + Duration::from_secs(3));
        assert!(matches!(link.not_attached(&refused(None), now), Some(End::Refused { .. })));
    }

    #[test]
    fn messages_are_acknowledged_now_and_then() {
        let (mut link, _) = attached();
        let acknowledged: Vec<u64> = (1u64 << 32..)
            .take(100)
            .filter_map(|seq| {
                link.take(Some(seq));
                link.acknowledge()
            })
            .collect();
        assert_eq!(acknowledged.len(), 3);
    }
}
