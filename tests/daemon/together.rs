//! Several who ask at once: their answers come together, and each is the one that it would have been alone.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};

use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::http::{Door, content, dictate, start, user, wav};
use crate::http_client::connect;
use crate::process::{Bench, expected};
use crate::wyoming::{Client, mono, samples};

/// Lines of a streamed chat whose answer has so many words.
fn long_chat(door: &Door, words: usize) -> impl Iterator<Item = String> + use<> {
    let schema = json!({ "type": "array", "minItems": words, "maxItems": words, "items": { "enum": ["light", "lamp"] } });
    let asked = json!({
        "messages": user("?"), "stream": true, "temperature": 0, "max_tokens": 3000,
        "response_format": { "type": "json_schema", "json_schema": { "schema": schema } },
    });
    let body = asked.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: pi\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(door.address);
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let has_word = |line: String| line.contains("light") || line.contains("lamp");
    assert!(lines.any(has_word), "it has begun");
    lines
}

/// The answer that was streamed, whole.
fn whole(lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.take_while(|line| line != "data: [DONE]").collect();
    let stop = "\"finish_reason\":\"stop\"";
    assert!(
        lines.iter().any(|line| line.contains(stop)),
        "{:?}",
        lines.last()
    );
}

fn jobs(bench: &Bench, name: &str) -> Value {
    let stats = bench.request("stats", name, json!({}));
    stats["data"]["details"]["queues"]["jobs"].clone()
}

/// What clients ask that come at once, with chance and without, with a schema and without.
fn questions() -> Vec<(Value, Value)> {
    let command = "Turn on the kitchen light. Return the command as JSON:";
    let schema = json!({ "type": "object", "additionalProperties": false, "required": ["a", "b"],
        "properties": { "a": { "type": "integer" }, "b": { "enum": ["cat", "dog"] } } });
    let form = json!({ "type": "json_schema", "json_schema": { "schema": schema } });
    vec![
        (user(command), json!({ "max_tokens": 40 })),
        (
            user("What is the weather?"),
            json!({ "max_tokens": 30, "temperature": 1.2, "seed": 5 }),
        ),
        (
            user(command),
            json!({ "max_tokens": 30, "temperature": 0.9, "seed": 7 }),
        ),
        (
            user("Choose."),
            json!({ "max_tokens": 40, "response_format": form }),
        ),
        (user("Where is the lamp?"), json!({ "max_tokens": 5 })),
        (
            user("Say it again."),
            json!({ "max_tokens": 60, "seed": 2, "temperature": 1.5 }),
        ),
    ]
}

