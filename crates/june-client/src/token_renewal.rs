//! The token that opens the control channel, and when to renew it.
//!
//! Pure. The gateway renews control tokens unasked (`control_token`); this is the fallback for a gateway that
//! does not. All times are measured by the gateway's clock, since a wearable's may be wrong: `timestamp` of
//! `connection_ack` says what the gateway's clock was, a monotonic clock measures from there.

use std::time::{Duration, Instant};

use june_protocol::Secret;

/// How long before its end a token is renewed; a quarter of its remaining life where that is shorter. The gateway
/// renews it at twice that, so that a request is the exception.
const MAX_LEAD: Duration = Duration::from_secs(150);

/// A token that lives shorter than this is not renewed any more.
const MIN_REMAINING: Duration = Duration::from_secs(1);

/// The newest token, and its renewal.
#[derive(Debug)]
pub(crate) struct TokenRenewal {
    token: Secret,
    /// When it expires, in seconds since the Unix epoch. Unknown for a user's own token, which only its owner
    /// can renew.
    expires_at: Option<u64>,
    /// Whether the gateway accepted it, by opening a channel with it or by extending one.
    accepted: bool,
    /// The gateway's clock in milliseconds since the Unix epoch, and when it was read.
    gateway_clock: Option<(u64, Instant)>,
    /// When to request the next one.
    renew_at: Option<Instant>,
}

impl TokenRenewal {
    /// The first token. `expires_at` is for control tokens, in seconds since the Unix epoch.
    pub(crate) fn new(token: Secret, expires_at: Option<u64>) -> Self {
        Self { token, expires_at, accepted: false, gateway_clock: None, renew_at: None }
    }

    /// The newest token.
    pub(crate) fn current(&self) -> &Secret {
        &self.token
    }

    /// A channel was opened with `token` while the gateway's clock said `gateway_ms`.
    pub(crate) fn attached(&mut self, token: &Secret, gateway_ms: Option<u64>, now: Instant) {
        self.accepted = *token == self.token;
        self.gateway_clock = gateway_ms.map(|ms| (ms, now));
        self.schedule(now);
    }

    /// The channel is closed. Nothing can be requested until the next one.
    pub(crate) fn detached(&mut self) {
        self.renew_at = None;
    }

    /// The gateway issued a control token.
    pub(crate) fn issued(&mut self, token: Secret, expires_at: u64, now: Instant) {
        self.token = token;
        self.expires_at = Some(expires_at);
        self.accepted = true;
        self.schedule(now);
    }

    /// The owner supplied a new token.
    pub(crate) fn replace(&mut self, token: Secret) {
        self.token = token;
        self.expires_at = None;
        self.accepted = false;
        self.renew_at = None;
    }

    /// The gateway accepted the owner's new token.
    pub(crate) fn confirmed(&mut self) {
        self.accepted = true;
    }

    /// Whether there is a token that the gateway has not seen: one more attempt makes sense although it closed
    /// the channel as unauthorized.
    pub(crate) fn has_untried(&self) -> bool {
        !self.accepted
    }

    /// When [`due`](Self::due) becomes true.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Whether a new control token must be requested now.
    pub(crate) fn due(&mut self, now: Instant) -> bool {
        let due = self.renew_at.is_some_and(|at| now >= at);
        if due {
            // A request may be lost or refused; the next one is due when three quarters of the rest are over.
            self.schedule(now);
        }
        due
    }

    fn schedule(&mut self, now: Instant) {
        self.renew_at = self.remaining(now).map(|remaining| now + remaining - MAX_LEAD.min(remaining / 4));
    }

    /// How long the token is valid.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        let (gateway_ms, read_at) = self.gateway_clock?;
        let gateway = Duration::from_millis(gateway_ms) + now.saturating_duration_since(read_at);
        let remaining = Duration::from_secs(self.expires_at?).saturating_sub(gateway);
        (remaining >= MIN_REMAINING).then_some(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const HOUR_S: u64 = 3600;
    const GATEWAY_S: u64 = 1_795_556_178;

    fn secret(value: &str) -> Secret {
        Secret::new(value)
    }

    /// A control token with an hour to live, on an open channel.
    fn attached() -> (TokenRenewal, Instant) {
        let now = clock::now();
        let mut renewal = TokenRenewal::new(secret("first"), Some(GATEWAY_S + HOUR_S));
        renewal.attached(&secret("first"), Some(GATEWAY_S * 1000), now);
        (renewal, now)
    }

    #[test]
    fn a_control_token_that_the_gateway_does_not_renew_is_requested_before_its_end() {
        let (mut renewal, now) = attached();
        let expected = now + Duration::from_secs(HOUR_S) - MAX_LEAD;

        assert_eq!(renewal.deadline(), Some(expected));
        assert!(!renewal.due(expected - Duration::from_millis(1)));
        assert!(renewal.due(expected));
    }

    #[test]
    fn a_request_without_an_answer_is_repeated_a_few_times_until_the_token_has_expired() {
        let (mut renewal, now) = attached();
        let mut requests = Vec::new();
        while let Some(at) = renewal.deadline() {
            assert!(renewal.due(at));
            requests.push(at);
        }
        assert!((2..10).contains(&requests.len()), "{}", requests.len());
        assert!(requests.iter().all(|at| *at < now + Duration::from_secs(HOUR_S)));
    }

    #[test]
    fn a_pushed_token_postpones_the_request_and_opens_the_next_channel() {
        let (mut renewal, now) = attached();
        let later = now + Duration::from_secs(HOUR_S - 300);

        renewal.issued(secret("second"), GATEWAY_S + 2 * HOUR_S - 300, later);

        assert_eq!(renewal.current(), &secret("second"));
        assert_eq!(renewal.deadline(), Some(later + Duration::from_secs(HOUR_S) - MAX_LEAD));
    }

    #[test]
    fn nothing_is_requested_without_a_channel() {
        let (mut renewal, now) = attached();
        renewal.detached();
        assert_eq!(renewal.deadline(), None);
        assert!(!renewal.due(now + Duration::from_secs(HOUR_S)));
    }

    #[test]
    fn a_users_own_token_is_never_requested() {
        let now = clock::now();
        let mut renewal = TokenRenewal::new(secret("jwt"), None);
        renewal.attached(&secret("jwt"), Some(GATEWAY_S * 1000), now);
        assert_eq!(renewal.deadline(), None);
    }

    #[test]
    fn a_token_is_untried_until_the_gateway_accepts_it() {
        let (mut renewal, now) = attached();
        assert!(!renewal.has_untried());

        renewal.replace(secret("fresh"));
        assert!(renewal.has_untried());
        // A channel that was being opened with the previous token says nothing about the new one.
        renewal.attached(&secret("first"), Some(GATEWAY_S * 1000), now);
        assert!(renewal.has_untried());

        renewal.confirmed();
        assert!(!renewal.has_untried());
    }
}
