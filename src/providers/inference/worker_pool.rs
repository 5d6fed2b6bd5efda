//! A bounded pool of threads for inference, which must not run on threads that serve sessions.
//!
//! ```text
//!   run(Urgent, …)   ──▶ [ urgent   ] ──┐        ┌─ worker 0, its own handle of the model
//!   run(Ordinary, …) ──▶ [ ordinary ] ──┴─ take ─┼─ worker 1, its own handle of the model
//!        full: Busy                              └─ …
//! ```
//!
//! The model is in memory while it is used: a worker makes its handle for its first job, and drops it when it has had none
//! for [`IDLE_TIMEOUT`], unless somebody [holds](WorkerPool::hold) the model. The handles of a pool share what is large, its
//! weights ([`SharedModel`](super::shared_model::SharedModel)). Urgent jobs (a final transcript,
//! the first chunk of speech) go before ordinary ones (interims, later chunks), and an ordinary job that polls its
//! [`CancelToken`] ends early to make room for them. Dropping the receiver of a result cancels the job.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::providers::ProviderError;

/// How long a model stays in memory that nobody holds and that has no work.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which jobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    Urgent,
    Ordinary,
}

/// A pool of threads that each own an `M` while they have work. Dropping it cancels running jobs, discards waiting ones and joins the
/// threads.
pub(crate) struct WorkerPool<M> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<M> {
    queue: Mutex<Queue<M>>,
    wake: Condvar,
    make: Box<dyn Fn() -> Result<M, ProviderError> + Send + Sync>,
    holds: AtomicUsize,
}

/// Keeps a model in memory until it is dropped.
#[derive(Default)]
pub struct Hold(Option<Box<dyn Send + Sync>>);

#[cfg(test)]
impl Hold {
    /// Keeps a value, so that a test sees when it is dropped.
    pub(crate) fn of(value: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(value)))
    }
}

impl FromIterator<Hold> for Hold {
    fn from_iter<I: IntoIterator<Item = Hold>>(holds: I) -> Self {
        let holds: Vec<_> = holds.into_iter().filter_map(|hold| hold.0).collect();
        Self((!holds.is_empty()).then(|| Box::new(holds) as _))
    }
}

/// One hold of a pool.
struct Held<M>(Arc<Shared<M>>);

impl<M> Drop for Held<M> {
    fn drop(&mut self) {
        if self.0.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Idle workers look at the time again.
            self.0.wake.notify_all();
        }
    }
}

struct Queue<M> {
    urgent: VecDeque<Job<M>>,
    ordinary: VecDeque<Job<M>>,
    /// Maximum of waiting jobs, of both priorities together.
    capacity: usize,
    stopping: bool,
}

type Job<M> = Box<dyn FnOnce(Result<&mut M, ProviderError>, &Shared<M>) + Send>;

/// Tells a running job whether to end early.
pub(crate) struct CancelToken<'a, M, T> {
    shared: &'a Shared<M>,
    priority: Priority,
    reply: &'a oneshot::Sender<Result<T, ProviderError>>,
}

impl<M, T> CancelToken<'_, M, T> {
    /// Whether the job should end without a result: its receiver was dropped, the pool stops, or the job is ordinary
    /// and an urgent one waits.
    pub(crate) fn is_cancelled(&self) -> bool {
        if self.reply.is_closed() {
            return true;
        }
        let queue = self.shared.queue.lock();
        queue.stopping || (self.priority == Priority::Ordinary && !queue.urgent.is_empty())
    }
}

