//! `june talk`: talks to a gateway as a pair of glasses does, and prints what happens.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    client::{
        ClientError, Device, DeviceEvent, Gateway,
        device::{self, Options},
        microphone::{self, FRAME_MS, FRAME_SAMPLES},
        reconnect_policy::End,
        room::RoomState,
    },
    clock,
    ids::UserId,
    protocol::{
        FromClient, ToClient,
        edge_v1::{
            from_client::Say,
            to_client::{Delivery, StreamData, TurnMetrics},
        },
    },
    secret::Secret,
};

/// Silence behind the recording, so that the gateway hears where it ends.
const SILENCE_AFTER: Duration = Duration::from_secs(2);

/// How often it is looked whether everything is said and done.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long nothing may happen once everything was said.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// What is said to which gateway.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to say: a WAV file
    #[arg(value_name = "FILE.wav", required_unless_present_any = ["mic_file", "text"])]
    file: Option<PathBuf>,
    /// A WAV file that stands for the microphone; the same as FILE.wav
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    mic_file: Option<PathBuf>,
    /// A line to type instead of speaking
    #[arg(long, conflicts_with_all = ["file", "mic_file"])]
    text: Option<String>,
    /// Where the gateway is
    #[arg(long, env = "JUNE_URL", default_value = "http://127.0.0.1:8080")]
    gateway: String,
    /// An API key, where the gateway wants one
    #[arg(long, env = "JUNE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Who speaks
    #[arg(long, default_value = "demo")]
    user: UserId,
    /// How the voice gets there
    #[arg(long, value_enum, default_value_t = Media::Livekit)]
    media: Media,
    /// Where to save the spoken answer, as a WAV file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// How the voice gets to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Media {
    /// Published into the LiveKit room.
    Livekit,
    /// Binary frames on the control channel.
    Ws,
}

/// Talks, and prints what happens.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    // See gateway.rs: two crypto providers are linked, one has to be chosen.
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
    let sound = file.as_deref().map(microphone::read_wav).transpose()?;
    let gateway = Gateway::new(&args.gateway, args.api_key.map(Secret::new));
    let session = gateway.create_session(&args.user).await.map_err(sentence)?;
    print("session", &session.session_id.to_string());
    print("room", session.room_name.as_str());

    let by_livekit = args.media == Media::Livekit && sound.is_some();
    let media = if by_livekit { device::Media::Livekit } else { device::Media::Ws };
    let options = Options { media, ..Options::default() };
    let (device, ack) =
        Device::connect(&session.control_url, &session.control_token, options).await.map_err(sentence)?;
    let mut conversation = Conversation::new(device);

    if by_livekit {
        ack.livekit.ok_or("this gateway has no LiveKit: try --media ws")?;
        conversation.wait_for_the_room().await?;
    }
    if let Some(text) = args.text {
        print("typed", &text);
        conversation.device.say(FromClient::Say(Say { text })).await;
    }
    if let Some(file) = &file {
        let seconds = sound.as_ref().map_or(0.0, |sound| sound.len() as f32 / 16_000.0);
        print("speaking", &format!("{} ({seconds:.1} s)", file.display()));
    }
    conversation.run(sound.as_deref()).await?;
    if let Some(path) = &args.save {
        let (samples, rate_hz) = (&conversation.sound, conversation.rate_hz);
        save(path, samples, rate_hz)?;
        print(
            "saved",
            &format!("{} ({:.1} s)", path.display(), samples.len() as f32 / rate_hz.max(1) as f32),
        );
    }
    // Not a good-bye: the session keeps its history, and its grace.
    conversation.device.leave().await;
    Ok(())
}

/// What happens on the channel, as it is printed.
struct Conversation {
    device: Device,
    began: Instant,
    /// The answer that is heard, and its rate in Hz.
    sound: Vec<i16>,
    rate_hz: u32,
    /// It is being played.
    playing: bool,
    /// Turns that were begun and are not on disk.
    open_turns: usize,
    /// Turns that are on disk.
    saved_turns: usize,
    /// Utterances whose last word is still to come.
    open_utterances: usize,
    news_at: Instant,
    answer: String,
}

impl Conversation {
    fn new(device: Device) -> Self {
        let now = clock::now();
        Self {
            device,
            began: now,
            sound: Vec::new(),
            rate_hz: 0,
            playing: false,
            open_turns: 0,
            saved_turns: 0,
            open_utterances: 0,
            news_at: now,
            answer: String::new(),
        }
    }

