//! ALSA: a capture PCM, opened as it likes to be, and read as 16 kHz mono.

use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, HwParams, PCM};
use alsa::{Direction, ValueOr};

use super::card::{capture_names, explain_capture as explain, keep_quiet};
use super::listener::{Heard, Sound};
use super::supervise::Unavailable;
use crate::features::resample::{Resampler, downmix};
use crate::features::wav::Encoding;
use crate::media::SAMPLE_RATE_HZ;

/// Formats that are understood, in the order of preference.
const FORMATS: [(Format, &str, Encoding); 5] = [
    (Format::S16LE, "S16_LE", Encoding::S16),
    (Format::S32LE, "S32_LE", Encoding::S32),
    (Format::S243LE, "S24_3LE", Encoding::S24),
    (Format::FloatLE, "FLOAT_LE", Encoding::F32),
    (Format::U8, "U8", Encoding::U8),
];

/// Rates that are asked for in turn: the model's, then those that it divides.
const RATES_HZ: [u32; 4] = [SAMPLE_RATE_HZ, 48_000, 32_000, 96_000];

/// Most channels that are opened; arrays beyond need a PCM that picks some (`route`).
const MAX_CHANNELS: u32 = 64;

/// Sound that the kernel keeps while nobody reads, and how often it wakes the reader, microseconds.
const BUFFER_US: u32 = 1_000_000;
const PERIOD_US: u32 = 40_000;

/// Sound that a device may give before its time: what lay in its buffers when it was opened, and drift.
const MAX_AHEAD: Duration = Duration::from_millis(500);

/// Frames that are read together at most.
const READ_FRAMES: usize = 4096;

/// An open capture device.
pub(super) struct Pcm {
    device: String,
    pcm: PCM,
    encoding: Encoding,
    channels: usize,
    resampler: Resampler,
    rate_hz: u32,
    opened: Instant,
    /// Frames that were read.
    frames: u64,
    bytes: Vec<u8>,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
}

impl Pcm {
    /// Opens `device` and starts it.
    pub(super) fn open(device: &str) -> Result<Pcm, Unavailable> {
        keep_quiet();
        let failed = |error: alsa::Error| Unavailable(explain(device, error.errno().abs()));
        let pcm = PCM::new(device, Direction::Capture, true).map_err(failed)?;
        let (encoding, channels, rate_hz) = configure(&pcm, device)?;
        let resampler = Resampler::new(rate_hz, SAMPLE_RATE_HZ)
            .map_err(|error| Unavailable(format!("ALSA device `{device}`: {error}")))?;
        pcm.start().map_err(failed)?;
        Ok(Pcm {
            device: device.to_owned(),
            pcm,
            encoding,
            channels,
            resampler,
            rate_hz,
            opened: Instant::now(),
            frames: 0,
            bytes: vec![0; READ_FRAMES * channels * encoding.bytes()],
            interleaved: Vec::new(),
            mono: Vec::new(),
        })
    }
}

impl Sound for Pcm {
    fn read(&mut self, wait: Duration, samples: &mut Vec<f32>) -> Result<Heard, Unavailable> {
        let device = &self.device;
        // PCMs without a clock (`null`, `file`) give whatever is asked for; nobody speaks faster than time passes.
        let given = Duration::from_secs_f64(self.frames as f64 / f64::from(self.rate_hz));
        let ahead = given.saturating_sub(self.opened.elapsed());
        if ahead > MAX_AHEAD {
            std::thread::sleep(wait.min(ahead - MAX_AHEAD));
            return Ok(Heard {
                any: true,
                overrun: false,
            });
        }
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let result = match self.pcm.wait(Some(wait_ms)) {
            Ok(true) => self.pcm.io_bytes().readi(&mut self.bytes),
            Ok(false) => return Ok(Heard::default()),
            Err(error) => Err(error),
        };
        match result.map_err(|error| error.errno().abs()) {
            Ok(0) | Err(libc::EAGAIN) => {
                // A source that claims to be ready and gives nothing must not be asked without a pause.
                std::thread::sleep(wait.min(Duration::from_millis(20)));
                Ok(Heard::default())
            }
            Ok(frames) => {
                self.frames += frames as u64;
                let len = frames * self.channels * self.encoding.bytes();
                self.interleaved.clear();
                self.mono.clear();
                self.encoding
                    .decode(&self.bytes[..len], &mut self.interleaved);
                downmix(&self.interleaved, self.channels, &mut self.mono);
                self.resampler
                    .push(&self.mono, samples)
                    .map_err(|error| Unavailable(format!("ALSA device `{device}`: {error}")))?;
                Ok(Heard {
                    any: true,
                    overrun: false,
                })
            }
            // Nobody read in time, or the board slept: both lose sound, and both can be gone on from.
            Err(errno @ (libc::EPIPE | libc::ESTRPIPE)) => {
                let gone = |error: alsa::Error| Unavailable(explain(device, error.errno().abs()));
                self.pcm.recover(errno, true).map_err(gone)?;
                self.pcm.start().map_err(gone)?;
                (self.opened, self.frames) = (Instant::now(), 0);
                Ok(Heard {
                    any: false,
                    overrun: true,
                })
            }
            Err(errno) => {
                keep_quiet();
                Err(Unavailable(explain(device, errno)))
            }
        }
    }
}

