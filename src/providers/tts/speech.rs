//! What TTS providers in the network have in common: the limits of a sentence's speech, and PCM out of an HTTP response.

use std::{pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Response, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::time::{Sleep, sleep};

use super::SpeechRequest;
use crate::{
    audio::pcm::PcmBytes,
    providers::{ProviderError, http},
    secret::Secret,
};

/// The longest speech of a sentence, and the longest time that it may take. A sentence has at most 240 characters: 20 s
/// of English, a minute of Chinese.
pub(super) const MAX_SPEECH: Duration = Duration::from_secs(120);

/// How much of a body is looked at to tell text and compressed audio from PCM, in bytes: about a millisecond.
const HEAD_BYTES: usize = 64;

pub(super) type Pieces = BoxStream<'static, Result<Vec<i16>, ProviderError>>;

/// Speech within its limits; `open` asks the provider. A text without words is not spoken. Digital silence before the
/// first sound is left out, so that silence alone is [`ProviderError::Empty`].
pub(super) fn speech(
    request: &SpeechRequest,
    rate_hz: u32,
    open: impl Future<Output = Result<Pieces, ProviderError>> + Send + 'static,
) -> Pieces {
    if !request.text.chars().any(char::is_alphanumeric) {
        return stream::empty().boxed();
    }
    limited(stream::once(open).try_flatten().boxed(), rate_hz)
}

fn limited(pieces: Pieces, rate_hz: u32) -> Pieces {
    let begin = async move {
        let samples_left = MAX_SPEECH.as_secs() as usize * rate_hz as usize;
        Speech { pieces, samples_left, is_silent: true, deadline: Box::pin(sleep(MAX_SPEECH)) }
    };
    stream::once(begin)
        .flat_map(|speech| {
            stream::unfold(Some(speech), |speech| async {
                let mut speech = speech?;
                match speech.next().await? {
                    Ok(piece) => Some((Ok(piece), Some(speech))),
                    Err(error) => Some((Err(error), None)),
                }
            })
        })
        .boxed()
}

struct Speech {
    pieces: Pieces,
    samples_left: usize,
    is_silent: bool,
    deadline: Pin<Box<Sleep>>,
}

impl Speech {
    async fn next(&mut self) -> Option<Result<Vec<i16>, ProviderError>> {
        loop {
            let piece = tokio::select! {
                biased;
                () = &mut self.deadline => return Some(Err(ProviderError::TimedOut)),
                piece = self.pieces.next() => piece,
            };
            let piece = match piece {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Some(Err(error)),
                None => return self.is_silent.then_some(Err(ProviderError::Empty)),
            };
            let Some(samples_left) = self.samples_left.checked_sub(piece.len()) else {
                let seconds = MAX_SPEECH.as_secs();
                return Some(Err(ProviderError::Garbled(format!("a sentence of more than {seconds} s"))));
            };
            self.samples_left = samples_left;
            self.is_silent &= piece.iter().all(|sample| *sample == 0);
            if !self.is_silent && !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
    }
}

/// The samples of a response whose body is PCM16LE, mono, at `rate_hz`.
pub(super) async fn pcm(
    response: Response,
    rate_hz: u32,
    key: Option<&Secret>,
) -> Result<Pieces, ProviderError> {
    let is_pcm = match ContentType::of(&response) {
        ContentType { essence, .. } if essence.is_empty() || essence.ends_with("/octet-stream") => true,
        ContentType { essence, rate_hz: rate, channels } => {
            essence.starts_with("audio/")
                && !COMPRESSED.iter().any(|name| essence.ends_with(name))
                && rate.is_none_or(|rate| rate == rate_hz)
                && channels.is_none_or(|channels| channels == 1)
        }
    };
    if !is_pcm {
        return Err(http::unexpected(response, key).await);
    }
    let mut body = body(response);
    let mut head = BytesMut::new();
    while head.len() < HEAD_BYTES
        && let Some(piece) = body.next().await
    {
        head.extend_from_slice(&piece?);
    }
    if let Some(found) = other_than_pcm(&head) {
        return Err(ProviderError::Garbled(format!("{found} in place of PCM")));
    }
    let mut decoder = PcmBytes::default();
    let body = stream::iter([Ok(head.freeze())]).chain(body);
    Ok(body.map_ok(move |piece| decoder.decode(&piece)).boxed())
}

pub(super) fn body(response: Response) -> impl Stream<Item = Result<Bytes, ProviderError>> + Send {
    response.bytes_stream().map_err(|error| http::connection(&error))
}

/// Ends of the content types of files.
const COMPRESSED: [&str; 9] = ["mpeg", "mp3", "mp4", "ogg", "opus", "aac", "flac", "wav", "webm"];

pub(super) struct ContentType {
    /// In lower case, without parameters; empty if there is none.
    pub(super) essence: String,
    rate_hz: Option<u32>,
    channels: Option<u16>,
}

impl ContentType {
    pub(super) fn of(response: &Response) -> Self {
        let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default().to_ascii_lowercase();
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_owned();
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |wanted| parameters.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        Self {
            essence,
            rate_hz: parameter("rate").and_then(|rate| rate.parse().ok()),
            channels: parameter("channels").and_then(|channels| channels.parse().ok()),
        }
    }
}

/// What a body is that begins like this, if it is not PCM.
fn other_than_pcm(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 4] = [
        (b"RIFF", "a WAV file"),
        (b"ID3", "an MP3 file"),
        (b"OggS", "an Ogg file"),
        (b"fLaC", "a FLAC file"),
    ];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    match MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, found)) => Some(found),
        // Two printable bytes are a loud sample: speech never begins with so many of them.
        None if head.len() >= 8 && head.iter().take(HEAD_BYTES).all(is_text) => Some("text"),
        None => None,
    }
}

