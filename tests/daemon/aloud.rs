//! Answers that the board says while they come, and what it is told to say over the bus: the speaker is ALSA's `file` plugin, and the
//! text-to-speech server is made of the package `wyoming`. What the model says is written down beforehand.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::file_pcm::{add_speaker, played, write_config};
use crate::http_client::{Response, request};
use crate::private_bus::{Caller, PrivateBus, wait_for};
use crate::process::{Bench, Gemmad};
use crate::tts::Tts;

const HALL: &str = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\ntrigger = \"push_to_talk\"\n";
const SENTENCE: &str = "The light in the hall is on. ";
/// A tenth of a second at 48 kHz: what the server makes of a sentence.
const SPOKEN: usize = 4_800;

/// A daemon whose model says what it is told to.
fn start(bench: &Bench) -> Gemmad {
    let long = SENTENCE.repeat(120);
    let script = json!([
        { "user": "How is the house", "say": "The light is on. It was *off* before. Good night" },
        { "user": "Tell me all", "say": long },
        { "user": "Fall silent", "say": "Die in the middle of it. And so it goes on." },
    ]);
    let file = bench.dir.path().join("script.json");
    std::fs::write(&file, script.to_string()).unwrap();
    let script = ("GEMMAD_SCRIPT", file.to_str().unwrap());
    let before = bench.on("speaker/state").len();
    let gemmad = Gemmad::spawn_with(bench.dir.path(), &[], &[script]);
    let heard = bench.wait_for("speaker/state", before + 1);
    if heard[before].text() != "online" {
        bench.wait_for("speaker/state", before + 2);
    }
    gemmad
}

fn is_silent(bench: &Bench) -> bool {
    let told = bench.on("speaker/speaking");
    told.last().is_some_and(|it| it.text() == "OFF")
}

fn place(bench: &Bench) -> &Path {
    bench.dir.path()
}

#[test]
fn an_answer_is_said_sentence_by_sentence_while_it_comes_and_can_be_broken_off() {
    let bench = Bench::new();
    let Some(tts) = Tts::start(place(&bench)) else {
        return;
    };
    write_config(place(&bench), &["hall"]);
    let heard = add_speaker(place(&bench));
    let port = free_port();
    let more = format!(
        "[http]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n[queue]\nmax_tokens = 4000\n{}{HALL}",
        tts.section("sounds = false")
    );
    bench.write_config(None, "context = 8192", &more);
    let gemmad = start(&bench);

    let house = json!({ "prompt": "How is the house?", "speak": true });
    let answer = bench.request("ask", "house", house);
    assert_eq!(answer["status"], "ok", "{answer}");
    let said = "The light is on. It was *off* before. Good night";
    assert_eq!(answer["data"]["text"], said);
    let sentences = [
        "-: The light is on.",
        "-: It was off before.",
        "-: Good night",
    ];
    wait_until("all of it is heard", || {
        tts.asked() == sentences && played(&heard).len() >= 3 * SPOKEN && is_silent(&bench)
    });
    // Whoever did not ask for pieces gets none; whoever did gets them beside.
    assert!(bench.on("response/ask/partial").is_empty());
    let both = json!({ "prompt": "How is the house?", "speak": true, "stream": true });
    let answer = bench.request("ask", "both", both);
    assert_eq!(answer["data"]["text"], said);
    assert!(bench.on("response/ask/partial").len() > 1);
    wait_until("it is heard again", || {
        played(&heard).len() >= 6 * SPOKEN && is_silent(&bench)
    });

    // The first sentence is heard while the answer still comes: until it is cancelled, there is no end of it.
    let before = tts.asked().len();
    let sound = played(&heard).len();
    let all = json!({ "prompt": "Tell me all.", "speak": true, "transaction": "all" });
    bench.publish("request/ask", &all.to_string());
    wait_until("it is heard", || played(&heard).len() > sound);
    assert!(bench.responses("ask", "all").is_empty());
    assert_eq!(tts.asked()[before], format!("-: {}", SENTENCE.trim()));
    bench.request("cancel", "end", json!({ "target": "all" }));
    let answer = bench.response("ask", "all");
    assert_eq!(answer["error"]["code"], "cancelled", "{answer}");
    wait_until("it is silent", || is_silent(&bench));
    assert!(tts.asked().len() - before < 120, "{:?}", tts.asked());

    // What cannot be said is told in the log, and answered all the same.
    let die = json!({ "prompt": "Fall silent.", "speak": true });
    let answer = bench.request("ask", "die", die);
    assert_eq!(answer["status"], "ok", "{answer}");
    gemmad.wait_log("went away in mid-sentence");
    assert_eq!(
        tts.asked().last().map(String::as_str),
        Some("-: Die in the middle of it.")
    );

    // JSON is not made to be heard; over HTTP it goes alike.
    let schema = json!({ "prompt": "?", "speak": true, "schema": { "type": "object" } });
    let refused = bench.request("ask", "schema", schema);
    assert_eq!(refused["error"]["code"], "invalid", "{refused}");
    let before = tts.asked().len();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let body = json!({ "prompt": "How is the house?" }).to_string();
    let headers = "Content-Type: application/json\r\n";
    let sent = request("POST", "/v1/audio/ask", headers, body.as_bytes());
    let response = Response::to(address, &sent);
    assert_eq!(
        (response.status, &response.json()["text"]),
        (200, &json!(said))
    );
    wait_until("it is heard, too", || tts.asked().len() == before + 3);
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn an_answer_is_not_to_be_said_where_nobody_can() {
    let bench = Bench::new();
    write_config(place(&bench), &["hall"]);
    add_speaker(place(&bench));
    bench.write_config(
        None,
        "",
        &format!("[speaker]\ndevice = \"speaker\"\n{HALL}"),
    );
    let gemmad = start(&bench);
    let house = || json!({ "prompt": "How is the house?", "speak": true });
    let refused = bench.request("ask", "mute", house());
    assert_eq!(refused["error"]["code"], "not_found", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("[speaker] tts"), "{message}");
    bench.write_config(None, "", HALL);
    gemmad.signal("HUP");
    gemmad.wait_log("the configuration was read again");
    let refused = bench.request("ask", "none", house());
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("there is no speaker"), "{message}");
    gemmad.stop();
}

