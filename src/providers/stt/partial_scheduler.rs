//! Decides when to decode an open utterance, for models that transcribe whole utterances only.
//!
//! ```text
//!   sound  ▁▁▁▂▆█▇▆▇▅▇█▆▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁|
//!   decode         i      i      P     └ end: P covers all sound, so its text is the final
//! ```
//!
//! Interims (`i`) are decoded at a regular interval while there is sound. A pause (`P`) is decoded at once: it is
//! probably the end, and then its text is ready before the endpointer's `min_silence` has passed. If sound follows, the
//! text serves as one more interim. Where many utterances are open, interims are rarer ([`InterimBudget`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::audio::{
    SAMPLE_RATE_HZ,
    pcm::{self, FRAME_SAMPLES},
};

const MILLISECOND: usize = SAMPLE_RATE_HZ as usize / 1000;
/// Audio before the first interim: the endpointer's pre-roll and one or two syllables.
const FIRST_INTERIM_SAMPLES: usize = 800 * MILLISECOND;
/// Audio between two interims.
const INTERIM_SAMPLES: usize = 480 * MILLISECOND;
/// Silence that counts as a pause: longer than any inside a word, and so short that decoding ends before
/// `min_silence` has passed.
const PAUSE_SAMPLES: usize = 200 * MILLISECOND;
/// A frame is silent if it is at most 5 dB above the background and at least 12 dB below the voice. (At 8 dB above the
/// background, a soft last word 10 dB above the noise was lost.)
const ABOVE_BACKGROUND_DB: f32 = 5.0;
const BELOW_VOICE_DB: f32 = 12.0;

/// The share of a core that the interims of all utterances take, for each worker, and at least. Decodes in pauses and finals,
/// which answers wait for, come on top.
const SHARE_OF_WORKER: f32 = 0.08;
const MIN_SHARE: f32 = 0.16;

/// The processor time of interims, divided among the utterances that are open.
pub(super) struct InterimBudget {
    open: AtomicUsize,
    share: f32,
}

impl InterimBudget {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), share: MIN_SHARE.max(workers as f32 * SHARE_OF_WORKER) })
    }

    /// One more utterance is open, until this is dropped.
    pub(super) fn open(self: &Arc<Self>) -> InterimShare {
        self.open.fetch_add(1, Ordering::Relaxed);
        InterimShare(Arc::clone(self))
    }
}

/// One utterance's part of the budget.
pub(super) struct InterimShare(Arc<InterimBudget>);

impl InterimShare {
    /// The time between two interims, if one takes `decode`.
    pub(super) fn interval(&self, decode: Duration) -> Duration {
        let utterances = self.0.open.load(Ordering::Relaxed);
        decode.mul_f32(utterances as f32 / self.0.share)
    }
}

impl Drop for InterimShare {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The utterance has grown enough.
    Grown,
    /// It paused, and may be complete.
    Paused,
}

/// Tracks one open utterance.
#[derive(Debug)]
pub(super) struct PartialScheduler {
    /// Level of each whole frame so far, in dBFS.
    levels: Vec<f32>,
    samples: usize,
    /// Where the silence at the end begins.
    end_of_sound: usize,
    /// Length at which the last decode started.
    decoded: usize,
    next_interim_at: usize,
}

impl Default for PartialScheduler {
    fn default() -> Self {
        Self {
            levels: Vec::new(),
            samples: 0,
            end_of_sound: 0,
            decoded: 0,
            next_interim_at: FIRST_INTERIM_SAMPLES,
        }
    }
}

impl PartialScheduler {
    /// The utterance is now `pcm`.
    pub(super) fn grown_to(&mut self, pcm: &[i16]) {
        let measured = self.levels.len() * FRAME_SAMPLES;
        self.levels.extend(
            pcm[measured..].as_chunks::<FRAME_SAMPLES>().0.iter().map(|frame| pcm::level_dbfs(frame)),
        );
        self.samples = pcm.len();
        self.end_of_sound = self.find_end_of_sound();
    }

    /// Whether to decode now.
    pub(super) fn due(&self) -> Option<Reason> {
        if self.samples < FIRST_INTERIM_SAMPLES || self.is_covered_by(self.decoded) {
            return None;
        }
        if self.samples - self.end_of_sound >= PAUSE_SAMPLES {
            return Some(Reason::Paused);
        }
        (self.samples >= self.next_interim_at).then_some(Reason::Grown)
    }

    /// A decode of all audio so far starts; returns how much that is.
    pub(super) fn start_decoding(&mut self) -> usize {
        self.decoded = self.samples;
        self.next_interim_at = self.samples + INTERIM_SAMPLES;
        self.decoded
    }

    /// The next interim comes so long after the last decode, if that is more than the usual interval.
    pub(super) fn space(&mut self, interval: Duration) {
        let samples = (interval.as_secs_f32() * SAMPLE_RATE_HZ as f32) as usize;
        self.next_interim_at = self.decoded + samples.max(INTERIM_SAMPLES);
    }

    /// Whether a decode of the first `length` samples covers all sound, so that decoding the rest as well would give
    /// the same text.
    pub(super) fn is_covered_by(&self, length: usize) -> bool {
        length > 0 && length >= (self.end_of_sound + PAUSE_SAMPLES / 2).min(self.samples)
    }

