//! One utterance over a WebSocket: sound goes out while transcripts come in. What differs between vendors is their
//! [`Protocol`].

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::{
    Sink, SinkExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::{self, BoxStream, SplitStream},
};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderValue},
};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{
    Error, Message, client::IntoClientRequest, handshake::client::Request, protocol::CloseFrame,
};

use super::{SttEvent, Transcript};
use crate::{
    audio::Pcm,
    providers::{ProviderError, websocket},
    secret::Secret,
};

/// The longest transcript that is taken, in bytes: more than an hour of speech.
const MAX_TEXT: usize = 256 * 1024;

/// What a vendor's messages say.
pub(super) trait Protocol: Send + 'static {
    /// How many samples a message may have. The last one is filled up with silence.
    const SAMPLES: RangeInclusive<usize>;
    /// The messages that end the utterance.
    const END: &'static [&'static str];

    /// Reads a message. `is_sent` once all sound and [`Self::END`] are sent.
    fn read(&mut self, message: &str, is_sent: bool) -> Result<Heard, ProviderError>;

    /// Why the vendor closed the connection before the utterance was whole.
    fn closed(&self, frame: Option<CloseFrame>) -> ProviderError;
}

/// What a message adds.
pub(super) enum Heard {
    Nothing,
    /// The utterance so far.
    Interim(Transcript),
    /// The whole utterance.
    Final(Transcript),
}

/// Where a vendor's WebSocket is, and how it is told the key.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Url,
    authorization: HeaderValue,
    pub(super) key: Secret,
}

impl Endpoint {
    /// `base` is the URL without `path`; `authorization` is the header's value.
    pub(super) fn new(
        base: &str,
        path: &str,
        authorization: &str,
        key: &Secret,
    ) -> Result<Self, ProviderError> {
        let unavailable = |problem: &str| ProviderError::Unavailable(problem.to_owned());
        let base = match base.strip_prefix("http") {
            Some(rest) => format!("ws{rest}"),
            None => base.to_owned(),
        };
        let url = Url::parse(&format!("{base}{path}")).map_err(|_| unavailable("its URL is not valid"))?;
        let mut authorization = HeaderValue::from_str(authorization)
            .map_err(|_| unavailable("its key has characters that a header cannot have"))?;
        authorization.set_sensitive(true);
        Ok(Self { url, authorization, key: key.clone() })
    }

