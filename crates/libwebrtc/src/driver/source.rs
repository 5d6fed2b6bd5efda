//! Audio sources: PCM written by the application, paced and distributed to every connection that sends it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Connection;
use super::engine::Engine;
use crate::RtcError;
use crate::audio::format::{Format, UnsupportedFormat};
use crate::audio::pacer::Pacer;
use crate::audio_frame::AudioFrame;
use crate::audio_source::AudioSourceOptions;
use crate::clock;

/// Maximum ticks queued for a connection's task. It takes them within microseconds. If it is delayed by 200 ms, new
/// ticks are dropped, and the RTP timestamps show the gap to the receiver.
const MAX_QUEUED_TICKS: usize = 10;

/// State shared by the handles of a source and its pacing task.
pub(crate) struct Source {
    sample_rate: u32,
    num_channels: u32,
    format: Result<Format, UnsupportedFormat>,
    options: Mutex<AudioSourceOptions>,
    /// `None` for a source without a queue, whose frames are sent at once.
    pacer: Option<Mutex<Pacer>>,
    queues: Mutex<Vec<Weak<ConnectionQueue>>>,
    /// Signals the pacing task that samples were queued.
    data_queued: Arc<Notify>,
    /// Signals writers that there is room in the queue.
    space_freed: Notify,
    /// Serializes writers in order of arrival.
    writer_lock: tokio::sync::Mutex<()>,
    engine: Mutex<Option<Arc<Engine>>>,
}

/// The queue between a source and one connection.
pub(crate) struct ConnectionQueue {
    ticks: Mutex<VecDeque<Arc<[i16]>>>,
    connection: Weak<Connection>,
}

