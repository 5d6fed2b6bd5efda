//! Connection policy: when to reconnect, when a connection counts as dead, what to resume, when to give up.
//!
//! ```text
//!                connect              connection_ack
//!   waiting ───────────────▶ connecting ───────────▶ attached
//!      ▲                         │                      │
//!      ├──── unreachable ────────┘                      │ closed, broken, or silent for too long
//!      └────────────────────────────────────────────────┘
//!   ended: the session ended, a newer connection took it over, or the gateway refuses permanently
//! ```
//!
//! Pure: time is an argument, and jitter comes from a seeded generator.

use std::time::{Duration, Instant};

use june_protocol::{
    Close, Code, Secret,
    from_client::Resume,
    ids::SessionId,
    to_client::{ConnectionAck, EndReason},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::ClientError;

/// The backoff between attempts: exponential, with jitter.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The longest wait before the first attempt. Each failure doubles it.
    pub first: Duration,
    /// The longest wait of all.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(8) }
    }
}

/// A connection that lasted this long resets the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Messages per acknowledgement.
const ACK_INTERVAL: u64 = 32;

/// Heartbeat intervals without a frame before a connection counts as dead.
const MISSED_HEARTBEATS: u32 = 2;

/// Why a client stops reconnecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The session ended.
    Session(EndReason),
    /// A newer connection has the session. Reconnecting would take it from that one.
    Superseded,
    /// The gateway does not accept the token (any more). Connect a new [`Device`](crate::Device) with a new one.
    TokenRejected {
        /// The error code: `EXPIRED_TOKEN`, `INVALID_TOKEN` or `MISSING_TOKEN`.
        code: String,
        /// The description for people.
        message: String,
    },
    /// The gateway refuses for another reason, and would again.
    Refused {
        /// The error code.
        code: String,
        /// The description for people.
        message: String,
    },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Connect.
    Connect,
    /// Send a ping with this number.
    Ping(u64),
    /// Drop the connection: it is dead.
    Dead,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Instant },
    Connecting,
    Attached { since: Instant, received_at: Instant, ping_at: Instant },
    Ended,
}

/// The state of the connection, and what survives it.
#[derive(Debug)]
pub struct ReconnectPolicy {
    retry: Retry,
    jitter: StdRng,
    phase: Phase,
    /// Consecutive failures.
    failures: u32,
    /// The session, and the secret for resuming it.
    session: Option<(SessionId, Secret)>,
    /// The highest `seq` received.
    last_seq: u64,
    /// The highest `seq` acknowledged.
    acknowledged: u64,
    heartbeat: Duration,
    pings: u64,
    /// The reason of the last `session_end`.
    ended: Option<EndReason>,
}

impl ReconnectPolicy {
    /// A policy that connects at once.
    pub fn new(retry: Retry, seed: u64, now: Instant) -> Self {
        Self {
            retry,
            jitter: StdRng::seed_from_u64(seed),
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

    /// When to call [`due`](Self::due).
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Attached { received_at, ping_at, .. } => Some((*ping_at).min(self.dead_at(*received_at))),
            Phase::Connecting | Phase::Ended => None,
        }
    }

    /// What to do now.
    pub fn due(&mut self, now: Instant) -> Due {
        match &mut self.phase {
            Phase::Waiting { until } if now >= *until => {
                self.phase = Phase::Connecting;
                Due::Connect
            }
            Phase::Attached { received_at, .. }
                if now >= *received_at + self.heartbeat * (MISSED_HEARTBEATS + 1) =>
            {
                Due::Dead
            }
            Phase::Attached { ping_at, .. } if now >= *ping_at => {
                *ping_at = now + self.heartbeat;
                self.pings += 1;
                Due::Ping(self.pings)
            }
            Phase::Waiting { .. } | Phase::Attached { .. } | Phase::Connecting | Phase::Ended => Due::Nothing,
        }
    }

