//! The threads that connections and sources run on.
//!
//! There is one engine in a process while anything needs it: a connection, a source, or a factory. Its threads end
//! with the last of them.
//!
//! Waking a thread costs more than what it does with one packet. So connections share a thread for as long as it has
//! room, and a thread that is woken often rests in between and takes what came meanwhile in one go ([`rest`]). So do
//! those who read the sound: they are woken when the thread has done all there is to do.

mod rest;

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
use rest::Rest;

/// How many threads, where the default does not suit.
const THREADS_VARIABLE: &str = "LIBWEBRTC_THREADS";
/// A thread carries some 400 listening connections. Two are plenty for what a machine of this kind does.
const DEFAULT_THREADS: usize = 2;

/// A thread with fewer tasks than this takes the next one, even if another has nothing to do.
const SHARED: usize = 64;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module.
pub(crate) struct Engine {
    threads: Vec<Thread>,
}

struct Thread {
    /// New tasks. Without bound, since what is in there is a connection that the application has made already.
    queue: UnboundedSender<Task>,
    /// How many tasks it has.
    tasks: Arc<AtomicUsize>,
}

thread_local! {
    /// The sinks that sound was played into since this thread last waited.
    static HEARD: RefCell<Vec<Arc<Sink>>> = const { RefCell::new(Vec::new()) };
}

/// The engine that is running, if one is.
static RUNNING: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

impl Engine {
    /// The running engine, or a new one.
    ///
    /// # Errors
    /// When the system gives no thread.
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
            let (tasks, rest) = (Arc::default(), Arc::new(Mutex::new(Rest::default())));
            let runtime = runtime(&rest).map_err(no_thread)?;
            let serving = serve(new, Arc::clone(&tasks), rest);
            thread::Builder::new()
                .name(format!("webrtc-{number}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime, serving);
                    wake_readers();
                })
                .map_err(no_thread)?;
            threads.push(Thread { queue, tasks });
        }
        Ok(Self { threads })
    }

    /// Runs `task` on one of the threads.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let load = |thread: &&Thread| thread.tasks.load(Ordering::Relaxed);
        let shared = self.threads.iter().find(|thread| load(thread) < SHARED);
        let Some(thread) = shared.or_else(|| self.threads.iter().min_by_key(load)) else {
            return;
        };
        thread.tasks.fetch_add(1, Ordering::Relaxed);
        if thread.queue.send(Box::pin(task)).is_err() {
            // The thread's loop ends only after this engine is dropped, unless it panicked.
            tracing::error!("the engine's thread is gone");
        }
    }
}

/// Lets `play` add the sinks that it plays into, and wakes their readers before this thread waits.
pub(super) fn tell_readers(play: impl FnOnce(&mut Vec<Arc<Sink>>)) {
    HEARD.with_borrow_mut(play);
}

fn wake_readers() {
    let heard = HEARD.take();
    for sink in &heard {
        sink.wake();
    }
}

/// A runtime whose thread rests as it is told before it waits.
fn runtime(rest: &Arc<Mutex<Rest>>) -> std::io::Result<Runtime> {
    let (waiting, woken) = (Arc::clone(rest), Arc::clone(rest));
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(move || {
            wake_readers();
            let pause = waiting.lock().before_waiting(clock::now());
            if let Some(pause) = pause {
                thread::sleep(pause);
            }
        })
        .on_thread_unpark(move || woken.lock().woke(clock::now()))
        .build()
}

/// Runs tasks until the engine is dropped and all of them have ended.
async fn serve(mut new: UnboundedReceiver<Task>, count: Arc<AtomicUsize>, rest: Arc<Mutex<Rest>>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            task = new.recv() => match task {
                Some(mut task) => {
                    let rest = Arc::clone(&rest);
                    tasks.spawn_local(poll_fn(move |cx| {
                        rest.lock().worked();
                        task.as_mut().poll(cx)
                    }));
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => report(ended, &count),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        report(ended, &count);
    }
}

/// A panic in one connection is a bug of ours that the others survive.
fn report(ended: Result<(), JoinError>, count: &AtomicUsize) {
    count.fetch_sub(1, Ordering::Relaxed);
    if let Err(error) = ended {
        tracing::error!(%error, "a media task failed");
    }
}

fn thread_count() -> usize {
    let asked = std::env::var(THREADS_VARIABLE).ok().and_then(|count| count.parse::<NonZero<usize>>().ok());
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    asked.map_or(cores.min(DEFAULT_THREADS), NonZero::get)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn no_thread(error: std::io::Error) -> RtcError {
    RtcError { error_type: RtcErrorType::Internal, message: format!("no thread for media: {error}") }
}
