//! Puts the numbered frames of a client in order. Pure.
//!
//! ```text
//!   arrived …118 119 ✂        the connection breaks; frames 120 to 123 are lost on the way or not sent
//!   reconnects: 126 127       live: they wait, because the client may send back-fill
//!   back-fill:  120 121 … 125
//!   output:     120 121 … 125 126 127
//! ```
//!
//! Duplicates are dropped, missing frames counted. After a reconnect live frames wait [`REORDER_TIMEOUT`] for what
//! is missing, and as long again after each frame of back-fill; beyond [`MAX_HELD_BYTES`] they wait no longer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::protocol::edge_v1::audio::UplinkFrame;

/// How long live frames wait for earlier frames that may still come.
pub const REORDER_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum of bytes that wait: more than five seconds of 16 kHz PCM.
pub const MAX_HELD_BYTES: usize = 192 * 1024;

/// The overhead of a frame beside its payload, counted so that many small frames have a limit, too.
const FRAME_COST: usize = 64;

/// A frame in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTurn {
    /// How many frames before it are missing.
    pub missing: u32,
    /// The frame.
    pub frame: UplinkFrame,
}

/// Orders one client's frames.
#[derive(Debug, Default)]
pub struct ReorderBuffer {
    /// The number of the last frame that was released.
    last: Option<u32>,
    returning: Option<Returning>,
}

/// A client that reconnected, and may send back-fill.
#[derive(Debug)]
struct Returning {
    /// When live frames stop waiting.
    until: Instant,
    /// Live frames, by number.
    held: VecDeque<UplinkFrame>,
    held_bytes: usize,
}

/// What happened to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was released, or waits.
    Taken,
    /// It came too late, or twice.
    Stale,
}

impl ReorderBuffer {
    /// The number of the last frame that was released.
    pub fn last(&self) -> Option<u32> {
        self.last
    }

    /// The client reconnected, and had sent frames up to this number (0: it counts from the beginning).
    /// Releases what waited.
    pub fn resume(&mut self, sent: u32, now: Instant) -> Vec<InTurn> {
        let late = self.release();
        match self.last {
            // The same numbering: frames that were sent and did not arrive may come as back-fill.
            Some(last) if sent != 0 && (sent == last || is_ahead(sent, last)) => {
                let until = now + REORDER_TIMEOUT;
                self.returning = Some(Returning { until, held: VecDeque::new(), held_bytes: 0 });
            }
            // The gateway or the client was restarted: every frame is new here. The client leaves out those
            // whose transcript it has.
            Some(_) | None => self.last = None,
        }
        late
    }

    /// A frame arrived: puts it, and those that waited for it, into `out`.
    pub fn take(&mut self, frame: UplinkFrame, now: Instant, out: &mut Vec<InTurn>) -> Arrival {
        let Some(last) = self.last else {
            self.pass(frame, out);
            return Arrival::Taken;
        };
        if !is_ahead(frame.seq, last) {
            return Arrival::Stale;
        }
        let Some(returning) = &mut self.returning else {
            self.pass(frame, out);
            return Arrival::Taken;
        };
        if frame.backfill {
            returning.until = now + REORDER_TIMEOUT;
        } else if frame.seq != last.wrapping_add(1) {
            return self.hold(frame, out);
        }
        self.in_place(frame, out);
        Arrival::Taken
    }

