//! Conversations that outlive their connections, their gateway, and a client that does not read.

use std::{collections::BTreeMap, time::Duration};

use june_client::{Device, DeviceEvent, FRAME_SAMPLES, Options, Retry, SessionInfo};
use june_edge::{
    ids::UtteranceId,
    protocol::{ToClient, edge_v1::to_client::StreamData},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::support::{Clip, June, LivekitServer, Proxy, clips, free_port, soon, word_errors, words};

/// Words that may differ in an utterance. Where exactly the sound is decoded depends on how busy the
/// machine is, and once in a while a word with it.
const WORDS_APART: usize = 1;

/// Somebody with glasses on, who speaks, and what comes of it.
struct Speaker {
    device: Device,
    session: SessionInfo,
    /// The finals, in order; more than one of an utterance would be one too many.
    finals: Vec<(UtteranceId, String)>,
    /// Utterances that began and have no final yet.
    open: usize,
    started: usize,
    /// Where the turns are in the history.
    saved: Vec<u64>,
    turns: usize,
    attached: usize,
    resumed: usize,
}

impl Speaker {
    async fn join(session: SessionInfo, url: &str) -> Self {
        let retry = Retry { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let options = Options { retry, ..Options::default() };
        let (device, _) = soon(Device::connect(url, &session.control_token, options)).await.unwrap();
        Self {
            device,
            session,
            finals: Vec::new(),
            open: 0,
            started: 0,
            saved: Vec::new(),
            turns: 0,
            attached: 0,
            resumed: 0,
        }
    }

    fn take(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Attached(ack) => {
                self.attached += 1;
                self.resumed += usize::from(ack.resumed);
            }
            DeviceEvent::Ended(end) => panic!("{end:?}"),
            DeviceEvent::Message(message) => match *message {
                ToClient::SpeechStarted { .. } => {
                    self.open += 1;
                    self.started += 1;
                }
                ToClient::DataStream {
                    data: StreamData::Transcription { utterance_id, text, is_final: true, .. },
                    ..
                } => {
                    self.open -= 1;
                    self.finals.push((utterance_id, text));
                }
                ToClient::TurnStarted { .. } => self.turns += 1,
                ToClient::TurnSaved { history_seq, .. } => self.saved.push(history_seq),
                _ => {}
            },
            DeviceEvent::Disconnected { .. }
            | DeviceEvent::Audio(_)
            | DeviceEvent::Played { .. }
            | DeviceEvent::TokenExpiring { .. }
            | DeviceEvent::Room(_) => {}
        }
    }

    /// Sends sound in real time; `each_second` is told how many seconds were sent.
    async fn speak(&mut self, sound: &[i16], mut each_second: impl FnMut(usize)) {
        let mut tick = interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for (n, frame) in sound.chunks(FRAME_SAMPLES).enumerate() {
            loop {
                tokio::select! {
                    _ = tick.tick() => break,
                    event = self.device.next() => self.take(event.unwrap()),
                }
            }
            assert!(self.device.send_audio(frame), "the device accepts audio whether or not it is connected");
            if (n + 1) % 50 == 0 {
                each_second((n + 1) / 50);
            }
        }
    }

    /// Waits until everything that was said is answered, and on disk.
    async fn settle(&mut self) {
        soon(async {
            while self.open > 0 || self.saved.len() < self.turns || self.turns == 0 {
                let event = self.device.next().await.unwrap();
                self.take(event);
            }
        })
        .await;
    }

    fn said(&self) -> Vec<String> {
        self.finals.iter().map(|(_, text)| text.clone()).filter(|text| !text.is_empty()).collect()
    }

    /// What the gateway told of must be what it keeps: each utterance once, each turn that it called saved.
    async fn check_history(&self, june: &June) {
        let lines = june.history(&self.session).await;
        let kept: Vec<String> = lines
            .iter()
            .filter(|line| line["kind"] == "utterance")
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kept, self.said());
        let by_seq: BTreeMap<u64, &str> = lines
            .iter()
            .map(|line| (line["seq"].as_u64().unwrap(), line["kind"].as_str().unwrap()))
            .collect();
        for seq in &self.saved {
            assert_eq!(by_seq.get(seq), Some(&"answer"), "a turn that was called saved: {seq}");
        }
        assert_eq!(by_seq.values().filter(|kind| **kind == "answer").count(), self.saved.len());
    }
}

/// Recordings with a pause after each, in which it is mostly answered.
fn script(clips: &[Clip]) -> Vec<i16> {
    let pause = |clip: &Clip| clip.samples.len() + 2 * 16_000;
    clips
        .iter()
        .flat_map(|clip| clip.samples.iter().copied().chain(std::iter::repeat_n(0, pause(clip))))
        .collect()
}

