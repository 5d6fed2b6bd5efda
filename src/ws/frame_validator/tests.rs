use actix_http::ws::{OpCode, Parser};
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

/// A frame as a client sends it, with any first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0xA5, 0x11, 0x7E, 0xF0];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(MASKED | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(MASKED | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What becomes of a client's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// The frames that passed.
    passed: Vec<u8>,
    frames: usize,
    /// Frames that were skipped because they are over the limit.
    oversized: usize,
    violation: Option<Violation>,
    /// Bytes up to the violation.
    taken: usize,
}

fn validate(bytes: &[u8], piece: usize) -> Outcome {
    let (mut validator, mut outcome, mut begun) = (FrameValidator::default(), Outcome::default(), Vec::new());
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() {
            let (taken, what) = match validator.take(piece) {
                Ok(taken) => taken,
                Err(violation) => {
                    outcome.violation = Some(violation);
                    return outcome;
                }
            };
            outcome.taken += taken;
            begun.extend(&piece[..taken]);
            piece = &piece[taken..];
            match what {
                Taken::Part => {}
                Taken::Frame => {
                    outcome.passed.append(&mut begun);
                    outcome.frames += 1;
                }
                Taken::Oversized => {
                    begun.clear();
                    outcome.oversized += 1;
                }
                Taken::Skipped => begun.clear(),
            }
        }
    }
    outcome
}

/// The violation, and after how many bytes it is found.
fn violation(bytes: &[u8]) -> (Option<Close>, usize) {
    let outcome = validate(bytes, 1);
    (outcome.violation.map(Violation::close), outcome.taken)
}

#[test]
fn what_is_wrong_with_a_header_is_found_at_its_first_byte_that_shows_it() {
    let with_length = |second: u8, length: &[u8]| [&[0x82, second], length, &[0; 4]].concat();
    for (frame, valid_bytes) in [
        (masked(0xC1, b"reserved bit"), 0),
        (masked(0x83, b"reserved opcode"), 0),
        (masked(0x8B, b"reserved control opcode"), 0),
        (masked(0x09, b"fragmented ping"), 0),
        (masked(0x80, b"continues nothing"), 0),
        (vec![0x81, 0x01, b'a'], 1),
        (masked(0x89, &[0; 126]), 3),
        (masked(0x88, &[3]), 1),
        (with_length(0xFE, &125_u16.to_be_bytes()), 3),
        (with_length(0xFF, &0xFFFF_u64.to_be_bytes()), 9),
        (with_length(0xFF, &(1_u64 << 63).to_be_bytes()), 9),
    ] {
        assert_eq!(violation(&frame), (Some(Close::Protocol), valid_bytes), "{frame:?}");
    }
}

#[test]
fn a_message_within_a_message_is_a_violation_and_a_control_frame_within_it_is_not() {
    let begun = masked(0x01, b"a");
    for first in [0x81, 0x01, 0x82, 0x02] {
        assert_eq!(violation(&[begun.clone(), masked(first, b"b")].concat()).0, Some(Close::Protocol));
    }
    let whole = [begun, masked(0x89, b"ping"), masked(0x00, b"b"), masked(0x80, b"c"), masked(0x81, b"d")];
    assert_eq!(validate(&whole.concat(), 3).frames, whole.len());
}

#[test]
fn text_that_is_not_utf8_is_found_before_its_frame_is_complete() {
    let frame = masked(0x81, b"abc\xF4\x90\x80\x80 and more");
    assert_eq!(violation(&frame), (Some(Close::InvalidText), 6 + 4));

    let (whole, half) = (masked(0x81, "é".as_bytes()), masked(0x81, b"\xC3"));
    assert_eq!(violation(&whole).0, None);
    assert_eq!(violation(&half).0, Some(Close::InvalidText));
    assert_eq!(violation(&masked(0x82, b"\xFF")).0, None, "binary may be any bytes");
}

#[test]
fn a_character_may_be_cut_by_fragments_and_not_by_the_end_of_its_message() {
    let [begun, ping] = [masked(0x01, b"\xE2\x82"), masked(0x89, b"\xFF")];
    let rest = masked(0x80, b"\xAC");
    assert_eq!(violation(&[begun.clone(), ping, rest].concat()).0, None);
    assert_eq!(violation(&[begun, masked(0x80, b"")].concat()).0, Some(Close::InvalidText));
}

