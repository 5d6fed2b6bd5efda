//! Deepgram's `/v1/listen`.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    KEY, Shared, SttFault, SttRequest, SttScript,
    websocket::{self, Client, Sent},
};

/// What the reference lists; a parameter with another name is a mistake.
const PARAMETERS: [&str; 31] = [
    "callback",
    "callback_method",
    "channels",
    "detect_entities",
    "diarize",
    "diarize_model",
    "dictation",
    "encoding",
    "endpointing",
    "extra",
    "interim_results",
    "keyterm",
    "keywords",
    "language",
    "language_hint",
    "mip_opt_out",
    "model",
    "multichannel",
    "numerals",
    "profanity_filter",
    "punctuate",
    "redact",
    "replace",
    "sample_rate",
    "search",
    "smart_format",
    "tag",
    "token",
    "utterance_end_ms",
    "vad_events",
    "version",
];

const RATE: usize = 16_000;
const SAMPLES_PER_WORD: usize = RATE * 3 / 10;

fn check(request: &SttRequest) -> Result<(), (u16, Value)> {
    let refusal = |status: u16, code: &str, message: &str| {
        Err((status, json!({"err_code": code, "err_msg": message, "request_id": "0193"})))
    };
    if request.path != "/v1/listen" {
        return refusal(404, "NOT_FOUND", "no such path");
    }
    let authorization = request.authorization.as_deref().unwrap_or_default();
    let key = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("token"));
    if key.is_none_or(|(_, key)| key != KEY) {
        return refusal(401, "INVALID_AUTH", "Invalid credentials.");
    }
    if let Some((name, _)) = request.query.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
        return refusal(400, "Bad Request", &format!("unknown parameter {name}"));
    }
    if request.query("encoding") != ["linear16"] || request.query("sample_rate") != ["16000"] {
        return refusal(400, "Bad Request", "raw audio needs encoding and sample_rate");
    }
    if !request.query("keyterm").is_empty() && !request.query("model").concat().starts_with("nova-3") {
        return refusal(400, "Bad Request", "keyterm is for nova-3");
    }
    if !request.query("language_hint").is_empty() && request.query("language") != ["multi"] {
        return refusal(400, "Bad Request", "language_hint is for language=multi");
    }
    Ok(())
}

/// What was heard: some words are final, some follow, and the rest is not said yet.
struct Hearing<'a> {
    words: Vec<&'a str>,
    heard: usize,
    finished: usize,
    samples: usize,
    is_multilingual: bool,
    diarizes: bool,
    sends_interims: bool,
}

pub(super) async fn serve(connection: TcpStream, shared: &Shared, script: &SttScript) -> Option<()> {
    let mut client = websocket::accept(connection, shared, script, check).await?;
    let request = client.request();
    let mut hearing = Hearing {
        words: script.words(),
        heard: 0,
        finished: 0,
        samples: 0,
        is_multilingual: request.query("language") == ["multi"],
        diarizes: request.query("diarize") == ["true"] || !request.query("diarize_model").is_empty(),
        sends_interims: request.query("interim_results") == ["true"],
    };
    loop {
        match client.next().await? {
            // An empty message ends the stream.
            Sent::Sound(0) => return end(&mut client, &mut hearing).await,
            Sent::Sound(count) => hear(&mut client, script, &mut hearing, count).await?,
            Sent::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                match message["type"].as_str() {
                    Some("KeepAlive" | "Configure") => {}
                    Some("Finalize") => {
                        let rest = hearing.result(true, true);
                        client.send(&rest).await?;
                    }
                    Some("CloseStream") => return end(&mut client, &mut hearing).await,
                    _ => {
                        let error = json!({"type": "Error", "variant": "SchemaError",
                            "description": "Could not deserialize last text message", "message": text});
                        client.send(&error).await?;
                    }
                }
            }
        }
    }
}

async fn hear(
    client: &mut Client<'_>,
    script: &SttScript,
    hearing: &mut Hearing<'_>,
    count: usize,
) -> Option<()> {
    hearing.samples += count;
    let heard = (hearing.samples / SAMPLES_PER_WORD).min(hearing.words.len());
    while hearing.heard < heard {
        hearing.heard += 1;
        // A sentence that ends is final; the last one has to be asked for.
        let is_final = hearing.words[hearing.heard - 1].ends_with(['.', '?', '!'])
            && hearing.heard < hearing.words.len();
        if is_final || hearing.sends_interims {
            let result = hearing.result(is_final, false);
            client.send(&result).await?;
        }
        if hearing.heard == 2 {
            if let Some(SttFault::Reports(_, description)) = &script.fault {
                client
                    .send(&json!({"type": "Error", "variant": "Internal", "description": description}))
                    .await?;
            }
            client.fail().await?;
        }
    }
    Some(())
}

/// The rest of the results, a summary, and the end.
async fn end(client: &mut Client<'_>, hearing: &mut Hearing<'_>) -> Option<()> {
    if hearing.finished < hearing.words.len() && hearing.samples > 0 {
        let rest = hearing.result(true, false);
        client.send(&rest).await?;
    }
    let summary = json!({"type": "Metadata", "transaction_key": "deprecated", "request_id": "0193", "sha256": "0",
        "created": "2026-11-25T12:00:00.000Z", "duration": hearing.seconds(), "channels": 1});
    client.send(&summary).await?;
    client.close(1000, "").await;
    None
}

impl Hearing<'_> {
    fn seconds(&self) -> f64 {
        self.samples as f64 / RATE as f64
    }

    /// The words since the last final result. The last result has all that remain.
    fn result(&mut self, is_final: bool, from_finalize: bool) -> Value {
        if from_finalize || (is_final && self.heard == self.finished) {
            self.heard = if self.samples > 0 { self.words.len() } else { 0 };
        }
        let said = &self.words[self.finished..self.heard];
        let words: Vec<_> = said
            .iter()
            .enumerate()
            .map(|(at, word)| {
                let at = (self.finished + at) as f64 * 0.3;
                let bare: String = word.chars().filter(|letter| letter.is_alphanumeric()).collect();
                let mut described = json!({"word": bare.to_lowercase(), "start": at, "end": at + 0.3,
                    "confidence": 0.9, "punctuated_word": word});
                if self.diarizes {
                    described["speaker"] = 0.into();
                }
                if self.is_multilingual {
                    described["language"] = "en".into();
                }
                described
            })
            .collect();
        let mut best = json!({"transcript": said.join(" "), "confidence": 0.9, "words": words});
        if self.is_multilingual && !said.is_empty() {
            best["languages"] = json!(["en"]);
            best["languages_hinted"] = json!([]);
        }
        if is_final {
            self.finished = self.heard;
        }
        json!({
            "type": "Results", "channel_index": [0, 1], "duration": 0.3, "start": self.seconds(),
            "is_final": is_final, "speech_final": is_final, "from_finalize": from_finalize,
            "channel": {"alternatives": [best]},
            "metadata": {"request_id": "0193", "model_uuid": "0193",
                "model_info": {"name": "general-nova-3", "version": "2026-10-23.0", "arch": "nova-3"}},
        })
    }
}
