//! Tools that the language model calls: what the client is told, and what the model reads.

use super::*;
use crate::{
    providers::llm::{Image, ToolCall, ToolResult},
    tools::Filler,
};

const TOOLS: &str =
    r#"{"type":"configure_session","options":{"tools":[{"name":"take_photo"},{"name":"battery"}]}}"#;

impl Rig {
    /// An attached client with two tools, which has asked something.
    fn with_tools() -> Self {
        let mut rig = Self::attached();
        rig.say(TOOLS).speak("What do I see?");
        rig.told(1);
        rig.effects.clear();
        rig
    }

    /// The model calls tools, and ends its step.
    fn calls(&mut self, generation: u32, names: &[&str]) -> &mut Self {
        for (number, name) in names.iter().enumerate() {
            self.input(Input::Llm(generation, StreamItem::More(LlmEvent::ToolCall(call(number, name)))));
        }
        self.llm_ends(generation)
    }

    fn result(&mut self, call_id: &str, output: &str) -> &mut Self {
        let message = json!({"type": "tool_result", "id": "r", "callId": call_id, "output": output});
        self.say(&message.to_string())
    }
}

fn call(number: usize, name: &str) -> ToolCall {
    ToolCall {
        id: format!("id_{number}"),
        name: name.into(),
        arguments: json!({"n": number}),
        signature: None,
    }
}

fn called(text: &str, names: &[&str]) -> ChatMessage {
    let calls = names.iter().enumerate().map(|(number, name)| call(number, name));
    ChatMessage::Assistant { text: text.into(), tool_calls: calls.collect() }
}

fn result(number: usize, text: &str) -> ChatMessage {
    ChatMessage::ToolResult(ToolResult { call_id: format!("id_{number}"), text: text.into(), image: None })
}

#[test]
fn the_client_is_called_and_the_answer_goes_on_with_its_results() {
    let mut rig = Rig::with_tools();
    rig.llm(1, "Let me look.").calls(1, &["take_photo", "battery"]);

    let told = rig.told(1);
    let calls: Vec<_> = told.iter().filter(|message| message["type"] == "tool_call").collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&calls[0]["callId"], &calls[0]["name"], &calls[0]["arguments"], &calls[0]["timeoutMs"]),
        (&json!("call_1_1"), &json!("take_photo"), &json!({"n": 0}), &json!(10_000))
    );
    assert!(rig.has(|effect| matches!(effect, Effect::Synthesize(1, said) if said.text == "Let me look.")));
    assert!(rig.prompt().is_none(), "the model waits");

    rig.result("call_1_2", "80 %").result("call_1_1", "a cat");

    let prompt = rig.prompt().unwrap();
    assert_eq!(
        prompt.messages,
        [
            ChatMessage::user("What do I see?"),
            called("Let me look.", &["take_photo", "battery"]),
            result(0, "a cat"),
            result(1, "80 %"),
        ]
    );
    assert_eq!(prompt.tools.len(), 2);
    rig.told(1);
    rig.llm(1, "A cat.").llm_ends(1);
    let done = rig.told(1).into_iter().find(|message| message["type"] == "answer_done").unwrap();
    assert_eq!(done["text"], "Let me look. A cat.");
}

#[test]
fn the_next_answer_knows_what_the_tools_said_and_the_history_has_it() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["battery"]).result("call_1_1", "80 %").llm(1, "80 percent.").llm_ends(1);
    rig.tts(1, 1600).tts_ends(1).wait(Duration::from_secs(1));
    assert_eq!(rig.saved(), ["80 %", "80 percent."]);
    let tool = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Tool { name, outcome, arguments, .. }, None) = effect else {
            return None;
        };
        Some((name.as_str(), outcome.as_str(), arguments.clone()))
    });
    assert_eq!(tool, Some(("battery", "ok", json!({"n": 0}))));

    rig.speak("And now?");

    assert_eq!(
        rig.prompt().unwrap().messages,
        [
            ChatMessage::user("What do I see?"),
            called("", &["battery"]),
            result(0, "80 %"),
            ChatMessage::assistant("80 percent."),
            ChatMessage::user("And now?"),
        ]
    );
}

#[test]
fn an_interruption_cancels_the_calls_and_a_late_result_is_refused() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);
    rig.told(1);

    rig.say(r#"{"type":"interrupt"}"#);

    let told = rig.told(1);
    let cancelled = told.iter().find(|message| message["type"] == "tool_call_cancelled").unwrap();
    assert_eq!((&cancelled["callId"], &cancelled["reason"]), (&json!("call_1_1"), &json!("interrupted")));
    rig.result("call_1_1", "too late");
    let error = &rig.told(1)[0];
    assert_eq!((&error["code"], &error["replyTo"]), (&json!("SESSION_ERROR"), &json!("r")));
    assert!(rig.prompt().is_none());

    rig.speak("Never mind.");
    assert!(
        rig.prompt().unwrap().messages.contains(&result(0, "Error: cancelled: the user interrupted")),
        "the model knows of the call"
    );
}