    /// What to resume; none before the first connection.
    pub fn resume(&self, last_audio_seq: u32) -> Option<Resume> {
        let (session_id, secret) = self.session.as_ref()?;
        let (session_id, resume_token) = (*session_id, secret.expose().to_owned());
        Some(Resume { session_id, resume_token, last_server_seq: self.last_seq, last_audio_seq })
    }

    /// The gateway acknowledged. Returns whether the earlier connection was resumed.
    pub fn attached(&mut self, ack: &ConnectionAck, now: Instant) -> bool {
        self.session = Some((ack.session_id, Secret::new(ack.resume_token.clone())));
        self.heartbeat = Duration::from_millis(ack.heartbeat_ms.max(1));
        self.phase = Phase::Attached { since: now, received_at: now, ping_at: now + self.heartbeat };
        self.ended = None;
        if !ack.resumed {
            // The gateway starts a new numbering.
            self.last_seq = 0;
            self.acknowledged = 0;
        }
        ack.resumed
    }

    /// A frame arrived.
    pub fn received(&mut self, now: Instant) {
        if let Phase::Attached { received_at, .. } = &mut self.phase {
            *received_at = now;
        }
    }

    /// A message arrived. Returns whether it is new: one that is sent again is not.
    pub fn accept(&mut self, seq: Option<u64>) -> bool {
        match seq {
            None => true,
            Some(seq) if seq > self.last_seq => {
                self.last_seq = seq;
                true
            }
            Some(_) => false,
        }
    }

    /// The `seq` to acknowledge by `resume_ack`, if it is time for that.
    pub fn acknowledge(&mut self) -> Option<u64> {
        if self.acknowledged == 0 {
            // The gateway chooses the first number.
            self.acknowledged = self.last_seq;
        }
        if self.last_seq - self.acknowledged < ACK_INTERVAL {
            return None;
        }
        self.acknowledged = self.last_seq;
        Some(self.last_seq)
    }

    /// `session_end` arrived.
    pub fn session_end(&mut self, reason: EndReason) {
        self.ended = Some(reason);
    }

    /// The connection closed. `has_untried_token` says that there is a token which the gateway has not seen.
    /// Returns the reason if this was the last connection.
    pub fn lost(&mut self, code: u16, has_untried_token: bool, now: Instant) -> Option<End> {
        let unauthorized = code == Close::Unauthorized.code();
        let end = match self.ended.take() {
            Some(EndReason::Superseded) => Some(End::Superseded),
            None if code == Close::Superseded.code() => Some(End::Superseded),
            Some(reason @ (EndReason::Logout | EndReason::Disconnected | EndReason::GraceExpired)) => {
                Some(End::Session(reason))
            }
            None if unauthorized && !has_untried_token => Some(End::TokenRejected {
                code: Code::ExpiredToken.to_string(),
                message: "the token expired or was revoked".into(),
            }),
            Some(EndReason::Shutdown) | None => None,
        };
        if let Phase::Attached { since, .. } = self.phase
            && now.saturating_duration_since(since) >= STABLE_AFTER
        {
            self.failures = 0;
        }
        self.next(end, None, now)
    }

    /// An attempt failed. `has_untried_token` says that there is a newer token than the one it was made with.
    /// Returns the reason if another attempt cannot succeed.
    pub fn not_attached(
        &mut self,
        error: &ClientError,
        has_untried_token: bool,
        now: Instant,
    ) -> Option<End> {
        let (end, after) = match error {
            error if error.is_unauthorized() && has_untried_token => (None, None),
            ClientError::Refused { code, message, .. } if error.is_unauthorized() => {
                (Some(End::TokenRejected { code: code.clone(), message: message.clone() }), None)
            }
            ClientError::Refused { retry_after: Some(after), .. } => (None, Some(*after)),
            ClientError::Refused { code, message, retry_after: None } => {
                (Some(End::Refused { code: code.clone(), message: message.clone() }), None)
            }
            ClientError::Closed { code, .. } if *code == Close::Superseded.code() => {
                (Some(End::Superseded), None)
            }
            ClientError::Closed { reason, .. } if error.is_unauthorized() => {
                let code = Code::ExpiredToken.to_string();
                (Some(End::TokenRejected { code, message: reason.clone() }), None)
            }
            ClientError::Unreachable(_)
            | ClientError::Protocol(_)
            | ClientError::Closed { .. }
            | ClientError::Livekit(_) => (None, None),
        };
        self.next(end, after, now)
    }