#[test]
fn clients_at_once_get_what_each_would_have_got_alone() {
    for model in ["demo", "demo-gemma4"] {
        let bench = Bench::new();
        let door = start(
            &bench,
            model,
            "[queue]\njobs = 32\nanswers = 3\nmax_tokens = 3000",
        );
        let questions = questions();
        let seen = |answer: &Value| {
            let finish = answer["choices"][0]["finish_reason"].clone();
            let tokens = answer["usage"]["completion_tokens"].clone();
            (content(answer), finish, tokens)
        };
        let ask =
            |(messages, more): &(Value, Value)| seen(&door.chat(messages.clone(), more.clone()));
        let alone: Vec<_> = questions.iter().map(ask).collect();
        // Beside something long, and somebody who speaks, and somebody who presses a button.
        let long = long_chat(&door, 300);
        let together: Vec<_> = std::thread::scope(|scope| {
            let threads = questions.iter().cycle().take(3 * questions.len());
            let threads: Vec<_> = threads
                .map(|question| scope.spawn(move || ask(question)))
                .collect();
            let button = json!({ "prompt": "?", "choices": ["cat", "dog"] });
            let button = bench.request("ask", "button", button);
            assert_eq!(button["status"], "ok", "{button}");
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for (together, alone) in together.iter().zip(alone.iter().cycle()) {
            assert_eq!(together, alone, "{model}");
        }
        whole(long);
        door.gemmad.stop();
    }
}

/// A short answer does not wait for a long one that began before it; nor does one of a conversation, but for its own turn before.
#[test]
fn whoever_comes_later_does_not_wait_for_whoever_is_as_urgent() {
    let bench = Bench::new();
    let door = start(&bench, "demo", "[queue]\nanswers = 2\nmax_tokens = 3000");
    let long = long_chat(&door, 600);
    let short = door.chat(user("Where is the lamp?"), json!({ "max_tokens": 5 }));
    assert!(!content(&short).is_empty());
    assert_eq!(jobs(&bench, "chat"), 1, "the long one is not over yet");

    // Meanwhile somebody is heard, whose answer takes the other along.
    let mut client = Client::connect(door.wyoming);
    client.send("transcribe", json!({ "language": "en" }), &[]);
    client.speak(&mono(), &samples("009_both.wav"));
    client.send("audio-stop", json!({}), &[]);
    let said = expected("audio", "009_both.wav", "transcript");
    let transcript = json!({ "language": "en", "text": said });
    assert_eq!(
        client.receive(),
        Some(("transcript".to_owned(), transcript))
    );
    assert_eq!(jobs(&bench, "voice"), 1, "the long one is not over yet");
    whole(long);

    let turn = |transaction: &str, prompt: &str| {
        let ask = json!({ "prompt": prompt, "conversation": "a", "max_tokens": 20, "temperature": 0,
            "transaction": transaction });
        bench.publish("request/ask", &ask.to_string());
    };
    turn("first", "What is your name?");
    turn("second", "And then?");
    assert_eq!(bench.response("ask", "first")["data"]["resumed"], false);
    assert_eq!(bench.response("ask", "second")["data"]["resumed"], true);
    door.gemmad.stop();
}

/// Whoever asks or says something while an hour is written down does not wait for its end.
#[test]
fn whoever_asks_or_speaks_while_a_long_recording_is_written_down_is_answered_meanwhile() {
    const PIECES: usize = 5;
    let bench = Bench::new();
    let door = start(&bench, "demo", "");
    let mut sound = Vec::new();
    for piece in 1..=PIECES {
        sound.extend(samples("009_both.wav"));
        sound.resize(piece * 30 * 32_000, 0);
    }
    let address = door.address;
    let writes = std::thread::spawn(move || dictate(address, &wav(sound), "json"));
    let looks = Cell::new(0);
    wait_until("it is begun", || {
        looks.set(looks.get() + 1);
        jobs(&bench, &format!("look {}", looks.get())) == 1
    });
    let short = door.chat(user("Where is the lamp?"), json!({ "max_tokens": 5 }));
    assert!(!content(&short).is_empty());
    let mut client = Client::connect(door.wyoming);
    client.send("transcribe", json!({ "language": "en" }), &[]);
    client.speak(&mono(), &samples("009_both.wav"));
    client.send("audio-stop", json!({}), &[]);
    let (kind, heard) = client.receive().unwrap();
    let said = expected("audio", "009_both.wav", "transcript");
    assert_eq!(
        (kind.as_str(), &heard["text"]),
        ("transcript", &json!(said))
    );
    assert!(!writes.is_finished(), "the recording is not over yet");
    let told = writes.join().unwrap().json();
    let text = told["text"].as_str().unwrap();
    assert!(text.matches(&said).count() > PIECES / 2, "{text}");
    door.gemmad.stop();
}

/// One of two that are decoded together goes, and a stop ends what is left: both are told, and the daemon ends in time.
#[test]
fn one_that_goes_and_a_stop_leave_nothing_behind() {
    let bench = Bench::new();
    let door = start(&bench, "demo", "[queue]\nmax_tokens = 3000");
    let goes = long_chat(&door, 900);
    let third = long_chat(&door, 900);
    bench.long_question("stays", 900);
    bench.wait_for("response/ask/partial", 1);
    let count = std::cell::Cell::new(0);
    let jobs = || {
        count.set(count.get() + 1);
        jobs(&bench, &format!("t{}", count.get()))
    };
    assert_eq!(jobs(), 3);
    drop(goes);
    wait_until("one has gone", || jobs() == 2);
    door.gemmad.stop();
    let told = bench.response("ask", "stays");
    assert_ne!(told["status"], "ok", "{told}");
    drop(third);
}
