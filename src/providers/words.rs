//! Words of a text, also in scripts without spaces: there each character counts as one.

/// The first of the East Asian scripts that are written without spaces.
const FIRST_IDEOGRAPHIC: char = '\u{2E80}';

/// One of these is spoken as long as so many letters.
const LETTERS_OF_IDEOGRAPH: f32 = 3.0;

/// A word and the signs after it.
pub(super) struct Word<'a> {
    text: &'a str,
    /// Where it ends in the text, signs and spaces included.
    pub(super) end: usize,
}

impl Word<'_> {
    /// Without signs and case.
    pub(super) fn normalized(&self) -> String {
        self.text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    }
}

/// The words of a text, in order.
pub(super) fn all(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut begin = 0;
    let ends = boundaries(text).chain([text.len()]);
    ends.filter_map(move |end| {
        let word = Word { text: &text[begin..end], end };
        let is_word = word.text.chars().any(char::is_alphanumeric);
        begin = end;
        is_word.then_some(word)
    })
}

/// The last place at which a word has ended.
pub(super) fn last_boundary(text: &str) -> usize {
    boundaries(text).last().unwrap_or(0)
}

/// The length of a text when it is spoken, in letters of an alphabet.
pub(super) fn letters(text: &str) -> f32 {
    text.chars().map(|c| if c >= FIRST_IDEOGRAPHIC { LETTERS_OF_IDEOGRAPH } else { 1.0 }).sum()
}

/// Where words end: after spaces and after ideographic characters.
fn boundaries(text: &str) -> impl Iterator<Item = usize> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, c) = chars.next()?;
            let end = at + c.len_utf8();
            let next_is_space = chars.peek().is_some_and(|(_, next)| next.is_whitespace());
            if (c.is_whitespace() || c >= FIRST_IDEOGRAPHIC) && !next_is_space {
                return Some(end);
            }
        }
    })
}
