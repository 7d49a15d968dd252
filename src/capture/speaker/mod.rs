//! The speaker: one thread, which says what it is told to, survives the going of its device, and ends when told to.
//!
//! | part | what |
//! | --- | --- |
//! | `player` | the thread: what is heard next, block by block |
//! | `waiting` | what waits to be said: bounded, the newest stays |
//! | `track` | the sound of one speech, a file's or one that is being made |
//! | `signs` | the short sounds |
//! | `output` | what it plays to |
//! | `playback` | ALSA |

mod output;
mod playback;
mod player;
mod signs;
mod track;
mod waiting;

use std::io;
use std::sync::Arc;

use super::EventSink;
use super::card::playback_names;
use super::options::SpeakerOptions;
use super::supervise::{Supervised, Teller, Unavailable};
use crate::media::{CaptureEvent, SpeakerControl, SpeakerEvent, Talking};
use player::Player;

/// What the speaker is called in the log.
const NAME: &str = "speaker";

/// A playback PCM that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerDevice {
    /// Its ALSA name, for `device`.
    pub name: String,
    /// What ALSA says of it, in one line.
    pub description: String,
    /// How sound would be given to it: rate, format, channels; or why it cannot be opened.
    pub takes: Result<String, String>,
}

/// The playback PCMs that ALSA's configuration names. Each is opened for a moment, without a sound.
///
/// # Errors
/// ALSA cannot list them; what it said.
pub fn speakers() -> Result<Vec<SpeakerDevice>, String> {
    let device = |(name, description): (String, String)| SpeakerDevice {
        takes: try_speaker(&name),
        description,
        name,
    };
    let mut found: Vec<_> = playback_names()?.into_iter().map(device).collect();
    found.sort_by_key(|device| device.takes.is_err());
    Ok(found)
}

/// Opens a speaker as the daemon opens it, without a sound, and tells how sound would be given to it: rate, format, channels.
///
/// # Errors
/// It cannot be used; why, and what to do.
pub fn try_speaker(device: &str) -> Result<String, String> {
    playback::try_out(device).map_err(|Unavailable(reason)| reason)
}

/// A speaker that waits for something to say.
pub struct Speaker(Supervised<SpeakerControl>);

impl Speaker {
    /// Opens the device, `volume` percent loud. That it is there is no condition: [`SpeakerEvent::State`] tells.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        options: SpeakerOptions,
        volume: u8,
        talking: Arc<Talking>,
        events: EventSink,
    ) -> io::Result<Speaker> {
        let teller = Teller::new(
            NAME.to_owned(),
            |_, state| CaptureEvent::Speaker(SpeakerEvent::State(state)),
            events,
        );
        let open = Box::new(playback::open);
        let mut player = Player::new(options, volume, talking, teller, open);
        Supervised::start(NAME, move |controls: &_| player.run(controls)).map(Speaker)
    }

    /// Tells the thread what to do.
    pub fn control(&self, control: SpeakerControl) {
        self.0.control(control);
    }

    /// Whether the thread, which was told to end, has.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}
