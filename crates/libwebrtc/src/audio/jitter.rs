//! The jitter buffer: reorders received packets and decides what to play out and when.
//!
//! The output is read by programs, not by a sound card, so no playout delay is added to even out jitter: a packet in
//! sequence is played out on arrival, and the buffer waits only behind a gap in the sequence numbers.
//!
//! ```text
//!          in order              gap                             no packet
//! arrival ───────────▶ play   ───────▶ wait for one of:     ────────────────────▶ fill in real time
//!                                       · late original                             · concealment, then silence
//!                                       · copy from RED         The next packet ends the pause. Its RTP timestamp
//!                                       · retransmission        gives the length of the pause; the part of it that
//!                                       otherwise use:          was not filled yet is played out first.
//!                                       · in-band FEC
//!                                       · concealment
//! ```
//!
//! - **Adaptive**: the wait behind a gap follows the measured delay of late and retransmitted packets
//!   ([`MIN_GAP_WAIT`]..[`MAX_GAP_WAIT`]). The time without packets after which a pause begins follows the jitter of
//!   the network ([`MIN_PAUSE_TIMEOUT`]..[`MAX_PAUSE_TIMEOUT`]).
//! - **The output is as long as the sender's signal**: audio and gaps are measured in RTP timestamps, and excess filler
//!   is subtracted from the next pause. Clock drift between the two ends therefore does not accumulate.
//! - **Bounded**: at most [`MAX_BUFFERED`] of audio is buffered. A burst is released at twice real time after its first
//!   [`MAX_BURST`], so that a reader with the default queue of 100 ms drops no frame.
//! - A buffer plays one source at a time. Another SSRC, or an implausible jump of the sequence number, resets it.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::format::OPUS_CLOCK;
use super::opus::{self, MIN_FRAME_TICKS};

/// Minimum wait behind a gap. One packet of 20 ms later, a reordered original may still arrive.
const MIN_GAP_WAIT: Duration = Duration::from_millis(20);
/// Maximum wait behind a gap. Together with the 20 ms packet that reveals the gap, the added delay stays under 80 ms.
const MAX_GAP_WAIT: Duration = Duration::from_millis(55);
/// Added to the measured delay of a late packet to get the wait.
const GAP_WAIT_MARGIN: Duration = Duration::from_millis(10);

/// Minimum time without a packet before a pause begins.
const MIN_PAUSE_TIMEOUT: Duration = Duration::from_millis(80);
/// Maximum time without a packet before a pause begins, whatever the jitter.
const MAX_PAUSE_TIMEOUT: Duration = Duration::from_millis(300);

/// The maximum lateness decays by this fraction with each packet: to half after 180 packets (3.5 s of speech).
const LATENESS_DECAY_DIVISOR: u32 = 256;

/// Maximum buffered audio. Beyond it the oldest packets are skipped.
const MAX_BUFFERED: Duration = Duration::from_millis(1_000);
/// Maximum audio buffered behind a gap: the gap is abandoned at this point even if the wait is not over.
const MAX_BUFFERED_BEHIND_GAP: Duration = Duration::from_millis(120);
/// Audio that may be released at once; more than that is released at twice real time.
const MAX_BURST: Duration = Duration::from_millis(80);

/// Longest gap that is concealed; a longer one is treated as a pause. libopus has faded to silence by then.
const MAX_CONCEALMENT_TICKS: i64 = ticks_in_ms(120);
/// Length of the concealment at the start of a pause, before silence: long enough to fade out without a click.
const FADE_DURATION: Duration = Duration::from_millis(60);
/// After a DTX packet, concealment yields comfort noise; the sender refreshes it every 400 ms.
const COMFORT_NOISE_DURATION: Duration = Duration::from_millis(500);
/// Length of one step of filler. Steps get longer after [`LONG_PAUSE`] to keep muted tracks, which are common, cheap.
const FILL_STEP: Duration = Duration::from_millis(20);
const LONG_PAUSE_FILL_STEP: Duration = Duration::from_millis(50);
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// A larger forward jump of the sequence number resets the buffer (10 s of 20 ms packets).
const MAX_SEQ_JUMP: i64 = 500;
/// This many late packets in a row, with none in time for [`MIN_LATE_RUN_DURATION`], mean that the sender restarted
/// with lower sequence numbers. The duration is needed because many late retransmissions can arrive at once.
const MAX_LATE_RUN: u32 = 10;
const MIN_LATE_RUN_DURATION: Duration = Duration::from_millis(100);
/// For this long after a change of SSRC, packets of the previous one are dropped instead of changing back.
const PREVIOUS_SOURCE_TIMEOUT: Duration = Duration::from_millis(500);
/// By how much a pause may be longer in RTP time than in local time: jitter, clock drift, a buffered start.
const PAUSE_SLACK_TICKS: i64 = ticks_in_ms(1_000);

