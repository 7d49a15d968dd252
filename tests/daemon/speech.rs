//! What the board says: sounds, files and texts, by a speaker that is ALSA's `file` plugin, and a text-to-speech server made of the
//! package `wyoming`.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::file_pcm::{add_speaker, played, raw_file, write_config, write_speech};
use crate::http_client::{Response, request};
use crate::process::Bench;
use crate::tts::Tts;
use crate::wake::microphone;

/// A microphone's pipe: it hears nothing but what it is given, and has heard that when a call ends.
pub(crate) struct Ear(Sender<(Vec<u8>, Sender<()>)>);

impl Ear {
    /// In the place of a file that a microphone reads: silence as time goes, and what is heard.
    pub(crate) fn new(pipe: &Path) -> Ear {
        Ear::paced(pipe, Duration::from_millis(20))
    }

    /// One that hears 20 ms of silence so often.
    pub(crate) fn paced(pipe: &Path, pace: Duration) -> Ear {
        std::fs::remove_file(pipe).ok();
        let made = Command::new("mkfifo").arg(pipe).status().unwrap();
        assert!(made.success());
        let mut into = File::options().read(true).write(true).open(pipe).unwrap();
        let (sounds, heard) = channel::<(Vec<u8>, Sender<()>)>();
        std::thread::spawn(move || {
            loop {
                match heard.recv_timeout(pace) {
                    Ok((samples, taken)) => {
                        into.write_all(&samples).unwrap();
                        // A pipe holds 64 KiB: what goes before more than that has been read.
                        into.write_all(&[0; 96 << 10]).unwrap();
                        taken.send(()).ok();
                    }
                    Err(RecvTimeoutError::Timeout) => into.write_all(&[0; 640]).unwrap(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Ear(sounds)
    }

    pub(crate) fn hears(&mut self, samples: &[u8]) {
        let (taken, is_taken) = channel();
        self.0.send((samples.to_vec(), taken)).unwrap();
        is_taken.recv().unwrap();
    }
}

/// How high a tone is.
fn hertz(samples: &[i16]) -> f64 {
    let crossings = samples.windows(2).filter(|two| two[0] < 0 && two[1] >= 0);
    crossings.count() as f64 * 48_000.0 / samples.len() as f64
}

pub(crate) fn say(bench: &Bench, transaction: &str, mut what: Value) {
    what["transaction"] = transaction.into();
    bench.publish("mic/hall/say", &what.to_string());
}

pub(crate) fn last(bench: &Bench, topic: &str) -> String {
    let seen = bench.on(topic);
    seen.last()
        .map_or_else(String::new, |it| it.text().to_owned())
}

const HALL: &str = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\ntrigger = \"push_to_talk\"\n";

#[test]
fn after_the_wake_word_it_sounds_and_the_reply_is_spoken_sentence_by_sentence() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let Some(tts) = Tts::start(place) else { return };
    let hall = microphone(place, "hall", "009_both.wav", "Okay Nabu", false);
    let words = std::fs::read(raw_file(place, "hall")).unwrap();
    let mut ear = Ear::new(&raw_file(place, "hall"));
    write_config(place, &[]);
    let heard = add_speaker(place);
    bench.write_config(None, "", &(tts.section("tts_voice = \"alba\"") + &hall));
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    bench.wait_for_payload("speaker/volume", "100");

    ear.hears(&words);
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["event_type"], "transcript", "{event}");
    // 180 ms and 230 ms at 48 kHz; the notes that they begin and end with (tools/sounds.py).
    let (listening, understood) = (48 * 180, 48 * 230);
    let sounds = listening + understood;
    wait_until("both sounds are over", || played(&heard).len() >= sounds);
    let sound = played(&heard);
    assert_eq!(sound.len(), sounds);
    let near = |samples: &[i16], wanted: f64| {
        let hertz = hertz(samples);
        assert!((hertz / wanted - 1.0).abs() < 0.05, "{hertz}, not {wanted}");
    };
    near(&sound[..48 * 60], 659.3);
    near(&sound[listening + 48 * 130..sounds - 48 * 20], 1568.0);

    // What Home Assistant answers comes back to the board that heard.
    let reply = "The light is on. It was off before. Good night!";
    say(&bench, "reply", json!({ "text": reply }));
    let response = bench.response("say", "reply");
    assert_eq!(response["status"], "ok", "{response}");
    assert_eq!(
        tts.asked(),
        [
            "alba: The light is on.",
            "alba: It was off before.",
            "alba: Good night!"
        ]
    );
    let spoken = &played(&heard)[sounds..];
    // Three tenths of a second, each of them rounded up to a sample.
    assert!((14_400..14_410).contains(&spoken.len()), "{}", spoken.len());
    near(spoken, 440.0);

    // Of the reply: it was heard before it was said that it was.
    let all = bench.observer.all();
    let at = |topic: &str| {
        let topic = format!("gemmad/pi/{topic}");
        all.iter().position(|it| it.topic == topic).unwrap()
    };
    assert!(at("mic/hall/event") < at("response/say"), "{all:?}");
    wait_until("it is silent", || last(&bench, "speaker/speaking") == "OFF");
    gemmad.signal("HUP");
    bench.wait_health("it is counted", |health| health["queues"]["spoken"] == 1);
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_server_that_dies_refuses_or_never_answers_is_named_in_one_line() {
    let bench = Bench::new();
    let Some(tts) = Tts::start(bench.dir.path()) else {
        return;
    };
    write_config(bench.dir.path(), &["hall"]);
    let heard = add_speaker(bench.dir.path());
    let section = tts.section("tts_patience_s = 1\nsounds = false");
    bench.write_config(None, "", &(section + HALL));
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    for (text, words) in [
        ("Die in the middle of it.", "went away in mid-sentence"),
        ("Refuse to say this.", "refuses: no such voice"),
        ("Mute, all the time.", "has said nothing for 1 s"),
        ("Hold it, half said.", "has said nothing for 1 s"),
    ] {
        let before = played(&heard).len();
        say(&bench, text, json!({ "text": text }));
        let response = bench.response("say", text);
        let message = response["error"]["message"].as_str().unwrap();
        let server = format!("the text-to-speech server tcp://127.0.0.1:{}", tts.port);
        assert!(
            message.starts_with(&server) && message.contains(words),
            "{response}"
        );
        assert_eq!(response["error"]["code"], "failed");
        // What came of it was said.
        let half = matches!(&text[..4], "Die " | "Hold");
        let said = played(&heard).len() - before;
        assert_eq!(said > 2_000, half, "{text}: {said}");
    }
    // And the next is said as ever.
    say(&bench, "well", json!({ "text": "All is well again." }));
    assert_eq!(bench.response("say", "well")["status"], "ok");
    gemmad.stop();
}

#[test]
fn a_flood_is_bounded_the_newest_wins_and_silence_ends_all() {
    let bench = Bench::new();
    let Some(tts) = Tts::start(bench.dir.path()) else {
        return;
    };
    write_config(bench.dir.path(), &["hall"]);
    add_speaker(bench.dir.path());
    let section = tts.section("waiting = 3\ntts_patience_s = 120");
    bench.write_config(None, "", &(section + HALL));
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    say(&bench, "now", json!({ "text": "Hold the line, please." }));
    bench.wait_for_payload("speaker/speaking", "ON");
    let names: Vec<String> = (0..50).map(|n| format!("{n}")).collect();
    for name in &names {
        say(&bench, name, json!({ "text": "Hold the line, too." }));
    }
    for name in &names[..47] {
        let response = bench.response("say", name);
        assert_eq!(response["error"]["code"], "queue_full", "{response}");
    }
    // An alarm does not wait.
    say(
        &bench,
        "alarm",
        json!({ "text": "There is smoke!", "urgent": true }),
    );
    assert_eq!(bench.response("say", "alarm")["status"], "ok");
    assert_eq!(bench.response("say", "now")["error"]["code"], "cancelled");
    bench.publish("speaker/stop", "");
    // The newest of all waited until then, but for one that the alarm took the place of.
    for name in &names[48..] {
        let response = bench.response("say", name);
        assert_eq!(response["error"]["code"], "cancelled", "{response}");
    }
    wait_until("it is silent", || last(&bench, "speaker/speaking") == "OFF");
    let health = bench.request("stats", "figures", json!({}));
    let queues = &health["data"]["details"]["queues"];
    assert_eq!(queues["dropped_speech"], 48, "{health}");
    assert!(gemmad.log().contains("newer ones came while it waited"));
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn the_board_does_not_wake_itself_and_a_word_or_the_button_stops_it() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let Some(tts) = Tts::start(place) else { return };
    let mut hall = microphone(place, "hall", "009_both.wav", "Okay Nabu", false);
    let words = std::fs::read(raw_file(place, "hall")).unwrap();
    let mut ear = Ear::new(&raw_file(place, "hall"));
    write_config(place, &[]);
    add_speaker(place);
    let section = tts.section("tts_patience_s = 120\nsounds = false");
    bench.write_config(None, "", &(section.clone() + &hall));
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    let woken = || {
        let stats = bench.on("response/stats").len().to_string();
        let stats = bench.request("stats", &stats, json!({}));
        stats["data"]["details"]["queues"]["wake_words"].clone()
    };
    say(
        &bench,
        "1",
        json!({ "text": "Hold, and say the wake word." }),
    );
    bench.wait_for_payload("speaker/speaking", "ON");
    ear.hears(&words);
    assert_eq!(woken(), 0, "it heard itself");
    // The button of a microphone ends it, and listens.
    bench.publish("mic/hall/listen", "");
    assert_eq!(bench.response("say", "1")["error"]["code"], "cancelled");
    wait_until("it is silent", || last(&bench, "speaker/speaking") == "OFF");
    ear.hears(&words);
    bench.wait_for("mic/hall/event", 1);
    assert_ne!(woken(), 0, "it listens again");
    gemmad.stop();

    // A word that stops it is heard while it speaks, and only then.
    let models = hall
        .lines()
        .find(|line| line.starts_with("models = "))
        .unwrap();
    hall += &models.replace("models", "stop_models");
    hall = hall.replace("trigger = \"wake_word\"", "trigger = \"push_to_talk\"");
    let spoke = bench.on("speaker/speaking").len();
    bench.write_config(None, "", &(section + &hall));
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    ear.hears(&words);
    say(
        &bench,
        "2",
        json!({ "text": "Hold, until somebody says stop." }),
    );
    wait_until("it speaks", || {
        bench.on("speaker/speaking")[spoke..]
            .iter()
            .any(|it| it.text() == "ON")
    });
    assert!(bench.responses("say", "2").is_empty());
    ear.hears(&words);
    assert_eq!(bench.response("say", "2")["error"]["code"], "cancelled");
    assert!(gemmad.log().contains("told to be silent"));
    gemmad.stop();
}

#[test]
fn whoever_was_answered_goes_on_without_a_button_until_there_is_silence() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let Some(tts) = Tts::start(place) else { return };
    let pipe = raw_file(place, "hall");
    write_speech(&pipe, "009_both.wav");
    let words = std::fs::read(&pipe).unwrap();
    let mut ear = Ear::new(&pipe);
    write_config(place, &[]);
    add_speaker(place);
    let hall = format!(
        "[[microphone]]\nid = \"hall\"\ntype = \"replay\"\ndevice = {pipe:?}\ntrigger = \"push_to_talk\"\ncontinue_s = 10\n"
    );
    bench.write_config(None, "", &(tts.section("sounds = false") + &hall));
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "online");
    bench.wait_for_payload("speaker/state", "online");
    bench.publish("mic/hall/listen", r#"{"transaction": "button"}"#);
    bench.wait_for("response/listen", 1);
    ear.hears(&words);
    let first = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(first["event_type"], "transcript", "{first}");
    assert_eq!(first["conversation"], first["id"]);
    // What is said without being the answer to anything lets nobody go on.
    say(&bench, "bell", json!({ "text": "The bell rings." }));
    assert_eq!(bench.response("say", "bell")["status"], "ok");
    ear.hears(&words);
    // Each answer does, and the conversation stays the same.
    let mut last = first.clone();
    for n in 1..3 {
        let transaction = format!("answer {n}");
        let answer = json!({ "text": "It is done.", "id": last["id"] });
        say(&bench, &transaction, answer);
        assert_eq!(bench.response("say", &transaction)["status"], "ok");
        wait_until("it is silent", || {
            crate::speech::last(&bench, "speaker/speaking") == "OFF"
        });
        ear.hears(&words);
        last = bench.wait_for("mic/hall/event", n + 1)[n].json();
        assert_eq!(last["event_type"], "transcript", "{last}");
        assert_eq!(last["conversation"], first["id"]);
    }
    // Silence ends it, without an event.
    let answer = json!({ "text": "It is done.", "id": last["id"] });
    say(&bench, "silence", answer);
    assert_eq!(bench.response("say", "silence")["status"], "ok");
    wait_until("it is silent", || {
        crate::speech::last(&bench, "speaker/speaking") == "OFF"
    });
    ear.hears(&[0; 10 * 32_000]);
    ear.hears(&words);
    bench.publish("mic/hall/listen", r#"{"transaction": "again"}"#);
    bench.response("listen", "again");
    ear.hears(&words);
    let fourth = bench.wait_for("mic/hall/event", 4)[3].json();
    assert_eq!(fourth["conversation"], fourth["id"], "another conversation");
    bench.assert_schemas();
    gemmad.stop();
    assert_eq!(bench.on("mic/hall/event").len(), 4);
}

/// A second of a tone of 1000 Hz, as sox writes it.
pub(crate) fn tone(place: &Path, kind: &str) -> Vec<u8> {
    let file = place.join(format!("tone.{kind}"));
    let made = Command::new("sox")
        .args(["-n", "-r", "44100", "-c", "2", "-b", "16"])
        .arg(&file)
        .args(["synth", "1", "sine", "1000", "gain", "-6"])
        .status()
        .unwrap();
    assert!(made.success(), "sox writes {kind}");
    std::fs::read(file).unwrap()
}

#[test]
fn audio_files_are_played_however_they_come_and_what_is_too_much_is_told() {
    let mut bench = Bench::new();
    bench.mqtt = "max_payload_bytes = 1000000";
    let place = bench.dir.path();
    write_config(place, &["hall"]);
    write_speech(&raw_file(place, "hall"), "009_both.wav");
    let heard = add_speaker(place);
    let port = free_port();
    let sections = format!(
        "[http]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n\
         [speaker]\ndevice = \"speaker\"\nvolume = 100\ntail_ms = 0\nlongest_s = 2\nmax_audio_bytes = 2000000\n{HALL}"
    );
    bench.write_config(None, "", &sections);
    let gemmad = bench.start();
    bench.wait_for_payload("speaker/state", "online");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let post = |path: &str, kind: &str, body: &[u8]| {
        let headers = format!("Content-Type: {kind}\r\n");
        Response::to(address, &request("POST", path, &headers, body))
    };
    let mut done = 0;
    let mut check = |what: &str| {
        let all = played(&heard);
        let said = &all[done..];
        let hertz = hertz(said);
        // Half of full scale; the first block comes up from nothing, and compressed files are a little longer.
        assert!((950.0..1010.0).contains(&hertz), "{what}: {hertz}");
        assert!(
            (47_000..52_000).contains(&said.len()),
            "{what}: {}",
            said.len()
        );
        let loudest = said.iter().map(|x| x.unsigned_abs()).max();
        assert!(
            (15_000..18_000).contains(&loudest.unwrap()),
            "{what}: {loudest:?}"
        );
        done = all.len();
    };
    for kind in ["flac", "ogg"] {
        let response = post("/v1/audio/play", "audio/x", &tone(place, kind));
        assert_eq!(response.status, 200, "{response:?}");
        check(kind);
    }
    let flac = tone(place, "flac");
    // As bytes, and as base64 within JSON.
    let topic = "gemmad/pi/mic/hall/say";
    bench.broker.publish(topic, &flac, &[]);
    wait_until("bytes are played", || !bench.on("response/say").is_empty());
    assert_eq!(bench.on("response/say")[0].json()["status"], "ok");
    check("bytes over MQTT");
    say(&bench, "b64", json!({ "audio": STANDARD.encode(&flac) }));
    assert_eq!(bench.response("say", "b64")["status"], "ok");
    check("base64 over MQTT");

    // Half an hour, or no audio at all.
    let long = place.join("long.flac");
    let made = Command::new("sox")
        .args(["-n", "-r", "8000", "-c", "1"])
        .arg(&long)
        .args(["trim", "0", "30:00"])
        .status();
    assert!(made.unwrap().success());
    let response = post(
        "/v1/audio/play",
        "audio/flac",
        &std::fs::read(&long).unwrap(),
    );
    assert_eq!(response.json(), json!({ "cut_at_s": 2 }), "{response:?}");
    assert_eq!(played(&heard).len() - done, 96_000);
    let response = post("/v1/audio/play", "audio/wav", &[0; 2_000_001]);
    assert!(
        response.text().contains("max_audio_bytes is 2000000"),
        "{response:?}"
    );
    let response = post("/v1/audio/play", "audio/wav", b"no sound");
    assert!(
        response.text().contains("not audio that can be decoded"),
        "{response:?}"
    );
    let text = json!({ "text": "Hello." }).to_string();
    let response = post("/v1/audio/play", "application/json", text.as_bytes());
    assert_eq!(response.status, 404);
    assert!(
        response.text().contains("[speaker] tts names no"),
        "{response:?}"
    );
    let both = json!({ "text": "a", "audio": "AAAA" }).to_string();
    assert_eq!(
        post("/v1/audio/play", "application/json", both.as_bytes()).status,
        400
    );
    assert_eq!(post("/v1/audio/stop", "application/json", b"").status, 200);

    // The volume stays over a restart.
    bench.publish("speaker/volume/set", "50");
    bench.wait_for_payload("speaker/volume", "50");
    bench.publish("speaker/volume/set", "101");
    wait_until("too loud is refused", || {
        bench
            .on("response/set")
            .iter()
            .any(|it| it.text().contains("0 to 100"))
    });
    bench.assert_schemas();
    gemmad.stop();
    let told = bench.on("speaker/volume").len();
    let gemmad = bench.start();
    let volume = bench.wait_for("speaker/volume", told + 1);
    assert_eq!(volume[told].text(), "50");
    gemmad.stop();
}

#[test]
fn without_a_speaker_or_with_one_that_is_away_that_is_told() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    bench.write_config(None, "", HALL);
    let gemmad = bench.start();
    say(&bench, "none", json!({ "text": "Hello." }));
    let response = bench.response("say", "none");
    assert_eq!(response["error"]["code"], "not_found", "{response}");
    bench.write_config(None, "", &format!("[speaker]\ndevice = \"absent\"\n{HALL}"));
    gemmad.signal("HUP");
    bench.wait_for_payload("speaker/state", "offline");
    say(&bench, "away", json!({ "text": "Hello." }));
    let response = bench.response("say", "away");
    assert_eq!(response["error"]["code"], "busy", "{response}");
    let message = response["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("`absent`") && message.contains("gemmad devices"),
        "{message}"
    );
    gemmad.stop();
}

#[test]
fn the_sounds_are_those_that_the_script_makes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/sounds.py");
    let checked = Command::new("python3").arg(script).arg("--check").status();
    assert!(checked.unwrap().success());
}
