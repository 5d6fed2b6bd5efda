//! How long a pause has to be until it is the end of a turn.
//!
//! ```text
//!   speech ▆▇▅▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁
//!              │   │         │          │
//!              │  sounds     nothing    sounds unfinished, or the words want
//!              │  finished   is known   to go on: at most max_silence
//!           pause: evidence is collected
//! ```
//!
//! Evidence is how the speech sounds (an [`EndOfTurnModel`](crate::providers::turn::EndOfTurnModel)), what its last words are,
//! and how long this person's pauses usually are. Pure: it knows no clock.

use std::time::Duration;

use crate::language::Language;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndOfTurnConfig {
    /// Silence after what is certainly finished.
    pub min_silence: Duration,
    /// Silence where nothing is known.
    pub usual_silence: Duration,
    /// Silence after what is certainly not finished.
    pub max_silence: Duration,
}

impl Default for EndOfTurnConfig {
    fn default() -> Self {
        Self {
            min_silence: Duration::from_millis(200),
            usual_silence: Duration::from_millis(500),
            max_silence: Duration::from_millis(2500),
        }
    }
}

/// The probability from which a turn sounds finished.
const FINISHED: f32 = 0.5;

/// The probability from which it does not matter how long the person's pauses are.
const CERTAIN: f32 = 0.9;

/// How much the newest pause counts in the average of a person's pauses.
const NEWEST_PAUSE_WEIGHT: f32 = 0.3;

/// How much longer than the average a pause has to be.
const LONGER_THAN_USUAL: f32 = 1.3;

/// Collects the evidence about one pause after the other.
#[derive(Clone, Debug)]
pub struct EndOfTurn {
    config: EndOfTurnConfig,
    /// How probable it is, by its sound, that the turn is complete; none until it is known.
    probability: Option<f32>,
    /// The last words want to be continued.
    wants_more: bool,
    /// The average of the pauses after which the person went on.
    inner_pause: Option<Duration>,
}

impl EndOfTurn {
    /// `usual_silence` is clamped to be at least `min_silence`, and `max_silence` to be the longest.
    pub fn new(config: EndOfTurnConfig) -> Self {
        let usual_silence = config.usual_silence.max(config.min_silence);
        let max_silence = config.max_silence.max(usual_silence);
        Self {
            config: EndOfTurnConfig { usual_silence, max_silence, ..config },
            probability: None,
            wants_more: false,
            inner_pause: None,
        }
    }

    /// Speech began or went on: what is known of an earlier pause does not count any more.
    pub fn spoke(&mut self) {
        self.probability = None;
        self.wants_more = false;
    }

    /// The turn went on after a pause of this length.
    pub fn went_on_after(&mut self, pause: Duration) {
        self.spoke();
        let pause = pause.clamp(self.config.min_silence, self.config.max_silence);
        self.inner_pause = Some(match self.inner_pause {
            None => pause,
            Some(average) => average.mul_f32(1.0 - NEWEST_PAUSE_WEIGHT) + pause.mul_f32(NEWEST_PAUSE_WEIGHT),
        });
    }

    /// The model has judged the pause.
    pub fn judged(&mut self, probability: f32) {
        self.probability = Some(probability.clamp(0.0, 1.0));
    }

    /// The words before the pause.
    pub fn transcribed(&mut self, text: &str, language: Option<&Language>) {
        self.wants_more = wants_more(text, language);
    }

    /// Whether the turn is probably over.
    pub fn is_likely(&self) -> bool {
        self.probability.is_some_and(|probability| probability >= FINISHED) && !self.wants_more
    }

    /// How much silence ends the turn, by what is known so far.
    pub fn silence(&self) -> Duration {
        let EndOfTurnConfig { min_silence, usual_silence, max_silence } = self.config;
        let between = |from: Duration, to: Duration, part: f32| from + (to - from).mul_f32(part);
        // Where there is no model, or it fails, silence alone decides.
        let Some(probability) = self.probability else { return usual_silence };
        let by_sound = if probability >= FINISHED {
            // Near certainty counts most: half of the way is covered at 0.9.
            let doubt = ((1.0 - probability) / (1.0 - FINISHED)).sqrt();
            between(min_silence, usual_silence, doubt)
        } else {
            between(usual_silence, max_silence, 1.0 - probability / FINISHED)
        };
        let by_words = match self.wants_more {
            true if probability < FINISHED => max_silence,
            true => between(usual_silence, max_silence, 0.5),
            false => Duration::ZERO,
        };
        let by_person = self
            .inner_pause
            .filter(|_| probability < CERTAIN)
            .map_or(Duration::ZERO, |average| average.mul_f32(LONGER_THAN_USUAL));
        by_sound.max(by_words).max(by_person).min(max_silence)
    }
}

