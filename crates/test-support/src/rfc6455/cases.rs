//! The table of cases, by Autobahn's numbers.

/// One case.
pub(super) struct Case {
    pub number: String,
    pub steps: Vec<Step>,
    pub end: End,
}

pub(super) enum Step {
    /// Sends bytes, in pieces of so many.
    Send {
        bytes: Vec<u8>,
        chop: Option<usize>,
    },
    Expect(Expected),
}

#[derive(Debug)]
pub(super) enum Expected {
    /// The error with this code.
    Error(&'static str),
    Pong(Vec<u8>),
}

#[derive(Clone, Copy)]
pub(super) enum End {
    /// The connection is still usable; the suite closes it.
    Usable,
    /// The gateway closes with this code, or answers a close frame with it.
    Closed(Option<u16>),
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const PROTOCOL_ERROR: End = End::Closed(Some(1002));
const INVALID_TEXT: End = End::Closed(Some(1007));
const ECHOED: End = End::Closed(Some(1000));

const HELLO: &[u8] = b"Hello, world!";
const NOT_UTF8: &[u8] = b"\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF";
const ACCENTS: [&str; 2] = ["Hello-µ@ßöä", "üàá-UTF-8!!"];
const GREEK: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5";
const EDITED: &[u8] = b"edited";
const SURROGATE: &[u8] = b"\xED\xA0\x80";
const OUT_OF_RANGE: &[u8] = b"\xF4\x90\x80\x80";

impl Case {
    fn new(number: impl Into<String>, end: End) -> Self {
        Self { number: number.into(), steps: Vec::new(), end }
    }

    fn send(self, bytes: Vec<u8>) -> Self {
        self.send_in(None, bytes)
    }

    fn send_in(mut self, chop: Option<usize>, bytes: Vec<u8>) -> Self {
        self.steps.push(Step::Send { bytes, chop });
        self
    }

    fn expect(mut self, expected: Expected) -> Self {
        self.steps.push(Step::Expect(expected));
        self
    }

    /// The answer to text.
    fn text_is_answered(self) -> Self {
        self.expect(Expected::Error("MALFORMED_MESSAGE"))
    }

    /// The answer to a ping.
    fn pong(self, payload: &[u8]) -> Self {
        self.expect(Expected::Pong(payload.to_vec()))
    }
}

/// A frame: final, without reserved bits.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | opcode, payload)
}

/// A frame that another one continues.
fn fragment(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(opcode, payload)
}

fn reserved(rsv: u8, opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | (rsv << 4) | opcode, payload)
}

fn last(payload: &[u8]) -> Vec<u8> {
    frame(0, payload)
}

fn more(payload: &[u8]) -> Vec<u8> {
    fragment(0, payload)
}

pub(super) fn ping(payload: &[u8]) -> Vec<u8> {
    frame(PING, payload)
}

pub(super) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// A masked frame with this first byte (RFC 6455 §5.2).
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A message in fragments of so many bytes, in one write each.
fn fragmented(mut case: Case, payload: &[u8], size: usize) -> Case {
    let count = payload.len().div_ceil(size);
    for (at, part) in payload.chunks(size).enumerate() {
        let opcode = if at == 0 { TEXT } else { 0 };
        case = case.send(if at + 1 == count { frame(opcode, part) } else { fragment(opcode, part) });
    }
    case
}

