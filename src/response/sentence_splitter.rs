//! Splits the text of a response, as it streams in, into pieces for speech synthesis.
//!
//! A piece is a sentence. The first may be a clause, so that speech starts early.

/// A first clause shorter than this is synthesized together with what follows.
const FIRST_CLAUSE_CHARS: usize = 8;

/// A longer sentence is split at its last clause or word: synthesis takes time in proportion to the length,
/// and a text without a full stop must be spoken, too.
const MAX_CHARS: usize = 240;

/// Words before a full stop that does not end a sentence.
const ABBREVIATIONS: &[&str] =
    &["mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "no", "approx", "a.m", "p.m"];

/// Splits one text.
#[derive(Debug, Default)]
pub struct SentenceSplitter {
    /// What is not yet part of a whole piece.
    rest: String,
    /// Whether a piece was produced already.
    begun: bool,
}

impl SentenceSplitter {
    /// Takes more of the text; returns the pieces that are complete now.
    pub fn push(&mut self, delta: &str) -> Vec<String> {
        self.rest.push_str(delta);
        let mut pieces = Vec::new();
        while let Some(end) = self.next_end() {
            let tail = self.rest.split_off(end);
            let piece = std::mem::replace(&mut self.rest, tail);
            self.keep(&piece, &mut pieces);
        }
        pieces
    }

    /// The text is complete: returns what is left.
    pub fn finish(&mut self) -> Option<String> {
        let mut pieces = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.keep(&rest, &mut pieces);
        pieces.pop()
    }

    fn keep(&mut self, piece: &str, pieces: &mut Vec<String>) {
        let piece = piece.trim();
        if piece.chars().any(char::is_alphanumeric) {
            self.begun = true;
            pieces.push(piece.to_owned());
        }
    }

    /// The byte where the next whole piece ends.
    fn next_end(&self) -> Option<usize> {
        let mut chars = self.rest.char_indices().peekable();
        let mut last_break = None;
        let mut count = 0;
        while let Some((at, c)) = chars.next() {
            count += 1;
            let after = at + c.len_utf8();
            let followed_by_space = chars.peek().is_some_and(|(_, next)| next.is_whitespace());
            let ends = match c {
                '\n' | '。' | '！' | '？' => true,
                '.' => followed_by_space && !ends_in_abbreviation(&self.rest[..at]),
                '!' | '?' | '…' => followed_by_space,
                _ => false,
            };
            if ends {
                return Some(after);
            }
            let clause = matches!(c, ',' | ';' | ':' | '–' | '—') && followed_by_space;
            if clause && !self.begun && count >= FIRST_CLAUSE_CHARS {
                return Some(after);
            }
            if clause || c.is_whitespace() {
                last_break = Some(after);
            }
            if count >= MAX_CHARS {
                return Some(last_break.unwrap_or(after));
            }
        }
        None
    }
}

/// Whether the text before a full stop ends in an abbreviation, an initial or a number of a list.
fn ends_in_abbreviation(before: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let initial = word.chars().count() == 1 && word.chars().all(|c| c.is_ascii_uppercase() && c != 'I');
    let list_number =
        !word.is_empty() && before.len() == word.len() && word.chars().all(|c| c.is_ascii_digit());
    initial || list_number || ABBREVIATIONS.contains(&word.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let mut sentences = SentenceSplitter::default();
        let mut pieces = sentences.push(text);
        pieces.extend(sentences.finish());
        pieces
    }

    #[test]
    fn an_answer_is_cut_into_its_sentences() {
        assert_eq!(
            cut("It is five. Shall I wake you at six? Good night!"),
            ["It is five.", "Shall I wake you at six?", "Good night!"]
        );
    }

    #[test]
    fn only_the_first_piece_may_be_a_clause() {
        assert_eq!(
            cut("You said: one, two, three. Four, five."),
            ["You said:", "one, two, three.", "Four, five."]
        );
        assert_eq!(cut("Yes, it is."), ["Yes, it is."]);
    }

    #[test]
    fn a_full_stop_inside_a_number_or_after_an_abbreviation_ends_nothing() {
        assert_eq!(cut("Dr. Smith pays 3.50 to J. Doe. Fine."), ["Dr. Smith pays 3.50 to J. Doe.", "Fine."]);
        assert_eq!(cut("1. Eggs"), ["1. Eggs"]);
    }

    #[test]
    fn a_text_without_an_end_is_cut_between_words() {
        let pieces = cut(&"word ".repeat(200));
        assert!(pieces.len() > 3);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_CHARS && piece.ends_with("word")), "{pieces:?}");
    }

    #[test]
    fn signs_alone_are_not_spoken() {
        assert_eq!(cut("… — !"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_letter_is_lost_or_doubled_however_the_text_arrives(
            deltas in proptest::collection::vec("[a-zA-Z0-9 .,!?:\n…é。]{0,30}", 0..20)
        ) {
            let mut sentences = SentenceSplitter::default();
            let mut pieces = Vec::new();
            for delta in &deltas {
                pieces.extend(sentences.push(delta));
            }
            pieces.extend(sentences.finish());

            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            prop_assert_eq!(letters(&pieces.concat()), letters(&deltas.concat()));
        }
    }
}
