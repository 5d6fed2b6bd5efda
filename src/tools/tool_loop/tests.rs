use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{providers::llm::Image, tools::Filler};

const TIMEOUT: Duration = Duration::from_secs(10);

fn offered(names: &[&str]) -> Vec<OfferedTool> {
    let tool = |name: &&str| OfferedTool {
        spec: ToolSpec { name: (*name).into(), description: String::new(), parameters: json!({}) },
        target: Target::Client,
    };
    names.iter().map(tool).collect()
}

fn limits(max_steps: u32) -> ToolLimits {
    let filler = Filler { text: "One moment.".into(), after: Duration::from_millis(1500) };
    ToolLimits { timeout: TIMEOUT, max_steps, filler: Some(filler), ..ToolLimits::default() }
}

fn new(max_steps: u32) -> ToolLoop {
    ToolLoop::new(3, offered(&["camera", "battery"]), limits(max_steps))
}

fn wants(tools: &mut ToolLoop, names: &[&str], now: Instant) -> Vec<String> {
    for (number, name) in names.iter().enumerate() {
        let id = format!("id_{number}");
        tools.called(ToolCall { id, name: (*name).into(), arguments: json!({}), signature: None });
    }
    brief(&tools.step_ended(String::new(), now))
}

fn brief(effects: &[Effect]) -> Vec<String> {
    let line = |effect: &Effect| match effect {
        Effect::Start { call_id, call, .. } => format!("start {call_id} {}", call.name),
        Effect::Cancel { call_id, reason, .. } => format!("cancel {call_id} {reason:?}"),
        Effect::Done(call) => format!("{} {}: {}", call.name, call.outcome.as_str(), call.text),
        Effect::Filler(text) => format!("say {text}"),
        Effect::Generate => "generate".into(),
        Effect::GiveUp => "give up".into(),
    };
    effects.iter().map(line).collect()
}

fn answer(tools: &mut ToolLoop, call_id: &str, text: &str, now: Instant) -> Result<Vec<String>, NotOpen> {
    let output = ToolOutput { text: text.into(), image: None };
    tools.answered(call_id, ToolKind::Client, Ok(output), now).map(|effects| brief(&effects))
}

/// The messages in a short form.
fn told(tools: &ToolLoop) -> Vec<String> {
    let line = |message: &ChatMessage| match message {
        ChatMessage::User { .. } => panic!("{message:?}"),
        ChatMessage::Assistant { text, tool_calls } => {
            let calls: Vec<_> = tool_calls.iter().map(|call| call.id.as_str()).collect();
            format!("{text}!{}", calls.join(" "))
        }
        ChatMessage::ToolResult(result) => format!("{}={}", result.call_id, result.text),
    };
    tools.messages().iter().map(line).collect()
}

#[test]
fn calls_of_one_step_run_in_parallel_and_the_model_goes_on_when_each_has_its_result() {
    let (mut tools, now) = (new(5), crate::clock::now());

    assert_eq!(
        wants(&mut tools, &["camera", "battery"], now),
        ["start call_3_1 camera", "start call_3_2 battery"]
    );
    assert_eq!(answer(&mut tools, "call_3_2", "80 %", now).unwrap(), ["battery ok: 80 %"]);
    assert_eq!(answer(&mut tools, "call_3_1", "a cat", now).unwrap(), ["camera ok: a cat", "generate"]);

    assert_eq!(told(&tools), ["!id_0 id_1", "id_0=a cat", "id_1=80 %"]);
    assert!(!tools.has_calls());
}

#[test]
fn a_second_result_and_one_of_an_unknown_call_are_refused() {
    let (mut tools, now) = (new(5), crate::clock::now());
    wants(&mut tools, &["camera", "battery"], now);
    answer(&mut tools, "call_3_1", "a cat", now).unwrap();

    assert_eq!(answer(&mut tools, "call_3_1", "a dog", now), Err(NotOpen));
    assert_eq!(answer(&mut tools, "call_3_9", "a dog", now), Err(NotOpen));
    let of_another = tools.answered("call_3_2", ToolKind::Webhook, Ok(ToolOutput::default()), now);
    assert_eq!(of_another, Err(NotOpen), "only who was asked may answer");
}

