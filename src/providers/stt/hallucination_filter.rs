//! What not to believe of a transcript. Pure.
//!
//! A speech model answers silence, hum and music too: with a "Thank you.", with "♪", or with a phrase
//! in a loop. Voice activity detection keeps most of that away from it; this keeps the rest away from
//! the conversation.

use crate::audio::{
    SAMPLE_RATE_HZ,
    pcm::{self, FRAME_SAMPLES},
};

/// No word is shorter than this.
const MIN_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 3 / 10;
/// Nothing that a person would call speech is this quiet at its loudest.
const INAUDIBLE_DBFS: f32 = -62.0;
/// Sound this quiet carries a word, but also draws the model's favourite inventions.
const FAINT_DBFS: f32 = -48.0;
/// What it likes to make of near silence.
const INVENTIONS: [&str; 12] = [
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

/// `text` where the sound can have carried it, else what is left of it, often nothing.
pub(super) fn believable(text: &str, pcm: &[i16]) -> String {
    if pcm.len() < MIN_SAMPLES {
        return String::new();
    }
    let text = without_loop(&text.replace(['♪', '♫'], " ").split_whitespace().collect::<Vec<_>>());
    let words = text.to_lowercase();
    let words = words.trim_matches(|mark: char| !mark.is_alphanumeric());
    let loudest = pcm.chunks(FRAME_SAMPLES).map(pcm::level_dbfs).fold(pcm::SILENCE_DBFS, f32::max);
    let invented =
        words.is_empty() || loudest < INAUDIBLE_DBFS || (loudest < FAINT_DBFS && INVENTIONS.contains(&words));
    if invented { String::new() } else { text }
}

/// The words up to where a phrase begins to repeat itself over and over, as a decoder in a loop
/// does. People do say "no, no, no": a single word may come five times, a phrase three.
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
    fn music_marks_are_no_words_and_inventions_need_sound() {
        let loud = [9_000; 16_000];
        let faint = [90; 16_000];

        assert_eq!(believable("♪♪♪", &loud), "");
        assert_eq!(believable("Thank you.", &loud), "Thank you.");
        assert_eq!(believable("Thank you.", &faint), "");
        assert_eq!(believable("Where is the station?", &faint), "Where is the station?");
        assert_eq!(believable("Where is the station?", &[5; 16_000]), "");
    }
}
