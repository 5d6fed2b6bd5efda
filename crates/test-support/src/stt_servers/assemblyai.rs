//! AssemblyAI's `/v3/ws`.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    KEY, Shared, SttFault, SttRequest, SttScript,
    websocket::{self, Client, Sent},
};

/// What the reference lists; a parameter with another name is a mistake.
const PARAMETERS: [&str; 18] = [
    "continuous_partials",
    "domain",
    "encoding",
    "end_of_turn_confidence_threshold",
    "filter_profanity",
    "format_turns",
    "inactivity_timeout",
    "keyterms_prompt",
    "language_codes",
    "language_detection",
    "max_speakers",
    "max_turn_silence",
    "min_turn_silence",
    "prompt",
    "sample_rate",
    "speaker_labels",
    "speech_model",
    "token",
];

const RATE: usize = 16_000;
const SAMPLES_PER_WORD: usize = RATE * 3 / 10;

/// Turns of an utterance, of which the last one is open.
struct Turns<'a> {
    words: Vec<&'a str>,
    heard: usize,
    /// Where the open turn begins.
    begin: usize,
    order: u64,
    samples: usize,
    detects_language: bool,
    diarizes: bool,
}

pub(super) async fn serve(connection: TcpStream, shared: &Shared, script: &SttScript) -> Option<()> {
    let check = |request: &SttRequest| match request.path.as_str() {
        "/v3/ws" => Ok(()),
        _ => Err((404, json!({"error": "Not Found"}))),
    };
    let mut client = websocket::accept(connection, shared, script, check).await?;
    let request = client.request();
    // Everything else is refused on the open connection.
    if request.authorization.as_deref() != Some(KEY) {
        return refuse(&mut client, 1008, "Unauthorized Connection: Missing Authorization header").await;
    }
    if let Some((name, _)) = request.query.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
        return refuse(&mut client, 3006, &format!("Invalid parameter: {name}")).await;
    }
    if request.query("sample_rate") != ["16000"] || request.query("speech_model").len() != 1 {
        return refuse(&mut client, 3006, "sample_rate and speech_model are required").await;
    }
    client.send(&json!({"type": "Begin", "id": "0193", "expires_at": 1_795_600_000})).await?;
    // Their SDK for Python sends `True`, the one for JavaScript `true`.
    let is_on =
        |name: &str| request.query(name).first().is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut turns = Turns {
        words: script.words(),
        heard: 0,
        begin: 0,
        order: 0,
        samples: 0,
        detects_language: is_on("language_detection"),
        diarizes: is_on("speaker_labels"),
    };
    loop {
        match client.next().await? {
            Sent::Sound(count) if !(RATE / 20..=RATE).contains(&count) => {
                let millis = count * 1000 / RATE;
                let reason =
                    format!("Input duration violation: {millis} ms. Expected between 50 and 1000 ms");
                return refuse(&mut client, 3007, &reason).await;
            }
            Sent::Sound(count) => hear(&mut client, script, &mut turns, count).await?,
            Sent::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                match message["type"].as_str() {
                    Some("KeepAlive" | "UpdateConfiguration") => {}
                    Some("ForceEndpoint") => finish(&mut client, &mut turns).await?,
                    Some("Terminate") => {
                        finish(&mut client, &mut turns).await?;
                        let seconds = turns.samples / RATE;
                        let end = json!({"type": "Termination", "audio_duration_seconds": seconds,
                            "session_duration_seconds": seconds});
                        client.send(&end).await?;
                        client.close(1000, "").await;
                        return None;
                    }
                    _ => return refuse(&mut client, 3006, &format!("Invalid Message Type: {text}")).await,
                }
            }
        }
    }
}

async fn refuse(client: &mut Client<'_>, code: u16, reason: &str) -> Option<()> {
    client.send(&json!({"type": "Error", "error_code": code, "error": reason})).await?;
    client.close(code, "See Error message for details").await;
    None
}

async fn hear(
    client: &mut Client<'_>,
    script: &SttScript,
    turns: &mut Turns<'_>,
    count: usize,
) -> Option<()> {
    if turns.samples == 0 {
        client.send(&json!({"type": "SpeechStarted", "timestamp": 0})).await?;
    }
    turns.samples += count;
    let heard = (turns.samples / SAMPLES_PER_WORD).min(turns.words.len());
    while turns.heard < heard {
        turns.heard += 1;
        let is_over =
            turns.words[turns.heard - 1].ends_with(['.', '?', '!']) && turns.heard < turns.words.len();
        if is_over {
            // Once as it was heard, once punctuated.
            client.send(&turns.turn(true, false)).await?;
            client.send(&turns.turn(true, true)).await?;
            turns.next();
        } else {
            client.send(&turns.turn(false, false)).await?;
        }
        if turns.heard == 2 {
            if let Some(SttFault::Reports(code, reason)) = &script.fault {
                return refuse(client, *code, reason).await;
            }
            client.fail().await?;
        }
    }
    Some(())
}

/// Ends the open turn with all that is not said yet.
async fn finish(client: &mut Client<'_>, turns: &mut Turns<'_>) -> Option<()> {
    if turns.samples > 0 {
        turns.heard = turns.words.len();
    }
    if turns.begin < turns.heard {
        client.send(&turns.turn(true, true)).await?;
        turns.next();
    }
    Some(())
}

impl Turns<'_> {
    fn next(&mut self) {
        self.begin = self.heard;
        self.order += 1;
    }

    fn turn(&self, is_over: bool, is_formatted: bool) -> Value {
        let said = &self.words[self.begin..self.heard];
        let form = |word: &str| match is_formatted {
            true => word.to_owned(),
            false => {
                word.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase()
            }
        };
        let words: Vec<_> = said
            .iter()
            .enumerate()
            .map(|(at, word)| {
                let start = (self.begin + at) * 300;
                json!({"text": form(word), "start": start, "end": start + 300, "confidence": 0.9,
                    "word_is_final": is_over || at + 1 < said.len()})
            })
            .collect();
        // The last word can still change, and is in `words` alone.
        let certain = if is_over { said } else { &said[..said.len().saturating_sub(1)] };
        let transcript = certain.iter().map(|word| form(word)).collect::<Vec<_>>().join(" ");
        let mut turn = json!({"type": "Turn", "turn_order": self.order, "turn_is_formatted": is_formatted,
            "end_of_turn": is_over, "transcript": transcript, "utterance": "", "end_of_turn_confidence": 0.5,
            "words": words});
        if self.detects_language {
            turn["language_code"] = "en".into();
            turn["language_confidence"] = 0.9.into();
        }
        if self.diarizes {
            turn["speaker_label"] = "A".into();
        }
        turn
    }
}
