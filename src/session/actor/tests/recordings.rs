//! Recordings of answers, which whoever asked over REST fetches some time.

use super::*;
use crate::response::clip_store::ClipUse;

/// A session whose language model hangs, and the recording of an earlier answer.
struct Recorded {
    rig: Rig,
    clips: Clips,
    recording: String,
}

impl Recorded {
    fn new() -> Self {
        let config = SessionConfig { memory: 0, voice: None, livekit: false, ..config() };
        let (asked, was_asked) = mpsc::unbounded_channel();
        let (dropped, was_dropped) = mpsc::unbounded_channel();
        let llm = Arc::new(Script { events: Vec::new(), hangs: true, asked, dropped });
        let history = Arc::<History>::default();
        let services = services(llm, Vec::new(), config, history.clone(), None);
        let clips = services.clips.clone();
        let recording = clips.keep(ClipUse::Recording, info().id, &info().user, &[1], 16_000);
        let rig = Rig { asked: was_asked, dropped: was_dropped, ..Rig::of(services, history) };
        Self { rig, clips, recording }
    }

    fn is_there(&self) -> bool {
        self.clips.get(&self.recording).is_some()
    }
}

#[actix::test]
async fn a_recording_is_there_after_a_later_answer_was_interrupted_and_after_the_grace() {
    tokio::time::pause();
    let mut session = Recorded::new();
    let client = session.rig.attach().await;
    client.say(r#"{"type":"say","text":"And now?"}"#).await;
    session.rig.asked.recv().await.unwrap();

    client.say(r#"{"type":"interrupt"}"#).await;
    session.rig.dropped.recv().await.unwrap();
    assert!(session.is_there());

    session.rig.actor.send(FromSocket { id: 1, event: SocketEvent::Closed }).await.unwrap();
    let ended = (&mut session.rig.ended).await;
    assert_eq!((ended, session.is_there()), (Ok(EndReason::GraceExpired), true));
}

#[actix::test]
async fn a_recording_goes_with_a_session_that_is_ended_on_purpose() {
    tokio::time::pause();
    let mut session = Recorded::new();

    session.rig.actor.send(End(EndReason::Logout)).await.unwrap();

    let ended = (&mut session.rig.ended).await;
    assert_eq!((ended, session.is_there()), (Ok(EndReason::Logout), false));
}