const fn ticks_in_ms(ms: i64) -> i64 {
    ms * (OPUS_CLOCK / 1000) as i64
}

/// A received Opus packet.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub ssrc: u32,
    pub seq: u16,
    /// RTP timestamp, in ticks of 48 kHz.
    pub time: u32,
    /// The Opus packet, without RED.
    pub payload: Arc<[u8]>,
}

/// One step of the playout. Lengths are in ticks of 48 kHz and multiples of 2.5 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlayoutStep {
    /// Reset the decoder: the source changed or its timestamps jumped.
    Reset,
    /// Decode a packet.
    Packet {
        /// The Opus packet.
        payload: Arc<[u8]>,
        /// Its length.
        ticks: u32,
    },
    /// Decode the lost packet before `next` from the in-band FEC data in `next`. libopus conceals if there is none.
    DecodeFec {
        /// The Opus packet that follows the lost one.
        next: Arc<[u8]>,
        /// Length of the lost packet.
        ticks: u32,
    },
    /// Run the decoder's packet loss concealment, which also generates comfort noise.
    Conceal {
        /// Length.
        ticks: u32,
    },
    /// Play silence, without the decoder.
    Silence {
        /// Length.
        ticks: u32,
    },
}

/// Totals since the buffer was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets accepted, without duplicates.
    pub packets: u64,
    /// Packets received again.
    pub duplicates: u64,
    /// Packets received after their playout time.
    pub late: u64,
    /// Packets received out of order and in time.
    pub reordered: u64,
    /// Packets missing at their playout time, without a RED copy.
    pub lost: u64,
    /// Packets played out from a RED copy.
    pub from_red: u64,
    /// Packets skipped because more than [`MAX_BUFFERED`] was buffered.
    pub skipped: u64,
    /// Gaps that were concealed.
    pub concealments: u64,
    /// Total ticks played out.
    pub played_ticks: u64,
    /// Of these, ticks from concealment or in-band FEC.
    pub concealed_ticks: u64,
    /// Of these, ticks of filler: silence or comfort noise in a pause.
    pub filler_ticks: u64,
    /// Sum over packets of the time in the buffer in microseconds times the length in ticks.
    pub waited_tick_us: u64,
}

/// The jitter buffer of one track; see the module documentation.
#[derive(Debug, Default)]
pub(crate) struct JitterBuffer {
    /// The current source; `None` until the first packet.
    source: Option<Source>,
    /// SSRC of the previous source, and when it was replaced.
    previous_source: Option<(u32, Instant)>,
    /// Buffered packets by unwrapped sequence number.
    buffered: BTreeMap<i64, BufferedPacket>,
    /// Planned steps, limited only by the release rate.
    steps: VecDeque<PlayoutStep>,
    /// Earliest release of the next step, see [`MAX_BURST`].
    release_at: Option<Instant>,
    network: NetworkEstimate,
    counters: Counters,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    /// Highest sequence number and its timestamp, both unwrapped; reference for unwrapping new packets.
    newest: (i64, i64),
    /// Position of the next packet to play out.
    next: Position,
    /// Arrival of the last packet in order.
    last: LastPacket,
    /// When the last packet was played out.
    played_at: Instant,
    /// Arrival of the first packet behind the current gap.
    gap_since: Option<Instant>,
    /// Sequence numbers of the last abandoned gap, and when it was detected.
    abandoned_gap: Option<(Range<i64>, Instant)>,
    /// Filler played minus pauses by RTP timestamps, in ticks. Positive: the output is ahead of the sender.
    ahead_ticks: i64,
    /// When the next step of filler is due; set only in a pause.
    fill_at: Option<Instant>,
    /// Whether the filler of this pause is silence already.
    faded: bool,
    late_run: u32,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    seq: i64,
    time: i64,
}