    fn next(&mut self, end: Option<End>, after: Option<Duration>, now: Instant) -> Option<End> {
        self.phase = match end {
            Some(_) => Phase::Ended,
            None => Phase::Waiting { until: now + after.unwrap_or_default() + self.pause() },
        };
        end
    }

    /// How long to wait before the next attempt.
    fn pause(&mut self) -> Duration {
        let whole = self
            .retry
            .first
            .saturating_mul(2u32.saturating_pow(self.failures.min(16)))
            .min(self.retry.longest);
        // The first attempt may come at once. Later ones wait at least half of the backoff.
        let least = if self.failures == 0 { 0.0 } else { 0.5 };
        self.failures += 1;
        whole.mul_f64(self.jitter.random_range(least..1.0))
    }

    fn dead_at(&self, received_at: Instant) -> Instant {
        received_at + self.heartbeat * (MISSED_HEARTBEATS + 1)
    }
}

#[cfg(test)]
mod tests {
    use june_protocol::{ToClient, audio::Codec};

    use super::*;
    use crate::clock;

    fn ack(resumed: bool) -> ConnectionAck {
        let page = include_str!("../../../docs/PROTOCOL.md");
        let (_, rest) = page.split_once("{\"type\": \"connection_ack\"").unwrap();
        let (rest, _) = rest.split_once("```").unwrap();
        let text = format!("{{\"type\": \"connection_ack\"{rest}");
        let ToClient::ConnectionAck(ack) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(ack.audio.codec, Codec::Pcm16le);
        ConnectionAck { resumed, heartbeat_ms: 10_000, ..*ack }
    }

    fn attached() -> (ReconnectPolicy, Instant) {
        let now = clock::now();
        let mut policy = ReconnectPolicy::new(Retry::default(), 1, now);
        assert_eq!(policy.due(now), Due::Connect);
        policy.attached(&ack(false), now);
        (policy, now)
    }

    #[test]
    fn it_resumes_after_the_last_message_and_accepts_none_twice() {
        let (mut policy, now) = attached();
        assert!(policy.accept(Some(1)) && policy.accept(Some(2)) && policy.accept(None));
        assert_eq!(policy.lost(1006, false, now), None);

        let resume = policy.resume(17).unwrap();
        assert_eq!((resume.last_server_seq, resume.last_audio_seq), (2, 17));
        assert!(policy.attached(&ack(true), now));
        assert!(!policy.accept(Some(2)));
        assert!(policy.accept(Some(3)));
    }

    #[test]
    fn a_connection_that_is_not_resumed_starts_a_new_numbering() {
        let (mut policy, now) = attached();
        policy.accept(Some(90));
        policy.lost(1006, false, now);
        assert!(!policy.attached(&ack(false), now));
        assert!(policy.accept(Some(1)));
    }

    #[test]
    fn attempts_back_off_and_a_stable_connection_resets_the_backoff() {
        let (mut policy, mut now) = attached();
        let retry = Retry::default();
        assert_eq!(policy.lost(1006, false, now), None);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let until = policy.deadline().unwrap();
            pauses.push(until - now);
            now = until;
            assert_eq!(policy.due(now), Due::Connect);
            assert_eq!(policy.not_attached(&ClientError::Unreachable("no".into()), false, now), None);
        }
        assert!(pauses[0] <= retry.first);
        assert!(pauses[1..].iter().all(|pause| *pause >= retry.first && *pause <= retry.longest));
        assert!(pauses.last().unwrap() >= &(retry.longest / 2));

