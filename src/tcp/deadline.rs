//! A timer for a client that keeps the gateway busy.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::clock;

/// Ready from a moment on. Unlike a `Sleep` alone it is so too in a task that has used up tokio's cooperative budget:
/// a client that sends without a pause uses it up in every poll.
pub(crate) struct Deadline {
    at: Instant,
    /// Set once it is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self { at, timer: None }
    }

    pub(crate) fn after(timeout: Duration) -> Self {
        Self::at(clock::now() + timeout)
    }

    /// Moves it, and keeps its timer.
    pub(crate) fn move_to(&mut self, at: Instant) {
        if self.at != at {
            self.at = at;
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(at.into());
            }
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if clock::now() >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at.into()))).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_up_its_budget_sees_that_the_time_is_over() {
        let mut deadline = Deadline::after(Duration::from_secs(10));
        assert!(poll_fn(|cx| deadline.poll(cx)).now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(10)).await;
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().now_or_never();
        }

        assert!(poll_fn(|cx| deadline.poll(cx)).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_wakes_at_its_new_time() {
        let began = clock::now();
        let mut deadline = Deadline::after(Duration::from_secs(10));
        assert!(poll_fn(|cx| deadline.poll(cx)).now_or_never().is_none());

        deadline.move_to(began + Duration::from_secs(30));

        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!((clock::now() - began).as_secs(), 30);
    }
}
