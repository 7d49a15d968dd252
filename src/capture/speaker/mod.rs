//! The speaker: one thread, which says what it is told to, survives the going of its device, and ends when told to.
//!
//! | part | what |
//! | --- | --- |
//! | `player` | the thread: what is heard next, block by block |
//! | `waiting` | what waits to be said: bounded, the newest stays |
//! | `track` | the sound of one speech, a file's or one that is being made |
//! | `signs` | the short sounds |
//! | `playback` | ALSA |

mod playback;
mod player;
mod signs;
mod track;
mod waiting;

use std::io;
use std::sync::Arc;

use super::EventSink;
use super::options::SpeakerOptions;
use super::supervise::{Supervised, Teller, Unavailable};
use crate::media::{CaptureEvent, SpeakerControl, SpeakerEvent, Talking};
use player::Player;

/// What the speaker is called in the log.
const NAME: &str = "speaker";

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
