//! The streams that a client subscribed to: the whole set each time, kept across reconnects.
//!
//! A phone that reconnects may send an empty set before the real one, because its apps come back one after the
//! other. An empty set takes effect [`EMPTY_SET_DELAY`] after the attachment at the earliest.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    language::Language,
    session::streams::{Spoken, Stream},
};

/// How long after an attachment an empty set waits.
pub const EMPTY_SET_DELAY: Duration = Duration::from_secs(2);

/// The maximum of streams of speech; further ones are refused.
pub(super) const MAX_STREAMS: usize = 16;

/// The set.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// The streams of speech; none until the client sent a set.
    wanted: Option<Vec<String>>,
    /// The first of the set that was one too many.
    excess: Option<String>,
    attached_at: Option<Instant>,
    /// An empty set waits until then.
    empty_at: Option<Instant>,
}

impl Subscriptions {
    /// A client attached, perhaps with a set.
    pub fn attached(&mut self, wanted: Option<Vec<String>>, now: Instant) {
        self.attached_at = Some(now);
        self.empty_at = None;
        if let Some(wanted) = wanted {
            self.set(wanted);
        }
    }

    fn set(&mut self, wanted: Vec<String>) {
        let mut seen = BTreeSet::new();
        let mut wanted: Vec<String> =
            wanted.into_iter().filter(|name| Stream::is_speech(name) && seen.insert(name.clone())).collect();
        self.excess = wanted.get(MAX_STREAMS).cloned();
        wanted.truncate(MAX_STREAMS);
        self.wanted = Some(wanted);
    }

    /// The client sent a set. False where it takes effect later.
    pub fn update(&mut self, wanted: Vec<String>, now: Instant) -> bool {
        let hold = self.attached_at.map(|at| at + EMPTY_SET_DELAY).filter(|until| now < *until);
        match hold {
            Some(until) if wanted.is_empty() => {
                self.empty_at = Some(until);
                false
            }
            Some(_) | None => {
                self.empty_at = None;
                self.set(wanted);
                true
            }
        }
    }

    /// The streams of speech.
    pub(super) fn wanted(&self) -> &[String] {
        self.wanted.as_deref().unwrap_or_default()
    }

    /// The first stream of the set that was one too many, once.
    pub(super) fn take_excess(&mut self) -> Option<String> {
        self.excess.take()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.empty_at
    }

    /// The deadline may have come: an empty set takes effect. True where it does.
    pub fn tick(&mut self, now: Instant) -> bool {
        let is_due = self.empty_at.is_some_and(|at| now >= at);
        if is_due {
            self.empty_at = None;
            self.wanted = Some(Vec::new());
        }
        is_due
    }

    /// The streams, under the client's own names, that carry the transcription of a language. A client that
    /// never sent a set gets `default`.
    pub fn transcription(&self, language: &str, default: Option<String>) -> Vec<String> {
        match &self.wanted {
            Some(wanted) => wanted.iter().filter(|stream| carries(stream, language)).cloned().collect(),
            None => default.into_iter().collect(),
        }
    }

    /// Those of them that are of this language alone.
    pub(super) fn transcription_in(&self, language: &Language) -> Vec<String> {
        let is_of = |stream: &&String| match Stream::parse(stream) {
            Some(Ok(Stream::Transcription(Spoken::In(wanted)))) => wanted.is_like(language),
            Some(_) | None => false,
        };
        self.wanted().iter().filter(is_of).cloned().collect()
    }
}

/// Whether a stream carries the transcription of a language: `und` only where it carries any.
fn carries(stream: &str, language: &str) -> bool {
    match Stream::parse(stream) {
        Some(Ok(Stream::Transcription(Spoken::Any))) => true,
        Some(Ok(Stream::Transcription(Spoken::In(wanted)))) => {
            Language::parse(language).is_ok_and(|language| language.is_like(&wanted))
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn wants(subscriptions: &Subscriptions) -> usize {
        subscriptions.transcription("en-US", None).len()
    }

    #[test]
    fn an_empty_set_just_after_an_attachment_waits_and_is_forgotten_when_another_comes() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.attached(Some(vec!["transcription:en-US".into()]), now);
        subscriptions.update(Vec::new(), now);
        assert_eq!((wants(&subscriptions), subscriptions.deadline()), (1, Some(now + EMPTY_SET_DELAY)));

        subscriptions.update(vec!["transcription".into()], now);
        assert_eq!(subscriptions.deadline(), None);
        subscriptions.update(Vec::new(), now);
        subscriptions.tick(now + EMPTY_SET_DELAY);
        assert_eq!(wants(&subscriptions), 0);
    }

    #[test]
    fn an_empty_set_later_on_means_none_at_once() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.attached(Some(vec!["transcription:en-US".into()]), now);
        subscriptions.update(Vec::new(), now + EMPTY_SET_DELAY);
        assert_eq!(wants(&subscriptions), 0);
    }

    #[test]
    fn a_stream_is_known_by_its_language_in_every_way_that_clients_write_it() {
        for stream in [
            "transcription",
            "transcription:auto",
            "transcription:en-us",
            "transcription:en-US?hints=ja",
            "transcription:en",
        ] {
            assert!(carries(stream, "en-US"), "{stream}");
        }
        for stream in
            ["transcription:de-DE", "transcriptions", "translation:en-US-to-de-DE", "audio_chunk", ""]
        {
            assert!(!carries(stream, "en-US"), "{stream}");
        }
    }

    #[test]
    fn a_stream_is_sent_once_and_there_are_only_so_many() {
        let now = clock::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.attached(Some(vec!["transcription".into(); 1000]), now);
        assert_eq!(wants(&subscriptions), 1);
        assert_eq!(subscriptions.take_excess(), None);
        let others = (0..1000).map(|n| format!("button_press?{n}"));
        subscriptions.update(others.chain((0..1000).map(|n| format!("transcription?{n}"))).collect(), now);
        assert_eq!(wants(&subscriptions), MAX_STREAMS);
        assert_eq!(subscriptions.take_excess().as_deref(), Some("transcription?16"));
        assert_eq!(subscriptions.take_excess(), None);
    }

    #[test]
    fn who_never_said_what_they_want_gets_what_is_usual() {
        let subscriptions = Subscriptions::default();
        assert_eq!(subscriptions.transcription("en-US", Some("transcription:en-US".into())).len(), 1);
        assert_eq!(wants(&subscriptions), 0);
    }
}
