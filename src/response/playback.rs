//! How a spoken response reaches the client: in frames ahead of what is heard, or in files that it fetches.
//! One API for both.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{clip_playback::ClipPlayback, stream_playback::StreamPlayback};

/// The audio of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameAudio {
    /// At the synthesizer's rate.
    Samples(Vec<i16>),
    /// Opus.
    Packet {
        /// Its bytes.
        packet: Bytes,
        /// How many samples at its end are no part of the response.
        padding: u16,
    },
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaybackEvent {
    /// Send a frame.
    Frame {
        /// Samples since the response began.
        position: u64,
        /// 20 or 60 ms; less in the last frame of samples.
        audio: FrameAudio,
        /// Nothing follows it.
        end: bool,
    },
    /// Let the client play a clip.
    Clip {
        /// Counts the clips of the response.
        number: u32,
        /// Its samples.
        samples: Vec<i16>,
    },
    /// The response was played to its end.
    Finished,
}

/// What of the response was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Its words.
    pub text: String,
    /// Its length, in milliseconds.
    pub ms: u64,
}

/// One spoken response.
#[derive(Debug)]
pub enum Playback {
    /// In frames, on the control channel or in the room.
    Stream(StreamPlayback),
    /// In files, for clients that play nothing else.
    Clips(ClipPlayback),
    /// Not at all: the speech is recorded, for somebody who reads the text.
    Recorded {
        /// No more samples come.
        is_complete: bool,
    },
}

impl Playback {
    /// The samples that follow belong to this sentence.
    pub fn begin_sentence(&mut self, text: String) {
        match self {
            Self::Stream(stream) => stream.begin_sentence(text),
            Self::Clips(clips) => clips.begin_sentence(text),
            Self::Recorded { .. } => {}
        }
    }

    /// The sentence is whole.
    pub fn end_sentence(&mut self) {
        match self {
            Self::Stream(_) | Self::Recorded { .. } => {}
            Self::Clips(clips) => clips.end_sentence(),
        }
    }

    /// More samples.
    pub fn push(&mut self, samples: &[i16]) {
        match self {
            Self::Stream(stream) => stream.push(samples),
            Self::Clips(clips) => clips.push(samples),
            Self::Recorded { .. } => {}
        }
    }

    /// No more samples.
    pub fn complete(&mut self) {
        match self {
            Self::Stream(stream) => stream.complete(),
            Self::Clips(clips) => clips.complete(),
            Self::Recorded { is_complete } => *is_complete = true,
        }
    }

    /// Synthesis failed at the last sentence. What there is of it is played, and does not count as heard.
    pub fn synthesis_failed(&mut self) {
        match self {
            Self::Stream(stream) => stream.abandon_sentence(),
            Self::Clips(clips) => clips.abandon_sentence(),
            Self::Recorded { .. } => {}
        }
    }

    /// The client cannot play: what was not played is dropped.
    pub fn clear(&mut self) {
        match self {
            Self::Stream(_) | Self::Recorded { .. } => {}
            Self::Clips(clips) => clips.clear(),
        }
    }

    /// Whether there are no samples, nor were there any.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.is_empty(),
            Self::Clips(clips) => clips.is_empty(),
            Self::Recorded { .. } => true,
        }
    }

    /// How much speech waits to be sent.
    pub fn buffered(&self) -> Duration {
        match self {
            Self::Stream(stream) => stream.buffered(),
            Self::Clips(clips) => clips.buffered(),
            Self::Recorded { .. } => Duration::ZERO,
        }
    }

    /// What is due now, in order.
    pub fn poll(&mut self, now: Instant) -> Vec<PlaybackEvent> {
        match self {
            Self::Stream(stream) => stream.poll(now),
            Self::Clips(clips) => clips.poll(now).into_iter().collect(),
            Self::Recorded { is_complete } => {
                is_complete.then_some(PlaybackEvent::Finished).into_iter().collect()
            }
        }
    }

    /// When [`poll`](Self::poll) has something to do again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Stream(stream) => stream.deadline(),
            Self::Clips(clips) => clips.deadline(),
            Self::Recorded { .. } => None,
        }
    }

    /// The client is disconnected.
    pub fn pause(&mut self, now: Instant) {
        match self {
            Self::Stream(stream) => stream.pause(now),
            Self::Clips(clips) => clips.pause(now),
            Self::Recorded { .. } => {}
        }
    }

    /// The client is back: it gets what it had not played yet.
    pub fn resume(&mut self, now: Instant) {
        match self {
            Self::Stream(stream) => stream.resume(now),
            Self::Clips(clips) => clips.resume(),
            Self::Recorded { .. } => {}
        }
    }

    /// The client says how much it has played, in milliseconds. True where it reports for frames.
    pub fn reported(&mut self, played_ms: u64) -> bool {
        match self {
            Self::Stream(stream) => {
                stream.reported(played_ms);
                true
            }
            Self::Clips(_) | Self::Recorded { .. } => false,
        }
    }

    /// The client has played a clip.
    pub fn clip_played(&mut self, number: u32) {
        match self {
            Self::Stream(_) | Self::Recorded { .. } => {}
            Self::Clips(clips) => clips.played(number),
        }
    }

    /// What was heard so far.
    pub fn heard(&self, now: Instant) -> Heard {
        match self {
            Self::Stream(stream) => Heard { text: stream.heard_text(now), ms: stream.heard_ms(now) },
            Self::Clips(clips) => Heard { text: clips.heard_text(now), ms: clips.heard_ms(now) },
            Self::Recorded { .. } => Heard::default(),
        }
    }
}
