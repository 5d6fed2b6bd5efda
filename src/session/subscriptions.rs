//! The streams that a client subscribed to: the whole set each time, kept across reconnects.
//!
//! A phone that reconnects may send an empty set before the real one, because its apps come back one after the
//! other. An empty set takes effect [`EMPTY_SET_DELAY`] after the attachment at the earliest.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long after an attachment an empty set waits.
pub const EMPTY_SET_DELAY: Duration = Duration::from_secs(2);

/// The maximum of streams; further ones are ignored.
const MAX_STREAMS: usize = 16;

/// The set.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// None until the client sent a set.
    wanted: Option<Vec<String>>,
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
            self.wanted = Some(bounded(wanted));
        }
    }

    /// The client sent a set.
    pub fn update(&mut self, wanted: Vec<String>, now: Instant) {
        let hold = self.attached_at.map(|at| at + EMPTY_SET_DELAY).filter(|until| now < *until);
        match hold {
            Some(until) if wanted.is_empty() => self.empty_at = Some(until),
            Some(_) | None => {
                self.empty_at = None;
                self.wanted = Some(bounded(wanted));
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.empty_at
    }

    /// The deadline may have come: an empty set takes effect.
    pub fn tick(&mut self, now: Instant) {
        if self.empty_at.is_some_and(|at| now >= at) {
            self.empty_at = None;
            self.wanted = Some(Vec::new());
        }
    }

    /// The streams, under the client's own names, that carry the transcription of a language. A client that
    /// never sent a set gets `default`.
    pub fn transcription(&self, language: &str, default: Option<String>) -> Vec<String> {
        match &self.wanted {
            Some(wanted) => wanted.iter().filter(|stream| carries(stream, language)).cloned().collect(),
            None => default.into_iter().collect(),
        }
    }
}

/// Without duplicates, and at most [`MAX_STREAMS`].
fn bounded(wanted: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    wanted.into_iter().filter(|stream| seen.insert(stream.clone())).take(MAX_STREAMS).collect()
}

/// `transcription`, `transcription:auto`, `transcription:en-US`, and any of them with a `?query`.
fn carries(stream: &str, language: &str) -> bool {
    let stream = stream.split('?').next().unwrap_or_default();
    match stream.strip_prefix("transcription") {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix(':')
            .is_some_and(|wanted| wanted == "auto" || wanted.eq_ignore_ascii_case(language)),
        None => false,
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
        for stream in
            ["transcription", "transcription:auto", "transcription:en-us", "transcription:en-US?hints=ja"]
        {
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
        subscriptions.update((0..1000).map(|n| format!("transcription?{n}")).collect(), now);
        assert_eq!(wants(&subscriptions), MAX_STREAMS);
    }

    #[test]
    fn who_never_said_what_they_want_gets_what_is_usual() {
        let subscriptions = Subscriptions::default();
        assert_eq!(subscriptions.transcription("en-US", Some("transcription:en-US".into())).len(), 1);
        assert_eq!(wants(&subscriptions), 0);
    }
}
