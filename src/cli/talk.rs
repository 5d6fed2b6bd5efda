//! `june talk`: connects to a gateway as a client, speaks or types, and prints what happens.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use june_client::{
    ClientError, Device, DeviceEvent, End, FRAME_MS, FRAME_SAMPLES, Gateway, Options, RoomState,
};
use june_protocol::{
    FromClient, Mode, Secret, SessionOptions, ToClient, ToolDeclaration,
    from_client::{Say, SpeechCapabilities, ToolResult},
    ids::UserId,
    to_client::{Delivery, MediaReason, StreamData, TurnMetrics},
};
use serde_json::{Map, Value};
use tokio::time::{MissedTickBehavior, interval};

use crate::{cli::wav::read_wav, clock};

/// Silence after the recording, so that the gateway detects its end.
const SILENCE_AFTER: Duration = Duration::from_secs(2);

/// How often to check whether everything was answered.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for the next event once everything was sent.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of `june talk`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A WAV file to send as speech
    #[arg(value_name = "FILE.wav", required_unless_present_any = ["mic_file", "text"])]
    file: Option<PathBuf>,
    /// The same as FILE.wav
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    mic_file: Option<PathBuf>,
    /// A message to type instead of speaking
    #[arg(long, conflicts_with_all = ["file", "mic_file"])]
    text: Option<String>,
    /// The gateway's URL
    #[arg(long, env = "JUNE_URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// An API key, if the gateway requires one
    #[arg(long, env = "JUNE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The user
    #[arg(long, default_value = "demo")]
    user: UserId,
    /// How the audio reaches the gateway
    #[arg(long, value_enum, default_value_t = Media::Livekit)]
    media: Media,
    /// The language that is spoken: a tag such as de-AT, or auto
    #[arg(long)]
    language: Option<String>,
    /// What becomes of what is said
    #[arg(long, value_enum)]
    mode: Option<TalkMode>,
    /// The system prompt of the LLM
    #[arg(long)]
    instructions: Option<String>,
    /// The voice of the answers
    #[arg(long)]
    voice: Option<String>,
    /// Words to expect, separated by commas
    #[arg(long, value_delimiter = ',')]
    vocabulary: Option<Vec<String>>,
    /// Receive the spoken response as Opus
    #[arg(long)]
    opus: bool,
    /// A tool that the LLM may call, and what it answers; may be repeated
    #[arg(long = "tool", value_name = "NAME=RESULT", value_parser = tool)]
    tools: Vec<(String, String)>,
    /// Save the spoken response as a WAV file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// How the audio reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Media {
    /// Published into the LiveKit room.
    Livekit,
    /// Binary frames on the control channel.
    Ws,
}

/// What becomes of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TalkMode {
    /// It is answered.
    Conversation,
    /// It is transcribed only.
    Captions,
    /// The whole recording is one turn.
    PushToTalk,
}

impl From<TalkMode> for Mode {
    fn from(mode: TalkMode) -> Self {
        match mode {
            TalkMode::Conversation => Self::Conversation,
            TalkMode::Captions => Self::Captions,
            TalkMode::PushToTalk => Self::PushToTalk,
        }
    }
}

/// Runs the command.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    // Two crypto providers are linked; one must be selected.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    runtime.block_on(async {
        let talked = tokio::select! {
            talked = talk(args) => talked,
            _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
        };
        match talked {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => failed(&problem),
        }
    })
}

async fn talk(args: Args) -> Result<(), String> {
    let file = args.file.or(args.mic_file);
    let audio = file.as_deref().map(read_wav).transpose()?;
    let gateway = Gateway::new(&args.gateway, args.api_key.map(Secret::new));
    let session_options = SessionOptions {
        language: args.language,
        mode: args.mode.map(Mode::from),
        instructions: args.instructions,
        voice: args.voice,
        vocabulary: args.vocabulary,
        tools: (!args.tools.is_empty()).then(|| args.tools.iter().map(declared).collect()),
        ..SessionOptions::default()
    };
    let session = gateway.create_session_with(&args.user, &session_options).await.map_err(sentence)?;
    print("session", &session.session_id.to_string());
    print("room", session.room_name.as_str());

    let by_livekit = args.media == Media::Livekit && audio.is_some();
    let media = if by_livekit { june_client::Media::Livekit } else { june_client::Media::Ws };
    let codec = if args.opus { "opus" } else { "pcm16le" };
    let options = Options {
        media,
        speech: SpeechCapabilities { codecs: vec![codec.into()], ..SpeechCapabilities::default() },
        control_token_expires_at: session.control_token_expires_at,
        ..Options::default()
    };
    let (device, ack) =
        Device::connect(&session.control_url, &session.control_token, options).await.map_err(sentence)?;
    let mode = ack.options.mode.unwrap_or_default();
    let mut conversation = Conversation::new(device, mode, args.tools);

    if by_livekit {
        ack.livekit.ok_or("this gateway has no LiveKit: try --media ws")?;
        conversation.wait_for_the_room().await?;
    }
    if let Some(text) = args.text {
        print("typed", &text);
        conversation.device.send(FromClient::Say(Say { text })).await;
    }
    if let Some(file) = &file {
        let seconds = audio.as_ref().map_or(0.0, |samples| samples.len() as f32 / 16_000.0);
        print("speaking", &format!("{} ({seconds:.1} s)", file.display()));
    }
    conversation.run(audio.as_deref()).await?;
    if let Some(path) = &args.save {
        let (samples, rate_hz) = (&conversation.audio, conversation.rate_hz);
        save(path, samples, rate_hz)?;
        print(
            "saved",
            &format!("{} ({:.1} s)", path.display(), samples.len() as f32 / rate_hz.max(1) as f32),
        );
    }
    // No `goodbye`: the session keeps its grace period.
    conversation.device.disconnect().await;
    Ok(())
}

