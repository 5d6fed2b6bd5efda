//! The jitter buffer: takes packets as the network delivers them, and says what to play and when.
//!
//! Listeners here are programs, not loudspeakers, so nothing is delayed to make the pace even: a packet that is
//! next in line is played when it arrives, and the buffer waits only behind a hole.
//!
//! ```text
//!          in order              hole                            nothing comes
//! arrives ───────────▶ play   ───────▶ hold, then:          ────────────────────▶ fill in real time
//!                                       · late original                             · concealment, then silence
//!                                       · copy from RED         the next packet ends it; the sender's clock says
//!                                       · sent again (NACK)     how long the pause was, and what is still owed
//!                                       · in-band FEC           of it is played first
//!                                       · concealment
//! ```
//!
//! - **Adaptive**: how long it holds behind a hole follows how late packets really come there, by themselves or sent
//!   again ([`MIN_HOLD`]..[`MAX_HOLD`]), and when a pause counts as one follows the network's jitter
//!   ([`MIN_IDLE`]..[`MAX_IDLE`]).
//! - **The stream's length is the sender's**: sound and gaps are counted by RTP timestamps, and filler that turned
//!   out too long is taken off the next pause. Clock drift between the two ends therefore never adds up.
//! - **Bounded**: at most [`MAX_HELD`] of sound waits; a burst is let out at twice real time after its first
//!   [`BURST`], so that a reader with the default queue of 100 ms loses nothing.
//! - One buffer plays one source at a time. Another SSRC, or a jump that no network makes, starts over.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::format::OPUS_CLOCK;
use super::opus::{self, MIN_FRAME_TICKS};

/// The least time to wait behind a hole. One packet of 20 ms behind it, the original may still be in a switch's
/// other queue.
const MIN_HOLD: Duration = Duration::from_millis(20);
/// The most time to wait behind a hole: with the packet that shows the hole, the added delay stays under 80 ms.
const MAX_HOLD: Duration = Duration::from_millis(55);
/// What a packet's lateness is raised by to get the hold.
const HOLD_MARGIN: Duration = Duration::from_millis(10);

/// The least time without a packet that counts as a pause.
const MIN_IDLE: Duration = Duration::from_millis(80);
/// The most time without a packet that does not count as a pause yet, however bad the jitter.
const MAX_IDLE: Duration = Duration::from_millis(300);

/// Each packet forgets this fraction of what was learnt: half is gone after 180 packets, 3.5 s of speech.
const FORGET: u32 = 256;

/// Sound that may wait for a hole or for its turn. What is beyond that is skipped, the oldest first.
const MAX_HELD: Duration = Duration::from_millis(1_000);
/// Behind a hole no more than this waits, whatever the hold says.
const MAX_BEHIND_HOLE: Duration = Duration::from_millis(120);
/// Sound that may leave at once; what is beyond that leaves at twice real time.
const BURST: Duration = Duration::from_millis(80);

/// The longest hole that is concealed; a longer one is a pause. Beyond this libopus has faded to silence.
const MAX_CONCEALED: i64 = ms(120);
/// In a pause, how long concealment goes on before it becomes silence: long enough to fade without a click.
const FADE: Duration = Duration::from_millis(60);
/// After a DTX packet concealment is comfort noise, which the sender refreshes each 400 ms.
const COMFORT_NOISE: Duration = Duration::from_millis(500);
/// Filler is played in steps of this length, and in longer ones once the pause is old: muted tracks are common
/// and should cost next to nothing.
const FILL_STEP: Duration = Duration::from_millis(20);
const OLD_FILL_STEP: Duration = Duration::from_millis(50);
const OLD_PAUSE: Duration = Duration::from_secs(1);

/// A sequence number further away than this is a new beginning (10 s of 20 ms packets).
const MAX_SEQ_JUMP: i64 = 500;
/// As many packets in a row that come too late, and none in time for as long, mean that the sender began anew with
/// lower numbers. Sent again and too late, many may come at once.
const MAX_LATE_RUN: u32 = 10;
const LATE_RUN: Duration = Duration::from_millis(100);
/// For this long after a change of source, packets of the one before are stragglers and not another change.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// A pause may be longer by the sender's clock than by ours by this much: jitter, drift, a buffered start.
const PAUSE_SLACK: i64 = ms(1_000);

const fn ms(ms: i64) -> i64 {
    ms * (OPUS_CLOCK / 1000) as i64
}

/// An Opus packet off the network.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// Its source. Another one starts over.
    pub ssrc: u32,
    /// Its sequence number.
    pub seq: u16,
    /// Its timestamp in ticks of 48 kHz.
    pub time: u32,
    /// The Opus packet.
    pub payload: Arc<[u8]>,
}