impl Source {
    pub(crate) fn new(
        options: AudioSourceOptions,
        sample_rate: u32,
        num_channels: u32,
        queue_size_ms: u32,
    ) -> Arc<Self> {
        let format = Format::new(sample_rate, num_channels);
        let pacer = match &format {
            Ok(format) if queue_size_ms > 0 => Some(Mutex::new(Pacer::new(*format, queue_size_ms))),
            _ => None,
        };
        Arc::new(Self {
            sample_rate,
            num_channels,
            format,
            options: Mutex::new(options),
            pacer,
            queues: Mutex::default(),
            data_queued: Arc::default(),
            space_freed: Notify::new(),
            writer_lock: tokio::sync::Mutex::new(()),
            engine: Mutex::new(None),
        })
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    pub(crate) fn num_channels(&self) -> u32 {
        self.num_channels
    }

    pub(crate) fn options(&self) -> AudioSourceOptions {
        *self.options.lock()
    }

    pub(crate) fn set_options(&self, options: AudioSourceOptions) {
        *self.options.lock() = options;
    }

    pub(crate) fn format(&self) -> Option<Format> {
        self.format.ok()
    }

    /// # Errors
    /// `InvalidState` if the format of the source is not supported.
    pub(crate) fn check_format(&self) -> Result<(), RtcError> {
        self.format.map(|_| ()).map_err(|error| RtcError::invalid_state(error.to_string()))
    }

    /// Adds a queue for `connection`. It gets the audio of this source until it is dropped.
    pub(crate) fn open_queue(&self, connection: Weak<Connection>) -> Arc<ConnectionQueue> {
        let queue = Arc::new(ConnectionQueue { ticks: Mutex::default(), connection });
        let mut queues = self.queues.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }

    pub(crate) async fn capture(self: &Arc<Self>, frame: &AudioFrame<'_>) -> Result<(), RtcError> {
        self.check_format()?;
        if frame.sample_rate != self.sample_rate || frame.num_channels != self.num_channels {
            return Err(RtcError::invalid_state(
                "the sample rate or number of channels of the frame differs from the source's",
            ));
        }
        if !frame.data.len().is_multiple_of(self.num_channels as usize) {
            return Err(RtcError::invalid_state(
                "the length of the frame is not a multiple of the number of channels",
            ));
        }
        match &self.pacer {
            Some(pacer) => self.enqueue(pacer, &frame.data).await,
            None => self.capture_unqueued(&frame.data),
        }
    }

    /// Queues `samples` in pieces, waiting for room. Returns early if the queue is cleared meanwhile.
    async fn enqueue(self: &Arc<Self>, pacer: &Mutex<Pacer>, samples: &[i16]) -> Result<(), RtcError> {
        self.start_pacing()?;
        let (clear_count, capacity) = {
            let pacer = pacer.lock();
            (pacer.clear_count(), pacer.capacity())
        };
        let _writer = self.writer_lock.lock().await;
        for piece in samples.chunks(capacity) {
            loop {
                let mut space_freed = std::pin::pin!(self.space_freed.notified());
                space_freed.as_mut().enable();
                let queued = {
                    let mut pacer = pacer.lock();
                    if pacer.clear_count() != clear_count {
                        return Ok(());
                    }
                    pacer.push(piece, clock::now())
                };
                if queued {
                    self.data_queued.notify_one();
                    break;
                }
                space_freed.await;
            }
        }
        Ok(())
    }

    /// Sends a frame of a source without a queue.
    fn capture_unqueued(&self, samples: &[i16]) -> Result<(), RtcError> {
        let instants = samples.len() / self.num_channels as usize;
        if instants != (self.sample_rate / 100) as usize {
            return Err(RtcError::invalid_state(format!(
                "a source without a queue requires frames of 10 ms: expected {} samples per channel, got {instants}",
                self.sample_rate / 100
            )));
        }
        self.distribute(&samples.into());
        Ok(())
    }

    pub(crate) fn clear(&self) {
        if let Some(pacer) = &self.pacer {
            pacer.lock().clear();
        }
        for queue in self.queues() {
            queue.ticks.lock().clear();
        }
        self.space_freed.notify_waiters();
    }

    fn distribute(&self, tick: &Arc<[i16]>) {
        for queue in self.queues() {
            let mut ticks = queue.ticks.lock();
            if ticks.len() < MAX_QUEUED_TICKS {
                ticks.push_back(Arc::clone(tick));
            }
            drop(ticks);
            if let Some(connection) = queue.connection.upgrade() {
                connection.wake();
            }
        }
    }

    fn queues(&self) -> Vec<Arc<ConnectionQueue>> {
        self.queues.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Starts the pacing task if it is not running.
    fn start_pacing(self: &Arc<Self>) -> Result<(), RtcError> {
        let mut engine = self.engine.lock();
        if engine.is_none() {
            let running = Engine::shared()?;
            running.spawn(run_pacer(Arc::downgrade(self), Arc::clone(&self.data_queued)));
            *engine = Some(running);
        }
        Ok(())
    }

    /// Distributes the ticks that are due; returns when the next one is due.
    fn distribute_due(&self, now: Instant) -> Option<Instant> {
        let pacer = self.pacer.as_ref()?;
        let mut moved = false;
        loop {
            let mut locked = pacer.lock();
            let Some(tick) = locked.take(now) else {
                let deadline = locked.deadline();
                drop(locked);
                if moved {
                    self.space_freed.notify_waiters();
                }
                return deadline;
            };
            drop(locked);
            moved = true;
            self.distribute(&tick.into());
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Wakes the pacing task, which ends because the source is gone.
        self.data_queued.notify_one();
    }
}

impl ConnectionQueue {
    pub(crate) fn take(&self) -> Option<Arc<[i16]>> {
        self.ticks.lock().pop_front()
    }
}

/// The pacing task of a source. It does not keep the source alive and ends when the source is dropped.
async fn run_pacer(source: Weak<Source>, data_queued: Arc<Notify>) {
    loop {
        let Some(deadline) = source.upgrade().map(|source| source.distribute_due(clock::now())) else {
            return;
        };
        match deadline {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => data_queued.notified().await,
        }
    }
}
