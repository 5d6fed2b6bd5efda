//! A bounded pool of threads for inference, which must not run on threads that serve sessions.
//!
//! ```text
//!   run(Urgent, …)   ──▶ [ urgent   ] ──┐        ┌─ worker 0, its own model
//!   run(Ordinary, …) ──▶ [ ordinary ] ──┴─ take ─┼─ worker 1, its own model
//!        full: Busy                              └─ …
//! ```
//!
//! Each worker owns a model, since an ONNX Runtime session runs one input at a time. Urgent jobs (a final transcript,
//! the first chunk of speech) go before ordinary ones (interims, later chunks), and an ordinary job that polls its
//! [`CancelToken`] ends early to make room for them. Dropping the receiver of a result cancels the job.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::providers::ProviderError;

/// Which jobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    Urgent,
    Ordinary,
}

/// A pool of threads that each own an `M`. Dropping it cancels running jobs, discards waiting ones and joins the
/// threads.
pub(crate) struct WorkerPool<M> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<M> {
    queue: Mutex<Queue<M>>,
    wake: Condvar,
}

struct Queue<M> {
    urgent: VecDeque<Job<M>>,
    ordinary: VecDeque<Job<M>>,
    /// Maximum of waiting jobs, of both priorities together.
    capacity: usize,
    stopping: bool,
}

type Job<M> = Box<dyn FnOnce(&mut M, &Shared<M>) + Send>;

/// Tells a running job whether to end early.
pub(crate) struct CancelToken<'a, M, T> {
    shared: &'a Shared<M>,
    priority: Priority,
    reply: &'a oneshot::Sender<T>,
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
    /// Starts `count` threads called `name`, and waits until each has made its model. At most `capacity` jobs wait at a
    /// time. Returns the first error of `make`, or [`ProviderError::Unavailable`] if a thread cannot be started.
    pub(crate) fn start(
        name: &str,
        count: usize,
        capacity: usize,
        make: impl Fn() -> Result<M, ProviderError> + Send + Sync + 'static,
    ) -> Result<Self, ProviderError> {
        let queue = Queue { urgent: VecDeque::new(), ordinary: VecDeque::new(), capacity, stopping: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), wake: Condvar::new() });
        let mut pool = Self { shared, threads: Vec::new() };
        let make = Arc::new(make);
        let (ready, made) = std::sync::mpsc::channel();
        let count = count.max(1);
        for _ in 0..count {
            let (shared, make, ready) = (Arc::clone(&pool.shared), Arc::clone(&make), ready.clone());
            let run = move || match make() {
                Ok(model) => {
                    // Fails if another worker failed to start: then nobody waits for this one.
                    let _ = ready.send(Ok(()));
                    work(model, &shared);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            };
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            pool.threads.push(
                thread
                    .map_err(|error| ProviderError::Unavailable(format!("no thread for {name}: {error}")))?,
            );
        }
        drop(ready);
        for _ in 0..count {
            let died =
                ProviderError::Unavailable(format!("a worker of {name} ended while loading its model"));
            made.recv().unwrap_or(Err(died))?;
        }
        Ok(pool)
    }

    /// Runs `job` on the next free worker. The receiver closes without a result if the job returned none or panicked, or
    /// if the pool stopped. [`ProviderError::Busy`] if the queue is full.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        job: impl FnOnce(&mut M, &CancelToken<'_, M, T>) -> Option<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, ProviderError> {
        let (reply, result) = oneshot::channel();
        let job = Box::new(move |model: &mut M, shared: &Shared<M>| {
            let cancel = CancelToken { shared, priority, reply: &reply };
            if reply.is_closed() {
                return;
            }
            if let Some(value) = job(model, &cancel) {
                // Fails if the receiver was dropped: then nobody waits for the result.
                let _ = reply.send(value);
            }
        });

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
        Ok(result)
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

fn work<M>(mut model: M, shared: &Shared<M>) {
    while let Some(job) = next(shared) {
        // The panic hook reports the panic; the job has no result, and the worker continues.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| job(&mut model, shared)));
    }
}

/// Waits for a job; none when the pool stops.
fn next<M>(shared: &Shared<M>) -> Option<Job<M>> {
    let mut queue = shared.queue.lock();
    loop {
        if queue.stopping {
            return None;
        }
        let Queue { urgent, ordinary, .. } = &mut *queue;
        match urgent.pop_front().or_else(|| ordinary.pop_front()) {
            Some(job) => return Some(job),
            None => shared.wake.wait(&mut queue),
        }
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
        _result: oneshot::Receiver<()>,
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
    ) -> Result<oneshot::Receiver<Vec<&'static str>>, ProviderError> {
        workers.run(priority, move |ran, _| {
            ran.push(name);
            Some(ran.clone())
        })
    }

    #[test]
    fn urgent_jobs_go_before_ordinary_ones_that_came_first() {
        let workers = one_worker(8);
        let release = occupy(&workers);
        let ordinary = note(&workers, Priority::Ordinary, "ordinary").unwrap();
        let _urgent = note(&workers, Priority::Urgent, "urgent").unwrap();

        drop(release);

        assert_eq!(ordinary.blocking_recv().unwrap(), ["urgent", "ordinary"]);
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

        assert_eq!(last.blocking_recv().unwrap(), ["last"]);
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

        assert_eq!(urgent.blocking_recv().unwrap(), ["urgent"]);
        assert!(ordinary.blocking_recv().is_err());
    }

    #[test]
    fn a_job_that_panics_costs_only_its_own_result() {
        let workers = one_worker(8);

        let broken =
            workers.run(Priority::Urgent, |_, _: &CancelToken<'_, _, ()>| panic!("a bad input")).unwrap();
        let next = note(&workers, Priority::Urgent, "next").unwrap();

        assert!(broken.blocking_recv().is_err());
        assert_eq!(next.blocking_recv().unwrap(), ["next"]);
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

    #[test]
    fn a_pool_whose_model_does_not_load_does_not_start() {
        let result =
            WorkerPool::<()>::start("test", 2, 8, || Err(ProviderError::Unavailable("no such file".into())));

        assert_eq!(result.err(), Some(ProviderError::Unavailable("no such file".into())));
    }
}
