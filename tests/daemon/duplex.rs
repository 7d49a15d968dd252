//! What microphones and the speaker do to each other while both have something to do.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::broker::wait_until;
use crate::file_pcm::{add_speaker, played, raw_file, write_config, write_speech};
use crate::process::Bench;
use crate::speech::{Ear, last, say, tone};
use crate::wake::microphone;

/// A microphone at a pipe that hears whatever is said; the clip that it may hear.
fn open_microphone(place: &Path, id: &str, more: &str) -> (String, Vec<u8>) {
    let pipe = raw_file(place, id);
    write_speech(&pipe, "009_both.wav");
    let words = std::fs::read(&pipe).unwrap();
    let section =
        format!("[[microphone]]\nid = {id:?}\ntype = \"replay\"\ndevice = {pipe:?}\n{more}\n");
    (section, words)
}

/// Says a second of a tone.
fn say_tone(bench: &Bench, transaction: &str) {
    let tone = STANDARD.encode(tone(bench.dir.path(), "flac"));
    say(bench, transaction, json!({ "audio": tone }));
}

fn speaks(bench: &Bench, id: &str) -> bool {
    last(bench, &format!("mic/{id}/speech")) == "ON"
}

#[test]
fn the_speaker_is_quieter_as_long_as_anybody_speaks_at_any_microphone_and_no_longer() {
    let bench = Bench::new();
    let place = bench.dir.path();
    write_config(place, &[]);
    let heard = add_speaker(place);
    let (hall, words) = open_microphone(place, "hall", "");
    // Ten seconds of silence are minutes to this one: somebody speaks there until it is taken out.
    let (bath, _) = open_microphone(place, "bath", "[microphone.speech]\nhangover_ms = 10000");
    let mut in_hall = Ear::new(&raw_file(place, "hall"));
    let mut in_bath = Ear::paced(&raw_file(place, "bath"), Duration::from_secs(1));
    let speaker =
        "[speaker]\ndevice = \"speaker\"\nvolume = 100\nducked = 0\nhalf_duplex = false\n";
    bench.write_config(None, "", &format!("{speaker}{hall}{bath}"));
    let gemmad = bench.start();
    for device in ["speaker", "mic/hall", "mic/bath"] {
        bench.wait_for_payload(&format!("{device}/state"), "online");
    }
    let loudest = |name: &str| {
        let before = played(&heard).len();
        say_tone(&bench, name);
        let said = bench.response("say", name);
        assert_eq!(said["status"], "ok", "{said}");
        let sound = played(&heard).split_off(before);
        assert!(sound.len() > 40_000, "{name}: {}", sound.len());
        sound.iter().map(|x| x.unsigned_abs()).max().unwrap()
    };
    let loud = loudest("nobody speaks");
    assert!((15_000..18_000).contains(&loud), "{loud}");
    in_bath.hears(&words);
    wait_until("somebody speaks", || speaks(&bench, "bath"));
    // The last block before was loud, and this begins without a jump.
    loudest("it comes down");
    assert_eq!(loudest("somebody speaks"), 0);
    in_hall.hears(&words);
    bench.wait_for("mic/hall/event", 1);
    wait_until("it is over", || !speaks(&bench, "hall"));
    assert!(speaks(&bench, "bath"));
    assert_eq!(loudest("one of two speaks"), 0);

    // Another speaker is told, too.
    bench.write_config(None, "", &format!("{speaker}waiting = 7\n{hall}{bath}"));
    let reload = bench.request("reload", "speaker", json!({}));
    assert_eq!(reload["status"], "ok", "{reload}");
    let is_online = || gemmad.log().matches("speaker is online").count() == 2;
    wait_until("the speaker is back", is_online);
    assert!(speaks(&bench, "bath"));
    assert_eq!(loudest("to another speaker"), 0);

    // A microphone that goes tells no end of what is being said.
    bench.write_config(None, "", &format!("{speaker}waiting = 7\n{hall}"));
    let reload = bench.request("reload", "bath", json!({}));
    assert_eq!(reload["status"], "ok", "{reload}");
    let loud = loudest("nobody is left");
    assert!((15_000..18_000).contains(&loud), "{loud}");
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn microphones_listen_again_though_the_speaker_that_was_taken_out_hangs_in_its_driver() {
    let bench = Bench::new();
    let place = bench.dir.path();
    write_config(place, &[]);
    let pipe = add_speaker(place);
    // Whoever plays to it waits for a reader that does not come.
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut full = File::options().read(true).write(true).open(&pipe).unwrap();
    full.write_all(&[0; 64 << 10]).unwrap();
    let (hall, words) = open_microphone(place, "hall", "");
    let mut ear = Ear::new(&raw_file(place, "hall"));
    let speaker = "[speaker]\ndevice = \"speaker\"\n";
    bench.write_config(None, "", &format!("{speaker}{hall}"));
    let gemmad = bench.start();
    for device in ["speaker", "mic/hall"] {
        bench.wait_for_payload(&format!("{device}/state"), "online");
    }
    say_tone(&bench, "tone");
    bench.wait_for_payload("speaker/speaking", "ON");
    ear.hears(&words);
    bench.write_config(None, "", &hall);
    let reload = bench.request("reload", "speaker", json!({}));
    assert_eq!(reload["status"], "ok", "{reload}");
    gemmad.wait_log("speaker does not let go of its device, and is left");
    // Whoever asked is told, and what was said at the microphone meanwhile was not listened to.
    let told = bench.response("say", "tone");
    assert_ne!(told["status"], "ok", "{told}");
    assert!(bench.on("mic/hall/event").is_empty());
    ear.hears(&words);
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["event_type"], "transcript", "{event}");
    drop(full);
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_board_that_gave_way_says_nothing_also_where_nothing_follows_the_wake_word() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let hall = microphone(place, "hall", "009_both.wav", "Okay Nabu", false);
    let words = std::fs::read(raw_file(place, "hall")).unwrap();
    let mut samples = words.as_chunks().0.iter();
    let is_loud = |x: &[u8; 2]| i16::from_le_bytes(*x).unsigned_abs() > 1000;
    let begin = samples.position(is_loud).unwrap();
    // A fifth of a second, which is the word, and silence, which the model hears meanwhile.
    let word = [&words[2 * begin..][..6400], &[0; 4 * 32_000]].concat();
    let mut ear = Ear::new(&raw_file(place, "hall"));
    bench.write_config(None, "", &(hall + "settle_ms = 5000\n"));
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "online");
    ear.hears(&word);
    wait_until("it is woken", || speaks(&bench, "hall"));
    let better = json!({
        "node": "attic", "microphone": "bed", "phrase": "Okay Nabu", "score": 1.0, "dbfs": 0.0,
    });
    let better = better.to_string();
    bench.broker.publish("gemmad/woken", better.as_bytes(), &[]);
    ear.hears(&[0; 8 * 32_000]);
    wait_until("it has waited in vain", || !speaks(&bench, "hall"));
    let asked = std::cell::Cell::new(0);
    wait_until("it has given way", || {
        asked.set(asked.get() + 1);
        let stats = bench.request("stats", &asked.get().to_string(), json!({}));
        stats["data"]["details"]["queues"]["yielded"] == 1
    });
    assert!(bench.on("mic/hall/event").is_empty());
    bench.assert_schemas();
    gemmad.stop();
}