/// One step of what to play. Lengths are in ticks of 48 kHz and multiples of 2.5 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Play {
    /// Another source, or the same one after a jump: what the decoder remembers is of no use.
    Restart,
    /// This packet.
    Packet {
        /// The Opus packet.
        payload: Arc<[u8]>,
        /// Its length.
        ticks: u32,
    },
    /// The packet lost right before this one, from the copy of low bitrate in it (FEC), or concealed if there is
    /// none.
    Recover {
        /// The Opus packet that follows the lost one.
        next: Arc<[u8]>,
        /// The length of the lost one.
        ticks: u32,
    },
    /// What the decoder makes up to cover a loss, or as comfort noise.
    Conceal {
        /// For how long.
        ticks: u32,
    },
    /// Nothing.
    Silence {
        /// For how long.
        ticks: u32,
    },
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets taken, not counting duplicates.
    pub packets: u64,
    /// Packets that came a second time.
    pub duplicates: u64,
    /// Packets that came after their place had been played.
    pub late: u64,
    /// Packets that came out of order and in time.
    pub reordered: u64,
    /// Packets that were not there when their turn came, and had no copy.
    pub lost: u64,
    /// Packets played from a RED copy.
    pub from_red: u64,
    /// Packets skipped because too much sound waited.
    pub skipped: u64,
    /// Holes that were concealed.
    pub concealments: u64,
    /// Ticks played in all.
    pub played_ticks: u64,
    /// Ticks of those that were concealed, FEC included.
    pub concealed_ticks: u64,
    /// Ticks of those that were filler: silence or comfort noise in a pause.
    pub filler_ticks: u64,
    /// The time that packets waited here, in microseconds, times their length in ticks.
    pub waited_tick_us: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct JitterBuffer {
    /// The source and place that play; `None` until the first packet.
    source: Option<Source>,
    /// The source before, and when it was left.
    left: Option<(u32, Instant)>,
    /// Packets that wait, by unwrapped sequence number.
    held: BTreeMap<i64, Held>,
    /// Steps that are decided and wait only for the pace.
    plays: VecDeque<Play>,
    /// When the next step may leave, see [`BURST`].
    free_at: Option<Instant>,
    network: Network,
    counters: Counters,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    /// The highest sequence number and its timestamp, unwrapped: what new ones are unwrapped against.
    newest: (i64, i64),
    /// The place whose turn it is.
    next: Place,
    /// When the last packet came, and whether it was DTX.
    last: Last,
    /// When the last packet was played.
    played_at: Instant,
    /// When a packet first waited behind the present hole.
    hole_since: Option<Instant>,
    /// The last hole that was given up, and since when it had been one.
    given_up: Option<(Range<i64>, Instant)>,
    /// Filler played minus pauses the sender's clock showed, in ticks: positive is ahead of the sender.
    ahead: i64,
    /// When the next step of filler is due. Set while nothing waits.
    fill_at: Option<Instant>,
    /// Whether the filler of this pause has faded to silence.
    faded: bool,
    late_run: u32,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    seq: i64,
    time: i64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    ticks: u32,
    dtx: bool,
}

#[derive(Debug)]
struct Held {
    time: i64,
    ticks: u32,
    payload: Arc<[u8]>,
    at: Instant,
    red: bool,
}

impl JitterBuffer {
    /// Takes a packet. What is no Opus is dropped.
    pub(crate) fn insert(&mut self, packet: Packet, now: Instant) {
        let Some(ticks) = opus::ticks(&packet.payload) else {
            return;
        };
        if self.left.is_some_and(|(ssrc, at)| ssrc == packet.ssrc && now < at + STRAGGLERS) {
            self.counters.late += 1;
            return;
        }
        let (seq, time) = self.place(&packet, now);
        let Some(source) = &mut self.source else {
            return;
        };
        if seq < source.next.seq {
            if let Some((_, since)) = source.given_up.as_ref().filter(|(seqs, _)| seqs.contains(&seq)) {
                self.network.came(now.saturating_duration_since(*since));
            }
            self.counters.late += 1;
            source.late_run += 1;
            if source.late_run < MAX_LATE_RUN || now < source.last.at + LATE_RUN {
                return;
            }
            self.begin(&packet, now);
            return self.insert(packet, now);
        }
        source.late_run = 0;
        if self.held.get(&seq).is_some_and(|held| !held.red) {
            self.counters.duplicates += 1;
            return;
        }
        self.counters.packets += 1;
        if seq < source.newest.0 {
            self.counters.reordered += 1;
            if let Some(since) = source.hole_since {
                self.network.came(now.saturating_duration_since(since));
            }
        } else {
            if time - source.newest.1 > ticks_of(MIN_IDLE) {
                // How long a pause was by the sender's clock says nothing of the network.
                self.network.restart();
            }
            self.network.arrived(time, now);
            source.newest = (seq, time);
            source.last = Last { at: now, ticks, dtx: opus::is_dtx(&packet.payload) };
        }
        source.fill_at = None;
        let held = Held { time, ticks, payload: packet.payload, at: now, red: false };
        self.held.insert(seq, held);
        self.skip_excess();
    }

