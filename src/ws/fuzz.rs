//! Fuzzing of the bytes that clients send on a WebSocket: the check of frames neither panics nor holds more memory than a
//! frame justifies, and the codec behind it decodes what passes. Inputs are almost valid.
//!
//! Each test run tries a few hundred inputs; `make fuzz` runs for a given time.

use std::time::Duration;

use actix_http::ws::{OpCode, Parser};
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use proptest::{prelude::*, sample::Index};

use crate::{
    protocol::{
        MAX_BINARY_BYTES, Profile,
        fuzz::{fuzz, most_held},
    },
    ws::{frame_validator, incoming::Incoming, send_queue::SendQueue},
};

/// What the gateway queues for a client that reads nothing.
const QUEUE_BYTES: usize = 64 * 1024;

/// A defect of a client's bytes.
#[derive(Clone, Debug)]
enum Flaw {
    /// Replaces a byte.
    Byte(Index, u8),
    /// Removes bytes.
    Missing(Index, usize),
    /// Repeats the bytes from here.
    Twice(Index),
    /// Inserts bytes.
    More(Index, Vec<u8>),
}

fn flaw() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Flaw::Byte(at, byte)),
        1 => (any::<Index>(), 1..9usize).prop_map(|(at, length)| Flaw::Missing(at, length)),
        1 => any::<Index>().prop_map(Flaw::Twice),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Flaw::More(at, bytes)),
    ]
}

fn flawed(mut bytes: Vec<u8>, flaws: Vec<Flaw>) -> Vec<u8> {
    for flaw in flaws {
        let at = |index: Index| index.index(bytes.len().max(1)).min(bytes.len());
        match flaw {
            Flaw::Byte(index, byte) => {
                let at = at(index);
                bytes.splice(at..(at + 1).min(bytes.len()), [byte]);
            }
            Flaw::Missing(index, length) => {
                let at = at(index);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Flaw::Twice(index) => bytes.extend_from_within(at(index)..),
            Flaw::More(index, more) => {
                let at = at(index);
                bytes.splice(at..at, more);
            }
        }
    }
    bytes
}

/// Gives all bytes to a connection; checks what passes. Nobody reads the answers.
fn receive(bytes: &[u8], piece: usize) -> Result<(), TestCaseError> {
    let (send_queue, _unread) = SendQueue::new(QUEUE_BYTES, None);
    let pieces: Vec<Bytes> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(Ok::<_, PayloadError>);
    let mut incoming = Incoming::new(pieces, Duration::from_secs(10), send_queue.clone(), Profile::EdgeV1);
    loop {
        match incoming.next().now_or_never() {
            // Between two frames.
            None => {}
            Some(None) => return Ok(()),
            Some(Some(Err(_))) => {
                prop_assert!(!send_queue.is_open(), "a violation ends the connection");
                return Ok(());
            }
            Some(Some(Ok(frame))) => {
                let mut frame = BytesMut::from(&frame[..]);
                let decoded = Parser::parse(&mut frame, true, MAX_BINARY_BYTES);
                let is_decoded = matches!(decoded, Ok(Some((_, opcode, _))) if opcode != OpCode::Bad);
                prop_assert!(is_decoded && frame.is_empty(), "one whole frame passes at a time");
            }
        }
    }
}

#[test]
fn no_bytes_make_the_check_of_frames_panic_or_grow() {
    let frames = frame_validator::tests::valid_frames().prop_map(|frames| frames.concat());
    let noise = prop::collection::vec(any::<u8>(), 0..400);
    let bytes = prop_oneof![9 => frames, 1 => noise];
    let bytes = (bytes, prop::collection::vec(flaw(), 0..4)).prop_map(|(bytes, flaws)| flawed(bytes, flaws));
    fuzz((bytes, 1..100usize), |(bytes, piece)| {
        let (result, held) = most_held(|| receive(&bytes, piece));
        // The input in pieces with what each piece costs, one frame twice, and the queue.
        let bound = 64 * bytes.len() + 2 * MAX_BINARY_BYTES + QUEUE_BYTES + 16 * 1024;
        prop_assert!(held <= bound, "{held} bytes for {}", bytes.len());
        result
    });
}