pub(super) fn all() -> Vec<Case> {
    [
        framing(),
        pings(),
        reserved_bits(),
        opcodes(),
        fragmentation(),
        utf8_by_fragments(),
        utf8_sequences(),
        closing(),
        close_codes(),
        auto_fragmentation(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// 1: text and binary messages of different sizes.
fn framing() -> Vec<Case> {
    const SIZES: [(usize, Option<usize>); 8] = [
        (0, None),
        (125, None),
        (126, None),
        (127, None),
        (128, None),
        (65_535, None),
        (65_536, None),
        (65_536, Some(997)),
    ];
    let mut cases = Vec::new();
    for (at, (size, chop)) in SIZES.into_iter().enumerate() {
        let text = frame(TEXT, &vec![b'*'; size]);
        let case = Case::new(format!("1.1.{}", at + 1), End::Usable).send_in(chop, text).text_is_answered();
        cases.push(case);
    }
    for (at, (size, chop)) in SIZES.into_iter().enumerate() {
        let binary = frame(BINARY, &vec![0xFE; size]);
        let case = Case::new(format!("1.2.{}", at + 1), End::Usable).send_in(chop, binary);
        cases.push(case.expect(Expected::Error("SESSION_ERROR")));
    }
    cases
}

/// 2: pings and pongs.
fn pings() -> Vec<Case> {
    let is_answered = |number: &str, payload: &[u8], chop| {
        Case::new(number, End::Usable).send_in(chop, ping(payload)).pong(payload)
    };
    let unsolicited = b"unsolicited pong payload";
    let ten = |number: &str, chop| {
        let payloads: Vec<String> = (0..10).map(|at| format!("payload-{at}")).collect();
        let case = payloads.iter().fold(Case::new(number, End::Usable), |case, payload| {
            case.send_in(chop, ping(payload.as_bytes()))
        });
        payloads.iter().fold(case, |case, payload| case.pong(payload.as_bytes()))
    };
    vec![
        is_answered("2.1", b"", None),
        is_answered("2.2", HELLO, None),
        is_answered("2.3", NOT_UTF8, None),
        is_answered("2.4", &[0xFE; 125], None),
        Case::new("2.5", PROTOCOL_ERROR).send(ping(&[0xFE; 126])),
        is_answered("2.6", &[0xFE; 125], Some(1)),
        Case::new("2.7", ECHOED).send(frame(PONG, b"")).send(close(1000, b"")),
        Case::new("2.8", ECHOED).send(frame(PONG, unsolicited)).send(close(1000, b"")),
        Case::new("2.9", End::Usable)
            .send(frame(PONG, unsolicited))
            .send(ping(b"ping payload"))
            .pong(b"ping payload"),
        ten("2.10", None),
        ten("2.11", Some(1)),
    ]
}

/// A text message that is answered, and then a frame that is a violation, and a ping that gets no pong.
fn text_then(number: &str, chop: Option<usize>, violation: Vec<u8>) -> Case {
    Case::new(number, PROTOCOL_ERROR)
        .send_in(chop, frame(TEXT, HELLO))
        .send_in(chop, violation)
        .send_in(chop, ping(b""))
        .text_is_answered()
}

/// 3: reserved bits.
fn reserved_bits() -> Vec<Case> {
    vec![
        Case::new("3.1", PROTOCOL_ERROR).send(reserved(1, TEXT, HELLO)),
        text_then("3.2", None, reserved(2, TEXT, HELLO)),
        text_then("3.3", None, reserved(3, TEXT, HELLO)),
        text_then("3.4", Some(1), reserved(4, TEXT, HELLO)),
        Case::new("3.5", PROTOCOL_ERROR).send(reserved(5, BINARY, NOT_UTF8)),
        Case::new("3.6", PROTOCOL_ERROR).send(reserved(6, PING, HELLO)),
        Case::new("3.7", PROTOCOL_ERROR).send(reserved(7, CLOSE, b"")),
    ]
}

/// 4: reserved opcodes.
fn opcodes() -> Vec<Case> {
    let of = |group: &str, [a, b, c, d, e]: [u8; 5]| {
        vec![
            Case::new(format!("{group}.1"), PROTOCOL_ERROR).send(frame(a, b"")),
            Case::new(format!("{group}.2"), PROTOCOL_ERROR).send(frame(b, b"reserved opcode payload")),
            text_then(&format!("{group}.3"), None, frame(c, b"")),
            text_then(&format!("{group}.4"), None, frame(d, HELLO)),
            text_then(&format!("{group}.5"), Some(1), frame(e, HELLO)),
        ]
    };
    of("4.1", [3, 4, 5, 6, 7]).into_iter().chain(of("4.2", [11, 12, 13, 14, 15])).collect()
}

/// 5: fragmentation.
fn fragmentation() -> Vec<Case> {
    let [one, two, three, four, five] =
        [&b"fragment1"[..], b"fragment2", b"fragment3", b"fragment4", b"fragment5"];
    let control = |number: &str, opcode| {
        Case::new(number, PROTOCOL_ERROR).send([fragment(opcode, one), last(two)].concat())
    };
    let whole = |number: &str, chop, together: bool| {
        send_frames(Case::new(number, End::Usable), chop, together, [fragment(TEXT, one), last(two)])
            .text_is_answered()
    };
    let with_ping = |number: &str, chop, together: bool| {
        let frames = [fragment(TEXT, one), ping(b"ping payload"), last(two)];
        send_frames(Case::new(number, End::Usable), chop, together, frames)
            .pong(b"ping payload")
            .text_is_answered()
    };
    let continues_nothing = |number: &str, first: fn(&[u8]) -> Vec<u8>, chop, together: bool| {
        let frames = [first(b"non-continuation payload"), frame(TEXT, HELLO)];
        send_frames(Case::new(number, PROTOCOL_ERROR), chop, together, frames)
    };
    let repeated = |number: &str, first: fn(&[u8]) -> Vec<u8>| {
        let frames = [first(one), fragment(TEXT, two), last(three)].concat();
        Case::new(number, PROTOCOL_ERROR).send(frames.clone()).send(frames)
    };
    let interrupted = |number: &str, together: bool| {
        let pings = [b"pongme 1!", b"pongme 2!"];
        let begun = [fragment(TEXT, one), more(two), ping(pings[0])];
        let case = send_frames(Case::new(number, End::Usable), None, together, begun).pong(pings[0]);
        send_frames(case, None, together, [more(three), more(four), ping(pings[1]), last(five)])
            .pong(pings[1])
            .text_is_answered()
    };
    vec![
        control("5.1", PING),
        control("5.2", PONG),
        whole("5.3", None, true),
        whole("5.4", None, false),
        whole("5.5", Some(1), false),
        with_ping("5.6", None, true),
        with_ping("5.7", None, false),
        with_ping("5.8", Some(1), false),
        continues_nothing("5.9", last, None, true),
        continues_nothing("5.10", last, None, false),
        continues_nothing("5.11", last, Some(1), false),
        continues_nothing("5.12", more, None, true),
        continues_nothing("5.13", more, None, false),
        continues_nothing("5.14", more, Some(1), false),
        Case::new("5.15", PROTOCOL_ERROR)
            .send([fragment(TEXT, one), last(two), more(three), frame(TEXT, four)].concat())
            .text_is_answered(),
        repeated("5.16", more),
        repeated("5.17", last),
        Case::new("5.18", PROTOCOL_ERROR).send([fragment(TEXT, one), frame(TEXT, two)].concat()),
        interrupted("5.19", true),
        interrupted("5.20", false),
    ]
}

/// Sends frames in one write, or each in its own.
fn send_frames<const N: usize>(
    case: Case,
    chop: Option<usize>,
    together: bool,
    frames: [Vec<u8>; N],
) -> Case {
    if together {
        case.send_in(chop, frames.concat())
    } else {
        frames.into_iter().fold(case, |case, frame| case.send_in(chop, frame))
    }
}

/// 6.1 to 6.4: text that is cut within characters, and text that fails as soon as it is wrong.
fn utf8_by_fragments() -> Vec<Case> {
    let accents = ACCENTS.concat();
    let invalid = [GREEK, SURROGATE, EDITED].concat();
    let (valid, wrong) = (&[GREEK, OUT_OF_RANGE].concat(), &OUT_OF_RANGE[1..2]);
    let valid = &valid[..GREEK.len() + 1];
    // The ping shows that the first fragment was accepted. The rest of the message is never sent.
    let by_fragments = |number: &str, first: &[u8], second: &[u8]| {
        Case::new(number, INVALID_TEXT)
            .send([fragment(TEXT, first), ping(b"")].concat())
            .pong(b"")
            .send(more(second))
    };
    let by_chops = |number: &str, first: usize, second: usize| {
        let whole = frame(TEXT, &[GREEK, OUT_OF_RANGE, EDITED].concat());
        let header = 6;
        Case::new(number, INVALID_TEXT)
            .send(whole[..header + first].to_vec())
            .send(whole[header + first..header + second].to_vec())
    };
    vec![
        Case::new("6.1.1", End::Usable).send(frame(TEXT, b"")).text_is_answered(),
        Case::new("6.1.2", End::Usable)
            .send([fragment(TEXT, b""), more(b""), last(b"")].concat())
            .text_is_answered(),
        Case::new("6.1.3", End::Usable)
            .send([fragment(TEXT, b""), more(b"middle frame payload"), last(b"")].concat())
            .text_is_answered(),
        Case::new("6.2.1", End::Usable).send(frame(TEXT, accents.as_bytes())).text_is_answered(),
        Case::new("6.2.2", End::Usable)
            .send([fragment(TEXT, ACCENTS[0].as_bytes()), last(ACCENTS[1].as_bytes())].concat())
            .text_is_answered(),
        fragmented(Case::new("6.2.3", End::Usable), accents.as_bytes(), 1).text_is_answered(),
        fragmented(Case::new("6.2.4", End::Usable), GREEK, 1).text_is_answered(),
        Case::new("6.3.1", INVALID_TEXT).send(frame(TEXT, &invalid)),
        fragmented(Case::new("6.3.2", INVALID_TEXT), &invalid, 1),
        by_fragments("6.4.1", GREEK, OUT_OF_RANGE),
        by_fragments("6.4.2", valid, wrong),
        by_chops("6.4.3", GREEK.len(), GREEK.len() + OUT_OF_RANGE.len()),
        by_chops("6.4.4", GREEK.len() + 1, GREEK.len() + 2),
    ]
}

/// 6.5 to 6.23: the sequences of Markus Kuhn's "UTF-8 decoder capability and stress test", whole in one frame.
fn utf8_sequences() -> Vec<Case> {
    let prefixes: Vec<&[u8]> = (1..=GREEK.len()).map(|length| &GREEK[..length]).collect();
    let continuations: Vec<u8> = (0x80..0xBF).collect();
    let lonely: Vec<Vec<u8>> = [0xC0..0xDF_u8, 0xE0..0xEF, 0xF0..0xF7, 0xF8..0xFB, 0xFC..0xFD]
        .map(|starts| starts.flat_map(|start| [start, b' ']).collect())
        .into();
    let lonely: Vec<&[u8]> = lonely.iter().map(Vec::as_slice).collect();
    let incomplete: [&[u8]; 10] = [
        b"\xC0",
        b"\xE0\x80",
        b"\xF0\x80\x80",
        b"\xF8\x80\x80\x80",
        b"\xFC\x80\x80\x80\x80",
        b"\xDF",
        b"\xEF\xBF",
        b"\xF7\xBF\xBF",
        b"\xFB\xBF\xBF\xBF",
        b"\xFD\xBF\xBF\xBF\xBF",
    ];
    let all_incomplete = incomplete.concat();
    let non_characters = non_characters();
    let non_characters: Vec<&[u8]> = non_characters.iter().map(Vec::as_slice).collect();
    let groups: [&[&[u8]]; 19] = [
        // 6.5: some valid sequences, and 6.6: all prefixes of one
        &[
            b"hello$world",
            b"hello\xC2\xA2world",
            b"hello\xE2\x82\xACworld",
            b"hello\xF0\xA4\xAD\xA2world",
            GREEK,
        ],
        &prefixes,
        // 6.7, 6.8: first possible sequence of a length
        &[b"\x00", b"\xC2\x80", b"\xE0\xA0\x80", b"\xF0\x90\x80\x80"],
        &[b"\xF8\x88\x80\x80\x80", b"\xFC\x84\x80\x80\x80\x80"],
        // 6.9, 6.10: last possible sequence of a length
        &[b"\x7F", b"\xDF\xBF", b"\xEF\xBF\xBF", b"\xF4\x8F\xBF\xBF"],
        &[b"\xF7\xBF\xBF\xBF", b"\xFB\xBF\xBF\xBF\xBF", b"\xFD\xBF\xBF\xBF\xBF\xBF"],
        // 6.11: other boundaries
        &[b"\xED\x9F\xBF", b"\xEE\x80\x80", b"\xEF\xBF\xBD", b"\xF4\x8F\xBF\xBF", OUT_OF_RANGE],
        // 6.12: unexpected continuation bytes
        &[
            b"\x80",
            b"\xBF",
            b"\x80\xBF",
            b"\x80\xBF\x80",
            b"\x80\xBF\x80\xBF",
            b"\x80\xBF\x80\xBF\x80",
            b"\x80\xBF\x80\xBF\x80\xBF",
            &continuations,
        ],
        // 6.13: lonely start characters
        &lonely,
        // 6.14, 6.15: sequences without their last byte, each and all together
        &incomplete,
        &[&all_incomplete],
        // 6.16: impossible bytes
        &[b"\xFE", b"\xFF", b"\xFE\xFE\xFF\xFF"],
        // 6.17 to 6.19: overlong sequences
        &[
            b"\xC0\xAF",
            b"\xE0\x80\xAF",
            b"\xF0\x80\x80\xAF",
            b"\xF8\x80\x80\x80\xAF",
            b"\xFC\x80\x80\x80\x80\xAF",
        ],
        &[
            b"\xC1\xBF",
            b"\xE0\x9F\xBF",
            b"\xF0\x8F\xBF\xBF",
            b"\xF8\x87\xBF\xBF\xBF",
            b"\xFC\x83\xBF\xBF\xBF\xBF",
        ],
        &[
            b"\xC0\x80",
            b"\xE0\x80\x80",
            b"\xF0\x80\x80\x80",
            b"\xF8\x80\x80\x80\x80",
            b"\xFC\x80\x80\x80\x80\x80",
        ],
        // 6.20, 6.21: surrogates, single and in pairs
        &[
            SURROGATE,
            b"\xED\xAD\xBF",
            b"\xED\xAE\x80",
            b"\xED\xAF\xBF",
            b"\xED\xB0\x80",
            b"\xED\xBE\x80",
            b"\xED\xBF\xBF",
        ],
        &[
            b"\xED\xA0\x80\xED\xB0\x80",
            b"\xED\xA0\x80\xED\xBF\xBF",
            b"\xED\xAD\xBF\xED\xB0\x80",
            b"\xED\xAD\xBF\xED\xBF\xBF",
            b"\xED\xAE\x80\xED\xB0\x80",
            b"\xED\xAE\x80\xED\xBF\xBF",
            b"\xED\xAF\xBF\xED\xB0\x80",
            b"\xED\xAF\xBF\xED\xBF\xBF",
        ],
        // 6.22: non-characters, which are valid
        &non_characters,
        // 6.23: specials
        &[
            b"\xEF\xBF\xB9",
            b"\xEF\xBF\xBA",
            b"\xEF\xBF\xBB",
            b"\xEF\xBF\xBC",
            b"\xEF\xBF\xBD",
            b"\xEF\xBF\xBE",
            b"\xEF\xBF\xBF",
        ],
    ];
    let mut cases = Vec::new();
    for (group, sequences) in (5..).zip(groups) {
        for (at, sequence) in (1..).zip(sequences) {
            let number = format!("6.{group}.{at}");
            // Not by std's own check, which the gateway uses too.
            let is_valid = match group {
                5 | 7 | 9 | 22 | 23 => true,
                6 => [2, 5, 7, 9, 11].contains(&at),
                11 => at < 5,
                _ => false,
            };
            cases.push(if is_valid {
                Case::new(number, End::Usable).send(frame(TEXT, sequence)).text_is_answered()
            } else {
                Case::new(number, INVALID_TEXT).send(frame(TEXT, sequence))
            });
        }
    }
    cases
}

/// U+FFFE, U+FFFF, and the last two code points of each other plane.
fn non_characters() -> Vec<Vec<u8>> {
    let planes = (0..=0x10).map(|plane| plane << 16);
    let points = planes.flat_map(|plane: u32| [plane | 0xFFFE, plane | 0xFFFF]);
    points.filter_map(char::from_u32).map(|point| point.to_string().into_bytes()).collect()
}

/// 7.1 to 7.5: what follows a close frame, and what is in it.
fn closing() -> Vec<Case> {
    let closed = || close(1000, b"");
    vec![
        Case::new("7.1.1", ECHOED).send([frame(TEXT, HELLO), closed()].concat()).text_is_answered(),
        Case::new("7.1.2", ECHOED).send([closed(), frame(CLOSE, b"")].concat()),
        Case::new("7.1.3", ECHOED).send([closed(), ping(b"")].concat()),
        Case::new("7.1.4", ECHOED).send([closed(), frame(TEXT, HELLO)].concat()),
        Case::new("7.1.5", ECHOED)
            .send([fragment(TEXT, b"fragment1"), closed(), last(b"fragment2")].concat()),
        Case::new("7.1.6", ECHOED)
            .send(frame(TEXT, &b"BAsd7&jh23".repeat(26_215)[..256 * 1024]))
            .send([frame(TEXT, HELLO), closed(), ping(b"")].concat())
            .expect(Expected::Error("TOO_LARGE"))
            .text_is_answered(),
        Case::new("7.3.1", End::Closed(None)).send(frame(CLOSE, b"")),
        Case::new("7.3.2", PROTOCOL_ERROR).send(frame(CLOSE, b"a")),
        Case::new("7.3.3", ECHOED).send(closed()),
        Case::new("7.3.4", ECHOED).send(close(1000, b"Hello World!")),
        Case::new("7.3.5", ECHOED).send(close(1000, &[b'*'; 123])),
        Case::new("7.3.6", PROTOCOL_ERROR).send(close(1000, &[b'*'; 124])),
        Case::new("7.5.1", INVALID_TEXT).send(close(1000, &[GREEK, SURROGATE, EDITED].concat())),
    ]
}

/// 7.7, 7.9 and 7.13: close codes.
fn close_codes() -> Vec<Case> {
    const VALID: [u16; 13] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    const INVALID: [u16; 9] = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    let valid = (1..)
        .zip(VALID)
        .map(|(at, code)| Case::new(format!("7.7.{at}"), End::Closed(Some(code))).send(close(code, b"")));
    let invalid = (1..)
        .zip(INVALID)
        .map(|(at, code)| Case::new(format!("7.9.{at}"), PROTOCOL_ERROR).send(close(code, b"")));
    let undefined = (1..)
        .zip([5000, 65_535])
        .map(|(at, code)| Case::new(format!("7.13.{at}"), PROTOCOL_ERROR).send(close(code, b"")));
    valid.chain(invalid).chain(undefined).collect()
}

/// 10.1: a long message in many fragments.
fn auto_fragmentation() -> Vec<Case> {
    let case = fragmented(Case::new("10.1.1", End::Usable), &[b'*'; 65_536], 1300);
    vec![case.text_is_answered()]
}
