//! Microphones made of files: ALSA's own `file` plugin, which gives a file's samples as fast as they are read.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes ALSA's configuration for PCMs of these names, each with the samples of `NAME.raw` beside it.
pub(crate) fn write_config(place: &Path, names: &[&str]) -> PathBuf {
    let mut text = "</usr/share/alsa/alsa.conf>\n".to_owned();
    for name in names {
        let file = raw_file(place, name);
        // Only PCMs with a hint are listed.
        text += &format!(
            "pcm.{name} {{ type file slave.pcm null file /dev/null infile \"{}\" format raw\n\
             hint {{ show on description \"of the test\" }} }}\n",
            file.display()
        );
    }
    let path = place.join("asound.conf");
    std::fs::write(&path, text).unwrap();
    path
}

pub(crate) fn raw_file(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{name}.raw"))
}

/// A held-out clip of the demo model with quiet around it, as sox writes it.
pub(crate) fn write_speech(file: &Path, clip: &str) {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models/demo/heldout/audio")
        .join(clip);
    let format = [
        "-t", "raw", "-r", "16000", "-c", "1", "-e", "signed", "-b", "16",
    ];
    let status = Command::new("sox")
        .arg("-D")
        .arg(clip)
        .args(format)
        .arg(file)
        .args(["pad", "1", "2"])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Adds a PCM that is called `speaker` to the configuration of [`write_config`]: what is played to it is written to the file that this
/// gives, at once, 16 bits at 48 kHz.
pub(crate) fn add_speaker(place: &Path) -> PathBuf {
    let (config, file) = (place.join("asound.conf"), raw_file(place, "speaker"));
    let mut text = std::fs::read_to_string(&config).unwrap();
    text += &format!(
        "pcm.speaker {{ type file slave.pcm null file \"{}\" format raw }}\n",
        file.display()
    );
    std::fs::write(&config, text).unwrap();
    file
}

/// Samples of such a file so far.
pub(crate) fn played(file: &Path) -> Vec<i16> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let samples = bytes.as_chunks().0.iter().map(|x| i16::from_le_bytes(*x));
    samples.collect()
}
