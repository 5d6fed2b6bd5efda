//! Several people in one room: each microphone is transcribed on its own, with the speaker's identity.

use june_edge::protocol::{
    Participants, SessionOptions, ToClient,
    edge_v1::{from_client::ConnectionInit, to_client::StreamData::Transcription},
};

use crate::support::{Glasses, June, LivekitServer, Publisher, clip, free_port, until, word_errors};

#[actix_web::test]
async fn two_people_who_speak_at_the_same_time_are_transcribed_by_name_and_the_owner_is_answered() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let options = SessionOptions { participants: Some(Participants::ALL), ..SessionOptions::default() };
    let john = june_edge::ids::UserId::parse("john").unwrap();
    let session = june.api.create_session_with(&john, &options).await.unwrap();
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let mut owner = Publisher::join(&room.url, &room.token, "mic").await;
    let anns = livekit.publisher_token(room.room_name.as_str(), "ann");
    let mut ann = Publisher::join(&livekit.url(), &anns, "mic").await;
    let (johns_words, anns_words) = (clip("goforward.wav"), clip("sense_and_sensibility_0880.wav"));

    owner.begin(&johns_words);
    ann.begin(&anns_words);
    let mut heard = [None, None];
    while heard.iter().any(Option::is_none) {
        let (at, text) = glasses
            .wait_for_message(|message| match message {
                ToClient::DataStream {
                    data: Transcription { text, is_final: true, participant, speaker_id, .. },
                    ..
                } if !text.is_empty() => {
                    let participant = participant.as_ref().map(|identity| identity.as_str());
                    assert_eq!(participant, speaker_id.as_deref());
                    Some((usize::from(participant == Some("ann")), text.clone()))
                }
                _ => None,
            })
            .await;
        heard[at] = Some(text);
    }

    let [of_john, of_ann] = heard.map(Option::unwrap);
    assert_eq!(word_errors(&johns_words.words, &of_john), 0, "{of_john}");
    assert!(word_errors(&anns_words.words, &of_ann) <= 1, "{of_ann}");
    let lines = until(async || {
        let lines = june.history(&glasses.session).await;
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    let answers: Vec<_> = lines.iter().filter(|line| line["kind"] == "answer").collect();
    assert_eq!(answers.len(), 1, "{lines:?}");
    let saved = |text: &str| lines.iter().find(|line| line["text"] == text).unwrap();
    assert_eq!(saved(&of_ann)["participant"], "ann");
    assert_eq!(saved(&of_ann)["speaker"], "ann");
    assert!(saved(&of_john).get("participant").is_none());
    owner.leave().await;
    ann.leave().await;
}
