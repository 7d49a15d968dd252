//! Clients of the Wyoming server, written by hand: lines of JSON and bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::broker::{PATIENCE, free_port, wait_until};
use crate::process::{Bench, Gemmad, expected, heldout};

/// About 40 ms of 16 kHz, 16 bits, and not a whole number of samples: some clients cut where they like.
const CHUNK_BYTES: usize = 1279;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// Of the protocol, as every event of it says.
    version: &'static str,
}

impl Client {
    /// One of long ago.
    pub(crate) fn connect(port: u16) -> Client {
        Client::of_version(port, "1.5.4")
    }

    pub(crate) fn of_version(port: u16, version: &'static str) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: BufReader::new(stream),
            version,
        }
    }

    pub(crate) fn send(&mut self, kind: &str, data: Value, payload: &[u8]) {
        let data = data.to_string();
        let header = json!({
            "type": kind, "version": self.version, "data_length": data.len(), "payload_length": payload.len(),
        });
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("{header}\n{data}").as_bytes())
            .unwrap();
        stream.write_all(payload).unwrap();
    }

    /// The next event; `None` where the server has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<(String, Value)> {
        let mut line = String::new();
        // A server that closes while something is still on its way to it resets the connection.
        if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let header: Value = serde_json::from_str(&line).unwrap();
        let mut bytes = vec![0; header["data_length"].as_u64().unwrap_or(0) as usize];
        self.stream.read_exact(&mut bytes).unwrap();
        let data = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Some((header["type"].as_str().unwrap().to_owned(), data))
    }

    /// At the pace at which it is spoken, until the other side has something to say.
    fn speak_live(&mut self, bytes: &[u8]) {
        self.send("audio-start", mono(), &[]);
        let socket = self.stream.get_ref().try_clone().unwrap();
        socket.set_nonblocking(true).unwrap();
        for chunk in bytes.chunks(640) {
            self.send("audio-chunk", mono(), chunk);
            std::thread::sleep(std::time::Duration::from_millis(20));
            if socket.peek(&mut [0]).is_ok() {
                break;
            }
        }
        socket.set_nonblocking(false).unwrap();
    }

    pub(crate) fn speak(&mut self, format: &Value, bytes: &[u8]) {
        self.send("audio-start", format.clone(), &[]);
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.send("audio-chunk", format.clone(), chunk);
        }
    }
}

pub(crate) fn mono() -> Value {
    json!({"rate": 16000, "width": 2, "channels": 1})
}

/// The samples of a held-out clip, whose header has the usual 44 bytes.
pub(crate) fn samples(file: &str) -> Vec<u8> {
    let wav = std::fs::read(heldout("audio").join(file)).unwrap();
    assert_eq!(&wav[36..40], b"data");
    wav[44..].to_vec()
}

pub(crate) fn start(bench: &Bench, more: &str) -> (Gemmad, u16) {
    let port = free_port();
    let commands = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/demo-commands.toml"),
    );
    let wyoming = format!("[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n{more}\n");
    bench.write_config(None, "", &(wyoming + &commands.unwrap()));
    (bench.start(), port)
}

#[test]
fn speech_becomes_a_transcript_and_a_sentence_an_intent() {
    let bench = Bench::new();
    let (gemmad, port) = start(&bench, "languages = { en = \"English\", xx = \"Nothing\" }");
    let mut client = Client::connect(port);
    client.send("describe", json!({}), &[]);
    let (kind, info) = client.receive().unwrap();
    assert_eq!(kind, "info");
    for part in ["asr", "intent"] {
        assert_eq!(info[part][0]["name"], "gemmad", "{info}");
        assert_eq!(info[part][0]["installed"], true);
        let model = &info[part][0]["models"][0];
        assert_eq!(
            (&model["name"], &model["languages"]),
            (&json!("demo"), &json!(["en", "xx"]))
        );
    }
    client.send("ping", json!({"text": "a"}), &[]);
    assert_eq!(
        client.receive(),
        Some(("pong".to_owned(), json!({"text": "a"})))
    );

    // The tower is loaded before the speech is over.
    let before = gemmad.mapped_weights();
    client.send("transcribe", json!({"language": "en-GB"}), &[]);
    client.speak(&mono(), &samples("009_both.wav"));
    wait_until("the audio weights are mapped", || {
        gemmad.mapped_weights() > before
    });
    client.send("audio-stop", json!({"timestamp": null}), &[]);
    let said = expected("audio", "009_both.wav", "transcript");
    assert_eq!(
        client.receive(),
        Some((
            "transcript".to_owned(),
            json!({ "language": "en-GB", "text": said })
        ))
    );

    // The same connection again: twice the rate, two channels, four bytes a sample, and no audio-start.
    let wide: Vec<u8> = samples("017_combo.wav")
        .chunks_exact(2)
        .flat_map(|sample| [[0, 0, sample[0], sample[1]]; 4].concat())
        .collect();
    let format = json!({"rate": 32000, "width": 4, "channels": 2});
    for chunk in wide.chunks(CHUNK_BYTES * 8) {
        client.send("audio-chunk", format.clone(), chunk);
    }
    client.send("audio-stop", json!({}), &[]);
    let said = expected("audio", "017_combo.wav", "transcript");
    assert_eq!(
        client.receive(),
        Some((
            "transcript".to_owned(),
            json!({ "language": "en-GB", "text": said })
        ))
    );

    // As `recognize`, and as Home Assistant does it.
    for kind in ["recognize", "transcript"] {
        let sentence =
            json!({"text": "turn off the kitchen light", "context": {"conversation_id": "c"}});
        client.send(kind, sentence, &[]);
        let (kind, intent) = client.receive().unwrap();
        assert_eq!(
            (kind.as_str(), &intent["name"]),
            ("intent", &json!("turn_off"))
        );
        let entities =
            json!([{"name": "device", "value": "light"}, {"name": "area", "value": "kitchen"}]);
        assert_eq!(intent["entities"], entities);
        assert_eq!(intent["context"]["conversation_id"], "c");
    }
    gemmad.stop();
    assert_eq!(client.receive(), None);
}