#[derive(Debug, Clone, Copy)]
struct LastPacket {
    at: Instant,
    ticks: u32,
    dtx: bool,
}

#[derive(Debug)]
struct BufferedPacket {
    time: i64,
    ticks: u32,
    payload: Arc<[u8]>,
    at: Instant,
    red: bool,
}

impl JitterBuffer {
    /// Inserts a packet. A payload that is not a valid Opus packet is dropped.
    pub(crate) fn insert(&mut self, packet: Packet, now: Instant) {
        let Some(ticks) = opus::ticks(&packet.payload) else {
            return;
        };
        if self
            .previous_source
            .is_some_and(|(ssrc, at)| ssrc == packet.ssrc && now < at + PREVIOUS_SOURCE_TIMEOUT)
        {
            self.counters.late += 1;
            return;
        }
        let (seq, time) = self.unwrap_or_reset(&packet, now);
        let Some(source) = &mut self.source else {
            return;
        };
        if seq < source.next.seq {
            if let Some((_, since)) = source.abandoned_gap.as_ref().filter(|(seqs, _)| seqs.contains(&seq)) {
                self.network.record_late_arrival(now.saturating_duration_since(*since));
            }
            self.counters.late += 1;
            source.late_run += 1;
            if source.late_run < MAX_LATE_RUN || now < source.last.at + MIN_LATE_RUN_DURATION {
                return;
            }
            self.start_source(&packet, now);
            return self.insert(packet, now);
        }
        source.late_run = 0;
        if self.buffered.get(&seq).is_some_and(|buffered| !buffered.red) {
            self.counters.duplicates += 1;
            return;
        }
        self.counters.packets += 1;
        if seq < source.newest.0 {
            self.counters.reordered += 1;
            if let Some(since) = source.gap_since {
                self.network.record_late_arrival(now.saturating_duration_since(since));
            }
        } else {
            if time - source.newest.1 > ticks_of(MIN_PAUSE_TIMEOUT) {
                // After a pause of the sender the transit time is not comparable with those before.
                self.network.restart();
            }
            self.network.record_arrival(time, now);
            source.newest = (seq, time);
            source.last = LastPacket { at: now, ticks, dtx: opus::is_dtx(&packet.payload) };
        }
        source.fill_at = None;
        let buffered = BufferedPacket { time, ticks, payload: packet.payload, at: now, red: false };
        self.buffered.insert(seq, buffered);
        self.skip_excess();
    }

