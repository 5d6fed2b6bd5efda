//! Utterances that an STT service transcribes which the gateway does not call: tells those that are new from those that
//! were sent before. Services repeat what was not acknowledged in time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    ids::UtteranceId,
    limits::{Limit, Refusal},
    session::messages::Transcribed,
};

/// Utterances that have interims and no final yet.
const MAX_OPEN: usize = 8;

/// Transcripts that are remembered.
const MAX_REMEMBERED: usize = 64;

/// Interims of a session that are passed on in a second.
const MAX_INTERIMS: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Oldest first.
    open: VecDeque<Open>,
    /// Digests of finals, and of utterances that have one.
    done: VecDeque<Done>,
    /// When the second began in which interims are counted, and how many came since.
    second: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Open {
    name: Option<String>,
    utterance: UtteranceId,
    /// The number of its last interim.
    sequence: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Done {
    name: Option<String>,
    digest: u64,
}

impl Elsewhere {
    /// Whether an interim may be passed on now.
    pub(super) fn take_interim(&mut self, now: Instant) -> Result<(), Refusal> {
        let second = Duration::from_secs(1);
        let (began, count) = self.second.filter(|(began, _)| now < *began + second).unwrap_or((now, 0));
        self.second = Some((began, count + 1));
        if count < MAX_INTERIMS { Ok(()) } else { Err(Limit::Interims.refuse(began + second - now)) }
    }

    /// Whether a transcript was sent before, or is an interim that is late.
    pub(super) fn is_old(&self, transcribed: &Transcribed) -> bool {
        let Transcribed { utterance: name, digest, sequence, is_final, .. } = transcribed;
        let is_done = |done: &Done| match name {
            Some(_) => done.name == *name,
            None => done.digest == *digest,
        };
        let is_late =
            |open: &Open| !is_final && open.name == *name && sequence.is_some() && open.sequence >= *sequence;
        self.done.iter().any(is_done) || self.open.iter().any(is_late)
    }

    /// The utterance that a transcript belongs to, which is `next` for a new one, and one whose place it takes.
    pub(super) fn take(
        &mut self,
        transcribed: &Transcribed,
        next: UtteranceId,
    ) -> (UtteranceId, Option<UtteranceId>) {
        let Transcribed { utterance: name, digest, sequence, is_final, .. } = transcribed;
        let known = self.open.iter().position(|open| open.name == *name);
        if *is_final {
            if self.done.len() == MAX_REMEMBERED {
                self.done.pop_front();
            }
            self.done.push_back(Done { name: name.clone(), digest: *digest });
            let open = known.and_then(|at| self.open.remove(at));
            return (open.map_or(next, |open| open.utterance), None);
        }
        match known {
            Some(at) => {
                self.open[at].sequence = *sequence;
                (self.open[at].utterance, None)
            }
            None => {
                let oldest = if self.open.len() == MAX_OPEN { self.open.pop_front() } else { None };
                self.open.push_back(Open { name: name.clone(), utterance: next, sequence: *sequence });
                (next, oldest.map(|open| open.utterance))
            }
        }
    }

    /// Whether an utterance has its final from elsewhere still to come.
    pub(super) fn is_open(&self, utterance: UtteranceId) -> bool {
        self.open.iter().any(|open| open.utterance == utterance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: Option<&str>, digest: u64, sequence: Option<u64>, is_final: bool) -> Transcribed {
        Transcribed {
            utterance: name.map(Into::into),
            digest,
            sequence,
            text: "Hello.".into(),
            is_final,
            language: None,
        }
    }

    fn take(elsewhere: &mut Elsewhere, transcribed: &Transcribed, next: u64) -> Option<(u64, Option<u64>)> {
        if elsewhere.is_old(transcribed) {
            return None;
        }
        let (utterance, abandoned) = elsewhere.take(transcribed, UtteranceId(next));
        Some((utterance.0, abandoned.map(|utterance| utterance.0)))
    }

    #[test]
    fn interims_and_the_final_of_a_name_are_one_utterance_and_nothing_follows_the_final() {
        let mut elsewhere = Elsewhere::default();

        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 1, Some(1), false), 1), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(Some("b"), 2, Some(1), false), 2), Some((2, None)));
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 3, Some(2), false), 3), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 3, Some(2), false), 3), None, "sent again");
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 1, Some(1), false), 3), None, "late");
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 4, None, true), 3), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 4, None, true), 3), None);
        assert_eq!(take(&mut elsewhere, &sent(Some("a"), 5, Some(9), false), 3), None);
    }

    #[test]
    fn without_a_name_the_same_final_is_known_by_its_digest() {
        let mut elsewhere = Elsewhere::default();

        assert_eq!(take(&mut elsewhere, &sent(None, 1, None, false), 1), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(None, 2, None, false), 2), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(None, 3, None, true), 2), Some((1, None)));
        assert_eq!(take(&mut elsewhere, &sent(None, 3, None, true), 2), None);
        assert_eq!(take(&mut elsewhere, &sent(None, 4, None, true), 2), Some((2, None)), "another one");
    }

    #[test]
    fn utterances_without_a_final_and_remembered_ones_are_bounded() {
        let mut elsewhere = Elsewhere::default();
        for n in 1..=1_000 {
            let name = n.to_string();
            let abandoned = (n > MAX_OPEN as u64).then(|| n - MAX_OPEN as u64);
            assert_eq!(
                take(&mut elsewhere, &sent(Some(&name), n, None, false), n),
                Some((n, abandoned)),
                "the oldest makes room"
            );
        }
        for n in 2_000..3_000 {
            assert!(take(&mut elsewhere, &sent(None, n, None, true), n).is_some());
        }

        assert_eq!((elsewhere.open.len(), elsewhere.done.len()), (MAX_OPEN, MAX_REMEMBERED));
    }

    #[test]
    fn only_so_many_interims_are_passed_on_in_a_second() {
        let mut elsewhere = Elsewhere::default();
        let now = crate::clock::now();
        for _ in 0..MAX_INTERIMS {
            assert_eq!(elsewhere.take_interim(now), Ok(()));
        }

        let refusal = elsewhere.take_interim(now).unwrap_err();

        assert_eq!(refusal.retry_after, Duration::from_secs(1));
        assert_eq!(elsewhere.take_interim(now + refusal.retry_after), Ok(()));
    }
}
