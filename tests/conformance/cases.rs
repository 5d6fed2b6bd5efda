//! The cases, by the numbers that README.md explains.

use std::{pin::Pin, time::Duration};

use futures::FutureExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    target::Target,
    wire::{Entry, Profile, Wire},
};

/// What came of a case.
pub enum Verdict {
    Passed,
    Failed(String),
    /// This gateway, or this profile, has nothing to try it on.
    NotApplicable(String),
    /// The profile is not there.
    NotOffered(String),
    /// It cannot be told from outside.
    Elsewhere,
}

type Outcome = Result<Verdict, String>;
type Run = for<'a> fn(&'a Target, Profile) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A case; none to run where it takes a look inside.
pub struct Case {
    pub number: u8,
    pub name: &'static str,
    pub run: Option<Run>,
}

macro_rules! case {
    ($number:literal, $name:literal) => {
        Case { number: $number, name: $name, run: None }
    };
    ($number:literal, $name:literal, $run:ident) => {
        Case {
            number: $number,
            name: $name,
            run: Some(|target, profile| $run(target, profile).boxed_local()),
        }
    };
}

/// All of them. The last one leaves its user locked out for a minute.
pub const CASES: [Case; 14] = [
    case!(1, "acknowledged, again on a second init; odd pieces of PCM", odd_pieces),
    case!(2, "a token in the query; the header counts more", tokens),
    case!(3, "an old socket that closes late does not end the session", late_close),
    case!(4, "back within the grace: the session; after it: a new one", grace),
    case!(5, "a pong is not kept waiting", pong),
    case!(6, "\"VAD\": \"true\" as a word", vad_word),
    case!(7, "sound before anything is ready: the first word is there", first_word),
    case!(8, "no subscriptions for a moment: the microphone stays on", subscription_blip),
    case!(9, "back: the wish for the microphone is said again", microphone_again),
    case!(10, "sound in LiveKit data packets; somebody else's is ignored"),
    case!(11, "an agent that was displaced does not fight"),
    case!(12, "kill -9 within the grace: the session goes on"),
    case!(14, "an unknown type does no harm; 70 kB of text are refused", unknown_and_large),
    case!(13, "two devices of one user do not fight for ever", two_devices),
];

const WORDS: [&str; 4] = ["go", "forward", "ten", "meters"];

fn not_transcribing() -> Verdict {
    Verdict::NotApplicable("this gateway does not transcribe".into())
}

fn ensure(holds: bool, else_say: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_say.into()) }
}

/// Most of the sentence, the first word among it: which model hears is not judged here.
fn is_the_sentence(words: &[String]) -> Result<(), String> {
    let known = WORDS.iter().filter(|word| words.iter().any(|heard| heard == *word)).count();
    let first = words.first().is_some_and(|first| first == WORDS[0]);
    ensure(known >= 3 && first, format!("heard {words:?}"))
}

async fn odd_pieces(target: &Target, profile: Profile) -> Outcome {
    let mut wire = Wire::attach(target, profile, &target.token()).await?;
    if profile == Profile::Mentra {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.say(&json!({"type": "connection_init"})).await;
        let again = wire.message("connection_ack").await?;
        ensure(
            again["sessionId"] == wire.ack["sessionId"],
            "the second acknowledgement is of another session",
        )?;
    }
    if !wire.transcribes() {
        return Ok(not_transcribing());
    }
    wire.speak(&[4095, 4097]).await;
    is_the_sentence(&wire.words().await?)?;
    wire.leave().await;
    Ok(Verdict::Passed)
}

async fn tokens(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    for entry in [Entry::Query, Entry::HeaderOverQuery] {
        let wire = Wire::enter(target, profile, &token, entry, None).await;
        wire.map_err(|refused| format!("{entry:?}: {refused:?}"))?.leave().await;
    }
    let Err(refused) = Wire::enter(target, profile, "nonsense", Entry::Query, None).await else {
        return Err("a bad token is let in".into());
    };
    let in_words = refused.body["type"] == "connection_error" && refused.body["code"].is_string();
    ensure(refused.status == 401 && in_words, format!("a bad token is refused by {refused:?}"))?;
    Ok(Verdict::Passed)
}

async fn late_close(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut old = Wire::attach(target, profile, &token).await?;
    let mut new = Wire::attach(target, profile, &token).await?;
    ensure(old.ack["sessionId"] == new.ack["sessionId"], "the newer device has another session")?;
    if profile == Profile::EdgeV1 {
        let end = old.message("session_end").await?;
        ensure(end["reason"] == "superseded", format!("the older device is told {end}"))?;
        let code = old.closed().await?;
        ensure(code == 4001, format!("the older device is closed with {code}"))?;
    } else {
        old.closed().await?;
    }
    new.ping().await?;
    drop(old);
    new.ping().await?;
    if new.transcribes() {
        new.speak(&[640]).await;
        is_the_sentence(&new.words().await?)?;
    }
    new.leave().await;
    Ok(Verdict::Passed)
}

async fn grace(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut first = Wire::attach(target, profile, &token).await?;
    first.close().await;
    let mut second = first.come_back(target, &token).await?;
    ensure(second.ack["sessionId"] == first.ack["sessionId"], "back at once, and another session")?;
    if profile == Profile::EdgeV1 {
        ensure(second.ack["resumed"] == true, "back at once, and not resumed")?;
    }
    // `mentra` does not say how long it is; it is the same gateway's.
    let edge = Wire::attach(target, Profile::EdgeV1, &target.token()).await?;
    let grace = Duration::from_millis(edge.ack["graceMs"].as_u64().ok_or("no graceMs")?);
    edge.leave().await;
    if grace > Duration::from_secs(10) && std::env::var("SLOW").is_err() {
        return Ok(Verdict::NotApplicable(format!(
            "back at once it is the same; SLOW=1 waits {} s for the rest",
            grace.as_secs()
        )));
    }
    second.close().await;
    tokio::time::sleep(grace + Duration::from_secs(2)).await;
    let third = second.come_back(target, &token).await?;
    ensure(third.ack["sessionId"] != first.ack["sessionId"], "back too late, and still the same session")?;
    ensure(third.ack["resumed"] != true, "back too late, and resumed")?;
    third.leave().await;
    Ok(Verdict::Passed)
}

