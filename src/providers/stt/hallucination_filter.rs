//! Removes text from transcripts that nobody said.
//!
//! Speech models transcribe silence, hum and music as "Thank you.", as "♪", or as a phrase that repeats without
//! end. Voice activity detection keeps most such audio away from the model; this removes the rest.

use std::ops::RangeInclusive;

use crate::audio::{
    SAMPLE_RATE_HZ,
    pcm::{self, FRAME_SAMPLES},
};

/// No word is shorter than 300 ms.
const MIN_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 3 / 10;
/// A peak level below which nothing is speech.
const INAUDIBLE_DBFS: f32 = -62.0;
/// A peak level below which there can be speech, but common hallucinations are more probable.
const FAINT_DBFS: f32 = -48.0;
/// More words per second of sound than people usually speak: where a phrase comes twice among them, the decoder repeated it.
const MAX_WORDS_PER_SECOND: f32 = 3.5;
/// A repetition that is not counted as a loop has at least so many words.
const MIN_PHRASE: usize = 4;
/// What the model makes of noise, such as a door, and of the end of a film. Nobody says this alone.
const OF_NOISE: [&str; 3] = ["you", "thanks for watching", "thank you for watching"];
/// What the model often makes of near silence.
const HALLUCINATIONS: [&str; 9] =
    ["thank you", "thanks", "bye", "okay", "so", "yeah", "oh", "the", "i'm sorry"];

/// The part of `text` that can have been said in `pcm`; often nothing.
pub(super) fn without_hallucinations(text: &str, pcm: &[i16]) -> String {
    if pcm.len() < MIN_SAMPLES {
        return String::new();
    }
    let levels: Vec<f32> = pcm.chunks(FRAME_SAMPLES).map(pcm::level_dbfs).collect();
    let loudest = levels.iter().copied().fold(pcm::SILENCE_DBFS, f32::max);
    let text = text.replace(['♪', '♫'], " ");
    let words = text.split_whitespace().collect();
    let text = without_loop(&without_repetitions(words, seconds_of_sound(&levels, loudest)));
    let words = text.to_lowercase();
    let words = words.trim_matches(|mark: char| !mark.is_alphanumeric());
    let hallucinated = words.is_empty()
        || OF_NOISE.contains(&words)
        || loudest < INAUDIBLE_DBFS
        || (loudest < FAINT_DBFS && HALLUCINATIONS.contains(&words));
    if hallucinated { String::new() } else { text }
}

/// The words of a text that may be English, borrowed words too. A model for English makes broken or other letters of
/// singing.
pub(super) fn english(text: &str) -> String {
    const LATIN_EXTENDED_A: char = '\u{17F}';
    const PUNCTUATION: RangeInclusive<char> = '\u{2010}'..='\u{2044}';
    let is_english = |c: char| c <= LATIN_EXTENDED_A || PUNCTUATION.contains(&c) || c == '€';
    let words: Vec<&str> = text.split_whitespace().filter(|word| word.chars().all(is_english)).collect();
    words.join(" ")
}

/// How long it was about as loud as the loudest, in seconds.
fn seconds_of_sound(levels: &[f32], loudest: f32) -> f32 {
    const BELOW_LOUDEST_DB: f32 = 35.0;
    let frames = levels.iter().filter(|level| **level > loudest - BELOW_LOUDEST_DB).count();
    (frames * FRAME_SAMPLES) as f32 / SAMPLE_RATE_HZ as f32
}

/// The words without a phrase that the decoder repeated: one that comes twice in a row, where there are more words than are usually
/// said in that time. Who repeats a phrase takes the time for it.
fn without_repetitions(mut words: Vec<&str>, seconds: f32) -> Vec<&str> {
    let most = (seconds * MAX_WORDS_PER_SECOND).round() as usize;
    while words.len() > most {
        let plain: Vec<String> = words.iter().map(|word| plain(word)).collect();
        let repeated = (MIN_PHRASE..=words.len() / 2).find_map(|length| {
            let is_twice = |start: &usize| plain[*start..][..length] == plain[start + length..][..length];
            Some((length, (0..=words.len() - 2 * length).find(is_twice)?))
        });
        let Some((length, start)) = repeated else { break };
        // The last has the punctuation that follows.
        words.drain(start..start + length);
    }
    words
}

