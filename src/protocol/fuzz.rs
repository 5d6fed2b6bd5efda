//! Fuzzing of messages that clients send: both decoders and the session behind them neither panic nor hold more memory than
//! the input justifies. Inputs are almost valid.
//!
//! Each test run tries a few hundred inputs; `make fuzz` runs for a given time.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::Value;

use crate::{
    audio::{
        data_packet_buffer::DataPacketBuffer,
        reorder_buffer::MAX_HELD_BYTES,
        uplink_decoder::{MAX_BACKFILL_SAMPLES, UplinkDecoder},
    },
    clock,
    livekit::agent::AgentState,
    protocol::{
        ClientMessage, FromClient, MAX_BINARY_BYTES, MAX_TEXT_BYTES, Profile,
        edge_v1::{
            audio::{Codec, UplinkFrame},
            from_client::AudioConfig,
            to_client::MediaSource,
        },
    },
    session::{self, Input, Session, SessionConfig, messages::Attachment},
};

// --- Memory of a thread -----------------------------------------------------------

/// Counts the allocations of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that the thread holds, and their maximum.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that is ending has no thread-local storage any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now + bytes;
        held.set((now, most.max(now)));
    });
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]
// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs something. Returns the maximum of the bytes that it held.
pub(crate) fn most_held<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = run();
    (result, usize::try_from(HELD.with(Cell::get).1 - before).unwrap_or(0))
}

/// The bytes that this thread holds.
pub(crate) fn held() -> isize {
    HELD.with(Cell::get).0
}

// --- Running ----------------------------------------------------------------------------------

/// Tries a few hundred inputs, and more for `JUNE_FUZZ_SECONDS`.
pub(crate) fn fuzz<S: Strategy>(inputs: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = env::var("JUNE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = clock::now() + Duration::from_secs(seconds.unwrap_or(0));
    loop {
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        if let Err(failure) = TestRunner::new(config).run(&inputs, &test) {
            panic!("{failure}");
        }
        if clock::now() >= until {
            return;
        }
    }
}

// --- Text -------------------------------------------------------------------------------------

/// All examples of clients' messages.
fn examples() -> Vec<String> {
    let page = include_str!("../../docs/PROTOCOL.md");
    let section =
        page.split("## Client to gateway").nth(1).and_then(|rest| rest.split("## Gateway to").next());
    let blocks = section.expect("both headings").split("```json").skip(1);
    blocks.map(|block| block.split("```").next().expect("a closed block").trim().to_owned()).collect()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from("x".repeat(5_000))),
    ];
    leaf.prop_recursive(4, 32, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A defect of a message.
#[derive(Clone, Debug)]
enum Flaw {
    None,
    /// Replaces the value of a field.
    Field(Index, Value),
    /// Removes a field.
    Missing(Index),
    /// Replaces a byte.
    Byte(Index, u8),
    /// Truncates the text.
    Cut(Index),
    /// Repeats the text.
    Twice,
}

fn flaw() -> impl Strategy<Value = Flaw> {
    prop_oneof![
        1 => Just(Flaw::None),
        6 => (any::<Index>(), any_json()).prop_map(|(field, value)| Flaw::Field(field, value)),
        1 => any::<Index>().prop_map(Flaw::Missing),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Flaw::Byte(at, byte)),
        1 => any::<Index>().prop_map(Flaw::Cut),
        1 => Just(Flaw::Twice),
    ]
}