    /// Where the silence at the end begins; the whole length if there is none, or if the background is too loud to
    /// distinguish it.
    fn find_end_of_sound(&self) -> usize {
        let mut sorted = self.levels.clone();
        if sorted.is_empty() {
            return self.samples;
        }
        let tenth = sorted.len() / 10;
        let (_, background, _) = sorted.select_nth_unstable_by(tenth, f32::total_cmp);
        let background = *background;
        let voice = self.levels.iter().copied().fold(pcm::SILENCE_DBFS, f32::max);
        let quiet = (background + ABOVE_BACKGROUND_DB).min(voice - BELOW_VOICE_DB);
        let last_sound = self.levels.iter().rposition(|level| *level > quiet);
        match last_sound {
            // Samples after the last whole frame belong to that frame.
            Some(frame) if frame + 1 == self.levels.len() => self.samples,
            Some(frame) => (frame + 1) * FRAME_SAMPLES,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: usize = SAMPLE_RATE_HZ as usize;

    /// Half a second of background, then alternately speech and silence, with these lengths in milliseconds.
    fn utterance(parts_ms: &[usize]) -> Vec<i16> {
        let mut pcm = vec![30; SECOND / 2];
        for (part, ms) in parts_ms.iter().enumerate() {
            pcm.extend(vec![if part % 2 == 0 { 3000 } else { 30 }; ms * MILLISECOND]);
        }
        pcm
    }

    /// The decodes, with their lengths in milliseconds, of an utterance that grows by 20 ms at a time.
    fn decodes(pcm: &[i16]) -> (Vec<(Reason, usize)>, PartialScheduler) {
        let mut scheduler = PartialScheduler::default();
        let mut decodes = Vec::new();
        for length in (0..=pcm.len()).step_by(20 * MILLISECOND) {
            scheduler.grown_to(&pcm[..length]);
            if let Some(reason) = scheduler.due() {
                decodes.push((reason, scheduler.start_decoding() / MILLISECOND));
            }
        }
        (decodes, scheduler)
    }

    #[test]
    fn while_there_is_sound_interims_come_at_a_regular_interval() {
        let (decodes, _) = decodes(&utterance(&[1500]));

        assert_eq!(decodes, [(Reason::Grown, 800), (Reason::Grown, 1280), (Reason::Grown, 1760)]);
    }

    #[test]
    fn a_pause_is_decoded_once_and_its_text_serves_as_the_final() {
        let (decodes, scheduler) = decodes(&utterance(&[800, 600]));

        let (reason, at) = decodes[decodes.len() - 1];
        assert_eq!(reason, Reason::Paused);
        assert!((1500..1560).contains(&at), "{decodes:?}");
        assert_eq!(decodes.len(), 3, "{decodes:?}");
        assert!(scheduler.is_covered_by(at * MILLISECOND));
        assert!(!scheduler.is_covered_by(1280 * MILLISECOND));
    }

    #[test]
    fn sound_after_a_pause_is_decoded_again() {
        let (decodes, scheduler) = decodes(&utterance(&[800, 300, 800, 300]));

        let pauses = decodes.iter().filter(|(reason, _)| *reason == Reason::Paused).count();
        assert_eq!(pauses, 2, "{decodes:?}");
        assert!(!scheduler.is_covered_by(1600 * MILLISECOND));
    }

    #[test]
    fn in_loud_noise_no_pause_is_detected() {
        let mut pcm = utterance(&[800, 800]);
        pcm.iter_mut().for_each(|sample| *sample = (*sample).max(1500));

        let (decodes, scheduler) = decodes(&pcm);

        assert!(decodes.iter().all(|(reason, _)| *reason == Reason::Grown), "{decodes:?}");
        assert!(!scheduler.is_covered_by(pcm.len() - 1));
    }

    #[test]
    fn where_many_utterances_are_open_the_interims_of_each_are_rarer() {
        let budget = InterimBudget::new(2);
        let decode = Duration::from_millis(80);
        let share = budget.open();
        let alone = share.interval(decode);

        let others: Vec<_> = (0..7).map(|_| budget.open()).collect();
        let among_eight = share.interval(decode);
        drop(others);

        assert_eq!([alone, among_eight].map(|interval| interval.as_millis()), [500, 4000]);
        assert_eq!(share.interval(decode), alone);
    }

    #[test]
    fn a_longer_interval_delays_the_next_interim_but_no_pause() {
        let mut scheduler = PartialScheduler::default();
        let pcm = utterance(&[1500, 600]);
        let mut decodes = Vec::new();
        for length in (0..=pcm.len()).step_by(20 * MILLISECOND) {
            scheduler.grown_to(&pcm[..length]);
            if let Some(reason) = scheduler.due() {
                decodes.push((reason, scheduler.start_decoding() / MILLISECOND));
                scheduler.space(Duration::from_secs(2));
            }
        }

        assert_eq!(decodes[0], (Reason::Grown, 800));
        assert_eq!(decodes[1].0, Reason::Paused);
        assert_eq!(decodes.len(), 2, "{decodes:?}");
    }

    #[test]
    fn an_empty_utterance_is_not_decoded() {
        let scheduler = PartialScheduler::default();

        assert_eq!(scheduler.due(), None);
        assert!(!scheduler.is_covered_by(0));
    }
}
