//! The threads that connections and sources run on.
//!
//! There is one engine in a process while anything needs it: a connection, a source, or a factory. Its threads end
//! with the last of them.

use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use crate::{RtcError, RtcErrorType};

/// How many threads, where the default does not suit.
const THREADS_VARIABLE: &str = "LIBWEBRTC_THREADS";
/// A thread carries some 400 listening connections. Two are plenty for what a machine of this kind does.
const DEFAULT_THREADS: usize = 2;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module.
pub(crate) struct Engine {
    /// New tasks, one queue per thread. They are without bound, since what is in them is a connection that the
    /// application has made already.
    threads: Vec<UnboundedSender<Task>>,
    next: AtomicUsize,
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
            let (tasks, queue) = unbounded_channel();
            let runtime =
                Builder::new_current_thread().enable_io().enable_time().build().map_err(no_thread)?;
            thread::Builder::new()
                .name(format!("webrtc-{number}"))
                .spawn(move || LocalSet::new().block_on(&runtime, serve(queue)))
                .map_err(no_thread)?;
            threads.push(tasks);
        }
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Runs `task` on one of the threads, in turn.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        if self.threads[turn].send(Box::pin(task)).is_err() {
            // The thread's loop ends only after this engine is dropped, unless it panicked.
            tracing::error!("the engine's thread is gone");
        }
    }
}

/// Runs tasks until the engine is dropped and all of them have ended.
async fn serve(mut queue: UnboundedReceiver<Task>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            task = queue.recv() => match task {
                Some(task) => {
                    tasks.spawn_local(task);
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => report(ended),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

/// A panic in one connection is a bug of ours that the others survive.
fn report(ended: Result<(), tokio::task::JoinError>) {
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