#[test]
fn a_tool_that_does_not_answer_is_an_error_that_the_model_sees() {
    let (mut tools, now) = (new(5), crate::clock::now());
    wants(&mut tools, &["camera"], now);
    let filler_at = now + Duration::from_millis(1500);
    assert_eq!(tools.deadline(), Some(filler_at));
    assert_eq!(brief(&tools.tick(filler_at)), ["say One moment."]);
    assert_eq!(tools.deadline(), Some(now + TIMEOUT));
    assert!(tools.tick(now + TIMEOUT - Duration::from_millis(1)).is_empty());

    assert_eq!(
        brief(&tools.tick(now + TIMEOUT)),
        ["cancel call_3_1 TimedOut", "camera timed_out: Error: no result within 10000 ms", "generate"]
    );
    assert_eq!(told(&tools), ["!id_0", "id_0=Error: no result within 10000 ms"]);
    assert_eq!(answer(&mut tools, "call_3_1", "late", now + TIMEOUT), Err(NotOpen));
}

#[test]
fn nothing_is_said_meanwhile_where_tools_are_fast_and_no_more_than_once() {
    let (mut tools, now) = (new(5), crate::clock::now());
    let late = now + Duration::from_millis(1500);
    wants(&mut tools, &["camera"], now);
    answer(&mut tools, "call_3_1", "a cat", now).unwrap();
    assert_eq!(tools.deadline(), None);
    wants(&mut tools, &["camera"], now);
    assert_eq!(brief(&tools.tick(late)), ["say One moment."]);
    answer(&mut tools, "call_3_2", "a cat", late).unwrap();

    wants(&mut tools, &["camera"], late);

    assert_eq!(tools.deadline(), Some(late + TIMEOUT));
}

#[test]
fn a_tool_that_is_not_there_and_too_many_at_once_are_refused_with_the_reason() {
    let (mut tools, now) = (new(5), crate::clock::now());

    assert_eq!(
        wants(&mut tools, &["door"], now),
        ["door refused: Error: there is no tool of this name; there are camera, battery", "generate"]
    );
    let many = wants(&mut tools, &["camera"; 10], now);
    assert_eq!(many.iter().filter(|line| line.starts_with("start")).count(), MAX_PARALLEL);
    assert_eq!(many[9], "camera refused: Error: not called: at most 8 calls at once");
}

#[test]
fn after_the_last_step_calls_are_refused_and_a_model_that_calls_all_the_same_is_given_up() {
    let (mut tools, now) = (new(1), crate::clock::now());
    wants(&mut tools, &["camera"], now);
    answer(&mut tools, "call_3_1", "a cat", now).unwrap();

    assert_eq!(
        wants(&mut tools, &["camera"], now),
        ["camera refused: Error: no further tool call is possible; answer with what is known", "generate"]
    );
    assert_eq!(wants(&mut tools, &["camera"], now), ["give up"]);
    assert!(wants(&mut tools, &["camera"], now).is_empty());
}

#[test]
fn what_is_cancelled_is_known_and_no_more_than_that() {
    let (mut tools, now) = (new(5), crate::clock::now());
    wants(&mut tools, &["camera", "battery"], now);
    answer(&mut tools, "call_3_2", "80 %", now).unwrap();

    assert_eq!(
        brief(&tools.cancel(now)),
        ["cancel call_3_1 Interrupted", "camera cancelled: Error: cancelled: the user interrupted"]
    );
    assert_eq!(told(&tools), ["!id_0 id_1", "id_0=Error: cancelled: the user interrupted", "id_1=80 %"]);
    assert!(tools.cancel(now).is_empty());
    assert_eq!(tools.deadline(), None);
}

