//! The microphone's thread on ALSA's own `file` plugin, which gives a file's samples as fast as they are read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/file_pcm.rs"]
mod file_pcm;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gemmad::capture::options::MicrophoneOptions;
use gemmad::capture::{EventSink, Microphone};
use gemmad::config::Config;
use gemmad::media::{CaptureEvent, DeviceState, MicrophoneControl, MicrophoneEvent};
use gemmad::utterance::Progress;

use file_pcm::raw_file;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(120);

const PCMS: [&str; 7] = [
    "speech",
    "vanishing",
    "muted",
    "stopped",
    "pushed",
    "listed",
    "absent",
];

/// A directory with `NAME.raw` for each PCM, and ALSA's configuration for them.
static PLACE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    let path = file_pcm::write_config(place.path(), &PCMS);
    // SAFETY: every test comes here before it starts a thread that reads the environment, and waits until this is done.
    unsafe { std::env::set_var("ALSA_CONFIG_PATH", &path) };
    place
});

fn write_speech(file: &Path) {
    file_pcm::write_speech(file, "001_voice.wav");
}

fn microphone(device: &str, more: &str) -> MicrophoneOptions {
    let text = format!("[[microphone]]\nid = \"hall\"\ndevice = \"{device}\"\n{more}");
    let mut config = Config::parse(&text, Path::new("test.toml")).unwrap();
    config.microphone.remove(0)
}

fn sink(events: Sender<MicrophoneEvent>) -> EventSink {
    Box::new(move |event| match event {
        CaptureEvent::Microphone { id, event } => {
            assert_eq!(id, "hall");
            events.send(event).is_ok()
        }
        CaptureEvent::Camera { .. } | CaptureEvent::Speaker(_) => {
            panic!("a microphone tells of another device")
        }
    })
}

fn start(device: &str, more: &str, muted: bool) -> (Microphone, Receiver<MicrophoneEvent>) {
    let (tell, events) = channel();
    let started =
        Microphone::start(microphone(device, more), muted, Arc::default(), sink(tell)).unwrap();
    (started, events)
}

/// Events up to the first that fits, which is the last.
fn until(
    events: &Receiver<MicrophoneEvent>,
    fits: impl Fn(&MicrophoneEvent) -> bool,
) -> Vec<MicrophoneEvent> {
    let mut seen = Vec::new();
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!(
                "only {} events came, the last {:?}",
                seen.len(),
                seen.last()
            )
        });
        seen.push(event);
        if fits(&seen[seen.len() - 1]) {
            return seen;
        }
    }
}

fn is_state(wanted: DeviceState) -> impl Fn(&MicrophoneEvent) -> bool {
    move |event| matches!(event, MicrophoneEvent::State(state) if *state == wanted)
}

fn offline(words: &'static str) -> impl Fn(&MicrophoneEvent) -> bool {
    move |event| matches!(event, MicrophoneEvent::State(DeviceState::Offline { reason }) if reason.contains(words))
}

/// Whether this process has `file` open.
fn is_open(file: &Path) -> bool {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
}