    /// Inserts the RED copy of the packet `before` sequence numbers before `packet`, which must have been inserted.
    /// The copy is kept only if it fills a gap.
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
        // RED copies carry no sequence number. A copy that does not fit between the last packet played out and its
        // carrier was not sent with the neighbouring number.
        let fits = time >= source.next.time && ticks <= ticks_before;
        if seq < source.next.seq || !fits || self.buffered.contains_key(&seq) {
            return;
        }
        self.buffered.insert(seq, BufferedPacket { time, ticks, payload, at: now, red: true });
    }

    /// Returns the next step if one is due. Call until it returns `None`, after each packet and at each
    /// [`Self::deadline`].
    pub(crate) fn poll(&mut self, now: Instant) -> Option<PlayoutStep> {
        if self.release_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.steps.is_empty() {
            self.plan_next(now);
        }
        let step = self.steps.pop_front()?;
        self.count(&step);
        let ticks = step.ticks();
        let earliest = now.checked_sub(MAX_BURST / 2).unwrap_or(now);
        let release_at = self.release_at.map_or(earliest, |at| at.max(earliest));
        self.release_at = Some(release_at + duration(ticks) / 2);
        Some(step)
    }

    /// When to call [`Self::poll`] if no packet arrives before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let source = self.source.as_ref()?;
        let release_at = self.release_at.unwrap_or(source.last.at);
        if !self.steps.is_empty() {
            return Some(release_at);
        }
        let due = match self.buffered.first_key_value() {
            Some((seq, _)) if *seq == source.next.seq => release_at,
            Some((_, first)) => source.gap_since.unwrap_or(first.at) + self.network.gap_wait,
            None => source.fill_at.unwrap_or_else(|| self.pause_start(source)),
        };
        Some(due.max(release_at))
    }

    /// Whether a packet is missing that may still be retransmitted in time.
    pub(crate) fn has_gap(&self) -> bool {
        let next = self.source.as_ref().map(|source| source.next.seq);
        self.buffered.first_key_value().map(|(seq, _)| *seq) > next
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Interarrival jitter in seconds (RFC 3550 §6.4.1).
    pub(crate) fn jitter_s(&self) -> f64 {
        self.network.jitter_ticks / f64::from(OPUS_CLOCK)
    }

    /// Returns the unwrapped sequence number and timestamp of a packet. Resets the buffer if they belong to another
    /// source.
    fn unwrap_or_reset(&mut self, packet: &Packet, now: Instant) -> (i64, i64) {
        let known = self.source.as_ref().filter(|source| source.ssrc == packet.ssrc).map(|source| {
            let position = source.unwrap(packet);
            (position, position.0 - source.newest.0 <= MAX_SEQ_JUMP)
        });
        match known {
            Some((position, true)) => position,
            _ => self.start_source(packet, now),
        }
    }

    /// Starts a source with `packet`. Buffered packets of the previous source are played out first.
    fn start_source(&mut self, packet: &Packet, now: Instant) -> (i64, i64) {
        for (_, buffered) in std::mem::take(&mut self.buffered) {
            self.steps.push_back(PlayoutStep::Packet { payload: buffered.payload, ticks: buffered.ticks });
        }
        if let Some(before) = &self.source {
            self.steps.push_back(PlayoutStep::Reset);
            if before.ssrc != packet.ssrc {
                self.previous_source = Some((before.ssrc, now));
            }
        }
        let (seq, time) = (i64::from(packet.seq), i64::from(packet.time));
        self.source = Some(Source {
            ssrc: packet.ssrc,
            newest: (seq, time),
            next: Position { seq, time },
            last: LastPacket { at: now, ticks: 0, dtx: false },
            played_at: now,
            gap_since: None,
            abandoned_gap: None,
            ahead_ticks: 0,
            fill_at: None,
            faded: false,
            late_run: 0,
        });
        self.network.restart();
        (seq, time)
    }

    /// Appends the steps up to the next packet to `steps`, unless the buffer has to wait.
    fn plan_next(&mut self, now: Instant) {
        let Some(source) = &mut self.source else {
            return;
        };
        let Some((&seq, first)) = self.buffered.first_key_value() else {
            return self.plan_filler(now);
        };
        let missing = seq - source.next.seq;
        if missing > 0 {
            let since = *source.gap_since.get_or_insert(first.at);
            let behind = source.newest.1 - first.time;
            let abandon =
                now >= since + self.network.gap_wait || duration_of(behind) >= MAX_BUFFERED_BEHIND_GAP;
            if !abandon {
                return;
            }
            self.counters.lost += missing.unsigned_abs();
            self.network.record_abandoned_gap();
            source.abandoned_gap = Some((source.next.seq..seq, since));
        }
        self.network.decay();
        source.gap_since = None;
        let Some((_, buffered)) = self.buffered.pop_first() else {
            return;
        };
        let gap_ticks = buffered.time - source.next.time;
        source.next = Position { seq: seq + 1, time: buffered.time + i64::from(buffered.ticks) };
        let elapsed_ticks = ticks_of(now.saturating_duration_since(source.played_at));
        let faded = std::mem::take(&mut source.faded);
        source.played_at = now;
        if gap_ticks > elapsed_ticks + PAUSE_SLACK_TICKS || gap_ticks < -MAX_CONCEALMENT_TICKS {
            // The RTP timestamp jumped, so the length of the pause is unknown.
            self.steps.push_back(PlayoutStep::Reset);
            source.ahead_ticks = 0;
        } else {
            source.ahead_ticks -= gap_ticks;
            let missing_ticks = whole_frame_ticks(-source.ahead_ticks);
            source.ahead_ticks = source.ahead_ticks.max(0);
            if missing > 0 && missing_ticks > 0 {
                self.counters.concealments += 1;
                conceal(&mut self.steps, missing_ticks, &buffered);
            } else if missing_ticks > 0 {
                let filler = if faded {
                    PlayoutStep::Silence { ticks: missing_ticks }
                } else {
                    PlayoutStep::Conceal { ticks: missing_ticks }
                };
                self.steps.push_back(filler);
            }
        }
        self.counters.from_red += u64::from(buffered.red);
        let waited_us =
            u64::try_from(now.saturating_duration_since(buffered.at).as_micros()).unwrap_or(u64::MAX);
        self.counters.waited_tick_us =
            self.counters.waited_tick_us.saturating_add(waited_us.saturating_mul(buffered.ticks.into()));
        self.steps.push_back(PlayoutStep::Packet { payload: buffered.payload, ticks: buffered.ticks });
    }

    /// Plans filler in real time while the buffer is empty.
    fn plan_filler(&mut self, now: Instant) {
        let Some(source) = &self.source else {
            return;
        };
        let pause_start = self.pause_start(source);
        let at = source.fill_at.unwrap_or(pause_start);
        if now < at {
            return;
        }
        let pause_age = now.saturating_duration_since(pause_start);
        let length = if pause_age >= LONG_PAUSE { LONG_PAUSE_FILL_STEP } else { FILL_STEP };
        let audible = if source.last.dtx { COMFORT_NOISE_DURATION } else { FADE_DURATION };
        let ticks = u32::try_from(ticks_of(length)).unwrap_or(MIN_FRAME_TICKS);
        let step =
            if pause_age < audible { PlayoutStep::Conceal { ticks } } else { PlayoutStep::Silence { ticks } };
        // Steps missed by a delayed thread are made up for, but not those of a suspended machine.
        let next = if now.saturating_duration_since(at) > MAX_BUFFERED { now } else { at };
        if let Some(source) = &mut self.source {
            source.fill_at = Some(next + length);
            source.faded = pause_age >= audible;
            source.ahead_ticks += i64::from(ticks);
        }
        self.counters.filler_ticks += u64::from(ticks);
        self.steps.push_back(step);
    }

    /// When the pause after the last packet begins.
    fn pause_start(&self, source: &Source) -> Instant {
        source.last.at + duration(source.last.ticks) + self.network.pause_timeout()
    }

    /// Drops the oldest packets when more than [`MAX_BUFFERED`] is buffered.
    fn skip_excess(&mut self) {
        let Some(source) = &mut self.source else {
            return;
        };
        while let Some((&seq, first)) = self.buffered.first_key_value() {
            if duration_of(source.newest.1 - first.time) <= MAX_BUFFERED {
                return;
            }
            source.next = Position { seq: seq + 1, time: first.time + i64::from(first.ticks) };
            source.gap_since = None;
            self.counters.skipped += 1;
            self.buffered.pop_first();
        }
    }

    fn count(&mut self, step: &PlayoutStep) {
        let ticks = u64::from(step.ticks());
        self.counters.played_ticks += ticks;
        if matches!(step, PlayoutStep::DecodeFec { .. } | PlayoutStep::Conceal { .. }) {
            self.counters.concealed_ticks += ticks;
        }
    }
}

