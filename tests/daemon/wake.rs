//! From a wake word to what follows it. The small model of the fuzzers takes any sound for its word, so the clip alone decides.

use std::path::Path;

use crate::file_pcm::{raw_file, write_speech};
use crate::process::{Bench, expected};

/// A microphone that hears a clip, and is woken by a word that is called so.
pub(crate) fn microphone(place: &Path, id: &str, clip: &str, word: &str, verify: bool) -> String {
    let raw = raw_file(place, id);
    write_speech(&raw, clip);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wake");
    let manifest = std::fs::read_to_string(corpus.join("seed-manifest")).unwrap();
    let manifest = manifest.replace("\"Hello\"", &format!("{word:?}"));
    let json = place.join(format!("{id}.json"));
    std::fs::write(&json, manifest).unwrap();
    std::fs::copy(corpus.join("seed-model"), place.join("hello.tflite")).unwrap();
    format!(
        "[[microphone]]\nid = {id:?}\ntype = \"replay\"\ndevice = {raw:?}\ntrigger = \"wake_word\"\n\
         [microphone.wake]\nmodels = [{json:?}]\nsensitivity = 1\nverify = {verify}\n"
    )
}

#[test]
fn what_follows_a_wake_word_counts_unless_the_transcript_contradicts_it() {
    let bench = Bench::new();
    let place = bench.dir.path();
    let microphones = [
        microphone(place, "trusting", "009_both.wav", "Okay Nabu", false),
        microphone(place, "wary", "009_both.wav", "Okay Nabu", true),
        // As somebody might write it who has only heard it.
        microphone(place, "woken", "023_combo.wav", "Svitch of", true),
    ];
    bench.write_config(None, "", &microphones.concat());
    let gemmad = bench.start();
    let event = |id: &str| bench.wait_for(&format!("mic/{id}/event"), 1)[0].json();

    let trusting = event("trusting");
    assert_eq!(trusting["event_type"], "transcript", "{trusting}");
    assert_eq!(trusting["wake_word"], "Okay Nabu");
    let said = expected("audio", "009_both.wav", "transcript");
    assert_eq!(trusting["text"], said.as_str());

    let wary = event("wary");
    assert_eq!(wary["event_type"], "rejected", "{wary}");
    assert_eq!(wary["reason"], "the wake word is not in the transcript");
    assert!(wary.get("text").is_none(), "{wary}");

    let woken = event("woken");
    assert_eq!(woken["event_type"], "transcript", "{woken}");
    assert_eq!(woken["wake_word"], "Svitch of");
    assert_eq!(woken["text"], "the fan in the hallway.");

    gemmad.signal("HUP"); // health is told once a minute, and after each reload
    bench.wait_health("wake words are counted", |health| {
        let count = |key: &str| health["queues"][key].as_u64().unwrap();
        count("wake_words") >= 3 && count("wake_rejects") >= 1
    });
    bench.assert_schemas();
    gemmad.stop();
}
