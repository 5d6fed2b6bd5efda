//! Queues of decoded audio, one for each `NativeAudioStream` of the application.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::format::Format;
use crate::audio_frame::AudioFrame;

/// The queue of one stream.
pub(crate) struct Sink {
    format: Format,
    /// Maximum number of frames; `None` is unbounded.
    capacity: Option<usize>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<AudioFrame<'static>>,
    closed: bool,
    /// Frames dropped because the queue was full.
    dropped: u64,
    reader: Option<Waker>,
}

/// The sinks of one track.
#[derive(Default)]
pub(crate) struct Sinks {
    /// Incremented at each change of the list, so that receivers can keep a copy and avoid the lock.
    version: AtomicU32,
    list: Mutex<SinkList>,
}

#[derive(Default)]
struct SinkList {
    sinks: Vec<Weak<Sink>>,
    closed: bool,
}

impl Sink {
    pub(crate) fn new(format: Format, capacity: Option<usize>) -> Self {
        Self { format, capacity, queue: Mutex::default() }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Queues `frames`. If the queue is full, the oldest frames are dropped. Does not wake the reader, see
    /// [`Self::wake`].
    pub(crate) fn push(&self, frames: impl IntoIterator<Item = AudioFrame<'static>>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        queue.frames.extend(frames);
        let excess = self.capacity.map_or(0, |capacity| queue.frames.len().saturating_sub(capacity));
        if excess > 0 {
            queue.frames.drain(..excess);
            // Logged at the first drop and then every 1,000 frames, to bound the log output of a stalled reader.
            if queue.dropped == 0 || (queue.dropped / 1000) != ((queue.dropped + excess as u64) / 1000) {
                tracing::warn!(
                    dropped = queue.dropped + excess as u64,
                    "audio stream read too slowly, oldest frames dropped"
                );
            }
            queue.dropped += excess as u64;
        }
    }

    /// Wakes the reader if it is waiting.
    pub(crate) fn wake(&self) {
        let reader = self.queue.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ends the stream after the queued frames have been read.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake();
    }

    /// Ends the stream and drops the queued frames.
    pub(crate) fn close_and_clear(&self) {
        self.queue.lock().frames = VecDeque::new();
        self.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<AudioFrame<'static>>> {
        let mut queue = self.queue.lock();
        if let Some(frame) = queue.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        match &mut queue.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            reader => *reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Sinks {
    /// Adds the sink of a stream. If the track has ended, the sink is closed.
    pub(crate) fn add(&self, sink: &Arc<Sink>) {
        let mut list = self.list.lock();
        if list.closed {
            sink.close();
            return;
        }
        list.sinks.retain(|sink| sink.strong_count() > 0);
        list.sinks.push(Arc::downgrade(sink));
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// The sinks whose streams have not been dropped.
    pub(crate) fn snapshot(&self) -> Vec<Weak<Sink>> {
        self.list.lock().sinks.iter().filter(|sink| sink.strong_count() > 0).cloned().collect()
    }

    /// Ends all streams after their queued frames have been read.
    pub(crate) fn close(&self) {
        let mut list = self.list.lock();
        list.closed = true;
        for sink in list.sinks.drain(..).filter_map(|sink| sink.upgrade()) {
            sink.close();
        }
        self.version.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    fn frame(marker: i16) -> AudioFrame<'static> {
        AudioFrame { data: vec![marker].into(), sample_rate: 16_000, num_channels: 1, samples_per_channel: 1 }
    }

    fn read(sink: &Sink) -> Option<Option<i16>> {
        match sink.poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame.map(|frame| frame.data[0])),
            Poll::Pending => None,
        }
    }

    #[test]
    fn frames_are_read_in_the_order_they_were_pushed() {
        let sink = Sink::new(Format::SPEECH, Some(3));

        sink.push([frame(1), frame(2)]);
        sink.push([frame(3)]);

        assert_eq!([read(&sink), read(&sink), read(&sink)], [Some(Some(1)), Some(Some(2)), Some(Some(3))]);
        assert_eq!(read(&sink), None);
    }

    #[test]
    fn a_full_queue_drops_its_oldest_frames() {
        let sink = Sink::new(Format::SPEECH, Some(2));

        sink.push([frame(1), frame(2), frame(3)]);

        assert_eq!([read(&sink), read(&sink), read(&sink)], [Some(Some(2)), Some(Some(3)), None]);
    }

    #[test]
    fn an_unbounded_queue_keeps_every_frame() {
        let sink = Sink::new(Format::SPEECH, None);

        sink.push((0..500).map(frame));

        assert_eq!(read(&sink), Some(Some(0)));
    }

    #[test]
    fn a_reader_is_woken_once_by_wake_and_when_its_stream_ends() {
        struct WakeCount(AtomicU32);
        impl Wake for WakeCount {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let wakes = Arc::new(WakeCount(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let woken = || wakes.0.load(Ordering::Relaxed);
        let sink = Sink::new(Format::SPEECH, None);
        let wait = || assert!(sink.poll_frame(&mut Context::from_waker(&waker)).is_pending());

        wait();
        sink.push([frame(1)]);
        assert_eq!(woken(), 0);
        sink.wake();
        sink.wake();
        assert_eq!(woken(), 1);

        assert_eq!(read(&sink), Some(Some(1)));
        wait();
        sink.close();
        assert_eq!(woken(), 2);
    }

    #[test]
    fn the_streams_of_an_ended_track_end_after_the_queued_frames() {
        let sinks = Sinks::default();
        let sink = Arc::new(Sink::new(Format::SPEECH, None));
        sinks.add(&sink);
        sink.push([frame(1)]);

        sinks.close();
        sink.push([frame(2)]);

        assert_eq!([read(&sink), read(&sink)], [Some(Some(1)), Some(None)]);
    }

    #[test]
    fn a_stream_opened_on_an_ended_track_ends_at_once() {
        let sinks = Sinks::default();
        sinks.close();
        let sink = Arc::new(Sink::new(Format::SPEECH, None));

        sinks.add(&sink);

        assert_eq!(read(&sink), Some(None));
    }
}
