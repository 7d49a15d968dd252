//! `[[microphone]]`, `[[camera]]` and `[speaker]`: what is listened to, watched and played to. What a source of one type alone has stands beside that source.

mod camera;
mod frigate;
mod microphone;
mod speaker;

use std::collections::BTreeSet;

pub use camera::{CameraOptions, CameraType};
pub use frigate::frigate_cameras;
pub use microphone::{
    MicrophoneOptions, MicrophoneType, SpeechDetection, Trigger, VoiceAnswer, WakeOptions,
};
pub use speaker::{SoundFiles, SpeakerOptions};

/// Longest id of a microphone or a camera: topics and names of Home Assistant's devices are made of it.
const MAX_ID_BYTES: usize = 64;

/// Looks whether the values of microphones fit their keys and each other, and whether ids are given twice.
///
/// # Errors
/// The first that does not: which device, which key, what stands there and what may.
pub fn check(microphones: &[MicrophoneOptions], cameras: &[CameraOptions]) -> Result<(), String> {
    for microphone in microphones {
        fits_topics("microphone", &microphone.id)?;
    }
    differ("microphone", microphones.iter().map(|m| m.id.as_str()))?;
    differ("camera", cameras.iter().map(|c| c.id.as_str()))?;
    for microphone in microphones {
        microphone
            .check()
            .map_err(|reason| format!("microphone `{}`: {reason}", microphone.id))?;
    }
    Ok(())
}

fn fits_topics(kind: &str, id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.chars().all(fits) {
        let shown: String = id.chars().take(MAX_ID_BYTES).collect();
        return Err(format!(
            "{kind}.id is {shown:?}; it may hold up to {MAX_ID_BYTES} of a-z, 0-9, `_` and `-`, since it becomes part of topics"
        ));
    }
    Ok(())
}

fn differ<'a>(kind: &str, ids: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(format!(
                "{kind}.id {id:?} is given twice; each {kind} needs its own"
            ));
        }
    }
    Ok(())
}
