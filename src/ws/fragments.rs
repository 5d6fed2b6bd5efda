//! A WebSocket message that comes in pieces (RFC 6455 §5.4), put together within the limit.

use actix_http::ws::Item;
use bytes::{Bytes, BytesMut};

use crate::protocol::MAX_TEXT_BYTES;

/// The pieces so far.
#[derive(Debug, Default)]
pub struct Fragments {
    /// Whether it is text; none while no message is open.
    open: Option<(bool, BytesMut)>,
}

/// A message whose last piece came.
#[derive(Debug, PartialEq, Eq)]
pub enum Whole {
    /// Text, if it is UTF-8.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
    /// More than is taken; the rest of it is passed over.
    TooLarge,
}

impl Fragments {
    /// Takes a piece.
    pub fn take(&mut self, item: Item) -> Option<Whole> {
        let (piece, last) = match item {
            Item::FirstText(piece) => {
                self.open = Some((true, BytesMut::new()));
                (piece, false)
            }
            Item::FirstBinary(piece) => {
                self.open = Some((false, BytesMut::new()));
                (piece, false)
            }
            Item::Continue(piece) => (piece, false),
            Item::Last(piece) => (piece, true),
        };
        let (_, message) = self.open.as_mut()?;
        message.extend_from_slice(&piece);
        if message.len() > MAX_TEXT_BYTES {
            self.open = None;
            return Some(Whole::TooLarge);
        }
        if !last {
            return None;
        }
        let (is_text, message) = self.open.take()?;
        let message = message.freeze();
        Some(if is_text { Whole::Text(message) } else { Whole::Binary(message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_a_message() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.take(Item::FirstText("ab".into())), None);
        assert_eq!(fragments.take(Item::Continue("c".into())), None);
        assert_eq!(fragments.take(Item::Last("d".into())), Some(Whole::Text("abcd".into())));
        assert_eq!(fragments.take(Item::Last("stray".into())), None);
        fragments.take(Item::FirstBinary("1".into()));
        assert_eq!(fragments.take(Item::Last("2".into())), Some(Whole::Binary("12".into())));
    }

    #[test]
    fn pieces_without_end_fill_no_memory() {
        let mut fragments = Fragments::default();
        fragments.take(Item::FirstText(vec![b'x'; MAX_TEXT_BYTES].into()));
        assert_eq!(fragments.take(Item::Continue("x".into())), Some(Whole::TooLarge));
        assert_eq!(fragments.take(Item::Continue("x".into())), None);
        assert_eq!(fragments.take(Item::Last("x".into())), None);
    }
}
