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
