//! Questions over MQTT and D-Bus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::private_bus::{PrivateBus, wait_for};
use crate::process::{Bench, expected, heldout};

fn file(path: &str) -> String {
    STANDARD.encode(std::fs::read(heldout(path)).unwrap())
}

/// The text of an answer.
fn text(response: &Value) -> &str {
    assert_eq!(response["status"], "ok", "{response}");
    response["data"]["text"].as_str().unwrap()
}

#[test]
fn questions_over_mqtt() {
    let mut bench = Bench::new();
    bench.mqtt = "max_payload_bytes = 1048576"; // files in base64 are larger than usual messages
    bench.write_config(None, "", "[queue]\nmax_tokens = 3000");
    let gemmad = bench.start();
    bench.publish(
        "ask",
        "Turn on the kitchen light. Return the command as JSON:",
    );
    let plain = bench.wait_for("answer", 1)[0].json();
    let response = bench.wait_for("response/ask", 1)[0].json();
    assert_eq!(
        (&plain["id"], plain["text"].as_str()),
        (&response["id"], Some(text(&response)))
    );
    assert!(
        plain["text"].as_str().unwrap().contains("turn_on"),
        "{plain}"
    );

    // As it comes: the pieces are the whole.
    let ask = json!({"prompt": "Turn on the kitchen light. Return the command as JSON:", "stream": true, "temperature": 0.0});
    let streamed = bench.request("ask", "stream", ask);
    let pieces: Vec<Value> = bench
        .on("response/ask/partial")
        .iter()
        .map(|s| s.json())
        .collect();
    assert!(pieces.len() > 1, "{pieces:?}");
    let joined: String = pieces
        .iter()
        .map(|piece| piece["text"].as_str().unwrap())
        .collect();
    assert_eq!(joined, text(&streamed));
    for (n, piece) in pieces.iter().enumerate() {
        assert_eq!(
            (&piece["sequence"], &piece["id"]),
            (&json!(n), &streamed["id"])
        );
        assert_eq!(piece["transaction"], "stream");
    }

    let schema = json!({"type": "object", "properties": {"n": {"enum": [6, 7]}}, "required": ["n"], "additionalProperties": false});
    let shaped = bench.request("ask", "schema", json!({"prompt": "?", "schema": schema}));
    let shaped: Value = serde_json::from_str(text(&shaped)).unwrap();
    assert!(
        shaped == json!({"n": 6}) || shaped == json!({"n": 7}),
        "{shaped}"
    );
    let chosen = bench.request(
        "ask",
        "choices",
        json!({"prompt": "?", "choices": ["cat", "dog"]}),
    );
    assert!(["cat", "dog"].contains(&text(&chosen)), "{chosen}");

    let nothing = bench.request("ask", "nothing", json!({"prompt": "?", "max_tokens": 0}));
    assert_eq!(nothing["error"]["code"], "invalid", "{nothing}");

    let info = bench.wait_for("info", 1)[0].json();
    let slices = info["matformer_options"].as_array().unwrap();
    let half = slices.last().unwrap();
    assert!(slices.len() > 1 && *half != info["matformer"], "{info}");
    let sliced = bench.request(
        "ask",
        "half",
        json!({"prompt": "Hello.", "matformer": half, "max_tokens": 3}),
    );
    assert_eq!(sliced["data"]["matformer"], *half, "{sliced}");
    assert!(sliced["data"]["timing"]["tokens"].as_u64().unwrap() <= 3);
    let none = bench.request(
        "ask",
        "slice",
        json!({"prompt": "Hello.", "matformer": "nine"}),
    );
    assert_eq!(none["error"]["code"], "not_found", "{none}");

    let image = file("images/004_picture.png");
    let seen = bench.request(
        "ask",
        "image",
        json!({"prompt": "Describe what the camera sees.", "image": image}),
    );
    assert_eq!(
        text(&seen).trim(),
        expected("images", "004_picture.png", "caption")
    );
    let audio = file("audio/003_both.wav");
    let long =
        json!({"prompt": "Transcribe the following speech segment in English:", "audio": audio});
    let heard = bench.request("ask", "audio", long);
    assert_eq!(
        text(&heard).trim(),
        expected("audio", "003_both.wav", "transcript")
    );

    // Sound in which nobody speaks has no text, and is nothing to ask about: a model would make words of it.
    let mut silence = std::fs::read(heldout("audio/003_both.wav")).unwrap();
    silence[44..].fill(0);
    let silence = STANDARD.encode(silence);
    let nothing = bench.request("transcribe", "silence", json!({"audio": silence}));
    assert_eq!(text(&nothing), "");
    assert_eq!(nothing["data"]["details"]["reason"], "no speech was heard");
    let ask = json!({"prompt": "What is said?", "audio": silence});
    let refused = bench.request("ask", "silence", ask);
    assert_eq!(refused["error"]["code"], "invalid_audio", "{refused}");
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(
        words.contains("no speech") && words.contains("[speech]"),
        "{words}"
    );

    let say = |transaction: &str| {
        let ask =
            json!({"prompt": "Turn on the kitchen light.", "conversation": "c", "max_tokens": 8});
        bench.request("ask", transaction, ask)["data"].clone()
    };
    let (first, second) = (say("first"), say("second"));
    assert_eq!(
        (&first["conversation"], &first["resumed"]),
        (&json!("c"), &json!(false)),
        "{first}"
    );
    assert_eq!(second["resumed"], true, "{second}");

    // Ended by its asker's own name for it, and by its own limit.
    bench.long_question("tedious", 2000);
    let cancelled = bench.request("cancel", "end", json!({"target": "tedious"}));
    assert_eq!(cancelled["status"], "ok", "{cancelled}");
    let tedious = bench.response("ask", "tedious");
    assert_eq!(tedious["error"]["code"], "cancelled", "{tedious}");
    assert_eq!(
        cancelled["data"]["details"]["cancelled"],
        json!([tedious["id"]])
    );
    let nothing = bench.request("cancel", "again", json!({"target": "tedious"}));
    assert_eq!(nothing["error"]["code"], "not_found", "{nothing}");
    let schema = json!({"type": "array", "minItems": 2000, "items": {"enum": ["light", "lamp"]}});
    let late = bench.request(
        "ask",
        "late",
        json!({"prompt": "?", "schema": schema, "max_tokens": 3000, "timeout_ms": 100}),
    );
    assert_eq!(late["error"]["code"], "timeout", "{late}");
    let stats = bench.request("stats", "stats", json!({}));
    assert_eq!(stats["data"]["details"]["queues"]["timeouts"], 1, "{stats}");
    assert_eq!(stats["data"]["details"]["queues"]["jobs"], 0, "{stats}");

    // Every job ended once, and who asked was told.
    let asked = bench.on("response/ask").len();
    wait_until("an event for each question", || {
        bench.on("job").len() >= asked
    });
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn questions_over_dbus() {
    let bench = Bench::new();
    let bus = PrivateBus::open();
    bench.write_config(Some(&bus.address()), "", "[queue]\nmax_tokens = 3000");
    let gemmad = bench.start();
    let monitor = bus.monitor();
    let mut caller = bus.caller(&[]);
    let mut answer = |arguments: Value| {
        let path = caller.manager("Ask", &arguments).unwrap();
        let path = path.as_str().unwrap().to_owned();
        let state = wait_for("the job's end", || {
            let state = caller.property(&path, "org.gemmad1.Job", "State").unwrap();
            (!["queued", "running"].contains(&state.as_str().unwrap())).then_some(state)
        });
        (
            state,
            caller.call(&path, "org.gemmad1.Job", "Result", &json!([])),
        )
    };
    let picture = std::fs::read(heldout("images/004_picture.png")).unwrap();
    let options =
        json!({"image": ["h", ["memfd", STANDARD.encode(picture), true]], "stream": ["b", true]});
    let (state, result) = answer(json!(["Describe what the camera sees.", options]));
    let result = result.unwrap();
    assert_eq!(state, "done");
    let wanted = expected("images", "004_picture.png", "caption");
    assert_eq!(result["text"].as_str().unwrap().trim(), wanted);
    assert!(
        result["timing"]["encode_ms"].as_f64().unwrap() > 0.0,
        "{result}"
    );
    monitor.wait_for("\"member\":\"Partial\"");
    let clip = std::fs::read(heldout("audio/003_both.wav")).unwrap();
    let options = json!({"audio": ["h", ["memfd", STANDARD.encode(clip), true]]});
    let prompt = "Transcribe the following speech segment in English:";
    let (state, result) = answer(json!([prompt, options]));
    let result = result.unwrap();
    assert_eq!(state, "done", "{result}");
    let wanted = expected("audio", "003_both.wav", "transcript");
    assert_eq!(result["text"].as_str().unwrap().trim(), wanted);
    let (_, result) = answer(json!(["?", {"choices": ["as", ["cat", "dog"]]}]));
    assert!(["cat", "dog"].contains(&result.unwrap()["text"].as_str().unwrap()));

    // Ended by whoever asked.
    let schema = json!({"type": "array", "minItems": 2000, "items": {"enum": ["light", "lamp"]}})
        .to_string();
    let options = json!({"schema": ["s", schema], "max_tokens": ["u", 3000]});
    let path = caller.manager("Ask", &json!(["?", options])).unwrap();
    let path = path.as_str().unwrap();
    caller
        .call(path, "org.gemmad1.Job", "Cancel", &json!([]))
        .unwrap();
    wait_for("the job is cancelled", || {
        let state = caller.property(path, "org.gemmad1.Job", "State").unwrap();
        (state == "cancelled").then_some(())
    });
    let model = caller
        .property("/org/gemmad1", "org.gemmad1.Manager", "Model")
        .unwrap();
    assert_eq!(model, "demo");
    // The broker hears that jobs ended, and nothing of what they said.
    let told = bench.wait_for("job", 4);
    assert!(told.iter().all(|seen| !seen.text().contains("hallway")));
    assert!(bench.on("response/ask").is_empty());
    gemmad.stop();
}
