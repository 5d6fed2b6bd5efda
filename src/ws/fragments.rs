//! Reassembles fragmented WebSocket messages (RFC 6455 §5.4), within the size limit.

use actix_http::ws::Item;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::protocol::MAX_TEXT_BYTES;

#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// Whether it is text, and its fragments so far; none while no message is open.
    open: Option<(bool, BytesMut)>,
}

/// A message whose last fragment arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whole {
    Text(ByteString),
    Binary(Bytes),
    /// Over the limit; the rest of it is discarded.
    TooLarge,
}

impl Fragments {
    pub(super) fn take(&mut self, item: Item) -> Option<Whole> {
        let (fragment, last) = match item {
            Item::FirstText(fragment) => {
                self.open = Some((true, BytesMut::new()));
                (fragment, false)
            }
            Item::FirstBinary(fragment) => {
                self.open = Some((false, BytesMut::new()));
                (fragment, false)
            }
            Item::Continue(fragment) => (fragment, false),
            Item::Last(fragment) => (fragment, true),
        };
        let (_, message) = self.open.as_mut()?;
        message.extend_from_slice(&fragment);
        if message.len() > MAX_TEXT_BYTES {
            self.open = None;
            return Some(Whole::TooLarge);
        }
        if !last {
            return None;
        }
        let (is_text, message) = self.open.take()?;
        let message = message.freeze();
        if !is_text {
            return Some(Whole::Binary(message));
        }
        // The frame validator lets no other text through.
        ByteString::try_from(message).ok().map(Whole::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_become_a_message() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.take(Item::FirstText("ab".into())), None);
        assert_eq!(fragments.take(Item::Continue("c".into())), None);
        assert_eq!(fragments.take(Item::Last("d".into())), Some(Whole::Text("abcd".into())));
        assert_eq!(fragments.take(Item::Last("stray".into())), None);
        fragments.take(Item::FirstBinary("1".into()));
        assert_eq!(fragments.take(Item::Last("2".into())), Some(Whole::Binary("12".into())));
    }

    #[test]
    fn endless_fragments_fill_no_memory() {
        let mut fragments = Fragments::default();
        fragments.take(Item::FirstText(vec![b'x'; MAX_TEXT_BYTES].into()));
        assert_eq!(fragments.take(Item::Continue("x".into())), Some(Whole::TooLarge));
        assert_eq!(fragments.take(Item::Continue("x".into())), None);
        assert_eq!(fragments.take(Item::Last("x".into())), None);
    }
}