impl<M: 'static> WorkerPool<M> {
    /// Starts `count` threads called `name`. At most `capacity` jobs wait at a time. Returns the first error of `make`,
    /// which is tried once, or [`ProviderError::Unavailable`] if a thread cannot be started.
    pub(crate) fn start(
        name: &str,
        count: usize,
        capacity: usize,
        make: impl Fn() -> Result<M, ProviderError> + Send + Sync + 'static,
    ) -> Result<Self, ProviderError>
    where
        M: Send,
    {
        let mut first = Some(make()?);
        let queue = Queue { urgent: VecDeque::new(), ordinary: VecDeque::new(), capacity, stopping: false };
        let shared = Shared {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            make: Box::new(make),
            holds: AtomicUsize::new(0),
        };
        let mut pool = Self { shared: Arc::new(shared), threads: Vec::new() };
        for _ in 0..count.max(1) {
            let (shared, model) = (Arc::clone(&pool.shared), first.take());
            let thread =
                std::thread::Builder::new().name(name.to_owned()).spawn(move || work(model, &shared));
            pool.threads.push(
                thread
                    .map_err(|error| ProviderError::Unavailable(format!("no thread for {name}: {error}")))?,
            );
        }
        Ok(pool)
    }

    /// Runs `job` on the next free worker. The receiver closes without a result if the job returned none or panicked, or
    /// if the pool stopped. [`ProviderError::Busy`] if the queue is full.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        job: impl FnOnce(&mut M, &CancelToken<'_, M, T>) -> Option<Result<T, ProviderError>> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, ProviderError>>, ProviderError> {
        let (reply, result) = oneshot::channel();
        let job = Box::new(move |model: Result<&mut M, ProviderError>, shared: &Shared<M>| {
            let cancel = CancelToken { shared, priority, reply: &reply };
            if reply.is_closed() {
                return;
            }
            let done = match model {
                Ok(model) => job(model, &cancel),
                Err(error) => Some(Err(error)),
            };
            if let Some(value) = done {
                // Fails if the receiver was dropped: then nobody waits for the result.
                let _ = reply.send(value);
            }
        });
        self.queue(priority, job)?;
        Ok(result)
    }

    /// Somebody will soon need the model: loads it, unless it is there, and keeps it until the hold is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.shared.holds.fetch_add(1, Ordering::AcqRel);
        // Where the queue is full, the workers have their models.
        let _ = self.queue(Priority::Ordinary, Box::new(|_, _| ()));
        Hold(Some(Box::new(Held(Arc::clone(&self.shared)))))
    }

    fn queue(&self, priority: Priority, job: Job<M>) -> Result<(), ProviderError> {
        let mut queue = self.shared.queue.lock();
        if queue.urgent.len() + queue.ordinary.len() >= queue.capacity {
            return Err(ProviderError::Busy);
        }
        match priority {
            Priority::Urgent => queue.urgent.push_back(job),
            Priority::Ordinary => queue.ordinary.push_back(job),
        }
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl<M> Drop for WorkerPool<M> {
    fn drop(&mut self) {
        // Jobs are dropped after the lock is released: they can hold anything.
        let discarded = {
            let mut queue = self.shared.queue.lock();
            queue.stopping = true;
            (std::mem::take(&mut queue.urgent), std::mem::take(&mut queue.ordinary))
        };
        drop(discarded);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A job can hold the last handle to its own pool, and a thread cannot join itself.
            if thread.thread().id() != std::thread::current().id() {
                // An error means that it panicked, which the panic hook has reported.
                let _ = thread.join();
            }
        }
    }
}

fn work<M>(mut model: Option<M>, shared: &Shared<M>) {
    while let Some(job) = next(shared, &mut model) {
        let made = match &mut model {
            Some(model) => Ok(model),
            None => (shared.make)().map(|made| model.insert(made)),
        };
        if let Err(error) = &made {
            tracing::error!(%error, "a model that could be loaded before cannot be loaded");
        }
        // The panic hook reports the panic; the job has no result, and the worker continues.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| job(made, shared)));
    }
}

/// Waits for a job; none when the pool stops. Drops the model that nobody needs.
fn next<M>(shared: &Shared<M>, model: &mut Option<M>) -> Option<Job<M>> {
    let mut queue = shared.queue.lock();
    loop {
        if queue.stopping {
            return None;
        }
        let Queue { urgent, ordinary, .. } = &mut *queue;
        if let Some(job) = urgent.pop_front().or_else(|| ordinary.pop_front()) {
            return Some(job);
        }
        if model.is_none() || shared.holds.load(Ordering::Acquire) > 0 {
            shared.wake.wait(&mut queue);
        } else if shared.wake.wait_for(&mut queue, IDLE_TIMEOUT).timed_out() {
            MutexGuard::unlocked(&mut queue, || {
                *model = None;
                return_free_memory();
            });
        }
    }
}

