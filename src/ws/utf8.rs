//! Checks UTF-8 that arrives in pieces. Pure.

use std::str;

/// Text so far: valid, except that its last character may be incomplete.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The bytes of an incomplete character.
    begun: [u8; 4],
    length: usize,
}

/// The text is not UTF-8, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8 {
    /// Takes the next bytes. Fails at the first byte that no valid text has there.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), NotUtf8> {
        while self.length > 0
            && let Some((first, rest)) = bytes.split_first()
        {
            self.begun[self.length] = *first;
            self.length += 1;
            bytes = rest;
            if check(&self.begun[..self.length])? == 0 {
                self.length = 0;
            }
        }
        let incomplete = check(bytes)?;
        if incomplete > 0 {
            self.begun[..incomplete].copy_from_slice(&bytes[bytes.len() - incomplete..]);
            self.length = incomplete;
        }
        Ok(())
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.length == 0
    }
}

/// How many bytes at the end are an incomplete character: at most 3.
fn check(bytes: &[u8]) -> Result<usize, NotUtf8> {
    match str::from_utf8(bytes) {
        Ok(_) => Ok(0),
        // No length: the end came too early.
        Err(error) if error.error_len().is_none() => Ok(bytes.len() - error.valid_up_to()),
        Err(_) => Err(NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push_in_pieces(bytes: &[u8], piece: usize) -> Result<bool, NotUtf8> {
        let mut utf8 = Utf8::default();
        bytes.chunks(piece).try_for_each(|piece| utf8.push(piece))?;
        Ok(utf8.is_complete())
    }

    #[test]
    fn a_character_that_cannot_become_valid_fails_before_it_is_complete() {
        for beginning in [&b"\xF4\x90"[..], b"\xED\xA0", b"\xE0\x80", b"\xF5", b"\xC0", b"\x80"] {
            assert_eq!(push_in_pieces(beginning, 1), Err(NotUtf8), "{beginning:?}");
        }
        assert_eq!(push_in_pieces(b"\xF4\x8F", 1), Ok(false));
    }

    proptest! {
        #[test]
        fn text_is_valid_however_it_is_cut(text in any::<String>(), piece in 1..7usize) {
            prop_assert_eq!(push_in_pieces(text.as_bytes(), piece), Ok(true));
        }

        #[test]
        fn bytes_are_text_exactly_if_they_are_in_one_piece(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x92\xA9a".to_vec())],
                0..12,
            ),
            piece in 1..5usize,
        ) {
            prop_assert_eq!(push_in_pieces(&bytes, piece) == Ok(true), str::from_utf8(&bytes).is_ok());
        }
    }
}
