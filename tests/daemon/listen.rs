//! `gemmad listen` beside a running daemon: the button of a microphone, and what it ends with.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::process::{Bench, expected};

const CLIP: &str = "009_both.wav";

/// What a microphone hears: nothing, until the test says something. Its file is a pipe, so it is heard when it is said, however
/// loaded the machine is.
struct Mouth {
    words: Sender<Vec<u8>>,
    clip: Vec<u8>,
}

impl Mouth {
    fn new(place: &Path, name: &str) -> Mouth {
        let pipe = raw_file(place, name);
        let clip = place.join("clip");
        write_speech(&clip, CLIP);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        // Open for both, so that neither side ever waits for the other to open it.
        let mut into = File::options().read(true).write(true).open(&pipe).unwrap();
        let (words, said) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            loop {
                match said.try_recv() {
                    Ok(words) => {
                        into.write_all(&words).unwrap();
                        // Held in mid-speech: a broker's client tells the newest state alone, and what is read from a pipe would
                        // begin and end within one.
                        if said.recv().is_err() {
                            return;
                        }
                    }
                    Err(TryRecvError::Empty) => into.write_all(&[0; 1280]).unwrap(),
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        });
        let mut clip = std::fs::read(clip).unwrap();
        // The silence behind the words is the mouth's own.
        clip.truncate(clip.len() - 2 * 2 * 16_000);
        Mouth { words, clip }
    }

    /// Says it, and makes no sound, nor silence, until it `falls_silent`.
    fn says(&self) {
        self.words.send(self.clip.clone()).unwrap();
    }

    fn falls_silent(&self) {
        self.words.send(Vec::new()).unwrap();
    }
}

fn command(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    let config = bench.dir.path().join("gemmad.toml");
    command
        .arg("listen")
        .args(arguments)
        .arg("--config")
        .arg(config);
    command.stdin(Stdio::null());
    command
}

/// A `gemmad listen` and its standard error, line by line.
fn listen(bench: &Bench, arguments: &[&str]) -> (Child, Receiver<String>) {
    let mut child = command(bench, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (tell, lines) = channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            tell.send(line).ok();
        }
    });
    (child, lines)
}

/// Its exit code, what it printed, and the one line that says why.
fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let stderr = text(&output.stderr);
    let why = stderr.lines().find(|line| line.starts_with("gemmad: "));
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        why.unwrap_or_default().to_owned(),
    )
}

/// dB full scale, where a line is a level.
fn level(line: &str) -> Option<f32> {
    line.strip_prefix("hall: ")?
        .strip_suffix(" dBFS")?
        .parse()
        .ok()
}

#[test]
fn what_is_said_after_the_button_is_printed_and_the_meter_moves() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    let mouth = Mouth::new(bench.dir.path(), "hall");
    let hall = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\ntrigger = \"push_to_talk\"\n\
         speech.listen_timeout_ms = 600000\n";
    bench.write_config(None, "", hall);
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "online");
    assert!(bench.on("mic/hall/level").is_empty(), "nobody asked");
    let wanted = expected("audio", CLIP, "transcript");
    for arguments in [&["--microphone", "hall"][..], &["--json"]] {
        let (child, lines) = listen(&bench, arguments);
        let mut told = Vec::new();
        // The room is silent; then it is not.
        for line in lines.iter() {
            let silent = level(&line) == Some(-120.0);
            told.push(line);
            if silent {
                break;
            }
        }
        assert_eq!(told[0], "hall: listening");
        let silent = told.len();
        mouth.says();
        for line in lines.iter() {
            let begins = line == "hall: speech begins";
            told.push(line);
            if begins {
                break;
            }
        }
        mouth.falls_silent();
        let output = child.wait_with_output().unwrap();
        told.extend(lines);
        let (code, printed, _) = ended(&output);
        assert_eq!(code, 0, "{told:?}");
        if arguments == ["--json"] {
            let event: serde_json::Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(
                (&event["event_type"], &event["text"]),
                (&"transcript".into(), &wanted.as_str().into())
            );
        } else {
            assert_eq!(printed, format!("{wanted}\n"));
        }
        let at = |what: &str| told.iter().position(|line| line == what);
        let begins = at("hall: speech begins").unwrap();
        assert!(at("hall: speech ends").unwrap() > begins, "{told:?}");
        let loudest = told[silent..]
            .iter()
            .filter_map(|line| level(line))
            .reduce(f32::max);
        assert!((-60.0..0.0).contains(&loudest.unwrap()), "{told:?}");
    }
    // For those who look now, and only while somebody does: none comes after the event.
    bench.wait_for("mic/hall/event", 2);
    let levels = bench.on("mic/hall/level");
    assert!(levels.iter().all(|seen| !seen.retain && seen.qos == 0));
    let all = bench.observer.all();
    let last = |rest: &str| {
        let topic = format!("gemmad/pi/mic/hall/{rest}");
        all.iter().rposition(|seen| seen.topic == topic).unwrap()
    };
    assert!(last("level") < last("event"));
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn a_terminal_has_a_line_that_moves() {
    let bench = Bench::new();
    write_config(bench.dir.path(), &["hall"]);
    let mouth = Mouth::new(bench.dir.path(), "hall");
    let commands = std::fs::read_to_string(crate::private_bus::repository(
        "config/examples/demo-commands.toml",
    ))
    .unwrap();
    let hall = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\nanswer = \"both\"\ntrigger = \"push_to_talk\"\n\
         speech.listen_timeout_ms = 600000\n";
    bench.write_config(None, "", &(commands + hall));
    let gemmad = bench.start();
    bench.wait_for_payload("mic/hall/state", "online");
    let listen = command(&bench, &[]);
    let words = std::iter::once(listen.get_program()).chain(listen.get_args());
    let line: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    // `script` gives it a terminal, and passes on what is shown there.
    let mut terminal = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--command",
            &line.join(" "),
            "/dev/null",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    let mut output = terminal.stdout.take().unwrap();
    let mut piece = [0; 4096];
    let (mut said, mut silent) = (false, false);
    loop {
        let length = output.read(&mut piece).unwrap();
        if length == 0 {
            break;
        }
        shown += &String::from_utf8_lossy(&piece[..length]);
        if !said && shown.contains("-120.0 dBFS  listening") {
            mouth.says();
            said = true;
        }
        if !silent && shown.contains("speech begins") {
            mouth.falls_silent();
            silent = true;
        }
    }
    assert!(terminal.wait().unwrap().success(), "{shown}");
    for words in [
        "hall [..............................]",
        "hall [####",
        "dBFS  speech begins",
        "\u{1b}[",
    ] {
        assert!(shown.contains(words), "{words:?} is not in {shown:?}");
    }
    let text = expected("audio", CLIP, "transcript");
    let answer = format!("{text}\r\n{{\"name\":\"set\",\"slots\":");
    assert!(shown.contains(&answer), "{shown:?}");
    gemmad.stop();
}