#[test]
fn speech_before_the_answer_cancels_the_calls_and_asks_again_with_all_that_was_said() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);
    rig.told(1);

    rig.speak("And who is it?");

    assert!(rig.told_types(1).contains(&"tool_call_cancelled".to_owned()));
    let prompt = rig.prompt().unwrap();
    assert_eq!(prompt.messages, [ChatMessage::user("What do I see? And who is it?")]);
}

#[test]
fn a_tool_that_never_answers_costs_its_time_and_not_the_answer() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);
    rig.told(1);

    rig.wait(Duration::from_millis(9_999));
    assert!(rig.prompt().is_none());
    rig.wait(Duration::from_millis(1));

    let told = rig.told(1);
    let cancelled = told.iter().find(|message| message["type"] == "tool_call_cancelled").unwrap();
    assert_eq!(cancelled["reason"], "timed_out");
    assert_eq!(rig.prompt().unwrap().messages[2], result(0, "Error: no result within 10000 ms"));
}

#[test]
fn a_result_that_is_none_is_refused_by_its_reason_and_the_model_reads_it() {
    let too_long = "x".repeat(16 * 1024 + 1);
    for (body, problem) in [
        (json!({}), "output, error or image: one of them is needed"),
        (json!({"output": too_long}), "output: the result has more than 16384 bytes"),
        (json!({"image": "!"}), "image: is not base64"),
        (json!({"image": "R0lGODlh"}), "image: the image is neither JPEG nor PNG"),
    ] {
        let mut rig = Rig::with_tools();
        rig.calls(1, &["take_photo"]);
        rig.told(1);
        let mut message = body;
        message["type"] = "tool_result".into();
        message["callId"] = "call_1_1".into();

        rig.say(&message.to_string());

        let told = rig.told(1);
        let error = told.iter().find(|message| message["type"] == "error").unwrap();
        assert_eq!((&error["code"], &error["message"]), (&json!("INVALID_REQUEST"), &json!(problem)));
        let text = format!("Error: the client sent no valid result: {problem}");
        assert_eq!(rig.prompt().unwrap().messages[2], result(0, &text));
    }
}

#[test]
fn an_error_of_the_client_is_what_the_model_reads() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);

    rig.say(r#"{"type":"tool_result","callId":"call_1_1","error":"the camera is off"}"#);

    assert_eq!(rig.prompt().unwrap().messages[2], result(0, "Error: the camera is off"));
}

#[test]
fn an_image_of_a_tool_is_part_of_the_prompt() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);

    rig.say(r#"{"type":"tool_result","callId":"call_1_1","image":"/9j/4AAQSkZJRg=="}"#);

    let ChatMessage::ToolResult(result) = &rig.prompt().unwrap().messages[2] else { panic!() };
    assert_eq!(result.image.as_ref().unwrap().media_type(), "image/jpeg");
}

#[test]
fn a_client_that_was_away_gets_its_call_when_it_resumes() {
    let mut rig = Rig::with_tools();
    let seq = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1));
    rig.calls(1, &["take_photo"]);

    rig.attach(2, Some(seq));

    assert!(rig.told_types(2).contains(&"tool_call".to_owned()));
    rig.result("call_1_1", "a cat");
    assert_eq!(rig.prompt().unwrap().messages[2], result(0, "a cat"));
}

#[test]
fn a_model_that_does_not_stop_calling_ends_its_answer_and_not_the_session() {
    let mut rig = Rig::with_tools();
    for step in 1..=5 {
        rig.calls(1, &["battery"]).result(&format!("call_1_{step}"), "80 %");
    }
    rig.calls(1, &["battery"]);
    rig.told(1);

    rig.calls(1, &["battery"]);

    let told = rig.told(1);
    assert!(told.iter().any(|message| message["code"] == "AI_UNAVAILABLE"), "{told:?}");
    assert!(told.iter().any(|message| message["finish"] == "error"), "{told:?}");
    rig.effects.clear();
    rig.speak("Hello?");
    assert!(rig.prompt().is_some());
}

#[test]
fn calls_of_an_answer_that_fails_are_not_made() {
    let mut rig = Rig::with_tools();
    rig.input(Input::Llm(1, StreamItem::More(LlmEvent::ToolCall(call(0, "battery")))));
    rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::TimedOut))));

    assert!(!rig.told_types(1).contains(&"tool_call".to_owned()));
    assert!(rig.prompt().is_none());
}