async fn pong(target: &Target, profile: Profile) -> Outcome {
    let mut wire = Wire::attach(target, profile, &target.token()).await?;
    let line = "word ".repeat(200);
    for n in 0..60 {
        wire.say(&json!({"type": "local_transcription", "text": &line[..n * 10 + 10], "isFinal": false}))
            .await;
    }
    let asked = Instant::now();
    wire.ping().await?;
    let took = asked.elapsed();
    ensure(took < target.pong_within, format!("it took {} ms", took.as_millis()))?;
    wire.leave().await;
    Ok(Verdict::Passed)
}

async fn vad_word(target: &Target, profile: Profile) -> Outcome {
    let mut wire = Wire::attach(target, profile, &target.token()).await?;
    wire.say(&json!({"type": "VAD", "status": "true"})).await;
    wire.ping().await?;
    ensure(wire.errors.is_empty(), format!("answered by {:?}", wire.errors))?;
    if wire.transcribes() {
        wire.speak(&[640]).await;
        wire.say(&json!({"type": "VAD", "status": "false"})).await;
        is_the_sentence(&wire.words().await?)?;
        ensure(wire.errors.is_empty(), format!("answered by {:?}", wire.errors))?;
    }
    wire.leave().await;
    Ok(Verdict::Passed)
}

async fn first_word(target: &Target, profile: Profile) -> Outcome {
    let mut wire = Wire::attach(target, profile, &target.token()).await?;
    if !wire.transcribes() {
        return Ok(not_transcribing());
    }
    wire.speak(&[640]).await;
    is_the_sentence(&wire.words().await?)?;
    wire.leave().await;
    Ok(Verdict::Passed)
}

async fn subscription_blip(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut first = Wire::attach(target, profile, &token).await?;
    first.close().await;
    let mut second = first.come_back(target, &token).await?;
    let mut off = false;
    for subscriptions in [json!([]), json!(["transcription:en-US"])] {
        second.say(&json!({"type": "phone_subscription_update", "subscriptions": subscriptions})).await;
        second.say(&json!({"type": "ping"})).await;
        second
            .wait(|message| {
                let wish = message["type"] == "microphone_state_change";
                off |= wish && message["isMicrophoneEnabled"] != true;
                (message["type"] == "pong").then_some(())
            })
            .await?;
    }
    ensure(!off, "the microphone was switched off")?;
    if second.transcribes() {
        second.speak(&[640]).await;
        is_the_sentence(&second.words().await?)?;
    }
    second.leave().await;
    Ok(Verdict::Passed)
}

async fn microphone_again(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut first = Wire::attach(target, profile, &token).await?;
    first.message("microphone_state_change").await?;
    first.close().await;
    let mut second = first.come_back(target, &token).await?;
    let wish: Value = second.message("microphone_state_change").await?;
    let whole = wish["isMicrophoneEnabled"] == true
        && wish["requiredData"].as_array().is_some_and(|data| !data.is_empty())
        && wish["bypassVad"].is_boolean();
    ensure(whole, format!("it is {wish}"))?;
    second.leave().await;
    Ok(Verdict::Passed)
}

async fn two_devices(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut devices = Vec::new();
    for _ in 0..6 {
        match Wire::enter(target, profile, &token, Entry::Header, None).await {
            Ok(device) => devices.push(device),
            Err(refused) => {
                let bounded = refused.status == 429
                    || refused.body["code"] == "RATE_LIMITED"
                    || refused.body == "closed with 1013";
                ensure(bounded, format!("refused by {refused:?}"))?;
                let Some(last) = devices.last_mut() else { return Err("the first one is refused".into()) };
                last.ping()
                    .await
                    .map_err(|why| format!("and the one that has the session lost it: {why}"))?;
                return Ok(Verdict::Passed);
            }
        }
    }
    Err("six in a row took the session from each other".into())
}

async fn unknown_and_large(target: &Target, profile: Profile) -> Outcome {
    let token = target.token();
    let mut wire = Wire::attach(target, profile, &token).await?;
    wire.say(&json!({"type": "button_press", "buttonId": "main", "pressType": "short"})).await;
    wire.ping().await.map_err(|why| format!("after an unknown type: {why}"))?;
    if profile == Profile::Mentra {
        ensure(wire.errors.is_empty(), format!("an unknown type is answered by {:?}", wire.errors))?;
    }
    wire.errors.clear();
    wire.say(&json!({"type": "button_press", "padding": "x".repeat(70_000)})).await;
    match wire.ping().await {
        Ok(()) => {
            // The pong may have overtaken it.
            if wire.errors.is_empty() {
                let error = wire.wait(|message| message["code"].is_string().then_some(()));
                error.await.map_err(|why| format!("70 kB of text are not said to be refused: {why}"))?;
            }
            wire.leave().await;
        }
        Err(why) => {
            ensure(why.contains("1009"), format!("70 kB of text end the connection: {why}"))?;
            let again = timeout(Duration::from_secs(30), Wire::attach(target, profile, &token)).await;
            again.map_err(|_| "no way back")??.leave().await;
        }
    }
    Ok(Verdict::Passed)
}