/// `base` without its path's end, and with `path` after it.
pub(super) fn url(base: &str, path: &str, setting: &str) -> Result<Url, ProviderError> {
    Url::parse(&format!("{}{path}", base.trim_end_matches('/')))
        .ok()
        .filter(Url::has_host)
        .ok_or_else(|| ProviderError::Unavailable(format!("{setting} is not a URL")))
}

/// A header with a key in it, which `Debug` omits.
pub(super) fn header(value: &str, setting: &str) -> Result<HeaderValue, ProviderError> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        ProviderError::Unavailable(format!("{setting} has characters that a key cannot have"))
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 1000;

    fn pieces(pieces: Vec<Vec<i16>>) -> Pieces {
        stream::iter(pieces.into_iter().map(Ok)).boxed()
    }

    async fn limited(pieces: Pieces) -> Vec<Result<Vec<i16>, ProviderError>> {
        super::limited(pieces, RATE_HZ).collect().await
    }

    #[tokio::test]
    async fn pieces_without_samples_and_the_silence_before_speech_are_left_out() {
        let spoken = limited(pieces(vec![vec![0, 0], vec![], vec![0, 5], vec![], vec![0], vec![7]])).await;

        assert_eq!(spoken, [Ok(vec![0, 5]), Ok(vec![0]), Ok(vec![7])]);
    }

    #[tokio::test]
    async fn a_sentence_of_no_samples_or_of_silence_alone_is_an_error() {
        for silence in [vec![], vec![vec![]], vec![vec![0; 500], vec![0; 500]]] {
            assert_eq!(limited(pieces(silence)).await, [Err(ProviderError::Empty)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_or_gives_nothing_but_empty_pieces_ends_in_time() {
        let hanging = pieces(vec![vec![1]]).chain(stream::pending()).boxed();
        assert_eq!(limited(hanging).await, [Ok(vec![1]), Err(ProviderError::TimedOut)]);

        let empty = stream::repeat(()).then(|()| sleep(Duration::from_secs(1))).map(|()| Ok(Vec::new()));
        assert_eq!(limited(empty.boxed()).await, [Err(ProviderError::TimedOut)]);
    }

    #[tokio::test]
    async fn speech_without_end_is_cut_at_its_limit() {
        let spoken = limited(stream::repeat(Ok(vec![1; 1000])).boxed()).await;

        let (last, whole) = spoken.split_last().unwrap();
        assert_eq!(whole.len() as u64, MAX_SPEECH.as_secs());
        assert_eq!(*last, Err(ProviderError::Garbled("a sentence of more than 120 s".into())));
    }

    #[test]
    fn text_and_files_are_told_from_pcm() {
        for (head, found) in [
            (&b"<!DOCTYPE html><title>nginx</title>"[..], Some("text")),
            (b"{\"error\":\"quota reached\"}", Some("text")),
            (b"RIFF\x24\0\0\0WAVEfmt ", Some("a WAV file")),
            (b"ID3\x04\0\0", Some("an MP3 file")),
            (b"OggS\0\x02", Some("an Ogg file")),
            (b"fLaC\0\0\0\x22", Some("a FLAC file")),
            (b"", None),
            (b"<{\x01\0\x02\0\xff\xff", None),
            (&[0; 64], None),
        ] {
            assert_eq!(other_than_pcm(head), found, "{head:?}");
        }
    }
}
