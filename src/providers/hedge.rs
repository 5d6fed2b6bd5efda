//! A second provider beside one that is slower than usual: who gives a first result first stays, and the other is dropped,
//! which is no failure of it.
//!
//! A call is slow after the p95 of the provider's own newest calls. A slow call that lost counts there with the time that
//! it was waited for, so that a provider that became slower is not hedged for ever.

use std::{
    future,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};

use super::{
    ProviderError,
    chain::{Attempt, Call, by},
};
use crate::telemetry;

type Events<E> = BoxStream<'static, Result<E, ProviderError>>;

/// The hedge of one call.
pub(super) struct Hedge<E> {
    /// When another provider is to be asked.
    due: Option<Instant>,
    backup: Option<(Attempt, Events<E>)>,
    /// There is no first result yet.
    is_open: bool,
}

impl<E> Default for Hedge<E> {
    fn default() -> Self {
        Self { due: None, backup: None, is_open: false }
    }
}

/// What happens next.
pub(super) enum Next<E> {
    /// Something came from the provider at work; an error at its deadline.
    Current(Result<Option<E>, ProviderError>),
    /// Something came from the backup.
    Backup(Result<Option<E>, ProviderError>),
    /// Another provider is to be asked.
    Due,
}

impl<E> Hedge<E> {
    /// A provider was asked, which has a first result within `limit` or fails.
    pub(super) fn begin(&mut self, call: &Call, attempt: &Attempt, limit: Duration) {
        self.is_open = true;
        self.due = call.slow_after(attempt).filter(|time| *time < limit).map(|time| attempt.began + time);
    }

    pub(super) async fn next(&mut self, current: &mut Events<E>, deadline: Instant) -> Next<E> {
        let (due, backup) = (self.due, &mut self.backup);
        let backup = async {
            match backup {
                Some((_, events)) => events.next().await.transpose(),
                None => future::pending().await,
            }
        };
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = by(Some(deadline), current.next()) => Next::Current(event.and_then(Option::transpose)),
            event = backup => Next::Backup(event),
            () = due => {
                self.due = None;
                Next::Due
            }
        }
    }

    /// Another provider was asked.
    pub(super) fn ask(&mut self, attempt: Attempt, events: Events<E>) {
        attempt.count(telemetry::HEDGES);
        self.backup = Some((attempt, events));
    }

    /// The provider at work gave a result. The backup is dropped at the first.
    pub(super) fn settle(&mut self, call: &mut Call, winner: &Attempt) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        self.due = None;
        winner.took_so_long();
        if let Some((backup, _)) = self.backup.take() {
            call.put_back(backup);
        }
    }

    /// The backup gave the first result: it is [promoted](Self::promote) next.
    pub(super) fn won(&self, call: &mut Call, loser: Attempt) {
        if let Some((backup, _)) = &self.backup {
            backup.count(telemetry::HEDGES_WON);
        }
        loser.took_so_long();
        call.put_back(loser);
    }

    /// The backup, which takes the place of the provider at work.
    pub(super) fn promote(&mut self, call: &mut Call) -> Option<(Attempt, Events<E>)> {
        let backup = self.backup.take()?;
        call.is_taken_over_by(&backup.0);
        Some(backup)
    }

    pub(super) fn backup_failed(&mut self, call: &mut Call, error: ProviderError) {
        if let Some((backup, _)) = self.backup.take() {
            call.fail(backup, error);
        }
    }
}