/// Appends the steps that conceal a gap of `ticks` before `next`.
fn conceal(steps: &mut VecDeque<PlayoutStep>, ticks: u32, next: &BufferedPacket) {
    if i64::from(ticks) > MAX_CONCEALMENT_TICKS {
        let fade_ticks = whole_frame_ticks(ticks_of(FADE_DURATION));
        steps.push_back(PlayoutStep::Conceal { ticks: fade_ticks });
        return steps.push_back(PlayoutStep::Silence { ticks: ticks - fade_ticks });
    }
    // In-band FEC restores only the packet before `next`; earlier ones are concealed.
    let fec_ticks = ticks.min(whole_frame_ticks(i64::from(next.ticks)));
    if ticks > fec_ticks {
        steps.push_back(PlayoutStep::Conceal { ticks: ticks - fec_ticks });
    }
    steps.push_back(PlayoutStep::DecodeFec { next: next.payload.clone(), ticks: fec_ticks });
}

impl PlayoutStep {
    pub(crate) fn ticks(&self) -> u32 {
        match self {
            Self::Reset => 0,
            Self::Packet { ticks, .. }
            | Self::DecodeFec { ticks, .. }
            | Self::Conceal { ticks }
            | Self::Silence { ticks } => *ticks,
        }
    }
}

