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
        Channel, ClientError, Event, Gateway,
        channel::Writer,
        microphone::{self, FRAME_MS, FRAME_SAMPLES, Published},
        player::Player,
    },
    clock,
    ids::UserId,
    protocol::{
        FromClient, ToClient,
        from_client::{Capabilities, ConnectionInit, Playhead, Say},
        to_client::{StreamData, TurnMetrics},
    },
    secret::Secret,
};

/// Silence behind the recording, so that the gateway hears where it ends.
const SILENCE_AFTER: Duration = Duration::from_secs(2);

/// How often the player says how far it is (protocol.md §7.9).
const PLAYHEAD: Duration = Duration::from_millis(250);

/// How long nothing may happen once everything was said.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let init = ConnectionInit {
        capabilities: Capabilities {
            media: vec![if by_livekit { "livekit".into() } else { "ws".into() }],
            ..Capabilities::default()
        },
        ..ConnectionInit::default()
    };
    let (channel, ack) =
        Channel::open(&session.control_url, &session.control_token, init).await.map_err(sentence)?;
    let mut conversation = Conversation::new(channel);

    let mut microphone = match (&sound, by_livekit) {
        (Some(_), true) => {
            let info = ack.livekit.ok_or("this gateway has no LiveKit: try --media ws")?;
            let started = clock::now();
            let published = Published::join(&info.url, &info.token).await.map_err(sentence)?;
            let took = (clock::now() - started).as_millis();
            print("joined", &format!("{} as {} in {took} ms", info.url, info.identity));
            conversation.wait_for_agent().await?;
            Some(Microphone::Livekit(published))
        }
        (Some(_), false) => Some(Microphone::Ws { sent_ms: 0 }),
        (None, _) => None,
    };
    if let Some(text) = args.text {
        print("typed", &text);
        conversation.channel.say(&FromClient::Say(Say { text })).await.map_err(sentence)?;
    }
    if let Some(file) = &file {
        let seconds = sound.as_ref().map_or(0.0, |sound| sound.len() as f32 / 16_000.0);
        print("speaking", &format!("{} ({seconds:.1} s)", file.display()));
    }
    conversation.run(microphone.as_mut(), sound.unwrap_or_default()).await?;
    if let Some(Microphone::Livekit(published)) = microphone {
        published.leave().await;
    }
    if let Some(path) = &args.save {
        let (samples, rate_hz) = conversation.player.sound();
        save(path, samples, rate_hz)?;
        print(
            "saved",
            &format!("{} ({:.1} s)", path.display(), samples.len() as f32 / rate_hz.max(1) as f32),
        );
    }
    // Not a good-bye: the session keeps its history, and its grace.
    conversation.channel.writer().close().await.map_err(sentence)
}

/// How sound leaves.
enum Microphone {
    Livekit(Published),
    Ws { sent_ms: u64 },
}

impl Microphone {
    async fn send(&mut self, samples: &[i16], writer: &mut Writer) -> Result<(), ClientError> {
        match self {
            Self::Livekit(published) => published.send(samples).await,
            Self::Ws { sent_ms } => {
                *sent_ms += FRAME_MS;
                writer.sound(samples, *sent_ms).await
            }
        }
    }
}

/// What happens on the channel, as it is printed.
struct Conversation {
    channel: Channel,
    player: Player,
    began: Instant,
    /// When the last sample of the recording left.
    said_at: Option<Instant>,
    /// Turns that were begun and not yet played to their end.
    open_turns: usize,
    /// Turns that are on disk.
    saved_turns: usize,
    /// Utterances whose last word is still to come.
    open_utterances: usize,
    news_at: Instant,
    answer: String,
}

impl Conversation {
    fn new(channel: Channel) -> Self {
        let now = clock::now();
        Self {
            channel,
            player: Player::default(),
            began: now,
            said_at: None,
            open_turns: 0,
            saved_turns: 0,
            open_utterances: 0,
            news_at: now,
            answer: String::new(),
        }
    }