    /// Takes a copy of the packet `before` sequence numbers ahead of `packet`, which must have been inserted.
    /// It is kept only where there is a hole.
    pub(crate) fn insert_copy(
        &mut self,
        packet: &Packet,
        before: u16,
        ticks_before: u32,
        payload: Arc<[u8]>,
        now: Instant,
    ) {
        let (Some(source), Some(ticks)) = (&mut self.source, opus::ticks(&payload)) else {
            return;
        };
        if packet.ssrc != source.ssrc {
            return;
        }
        let (seq, time) = source.unwrap(packet);
        let (seq, time) = (seq - i64::from(before), time - i64::from(ticks_before));
        // A copy must fit between what was played and the packet it came in; anything else is a copy of
        // something that was not sent with the neighbouring number.
        let fits = time >= source.next.time && ticks <= ticks_before;
        if seq < source.next.seq || !fits || self.held.contains_key(&seq) {
            return;
        }
        self.held.insert(seq, Held { time, ticks, payload, at: now, red: true });
    }

    /// The next step, if one is due. To be called until there is none, after each packet and at each
    /// [`Self::deadline`].
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Play> {
        if self.free_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.plays.is_empty() {
            self.decide(now);
        }
        let play = self.plays.pop_front()?;
        self.count(&play);
        let ticks = play.ticks();
        let earliest = now.checked_sub(BURST / 2).unwrap_or(now);
        let free_at = self.free_at.map_or(earliest, |at| at.max(earliest));
        self.free_at = Some(free_at + duration(ticks) / 2);
        Some(play)
    }