    fn request(&self, query: &[(&'static str, String)]) -> Result<Request, ProviderError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(query);
        let mut request =
            url.as_str().into_client_request().map_err(|error| websocket::failed(error, Some(&self.key)))?;
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        Ok(request)
    }
}

/// Opens one utterance. Connects at the first sound, and not at all if there is none.
pub(super) fn open<P: Protocol>(
    endpoint: Endpoint,
    query: Vec<(&'static str, String)>,
    protocol: P,
    mut audio: mpsc::Receiver<Pcm>,
) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
    let opening = async move {
        let Some(first) = audio.recv().await else {
            return stream::iter([Ok(SttEvent::Final(Transcript::default()))]).boxed();
        };
        let connecting = async {
            let request = endpoint.request(&query)?;
            websocket::connect(request, Some(&endpoint.key)).await
        };
        match connecting.await {
            Ok(socket) => {
                let (outgoing, incoming) = socket.split();
                let sending = Box::pin(send(outgoing, first, audio, P::SAMPLES, P::END));
                let key = endpoint.key;
                Utterance {
                    protocol,
                    incoming,
                    sending: Some(sending as BoxFuture<_>).into(),
                    is_sent: false,
                    interim: String::new(),
                    key,
                }
                .events()
            }
            Err(error) => error.into_stream(),
        }
    };
    stream::once(opening).flatten().boxed()
}

/// Sends all sound, in messages of as many samples as the vendor takes, and then the end.
async fn send(
    mut outgoing: impl Sink<Message, Error = Error> + Unpin,
    first: Pcm,
    mut audio: mpsc::Receiver<Pcm>,
    samples: RangeInclusive<usize>,
    end: &'static [&'static str],
) -> Result<(), Error> {
    let (min, max) = samples.into_inner();
    let mut waiting = first.to_vec();
    loop {
        while waiting.len() >= min {
            let rest = waiting.split_off(waiting.len().min(max));
            outgoing.send(sound(&waiting)).await?;
            waiting = rest;
        }
        let Some(more) = audio.recv().await else { break };
        waiting.extend_from_slice(&more);
    }
    if !waiting.is_empty() {
        waiting.resize(min, 0);
        outgoing.send(sound(&waiting)).await?;
    }
    for message in end {
        outgoing.send(Message::text(*message)).await?;
    }
    Ok(())
}

/// 16-bit PCM, little-endian.
fn sound(samples: &[i16]) -> Message {
    Message::Binary(samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Bytes>())
}

/// An open connection.
struct Utterance<P> {
    protocol: P,
    incoming: SplitStream<websocket::Socket>,
    /// Sends while transcripts are received, so that neither side waits for the other.
    sending: OptionFuture<BoxFuture<'static, Result<(), Error>>>,
    is_sent: bool,
    /// The last interim.
    interim: String,
    key: Secret,
}

impl<P: Protocol> Utterance<P> {
    /// Interims, and then one final or error.
    fn events(self) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        stream::unfold(Some(self), |utterance| async {
            let mut utterance = utterance?;
            let event = utterance.next().await;
            let is_last = !matches!(event, Ok(SttEvent::Interim(_)));
            Some((event, (!is_last).then_some(utterance)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<SttEvent, ProviderError> {
        loop {
            tokio::select! {
                // An answer to the end is never read before the end counts as sent.
                biased;
                Some(sent) = &mut self.sending => {
                    self.sending = None.into();
                    // Why it cannot be sent comes from the receiving side.
                    self.is_sent = sent.is_ok();
                }
                message = self.incoming.next() => match self.read(message)? {
                    Heard::Interim(heard) if heard.text != self.interim => {
                        self.interim.clone_from(&heard.text);
                        return Ok(SttEvent::Interim(heard));
                    }
                    Heard::Final(heard) => return Ok(SttEvent::Final(heard)),
                    Heard::Interim(_) | Heard::Nothing => {}
                },
            }
        }
    }

    fn read(&mut self, message: Option<Result<Message, Error>>) -> Result<Heard, ProviderError> {
        match message {
            Some(Ok(Message::Text(text))) => {
                let heard = self.protocol.read(&text, self.is_sent)?;
                match &heard {
                    Heard::Interim(said) | Heard::Final(said) if said.text.len() > MAX_TEXT => {
                        Err(ProviderError::Garbled("the transcript is too long".into()))
                    }
                    Heard::Nothing | Heard::Interim(_) | Heard::Final(_) => Ok(heard),
                }
            }
            Some(Ok(Message::Binary(_))) => Err(ProviderError::Garbled("a binary message".into())),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Heard::Nothing),
            Some(Ok(Message::Close(frame))) => Err(self.protocol.closed(frame)),
            Some(Err(error)) => Err(websocket::failed(error, Some(&self.key))),
            None => Err(websocket::closed(None, None)),
        }
    }
}

/// Adds a piece of a transcript to the pieces before it. Scripts without spaces between words get none.
pub(super) fn append(text: &mut String, piece: &str) {
    let is_unspaced = |letter: char| matches!(letter, '\u{0e00}'..='\u{0eff}' | '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}');
    let piece = piece.trim();
    if let (Some(last), Some(first)) = (text.chars().next_back(), piece.chars().next())
        && !is_unspaced(last)
        && !is_unspaced(first)
    {
        text.push(' ');
    }
    text.push_str(piece);
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc as sink;

    use super::*;

    #[tokio::test]
    async fn sound_is_sent_in_messages_of_the_lengths_that_the_vendor_takes() {
        let (outgoing, sent) = sink::unbounded();
        let outgoing = outgoing.sink_map_err(|_| Error::AlreadyClosed);
        let (feed, audio) = mpsc::channel(4);
        for length in [3, 25, 8] {
            feed.send(Pcm::from(vec![1; length])).await.unwrap();
        }
        drop(feed);

        send(outgoing, Pcm::from(vec![1; 2]), audio, 5..=10, &["end"]).await.unwrap();

        let sent: Vec<_> = sent.collect().await;
        let lengths: Vec<_> = sent.iter().map(|message| message.len() / 2).collect();
        assert_eq!(lengths, [5, 10, 10, 5, 8, 1]);
        let [.., Message::Binary(last), Message::Text(end)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((end.as_str(), last.len()), ("end", 16));
    }

    #[tokio::test]
    async fn the_last_message_is_filled_up_with_silence() {
        let (outgoing, sent) = sink::unbounded();
        let outgoing = outgoing.sink_map_err(|_| Error::AlreadyClosed);

        let (_, audio) = mpsc::channel(1);
        send(outgoing, Pcm::from(vec![1; 12]), audio, 5..=10, &[]).await.unwrap();

        let sent: Vec<_> = sent.collect().await;
        assert_eq!(sent[1], sound(&[1, 1, 0, 0, 0]));
    }

    #[test]
    fn pieces_are_joined_as_the_script_does() {
        let mut text = String::new();
        for piece in ["Hello.", "", " How are you?", "世界", "你好。", "ok"] {
            append(&mut text, piece);
        }
        assert_eq!(text, "Hello. How are you?世界你好。ok");
    }
}
