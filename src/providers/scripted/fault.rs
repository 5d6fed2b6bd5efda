//! Faults, and how a stream that works becomes one that has them.

#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{collections::VecDeque, future, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    providers::{
        ProviderError,
        stt::{SttEvent, Transcript},
    },
};

/// Audio between two places in an utterance where a fault can come: half a second.
pub(in crate::providers) const STT_STEP: usize = SAMPLE_RATE_HZ as usize / 2;

/// Chunks on the way to a provider that has a fault.
const AUDIO_QUEUE: usize = 1024;

/// What an operator can try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The result comes after the deadline.
    Latency,
    /// The provider's limit is reached.
    Http429,
    /// The provider has a fault of its own.
    Http500,
    /// The connection ends.
    Cut,
    /// What comes is not what the protocol says.
    Garbage,
    /// It ends without a result, as if nothing had been wrong.
    Silence,
    /// Nothing more comes.
    Stall,
}

impl FaultKind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Latency, Self::Http429, Self::Http500, Self::Cut, Self::Garbage, Self::Silence, Self::Stall];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Http429 => "429",
            Self::Http500 => "500",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
            Self::Silence => "silence",
            Self::Stall => "stall",
        }
    }

    /// Whether it comes within a result, and not in place of it.
    pub(crate) fn is_within(self) -> bool {
        match self {
            Self::Cut | Self::Garbage | Self::Stall => true,
            Self::Latency | Self::Http429 | Self::Http500 | Self::Silence => false,
        }
    }

    /// The fault after so many items. `late` is how late a result is that comes too late.
    pub(crate) fn after(self, items: usize, late: Duration) -> At {
        let fault = match self {
            Self::Latency => Fault::Late(late),
            Self::Http429 => Fault::Fails(ProviderError::RateLimited {
                reason: "HTTP 429: scripted".into(),
                retry_after: Some(Duration::from_secs(1)),
            }),
            Self::Http500 => Fault::Fails(ProviderError::Connection("HTTP 500: scripted".into())),
            Self::Cut => {
                Fault::Fails(ProviderError::Connection("the connection ended early (scripted)".into()))
            }
            Self::Garbage => Fault::Fails(ProviderError::Garbled("scripted".into())),
            Self::Silence => Fault::Ends,
            Self::Stall => Fault::Hangs,
        };
        At(items, fault)
    }
}

/// A fault after so many items: pieces of an answer or of sound, steps of [`STT_STEP`] of an utterance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At(pub(crate) usize, pub(crate) Fault);

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    Fails(ProviderError),
    /// Nothing more comes.
    Hangs,
    /// The stream ends before its result, without an error. An utterance ends with an empty final.
    Ends,
    /// The rest is so late; of an utterance, the final.
    Late(Duration),
}

/// The faults of a provider's calls, in order; without one a call works.
#[derive(Default)]
pub(crate) struct Script {
    faults: Mutex<VecDeque<Option<At>>>,
    /// After the last it begins again.
    repeats: bool,
    #[cfg(test)]
    calls: AtomicUsize,
}

impl Script {
    pub(crate) fn once(faults: impl IntoIterator<Item = Option<At>>) -> Self {
        Self { faults: Mutex::new(faults.into_iter().collect()), ..Self::default() }
    }

    pub(crate) fn repeating(faults: impl IntoIterator<Item = Option<At>>) -> Self {
        Self { repeats: true, ..Self::once(faults) }
    }

    /// The fault of the next call.
    pub(crate) fn next(&self) -> Option<At> {
        #[cfg(test)]
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut faults = self.faults.lock();
        let fault = faults.pop_front()?;
        if self.repeats {
            faults.push_back(fault.clone());
        }
        fault
    }

    #[cfg(test)]
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// The stream, so much later.
pub(crate) fn late<T: Send + 'static>(stream: ProviderStream<T>, time: Duration) -> ProviderStream<T> {
    broken(stream, (!time.is_zero()).then_some(At(0, Fault::Late(time))))
}

type ProviderStream<T> = BoxStream<'static, Result<T, ProviderError>>;

/// The stream with a fault. One that ends before the fault has it at its end.
pub(crate) fn broken<T: Send + 'static>(stream: ProviderStream<T>, fault: Option<At>) -> ProviderStream<T> {
    let Some(At(items, fault)) = fault else { return stream };
    if let Fault::Late(time) = fault {
        return stream
            .enumerate()
            .then(move |(at, item)| async move {
                if at == items {
                    tokio::time::sleep(time).await;
                }
                item
            })
            .boxed();
    }
    let end = match fault {
        Fault::Fails(error) => error.into_stream(),
        Fault::Hangs => stream::pending().boxed(),
        Fault::Ends | Fault::Late(_) => stream::empty().boxed(),
    };
    stream.take(items).chain(end).boxed()
}