    /// When [`Self::poll`] has something to say if no packet comes before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let source = self.source.as_ref()?;
        let free_at = self.free_at.unwrap_or(source.last.at);
        if !self.plays.is_empty() {
            return Some(free_at);
        }
        let due = match self.held.first_key_value() {
            Some((seq, _)) if *seq == source.next.seq => free_at,
            Some((_, first)) => source.hole_since.unwrap_or(first.at) + self.network.hold,
            None => source.fill_at.unwrap_or_else(|| self.pause_begins(source)),
        };
        Some(due.max(free_at))
    }

    /// Whether something is missing that the peer may still send again in time.
    pub(crate) fn has_hole(&self) -> bool {
        let next = self.source.as_ref().map(|source| source.next.seq);
        self.held.first_key_value().map(|(seq, _)| *seq) > next
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// The network's jitter, in seconds (RFC 3550 §6.4.1).
    pub(crate) fn jitter_s(&self) -> f64 {
        self.network.jitter_ticks / f64::from(OPUS_CLOCK)
    }

    /// Unwraps the packet's numbers; starts over if they belong to another source.
    fn place(&mut self, packet: &Packet, now: Instant) -> (i64, i64) {
        let known = self.source.as_ref().filter(|source| source.ssrc == packet.ssrc).map(|source| {
            let place = source.unwrap(packet);
            (place, place.0 - source.newest.0 <= MAX_SEQ_JUMP)
        });
        match known {
            Some((place, true)) => place,
            _ => self.begin(packet, now),
        }
    }

    /// Makes `packet` the first of its source. What waited of the one before is played first.
    fn begin(&mut self, packet: &Packet, now: Instant) -> (i64, i64) {
        for (_, held) in std::mem::take(&mut self.held) {
            self.plays.push_back(Play::Packet { payload: held.payload, ticks: held.ticks });
        }
        if let Some(before) = &self.source {
            self.plays.push_back(Play::Restart);
            if before.ssrc != packet.ssrc {
                self.left = Some((before.ssrc, now));
            }
        }
        let (seq, time) = (i64::from(packet.seq), i64::from(packet.time));
        self.source = Some(Source {
            ssrc: packet.ssrc,
            newest: (seq, time),
            next: Place { seq, time },
            last: Last { at: now, ticks: 0, dtx: false },
            played_at: now,
            hole_since: None,
            given_up: None,
            ahead: 0,
            fill_at: None,
            faded: false,
            late_run: 0,
        });
        self.network.restart();
        (seq, time)
    }

    /// Finds out what comes next and puts it into `plays`.
    fn decide(&mut self, now: Instant) {
        let Some(source) = &mut self.source else {
            return;
        };
        let Some((&seq, first)) = self.held.first_key_value() else {
            return self.fill(now);
        };
        let missing = seq - source.next.seq;
        if missing > 0 {
            let since = *source.hole_since.get_or_insert(first.at);
            let behind = source.newest.1 - first.time;
            let give_up = now >= since + self.network.hold || duration_of(behind) >= MAX_BEHIND_HOLE;
            if !give_up {
                return;
            }
            self.counters.lost += missing.unsigned_abs();
            self.network.gave_up();
            source.given_up = Some((source.next.seq..seq, since));
        }
        self.network.forget();
        source.hole_since = None;
        let Some((_, held)) = self.held.pop_first() else {
            return;
        };
        let gap = held.time - source.next.time;
        source.next = Place { seq: seq + 1, time: held.time + i64::from(held.ticks) };
        let passed = ticks_of(now.saturating_duration_since(source.played_at));
        let faded = std::mem::take(&mut source.faded);
        source.played_at = now;
        if gap > passed + PAUSE_SLACK || gap < -MAX_CONCEALED {
            // The sender's clock jumped; how long the pause was can't be known.
            self.plays.push_back(Play::Restart);
            source.ahead = 0;
        } else {
            source.ahead -= gap;
            let owed = whole_frames(-source.ahead);
            source.ahead = source.ahead.max(0);
            if missing > 0 && owed > 0 {
                self.counters.concealments += 1;
                conceal(&mut self.plays, owed, &held);
            } else if owed > 0 {
                let rest = if faded { Play::Silence { ticks: owed } } else { Play::Conceal { ticks: owed } };
                self.plays.push_back(rest);
            }
        }
        self.counters.from_red += u64::from(held.red);
        let waited_us = u64::try_from(now.saturating_duration_since(held.at).as_micros()).unwrap_or(u64::MAX);
        self.counters.waited_tick_us =
            self.counters.waited_tick_us.saturating_add(waited_us.saturating_mul(held.ticks.into()));
        self.plays.push_back(Play::Packet { payload: held.payload, ticks: held.ticks });
    }

    /// Plays filler in real time while nothing waits.
    fn fill(&mut self, now: Instant) {
        let Some(source) = &self.source else {
            return;
        };
        let begins = self.pause_begins(source);
        let at = source.fill_at.unwrap_or(begins);
        if now < at {
            return;
        }
        let old = now.saturating_duration_since(begins);
        let step = if old >= OLD_PAUSE { OLD_FILL_STEP } else { FILL_STEP };
        let sounding = if source.last.dtx { COMFORT_NOISE } else { FADE };
        let ticks = u32::try_from(ticks_of(step)).unwrap_or(MIN_FRAME_TICKS);
        let play = if old < sounding { Play::Conceal { ticks } } else { Play::Silence { ticks } };
        // A thread that slept through several steps makes them up, but not a whole suspend of the machine.
        let next = if now.saturating_duration_since(at) > MAX_HELD { now } else { at };
        if let Some(source) = &mut self.source {
            source.fill_at = Some(next + step);
            source.faded = old >= sounding;
            source.ahead += i64::from(ticks);
        }
        self.counters.filler_ticks += u64::from(ticks);
        self.plays.push_back(play);
    }

    /// When the last packet has been silent for so long that a pause has begun.
    fn pause_begins(&self, source: &Source) -> Instant {
        source.last.at + duration(source.last.ticks) + self.network.idle()
    }

    /// Drops the oldest packets when more than [`MAX_HELD`] wait.
    fn skip_excess(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        while let Some((&seq, first)) = self.held.first_key_value() {
            if duration_of(source.newest.1 - first.time) <= MAX_HELD {
                return;
            }
            source.next = Place { seq: seq + 1, time: first.time + i64::from(first.ticks) };
            source.hole_since = None;
            self.counters.skipped += 1;
            self.held.pop_first();
        }
    }

    fn count(&mut self, play: &Play) {
        let ticks = u64::from(play.ticks());
        self.counters.played_ticks += ticks;
        if matches!(play, Play::Recover { .. } | Play::Conceal { .. }) {
            self.counters.concealed_ticks += ticks;
        }
    }
}