    /// Waits until the gateway is in the room too: what is said before is not heard.
    async fn wait_for_agent(&mut self) -> Result<(), String> {
        use crate::protocol::to_client::MediaReason::{AgentJoined, LivekitUnreachable};
        loop {
            match self.channel.next().await {
                Event::Message(_, ToClient::MediaState { reason: AgentJoined, .. }) => return Ok(()),
                Event::Message(_, ToClient::MediaState { reason: LivekitUnreachable, .. }) => {
                    return Err("the gateway cannot reach LiveKit: try --media ws".into());
                }
                Event::Message(..) | Event::Sound(_) => {}
                Event::Closed { code, reason } => return Err(format!("the channel closed: {code} {reason}")),
            }
        }
    }

    /// Speaks, listens and prints until everything is said and answered.
    async fn run(&mut self, mut microphone: Option<&mut Microphone>, sound: Vec<i16>) -> Result<(), String> {
        self.began = clock::now();
        let silence = SILENCE_AFTER.as_millis() as usize * 16;
        let mut frames = sound
            .chunks(FRAME_SAMPLES)
            .map(<[i16]>::to_vec)
            .chain(std::iter::repeat_n(vec![0; FRAME_SAMPLES], silence / FRAME_SAMPLES));
        let speech_frames = sound.len().div_ceil(FRAME_SAMPLES);
        let mut sent = 0;
        let mut tick = interval(Duration::from_millis(FRAME_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut playhead = interval(PLAYHEAD);
        let mut still_speaking = microphone.is_some();
        loop {
            tokio::select! {
                _ = tick.tick(), if still_speaking => {
                    match (frames.next(), &mut microphone) {
                        (Some(frame), Some(microphone)) => {
                            microphone.send(&frame, self.channel.writer()).await.map_err(sentence)?;
                            sent += 1;
                            if sent == speech_frames {
                                self.said_at = Some(clock::now());
                            }
                        }
                        _ => still_speaking = false,
                    }
                }
                _ = playhead.tick() => {
                    self.report_playhead().await?;
                    if !still_speaking && self.is_over() {
                        return Ok(());
                    }
                    if !still_speaking && clock::now() - self.news_at > PATIENCE {
                        return Err("nothing more came from the gateway".into());
                    }
                }
                event = self.channel.next() => self.take(event)?,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.open_turns == 0
            && self.open_utterances == 0
            && self.saved_turns > 0
            && (self.player.is_over(clock::now()) || self.player.generation() == 0)
    }

    async fn report_playhead(&mut self) -> Result<(), String> {
        let generation = self.player.generation();
        if generation == 0 {
            return Ok(());
        }
        let played_ms = self.player.played_ms(clock::now());
        let playhead = FromClient::Playhead(Playhead { generation, played_ms });
        self.channel.say(&playhead).await.map_err(sentence)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a demonstration prints what a person wants to see")]
    fn take(&mut self, event: Event) -> Result<(), String> {
        let now = clock::now();
        self.news_at = now;
        match event {
            Event::Sound(frame) => self.player.take(&frame, now),
            Event::Closed { code, reason } => return Err(format!("the channel closed: {code} {reason}")),
            Event::Message(_, message) => match message {
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
                ToClient::SpeechBegin { generation, sample_rate, .. } => {
                    self.player.begin(generation, sample_rate);
                    self.print_at("sound", "the answer is heard");
                }
                ToClient::AudioStopRequest { .. } => self.player.stop(now),
                ToClient::TurnMetrics(metrics) => self.print_metrics(&metrics),
                ToClient::TurnSaved { .. } => {
                    self.saved_turns += 1;
                    self.open_turns = self.open_turns.saturating_sub(1);
                }
                ToClient::SttState { message: Some(message), .. } => print("note", &message),
                ToClient::Error { code, message, .. } => print("error", &format!("{code}: {message}")),
                _ => {}
            },
        }
        Ok(())
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
