//! The sound of a client as the model hears it: 16 kHz, mono, not longer than is heard at once.

use crate::features::resample::{Resampler, downmix};
use crate::features::wav::Encoding;
use crate::media::SAMPLE_RATE_HZ;

use super::framing::Event;

/// Most channels: what any microphone array has.
const MAX_CHANNELS: u64 = 64;

/// Turns the bytes of `audio-chunk` into samples.
pub(super) struct Sound {
    encoding: Encoding,
    channels: usize,
    resampler: Resampler,
    /// Samples that may still come.
    left: usize,
    /// The beginning of a frame whose end is still to come: clients cut their sound where they like.
    rest: Vec<u8>,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
}

impl Sound {
    /// As `audio-start` or `audio-chunk` says: `rate` in Hz, `width` in bytes, `channels`.
    ///
    /// # Errors
    /// A format that cannot be read, in words.
    pub(super) fn new(event: &Event, longest_s: u32) -> Result<Sound, String> {
        Sound::at(SAMPLE_RATE_HZ, event, longest_s)
    }

    /// The same, at another rate than the model's.
    ///
    /// # Errors
    /// A format that cannot be read, in words.
    pub(super) fn at(to_hz: u32, event: &Event, longest_s: u32) -> Result<Sound, String> {
        let encoding = match event.number("width")? {
            2 => Encoding::S16,
            3 => Encoding::S24,
            4 => Encoding::S32,
            width => {
                return Err(format!(
                    "samples of {width} bytes cannot be read; send 2, 3 or 4"
                ));
            }
        };
        let channels = event.number("channels")?;
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(format!(
                "{channels} channels cannot be read; send 1 to {MAX_CHANNELS}"
            ));
        }
        let rate_hz = u32::try_from(event.number("rate")?).unwrap_or(u32::MAX);
        let resampler = Resampler::new(rate_hz, to_hz).map_err(|e| e.to_string())?;
        Ok(Sound {
            encoding,
            channels: channels as usize,
            resampler,
            left: (to_hz * longest_s) as usize,
            rest: Vec::new(),
            interleaved: Vec::new(),
            mono: Vec::new(),
        })
    }

    /// The samples of a chunk.
    ///
    /// # Errors
    /// The chunk cannot be resampled, in words.
    pub(super) fn samples(&mut self, bytes: &[u8]) -> Result<Vec<f32>, String> {
        self.interleaved.clear();
        self.mono.clear();
        self.rest.extend_from_slice(bytes);
        let frame = self.encoding.bytes() * self.channels;
        let whole = self.rest.len() / frame * frame;
        self.encoding
            .decode(&self.rest[..whole], &mut self.interleaved);
        self.rest.drain(..whole);
        downmix(&self.interleaved, self.channels, &mut self.mono);
        let mut samples = Vec::new();
        self.resampler
            .push(&self.mono, &mut samples)
            .map_err(|error| error.to_string())?;
        samples.truncate(self.left);
        self.left -= samples.len();
        Ok(samples)
    }

    /// Whether nothing more is heard.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }
}