fn flawed(example: &str, flaw: Flaw) -> String {
    let mut value: Value = serde_json::from_str(example).expect("an example is JSON");
    let fields = value.as_object_mut().expect("a message is an object");
    let mut bytes = example.as_bytes().to_vec();
    match flaw {
        Flaw::None => {}
        Flaw::Field(at, wrong) => {
            let name = at.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
            fields.insert(name, wrong);
            bytes = value.to_string().into_bytes();
        }
        Flaw::Missing(at) => {
            let name = at.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
            fields.remove(&name);
            bytes = value.to_string().into_bytes();
        }
        Flaw::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        Flaw::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Flaw::Twice => bytes.extend_from_within(..),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A session with an attached client.
fn attached(now: Instant) -> Session {
    let config = SessionConfig { client_vad_percent: 50, ..session::tests::config() };
    let mut session = Session::new(session::tests::info(), Arc::new(config), now, 0);
    let init = ClientMessage::decode(r#"{"type":"connection_init"}"#).expect("an init").message;
    let FromClient::ConnectionInit(init) = init else { unreachable!("it is an init") };
    let attachment = Attachment { profile: Profile::EdgeV1, init: *init, token: None };
    session.handle(Input::Attach(1, Box::new(attachment)), now);
    session.handle(Input::AgentState(AgentState::Joined), now);
    session
}

#[test]
fn no_text_makes_the_decoder_or_a_session_panic_or_grow() {
    let examples = examples();
    assert!(examples.len() > 15);
    let example = prop::sample::select(examples)
        .prop_flat_map(|example| flaw().prop_map(move |flaw| flawed(&example, flaw)));
    let noise = prop_oneof![any::<String>(), any_json().prop_map(|value| value.to_string())];
    let texts = prop_oneof![8 => example, 1 => noise];
    fuzz(prop::collection::vec((texts, 0..3_000u64), 1..12), |texts| {
        let mut now = clock::now();
        let mut session = attached(now);
        for (text, wait_ms) in texts {
            let (said, held) = most_held(|| ClientMessage::decode(&text));
            // An array of the shortest values takes 32 times its text, and grows by doubling.
            prop_assert!(held <= 64 * text.len() + 4096, "{held} bytes for {} of text", text.len());
            now += Duration::from_millis(wait_ms);
            match said {
                Ok(said) => {
                    let written = said.message.encode();
                    prop_assert!(ClientMessage::decode(&written).is_ok(), "{written}");
                    session.handle(Input::ClientMessage(1, said), now);
                }
                Err(error) => drop(session.handle(Input::Malformed(1, error), now)),
            }
            session.handle(Input::RoomAudio(MediaSource::Livekit, [1; 320].into()), now);
            session.handle(Input::Tick, now);
        }
        Ok(())
    });
}

#[test]
fn a_text_of_the_maximum_size_takes_memory_in_proportion() {
    let fill = |open: &str, with: &str, close: &str| {
        format!("{open}{}{close}", with.repeat((MAX_TEXT_BYTES - open.len() - close.len()) / with.len()))
    };
    for text in [
        fill(r#"{"type":"phone_subscription_update","subscriptions":[""#, r#"",""#, r#""]}"#),
        fill(r#"{"type":"ping","id":[1"#, ",1", "]}"),
        fill(r#"{"type":"ping","id":"#, "[", ""),
        fill(r#"{"type":""#, "x", r#""}"#),
        fill("", "\u{FFFD}", ""),
    ] {
        let (_, held) = most_held(|| ClientMessage::decode(&text));
        assert!(held <= 64 * MAX_TEXT_BYTES, "{held} bytes for {text:.40}");
    }
}

// --- Binary -----------------------------------------------------------------------------------

/// Bytes that mostly begin with a valid header.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let header = (prop::sample::select(vec![0_u8, 0, 2, 2, 1, 9]), any::<u8>(), 0..400u32, any::<u64>());
    let payload = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..700),
        1 => Just(vec![7; MAX_BINARY_BYTES - 16]),
    ];
    let ours = (header, payload).prop_map(|((codec, flags, seq, capture_ms), payload)| {
        let mut frame = vec![0xE1, 1, codec, flags];
        frame.extend(seq.to_be_bytes());
        frame.extend(capture_ms.to_be_bytes());
        frame.extend(payload);
        frame
    });
    prop_oneof![9 => ours, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

#[derive(Clone, Debug)]
enum Step {
    Frame(Vec<u8>),
    Bare(Vec<u8>),
    Packet(Vec<u8>),
    Configure(AudioConfig),
    Attached(Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let codec = prop::sample::select(vec![Codec::Pcm16le, Codec::Opus, Codec::Lc3]);
    let rate =
        prop_oneof![prop::sample::select(vec![8_000_u32, 11_025, 16_000, 44_100, 48_000]), any::<u32>()];
    let format = (codec, rate, 0..4u8).prop_map(|(codec, sample_rate, channels)| AudioConfig {
        codec,
        sample_rate,
        channels,
    });
    prop_oneof![
        20 => frame().prop_map(Step::Frame),
        3 => frame().prop_map(Step::Bare),
        5 => frame().prop_map(Step::Packet),
        2 => format.prop_map(Step::Configure),
        1 => prop::option::of(0..400u32).prop_map(Step::Attached),
    ]
}

#[test]
fn no_bytes_make_the_audio_decoders_panic_or_grow() {
    // The reorder buffer and the decoders, and the result of a step, which is largest for 8 kHz mono.
    const STANDING: usize = 2 * MAX_HELD_BYTES + 256 * 1024;
    let bound = |bytes: usize| STANDING + 16 * bytes + 16 * MAX_BACKFILL_SAMPLES;
    fuzz(prop::collection::vec((step(), 0..1_500u64), 1..40), |steps| {
        let (result, held) = most_held(|| {
            let (mut uplink, mut packets, mut now) =
                (UplinkDecoder::default(), DataPacketBuffer::default(), clock::now());
            for (step, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                match step {
                    Step::Frame(bytes) => {
                        if let Ok(up) = UplinkFrame::decode(Bytes::from(bytes)) {
                            let _ = uplink.take(up, now);
                        }
                    }
                    Step::Bare(bytes) => drop(uplink.take_bare(&bytes)),
                    Step::Packet(bytes) => packets.push(&bytes, now),
                    Step::Configure(format) => drop(uplink.configure(format)),
                    Step::Attached(sent) => drop(uplink.attached(sent, now)),
                }
                uplink.due(now);
                while packets.due(now).is_some() {}
                prop_assert!(uplink.deadline().is_none_or(|at| at > now));
            }
            Ok(())
        });
        prop_assert!(held <= bound(MAX_BINARY_BYTES), "{held} bytes");
        result
    });
}
