//! The speaker, and whoever makes sound of texts: a PCM of ALSA's `file` plugin, and a server of the package `wyoming`.

use crate::broker::free_port;
use crate::file_pcm::{add_speaker, played};
use crate::tts::Tts;

use super::{Patient, demo};

#[test]
fn a_speaker_and_its_voice_are_tried_and_what_they_lack_is_told() {
    let patient = Patient::new();
    let file = add_speaker(patient.dir.path());
    let Some(tts) = Tts::start(patient.dir.path()) else {
        return;
    };
    let examine = |section: &str| {
        let model = format!("[model]\npath = {:?}\n[dbus]\nenabled = false\n", demo());
        patient.write(&format!("{model}{section}"));
        patient.examine()
    };
    let found = examine("");
    assert!(found.all("speaker").is_empty() && found.all("text to speech").is_empty());

    let found = examine(&tts.section("tts_voice = \"alba\""));
    found.failing(&[]);
    found.expect("speaker", "ok", &["speaker", "48000 Hz, S16_LE, 1 channel"]);
    let server = format!("tcp://127.0.0.1:{}", tts.port);
    found.expect("text to speech", "ok", &[&server, "with alba"]);
    let found = examine(&tts.section(""));
    found.expect("text to speech", "ok", &["its own choice"]);
    let found = examine(&tts.section("tts_voice = \"alan\""));
    found.expect(
        "text to speech",
        "warning",
        &["no voice", "alan", "it has alba"],
    );
    assert!(tts.asked().is_empty() && played(&file).is_empty());

    let found = examine("[speaker]\ndevice = \"speaker\"\n");
    found.expect("text to speech", "ok", &["texts not"]);
    // Neither is there.
    let absent = format!(
        "[speaker]\ndevice = \"absent\"\ntts = \"tcp://127.0.0.1:{}\"\n",
        free_port()
    );
    let found = examine(&absent);
    found.failing(&["speaker", "text to speech"]);
    found.expect("speaker", "failing", &["`absent`", "gemmad devices"]);
    found.expect("text to speech", "failing", &["cannot be reached", "piper"]);
}