#[test]
fn an_utterance_comes_as_it_was_spoken() {
    let file = raw_file(PLACE.path(), "speech");
    write_speech(&file);
    let (microphone, events) = start("speech", "", false);
    let seen = until(&events, |e| {
        matches!(e, MicrophoneEvent::SpeechEnded { .. })
    });
    microphone.stop();
    assert!(matches!(
        seen[0],
        MicrophoneEvent::State(DeviceState::Online)
    ));
    let [
        _,
        MicrophoneEvent::SpeechStarted(sound),
        MicrophoneEvent::SpeechEnded { counts: true },
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    let (samples, progress) = sound.state();
    assert!(matches!(
        progress,
        Progress::Ended {
            truncated: false,
            ..
        }
    ));
    let heard = sound.take(samples);
    let bytes = std::fs::read(&file).unwrap();
    let written: Vec<f32> = bytes
        .chunks_exact(2)
        .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
        .collect();
    assert!(heard.len() > 3 * 16_000, "{}", heard.len());
    assert!(written.windows(heard.len()).any(|part| part == heard));
}

#[test]
fn a_microphone_that_goes_comes_back() {
    let file = raw_file(PLACE.path(), "vanishing");
    let (microphone, events) = start("vanishing", "", false);
    until(&events, offline("does not exist"));
    write_speech(&file);
    let (_, seen) = split(until(&events, is_state(DeviceState::Online)));
    assert!(
        seen.is_empty(),
        "a state is told once, not at each try: {seen:?}"
    );
    until(&events, |e| {
        matches!(e, MicrophoneEvent::SpeechEnded { .. })
    });
    // It is pulled out while it is closed.
    microphone.control(MicrophoneControl::Mute(true));
    until(&events, is_state(DeviceState::Off));
    std::fs::remove_file(&file).unwrap();
    microphone.control(MicrophoneControl::Mute(false));
    until(&events, offline("does not exist"));
    write_speech(&file);
    until(&events, is_state(DeviceState::Online));
    microphone.stop();
}

/// The last event, and those before it.
fn split(mut events: Vec<MicrophoneEvent>) -> (Option<MicrophoneEvent>, Vec<MicrophoneEvent>) {
    (events.pop(), events)
}

#[test]
fn mute_closes_the_device() {
    let file = raw_file(PLACE.path(), "muted");
    write_speech(&file);
    let (microphone, events) = start("muted", "", true);
    let seen = until(&events, is_state(DeviceState::Off));
    assert_eq!(seen.len(), 1, "it was opened");
    assert!(!is_open(&file));
    microphone.control(MicrophoneControl::Mute(false));
    until(&events, is_state(DeviceState::Online));
    assert!(is_open(&file));
    microphone.control(MicrophoneControl::Mute(true));
    until(&events, is_state(DeviceState::Off));
    assert!(!is_open(&file));
    microphone.stop();
}

#[test]
fn the_end_is_the_end() {
    let file = raw_file(PLACE.path(), "stopped");
    write_speech(&file);
    let (microphone, events) = start("stopped", "", false);
    until(&events, is_state(DeviceState::Online));
    microphone.stop();
    assert!(!is_open(&file));
    while events.recv_timeout(PATIENCE).is_ok() {}

    // A daemon that is gone ends the thread too: the sink is dropped with it.
    let (tell, gone) = channel();
    let dropped = Mutex::new(tell);
    let events = Box::new(move |_| {
        let _keep = &dropped;
        false
    });
    let started = Microphone::start(
        self::microphone("stopped", ""),
        false,
        Arc::default(),
        events,
    )
    .unwrap();
    let asked = Instant::now();
    assert_eq!(
        gone.recv_timeout(PATIENCE),
        Err::<(), _>(std::sync::mpsc::RecvTimeoutError::Disconnected)
    );
    assert!(asked.elapsed() < PATIENCE);
    started.stop();
}

#[test]
fn push_to_talk_that_cannot_hear_says_so() {
    LazyLock::force(&PLACE);
    let (microphone, events) = start("pushed", "trigger = \"push_to_talk\"", true);
    until(&events, is_state(DeviceState::Off));
    microphone.control(MicrophoneControl::Listen);
    until(&events, |e| matches!(e, MicrophoneEvent::ListenTimedOut));
    microphone.stop();
}

#[test]
fn devices_are_listed_ready_to_paste() {
    let file = raw_file(PLACE.path(), "listed");
    write_speech(&file);
    let list = |more: &[&str]| {
        let output = assert_cmd::Command::cargo_bin("gemmad")
            .unwrap()
            .env("ALSA_CONFIG_PATH", PLACE.path().join("asound.conf"))
            .arg("devices")
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success());
        // What ALSA's library thinks of PCMs that cannot be opened is no error here.
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = list(&[]);
    let config = Config::parse(&text, Path::new("pasted.toml")).unwrap();
    let found = config.microphone.iter().find(|m| m.device == "listed");
    assert!(found.is_some(), "{text}");
    assert!(text.contains("S16_LE"), "{text}");
    // One whose file is not there is told, and not offered.
    assert!(
        !config.microphone.iter().any(|m| m.device == "absent"),
        "{text}"
    );
    assert!(
        text.contains("# Not usable: ALSA device `absent` does not exist"),
        "{text}"
    );

    let json: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let microphones = json["microphones"].as_array().unwrap();
    let listed = microphones
        .iter()
        .find(|m| m["device"] == "listed")
        .unwrap();
    assert!(
        listed["formats"]
            .as_array()
            .unwrap()
            .contains(&"S16_LE".into())
    );
    assert!(json["cameras"].is_array());

    // Of loudspeakers one is offered, and the others stand beside it.
    assert!(config.speaker.device.is_some(), "{text}");
    let speakers = json["speakers"].as_array().unwrap();
    let listed = speakers.iter().find(|it| it["device"] == "listed");
    let takes = listed.unwrap()["takes"].as_str().unwrap();
    assert!(takes.starts_with("48000 Hz, S16_LE, "), "{takes}");
    let offered = text.matches("device = \"listed\"").count();
    assert_eq!(offered, 2, "as a microphone, and as a loudspeaker: {text}");
}