/// Gives what was freed back to the system: glibc keeps most of a model's memory for the next one. (Other allocators give
/// memory back by themselves.)
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "there is no safe function for it")
)]
fn return_free_memory() {
    // SAFETY: the function may be called at any time by any thread. It only touches memory that is free.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// One worker whose model is the list of what ran.
    fn one_worker(capacity: usize) -> WorkerPool<Vec<&'static str>> {
        WorkerPool::start("test", 1, capacity, || Ok(Vec::new())).unwrap()
    }

    /// A running job on the only worker; it ends when this is dropped.
    struct Occupied {
        _release: mpsc::Sender<()>,
        _result: oneshot::Receiver<Result<(), ProviderError>>,
    }

    fn occupy(workers: &WorkerPool<Vec<&'static str>>) -> Occupied {
        let (release, released) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let result = workers
            .run(Priority::Urgent, move |_, _| {
                begun.send(()).unwrap();
                // Nothing is ever sent: this waits until the sender is dropped.
                let _ = released.recv();
                None
            })
            .unwrap();
        has_begun.recv().unwrap();
        Occupied { _release: release, _result: result }
    }

    fn note(
        workers: &WorkerPool<Vec<&'static str>>,
        priority: Priority,
        name: &'static str,
    ) -> Result<oneshot::Receiver<Result<Vec<&'static str>, ProviderError>>, ProviderError> {
        workers.run(priority, move |ran, _| {
            ran.push(name);
            Some(Ok(ran.clone()))
        })
    }

    #[test]
    fn urgent_jobs_go_before_ordinary_ones_that_came_first() {
        let workers = one_worker(8);
        let release = occupy(&workers);
        let ordinary = note(&workers, Priority::Ordinary, "ordinary").unwrap();
        let _urgent = note(&workers, Priority::Urgent, "urgent").unwrap();

        drop(release);

        assert_eq!(ordinary.blocking_recv().unwrap().unwrap(), ["urgent", "ordinary"]);
    }

    #[test]
    fn a_full_queue_is_busy() {
        let workers = one_worker(1);
        let _release = occupy(&workers);
        let _waiting = note(&workers, Priority::Ordinary, "first").unwrap();

        assert_eq!(note(&workers, Priority::Urgent, "second").unwrap_err(), ProviderError::Busy);
    }

    #[test]
    fn a_job_whose_receiver_was_dropped_does_not_start() {
        let workers = one_worker(8);
        let release = occupy(&workers);
        drop(note(&workers, Priority::Ordinary, "abandoned").unwrap());
        let last = note(&workers, Priority::Ordinary, "last").unwrap();

        drop(release);

        assert_eq!(last.blocking_recv().unwrap().unwrap(), ["last"]);
    }

    #[test]
    fn an_ordinary_job_is_cancelled_to_make_room_for_an_urgent_one() {
        let workers = one_worker(8);
        let (begun, has_begun) = mpsc::channel();
        let ordinary = workers
            .run(Priority::Ordinary, move |_, cancel: &CancelToken<'_, _, ()>| {
                begun.send(()).unwrap();
                while !cancel.is_cancelled() {
                    std::thread::yield_now();
                }
                None
            })
            .unwrap();
        has_begun.recv().unwrap();

        let urgent = note(&workers, Priority::Urgent, "urgent").unwrap();

        assert_eq!(urgent.blocking_recv().unwrap().unwrap(), ["urgent"]);
        assert!(ordinary.blocking_recv().is_err());
    }

    #[test]
    fn a_job_that_panics_costs_only_its_own_result() {
        let workers = one_worker(8);

        let broken =
            workers.run(Priority::Urgent, |_, _: &CancelToken<'_, _, ()>| panic!("a bad input")).unwrap();
        let next = note(&workers, Priority::Urgent, "next").unwrap();

        assert!(broken.blocking_recv().is_err());
        assert_eq!(next.blocking_recv().unwrap().unwrap(), ["next"]);
    }

    #[test]
    fn stopping_discards_waiting_jobs_and_ends_the_threads() {
        let workers = one_worker(8);
        let release = occupy(&workers);
        let waiting = note(&workers, Priority::Ordinary, "waiting").unwrap();
        let shared = Arc::downgrade(&workers.shared);

        let stop = std::thread::spawn(move || drop(workers));
        assert!(waiting.blocking_recv().is_err());
        drop(release);
        stop.join().unwrap();

        assert!(shared.upgrade().is_none());
    }

    /// Models that are in memory, and that were ever made.
    #[derive(Clone, Default)]
    struct Models(Arc<AtomicUsize>, Arc<AtomicUsize>);

    struct Model(Models);

    impl Drop for Model {
        fn drop(&mut self) {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Models {
        fn make(&self) -> Model {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.fetch_add(1, Ordering::SeqCst);
            Model(self.clone())
        }

        fn wait_for(&self, in_memory: usize) {
            while self.0.load(Ordering::SeqCst) != in_memory {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_model_that_nobody_needs_is_dropped_and_made_again_for_the_next_job() {
        let models = Models::default();
        let made = models.clone();
        let workers = WorkerPool::start("test", 1, 8, move || Ok(made.make())).unwrap();
        models.wait_for(1);
        models.wait_for(0);

        let job = workers.run(Priority::Urgent, |_, _| Some(Ok(()))).unwrap();

        assert_eq!(job.blocking_recv().unwrap(), Ok(()));
        assert_eq!(models.1.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_model_is_made_for_whoever_holds_it_and_stays_until_they_let_go() {
        let models = Models::default();
        let made = models.clone();
        let workers = WorkerPool::start("test", 1, 8, move || Ok(made.make())).unwrap();
        models.wait_for(0);

        let hold = workers.hold();

        models.wait_for(1);
        drop(hold);
        models.wait_for(0);
    }

    #[test]
    fn a_model_that_cannot_be_loaded_any_more_fails_its_jobs_and_no_others() {
        let models = Models::default();
        let made = models.clone();
        let make = move || match made.1.load(Ordering::SeqCst) {
            1 => {
                made.1.fetch_add(1, Ordering::SeqCst);
                Err(ProviderError::Unavailable("the file is gone".into()))
            }
            _ => Ok(made.make()),
        };
        let workers = WorkerPool::start("test", 1, 8, make).unwrap();
        models.wait_for(0);
        let run = || workers.run(Priority::Urgent, |_, _| Some(Ok(()))).unwrap().blocking_recv().unwrap();

        assert_eq!(run(), Err(ProviderError::Unavailable("the file is gone".into())));
        assert_eq!(run(), Ok(()));
    }

    #[test]
    fn a_pool_whose_model_does_not_load_does_not_start() {
        let result =
            WorkerPool::<()>::start("test", 2, 8, || Err(ProviderError::Unavailable("no such file".into())));

        assert_eq!(result.err(), Some(ProviderError::Unavailable("no such file".into())));
    }
}
