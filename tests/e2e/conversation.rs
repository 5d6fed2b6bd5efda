//! The main job: a spoken sentence gets a spoken answer.

use june_client::Event;
use june_edge::protocol::{
    ToClient,
    edge_v1::to_client::{Finish, MediaSource},
};

use crate::support::{June, LivekitServer, Publisher, clip, clips, free_port, word_errors, words};

/// At most so many of a hundred words may be wrong, over all clips and the whole path.
const WORD_ERROR_RATE: usize = 15;

/// What a turn was, from the client's side.
struct Turn {
    said: String,
    answer: String,
    /// The samples of the spoken answer, by position.
    sound: Vec<i16>,
    rate_hz: u32,
}

/// Follows a turn from its first word to the disk.
async fn turn(glasses: &mut crate::support::Glasses) -> Turn {
    let said = glasses.final_words().await;
    let (mut answer, mut sound, mut rate_hz) = (String::new(), Vec::new(), 0);
    glasses
        .wait_for(|event| {
            match event {
                Event::Message(_, ToClient::AnswerDone { text, finish: Finish::Stop, .. }) => {
                    answer.clone_from(text)
                }
                Event::Message(_, ToClient::SpeechBegin { sample_rate, .. }) => rate_hz = *sample_rate,
                Event::Audio(frame) => {
                    assert_eq!(frame.position as usize, sound.len(), "no sample is missing");
                    sound.extend(frame.samples());
                }
                Event::Message(_, ToClient::TurnSaved { .. }) => return Some(()),
                Event::Message(..) | Event::Closed { .. } => {}
            }
            None
        })
        .await;
    Turn { said, answer, sound, rate_hz }
}

fn loudness(samples: &[i16]) -> f64 {
    (samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64)
        .sqrt()
}

#[actix_web::test]
async fn sentences_spoken_into_the_room_are_understood_answered_spoken_and_kept() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let mut publisher = Publisher::join(&room.url, &room.token, "mic").await;

    let (mut wrong, mut spoken) = (0, 0);
    for clip in clips() {
        let (_, turn) = tokio::join!(publisher.speak(&clip), turn(&mut glasses));

        wrong += word_errors(&clip.words, &turn.said);
        spoken += words(&clip.words).len();
        // Word by word: a sentence that was cut at a comma is repeated with a full stop.
        let (said, answer) = (words(&turn.said), words(&turn.answer));
        assert!(answer.ends_with(&said), "the parrot repeats: {} / {}", turn.said, turn.answer);
        assert!(turn.sound.len() as u32 > turn.rate_hz, "more than a second of speech");
        assert!(loudness(&turn.sound) > 300.0, "and it is not silence");
    }
    assert!(wrong * 100 <= spoken * WORD_ERROR_RATE, "{wrong} of {spoken} words are wrong");

    let history = june.history(&glasses.session).await;
    let kinds: Vec<_> = history.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["utterance", "answer"].repeat(clips().len()));
}

#[actix_web::test]
async fn where_webrtc_is_out_of_reach_the_control_channel_carries_the_voice() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    let clip = clip("goforward.wav");

    glasses.speak(&clip).await;
    let turn = turn(&mut glasses).await;

    assert_eq!(word_errors(&clip.words, &turn.said), 0, "{}", turn.said);
    assert!(!turn.sound.is_empty());
}

#[actix_web::test]
async fn speaking_over_the_answer_stops_it_and_the_history_keeps_what_was_heard() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let mut publisher = Publisher::join(&room.url, &room.token, "mic").await;
    let (long, short) = (clip("sense_and_sensibility_0870.wav"), clip("goforward.wav"));

    publisher.begin(&long);
    let (generation, source) = glasses
        .wait_for_message({
            let mut source = MediaSource::None;
            move |message| match message {
                ToClient::SpeechStarted { source: heard, .. } => {
                    source = *heard;
                    None
                }
                ToClient::SpeechBegin { generation, .. } => Some((*generation, source)),
                _ => None,
            }
        })
        .await;
    assert_eq!(source, MediaSource::Livekit);
    publisher.begin(&short);

    glasses
        .wait_for_message(|message| matches!(message, ToClient::AudioStopRequest { .. }).then_some(()))
        .await;
    let finish = glasses
        .wait_for_message(|message| match message {
            ToClient::SpeechFinish { generation: over, finish, .. } if *over == generation => Some(*finish),
            _ => None,
        })
        .await;
    assert_eq!(finish, Finish::Interrupted);
    // The turn that was cut, then the one that cut it.
    glasses.turn_saved().await;
    glasses.turn_saved().await;

    let history = june.history(&glasses.session).await;
    let answers: Vec<_> = history.iter().filter(|line| line["kind"] == "answer").collect();
    assert_eq!(answers[0]["finish"], "interrupted");
    let heard = answers[0]["text"].as_str().unwrap();
    let words_of_clip = words(&long.words).len();
    assert!(words(heard).len() < words_of_clip, "only a part was heard: {heard}");
    assert_eq!(answers[1]["finish"], "stop");
}