/// A client with tools, of a gateway that says something meanwhile.
fn with_filler() -> Rig {
    let filler = Some(Filler { text: "One moment.".into(), after: Duration::from_millis(1500) });
    let mut rig =
        Rig::with(SessionConfig { tools: ToolLimits { filler, ..ToolLimits::default() }, ..config() });
    rig.attach(1, None).say(TOOLS).speak("What do I see?");
    rig.told(1);
    rig.effects.clear();
    rig
}

/// What is synthesized.
fn spoken(rig: &Rig) -> Vec<&str> {
    let text = rig.effects.iter().filter_map(|effect| {
        let Effect::Synthesize(_, request) = effect else { return None };
        Some(request.text.as_str())
    });
    text.collect()
}

#[test]
fn what_is_said_meanwhile_is_heard_and_no_part_of_the_answer() {
    let mut rig = with_filler();
    rig.calls(1, &["take_photo"]).wait(Duration::from_millis(1499));
    assert!(spoken(&rig).is_empty());
    rig.wait(Duration::from_millis(1));
    assert_eq!(spoken(&rig), ["One moment."]);
    rig.tts(1, 16_000).tts_ends(1).wait(Duration::from_secs(2));

    rig.result("call_1_1", "a cat").llm(1, "It is a cat.").llm_ends(1);
    rig.tts(1, 16_000).tts_ends(1).wait(Duration::from_secs(3));

    assert_eq!(spoken(&rig), ["One moment.", "It is a cat."]);
    let done = rig.told(1).into_iter().find(|message| message["type"] == "answer_done").unwrap();
    assert_eq!(done["text"], "It is a cat.");
    assert_eq!(rig.saved(), ["a cat", "It is a cat."]);
}

#[test]
fn an_answer_that_is_cut_after_what_was_said_meanwhile_keeps_its_own_words_alone() {
    let mut rig = with_filler();
    rig.calls(1, &["take_photo"]).wait(Duration::from_millis(1500));
    rig.tts(1, 16_000).tts_ends(1).wait(Duration::from_secs(2));
    rig.result("call_1_1", "a cat").llm(1, "It is a black cat. ");
    rig.tts(1, 16_000).wait(Duration::from_millis(500));

    rig.start_speech();

    assert_eq!(rig.saved().last().unwrap(), "It is");
}

#[test]
fn nothing_is_said_meanwhile_where_the_model_has_said_something() {
    let mut rig = with_filler();
    rig.llm(1, "Let me look.").calls(1, &["take_photo"]).wait(Duration::from_secs(5));

    assert_eq!(spoken(&rig), ["Let me look."]);
}

// --- Images that the client uploads ---------------------------------------------------------------

/// An image of so many bytes beside its first ones.
fn jpeg(bytes: usize) -> Image {
    let mut data = vec![0xff, 0xd8, 0xff, 0xe0];
    data.resize(4 + bytes, 7);
    Image::new(data.into()).unwrap()
}

fn uploads(rig: &mut Rig, call_id: &str) {
    let output = ToolOutput { text: "ahead".into(), image: Some(jpeg(100_000)) };
    rig.input(Input::ToolAnswered(call_id.into(), ToolKind::Client, Ok(output)));
}

#[test]
fn an_image_that_the_client_uploads_completes_its_call() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]);
    assert_eq!(rig.session.client_call("call_1_1"), Ok(()));

    uploads(&mut rig, "call_1_1");

    let ChatMessage::ToolResult(result) = &rig.prompt().unwrap().messages[2] else { panic!() };
    assert_eq!((result.text.as_str(), &result.image), ("ahead", &Some(jpeg(100_000))));
    let saved = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Tool { outcome, image, .. }, None) = effect else { return None };
        Some((outcome.as_str(), *image))
    });
    assert_eq!(saved, Some(("ok", true)));
}

#[test]
fn a_call_that_is_over_is_known_to_be_and_one_that_was_never_made_is_not() {
    let mut rig = Rig::with_tools();
    assert_eq!(rig.session.client_call("call_1_1"), Err(ClosedCall::Unknown));
    rig.calls(1, &["take_photo", "battery"]);
    assert_eq!(rig.session.client_call("call_1_3"), Err(ClosedCall::Unknown));

    uploads(&mut rig, "call_1_1");
    assert_eq!(rig.session.client_call("call_1_1"), Err(ClosedCall::Over), "another call is open");
    rig.say(r#"{"type":"interrupt"}"#);

    assert_eq!(rig.session.client_call("call_1_2"), Err(ClosedCall::Over), "it was cancelled");
    rig.speak("And now?");
    assert_eq!(rig.session.client_call("call_1_1"), Err(ClosedCall::Over), "of an earlier answer");
}

#[test]
fn a_call_that_timed_out_is_over() {
    let mut rig = Rig::with_tools();
    rig.calls(1, &["take_photo"]).wait(Duration::from_secs(10));

    assert_eq!(rig.session.client_call("call_1_1"), Err(ClosedCall::Over));
}
