//! The threads that the tasks of connections and sources run on.
//!
//! A process has one engine for as long as a connection, a source or a factory uses it. Its threads end with the last
//! user.
//!
//! Waking a thread costs more than processing one packet. Three things reduce wakeups: connections are placed on the
//! first thread until it has [`MIN_TASKS_PER_THREAD`] tasks; a thread that is woken often sleeps shortly and then
//! processes several packets ([`wake_coalescer`]); readers of audio streams are woken when a thread runs out of work
//! and not per packet.

mod wake_coalescer;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet, LocalSet};

use crate::audio::sink::Sink;
use crate::clock;
use crate::{RtcError, RtcErrorType};
use wake_coalescer::WakeCoalescer;

/// Environment variable with the number of threads.
const THREADS_VARIABLE: &str = "LIBWEBRTC_THREADS";
/// Default number of threads, limited by the number of cores. One thread serves some 400 receiving connections.
const DEFAULT_THREADS: usize = 2;

/// The first thread with fewer tasks than this gets the next task, even if another thread is idle.
const MIN_TASKS_PER_THREAD: usize = 64;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The thread pool; see the module documentation.
pub(crate) struct Engine {
    threads: Vec<Thread>,
}

struct Thread {
    /// New tasks. Unbounded: each is a connection or a source that the application has created already.
    queue: UnboundedSender<Task>,
    /// Number of tasks.
    tasks: Arc<AtomicUsize>,
}

thread_local! {
    /// Sinks that got frames since this thread last parked.
    static SINKS_TO_WAKE: RefCell<Vec<Arc<Sink>>> = const { RefCell::new(Vec::new()) };
}

/// The running engine, if any.
static RUNNING: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

impl Engine {
    /// Returns the running engine, or starts one.
    ///
    /// # Errors
    /// `Internal` if a thread could not be started.
    pub(crate) fn shared() -> Result<Arc<Self>, RtcError> {
        let mut running = RUNNING.lock();
        if let Some(engine) = running.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Self::start(thread_count())?);
        *running = Arc::downgrade(&engine);
        Ok(engine)
    }

    fn start(count: usize) -> Result<Self, RtcError> {
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (queue, new) = unbounded_channel();
            let (tasks, wake_coalescer) = (Arc::default(), Arc::new(Mutex::new(WakeCoalescer::default())));
            let runtime = runtime(&wake_coalescer).map_err(thread_error)?;
            let serving = run_tasks(new, Arc::clone(&tasks), wake_coalescer);
            thread::Builder::new()
                .name(format!("webrtc-{number}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime, serving);
                    wake_readers();
                })
                .map_err(thread_error)?;
            threads.push(Thread { queue, tasks });
        }
        Ok(Self { threads })
    }

    /// Runs `task` on one of the threads.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let load = |thread: &&Thread| thread.tasks.load(Ordering::Relaxed);
        let shared = self.threads.iter().find(|thread| load(thread) < MIN_TASKS_PER_THREAD);
        let Some(thread) = shared.or_else(|| self.threads.iter().min_by_key(load)) else {
            return;
        };
        thread.tasks.fetch_add(1, Ordering::Relaxed);
        if thread.queue.send(Box::pin(task)).is_err() {
            // The thread's loop ends only after this engine is dropped, unless it panicked.
            tracing::error!("the media thread has ended");
        }
    }
}

/// Calls `play` with a list for the sinks that it writes to. Their readers are woken before this thread parks.
pub(super) fn defer_wakes(play: impl FnOnce(&mut Vec<Arc<Sink>>)) {
    SINKS_TO_WAKE.with_borrow_mut(play);
}

fn wake_readers() {
    let sinks = SINKS_TO_WAKE.take();
    for sink in &sinks {
        sink.wake();
    }
}

/// A current-thread runtime that wakes readers and applies wakeup coalescing before its thread parks.
fn runtime(wake_coalescer: &Arc<Mutex<WakeCoalescer>>) -> std::io::Result<Runtime> {
    let (waiting, woken) = (Arc::clone(wake_coalescer), Arc::clone(wake_coalescer));
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(move || {
            wake_readers();
            let pause = waiting.lock().sleep_before_park(clock::now());
            if let Some(pause) = pause {
                thread::sleep(pause);
            }
        })
        .on_thread_unpark(move || woken.lock().on_wake(clock::now()))
        .build()
}

/// Runs tasks until the engine is dropped and all tasks have ended.
async fn run_tasks(
    mut new: UnboundedReceiver<Task>,
    count: Arc<AtomicUsize>,
    wake_coalescer: Arc<Mutex<WakeCoalescer>>,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            task = new.recv() => match task {
                Some(mut task) => {
                    let wake_coalescer = Arc::clone(&wake_coalescer);
                    tasks.spawn_local(poll_fn(move |cx| {
                        wake_coalescer.lock().on_poll();
                        task.as_mut().poll(cx)
                    }));
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => task_ended(ended, &count),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        task_ended(ended, &count);
    }
}

/// Logs a task that panicked. Other tasks are not affected.
fn task_ended(ended: Result<(), JoinError>, count: &AtomicUsize) {
    count.fetch_sub(1, Ordering::Relaxed);
    if let Err(error) = ended {
        tracing::error!(%error, "a media task panicked");
    }
}

fn thread_count() -> usize {
    let configured =
        std::env::var(THREADS_VARIABLE).ok().and_then(|count| count.parse::<NonZero<usize>>().ok());
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    configured.map_or(cores.min(DEFAULT_THREADS), NonZero::get)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err requires")]
fn thread_error(error: std::io::Error) -> RtcError {
    RtcError {
        error_type: RtcErrorType::Internal,
        message: format!("failed to start a media thread: {error}"),
    }
}