/// Calls a method that gives a job; how the job ended, and what came of it.
fn job(caller: &mut Caller, path: &str, name: &str, arguments: &Value) -> (Value, Value) {
    let interface = match path {
        "/org/gemmad1" => "org.gemmad1.Manager",
        _ => "org.gemmad1.Microphone",
    };
    let job = caller.call(path, interface, name, arguments).unwrap();
    let job = job.as_str().unwrap();
    let state = wait_for("the job's end", || {
        let state = caller.property(job, "org.gemmad1.Job", "State").unwrap();
        (state != "queued" && state != "running").then_some(state)
    });
    let result = caller.call(job, "org.gemmad1.Job", "Result", &json!([]));
    let told = result.unwrap_or_else(|(error, message)| json!(format!("{error}: {message}")));
    (state, told)
}

#[test]
fn over_the_bus_texts_files_and_answers_are_said_and_silence_ends_them() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let bench = Bench::new();
    let bus = PrivateBus::open();
    let Some(tts) = Tts::start(place(&bench)) else {
        return;
    };
    write_config(place(&bench), &["hall"]);
    let heard = add_speaker(place(&bench));
    let section = tts.section("sounds = false\ntts_patience_s = 120");
    bench.write_config(Some(&bus.address()), "", &(section + HALL));
    let gemmad = start(&bench);
    let mut caller = bus.caller(&[]);
    const HALL_PATH: &str = "/org/gemmad1/mic/hall";
    let mut said = 0;
    let mut newly = || {
        let all = played(&heard).len();
        all - std::mem::replace(&mut said, all)
    };

    let (state, _) = job(&mut caller, HALL_PATH, "Say", &json!(["It rings.", {}]));
    assert_eq!(state, "done");
    assert_eq!(tts.asked(), ["-: It rings."]);
    let sound = newly();
    assert!((SPOKEN..SPOKEN + 10).contains(&sound), "{sound}");

    // A second of a tone, in memory that nobody can change.
    let tone = place(&bench).join("tone.wav");
    let made = std::process::Command::new("sox")
        .args(["-n", "-r", "48000", "-c", "1", "-b", "16"])
        .arg(&tone)
        .args(["synth", "1", "sine", "440"])
        .status();
    assert!(made.unwrap().success());
    let file = STANDARD.encode(std::fs::read(&tone).unwrap());
    let audio = json!(["", { "audio": ["h", ["memfd", file, true]] }]);
    assert_eq!(job(&mut caller, HALL_PATH, "Say", &audio).0, "done");
    assert_eq!(newly(), 48_000);

    let house = json!(["How is the house?", { "speak": ["b", true] }]);
    let (state, result) = job(&mut caller, "/org/gemmad1", "Ask", &house);
    assert_eq!(state, "done");
    assert_eq!(
        result["text"],
        "The light is on. It was *off* before. Good night"
    );
    wait_until("the answer is heard", || {
        tts.asked().len() == 4 && is_silent(&bench)
    });

    // What is held ends when it is told to.
    let hold = caller
        .call(
            HALL_PATH,
            "org.gemmad1.Microphone",
            "Say",
            &json!(["Hold it, please.", {}]),
        )
        .unwrap();
    let hold = hold.as_str().unwrap();
    wait_until("it is held", || tts.asked().len() == 5);
    let silence = caller.manager("Silence", &json!([]));
    assert!(silence.is_ok(), "{silence:?}");
    let state = wait_for("its end", || {
        let state = caller.property(hold, "org.gemmad1.Job", "State").unwrap();
        (state != "queued" && state != "running").then_some(state)
    });
    assert_eq!(state, "cancelled");

    // What cannot be said.
    let (state, told) = job(
        &mut caller,
        HALL_PATH,
        "Say",
        &json!(["Refuse to say this.", {}]),
    );
    assert_eq!(state, "failed");
    assert!(told.to_string().contains("no such voice"), "{told}");
    let noise = json!(["", { "audio": ["h", ["memfd", STANDARD.encode("no sound"), true]] }]);
    let (state, told) = job(&mut caller, HALL_PATH, "Say", &noise);
    assert_eq!(state, "failed");
    assert!(told.to_string().contains("not audio"), "{told}");
    for (arguments, words) in [
        (json!(["", {}]), "needs `text` or `audio`"),
        (json!(["Hello.", { "loud": ["b", true] }]), "loud"),
    ] {
        let refused = caller.call(HALL_PATH, "org.gemmad1.Microphone", "Say", &arguments);
        let (_, message) = refused.unwrap_err();
        assert!(message.contains(words), "{message}");
    }
    gemmad.stop();
}