    /// When [`due`](Self::due) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.returning.as_ref().map(|returning| returning.until)
    }

    /// Releases what has waited long enough.
    pub fn due(&mut self, now: Instant) -> Vec<InTurn> {
        match &self.returning {
            Some(returning) if now >= returning.until => self.release(),
            Some(_) | None => Vec::new(),
        }
    }

    /// A frame that need not wait, and the ones behind it.
    fn in_place(&mut self, frame: UplinkFrame, out: &mut Vec<InTurn>) {
        let before = self.take_held(|held| is_ahead(frame.seq, held.seq));
        before.into_iter().for_each(|held| self.pass(held, out));
        let (is_live, seq) = (!frame.backfill, frame.seq);
        self.pass(frame, out);
        // It may have come before, and waited.
        drop(self.take_held(|held| held.seq == seq));
        while let Some(last) = self.last
            && let Some(next) = self.take_held(|held| held.seq == last.wrapping_add(1)).into_iter().next()
        {
            self.pass(next, out);
        }
        // Back-fill has reached the live frames: it is complete.
        let reached = is_live || out.last().is_some_and(|turn| !turn.frame.backfill);
        if reached && self.returning.as_ref().is_some_and(|returning| returning.held.is_empty()) {
            self.returning = None;
        }
    }

    /// Takes frames from the front of those that wait, while they are wanted.
    fn take_held(&mut self, wanted: impl Fn(&UplinkFrame) -> bool) -> Vec<UplinkFrame> {
        let mut taken = Vec::new();
        if let Some(returning) = &mut self.returning {
            while returning.held.front().is_some_and(&wanted) {
                taken.extend(returning.held.pop_front());
            }
            let freed: usize = taken.iter().map(cost).sum();
            returning.held_bytes -= freed;
        }
        taken
    }

    fn hold(&mut self, frame: UplinkFrame, out: &mut Vec<InTurn>) -> Arrival {
        let Some(returning) = &mut self.returning else { return Arrival::Taken };
        let at = returning.held.partition_point(|held| is_ahead(frame.seq, held.seq));
        if returning.held.get(at).is_some_and(|held| held.seq == frame.seq) {
            return Arrival::Stale;
        }
        returning.held_bytes += cost(&frame);
        returning.held.insert(at, frame);
        if returning.held_bytes > MAX_HELD_BYTES {
            out.extend(self.release());
        }
        Arrival::Taken
    }

    /// Releases everything that waits.
    fn release(&mut self) -> Vec<InTurn> {
        let mut out = Vec::new();
        let held = self.returning.take().map(|returning| returning.held).unwrap_or_default();
        held.into_iter().for_each(|frame| self.pass(frame, &mut out));
        out
    }

    fn pass(&mut self, frame: UplinkFrame, out: &mut Vec<InTurn>) {
        let ahead = self.last.map_or(1, |last| frame.seq.wrapping_sub(last));
        self.last = Some(frame.seq);
        out.push(InTurn { missing: ahead - 1, frame });
    }
}

/// Whether `seq` comes after `last`, by serial number arithmetic (RFC 1982).
fn is_ahead(seq: u32, last: u32) -> bool {
    (1..=u32::MAX / 2).contains(&seq.wrapping_sub(last))
}