/// The words before a phrase that repeats, which a decoder in a loop produces. People do say "no, no, no": a word
/// may come five times, a longer phrase three times.
fn without_loop(words: &[&str]) -> String {
    let plain: Vec<String> = words.iter().map(|word| plain(word)).collect();
    for start in 0..plain.len() {
        for length in 1..=(plain.len() - start) / 4 {
            let phrase = &plain[start..start + length];
            let times = plain[start..].chunks(length).take_while(|next| *next == phrase).count();
            let most = if length == 1 { 5 } else { 3 };
            if times > most {
                return words[..start].join(" ");
            }
        }
    }
    words.join(" ")
}

/// A word in small letters, without punctuation around it.
fn plain(word: &str) -> String {
    word.to_lowercase().trim_matches(|mark: char| !mark.is_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_in_a_loop_is_cut_where_it_begins() {
        let in_a_loop = "So the first is the first is the first is the first is the first";

        assert_eq!(without_loop(&in_a_loop.split(' ').collect::<Vec<_>>()), "So");
        assert_eq!(without_loop(&["no,", "no,", "no,", "no!"]), "no, no, no, no!");
        assert_eq!(without_loop(&["ha"; 6]), "");
    }

    #[test]
    fn a_phrase_that_the_decoder_repeated_is_said_once_and_one_that_was_repeated_by_the_speaker_twice() {
        let times = |seconds: usize| {
            let worst = "It was the worst of times.";
            let text = format!("It was the best of times. {worst} {worst} {worst}");
            without_hallucinations(&text, &vec![9_000; seconds * SAMPLE_RATE_HZ as usize])
        };

        assert_eq!(times(4), "It was the best of times. It was the worst of times.");
        assert_eq!(times(9).matches("worst").count(), 3);
        let fast = "one two three four five six seven eight nine ten eleven twelve";
        assert_eq!(without_hallucinations(fast, &[9_000; 16_000]), fast, "nothing is repeated");
    }

    #[test]
    fn silence_around_a_phrase_is_no_time_in_which_it_could_be_said() {
        let mut pcm = vec![10; 64_000];
        pcm[16_000..48_000].fill(9_000);

        let text = without_hallucinations("Go to the shop. Go to the shop. Go to the shop.", &pcm);

        assert_eq!(text, "Go to the shop.", "twelve words in two seconds are too many");
    }

    #[test]
    fn what_is_made_of_noise_is_nothing_however_loud() {
        let loud = [9_000; 16_000];

        assert_eq!(without_hallucinations("You", &loud), "");
        assert_eq!(without_hallucinations("Thanks for watching!", &loud), "");
        assert_eq!(without_hallucinations("Thank you.", &loud), "Thank you.");
    }

    #[test]
    fn broken_and_other_letters_are_no_english() {
        assert_eq!(english("An an\u{FFFD}them, さん ♪"), "An");
        assert_eq!(english("A café – “naïve”… €5"), "A café – “naïve”… €5");
    }

    #[test]
    fn music_marks_are_removed_and_common_hallucinations_need_sound() {
        let loud = [9_000; 16_000];
        let faint = [90; 16_000];

        assert_eq!(without_hallucinations("♪♪♪", &loud), "");
        assert_eq!(without_hallucinations("Thank you.", &loud), "Thank you.");
        assert_eq!(without_hallucinations("Thank you.", &faint), "");
        assert_eq!(without_hallucinations("Where is the station?", &faint), "Where is the station?");
        assert_eq!(without_hallucinations("Where is the station?", &[5; 16_000]), "");
    }
}
