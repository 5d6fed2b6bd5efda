//! Removes text from transcripts that nobody said.
//!
//! Speech models transcribe silence, hum and music as "Thank you.", as "♪", or as a phrase that repeats without
//! end. Voice activity detection keeps most such audio away from the model; this removes the rest.

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
/// What the model often makes of near silence.
const HALLUCINATIONS: [&str; 12] = [
    "you",
    "thank you",
    "thanks",
    "thanks for watching",
    "thank you for watching",
    "bye",
    "okay",
    "so",
    "yeah",
    "oh",
    "the",
    "i'm sorry",
];

/// The part of `text` that can have been said in `pcm`; often nothing.
pub(super) fn without_hallucinations(text: &str, pcm: &[i16]) -> String {
    if pcm.len() < MIN_SAMPLES {
        return String::new();
    }
    let text = without_loop(&text.replace(['♪', '♫'], " ").split_whitespace().collect::<Vec<_>>());
    let words = text.to_lowercase();
    let words = words.trim_matches(|mark: char| !mark.is_alphanumeric());
    let loudest = pcm.chunks(FRAME_SAMPLES).map(pcm::level_dbfs).fold(pcm::SILENCE_DBFS, f32::max);
    let hallucinated = words.is_empty()
        || loudest < INAUDIBLE_DBFS
        || (loudest < FAINT_DBFS && HALLUCINATIONS.contains(&words));
    if hallucinated { String::new() } else { text }
}

/// The words before a phrase that repeats, which a decoder in a loop produces. People do say "no, no, no": a word
/// may come five times, a longer phrase three times.
fn without_loop(words: &[&str]) -> String {
    let plain: Vec<String> = words
        .iter()
        .map(|word| word.to_lowercase().trim_matches(|mark: char| !mark.is_alphanumeric()).to_owned())
        .collect();
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