/// The same sound by two ways, one of which is cut again and again.
async fn spoken_twice(june: &June, proxy: &Proxy, sound: &[i16], cut_every_s: usize) -> (Speaker, Speaker) {
    let (ann, bob) = (june.session("ann").await, june.session("bob").await);
    let direct = ann.control_url.clone();
    let by_proxy = proxy.instead_of(&bob.control_url);
    let mut undisturbed = Speaker::join(ann, &direct).await;
    let mut disturbed = Speaker::join(bob, &by_proxy).await;
    tokio::join!(
        undisturbed.speak(sound, |_| {}),
        disturbed.speak(sound, |seconds| {
            if seconds.is_multiple_of(cut_every_s) {
                proxy.cut();
            }
        }),
    );
    undisturbed.settle().await;
    disturbed.settle().await;
    (undisturbed, disturbed)
}

/// No utterance lost, none doubled, and the same words.
fn assert_same_transcript(undisturbed: &Speaker, disturbed: &Speaker) -> usize {
    let (wanted, got) = (undisturbed.said(), disturbed.said());
    assert_eq!(wanted.len(), got.len(), "{wanted:#?} {got:#?}");
    let mut apart = 0;
    for (wanted, got) in wanted.iter().zip(&got) {
        let wrong = word_errors(wanted, got);
        assert!(wrong <= WORDS_APART, "{wanted:?} / {got:?}");
        apart += wrong;
    }
    let mut finals: Vec<UtteranceId> = disturbed.finals.iter().map(|(utterance, _)| *utterance).collect();
    finals.dedup();
    assert_eq!(finals.len(), disturbed.finals.len(), "each utterance has one final");
    assert_eq!(disturbed.started, disturbed.finals.len());
    apart
}

/// With `SOAK_SECONDS`, a conversation of that length whose connection is cut every 20 s: `make soak`. Else three
/// sentences, cut every 2 s.
#[actix_web::test]
async fn a_conversation_through_a_connection_that_is_cut_again_and_again_is_the_same_conversation() {
    let soak_s: Option<usize> = std::env::var("SOAK_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let proxy = Proxy::to(port).await;
    let (sound, sentences, cut_every_s) = match soak_s {
        None => {
            let short: Vec<Clip> =
                clips().into_iter().filter(|clip| clip.samples.len() < 55_000).take(3).collect();
            (script(&short), short.len(), 2)
        }
        Some(seconds) => {
            let all = clips();
            let once = script(&all);
            let times = (seconds * 16_000).div_ceil(once.len());
            (once.repeat(times), all.len() * times, 20)
        }
    };
    let before_kb = june.resident_kb();

    let (undisturbed, disturbed) = spoken_twice(&june, &proxy, &sound, cut_every_s).await;

    let cuts = sound.len() / 16_000 / cut_every_s;
    assert!(disturbed.resumed >= cuts.min(5), "{} of {}", disturbed.resumed, disturbed.attached);
    assert_eq!(disturbed.resumed + 1, disturbed.attached, "but for the first time it always went on");
    assert_eq!(undisturbed.said().len(), sentences);
    let apart = assert_same_transcript(&undisturbed, &disturbed);
    undisturbed.check_history(&june).await;
    disturbed.check_history(&june).await;
    let spoken: usize = undisturbed.said().iter().map(|text| words(text).len()).sum();
    println!(
        "{} s, {cuts} cuts, {} connections, {} of them resumed: {} utterances, {spoken} words, {apart} of them apart, \
         {} turns saved; resident memory {before_kb} KiB before, {} KiB after",
        sound.len() / 16_000,
        proxy.accepted(),
        disturbed.resumed,
        disturbed.said().len(),
        disturbed.saved.len(),
        june.resident_kb(),
    );
}

#[actix_web::test]
async fn a_gateway_that_is_killed_in_the_middle_of_a_sentence_is_come_back_to() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let mut june = June::start(&livekit, data.path(), port).await;
    let session = june.session("ann").await;
    let url = session.control_url.clone();
    let clips = clips();
    let mut speaker = Speaker::join(session, &url).await;
    speaker.speak(&script(&clips[..1]), |_| {}).await;
    speaker.settle().await;
    let (acknowledged, told) = (speaker.saved.clone(), speaker.said());

    // In the middle of the next sentence.
    let second = script(&clips[1..2]);
    let (first_half, rest) = second.split_at(24_000);
    speaker.speak(first_half, |_| {}).await;
    june.kill_and_start_again().await;
    speaker.speak(rest, |_| {}).await;
    soon(async {
        while speaker.saved.len() <= acknowledged.len() {
            let event = speaker.device.next().await.unwrap();
            speaker.take(event);
        }
    })
    .await;

    assert_eq!(speaker.attached, 2);
    let lines = june.history(&speaker.session).await;
    let seqs: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(speaker.saved.iter().all(|seq| seqs.contains(seq)), "{:?} in {seqs:?}", speaker.saved);
    let texts: Vec<&str> = lines
        .iter()
        .filter(|line| line["kind"] == "utterance")
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts[..told.len()], told, "what was told before is there, and not twice");
    assert_eq!(texts.len(), told.len() + 1, "{texts:?}");
    let wrong = word_errors(&clips[1].words, texts[told.len()]);
    assert!(wrong <= 1, "the sound of before the crash was sent again: {texts:?}");
}