impl Source {
    /// Unwraps the sequence number and timestamp of a packet to the values nearest to the newest ones.
    fn unwrap(&self, packet: &Packet) -> (i64, i64) {
        let (seq, time) = self.newest;
        let seq_ahead = packet.seq.wrapping_sub(seq as u16) as i16;
        let time_ahead = packet.time.wrapping_sub(time as u32) as i32;
        (seq + i64::from(seq_ahead), time + i64::from(time_ahead))
    }
}

/// Estimates of the network's delay.
#[derive(Debug)]
struct NetworkEstimate {
    /// Current wait behind a gap.
    gap_wait: Duration,
    /// Recent maximum lateness against the minimum transit time; decays.
    max_lateness: Duration,
    /// Epoch, and the recent minimum transit time: arrival since the epoch minus RTP timestamp, in ticks. It grows by
    /// [`Self::MIN_TRANSIT_DRIFT_TICKS`] per packet to follow a slow sender clock.
    min_transit: Option<(Instant, f64)>,
    /// Interarrival jitter (RFC 3550 §6.4.1).
    jitter_ticks: f64,
    last_transit: f64,
}

impl Default for NetworkEstimate {
    fn default() -> Self {
        Self {
            // Starts high to measure how late packets arrive.
            gap_wait: MAX_GAP_WAIT,
            max_lateness: Duration::ZERO,
            min_transit: None,
            jitter_ticks: 0.0,
            last_transit: 0.0,
        }
    }
}

impl NetworkEstimate {
    /// Growth of the minimum transit time per packet, in ticks: 200 ppm of 20 ms, more than crystal clocks differ.
    const MIN_TRANSIT_DRIFT_TICKS: f64 = 0.2;

    fn restart(&mut self) {
        self.min_transit = None;
    }

    /// Records a packet received in order. Retransmissions are not recorded: their delay would postpone the start of
    /// every pause.
    fn record_arrival(&mut self, time: i64, now: Instant) {
        let (epoch, min_transit) = *self.min_transit.get_or_insert((now, f64::from(u32::MAX)));
        let elapsed = now.saturating_duration_since(epoch).as_secs_f64() * f64::from(OPUS_CLOCK);
        let transit = elapsed - time as f64;
        if min_transit != f64::from(u32::MAX) {
            self.jitter_ticks += ((transit - self.last_transit).abs() - self.jitter_ticks) / 16.0;
        }
        self.last_transit = transit;
        let min_transit = (min_transit + Self::MIN_TRANSIT_DRIFT_TICKS).min(transit);
        self.min_transit = Some((epoch, min_transit));
        let late = Duration::from_secs_f64((transit - min_transit).max(0.0) / f64::from(OPUS_CLOCK));
        self.max_lateness = self.max_lateness.max(late.min(MAX_PAUSE_TIMEOUT));
    }

    /// Records a packet received `late` after its gap was detected, even if the gap was abandoned meanwhile. The wait
    /// rises at once and falls gradually.
    fn record_late_arrival(&mut self, late: Duration) {
        if late < MAX_GAP_WAIT {
            let target = (late + late / 2 + GAP_WAIT_MARGIN).clamp(MIN_GAP_WAIT, MAX_GAP_WAIT);
            self.gap_wait = target.max((self.gap_wait * 3 + target) / 4);
        }
    }

    /// Records a gap that was not filled in time.
    fn record_abandoned_gap(&mut self) {
        self.gap_wait = (self.gap_wait * 3 / 4).max(MIN_GAP_WAIT);
    }

    fn decay(&mut self) {
        self.max_lateness -= self.max_lateness / LATENESS_DECAY_DIVISOR;
    }

    fn pause_timeout(&self) -> Duration {
        (MIN_PAUSE_TIMEOUT + self.max_lateness).min(MAX_PAUSE_TIMEOUT)
    }
}

/// Rounds `ticks` down to whole frames of 2.5 ms; 0 if negative.
fn whole_frame_ticks(ticks: i64) -> u32 {
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
