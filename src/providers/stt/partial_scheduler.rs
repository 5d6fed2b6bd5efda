//! When an open utterance is worth decoding again, for transcribers that understand whole
//! utterances only. Pure.
//!
//! ```text
//!   sound  ▁▁▁▂▆█▇▆▇▅▇█▆▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁|
//!   decode         i      i      P     └ end: P has heard all of it, and is the final
//! ```
//!
//! Interims (`i`) come at an even pace while there is sound. A pause (`P`) is decoded at once:
//! it is probably the end, and then its text is there before the gate has waited the hang-over out.
//! Should sound follow after all, the text was one more interim.

use crate::audio::{
    SAMPLE_RATE_HZ,
    pcm::{self, FRAME_SAMPLES},
};

const MILLISECOND: usize = SAMPLE_RATE_HZ as usize / 1000;
/// How much audio the first interim wants: the gate's pre-roll and a first syllable or two.
const FIRST_INTERIM_SAMPLES: usize = 800 * MILLISECOND;
/// How much audio there is from one interim to the next.
const INTERIM_SAMPLES: usize = 480 * MILLISECOND;
/// Quiet this long is a pause: longer than what is inside a word, and so short that decoding ends
/// before the hang-over does.
const PAUSE_SAMPLES: usize = 200 * MILLISECOND;
/// A frame is quiet where it is at most so far above the background, and that far below the voice.
/// (With 8 dB a last soft word at 10 dB over noise was lost; with 5 dB none was.)
const ABOVE_BACKGROUND_DB: f32 = 5.0;
const BELOW_VOICE_DB: f32 = 12.0;

/// Why to decode now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The utterance has grown enough.
    Grown,
    /// It paused, and may be over.
    Paused,
}

/// How an open utterance goes on.
#[derive(Debug)]
pub struct PartialScheduler {
    /// Level of each whole frame so far, in dBFS.
    levels: Vec<f32>,
    samples: usize,
    /// Length at which the last decode was asked for.
    decoded: usize,
    next_interim_at: usize,
}

impl Default for PartialScheduler {
    fn default() -> Self {
        Self { levels: Vec::new(), samples: 0, decoded: 0, next_interim_at: FIRST_INTERIM_SAMPLES }
    }
}

impl PartialScheduler {
    /// The utterance has grown to `pcm`.
    pub fn grown_to(&mut self, pcm: &[i16]) {
        let measured = self.levels.len() * FRAME_SAMPLES;
        self.levels.extend(
            pcm[measured..].as_chunks::<FRAME_SAMPLES>().0.iter().map(|frame| pcm::level_dbfs(frame)),
        );
        self.samples = pcm.len();
    }

    /// Whether to decode now.
    pub fn wanted(&self) -> Option<Reason> {
        if self.samples < FIRST_INTERIM_SAMPLES || self.is_heard_by(self.decoded) {
            return None;
        }
        if self.samples - self.end_of_sound() >= PAUSE_SAMPLES {
            return Some(Reason::Paused);
        }
        (self.samples >= self.next_interim_at).then_some(Reason::Grown)
    }

    /// A decode of all there is was asked for. Gives its length.
    pub fn decoding(&mut self) -> usize {
        self.decoded = self.samples;
        self.next_interim_at = self.samples + INTERIM_SAMPLES;
        self.decoded
    }

    /// Whether a decode of the first `length` samples has heard all sound, so that decoding the rest
    /// with it would tell no more.
    pub fn is_heard_by(&self, length: usize) -> bool {
        length > 0 && length >= (self.end_of_sound() + PAUSE_SAMPLES / 2).min(self.samples)
    }

    /// Where the quiet at the end begins; the whole length where there is none, or where the
    /// background is too loud to tell.
    fn end_of_sound(&self) -> usize {
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
            // What does not fill a frame yet belongs to what is before it.
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

    /// Half a second of background, then speech and quiet by turns, so many milliseconds each.
    fn utterance(turns_ms: &[usize]) -> Vec<i16> {
        let mut pcm = vec![30; SECOND / 2];
        for (turn, ms) in turns_ms.iter().enumerate() {
            pcm.extend(vec![if turn % 2 == 0 { 3000 } else { 30 }; ms * MILLISECOND]);
        }
        pcm
    }

    /// What is wanted, and at which length in milliseconds, as the utterance grows by 20 ms, each
    /// decode being asked for as soon as it is wanted.
    fn decodes(pcm: &[i16]) -> (Vec<(Reason, usize)>, PartialScheduler) {
        let mut pace = PartialScheduler::default();
        let mut asked = Vec::new();
        for length in (0..=pcm.len()).step_by(20 * MILLISECOND) {
            pace.grown_to(&pcm[..length]);
            if let Some(reason) = pace.wanted() {
                asked.push((reason, pace.decoding() / MILLISECOND));
            }
        }
        (asked, pace)
    }

    #[test]
    fn while_there_is_sound_interims_come_at_an_even_pace() {
        let (asked, _) = decodes(&utterance(&[1500]));

        assert_eq!(asked, [(Reason::Grown, 800), (Reason::Grown, 1280), (Reason::Grown, 1760)]);
    }

    #[test]
    fn a_pause_is_decoded_once_and_its_text_serves_as_the_final() {
        let (asked, pace) = decodes(&utterance(&[800, 600]));

        let (reason, at) = asked[asked.len() - 1];
        assert_eq!(reason, Reason::Paused);
        assert!((1500..1560).contains(&at), "{asked:?}");
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(pace.is_heard_by(at * MILLISECOND));
        assert!(!pace.is_heard_by(1280 * MILLISECOND));
    }

    #[test]
    fn sound_after_a_pause_is_decoded_again() {
        let (asked, pace) = decodes(&utterance(&[800, 300, 800, 300]));

        let pauses = asked.iter().filter(|(reason, _)| *reason == Reason::Paused).count();
        assert_eq!(pauses, 2, "{asked:?}");
        assert!(!pace.is_heard_by(1600 * MILLISECOND));
    }

    #[test]
    fn before_a_loud_background_there_is_no_telling_a_pause() {
        let mut pcm = utterance(&[800, 800]);
        pcm.iter_mut().for_each(|sample| *sample = (*sample).max(1500));

        let (asked, pace) = decodes(&pcm);

        assert!(asked.iter().all(|(reason, _)| *reason == Reason::Grown), "{asked:?}");
        assert!(!pace.is_heard_by(pcm.len() - 1));
    }

    #[test]
    fn nothing_heard_is_heard_by_no_decode() {
        let pace = PartialScheduler::default();

        assert_eq!(pace.wanted(), None);
        assert!(!pace.is_heard_by(0));
    }
}
