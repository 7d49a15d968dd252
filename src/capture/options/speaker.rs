//! `[speaker]`: what is played to, and how what is said is made sound.

use std::path::PathBuf;

use serde::Deserialize;

use crate::values::between;

/// `[speaker]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SpeakerOptions {
    /// An ALSA PCM to play to; absent: nothing is played.
    pub device: Option<String>,
    /// How loud, percent, until somebody turns it.
    pub volume: u8,
    /// The same while somebody is listened to, percent of that.
    pub ducked: u8,
    /// Microphones rest while something is said.
    pub half_duplex: bool,
    /// For so long afterwards, too, milliseconds: the room goes on sounding.
    pub tail_ms: u32,
    /// Sounds tell how it stands with what somebody says.
    pub sounds: bool,
    /// Files that are heard in the place of the built-in sounds.
    pub files: SoundFiles,
    /// What may wait to be said; of more, the oldest is dropped.
    pub waiting: usize,
    /// Largest audio file that is played, bytes.
    pub max_audio_bytes: usize,
    /// Longest that is said at once, seconds.
    pub longest_s: u32,
    /// A text-to-speech server of the Wyoming protocol, `tcp://HOST:PORT`; absent: texts cannot be said.
    pub tts: Option<String>,
    /// The voice that it is asked for; absent: its own choice.
    pub tts_voice: Option<String>,
    /// How long it may say nothing, seconds.
    pub tts_patience_s: u32,
}

/// `[speaker.files]`: WAV, FLAC, OGG or MP3 files.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SoundFiles {
    /// It is listened now.
    pub listening: Option<PathBuf>,
    /// It was understood.
    pub understood: Option<PathBuf>,
    /// It was not understood, or nothing was said.
    pub not_understood: Option<PathBuf>,
    /// It could not be worked on.
    pub failed: Option<PathBuf>,
    /// A microphone was muted.
    pub muted: Option<PathBuf>,
}

impl Default for SpeakerOptions {
    fn default() -> SpeakerOptions {
        SpeakerOptions {
            device: None,
            volume: 80,
            ducked: 30,
            half_duplex: true,
            tail_ms: 300,
            sounds: true,
            files: SoundFiles::default(),
            waiting: 8,
            max_audio_bytes: 16 << 20,
            longest_s: 300,
            tts: None,
            tts_voice: None,
            tts_patience_s: 10,
        }
    }
}

impl SpeakerOptions {
    /// Host and port of the text-to-speech server.
    pub fn tts_address(&self) -> Option<&str> {
        self.tts.as_deref()?.strip_prefix("tcp://")
    }

    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        if self
            .device
            .as_ref()
            .is_some_and(|it| it.is_empty() || it.contains('\0'))
        {
            return Err(
                "speaker.device is no ALSA PCM name; `gemmad devices` lists those there are".into(),
            );
        }
        between("speaker.volume", self.volume, 0, 100)?;
        between("speaker.ducked", self.ducked, 0, 100)?;
        between("speaker.tail_ms", self.tail_ms, 0, 5_000)?;
        between("speaker.waiting", self.waiting, 1, 64)?;
        between(
            "speaker.max_audio_bytes",
            self.max_audio_bytes,
            1 << 10,
            256 << 20,
        )?;
        between("speaker.longest_s", self.longest_s, 1, 3_600)?;
        between("speaker.tts_patience_s", self.tts_patience_s, 1, 120)?;
        let has_port = |address: &str| {
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if self.tts.is_some() && !self.tts_address().is_some_and(has_port) {
            return Err("speaker.tts is no address of a server: it is written tcp://HOST:PORT, such as tcp://127.0.0.1:10200".into());
        }
        Ok(())
    }
}