/// Whether a sentence can hardly end with these words.
fn wants_more(text: &str, language: Option<&Language>) -> bool {
    let text = text.trim_end();
    if text.is_empty() {
        return false;
    }
    if text.ends_with([',', '-', '–', '—', ':', ';', '…', '、', '，']) || text.ends_with("..") {
        return true;
    }
    // What STT models put at the end of all that they hear, finished or not.
    let text = text.trim_end_matches(['.', '。']);
    if text.ends_with(['?', '!', '？', '！']) {
        return false;
    }
    let last =
        text.rsplit(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’').next().unwrap_or_default();
    let last = last.to_lowercase();
    continuing_words(language).contains(&last.as_str())
}

/// Words after which something comes: articles, prepositions, conjunctions, possessives and hesitations.
fn continuing_words(language: Option<&Language>) -> &'static [&'static str] {
    match language.map(Language::primary) {
        None | Some("en") => &[
            "a", "about", "an", "and", "are", "as", "at", "because", "between", "but", "by", "can", "could",
            "during", "er", "every", "except", "for", "from", "had", "her", "hmm", "if", "into", "is",
            "like", "my", "of", "or", "our", "since", "so", "than", "that's", "the", "their", "to", "uh",
            "um", "until", "very", "want", "was", "were", "whether", "which", "while", "who", "whose",
            "with", "without", "would", "your",
        ],
        Some("de") => &[
            "aber", "als", "am", "an", "auf", "aus", "bei", "dass", "das", "dem", "den", "der", "die", "ein",
            "eine", "einem", "einen", "einer", "für", "hm", "im", "in", "mein", "meine", "mit", "nach",
            "oder", "ob", "sehr", "seit", "um", "und", "unter", "vom", "von", "weil", "wenn", "zu", "zum",
            "zur", "zwischen", "äh", "ähm", "über",
        ],
        Some("fr") => &[
            "au", "aux", "avec", "chez", "dans", "de", "des", "donc", "du", "et", "euh", "la", "le", "les",
            "leur", "ma", "mais", "mes", "mon", "ou", "par", "parce", "pour", "qu", "que", "sans", "ses",
            "si", "sur", "ta", "très", "un", "une", "vers", "à",
        ],
        Some("es") => &[
            "a", "al", "con", "de", "del", "desde", "e", "el", "en", "entre", "este", "hasta", "la", "las",
            "los", "mi", "mis", "muy", "o", "para", "pero", "por", "porque", "que", "si", "sin", "sobre",
            "su", "sus", "tu", "un", "una", "y",
        ],
        Some(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(end: &EndOfTurn) -> u32 {
        (end.silence().as_secs_f32() * 1000.0).round() as u32
    }

    fn new() -> EndOfTurn {
        EndOfTurn::new(EndOfTurnConfig::default())
    }

    #[test]
    fn without_the_models_judgement_the_usual_silence_ends_a_turn_whatever_else_is_known() {
        let mut end = new();
        assert_eq!(millis(&end), 500);

        end.went_on_after(Duration::from_millis(2000));
        end.transcribed("I would like to go to", None);

        assert_eq!(millis(&end), 500);
    }

    #[test]
    fn what_sounds_finished_ends_soon_and_what_does_not_waits() {
        let by_probability = [1.0, 0.98, 0.9, 0.5, 0.4, 0.25, 0.0].map(|probability| {
            let mut end = new();
            end.judged(probability);
            millis(&end)
        });

        assert_eq!(by_probability, [200, 260, 334, 500, 900, 1500, 2500]);
    }

    #[test]
    fn words_that_want_to_go_on_are_waited_for_although_they_sound_finished() {
        let mut end = new();
        end.judged(0.97);
        end.transcribed("I would like to go to", None);
        assert_eq!(millis(&end), 1500);

        end.judged(0.3);
        assert_eq!(millis(&end), 2500);

        end.spoke();
        end.judged(0.97);
        end.transcribed("I would like to go to Rome.", None);
        assert!(millis(&end) < 300);
    }

    #[test]
    fn an_end_is_likely_where_the_turn_sounds_finished_and_its_words_do_not_want_to_go_on() {
        for (probability, text, expected) in [
            (None, "Yes.", false),
            (Some(0.4), "Yes.", false),
            (Some(0.5), "Yes.", true),
            (Some(0.9), "the", false),
        ] {
            let mut end = new();
            end.transcribed(text, None);
            if let Some(probability) = probability {
                end.judged(probability);
            }
            assert_eq!(end.is_likely(), expected, "{probability:?} {text}");
        }
    }

    #[test]
    fn endings_are_told_apart_by_the_language() {
        for (text, tag, expected) in [
            ("Turn on the", "en", true),
            ("Turn on the.", "en", true),
            ("Well, um...", "en", true),
            ("First,", "en", true),
            ("Where are you from?", "en", false),
            ("Turn on the light.", "en", false),
            ("Was ist das?", "de", false),
            ("Ich gehe in", "de", true),
            ("Je voudrais une", "fr", true),
            ("Quiero un", "es", true),
            ("ねえ", "ja", false),
            ("", "en", false),
        ] {
            assert_eq!(wants_more(text, Language::parse(tag).ok().as_ref()), expected, "{text}");
        }
    }

    #[test]
    fn a_person_with_long_pauses_is_given_more_time_unless_the_end_is_certain() {
        let mut end = new();
        for _ in 0..20 {
            end.went_on_after(Duration::from_millis(1000));
        }
        end.judged(0.7);
        assert_eq!(millis(&end), 1300);
        end.judged(0.95);
        assert!(millis(&end) < 350);

        for _ in 0..20 {
            end.went_on_after(Duration::from_millis(250));
        }
        end.judged(0.7);
        assert!(millis(&end) < 500);
    }

    proptest! {
        #[test]
        fn the_silence_is_within_its_bounds_and_never_shorter_for_what_sounds_less_finished(
            pauses in proptest::collection::vec(0u64..10_000, 0..10),
            text in prop_oneof![Just(""), Just("the"), Just("Yes.")],
            one in 0f32..=1.0,
            other in 0f32..=1.0,
        ) {
            let mut end = new();
            for pause in pauses {
                end.went_on_after(Duration::from_millis(pause));
            }
            end.transcribed(text, None);
            end.judged(one.min(other));
            let less = end.silence();
            end.judged(one.max(other));
            let more = end.silence();

            prop_assert!(more <= less, "{more:?} {less:?}");
            prop_assert!(more >= Duration::from_millis(200) && less <= Duration::from_millis(2500));
        }
    }
}
