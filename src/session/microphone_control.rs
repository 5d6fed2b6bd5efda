//! The desired state of the client's microphone, sent again until it is observed.
//!
//! Sent is not applied: a message may go into a socket that is already dead. The state is sent on every
//! attach, and every [`RESEND`] until the client acknowledges it or audio arrives.

use std::time::{Duration, Instant};

/// How long to wait for audio or an acknowledgement before it is sent again.
pub const RESEND: Duration = Duration::from_secs(10);

/// How long glasses must be disconnected before their microphone is turned off.
pub const HOLD_DOWN: Duration = Duration::from_secs(3);

/// The desired state.
#[derive(Debug)]
pub struct MicrophoneControl {
    on: bool,
    /// Counts changes.
    version: u64,
    /// When it was last sent; none while no client is attached, or once it was observed.
    asked_at: Option<Instant>,
    /// When to send it, because the client does not accept it yet.
    ask_at: Option<Instant>,
    /// When to turn it off.
    off_at: Option<Instant>,
}

impl Default for MicrophoneControl {
    /// On.
    fn default() -> Self {
        Self { on: true, version: 1, asked_at: None, ask_at: None, off_at: None }
    }
}

impl MicrophoneControl {
    /// Whether the microphone should be on.
    pub fn on(&self) -> bool {
        self.on
    }

    /// The number of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Changes the state. True if it changed, and is to be sent at once.
    pub fn set(&mut self, on: bool) -> bool {
        let changed = self.on != on;
        if changed {
            self.on = on;
            self.version += 1;
        }
        changed
    }

    /// The state was sent.
    pub fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.ask_at = None;
    }

    /// The state is to be sent at this time.
    pub fn ask_at(&mut self, at: Instant) {
        self.ask_at = Some(at);
    }

    /// The glasses behind the client connected or disconnected. True if the state is to be sent at once.
    pub fn glasses(&mut self, connected: bool, now: Instant) -> bool {
        if connected {
            self.off_at = None;
            self.set(true);
        } else if self.on {
            self.off_at.get_or_insert(now + HOLD_DOWN);
        }
        connected
    }

    /// The client applied it, or audio came: it is not sent again.
    pub fn observed(&mut self) {
        self.asked_at = None;
    }

    /// The client acknowledged the change with this number.
    pub fn acknowledged(&mut self, version: u64) {
        if version == self.version {
            self.asked_at = None;
        }
    }

    /// When to send it, or to send it again.
    pub fn deadline(&self) -> Option<Instant> {
        let again = self.asked_at.filter(|_| self.on).map(|at| at + RESEND);
        [again, self.ask_at, self.off_at].into_iter().flatten().min()
    }

    /// The deadline has come; the state is to be sent after this.
    pub fn tick(&mut self, now: Instant) {
        if self.off_at.is_some_and(|at| now >= at) {
            self.off_at = None;
            self.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_wish_is_repeated_until_it_is_seen_to_be_done() {
        let mut microphone = MicrophoneControl::default();
        let now = clock::now();
        microphone.asked(now);
        assert_eq!(microphone.deadline(), Some(now + RESEND));
        microphone.acknowledged(0);
        assert_eq!(microphone.deadline(), Some(now + RESEND), "an old wish was acknowledged");
        microphone.acknowledged(1);
        assert_eq!(microphone.deadline(), None);
    }

    #[test]
    fn glasses_that_are_away_for_a_moment_keep_their_microphone() {
        let mut microphone = MicrophoneControl::default();
        let now = clock::now();
        assert!(!microphone.glasses(false, now));
        assert_eq!(microphone.deadline(), Some(now + HOLD_DOWN));
        assert!(microphone.glasses(true, now));
        assert_eq!((microphone.deadline(), microphone.version()), (None, 1));

        microphone.glasses(false, now);
        microphone.tick(now + HOLD_DOWN);
        assert!(!microphone.on());
        assert!(microphone.glasses(true, now + HOLD_DOWN));
        assert!(microphone.on());
    }

    #[test]
    fn only_a_change_is_news() {
        let mut microphone = MicrophoneControl::default();
        assert!(!microphone.set(true));
        assert!(microphone.set(false));
        assert_eq!(microphone.version(), 2);
    }
}
