//! Whoever pauses is answered as if that were the end: the answer is the same, whether it is begun then or not.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{PATIENCE, Seen, wait_until};
use crate::process::{Bench, Gemmad};
use crate::wyoming::samples;

/// Longer than any of these pauses, so that sound may trickle in meanwhile: a microphone that gives none has died.
const HANGOVER_MS: usize = 10_000;

/// A frame of the detector, 16 ms.
const FRAME: [u8; 512] = [0; 512];

/// A microphone that gives what is written into a pipe.
struct Hall<'a> {
    bench: &'a Bench,
    gemmad: Gemmad,
    pipe: File,
    /// All that was.
    written: Vec<u8>,
}

impl<'a> Hall<'a> {
    fn open(bench: &'a Bench, keys: &str, sections: &str, celsius: u32) -> Hall<'a> {
        let place = bench.dir.path();
        let (path, board) = (place.join("hall"), place.join("board"));
        if !path.exists() {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        }
        let heat = board.join("sys/class/thermal/thermal_zone0/temp");
        std::fs::create_dir_all(heat.parent().unwrap()).unwrap();
        std::fs::write(&heat, format!("{celsius}000\n")).unwrap();
        let hall = format!(
            "[[microphone]]\nid = \"hall\"\ntype = \"replay\"\ndevice = {path:?}\n{keys}\n\
             [microphone.speech]\nhangover_ms = {HANGOVER_MS}\n{sections}"
        );
        let config = bench.write_config(None, "", &hall);
        // The tests' own configuration switches this limit off.
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("hot_c = 0\n", "")).unwrap();
        let gemmad = bench.start_with(&["--board-root", board.to_str().unwrap()]);
        if celsius > 80 {
            bench.wait_health("degraded", |health| health["state"] == "degraded");
        }
        // From here on the microphone is open, and would be taken for dead if it gave nothing.
        let pipe = OpenOptions::new().write(true).open(&path).unwrap();
        Hall {
            bench,
            gemmad,
            pipe,
            written: Vec::new(),
        }
    }

    fn give(&mut self, sound: &[u8]) {
        self.pipe.write_all(sound).unwrap();
        self.written.extend(sound);
    }

    fn quiet(&mut self, ms: usize) {
        self.give(&FRAME.repeat(ms.div_ceil(16)));
    }

    fn say(&mut self, clip: &str) {
        self.give(&samples(clip));
    }

    /// Answers that were begun in a pause, and those of them that were thrown away.
    fn early(&self) -> (u64, u64) {
        let n = self.bench.on("response/stats").len();
        let stats = self.bench.request("stats", &format!("s{n}"), json!({}));
        let queues = &stats["data"]["details"]["queues"];
        let count = |key: &str| queues[key].as_u64().unwrap();
        (count("early_answers"), count("early_thrown_away"))
    }

    /// Says nothing until it is so.
    fn quiet_until(&mut self, what: &str, holds: impl Fn(&Hall<'_>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut frames = 0;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            frames += 1;
            // Not so much that the utterance ends by itself.
            if frames < HANGOVER_MS / 16 - 100 {
                self.give(&FRAME);
            }
            std::thread::sleep(Duration::from_millis(16));
        }
    }

    fn events(&self) -> Vec<Value> {
        let all = self.bench.on("mic/hall/event");
        all.iter().map(Seen::json).collect()
    }

    /// The event behind so many others.
    fn event(&self, before: usize) -> Value {
        self.bench.wait_for("mic/hall/event", before + 1)[before].json()
    }
}

/// What can be told apart of two events.
fn traits(event: &Value) -> Value {
    assert_eq!(event["event_type"], "transcript", "{event}");
    let timing = ["prompt_tokens", "tokens"].map(|key| &event["timing"][key]);
    json!([event["text"], event["audio_s"], event["truncated"], timing])
}

#[test]
fn who_goes_on_is_answered_as_if_there_had_been_no_answer_in_the_pause() {
    let bench = Bench::new();
    let mut hall = Hall::open(&bench, "", "", 40);
    hall.quiet(1000);
    hall.say("009_both.wav");
    let begun = |hall: &Hall<'_>| {
        let (begun, thrown_away) = hall.early();
        begun > thrown_away
    };
    hall.quiet_until("an answer is begun", begun);
    hall.say("003_both.wav");
    hall.quiet_until("another is begun", begun);
    hall.quiet(HANGOVER_MS + 100);
    let early = traits(&hall.event(0));
    // That of the end is used.
    let (begun, thrown_away) = hall.early();
    assert!((1..begun).contains(&thrown_away), "{begun} {thrown_away}");
    bench.assert_schemas();
    let Hall {
        gemmad, written, ..
    } = hall;
    gemmad.stop();

    // A board that is too hot hears the same, and waits for its end.
    let mut hall = Hall::open(&bench, "", "", 90);
    hall.pipe.write_all(&written).unwrap();
    assert_eq!(traits(&hall.event(1)), early);
    assert_eq!(hall.early(), (0, 0));
    hall.gemmad.stop();
}

#[test]
fn a_command_is_published_in_the_pause_where_that_is_wanted() {
    let bench = Bench::new();
    let commands = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/examples/demo-commands.toml"
    );
    let commands = std::fs::read_to_string(commands).unwrap();
    let (section, others) = commands.split_once("[commands]\n").unwrap();
    let wanted = "publish_early = true\nearly_confidence = 0.5\n";
    let commands = format!("{section}[commands]\n{wanted}{others}");
    let mut hall = Hall::open(&bench, "answer = \"command\"", &commands, 40);
    hall.quiet(1000);
    hall.say("009_both.wav");
    hall.quiet_until("the command", |hall| !hall.events().is_empty());
    let event = hall.event(0);
    assert_eq!(event["event_type"], "command", "{event}");
    // It is not over before that is told; what is said until then is lost.
    let speech = |payload: &[u8]| {
        let told = bench.on("mic/hall/speech");
        told.last().is_some_and(|told| told.payload == payload)
    };
    assert!(speech(b"ON"));
    hall.say("003_both.wav");
    hall.quiet(HANGOVER_MS + 100);
    wait_until("the utterance is over", || speech(b"OFF"));
    hall.quiet(1000);
    hall.say("003_both.wav");
    hall.quiet(1000);
    let next = hall.event(1);
    assert_eq!(next["event_type"], "command", "{next}");
    assert_ne!(next["command"], event["command"]);
    hall.gemmad.stop();
    assert_eq!(bench.on("mic/hall/event").len(), 2);
}
