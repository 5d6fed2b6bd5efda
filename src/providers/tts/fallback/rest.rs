//! How much of a sentence was spoken, by the length of its sound.

use parking_lot::Mutex;

use crate::providers::words;

/// Letters per second of English speech, until a provider's own rate is known.
const USUAL_RATE: f32 = 15.0;

/// The share of the newest sentence in the rate.
const NEWEST: f32 = 0.3;

/// Shorter sentences say little about the rate, in letters.
const MIN_LETTERS: f32 = 12.0;

/// A rate beyond these is not one of speech.
const RATES: std::ops::RangeInclusive<f32> = 4.0..=60.0;

/// How fast a provider speaks, in letters per second, signs and spaces included.
#[derive(Debug)]
pub(super) struct SpeechRate(Mutex<Option<f32>>);

impl Default for SpeechRate {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl SpeechRate {
    /// A whole text took so long.
    pub(super) fn learn(&self, text: &str, seconds: f32) {
        let letters = words::letters(text);
        let measured = letters / seconds.max(f32::EPSILON);
        if letters < MIN_LETTERS || !RATES.contains(&measured) {
            return;
        }
        let mut rate = self.0.lock();
        *rate = Some(match *rate {
            Some(rate) => rate + (measured - rate) * NEWEST,
            None => measured,
        });
    }

    /// The words that were not spoken in this time.
    pub(super) fn rest<'a>(&self, text: &'a str, seconds: f32) -> &'a str {
        let spoken = seconds * self.0.lock().unwrap_or(USUAL_RATE);
        let distance = |end: usize| (words::letters(&text[..end]) - spoken).abs();
        let ends = std::iter::once(0).chain(words::all(text).map(|word| word.end));
        let end = ends.min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(0);
        let rest = text[end..].trim_start();
        if rest.chars().any(char::is_alphanumeric) { rest } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

    #[test]
    fn what_is_left_is_estimated_by_words() {
        let rate = SpeechRate::default();
        let total = TEXT.len() as f32 / USUAL_RATE;

        assert_eq!(rate.rest(TEXT, 0.0), TEXT);
        assert_eq!(rate.rest(TEXT, 10.0 / USUAL_RATE), "brown fox jumps over the lazy dog.");
        assert_eq!(
            rate.rest(TEXT, 8.2 / USUAL_RATE),
            "brown fox jumps over the lazy dog.",
            "the nearest word"
        );
        assert_eq!(rate.rest(TEXT, total), "");
        assert_eq!(rate.rest(TEXT, total * 3.0), "");
    }

    #[test]
    fn the_rate_of_a_provider_is_learned_from_its_sentences() {
        let rate = SpeechRate::default();

        rate.learn("Hm.", 0.01);
        rate.learn(TEXT, 0.0);
        rate.learn(TEXT, TEXT.len() as f32 / 30.0);

        assert_eq!(rate.rest(TEXT, 10.0 / 30.0), "brown fox jumps over the lazy dog.");
    }

    #[test]
    fn a_character_of_a_script_without_spaces_is_a_word() {
        let rate = SpeechRate::default();

        assert_eq!(rate.rest("今日は晴れです。", 9.0 / USUAL_RATE), "晴れです。");
    }
}