/// Takes what the device gives without conversion by ALSA, whose linear resampler is worse than ours.
fn configure(pcm: &PCM, device: &str) -> Result<(Encoding, usize, u32), Unavailable> {
    let failed = |error: alsa::Error| Unavailable(explain(device, error.errno().abs()));
    let params = HwParams::any(pcm).map_err(failed)?;
    params.set_rate_resample(false).map_err(failed)?;
    params.set_access(Access::RWInterleaved).map_err(failed)?;
    let format = FORMATS
        .iter()
        .find(|(format, ..)| params.test_format(*format).is_ok());
    let Some(&(format, _, encoding)) = format else {
        return Err(Unavailable(format!(
            "ALSA device `{device}` gives none of the formats {}; open it through `plug` (`plughw:…` for `hw:…`)",
            FORMATS.map(|(_, name, _)| name).join(", ")
        )));
    };
    params.set_format(format).map_err(failed)?;
    let channels = params.set_channels_near(1).map_err(failed)?;
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(Unavailable(format!(
            "ALSA device `{device}` has {channels} channels, expected 1 to {MAX_CHANNELS}"
        )));
    }
    let exact = RATES_HZ
        .iter()
        .find(|rate| params.test_rate(**rate).is_ok());
    let rate_hz = match exact {
        Some(rate) => params.set_rate(*rate, ValueOr::Nearest).map(|()| *rate),
        None => params.set_rate_near(SAMPLE_RATE_HZ, ValueOr::Nearest),
    };
    let rate_hz = rate_hz.map_err(failed)?;
    // Wishes: a device that has its own idea of them works too.
    params
        .set_buffer_time_near(BUFFER_US, ValueOr::Nearest)
        .ok();
    params
        .set_period_time_near(PERIOD_US, ValueOr::Nearest)
        .ok();
    pcm.hw_params(&params).map_err(failed)?;
    Ok((encoding, channels as usize, rate_hz))
}

/// A capture PCM that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicrophoneDevice {
    /// Its ALSA name, for `device`.
    pub name: String,
    /// What ALSA says of it, in one line.
    pub description: String,
    /// What it gives, or why it cannot be opened.
    pub formats: Result<SampleFormats, String>,
}

/// What a capture PCM gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleFormats {
    /// Those that are understood, by ALSA's names.
    pub formats: Vec<&'static str>,
    /// Lowest and highest rate, Hz.
    pub rates_hz: [u32; 2],
    /// Least and most channels.
    pub channels: [u32; 2],
}

/// The capture PCMs that ALSA's configuration names.
///
/// # Errors
/// ALSA cannot list them; what it said.
pub fn microphones() -> Result<Vec<MicrophoneDevice>, String> {
    let device = |(name, description): (String, String)| MicrophoneDevice {
        formats: sample_formats(&name),
        description,
        name,
    };
    let mut found: Vec<_> = capture_names()?.into_iter().map(device).collect();
    found.sort_by_key(|device| device.formats.is_err());
    Ok(found)
}

fn sample_formats(device: &str) -> Result<SampleFormats, String> {
    let failed = |error: alsa::Error| explain(device, error.errno().abs());
    let pcm = PCM::new(device, Direction::Capture, true).map_err(failed)?;
    let params = HwParams::any(&pcm).map_err(failed)?;
    let given = FORMATS
        .iter()
        .filter(|(format, ..)| params.test_format(*format).is_ok());
    Ok(SampleFormats {
        formats: given.map(|(_, name, _)| *name).collect(),
        rates_hz: [
            params.get_rate_min().map_err(failed)?,
            params.get_rate_max().map_err(failed)?,
        ],
        channels: [
            params.get_channels_min().map_err(failed)?,
            params.get_channels_max().map_err(failed)?,
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        for (errno, words) in [
            (libc::EBUSY, ["another program", "PipeWire"]),
            (libc::EACCES, ["group `audio`", "SupplementaryGroups"]),
            (libc::ENOENT, ["plugged in", "gemmad devices"]),
            (libc::ENODEV, ["gone", "unplugged"]),
            (libc::ENOMEM, ["cannot be used", "memory"]),
        ] {
            let told = explain("plughw:CARD=Webcam", errno);
            assert!(
                words.iter().all(|word| told.contains(word)) && told.contains("CARD=Webcam"),
                "{told}"
            );
        }
    }
}
