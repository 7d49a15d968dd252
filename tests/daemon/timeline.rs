//! Figures of the voice box, for docs/speaker.md and docs/wake.md: nothing is judged by them, so they are printed only where somebody asks.
//!
//!     cargo nextest run --test daemon timeline --run-ignored only --no-capture

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::wait_until;
use crate::file_pcm::{add_speaker, played, raw_file, write_config};
use crate::process::{Bench, Gemmad, expected};
use crate::tts::Tts;
use crate::wake::microphone;

/// A microphone's pipe that gives sound as time goes: 20 ms every 20 ms.
fn room(pipe: &Path) -> Sender<Vec<u8>> {
    std::fs::remove_file(pipe).ok();
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let mut into = File::options().read(true).write(true).open(pipe).unwrap();
    let (sounds, heard) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut waiting: Vec<u8> = Vec::new();
        loop {
            if let Ok(sound) = heard.try_recv() {
                waiting.extend(sound);
            }
            waiting.resize(waiting.len().max(640), 0);
            into.write_all(&waiting.drain(..640).collect::<Vec<u8>>())
                .unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    sounds
}

#[test]
#[ignore = "prints how long each step takes, and judges nothing"]
fn from_the_wake_word_to_the_reply() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let tts = Tts::start(place).unwrap();
    let hall = microphone(place, "hall", "009_both.wav", "Okay Nabu", false);
    let words = std::fs::read(raw_file(place, "hall")).unwrap();
    let ear = room(&raw_file(place, "hall"));
    write_config(place, &[]);
    let heard = add_speaker(place);
    let answer = "The light in the hall is on. ".repeat(20);
    let script = json!([{ "user": "How is the house", "say": answer.trim() }]).to_string();
    std::fs::write(place.join("script.json"), script).unwrap();
    let more = format!(
        "[queue]\nmax_tokens = 2000\n{}{hall}settle_ms = 0\n",
        tts.section("")
    );
    bench.write_config(None, "context = 4096", &more);
    let script = place.join("script.json");
    let script = ("GEMMAD_SCRIPT", script.to_str().unwrap());
    let gemmad = Gemmad::spawn_with(place, &[], &[script]);
    bench.wait_for_payload("speaker/state", "online");
    bench.wait_for_payload("mic/hall/state", "online");

    let begun = Instant::now();
    let tell = |what: &str| println!("{:6} ms  {what}", begun.elapsed().as_millis());
    // write_speech has a second of silence before the words, and two behind.
    let clip_ms = words.len() / 32;
    println!(
        "the words begin at 1000 ms and end before {} ms",
        clip_ms - 2000
    );
    ear.send(words).unwrap();
    bench.wait_for("mic/hall/wake_score", 1);
    tell("the wake word is told");
    wait_until("a sound", || !played(&heard).is_empty());
    tell("the sound \"listening\" goes to the device");
    let speech = |wanted: &str| {
        let told = bench.on("mic/hall/speech");
        told.last().is_some_and(|it| it.text() == wanted)
    };
    wait_until("somebody speaks", || speech("ON"));
    wait_until("nobody speaks any more", || speech("OFF"));
    tell("the silence behind the words is over");
    bench.wait_for("mic/hall/event", 1);
    tell("the transcript is published");
    wait_until("the sounds are over", || {
        bench
            .on("speaker/speaking")
            .last()
            .is_some_and(|it| it.text() == "OFF")
    });
    let before = played(&heard).len();
    let reply =
        json!({ "text": "The light is on. Good night, everybody!", "transaction": "reply" });
    bench.publish("mic/hall/say", &reply.to_string());
    tell("the reply is published, by Home Assistant's part");
    wait_until("a sentence", || !tts.asked().is_empty());
    tell("the text-to-speech server has the first sentence");
    wait_until("sound", || played(&heard).len() > before);
    tell("the reply's first sound goes to the device");
    bench.response("say", "reply");
    tell("the reply has been played");

    let (before, asked) = (played(&heard).len(), tts.asked().len());
    let ask = json!({ "prompt": "How is the house?", "speak": true, "transaction": "house" });
    bench.publish("request/ask", &ask.to_string());
    tell("a question is asked, whose answer has 20 sentences");
    wait_until("a sentence", || tts.asked().len() > asked);
    tell("the text-to-speech server has the answer's first sentence");
    wait_until("sound", || played(&heard).len() > before);
    tell("the answer's first sound goes to the device");
    let answer = bench.response("ask", "house");
    tell("the answer is whole");
    println!("its timing: {}", answer["data"]["timing"]);
    gemmad.stop();
}

/// The clips of the demo model, heard by microphones whose wake word is what each of them begins with, or another.
#[test]
#[ignore = "prints how often the second look errs, and judges nothing"]
fn how_often_the_second_look_errs() {
    let table = std::fs::read_to_string(crate::process::heldout("audio/expected.tsv")).unwrap();
    let lines = table.lines().skip(1);
    let clips: Vec<&str> = lines.filter_map(|line| line.split('\t').next()).collect();
    let words = |clip: &str| {
        let said = expected("audio", clip, "transcript");
        let words: Vec<&str> = said.split_whitespace().take(2).collect();
        words.join(" ")
    };
    let mut taken = [0, 0];
    for (n, clip) in clips.iter().enumerate() {
        let right = words(clip);
        // The first that begins otherwise.
        let mut others = clips.iter().cycle().skip(n + 1).map(|other| words(other));
        let wrong = others.find(|other| *other != right).unwrap();
        let bench = Bench::new();
        let phrases = [("right", right), ("wrong", wrong)];
        let of = |(id, phrase): &(&str, String)| {
            microphone(bench.dir.path(), id, clip, phrase, true) + "settle_ms = 0\n"
        };
        bench.write_config(None, "", &phrases.iter().map(of).collect::<String>());
        let gemmad = bench.start();
        for (taken, (id, phrase)) in taken.iter_mut().zip(&phrases) {
            let event = bench.wait_for(&format!("mic/{id}/event"), 1)[0].json();
            let is_woken = event["event_type"] == "transcript";
            *taken += i32::from(is_woken);
            if is_woken != (*id == "right") {
                println!("{clip}, {phrase:?}: {} {}", event["reason"], event["text"]);
            }
        }
        gemmad.stop();
    }
    println!(
        "of {} clips, woken by the right word and by a wrong one: {taken:?}",
        clips.len()
    );
}