/// 3 s of noise, 16 bits: pink from sox, as loud as is said.
fn pink(dbfs: f64) -> Vec<u8> {
    let gain = format!("{dbfs}dB");
    let output = std::process::Command::new("sox")
        .args(["-R", "-n", "-r", "16000", "-c", "1", "-b", "16"])
        .args(["-e", "signed", "-t", "raw", "-"])
        .args(["synth", "3", "pinknoise", "norm", "0", "vol", &gain])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A model makes words of silence and noise, too, and a command that nobody gave opens a gate.
#[test]
fn silence_and_noise_become_no_words_and_the_connection_goes_on() {
    let bench = Bench::new();
    let (gemmad, port) = start(&bench, "");
    let mut client = Client::connect(port);
    let text = |client: &mut Client| {
        let (kind, data) = client.receive().unwrap();
        assert_eq!(kind, "transcript", "{data}");
        data["text"].as_str().unwrap().to_owned()
    };
    for (what, sound) in [
        ("2 s of zeros", vec![0; 64_000]),
        ("5 s of zeros", vec![0; 160_000]),
        ("faint noise", pink(-50.0)),
        ("loud noise", pink(-12.0)),
        ("20 ms", samples("009_both.wav")[..640].to_vec()),
        ("nothing", Vec::new()),
    ] {
        client.send("transcribe", json!({"language": "en"}), &[]);
        client.speak(&mono(), &sound);
        client.send("audio-stop", json!({}), &[]);
        assert_eq!(text(&mut client), "", "{what}");
    }
    client.send("audio-stop", json!({}), &[]);
    assert_eq!(text(&mut client), "", "a stop without a start");

    // A whole clip in one event, of 48 kHz in two channels, and numbers as some scripts write them.
    let whole: Vec<u8> = samples("009_both.wav")
        .chunks_exact(2)
        .flat_map(|sample| [sample[0], sample[1]].repeat(6))
        .collect();
    assert!(whole.len() > 500_000);
    let format = json!({"rate": 48000.0, "width": 2.0, "channels": 2.0});
    client.send("audio-start", format.clone(), &[]);
    client.send("audio-chunk", format, &whole);
    client.send("audio-stop", json!({}), &[]);
    let said = expected("audio", "009_both.wav", "transcript");
    assert_eq!(text(&mut client), said);
    gemmad.stop();
}

/// Twelve seconds in which nobody speaks, as faint as a room is.
fn room() -> Vec<u8> {
    pink(-66.0).repeat(4)
}

/// The client says nothing of an end, and goes on sending: what is understood comes when the speaker is done, in pieces first.
#[test]
fn whoever_leaves_it_to_the_service_hears_when_a_speaker_is_done() {
    let bench = Bench::new();
    let (gemmad, port) = start(&bench, "");
    let mut client = Client::of_version(port, "1.10.2");
    client.send("describe", json!({}), &[]);
    let (_, info) = client.receive().unwrap();
    for (flag, value) in [
        ("requires_external_vad", false),
        ("prefers_auto_gain_enabled", false),
        ("prefers_noise_reduction_enabled", false),
        ("supports_transcript_streaming", true),
    ] {
        assert_eq!(info["asr"][0][flag], value, "{flag}");
    }
    let mut listen = |sound: Vec<u8>, stops: bool| {
        client.send("transcribe", json!({"language": "en"}), &[]);
        match stops {
            true => client.speak(&mono(), &sound),
            false => client.speak_live(&sound),
        }
        if stops {
            client.send("audio-stop", json!({}), &[]);
        }
        let (mut kinds, mut pieces) = (Vec::new(), String::new());
        loop {
            let (kind, data) = client.receive().unwrap();
            match kind.as_str() {
                "transcript-chunk" => pieces.push_str(data["text"].as_str().unwrap()),
                "transcript" if data["text"] == "" => return (kinds, String::new()),
                "transcript" => assert_eq!(data["text"], pieces.trim(), "{kinds:?}"),
                "transcript-stop" => return (kinds, pieces),
                _ => {}
            }
            kinds.push(kind);
        }
    };
    let said = expected("audio", "009_both.wav", "transcript");
    let live = [samples("009_both.wav"), room()].concat();
    let (kinds, pieces) = listen(live, false);
    assert_eq!(kinds[0], "transcript-start");
    assert_eq!(pieces.trim(), said);
    // Nobody speaks at all: that is told, too.
    assert_eq!(listen(room(), false), (Vec::new(), String::new()));
    // A clip that comes at once may have pauses; its client says where it ends.
    let paused = [
        samples("009_both.wav"),
        pink(-66.0)[..64_000].to_vec(),
        samples("009_both.wav"),
    ];
    let paused = paused.concat();
    let seconds = format!("heard {:.1} s", paused.len() as f64 / 32_000.0);
    listen(paused, true);
    gemmad.wait_log(&seconds);
    gemmad.stop();
}

#[test]
fn clients_are_limited_in_number_size_time_and_form() {
    let bench = Bench::new();
    let more = "max_clients = 2\nmax_event_bytes = 4096\nidle_timeout_s = 5\nmax_utterance_s = 3";
    let (mut gemmad, port) = start(&bench, more);
    let refused = |client: &mut Client, words: &str| {
        let (kind, data) = client.receive().unwrap();
        assert_eq!(kind, "error", "{data}");
        assert!(data["text"].as_str().unwrap().contains(words), "{data}");
        assert_eq!(client.receive(), None);
    };
    let mut idle = [Client::connect(port), Client::connect(port)];
    // Both are in: the server takes connections in their order. Who is refused while it speaks reads why, too: a connection that is
    // closed over what was sent is reset, and takes the words along.
    refused(&mut Client::connect(port), "2 clients are served already");
    let mut talking = Client::connect(port);
    for _ in 0..20 {
        talking.speak(&mono(), &[0; 32_000]);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    refused(&mut talking, "2 clients are served already");
    for client in &mut idle {
        refused(client, "wyoming.idle_timeout_s, 5 s");
    }

    for (bytes, words) in [
        (&b"no JSON\n"[..], "the header of an event is no JSON"),
        (
            b"{\"type\":\"audio-chunk\",\"payload_length\":4097}\n",
            "the sound of an event is longer",
        ),
        (
            b"{\"type\":\"transcribe\",\"data\":{\"language\":\"fr\"}}\n",
            "none of wyoming.languages",
        ),
        (
            b"{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":1,\"channels\":1}}\n",
            "samples of 1 bytes",
        ),
        (
            b"{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":2,\"channels\":0}}\n",
            "0 channels",
        ),
        (
            b"{\"type\":\"audio-start\",\"data\":{\"rate\":1,\"width\":2,\"channels\":1}}\n",
            "Hz",
        ),
        (
            b"{\"type\":\"audio-start\",\"data\":{\"rate\":16000.5,\"width\":2,\"channels\":1}}\n",
            "`rate` is 16000.5; send a whole number",
        ),
    ] {
        let mut client = Client::connect(port);
        client.stream.get_mut().write_all(bytes).unwrap();
        refused(&mut client, words);
    }

    // More than is heard at once: the rest is taken, and not heard.
    let mut client = Client::connect(port);
    let mut long = samples("009_both.wav");
    long.extend(vec![0; 32_000 * 10]);
    client.speak(&mono(), &long);
    client.send("audio-stop", json!({}), &[]);
    let (kind, _) = client.receive().unwrap();
    assert_eq!(kind, "transcript");

    // Gone in the middle of a sentence: nobody waits for the rest, and others are served.
    let mut client = Client::connect(port);
    client.speak(&mono(), &samples("009_both.wav")[..16_000]);
    let mut asked = 0;
    let mut jobs = || {
        asked += 1;
        let stats = bench.request("stats", &format!("t{asked}"), json!({}));
        stats["data"]["details"]["queues"]["jobs"].as_u64().unwrap()
    };
    while jobs() != 1 {}
    drop(client);
    while jobs() != 0 {}
    let mut client = Client::connect(port);
    client.send(
        "recognize",
        json!({"text": "turn off the kitchen light"}),
        &[],
    );
    assert_eq!(client.receive().unwrap().0, "intent");
    assert!(gemmad.is_running());
    gemmad.stop();
}