    /// Waits until we are in the room and the gateway too: what is said before is not heard.
    async fn wait_for_the_room(&mut self) -> Result<(), String> {
        use crate::protocol::edge_v1::to_client::MediaReason::{AgentJoined, LivekitUnreachable};
        let (mut we, mut they) = (false, false);
        while !(we && they) {
            let news = self.next().await?;
            if let DeviceEvent::Room(RoomState::In { url, identity, took }) = &news {
                print("joined", &format!("{url} as {identity} in {} ms", took.as_millis()));
                we = true;
            }
            if let DeviceEvent::Room(RoomState::Failed(why)) = news {
                return Err(why);
            }
            if let DeviceEvent::Message(message) = &news
                && let ToClient::MediaState { reason, .. } = **message
            {
                they |= reason == AgentJoined;
                if reason == LivekitUnreachable {
                    return Err("the gateway cannot reach LiveKit: try --media ws".into());
                }
            }
            self.take(news)?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<DeviceEvent, String> {
        self.device.next().await.ok_or_else(|| "the channel is over".to_owned())
    }

    /// Speaks, listens and prints until everything is said and answered.
    async fn run(&mut self, sound: Option<&[i16]>) -> Result<(), String> {
        self.began = clock::now();
        let silence = vec![0; SILENCE_AFTER.as_millis() as usize * 16];
        let mut frames = sound.unwrap_or_default().chunks(FRAME_SAMPLES).chain(silence.chunks(FRAME_SAMPLES));
        let mut tick = interval(Duration::from_millis(FRAME_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut look = interval(POLL_INTERVAL);
        let mut still_speaking = sound.is_some();
        loop {
            tokio::select! {
                _ = tick.tick(), if still_speaking => match frames.next() {
                    Some(frame) => {
                        self.device.speak(frame);
                    }
                    None => still_speaking = false,
                },
                _ = look.tick(), if !still_speaking => {
                    if self.is_over() {
                        return Ok(());
                    }
                    if clock::now() - self.news_at > TURN_TIMEOUT {
                        return Err("nothing more came from the gateway".into());
                    }
                }
                news = self.device.next() => self.take(news.ok_or("the channel is over")?)?,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.open_turns == 0 && self.open_utterances == 0 && self.saved_turns > 0 && !self.playing
    }

    fn take(&mut self, news: DeviceEvent) -> Result<(), String> {
        self.news_at = clock::now();
        match news {
            DeviceEvent::Sound(frame) => self.sound.extend(frame.samples()),
            DeviceEvent::Played { .. } => self.playing = false,
            DeviceEvent::Message(message) => self.message(*message),
            DeviceEvent::Away { reason, .. } => print("away", &reason),
            DeviceEvent::Attached(ack) if ack.resumed => print("back", "the conversation goes on"),
            DeviceEvent::Attached(_) => {
                // What was open went with the gateway that knew of it.
                (self.open_turns, self.open_utterances) = (0, 0);
            }
            DeviceEvent::Room(RoomState::Failed(why)) => print("note", &why),
            DeviceEvent::Room(RoomState::Out | RoomState::Joining | RoomState::In { .. }) => {}
            DeviceEvent::Over(End::Refused { code, message }) => return Err(format!("{code}: {message}")),
            DeviceEvent::Over(End::Superseded) => return Err("another client has the session".into()),
            DeviceEvent::Over(End::Session(reason)) => {
                return Err(format!("the session is over: {reason:?}"));
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a demonstration prints what a person wants to see")]
    fn message(&mut self, message: ToClient) {
        match message {
            ToClient::SpeechStarted { .. } => self.open_utterances += 1,
            ToClient::DataStream { data: StreamData::Transcription { text, is_final, .. }, .. } => {
                let label = if is_final { "final" } else { "interim" };
                self.print_at(label, &text);
                if is_final {
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
                self.sound.clear();
                self.rate_hz = sample_rate;
                // What is spoken in the room is played there.
                self.playing = delivery == Delivery::Ws;
                self.print_at("sound", "the answer is heard");
            }
            ToClient::TurnMetrics(metrics) => self.print_metrics(&metrics),
            ToClient::TurnSaved { .. } => {
                self.saved_turns += 1;
                self.open_turns = self.open_turns.saturating_sub(1);
            }
            ToClient::SttState { message: Some(message), .. } => print("note", &message),
            ToClient::Error { code, message, .. } => print("error", &format!("{code}: {message}")),
            _ => {}
        }
    }

    fn print_at(&self, label: &str, text: &str) {
        let at = (clock::now() - self.began).as_secs_f32();
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

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn print(label: &str, text: &str) {
    println!("{label:<12}{text}");
}

#[expect(clippy::print_stderr, reason = "this is the program's own voice, not its log")]
fn failed(problem: &str) -> ExitCode {
    eprintln!("june: {problem}");
    ExitCode::FAILURE
}
