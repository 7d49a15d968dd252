//! The short sounds: those of the program, made by tools/sounds.py, or files in their place.

use std::path::PathBuf;

use crate::capture::options::SoundFiles;
use crate::capture::supervise::Unavailable;
use crate::features::audio_file::{AudioFileError, AudioLimits, AudioReader};
use crate::media::Sign;

/// Every sign with its key in `[speaker.files]` and its sound.
const BUILT_IN: [(Sign, &str, &[u8]); 5] = [
    (
        Sign::Listening,
        "listening",
        include_bytes!("sounds/listening.wav"),
    ),
    (
        Sign::Understood,
        "understood",
        include_bytes!("sounds/understood.wav"),
    ),
    (
        Sign::NotUnderstood,
        "not_understood",
        include_bytes!("sounds/not_understood.wav"),
    ),
    (Sign::Failed, "failed", include_bytes!("sounds/failed.wav")),
    (Sign::Muted, "muted", include_bytes!("sounds/muted.wav")),
];

/// Largest and longest sound that a file may be.
const LIMITS: AudioLimits = AudioLimits {
    max_file_bytes: 4 << 20,
    max_duration_s: 5,
    max_channels: 64,
};

/// The sounds, at the speaker's rate.
pub(super) struct Signs(Vec<(Sign, Vec<f32>)>);

impl Signs {
    /// Reads them.
    ///
    /// # Errors
    /// A file cannot be read, or is no short sound; which, and why.
    pub(super) fn load(files: &SoundFiles, rate_hz: u32) -> Result<Signs, Unavailable> {
        let load = |(sign, key, built_in): &(Sign, &str, &[u8])| {
            let reader = match replaced(files, *sign) {
                Some(path) => AudioReader::open_at(path, &LIMITS, rate_hz),
                None => AudioReader::from_bytes_at("a sound", built_in, &LIMITS, rate_hz),
            };
            let samples = reader.and_then(all);
            let samples =
                samples.map_err(|error| Unavailable(format!("speaker.files.{key}: {error}")))?;
            Ok((*sign, samples))
        };
        BUILT_IN
            .iter()
            .map(load)
            .collect::<Result<_, _>>()
            .map(Signs)
    }

    /// The samples of one.
    pub(super) fn samples(&self, sign: Sign) -> &[f32] {
        let found = self.0.iter().find(|(other, _)| *other == sign);
        found.map_or(&[], |(_, samples)| samples)
    }
}

fn all(mut reader: AudioReader) -> Result<Vec<f32>, AudioFileError> {
    let mut samples = Vec::new();
    while reader.read(&mut samples)? {}
    Ok(samples)
}

fn replaced(files: &SoundFiles, sign: Sign) -> Option<&PathBuf> {
    match sign {
        Sign::Listening => files.listening.as_ref(),
        Sign::Understood => files.understood.as_ref(),
        Sign::NotUnderstood => files.not_understood.as_ref(),
        Sign::Failed => files.failed.as_ref(),
        Sign::Muted => files.muted.as_ref(),
    }
}
