//! The text of a provider as it is passed on: by whole words where another provider may have to continue it, and without
//! words at its beginning that were said already.

use crate::providers::words;

/// A longer word is passed on in parts.
const MAX_WORD_BYTES: usize = 64;

pub(super) struct Continuation {
    /// The words that were said before, if they may still be repeated.
    before: Option<Before>,
    /// Words are passed on when they are complete.
    by_words: bool,
    /// The word that is not complete yet.
    word: String,
}

struct Before {
    words: Vec<String>,
    ends_in_space: bool,
    /// Complete words that may be a repetition.
    held: String,
}

impl Continuation {
    /// After this text; an empty one begins the answer.
    pub(super) fn after(said: &str, by_words: bool) -> Self {
        let before = (!said.is_empty()).then(|| Before {
            words: words::all(said).map(|word| word.normalized()).collect(),
            ends_in_space: said.ends_with(char::is_whitespace),
            held: String::new(),
        });
        Self { before, by_words, word: String::new() }
    }

    /// The text that can be passed on.
    pub(super) fn push(&mut self, delta: &str) -> String {
        self.word.push_str(delta);
        let mut end = words::last_boundary(&self.word);
        if self.word.len() - end > MAX_WORD_BYTES {
            end = self.word.len();
        }
        let rest = self.word.split_off(end);
        let whole = std::mem::replace(&mut self.word, rest);
        let mut text = self.pass(whole, false);
        if !self.by_words && self.before.is_none() {
            text.push_str(&std::mem::take(&mut self.word));
        }
        text
    }

    /// The rest of the text.
    pub(super) fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.word);
        self.pass(rest, true)
    }

    fn pass(&mut self, text: String, is_end: bool) -> String {
        let Some(before) = &mut self.before else { return text };
        before.held.push_str(&text);
        let repeated = match before.repeated() {
            Repeated::Perhaps(_) if !is_end => return String::new(),
            Repeated::Perhaps(bytes) | Repeated::Exactly(bytes) => bytes,
        };
        let mut new = before.held.split_off(repeated);
        if before.ends_in_space {
            new = new.trim_start().to_owned();
        }
        self.before = None;
        new
    }
}

/// How many bytes of the held text repeat the end of what was said.
enum Repeated {
    /// What comes next may make it more.
    Perhaps(usize),
    Exactly(usize),
}

impl Before {
    fn repeated(&self) -> Repeated {
        let held: Vec<(String, usize)> =
            words::all(&self.held).map(|word| (word.normalized(), word.end)).collect();
        let said = &self.words;
        let begins_with_held = |rest: &[String]| {
            rest.len() > held.len() && rest.iter().zip(&held).all(|(said, (word, _))| said == word)
        };
        let may_grow = (0..said.len()).any(|at| begins_with_held(&said[at..]));
        let longest = (1..=held.len().min(said.len())).rev().find(|count| {
            let end = &said[said.len() - count..];
            end.iter().zip(&held).all(|(said, (word, _))| said == word)
        });
        let bytes = longest.map_or(0, |count| held[count - 1].1);
        if may_grow { Repeated::Perhaps(bytes) } else { Repeated::Exactly(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is passed on of a text that comes in pieces of so many characters.
    fn after(said: &str, text: &str, piece: usize, by_words: bool) -> String {
        let mut continuation = Continuation::after(said, by_words);
        let chars: Vec<char> = text.chars().collect();
        let mut passed: String =
            chars.chunks(piece).map(|piece| continuation.push(&piece.iter().collect::<String>())).collect();
        passed.push_str(&continuation.finish());
        passed
    }

    #[test]
    fn words_that_were_said_are_not_said_again() {
        for (said, text, new) in [
            ("", "It is five.", "It is five."),
            ("It is ", "five o'clock.", "five o'clock."),
            ("It is ", "It is five o'clock.", "five o'clock."),
            ("It is ", " is five.", "five."),
            ("Well. It is five, ", "it is five, and a half.", "and a half."),
            ("It is five. ", "It is five.", ""),
            ("It is five. ", "It was four.", "It was four."),
            ("今日は", "今日は晴れです。", "晴れです。"),
            ("One two three ", "two three four", "four"),
        ] {
            for piece in [1, 3, 100] {
                for by_words in [true, false] {
                    assert_eq!(after(said, text, piece, by_words), new, "{said:?} {text:?} {piece}");
                }
            }
        }
    }

    #[test]
    fn text_is_passed_on_by_whole_words() {
        let mut continuation = Continuation::after("", true);

        let passed: Vec<String> =
            ["It", " is fi", "ve.", " Good"].map(|delta| continuation.push(delta)).into();

        assert_eq!(passed, ["", "It is ", "", "five. "]);
        assert_eq!(continuation.finish(), "Good");
        assert_eq!(continuation.push(&"a".repeat(100)).len(), 100, "a word without end is not held for ever");
    }

    #[test]
    fn text_that_nobody_could_continue_is_passed_on_as_it_comes() {
        let mut continuation = Continuation::after("It is ", false);

        let passed: Vec<String> =
            ["It", " is", " fi", "ve", "."].map(|delta| continuation.push(delta)).into();

        assert_eq!(passed.concat(), "five.");
        assert_eq!(passed[4], ".");
    }

    proptest! {
        #[test]
        fn however_much_is_repeated_each_word_is_said_once(
            count in 1..30_usize,
            said in 0..30_usize,
            repeats in 0..30_usize,
            piece in 1..20_usize,
            by_words: bool,
        ) {
            let words: Vec<String> = (0..count).map(|n| format!("word{n}, ")).collect();
            let said = said.min(count);
            let from = said - repeats.min(said);

            let passed = after(&words[..said].concat(), &words[from..].concat(), piece, by_words);

            prop_assert_eq!(words[..said].concat() + &passed, words.concat());
        }
    }
}
