//! What the gateway wants of the client's microphone, said again until it is seen to be done.
//!
//! "Sent" is not "applied": a message may go into a socket that is already dead. The wish is repeated
//! on every attach, and every [`RESEND`] until the client acknowledges it or sound arrives.

use std::time::{Duration, Instant};

/// How long to wait for sound or an acknowledgement before asking again.
pub const RESEND: Duration = Duration::from_secs(10);

/// How long glasses must be away before their microphone is turned off: a blip is none.
pub const HOLD_DOWN: Duration = Duration::from_secs(3);

/// The wish.
#[derive(Debug)]
pub struct MicrophoneControl {
    on: bool,
    /// Counts changes of the wish.
    version: u64,
    /// When it was last said; none while nobody is there to hear it, or once it is seen to be done.
    asked_at: Option<Instant>,
    /// When it is to be said, because the client cannot take it yet.
    ask_at: Option<Instant>,
    /// When it is to be off.
    off_at: Option<Instant>,
}

impl Default for MicrophoneControl {
    /// On: a voice gateway listens.
    fn default() -> Self {
        Self { on: true, version: 1, asked_at: None, ask_at: None, off_at: None }
    }
}

impl MicrophoneControl {
    /// Whether the microphone is wanted.
    pub fn on(&self) -> bool {
        self.on
    }

    /// The number of the wish.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Wants it on or off. True if that is news, to be said at once.
    pub fn want(&mut self, on: bool) -> bool {
        let news = self.on != on;
        if news {
            self.on = on;
            self.version += 1;
        }
        news
    }

    /// The wish was said.
    pub fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.ask_at = None;
    }

    /// The wish is to be said at this time.
    pub fn ask_at(&mut self, at: Instant) {
        self.ask_at = Some(at);
    }

    /// The glasses behind the client came or went. True if the wish is to be said at once.
    pub fn glasses(&mut self, connected: bool, now: Instant) -> bool {
        if connected {
            self.off_at = None;
            self.want(true);
        } else if self.on {
            self.off_at.get_or_insert(now + HOLD_DOWN);
        }
        connected
    }

    /// The client did as wished, or sound came: no need to ask again.
    pub fn observed(&mut self) {
        self.asked_at = None;
    }

    /// The client acknowledged the wish with this number.
    pub fn acknowledged(&mut self, version: u64) {
        if version == self.version {
            self.asked_at = None;
        }
    }

    /// When to ask, or to ask again.
    pub fn deadline(&self) -> Option<Instant> {
        let again = self.asked_at.filter(|_| self.on).map(|at| at + RESEND);
        [again, self.ask_at, self.off_at].into_iter().flatten().min()
    }

    /// Time has passed; the wish is to be said after it.
    pub fn tick(&mut self, now: Instant) {
        if self.off_at.is_some_and(|at| now >= at) {
            self.off_at = None;
            self.want(false);
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
        assert!(!microphone.want(true));
        assert!(microphone.want(false));
        assert_eq!(microphone.version(), 2);
    }
}