/// Covers a hole of `ticks` in front of `next`.
fn conceal(plays: &mut VecDeque<Play>, ticks: u32, next: &Held) {
    if i64::from(ticks) > MAX_CONCEALED {
        let fading = whole_frames(ticks_of(FADE));
        plays.push_back(Play::Conceal { ticks: fading });
        return plays.push_back(Play::Silence { ticks: ticks - fading });
    }
    // In-band FEC restores the one packet before `next`; what was lost before that is concealed.
    let restored = ticks.min(whole_frames(i64::from(next.ticks)));
    if ticks > restored {
        plays.push_back(Play::Conceal { ticks: ticks - restored });
    }
    plays.push_back(Play::Recover { next: next.payload.clone(), ticks: restored });
}

impl Play {
    pub(crate) fn ticks(&self) -> u32 {
        match self {
            Self::Restart => 0,
            Self::Packet { ticks, .. }
            | Self::Recover { ticks, .. }
            | Self::Conceal { ticks }
            | Self::Silence { ticks } => *ticks,
        }
    }
}

impl Source {
    /// The packet's numbers as if they had never wrapped around, as near as can be to the newest.
    fn unwrap(&self, packet: &Packet) -> (i64, i64) {
        let (seq, time) = self.newest;
        let seq_ahead = packet.seq.wrapping_sub(seq as u16) as i16;
        let time_ahead = packet.time.wrapping_sub(time as u32) as i32;
        (seq + i64::from(seq_ahead), time + i64::from(time_ahead))
    }
}

/// What is learnt about the network.
#[derive(Debug)]
struct Network {
    /// How long to wait behind a hole.
    hold: Duration,
    /// The worst lateness of late, against the fastest packet.
    worst: Duration,
    /// Arrival minus timestamp of the fastest packet of late, in ticks since `epoch`; creeps up so that it
    /// follows a slow clock.
    fastest: Option<(Instant, f64)>,
    /// RFC 3550 §6.4.1.
    jitter_ticks: f64,
    last_transit: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            // Whether packets come late or not at all is worth finding out.
            hold: MAX_HOLD,
            worst: Duration::ZERO,
            fastest: None,
            jitter_ticks: 0.0,
            last_transit: 0.0,
        }
    }
}

impl Network {
    /// Creep of the fastest transit per packet, in ticks: 200 ppm of 20 ms, more than crystals differ.
    const CREEP: f64 = 0.2;

    fn restart(&mut self) {
        self.fastest = None;
    }

    /// A packet came in its turn. Those that are sent again are late for another reason, and would make every pause
    /// begin later.
    fn arrived(&mut self, time: i64, now: Instant) {
        let (epoch, fastest) = *self.fastest.get_or_insert((now, f64::from(u32::MAX)));
        let elapsed = now.saturating_duration_since(epoch).as_secs_f64() * f64::from(OPUS_CLOCK);
        let transit = elapsed - time as f64;
        if fastest != f64::from(u32::MAX) {
            self.jitter_ticks += ((transit - self.last_transit).abs() - self.jitter_ticks) / 16.0;
        }
        self.last_transit = transit;
        let fastest = (fastest + Self::CREEP).min(transit);
        self.fastest = Some((epoch, fastest));
        let late = Duration::from_secs_f64((transit - fastest).max(0.0) / f64::from(OPUS_CLOCK));
        self.worst = self.worst.max(late.min(MAX_IDLE));
    }

    /// A packet came so long after its absence showed, be it given up meanwhile or not. Up at once, down by and by.
    fn came(&mut self, late: Duration) {
        if late < MAX_HOLD {
            let enough = (late + late / 2 + HOLD_MARGIN).clamp(MIN_HOLD, MAX_HOLD);
            self.hold = enough.max((self.hold * 3 + enough) / 4);
        }
    }

    /// A hole was waited for in vain.
    fn gave_up(&mut self) {
        self.hold = (self.hold * 3 / 4).max(MIN_HOLD);
    }

    fn forget(&mut self) {
        self.worst -= self.worst / FORGET;
    }

    fn idle(&self) -> Duration {
        (MIN_IDLE + self.worst).min(MAX_IDLE)
    }
}

/// Whole frames of 2.5 ms in `ticks`.
fn whole_frames(ticks: i64) -> u32 {
    let ticks = u32::try_from(ticks).unwrap_or(0);
    ticks - ticks % MIN_FRAME_TICKS
}

fn duration(ticks: u32) -> Duration {
    Duration::from_micros(u64::from(ticks) * 1_000_000 / u64::from(OPUS_CLOCK))
}

fn duration_of(ticks: i64) -> Duration {
    duration(u32::try_from(ticks.max(0)).unwrap_or(u32::MAX))
}

fn ticks_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros() * u128::from(OPUS_CLOCK) / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