proptest! {
    /// Whatever the model and the tools do: each call that begins ends once, the model goes on only when all of a step
    /// have ended, it is asked a limited number of times, each result follows its call, and nothing happens after the
    /// end.
    #[test]
    fn every_call_has_one_result(
        max_steps in 1..4u32,
        inputs in prop::collection::vec((0..6u8, 0..12u32, 0..15_000u64), 0..80),
    ) {
        let (mut tools, mut now) = (new(max_steps), crate::clock::now());
        let (mut open, mut done, mut generated, mut over) = (Vec::new(), 0, 0, false);
        let (mut wanted, mut fillers) = (0, 0);
        for (kind, number, wait_ms) in inputs {
            let effects = match kind {
                0 | 1 => {
                    let name = ["camera", "battery", "door"][number as usize % 3];
                    let call = ToolCall { id: wanted.to_string(), name: name.into(), arguments: json!({}), signature: None };
                    let before = tools.has_calls();
                    tools.called(call);
                    wanted += u32::from(tools.has_calls() || before);
                    Vec::new()
                }
                2 if tools.has_calls() => tools.step_ended("text".into(), now),
                3 => {
                    let id = format!("call_3_{number}");
                    tools.answered(&id, ToolKind::Client, Ok(ToolOutput::default()), now).unwrap_or_default()
                }
                4 => {
                    now += Duration::from_millis(wait_ms);
                    tools.tick(now)
                }
                5 if number == 0 => {
                    over = true;
                    let effects = tools.cancel(now);
                    prop_assert!(!effects.contains(&Effect::Generate));
                    effects
                }
                _ => Vec::new(),
            };
            for effect in effects {
                match effect {
                    Effect::Start { call_id, .. } => {
                        prop_assert!(!over);
                        prop_assert!(!open.contains(&call_id));
                        open.push(call_id);
                    }
                    Effect::Cancel { call_id, .. } => prop_assert!(open.contains(&call_id)),
                    Effect::Done(call) => {
                        done += 1;
                        prop_assert!(call.text.len() < 200);
                    }
                    Effect::Generate => {
                        prop_assert!(!over);
                        generated += 1;
                    }
                    Effect::Filler(_) => {
                        prop_assert!(!over && fillers == 0);
                        fillers += 1;
                    }
                    Effect::GiveUp => over = true,
                }
            }
            prop_assert!(generated <= max_steps + 1);
            prop_assert!(tools.deadline().is_none_or(|at| at <= now + TIMEOUT));
        }
        if !over {
            tools.cancel(now);
        }
        let calls: usize = tools.messages().iter().map(|message| match message {
            ChatMessage::Assistant { tool_calls, .. } => tool_calls.len(),
            ChatMessage::User { .. } | ChatMessage::ToolResult(_) => 0,
        }).sum();
        let results = tools.messages().iter().filter(|message| matches!(message, ChatMessage::ToolResult(_))).count();
        prop_assert_eq!(calls, results);
        prop_assert!(done <= results);
    }
}

#[test]
fn of_the_images_of_one_answer_the_newest_are_kept() {
    let (mut tools, now) = (new(20), crate::clock::now());
    let png = Image::new(bytes::Bytes::from_static(b"\x89PNG\r\n\x1a\n")).unwrap();
    for step in 1..=6 {
        wants(&mut tools, &["camera"], now);
        let output = ToolOutput { text: format!("photo {step}"), image: Some(png.clone()) };
        tools.answered(&format!("call_3_{step}"), ToolKind::Client, Ok(output), now).unwrap();
    }

    let results: Vec<_> = tools
        .messages()
        .iter()
        .filter_map(|message| match message {
            ChatMessage::ToolResult(result) => Some((result.text.as_str(), result.image.is_some())),
            ChatMessage::User { .. } | ChatMessage::Assistant { .. } => None,
        })
        .collect();
    assert_eq!(
        results,
        [
            ("photo 1\n[With an image that is no longer shown.]", false),
            ("photo 2\n[With an image that is no longer shown.]", false),
            ("photo 3", true),
            ("photo 4", true),
            ("photo 5", true),
            ("photo 6", true),
        ]
    );
}