/// An utterance with a fault; `open` opens it at the provider. One that ends before the fault has it at its end.
pub(crate) fn broken_utterance(
    audio: mpsc::Receiver<Pcm>,
    fault: Option<At>,
    open: impl FnOnce(mpsc::Receiver<Pcm>) -> ProviderStream<SttEvent>,
) -> ProviderStream<SttEvent> {
    let Some(At(steps, fault)) = fault else { return open(audio) };
    let (feed, passed_on) = mpsc::channel(AUDIO_QUEUE);
    let utterance = Utterance {
        audio,
        feed: Some(feed),
        events: open(passed_on),
        samples_left: steps * STT_STEP,
        fault,
        is_over: false,
    };
    stream::unfold(utterance, |mut utterance| async {
        let event = utterance.next().await?;
        Some((event, utterance))
    })
    .boxed()
}

struct Utterance {
    audio: mpsc::Receiver<Pcm>,
    /// None once the audio is over.
    feed: Option<mpsc::Sender<Pcm>>,
    events: ProviderStream<SttEvent>,
    /// Until the fault.
    samples_left: usize,
    fault: Fault,
    is_over: bool,
}

impl Utterance {
    async fn next(&mut self) -> Option<Result<SttEvent, ProviderError>> {
        while !self.is_over {
            let breaks = self.samples_left == 0 && !matches!(self.fault, Fault::Late(_));
            tokio::select! {
                // What the provider makes of the audio before the fault comes first.
                biased;
                event = self.events.next() => return self.pass(event).await,
                () = future::ready(()), if breaks => return Some(self.fail().await),
                pcm = self.audio.recv(), if self.feed.is_some() => self.feed(pcm),
            }
        }
        None
    }

    async fn pass(
        &mut self,
        event: Option<Result<SttEvent, ProviderError>>,
    ) -> Option<Result<SttEvent, ProviderError>> {
        self.is_over = !matches!(event, Some(Ok(SttEvent::Interim(_))));
        if let (true, Fault::Late(time)) = (self.is_over, &self.fault) {
            tokio::time::sleep(*time).await;
        }
        event
    }

    fn feed(&mut self, pcm: Option<Pcm>) {
        let Some(pcm) = pcm else {
            match self.fault {
                Fault::Late(_) => self.feed = None,
                // The provider does not get to its final.
                Fault::Fails(_) | Fault::Hangs | Fault::Ends => self.samples_left = 0,
            }
            return;
        };
        self.samples_left = self.samples_left.saturating_sub(pcm.len());
        if let Some(feed) = &self.feed {
            // A provider that closed its queue says why by its next event; one that is so far behind has stopped.
            let _ = feed.try_send(pcm);
        }
    }

    async fn fail(&mut self) -> Result<SttEvent, ProviderError> {
        self.is_over = true;
        match self.fault.clone() {
            Fault::Fails(error) => Err(error),
            Fault::Hangs | Fault::Late(_) => future::pending().await,
            Fault::Ends => {
                while self.audio.recv().await.is_some() {}
                Ok(SttEvent::Final(Transcript::default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> ProviderError {
        ProviderError::Connection("lost".into())
    }

    #[tokio::test]
    async fn a_fault_comes_at_the_end_of_a_stream_that_is_shorter() {
        let stream = stream::iter([Ok(1), Ok(2)]).boxed();

        let items: Vec<_> = broken(stream, Some(At(5, Fault::Fails(lost())))).collect().await;

        assert_eq!(items, [Ok(1), Ok(2), Err(lost())]);
    }

    #[tokio::test]
    async fn a_fault_comes_in_place_of_the_final_of_an_utterance_that_is_shorter() {
        let (feed, audio) = mpsc::channel::<Pcm>(1);
        feed.send(vec![0; STT_STEP].into()).await.unwrap();
        drop(feed);
        // Its final comes as soon as its audio is over.
        let open = |mut audio: mpsc::Receiver<Pcm>| {
            let heard = async move {
                while audio.recv().await.is_some() {}
                Ok(SttEvent::Final("all of it".into()))
            };
            stream::once(heard).boxed()
        };

        let events: Vec<_> = broken_utterance(audio, Some(At(5, Fault::Fails(lost()))), open).collect().await;

        assert_eq!(events, [Err(lost())]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_whole() {
        let (stream, began) = (stream::iter([Ok(1), Ok(2)]).boxed(), tokio::time::Instant::now());

        let items: Vec<_> = late(stream, Duration::from_secs(3)).collect().await;

        assert_eq!((items, began.elapsed()), (vec![Ok(1), Ok(2)], Duration::from_secs(3)));
    }
}
