//! Token numbers to text.

use std::path::Path;

use crate::providers::ProviderError;

pub(super) struct Vocabulary(Vec<Vec<u8>>);

impl Vocabulary {
    pub(super) fn load(path: &Path) -> Result<Self, ProviderError> {
        let bytes = std::fs::read(path)
            .map_err(|error| ProviderError::Unavailable(format!("tokens {}: {error}", path.display())))?;
        Self::parse(&bytes)
            .ok_or_else(|| ProviderError::Unavailable(format!("tokens {}: not a tokenizer", path.display())))
    }

    /// Each token is its length and its bytes. A length below 128 is one byte `n`; a longer one is two bytes `low`,
    /// `high`, for `high * 128 + low - 128`.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut pieces = Vec::new();
        while let Some((&low, rest)) = bytes.split_first() {
            let (length, rest) = match low {
                0..128 => (usize::from(low), rest),
                128.. => {
                    let (&high, rest) = rest.split_first()?;
                    (usize::from(high) * 128 + usize::from(low) - 128, rest)
                }
            };
            let (piece, rest) = rest.split_at_checked(length)?;
            pieces.push(piece.to_vec());
            bytes = rest;
        }
        (!pieces.is_empty()).then_some(Self(pieces))
    }

    pub(super) fn text(&self, tokens: &[i64]) -> String {
        let mut bytes = Vec::new();
        for piece in tokens.iter().filter_map(|&token| self.0.get(usize::try_from(token).ok()?)) {
            match byte_of(piece) {
                Some(byte) => bytes.push(byte),
                // Control tokens such as `<s>` and `<<ST_12>>` are not text.
                None if piece.first() == Some(&b'<') && piece.last() == Some(&b'>') => {}
                None => bytes.extend_from_slice(piece),
            }
        }
        String::from_utf8_lossy(&bytes).replace('▁', " ").trim().to_owned()
    }
}

/// The byte of a fallback token such as `<0x0A>`.
fn byte_of(piece: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(piece).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_pieces_bytes_and_controls() {
        let mut file = vec![3];
        file.extend(b"<s>");
        file.extend([5]);
        file.extend("▁hi".as_bytes());
        file.extend([6]);
        file.extend(b"<0x21>");
        file.extend([130, 1]);
        file.extend([b'x'; 130]);
        let vocabulary = Vocabulary::parse(&file).unwrap();

        assert_eq!(vocabulary.text(&[0, 1, 2, 99, -1]), "hi!");
        assert_eq!(vocabulary.text(&[3]).len(), 130);
        assert!(Vocabulary::parse(&[9, b'x']).is_none());
        assert!(Vocabulary::parse(&[]).is_none());
    }
}