#[test]
fn a_close_frame_has_a_valid_code_and_a_reason_of_utf8() {
    let close = |code: u16, reason: &[u8]| masked(0x88, &[&code.to_be_bytes()[..], reason].concat());
    assert_eq!(violation(&masked(0x88, b"")).0, None);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999] {
        assert_eq!(violation(&close(code, b"why")).0, None, "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(violation(&close(code, b"why")).0, Some(Close::Protocol), "{code}");
    }
    assert_eq!(violation(&close(1000, b"\xFF")).0, Some(Close::InvalidText));
    assert_eq!(violation(&close(1000, b"\xC3")).0, Some(Close::InvalidText));
}

#[test]
fn a_frame_over_the_limit_is_skipped_and_the_next_one_passes() {
    let before = masked(0x81, b"before");
    let huge = masked(0x82, &vec![7; MAX_BINARY_BYTES + 1]);
    let after = masked(0x81, b"after");
    let all = [before.clone(), huge, after.clone()].concat();

    for piece in [1, 13, 4096, all.len()] {
        let outcome = validate(&all, piece);
        assert_eq!((outcome.frames, outcome.oversized, outcome.violation), (2, 1, None));
        assert_eq!(outcome.passed, [before.clone(), after.clone()].concat());
    }
    assert_eq!(validate(&masked(0x82, &vec![7; MAX_BINARY_BYTES]), 1000).frames, 1);
}

#[test]
fn a_fragment_over_the_limit_is_a_violation() {
    let huge = vec![7; MAX_BINARY_BYTES + 1];
    assert_eq!(violation(&masked(0x02, &huge)).0, Some(Close::TooBig));
    let last = [masked(0x02, b"a"), masked(0x80, &huge)].concat();
    assert_eq!(violation(&last).0, Some(Close::TooBig));
}

/// Frames that a client may send, each as it is on the wire.
pub(in crate::ws) fn valid_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let control = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|payload| masked(0x89, &payload)),
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|payload| masked(0x8A, &payload)),
    ];
    let message = (any::<bool>(), any::<String>(), 1..9usize, proptest::option::of(control)).prop_map(
        |(is_text, text, fragment, control)| {
            let mut fragments: Vec<&[u8]> = text.as_bytes().chunks(fragment).collect();
            if fragments.is_empty() {
                fragments.push(b"");
            }
            let last = fragments.len() - 1;
            let mut frames: Vec<_> = fragments
                .iter()
                .enumerate()
                .map(|(at, payload)| {
                    let opcode = if at > 0 {
                        0
                    } else if is_text {
                        1
                    } else {
                        2
                    };
                    masked(if at == last { FINAL | opcode } else { opcode }, payload)
                })
                .collect();
            if let Some(control) = control {
                frames.insert(frames.len() / 2, control);
            }
            frames
        },
    );
    proptest::collection::vec(message, 0..6).prop_map(|messages| messages.concat())
}

proptest! {
    #[test]
    fn valid_frames_pass_unchanged_however_they_are_cut(frames in valid_frames(), piece in 1..50usize) {
        let all = frames.concat();
        let outcome = validate(&all, piece);
        prop_assert_eq!(outcome.violation, None);
        prop_assert_eq!(outcome.frames, frames.len());
        prop_assert_eq!(outcome.passed, all);
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_bytes_are_cut(
        frames in valid_frames(),
        wrong in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        piece in 1..50usize,
    ) {
        let mut all = frames.concat();
        for (at, byte) in wrong {
            if !all.is_empty() {
                let at = at.index(all.len());
                all[at] = byte;
            }
        }
        let (whole, cut) = (validate(&all, all.len().max(1)), validate(&all, piece));
        prop_assert_eq!((whole.passed, whole.violation), (cut.passed, cut.violation));
    }

    #[test]
    fn what_passes_is_decoded_by_the_codec_behind_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let outcome = validate(&bytes, bytes.len().max(1));
        let mut passed = BytesMut::from(&outcome.passed[..]);
        for _ in 0..outcome.frames {
            let frame = Parser::parse(&mut passed, true, MAX_BINARY_BYTES);
            let is_decoded = matches!(frame, Ok(Some((_, opcode, _))) if opcode != OpCode::Bad);
            prop_assert!(is_decoded);
        }
        prop_assert!(passed.is_empty());
    }
}