        now = policy.deadline().unwrap();
        policy.due(now);
        policy.attached(&ack(true), now);
        now += STABLE_AFTER;
        policy.lost(1006, false, now);
        assert!(policy.deadline().unwrap() - now <= retry.first);
    }

    #[test]
    fn two_clients_do_not_reconnect_at_the_same_moment() {
        let now = clock::now();
        let pause = |seed| {
            let mut policy = ReconnectPolicy::new(Retry::default(), seed, now);
            policy.lost(1012, false, now);
            policy.deadline().unwrap()
        };
        assert_ne!(pause(1), pause(2));
    }

    #[test]
    fn a_silent_connection_is_pinged_and_then_dropped() {
        let (mut policy, _) = attached();
        let mut pings = 0;
        loop {
            let now = policy.deadline().unwrap();
            match policy.due(now) {
                Due::Ping(_) => pings += 1,
                Due::Dead => break,
                Due::Nothing | Due::Connect => panic!("not now"),
            }
        }
        assert_eq!(pings, 2);
    }

    #[test]
    fn a_client_that_was_superseded_or_whose_session_ended_stops_and_a_restart_is_waited_for() {
        for (reason, end) in [
            (EndReason::Superseded, Some(End::Superseded)),
            (EndReason::Logout, Some(End::Session(EndReason::Logout))),
            (EndReason::Disconnected, Some(End::Session(EndReason::Disconnected))),
            (EndReason::Shutdown, None),
        ] {
            let (mut policy, now) = attached();
            policy.session_end(reason);
            assert_eq!(policy.lost(1000, false, now), end);
            assert_eq!(policy.deadline().is_none(), end.is_some());
        }
        let (mut policy, now) = attached();
        assert_eq!(
            policy.lost(4001, false, now),
            Some(End::Superseded),
            "by the close code, where the message was lost"
        );
    }

    #[test]
    fn a_refusal_is_final_unless_it_says_when_to_retry() {
        let refused = |retry_after| ClientError::Refused {
            code: "RATE_LIMITED".into(),
            message: "slower".into(),
            retry_after,
        };
        let (mut policy, now) = attached();
        assert_eq!(policy.not_attached(&refused(Some(Duration::from_secs(3))), false, now), None);
        assert!(policy.deadline().unwrap() >= now + Duration::from_secs(3));
        assert!(matches!(policy.not_attached(&refused(None), false, now), Some(End::Refused { .. })));
    }

    #[test]
    fn messages_are_acknowledged_in_groups() {
        let (mut policy, _) = attached();
        let acknowledged: Vec<u64> = (1u64 << 32..)
            .take(100)
            .filter_map(|seq| {
                policy.accept(Some(seq));
                policy.acknowledge()
            })
            .collect();
        assert_eq!(acknowledged.len(), 3);
    }
    #[test]
    fn a_token_that_is_not_accepted_any_more_is_not_tried_for_ever() {
        let (mut policy, now) = attached();
        assert!(matches!(policy.lost(4401, false, now), Some(End::TokenRejected { .. })));
        assert_eq!(policy.deadline(), None);

        let refused = ClientError::Refused {
            code: "EXPIRED_TOKEN".into(),
            message: "the token has expired".into(),
            retry_after: None,
        };
        let (mut policy, now) = attached();
        policy.lost(1006, false, now);
        assert!(matches!(policy.not_attached(&refused, false, now), Some(End::TokenRejected { .. })));
    }

    #[test]
    fn a_newer_token_is_tried_once_after_the_old_one_was_rejected() {
        let (mut policy, now) = attached();
        assert_eq!(policy.lost(4401, true, now), None);
        assert!(policy.deadline().is_some());
        let closed = ClientError::Closed { code: 4401, reason: "unauthorized".into() };
        assert_eq!(policy.not_attached(&closed, true, now), None);
        assert!(matches!(policy.not_attached(&closed, false, now), Some(End::TokenRejected { .. })));
    }
}
