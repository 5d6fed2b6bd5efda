//! An hour of captions, accelerated: the memory that the session holds does not grow.

use super::*;
use crate::protocol::fuzz;

const UTTERANCES_A_MINUTE: u64 = 12;

const PIECES_OF_AN_INTERIM: usize = 8;

/// Acknowledges lines, and keeps none.
#[derive(Default)]
struct Forgetful(Mutex<u64>);

impl HistoryStore for Forgetful {
    fn append(&self, _: Entry) -> BoxFuture<'static, Result<u64, StoreError>> {
        let mut lines = self.0.lock().unwrap();
        *lines += 1;
        let seq = *lines;
        Box::pin(async move { Ok(seq) })
    }

    fn of_user(&self, _: &UserId, _: u64, _: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        not_read()
    }

    fn of_session(
        &self,
        _: &UserId,
        _: SessionId,
        _: u64,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        not_read()
    }

    fn delete_session(&self, _: &UserId, _: SessionId) -> BoxFuture<'static, Result<u64, StoreError>> {
        Box::pin(async { unreachable!("sessions do not delete their history") })
    }

    fn newest(&self, _: &UserId, _: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        not_read()
    }
}

/// Has some interims, and a final.
fn talkative() -> Arc<dyn SpeechToText> {
    Arc::new(SttBy(|_, audio: mpsc::Receiver<Pcm>| {
        let interims = stream::unfold((audio, String::new()), |(mut audio, mut text)| async {
            // The test's client reads only then: what waits for it has to fit into its queue.
            for _ in 0..PIECES_OF_AN_INTERIM {
                audio.recv().await?;
            }
            text += "some more words ";
            Some((Ok(SttEvent::Interim(text.as_str().into())), (audio, text)))
        });
        interims.chain(stream::iter([Ok(SttEvent::Final("Some more words.".into()))]))
    }))
}

#[actix::test]
async fn an_hour_of_captions_takes_no_more_memory_than_its_first_minutes() {
    tokio::time::pause();
    let config = SessionConfig { memory: 0, voice: None, livekit: false, ..config() };
    let history = Arc::<Forgetful>::default();
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let (dropped, _) = mpsc::unbounded_channel();
    let llm = Arc::new(Script { events: Vec::new(), hangs: true, asked, dropped });
    let services = services(llm, Vec::new(), config, history.clone(), Some(talkative()));
    let rig = Rig::of(services, Arc::default());
    let mut client = rig.attach().await;
    client.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;

    let mut held = Vec::new();
    for minute in 0..60 {
        for _ in 0..UTTERANCES_A_MINUTE {
            client.speak().await;
            while client.read("data_stream").await["data"]["isFinal"] != true {}
            tokio::time::sleep(Duration::from_secs(60 / UTTERANCES_A_MINUTE)).await;
        }
        if minute % 10 == 9 {
            held.push(fuzz::held());
        }
    }

    assert!(was_asked.try_recv().is_err(), "nothing is answered");
    assert_eq!(*history.0.lock().unwrap(), 60 * UTTERANCES_A_MINUTE);
    let growth = held[5] - held[0];
    assert!(growth < 4 * 1024, "{growth} bytes within 50 min: {held:?}");
}