/// The state of the conversation, for printing.
struct Conversation {
    device: Device,
    mode: Mode,
    /// Names and results.
    tools: Vec<(String, String)>,
    started: Instant,
    /// The samples of the current response, and their rate in Hz.
    audio: Vec<i16>,
    rate_hz: u32,
    /// The response is being played.
    playing: bool,
    /// Turns that began and are not stored yet.
    open_turns: usize,
    /// Turns that are stored.
    saved_turns: usize,
    /// Utterances without a final transcript.
    open_utterances: usize,
    /// Final transcripts.
    finals: usize,
    last_event_at: Instant,
    answer: String,
}

impl Conversation {
    fn new(device: Device, mode: Mode, tools: Vec<(String, String)>) -> Self {
        let now = clock::now();
        Self {
            device,
            mode,
            tools,
            started: now,
            audio: Vec::new(),
            rate_hz: 0,
            playing: false,
            open_turns: 0,
            saved_turns: 0,
            open_utterances: 0,
            finals: 0,
            last_event_at: now,
            answer: String::new(),
        }
    }

    /// Waits until this client and the gateway's agent are in the room. Audio sent before would be lost.
    async fn wait_for_the_room(&mut self) -> Result<(), String> {
        let (mut joined, mut agent_joined) = (false, false);
        while !(joined && agent_joined) {
            let event = self.next().await?;
            if let DeviceEvent::Room(RoomState::In { url, identity, took }) = &event {
                print("joined", &format!("{url} as {identity} in {} ms", took.as_millis()));
                joined = true;
            }
            if let DeviceEvent::Room(RoomState::Failed(why)) = event {
                return Err(why);
            }
            if let DeviceEvent::Message(message) = &event
                && let ToClient::MediaState { reason, .. } = **message
            {
                agent_joined |= reason == MediaReason::AgentJoined;
                if reason == MediaReason::LivekitUnreachable {
                    return Err("the gateway cannot reach LiveKit: try --media ws".into());
                }
            }
            self.take(event).await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<DeviceEvent, String> {
        self.device.next().await.ok_or_else(|| "the channel closed".to_owned())
    }

    /// Sends the audio, and prints events until everything was answered.
    async fn run(&mut self, audio: Option<&[i16]>) -> Result<(), String> {
        self.started = clock::now();
        let silence = vec![0; SILENCE_AFTER.as_millis() as usize * 16];
        let mut frames = audio.unwrap_or_default().chunks(FRAME_SAMPLES).chain(silence.chunks(FRAME_SAMPLES));
        let mut tick = interval(Duration::from_millis(FRAME_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut poll = interval(POLL_INTERVAL);
        let mut still_speaking = audio.is_some();
        let holds_button = still_speaking && self.mode == Mode::PushToTalk;
        if holds_button {
            self.device.set_speaking(true).await;
        }
        loop {
            tokio::select! {
                _ = tick.tick(), if still_speaking => match frames.next() {
                    Some(frame) => {
                        self.device.send_audio(frame);
                    }
                    None => {
                        still_speaking = false;
                        if holds_button {
                            self.device.set_speaking(false).await;
                        }
                    }
                },
                _ = poll.tick(), if !still_speaking => {
                    if self.is_complete() {
                        return Ok(());
                    }
                    if clock::now() - self.last_event_at > TURN_TIMEOUT {
                        return Err("the gateway sent nothing for 30 s".into());
                    }
                }
                event = self.device.next() => self.take(event.ok_or("the channel closed")?).await?,
            }
        }
    }

    fn is_complete(&self) -> bool {
        let is_answered = self.saved_turns > 0 || (self.mode == Mode::Captions && self.finals > 0);
        self.open_turns == 0 && self.open_utterances == 0 && is_answered && !self.playing
    }

    async fn take(&mut self, event: DeviceEvent) -> Result<(), String> {
        self.last_event_at = clock::now();
        match event {
            DeviceEvent::Audio(frame) => self.audio.extend(frame.samples()),
            DeviceEvent::Played { .. } => self.playing = false,
            DeviceEvent::Message(message) => {
                if let ToClient::ToolCall { call_id, name, arguments, .. } = *message {
                    self.answer_tool(call_id, &name, &arguments).await;
                } else {
                    self.message(*message);
                }
            }
            DeviceEvent::Disconnected { reason, .. } => print("away", &reason),
            DeviceEvent::Attached(ack) if ack.resumed => print("back", "the session was resumed"),
            DeviceEvent::Attached(_) => {
                // Open turns and utterances were lost with the earlier connection.
                (self.open_turns, self.open_utterances) = (0, 0);
            }
            DeviceEvent::Room(RoomState::Failed(why)) => print("note", &why),
            DeviceEvent::Room(RoomState::Out | RoomState::Joining | RoomState::In { .. }) => {}
            DeviceEvent::TokenExpiring { .. } => {}
            DeviceEvent::Ended(End::Refused { code, message } | End::TokenRejected { code, message }) => {
                return Err(format!("{code}: {message}"));
            }
            DeviceEvent::Ended(End::Superseded) => return Err("another client took the session over".into()),
            DeviceEvent::Ended(End::Session(reason)) => {
                return Err(format!("the session ended: {reason:?}"));
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a demonstration prints some of the messages")]
    fn message(&mut self, message: ToClient) {
        match message {
            ToClient::SpeechStarted { .. } => self.open_utterances += 1,
            ToClient::DataStream { data: StreamData::Transcription { text, is_final, .. }, .. } => {
                let label = if is_final { "final" } else { "interim" };
                self.print_at(label, &text);
                if is_final {
                    self.finals += 1;
                    self.open_utterances = self.open_utterances.saturating_sub(1);
                }
            }
            ToClient::TurnStarted { .. } => {
                self.open_turns += 1;
                self.answer.clear();
            }
            ToClient::AnswerDelta { text, .. } => {
                if self.answer.is_empty() {
                    self.print_at("first word", text.trim());
                }
                self.answer.push_str(&text);
            }
            ToClient::AnswerDone { text, .. } => self.print_at("answer", &text),
            ToClient::SpeechBegin { sample_rate, delivery, .. } => {
                self.audio.clear();
                self.rate_hz = sample_rate;
                // With delivery to the room the response is played there.
                self.playing = delivery == Delivery::Ws;
                self.print_at("sound", "the response is spoken");
            }
            ToClient::TurnMetrics(metrics) => self.print_metrics(&metrics),
            ToClient::TurnSaved { .. } => {
                self.saved_turns += 1;
                self.open_turns = self.open_turns.saturating_sub(1);
            }
            ToClient::SttState { message: Some(message), .. }
            | ToClient::LlmState { message: Some(message), .. }
            | ToClient::TtsState { message: Some(message), .. } => print("note", &message),
            ToClient::Error { code, message, .. } => print("error", &format!("{code}: {message}")),
            _ => {}
        }
    }

    async fn answer_tool(&mut self, call_id: String, name: &str, arguments: &Map<String, Value>) {
        let output = self.tools.iter().find(|(known, _)| known == name).map(|(_, output)| output.clone());
        let arguments = Value::Object(arguments.clone());
        self.print_at("tool", &format!("{name} {arguments} → {}", output.as_deref().unwrap_or("unknown")));
        let error = output.is_none().then(|| "there is no such tool".to_owned());
        let result = ToolResult { call_id, output, error, image: None };
        self.device.send(FromClient::ToolResult(result)).await;
    }

    fn print_at(&self, label: &str, text: &str) {
        let at = (clock::now() - self.started).as_secs_f32();
        print(label, &format!("{at:6.2} s  {text}"));
    }

    fn print_metrics(&self, metrics: &TurnMetrics) {
        let steps = [
            ("final", metrics.final_ms),
            ("first word", metrics.first_token_ms),
            ("first sound", metrics.first_audio_ms),
            ("first played", metrics.first_played_ms),
        ];
        let steps: Vec<String> =
            steps.iter().filter_map(|(step, ms)| ms.map(|ms| format!("{step} {ms} ms"))).collect();
        print("timing", &format!("from the end of speech: {}", steps.join(", ")));
    }
}

/// `NAME=RESULT`
fn tool(text: &str) -> Result<(String, String), String> {
    let (name, result) = text.split_once('=').ok_or("must look like NAME=RESULT")?;
    Ok((name.to_owned(), result.to_owned()))
}

fn declared((name, _): &(String, String)) -> ToolDeclaration {
    ToolDeclaration { name: name.clone(), ..ToolDeclaration::default() }
}

fn save(path: &Path, samples: &[i16], rate_hz: u32) -> Result<(), String> {
    let at = |error: hound::Error| format!("{}: {error}", path.display());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate_hz.max(8_000),
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).map_err(at)?;
    for sample in samples {
        writer.write_sample(*sample).map_err(at)?;
    }
    writer.finalize().map_err(at)
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn sentence(error: ClientError) -> String {
    error.to_string()
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
fn print(label: &str, text: &str) {
    println!("{label:<12}{text}");
}

#[expect(clippy::print_stderr, reason = "the program's own output, not a log")]
fn failed(problem: &str) -> ExitCode {
    eprintln!("june: {problem}");
    ExitCode::FAILURE
}
