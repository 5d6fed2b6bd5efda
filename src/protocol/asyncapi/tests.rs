//! The document against docs/PROTOCOL.md and the types: neither may have what the other has not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use crate::protocol::{
    asyncapi::*,
    tests::{decoders_names, examples_of_clients, examples_of_the_gateway},
};

/// The types that messages refer to, closed as by [`closed`].
static TYPES: LazyLock<Value> = LazyLock::new(|| closed(document()["components"]["schemas"].clone()));

/// The schemas of one side's text messages, by `type`.
fn schemas(side: &str) -> BTreeMap<String, Value> {
    let document = document();
    let messages = document["components"]["messages"].as_object().unwrap();
    messages
        .iter()
        .filter(|(key, message)| key.starts_with(side) && message["contentType"] == "application/json")
        .map(|(_, message)| {
            let payload = message["payload"]["$ref"].as_str().unwrap().trim_start_matches('#');
            (message["name"].as_str().unwrap().to_owned(), document.pointer(payload).unwrap().clone())
        })
        .collect()
}

fn both() -> [(&'static str, BTreeMap<String, Value>, Vec<Value>); 2] {
    [
        ("client", schemas("client."), examples_of_clients()),
        ("gateway", schemas("gateway."), examples_of_the_gateway()),
    ]
}

/// Calls `visit` with each object schema, also with those within others.
fn each_object(schema: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object) {
                visit(object);
            }
            object.values_mut().for_each(|value| each_object(value, visit));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| each_object(value, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The schema with no room for fields that it does not name.
fn closed(mut schema: Value) -> Value {
    each_object(&mut schema, &mut |object| {
        object.entry("additionalProperties").or_insert(Value::Bool(false));
    });
    schema
}

fn is_valid(schema: &Value, example: &Value) -> Result<(), String> {
    let mut schema = closed(schema.clone());
    schema["components"] = json!({ "schemas": *TYPES });
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let faults: Vec<String> =
        validator.iter_errors(example).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

#[test]
fn every_type_has_a_title_of_its_own_by_which_generators_name_it() {
    let mut schemas = document()["components"]["schemas"].clone();
    let mut titles = BTreeSet::new();
    for (name, schema) in schemas.as_object().unwrap() {
        assert_eq!(schema["title"], *name);
    }
    each_object(&mut schemas, &mut |object| {
        let title = object.get("title").and_then(Value::as_str).expect("an object schema without a title");
        assert!(titles.insert(title.to_owned()), "{title} twice");
    });
    assert!(titles.contains("GatewayConnectionAck") && titles.contains("ClientPing"), "{titles:?}");
    assert!(titles.iter().all(|title| !title.ends_with(char::is_numeric)), "{titles:?}");
}

#[test]
fn the_document_has_every_message_of_the_types_and_of_the_page_and_no_other() {
    for (side, schemas, examples) in both() {
        let described: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
        let shown: BTreeSet<&str> =
            examples.iter().map(|example| example["type"].as_str().unwrap()).collect();
        let missing: Vec<_> = described.symmetric_difference(&shown).collect();
        assert!(
            missing.is_empty(),
            "{missing:?} of the {side}: each message needs an example in docs/PROTOCOL.md and a line in src/protocol/asyncapi.rs"
        );
    }
    let described: BTreeSet<String> = schemas("client.").into_keys().collect();
    let read: BTreeSet<String> = decoders_names().into_iter().map(str::to_owned).collect();
    let missing: Vec<_> = described.symmetric_difference(&read).collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: what from_client.rs reads and what clients_messages() in src/protocol/asyncapi.rs lists must be the same"
    );
}

#[test]
fn every_example_of_the_page_is_valid_by_its_schema() {
    for (side, schemas, examples) in both() {
        for example in examples {
            let name = example["type"].as_str().unwrap();
            if let Err(faults) = is_valid(&schemas[name], &example) {
                panic!("the {side}'s {name} is not what its type says: {faults}\n{example}");
            }
        }
    }
}

#[test]
fn a_message_with_a_field_too_many_or_of_another_kind_is_not_valid() {
    for (side, schemas, examples) in both() {
        for example in examples {
            let name = example["type"].as_str().unwrap();
            let mut more = example.clone();
            more["surprise"] = json!(1);
            assert!(is_valid(&schemas[name], &more).is_err(), "a surprise in the {side}'s {name}");
            for field in example.as_object().unwrap().keys() {
                let mut other = example.clone();
                other[field] = json!([[]]);
                assert!(
                    is_valid(&schemas[name], &other).is_err(),
                    "{field} of the {side}'s {name} may be anything"
                );
            }
        }
    }
}

#[test]
fn what_the_gateway_numbers_has_a_number_in_the_document() {
    let schemas = schemas("gateway.");
    for example in examples_of_the_gateway() {
        let name = example["type"].as_str().unwrap();
        let numbered = serde_json::from_value::<ToClient>(example.clone()).unwrap().is_sequenced();
        let required = schemas[name]["required"].as_array().unwrap().contains(&json!("seq"));
        assert_eq!(
            required, numbered,
            "{name}: UNNUMBERED in src/protocol/asyncapi.rs says otherwise than ToClient::is_sequenced"
        );
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn follow(document: &Value, value: &Value, found: &mut usize) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(target)) = object.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                    *found += 1;
                }
                object.values().for_each(|value| follow(document, value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| follow(document, value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let (document, mut found) = (document_of("wss://june.example/v1/ws"), 0);
    follow(&document, &document, &mut found);
    assert!(found > 80, "{found}");
    assert_eq!(document["servers"]["gateway"]["host"], "june.example");
    assert_eq!(document["servers"]["gateway"]["protocol"], "wss");
}

/// The headers of binary frames are told in words: held against the frames themselves.
#[test]
fn the_words_about_sound_are_those_of_its_frames() {
    let document = document();
    let up = audio::UplinkFrame {
        codec: audio::Codec::Pcm16le,
        pre_roll: true,
        backfill: true,
        end: true,
        seq: 1,
        capture_ms: 2,
        payload: bytes::Bytes::new(),
    };
    let down = audio::DownlinkFrame::encode_pcm(1, 2, true, &[]);
    for (key, frame) in [("client.sound", up.encode()), ("gateway.sound", down)] {
        let words = document["components"]["messages"][key]["payload"]["description"].as_str().unwrap();
        assert_eq!(frame.len(), audio::HEADER_BYTES);
        assert!(words.starts_with(&format!("{} bytes", audio::HEADER_BYTES)), "{key}");
        assert!(
            words.contains(
                &format!("`{:#X}`; version, {}; codec, {}", frame[0], frame[1], frame[2]).replace("0X", "0x")
            ),
            "{key}"
        );
        assert!(words.contains("4 end"), "{key}");
    }
}