#[test]
fn why_nothing_was_heard_is_told() {
    let mut bench = Bench::new();
    write_config(bench.dir.path(), &["hall", "porch", "gone"]);
    for name in ["hall", "porch"] {
        std::fs::write(raw_file(bench.dir.path(), name), vec![0; 64_000]).unwrap();
    }
    let microphone = |id: &str, more: &str| {
        format!(
            "[[microphone]]\nid = \"{id}\"\ndevice = \"{id}\"\n{more}\nspeech.listen_timeout_ms = 500\n"
        )
    };
    // Whether or not it listens anyway, who pressed the button is told that nothing came.
    let three = microphone("hall", "trigger = \"push_to_talk\"")
        + &microphone("porch", "")
        + &microphone("gone", "");
    bench.write_config(None, "", &three);
    let heard =
        |bench: &Bench, arguments: &[&str]| ended(&command(bench, arguments).output().unwrap());
    let refused = |(code, printed, why): (i32, String, String), wanted: i32, words: &[&str]| {
        assert_eq!((code, printed.as_str()), (wanted, ""), "{why}");
        assert!(
            words.iter().all(|word| why.contains(word)),
            "{words:?} is not in {why:?}"
        );
    };
    let gemmad = bench.start();
    for id in ["hall", "porch"] {
        bench.wait_for_payload(&format!("mic/{id}/state"), "online");
        refused(
            heard(&bench, &["--microphone", id]),
            65,
            &["nothing was said after push-to-talk"],
        );
        let event = bench.wait_for(&format!("mic/{id}/event"), 1)[0].json();
        assert_eq!(event["event_type"], "rejected", "{event}");
    }
    let (code, printed, why) = heard(&bench, &["--microphone", "hall", "--json"]);
    assert_eq!(code, 65, "{why}");
    let event: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(event["source"], "hall");

    refused(
        heard(&bench, &[]),
        64,
        &["which microphone?", "hall, porch, gone"],
    );
    refused(
        heard(&bench, &["--microphone", "cellar"]),
        64,
        &["cellar", "hall, porch, gone"],
    );
    bench.wait_for_payload("mic/gone/state", "offline");
    refused(
        heard(&bench, &["--microphone", "gone"]),
        69,
        &["gone is offline", "gemmad doctor"],
    );
    bench.publish("mic/hall/mute/set", "ON");
    bench.wait_for_payload("mic/hall/state", "muted");
    refused(
        heard(&bench, &["--microphone", "hall"]),
        69,
        &["hall is muted", "mute/set"],
    );
    bench.assert_schemas();
    // Nothing of it is an error of the daemon.
    let log = gemmad.stop();
    assert!(log.contains("nothing was said after push-to-talk"), "{log}");
    refused(
        heard(&bench, &["--microphone", "hall"]),
        69,
        &["gemmad/pi", "not running", "systemctl"],
    );
    bench.broker.kill();
    refused(
        heard(&bench, &["--microphone", "hall"]),
        69,
        &["the broker mqtt://127.0.0.1", "cannot be reached"],
    );
    bench.broker.restart();
    refused(
        heard(&bench, &["--microphone", "hall"]),
        69,
        &["gemmad/pi", "tells nothing"],
    );
}
