//! Several who speak at once: whoever says nothing holds up nobody, and each is understood as if alone.

use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::process::{Bench, expected};
use crate::wyoming::{Client, mono, samples, start};

/// A speaker in the middle of a clip, and the rest of it.
struct Talker {
    client: Client,
    file: &'static str,
    rest: Vec<u8>,
}

impl Talker {
    /// Says `bytes` of a clip, and then nothing.
    fn begin(port: u16, file: &'static str, bytes: usize) -> Talker {
        let mut client = Client::connect(port);
        let mut clip = samples(file);
        let rest = clip.split_off(bytes);
        client.send("transcribe", json!({"language": "en"}), &[]);
        client.speak(&mono(), &clip);
        Talker { client, file, rest }
    }

    /// Says the rest, and is understood.
    fn finish(mut self) {
        for chunk in self.rest.chunks(4096) {
            self.client.send("audio-chunk", mono(), chunk);
        }
        self.client.send("audio-stop", json!({}), &[]);
        let said = expected("audio", self.file, "transcript");
        let transcript = json!({ "language": "en", "text": said });
        let transcript = Some(("transcript".to_owned(), transcript));
        assert_eq!(self.client.receive(), transcript);
    }
}

/// Jobs that the daemon has, as its `stats` tell.
fn wait_for_jobs(bench: &Bench, prefix: &str, count: u64) {
    let asked = std::cell::Cell::new(0);
    wait_until(&format!("{count} jobs"), || {
        asked.set(asked.get() + 1);
        let name = format!("{prefix}{}", asked.get());
        let stats = bench.request("stats", &name, json!({}));
        stats["data"]["details"]["queues"]["jobs"] == json!(count)
    });
}

#[test]
fn whoever_falls_silent_or_drips_or_goes_on_and_on_delays_nobody() {
    let bench = Bench::new();
    // The server would let go of nobody for a day, so only the queue can help.
    let (gemmad, port) = start(&bench, "idle_timeout_s = 86400\nmax_clients = 8");
    let silent = Talker::begin(port, "009_both.wav", 30_000);
    let mut dripping = Talker::begin(port, "003_both.wav", 2);
    let long = Talker::begin(port, "017_combo.wav", 40_002);
    wait_for_jobs(&bench, "begun", 3);
    for _ in 0..2 {
        let drop = dripping.rest.drain(..2).collect::<Vec<u8>>();
        dripping.client.send("audio-chunk", mono(), &drop);
        // Whole commands, one after the other, and a question, while the others are not over.
        Talker::begin(port, "004_voice.wav", 20_000).finish();
        Talker::begin(port, "023_combo.wav", 0).finish();
        let asked = bench.request(
            "ask",
            &format!("ask{}", dripping.rest.len()),
            json!({"prompt": "?", "choices": ["cat", "dog"]}),
        );
        assert_eq!(asked["status"], "ok", "{asked}");
    }
    wait_for_jobs(&bench, "left", 3);
    // They were only waited for; what they say is understood as if they had been alone.
    long.finish();
    dripping.finish();
    silent.finish();
    wait_for_jobs(&bench, "none", 0);
    gemmad.stop();
}

#[test]
fn an_answer_in_progress_gives_way_to_speech_and_goes_on() {
    let bench = Bench::new();
    let (gemmad, port) = start(&bench, "[queue]\nmax_tokens = 3000");
    bench.long_question("long", 400);
    bench.wait_for("response/ask/partial", 1);
    Talker::begin(port, "009_both.wav", 30_000).finish();
    assert_eq!(bench.responses("ask", "long"), [] as [Value; 0]);
    let answer = bench.response("ask", "long");
    let words: Vec<String> =
        serde_json::from_str(answer["data"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(words.len(), 400, "{answer}");
    // What came in pieces is the whole, without a gap where it paused.
    let pieces = bench.on("response/ask/partial");
    let joined: String = pieces
        .iter()
        .map(|piece| piece.json()["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(answer["data"]["text"], joined);
    gemmad.stop();
}

#[test]
fn more_utterances_than_are_heard_at_once_are_refused_in_words() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    let microphone = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n";
    let more = format!("idle_timeout_s = 86400\n[queue]\nutterances = 2\n{microphone}");
    let (gemmad, port) = start(&bench, &more);
    let talkers = [
        Talker::begin(port, "009_both.wav", 30_000),
        Talker::begin(port, "003_both.wav", 2),
    ];
    wait_for_jobs(&bench, "two", 2);
    let mut third = Talker::begin(port, "004_voice.wav", 10_000).client;
    let words = "2 utterances are being heard already";
    third.send("audio-stop", json!({}), &[]);
    let (kind, data) = third.receive().unwrap();
    assert_eq!(kind, "error", "{data}");
    assert!(data["text"].as_str().unwrap().contains(words), "{data}");
    write_speech(&raw_file(bench.dir.path(), "hall"), "009_both.wav");
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    assert_eq!(event["event_type"], "rejected", "{event}");
    assert!(event["reason"].as_str().unwrap().contains(words), "{event}");
    talkers.into_iter().for_each(Talker::finish);
    Talker::begin(port, "004_voice.wav", 10_000).finish();
    bench.assert_schemas();
    gemmad.stop();
}