fn cost(frame: &UplinkFrame) -> usize {
    frame.payload.len() + FRAME_COST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock, protocol::edge_v1::audio::Codec};

    fn frame(seq: u32, backfill: bool) -> UplinkFrame {
        let payload = vec![0; 640].into();
        UplinkFrame {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill,
            end: false,
            seq,
            capture_ms: 0,
            payload,
        }
    }

    /// An order that has taken frames up to this one.
    fn after(seq: u32) -> ReorderBuffer {
        ReorderBuffer { last: Some(seq), returning: None }
    }

    struct Rig {
        order: ReorderBuffer,
        now: Instant,
        turns: Vec<(u32, u32)>,
    }

    impl Rig {
        fn returned(last: u32, sent: u32) -> Self {
            let (mut order, now) = (after(last), clock::now());
            order.resume(sent, now);
            Self { order, now, turns: Vec::new() }
        }

        fn take(&mut self, seq: u32, backfill: bool) -> Arrival {
            let mut out = Vec::new();
            let arrival = self.order.take(frame(seq, backfill), self.now, &mut out);
            self.note(&out);
            arrival
        }

        fn note(&mut self, out: &[InTurn]) {
            self.turns.extend(out.iter().map(|turn| (turn.frame.seq, turn.missing)));
        }

        fn numbers(&self) -> Vec<u32> {
            self.turns.iter().map(|(seq, _)| *seq).collect()
        }
    }

    #[test]
    fn back_fill_that_comes_after_the_live_sound_is_put_before_it() {
        let mut rig = Rig::returned(119, 123);
        for (seq, backfill) in [(126, false), (120, true), (121, true), (127, false), (122, true)] {
            rig.take(seq, backfill);
        }
        assert_eq!(rig.numbers(), [120, 121, 122]);
        for seq in 123..=125 {
            rig.take(seq, true);
        }

        assert_eq!(rig.numbers(), (120..=127).collect::<Vec<_>>());
        assert!(rig.turns.iter().all(|(_, missing)| *missing == 0));
        assert_eq!(rig.order.deadline(), None, "nothing more is waited for");
    }

    #[test]
    fn back_fill_that_comes_first_waits_for_nothing() {
        let mut rig = Rig::returned(119, 119);
        for (seq, backfill) in [(120, true), (121, true), (122, false), (123, false)] {
            rig.take(seq, backfill);
        }
        assert_eq!(rig.numbers(), [120, 121, 122, 123]);
        assert_eq!(rig.order.deadline(), None);
    }

    #[test]
    fn live_sound_waits_no_longer_than_its_patience() {
        let mut rig = Rig::returned(119, 123);
        rig.take(124, false);
        rig.take(125, false);
        assert_eq!((rig.numbers().len(), rig.order.deadline()), (0, Some(rig.now + REORDER_TIMEOUT)));

        let out = rig.order.due(rig.now + REORDER_TIMEOUT);
        rig.note(&out);
        rig.take(126, false);

        assert_eq!(rig.turns, [(124, 4), (125, 0), (126, 0)]);
        assert_eq!(rig.take(120, true), Arrival::Stale, "too late");
    }

    #[test]
    fn a_client_that_kept_less_than_was_lost_goes_on_with_what_it_kept() {
        let mut rig = Rig::returned(100, 110);
        rig.take(160, true);
        rig.take(161, true);
        rig.take(162, false);
        assert_eq!(rig.turns, [(160, 59), (161, 0), (162, 0)]);
    }

    #[test]
    fn frames_that_arrived_before_the_break_are_not_heard_again() {
        let mut rig = Rig::returned(119, 123);
        for seq in 115..=119 {
            assert_eq!(rig.take(seq, true), Arrival::Stale);
        }
        rig.take(120, true);
        assert_eq!(rig.numbers(), [120]);
    }

    #[test]
    fn a_gateway_that_was_restarted_hears_whatever_the_client_sends_again() {
        let (mut order, mut out, now) = (ReorderBuffer::default(), Vec::new(), clock::now());
        order.resume(123, now);
        for seq in [120, 121] {
            assert_eq!(order.take(frame(seq, true), now, &mut out), Arrival::Taken);
        }
        assert_eq!(order.take(frame(121, true), now, &mut out), Arrival::Stale);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_client_that_was_restarted_counts_from_the_beginning() {
        for sent in [0, 40] {
            let (mut order, mut out, now) = (after(119), Vec::new(), clock::now());
            order.resume(sent, now);
            assert_eq!(order.take(frame(sent + 1, false), now, &mut out), Arrival::Taken);
            assert_eq!(order.last(), Some(sent + 1));
        }
    }

    #[test]
    fn a_frame_that_waits_and_comes_again_as_back_fill_is_heard_once() {
        let mut rig = Rig::returned(10, 20);
        for (seq, backfill) in [(21, false), (22, false), (21, true)] {
            rig.take(seq, backfill);
        }
        assert_eq!(rig.numbers(), [21, 22]);
    }

    #[test]
    fn too_much_that_waits_is_let_go() {
        let mut rig = Rig::returned(0, 10);
        for seq in 100..1_000 {
            rig.take(seq, false);
        }
        assert_eq!(rig.numbers(), (100..1_000).collect::<Vec<_>>());
    }

    proptest! {
        /// Whatever comes, every number has its turn once at most, in order, what is missing adds up, and
        /// what waits is bounded.
        #[test]
        fn turns_go_up_and_add_up(
            first: u32,
            frames in prop::collection::vec((0..60u32, any::<bool>(), 0..300u64, 0..20u8), 0..200),
        ) {
            let (mut order, mut now) = (after(first), clock::now());
            let mut turns = Vec::new();
            for (number, backfill, wait_ms, resume) in frames {
                now += Duration::from_millis(wait_ms);
                turns.extend(order.due(now));
                let sent = first.wrapping_add(60);
                if resume == 0 && sent != 0 {
                    turns.extend(order.resume(sent, now));
                }
                let arrived = frame(first.wrapping_add(number), backfill);
                order.take(arrived, now, &mut turns);
                let held = order.returning.as_ref().map_or(0, |returning| returning.held_bytes);
                let counted = order.returning.as_ref().map_or(0, |returning| returning.held.iter().map(cost).sum());
                prop_assert!(held <= MAX_HELD_BYTES);
                prop_assert_eq!(held, counted);
            }
            turns.extend(order.release());
            let mut last = 0;
            for turn in turns {
                let number = turn.frame.seq.wrapping_sub(first);
                prop_assert_eq!(number, last + turn.missing + 1);
                last = number;
            }
        }
    }
}
