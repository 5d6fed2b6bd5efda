//! Sources: what the application writes, handed out to every connection that sends it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Connection;
use super::engine::Engine;
use crate::RtcError;
use crate::audio::format::{Format, UnknownFormat};
use crate::audio::pacer::Pacer;
use crate::audio_frame::AudioFrame;
use crate::audio_source::AudioSourceOptions;
use crate::clock;

/// Ticks that wait for a connection's task. It takes them within microseconds; when it is held up for 200 ms, new
/// ones are dropped, and the RTP clock tells the receiver of the gap.
const OUTLET_TICKS: usize = 10;

/// What the handles of a source share with the task that paces it.
pub(crate) struct Source {
    sample_rate: u32,
    num_channels: u32,
    format: Result<Format, UnknownFormat>,
    options: Mutex<AudioSourceOptions>,
    /// `None` without a queue: what is written goes out at once.
    pacer: Option<Mutex<Pacer>>,
    outlets: Mutex<Vec<Weak<Outlet>>>,
    /// The pacing task waits here for something to pace.
    written: Arc<Notify>,
    /// Writers wait here for room.
    room: Notify,
    /// Lets one writer in at a time, in order.
    turn: tokio::sync::Mutex<()>,
    engine: Mutex<Option<Arc<Engine>>>,
}

/// One connection's share of a source.
pub(crate) struct Outlet {
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
            outlets: Mutex::default(),
            written: Arc::default(),
            room: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
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

    /// Fails if its format is none that can be sent.
    pub(crate) fn check_format(&self) -> Result<(), RtcError> {
        self.format.map(|_| ()).map_err(|error| RtcError::invalid_state(error.to_string()))
    }

    /// Hands this source's sound to `connection` from now on, until the outlet is dropped.
    pub(crate) fn open_outlet(&self, connection: Weak<Connection>) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet { ticks: Mutex::default(), connection });
        let mut outlets = self.outlets.lock();
        outlets.retain(|outlet| outlet.strong_count() > 0);
        outlets.push(Arc::downgrade(&outlet));
        outlet
    }

    pub(crate) async fn capture(self: &Arc<Self>, frame: &AudioFrame<'_>) -> Result<(), RtcError> {
        self.check_format()?;
        if frame.sample_rate != self.sample_rate || frame.num_channels != self.num_channels {
            return Err(RtcError::invalid_state("the frame's rate or channels are not the source's"));
        }
        if !frame.data.len().is_multiple_of(self.num_channels as usize) {
            return Err(RtcError::invalid_state("the frame ends within a sampling instant"));
        }
        match &self.pacer {
            Some(pacer) => self.queue(pacer, &frame.data).await,
            None => self.pass_on(&frame.data),
        }
    }

    /// Queues `samples` piece by piece as there is room.
    async fn queue(self: &Arc<Self>, pacer: &Mutex<Pacer>, samples: &[i16]) -> Result<(), RtcError> {
        self.pace()?;
        let (clearings, capacity) = {
            let pacer = pacer.lock();
            (pacer.clearings(), pacer.capacity())
        };
        let _turn = self.turn.lock().await;
        for piece in samples.chunks(capacity) {
            loop {
                let mut room = std::pin::pin!(self.room.notified());
                room.as_mut().enable();
                let queued = {
                    let mut pacer = pacer.lock();
                    if pacer.clearings() != clearings {
                        return Ok(());
                    }
                    pacer.push(piece, clock::now())
                };
                if queued {
                    self.written.notify_one();
                    break;
                }
                room.await;
            }
        }
        Ok(())
    }

    /// Without a queue.
    fn pass_on(&self, samples: &[i16]) -> Result<(), RtcError> {
        let instants = samples.len() / self.num_channels as usize;
        if instants != (self.sample_rate / 100) as usize {
            return Err(RtcError::invalid_state(format!(
                "a source without a queue takes frames of 10 ms: {} samples per channel, not {instants}",
                self.sample_rate / 100
            )));
        }
        self.hand_out(&samples.into());
        Ok(())
    }

    pub(crate) fn clear(&self) {
        if let Some(pacer) = &self.pacer {
            pacer.lock().clear();
        }
        for outlet in self.outlets() {
            outlet.ticks.lock().clear();
        }
        self.room.notify_waiters();
    }

    fn hand_out(&self, tick: &Arc<[i16]>) {
        for outlet in self.outlets() {
            let mut ticks = outlet.ticks.lock();
            if ticks.len() < OUTLET_TICKS {
                ticks.push_back(Arc::clone(tick));
            }
            drop(ticks);
            if let Some(connection) = outlet.connection.upgrade() {
                connection.wake();
            }
        }
    }

    fn outlets(&self) -> Vec<Arc<Outlet>> {
        self.outlets.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Starts the pacing task, unless it runs.
    fn pace(self: &Arc<Self>) -> Result<(), RtcError> {
        let mut engine = self.engine.lock();
        if engine.is_none() {
            let running = Engine::shared()?;
            running.spawn(pace(Arc::downgrade(self), Arc::clone(&self.written)));
            *engine = Some(running);
        }
        Ok(())
    }

    /// Hands out what is due; returns when the next is.
    fn tick(&self, now: Instant) -> Option<Instant> {
        let pacer = self.pacer.as_ref()?;
        let mut moved = false;
        loop {
            let mut locked = pacer.lock();
            let Some(tick) = locked.take(now) else {
                let deadline = locked.deadline();
                drop(locked);
                if moved {
                    self.room.notify_waiters();
                }
                return deadline;
            };
            drop(locked);
            moved = true;
            self.hand_out(&tick.into());
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The pacing task ends when it finds the source gone.
        self.written.notify_one();
    }
}

impl Outlet {
    pub(crate) fn take(&self) -> Option<Arc<[i16]>> {
        self.ticks.lock().pop_front()
    }
}

/// Paces a source for as long as it is there. While it waits it holds only what wakes it.
async fn pace(source: Weak<Source>, written: Arc<Notify>) {
    loop {
        let Some(deadline) = source.upgrade().map(|source| source.tick(clock::now())) else {
            return;
        };
        match deadline {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => written.notified().await,
        }
    }
}
