//! When a speaker is done, for clients that leave that to the service.
//!
//! Only sound that comes at the pace at which it is spoken is judged: a clip that comes at once has pauses, too, and its client says
//! itself where it ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::features::speech_turn::SpeechTurn;
use crate::media::SAMPLE_RATE_HZ;

/// Nobody who has not begun by then is waited for.
const NOBODY_SPEAKS: Duration = Duration::from_secs(8);

/// Share of the silence that has to pass outside, too.
const LIVED: f32 = 0.8;

/// What clients call how soon a speaker is done, and the silence that it means beside the usual one: Home Assistant's own proportions.
const SENSITIVITIES: [(&str, f32); 2] = [("relaxed", 1.25 / 0.7), ("aggressive", 0.25 / 0.7)];

/// Listens for the end.
pub(super) struct Turn {
    speech: SpeechTurn,
    silence: Duration,
    /// When speech came last, or the first sound.
    spoke_at: Instant,
}

impl Turn {
    /// From now on; a speaker is done after so much silence, more or less of it as `sensitivity` says.
    pub(super) fn new(silence_ms: u32, sensitivity: Option<&str>, threshold: f32) -> Turn {
        let named = |(name, _): &&(&str, f32)| Some(*name) == sensitivity;
        let share = SENSITIVITIES
            .iter()
            .find(named)
            .map_or(1.0, |found| found.1);
        Turn {
            speech: SpeechTurn::new(threshold),
            silence: Duration::from_millis(silence_ms.into()).mul_f32(share),
            spoke_at: Instant::now(),
        }
    }

    /// Hears what came now; whether the speaker is done, or nobody speaks at all.
    pub(super) fn is_over(&mut self, samples: &[f32]) -> bool {
        if self.speech.push(samples) {
            self.spoke_at = Instant::now();
        }
        let patience = match self.speech.spoke() {
            true => self.silence,
            false => NOBODY_SPEAKS,
        };
        let silence = self.speech.silence() as f32 / SAMPLE_RATE_HZ as f32;
        // A network that stalls brings the silence late and at once: most of it has to be lived through.
        silence >= patience.as_secs_f32() && self.spoke_at.elapsed() >= patience.mul_f32(LIVED)
    }
}
