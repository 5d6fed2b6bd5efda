//! A client that does not take what it is sent.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{tcp::Deadline, telemetry};

/// What a slow client has to take within the timeout, in bytes, for the timeout to begin anew.
const MIN_PROGRESS: usize = 32 * 1024;

/// The deadline for bytes that wait to be written.
pub(crate) struct WriteStall {
    timeout: Duration,
    stalled: Option<Stalled>,
}

struct Stalled {
    deadline: Deadline,
    /// Bytes that the client took since the deadline was set.
    taken: usize,
}

impl WriteStall {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, stalled: None }
    }

    /// Whether bytes wait.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// The system accepted bytes; `all` of those that waited.
    pub(crate) fn took(&mut self, bytes: usize, all: bool) {
        if all {
            self.stalled = None;
        } else if let Some(stalled) = &mut self.stalled {
            stalled.taken += bytes;
            if stalled.taken >= MIN_PROGRESS {
                *stalled = Stalled::new(self.timeout);
            }
        }
    }

    /// Bytes wait, and the system accepts none. Ready once the client has had its time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Stalled::new(timeout));
        ready!(stalled.deadline.poll(cx));
        metrics::counter!(telemetry::CONNECTIONS_TIMED_OUT, "for" => "write").increment(1);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
    }
}

impl Stalled {
    fn new(timeout: Duration) -> Self {
        Self { deadline: Deadline::after(timeout), taken: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    async fn is_over(stall: &mut WriteStall) -> bool {
        poll_fn(|cx| stall.poll(cx)).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_few_bytes_now_and_then_is_over_in_time() {
        let mut stall = WriteStall::new(TIMEOUT);
        for _ in 0..30 {
            assert!(!is_over(&mut stall).await);
            stall.took(100, false);
            tokio::time::advance(TIMEOUT / 30).await;
        }

        assert!(is_over(&mut stall).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_but_reads_is_not_over() {
        let mut stall = WriteStall::new(TIMEOUT);
        for _ in 0..10 {
            assert!(!is_over(&mut stall).await);
            tokio::time::advance(TIMEOUT * 2 / 3).await;
            stall.took(MIN_PROGRESS, false);
        }

        assert!(!is_over(&mut stall).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_took_everything_has_its_whole_time_for_what_comes_next() {
        let mut stall = WriteStall::new(TIMEOUT);
        assert!(!is_over(&mut stall).await);
        tokio::time::advance(TIMEOUT * 2 / 3).await;
        stall.took(1, true);
        assert!(!is_over(&mut stall).await);

        tokio::time::advance(TIMEOUT * 2 / 3).await;

        assert!(!is_over(&mut stall).await);
    }
}
